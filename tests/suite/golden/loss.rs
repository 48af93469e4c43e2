//! The vectors of the softmax losses.
//!
//! [`load`] reads them, [`Case::mismatches`] compares what any device computed with them.

use std::collections::HashMap;
use std::sync::Arc;

use evenkeel::loss::{Criterion, LossOptions};
use evenkeel::reference::loss::RowState;
use evenkeel::reference::loss::batch::{
    Batch, Forward, Upstream, backward, forward, forward_backward, log_probs, log_probs_backward,
};
use evenkeel::reference::{Indices, PerToken, Rows, RowsMut};

use super::{DOUBLE, Tolerance, blocks, numbers};

/// A batch that cases share.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The element types that hold its logits exactly, by name.
    pub types: Vec<String>,
    pub tokens: usize,
    pub vocab: usize,
    pub logits: Vec<f32>,
    pub targets: Vec<i64>,
    pub weights: Vec<f32>,
    pub class_mask: Vec<u32>,
    /// One upstream gradient for each token.
    pub upstream: Vec<f32>,
    /// The divisor of the mean over a given count.
    pub divisor: f32,
    pub offsets: Vec<i64>,
}

/// What a gradient is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Of {
    /// The loss: reduced, or each token's weighted by [`Inputs::upstream`].
    pub loss: bool,
    /// The sum of the tokens' lp weighted by [`Inputs::upstream`]; likewise the next two.
    pub lp: bool,
    pub entropy: bool,
    pub lse: bool,
}

/// Results of one case, expected or computed. What a device did not compute is empty.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// The loss of the batch.
    pub reduced: Option<f64>,
    /// One for each token, as are the next seven.
    pub losses: Vec<f64>,
    pub lse: Vec<f64>,
    pub lp: Vec<f64>,
    pub entropy: Vec<f64>,
    pub sum_p2: Vec<f64>,
    pub el2n: Vec<f64>,
    pub argmax: Vec<usize>,
    pub kept: Vec<bool>,
    /// `[tokens, vocab]`, scaled by the reduction.
    pub gradient: Vec<f64>,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its place in the file and its options, for messages.
    pub name: String,
    pub inputs: Arc<Inputs>,
    pub options: LossOptions,
    /// Whether the batch's mask, and its weights, are used.
    pub masked: bool,
    pub weighted: bool,
    pub gradient_of: Of,
    pub expected: Results,
}

impl Case {
    /// What of `got` is not as expected; empty when all that was computed is.
    pub fn mismatches(&self, got: &Results, tolerance: Tolerance) -> Vec<String> {
        let want = &self.expected;
        let mut found = Vec::new();
        let mut compare = |what: String, got: f64, want: f64, size: f64| {
            let wrong = tolerance.mismatch(got, want, size);
            found.extend(wrong.map(|wrong| format!("{}: {what} {wrong}", self.name)));
        };
        if let (Some(got), Some(want)) = (got.reduced, want.reduced) {
            compare("the loss".into(), got, want, want.abs());
        }
        for (what, got, want) in [
            ("loss", &got.losses, &want.losses),
            ("lse", &got.lse, &want.lse),
            ("lp", &got.lp, &want.lp),
            ("entropy", &got.entropy, &want.entropy),
            ("sum_p2", &got.sum_p2, &want.sum_p2),
            ("el2n", &got.el2n, &want.el2n),
        ] {
            for (token, (&got, &want)) in got.iter().zip(want).enumerate() {
                compare(format!("{what} of token {token}"), got, want, want.abs());
            }
        }
        let vocab = self.inputs.vocab;
        let rows = got.gradient.chunks(vocab).zip(want.gradient.chunks(vocab));
        for (token, (got, want)) in rows.enumerate() {
            let size = want.iter().fold(0.0_f64, |size, dx| size.max(dx.abs()));
            for (class, (&got, &want)) in got.iter().zip(want).enumerate() {
                let what = format!("gradient of token {token}, class {class}");
                compare(what, got, want, size);
            }
        }
        for (token, (got, want)) in got.argmax.iter().zip(&want.argmax).enumerate() {
            if got != want {
                let name = &self.name;
                found.push(format!(
                    "{name}: argmax of token {token} is {got}, not {want}"
                ));
            }
        }
        for (token, (got, want)) in got.kept.iter().zip(&want.kept).enumerate() {
            if got != want {
                let name = &self.name;
                found.push(format!(
                    "{name}: kept of token {token} is {got}, not {want}"
                ));
            }
        }
        found
    }
}

/// The cases of `loss.txt`.
pub fn load() -> Vec<Case> {
    let mut inputs: HashMap<String, Arc<Inputs>> = HashMap::new();
    let mut cases = Vec::new();
    for block in blocks("loss.txt") {
        let name = &block.name;
        if block.kind == "inputs" {
            inputs.insert(name.clone(), Arc::new(parse_inputs(block.lines())));
        } else {
            let name_of_case = format!("case {} on {name}", cases.len() + 1);
            let inputs = inputs[name].clone();
            cases.push(parse_case(name_of_case, inputs, block.lines()));
        }
    }
    cases
}

fn parse_inputs<'a>(lines: impl Iterator<Item = (&'a str, &'a str)>) -> Inputs {
    let mut inputs = Inputs::default();
    for (key, values) in lines {
        match key {
            "types" => inputs.types = values.split(' ').map(str::to_owned).collect(),
            "shape" => {
                let shape: Vec<usize> = numbers(values);
                (inputs.tokens, inputs.vocab) = (shape[0], shape[1]);
            }
            "logits" => inputs.logits = numbers(values),
            "targets" => inputs.targets = numbers(values),
            "weights" => inputs.weights = numbers(values),
            "mask" => inputs.class_mask = numbers(values),
            "upstream" => inputs.upstream = numbers(values),
            "tokens" => inputs.divisor = values.parse().unwrap(),
            "offsets" => inputs.offsets = numbers(values),
            _ => panic!("inputs have no {key:?}"),
        }
    }
    assert_eq!(inputs.logits.len(), inputs.tokens * inputs.vocab);
    inputs
}

fn parse_case<'a>(
    mut name: String,
    inputs: Arc<Inputs>,
    mut lines: impl Iterator<Item = (&'a str, &'a str)>,
) -> Case {
    let mut options = LossOptions::default();
    let mut gradient_of = Of::default();
    let mut expected = Results::default();
    let (mut masked, mut weighted, mut paper) = (false, false, false);
    // The options come first, the results from `reduced` on.
    for (key, values) in lines.by_ref() {
        let number = || values.parse::<f32>().unwrap();
        match key {
            "paper" => paper = true,
            "criterion" => options.criterion = values.parse::<Criterion>().unwrap(),
            "softcap" => options.softcap = Some(number()),
            "temperature" => options.temperature = number(),
            "z_loss" => options.z_loss = number(),
            "label_smoothing" => options.label_smoothing = number(),
            "entropy" => options.entropy = number(),
            "spectral_decoupling" => options.spectral_decoupling = number(),
            "ignore_index" => options.ignore_index = values.parse().unwrap(),
            "reduction" => options.reduction = values.parse().unwrap(),
            "mask" => masked = true,
            "weights" => weighted = true,
            "upstream" => {
                for of in values.split(' ') {
                    match of {
                        "loss" => gradient_of.loss = true,
                        "lp" => gradient_of.lp = true,
                        "entropy" => gradient_of.entropy = true,
                        "lse" => gradient_of.lse = true,
                        _ => panic!("no gradient of {of:?}"),
                    }
                }
            }
            "reduced" => {
                expected.reduced = Some(values.parse().unwrap());
                break;
            }
            _ => panic!("a case has no option {key:?}"),
        }
        name += &format!(", {key} {values}");
    }
    for (key, values) in lines {
        match key {
            "losses" => expected.losses = numbers(values),
            "lse" => expected.lse = numbers(values),
            "lp" => expected.lp = numbers(values),
            "entropy" => expected.entropy = numbers(values),
            "sum_p2" => expected.sum_p2 = numbers(values),
            "el2n" => expected.el2n = numbers(values),
            "argmax" => expected.argmax = numbers(values),
            "kept" => expected.kept = values.split(' ').map(|kept| kept == "1").collect(),
            "gradient" => expected.gradient = numbers(values),
            _ => panic!("a case has no result {key:?}"),
        }
    }
    if paper {
        // The paper's code divides by the count plus 1e-8.
        let count = expected.kept.iter().filter(|&&kept| kept).count() as f64;
        let undo = (count + 1e-8) / count;
        expected.reduced = expected.reduced.map(|loss| loss * undo);
        expected.gradient.iter_mut().for_each(|dx| *dx *= undo);
    }
    // What is absent would be compared with nothing. The paper's code has no statistics.
    let each = [
        expected.losses.len(),
        expected.kept.len(),
        expected.gradient.len() / inputs.vocab,
    ];
    let statistics = [
        expected.lse.len(),
        expected.lp.len(),
        expected.entropy.len(),
        expected.sum_p2.len(),
        expected.el2n.len(),
        expected.argmax.len(),
    ];
    let reported = if paper { 0 } else { inputs.tokens };
    assert_eq!(each, [inputs.tokens; 3], "{name}");
    assert_eq!(statistics, [reported; 6], "{name}");
    assert_eq!(expected.gradient.len(), inputs.tokens * inputs.vocab);
    Case {
        name,
        inputs,
        options,
        masked,
        weighted,
        gradient_of,
        expected,
    }
}

/// The reference's batch of a case.
fn batch(case: &Case) -> Batch<'_> {
    let inputs = &*case.inputs;
    let mut batch = Batch::new(inputs.vocab, Indices::I64(&inputs.targets));
    batch.token_weights = case.weighted.then_some(&inputs.weights[..]);
    batch.class_mask = case.masked.then_some(&inputs.class_mask[..]);
    batch.tokens = Some(inputs.divisor.into());
    batch.offsets = Some(Indices::I64(&inputs.offsets));
    batch
}

fn results(forward: &Forward, gradient: Vec<f64>) -> Results {
    let each = |of: fn(&evenkeel::reference::loss::RowResult) -> f64| {
        forward.rows.iter().map(of).collect::<Vec<f64>>()
    };
    Results {
        reduced: Some(forward.loss),
        losses: each(|row| row.loss),
        lse: each(|row| row.lse),
        lp: each(|row| row.state.lp),
        entropy: each(|row| row.state.entropy),
        sum_p2: each(|row| row.state.sum_p2),
        el2n: each(|row| row.el2n),
        argmax: forward.rows.iter().map(|row| row.argmax).collect(),
        kept: forward.rows.iter().map(|row| row.kept()).collect(),
        gradient,
    }
}

fn assert_matches(case: &Case, got: &Results) {
    let found = case.mismatches(got, DOUBLE);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn there_is_a_case_for_everything() {
    let cases = load();
    assert!(cases.len() > 300);
    let some = |of: fn(&Case) -> bool| assert!(cases.iter().any(of));
    some(|case| case.options.softcap.is_some());
    some(|case| case.options.temperature != 1.0);
    some(|case| case.options.z_loss != 0.0);
    some(|case| case.options.label_smoothing != 0.0);
    some(|case| case.options.entropy != 0.0);
    some(|case| case.options.spectral_decoupling != 0.0);
    some(|case| case.options.ignore_index != -100);
    some(|case| case.masked && case.weighted);
    some(|case| case.name.contains("paper GeneralFamily-8"));
    some(|case| case.gradient_of.lp && case.gradient_of.entropy && case.gradient_of.lse);
    some(|case| case.expected.kept.contains(&true) && case.expected.kept.contains(&false));
    for reduction in evenkeel::loss::Reduction::ALL {
        assert!(cases.iter().any(|case| case.options.reduction == reduction));
    }
}

#[test]
fn the_reference_agrees() {
    for case in &load() {
        let inputs = &*case.inputs;
        let (tokens, vocab) = (inputs.tokens, inputs.vocab);
        let batch = batch(case);
        let logits = Rows::new(&inputs.logits, tokens, vocab, vocab).unwrap();
        let none = PerToken::Scalar(0.0);
        let given = PerToken::Tokens(&inputs.upstream);
        let pick = |wanted| if wanted { given } else { none };
        let upstream = Upstream {
            loss: match (case.gradient_of.loss, case.options.reduction) {
                (false, _) => none,
                (true, evenkeel::loss::Reduction::None) => given,
                (true, _) => PerToken::Scalar(1.0),
            },
            lp: pick(case.gradient_of.lp),
            entropy: pick(case.gradient_of.entropy),
            lse: pick(case.gradient_of.lse),
        };

        let saved = forward(&batch, &case.options, logits).unwrap();
        let states: Vec<RowState> = saved.rows.iter().map(|row| row.state).collect();
        let mut gradient = vec![f64::NAN; tokens * vocab];
        let into = RowsMut::new(&mut gradient, tokens, vocab, vocab).unwrap();
        backward(&batch, &case.options, logits, &states, &upstream, into).unwrap();
        assert_matches(case, &results(&saved, gradient.clone()));

        let into = RowsMut::new(&mut gradient, tokens, vocab, vocab).unwrap();
        if case.gradient_of.loss {
            let both =
                forward_backward(&batch, &case.options, logits, upstream.loss, into).unwrap();
            gradient
                .iter_mut()
                .for_each(|dx| *dx *= both.gradient_scale);
            assert_matches(case, &results(&both, gradient));
        } else {
            let saved = log_probs(&batch, &case.options, logits).unwrap();
            log_probs_backward(&batch, &case.options, logits, &states, &upstream, into).unwrap();
            let mut got = results(&saved, gradient);
            (got.reduced, got.losses) = (None, Vec::new());
            assert_matches(case, &got);
        }
    }
}

#[test]
fn a_wrong_result_is_a_mismatch() {
    let case = &load()[0];
    let right = case.expected.clone();
    assert!(case.mismatches(&right, DOUBLE).is_empty());
    let wrong: [fn(&mut Results); 5] = [
        |got| got.reduced = Some(f64::NAN),
        |got| got.losses[0] *= 1.0 + 1e-11,
        |got| got.gradient[0] = -got.gradient[0],
        |got| got.argmax[1] += 1,
        |got| got.kept[0] = !got.kept[0],
    ];
    for change in wrong {
        let mut got = right.clone();
        change(&mut got);
        assert_eq!(case.mismatches(&got, DOUBLE).len(), 1);
    }
}
