//! The vectors of the activations.
//!
//! [`load`] reads them, [`Case::mismatches`] compares what any device computed with them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use evenkeel::quant::{GeluKind, Smoothing};
use evenkeel::reference::quant::activation::{
    Function, Gradients, Inputs as Branches, Scales, backward, forward, smoothing_scales,
};
use evenkeel::reference::{FloatRows, FloatRowsMut};

use super::{DOUBLE, Tolerance, blocks, numbers};

/// Tensors that cases share.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The element types that hold them exactly, by name.
    pub types: Vec<String>,
    /// Tokens, channels.
    pub shape: [usize; 2],
    /// x, up and dy.
    pub tensors: HashMap<String, Vec<f32>>,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its place in the file and its options, for messages.
    pub name: String,
    pub inputs: Arc<Inputs>,
    pub function: Function,
    pub smoothing: Option<Smoothing>,
    pub expected: Results,
}

/// Tensors by the names that the file gives them.
pub type Results = BTreeMap<String, Vec<f64>>;

impl Case {
    /// What of `got` is not as expected; empty when all that was computed is. The size that the
    /// tolerance is relative to is the largest of a row.
    pub fn mismatches(&self, got: &Results, tolerance: Tolerance) -> Vec<String> {
        let mut found = Vec::new();
        assert_eq!(
            self.expected.keys().collect::<Vec<_>>(),
            got.keys().collect::<Vec<_>>(),
            "{}",
            self.name
        );
        let channels = self.inputs.shape[1];
        for (what, got) in got {
            let want = &self.expected[what];
            assert_eq!(got.len(), want.len(), "{what} of {}", self.name);
            let row = if what == "scales" { 1 } else { channels };
            for (i, (&got, &want_here)) in got.iter().zip(want).enumerate() {
                let row = &want[i / row * row..][..row];
                let size = row
                    .iter()
                    .fold(0.0_f64, |size, value| size.max(value.abs()));
                let wrong = tolerance.mismatch(got, want_here, size);
                found.extend(wrong.map(|wrong| format!("{}: {what} {i} {wrong}", self.name)));
            }
        }
        found
    }
}

/// The cases of `activation.txt`.
pub fn load() -> Vec<Case> {
    let mut inputs: HashMap<String, Arc<Inputs>> = HashMap::new();
    let mut cases = Vec::new();
    for block in blocks("activation.txt") {
        if block.kind == "inputs" {
            let mut read = Inputs::default();
            for (key, values) in block.lines() {
                match key {
                    "types" => read.types = values.split(' ').map(str::to_owned).collect(),
                    "shape" => read.shape = numbers(values).try_into().unwrap(),
                    _ => drop(read.tensors.insert(key.to_owned(), numbers(values))),
                }
            }
            inputs.insert(block.name.clone(), Arc::new(read));
            continue;
        }
        let mut lines = block.lines();
        let options: HashMap<&str, &str> = lines
            .by_ref()
            .take_while(|(key, _)| *key != "results")
            .collect();
        let function = match options["op"] {
            "swiglu" => Function::SwiGlu,
            "gelu-exact" => Function::Gelu(GeluKind::Exact),
            "gelu-tanh" => Function::Gelu(GeluKind::Tanh),
            other => panic!("there is no operation {other:?}"),
        };
        let smoothing = options.get("smoothing");
        cases.push(Case {
            name: format!("case {} on {}, {options:?}", cases.len() + 1, block.name),
            inputs: inputs[&block.name].clone(),
            function,
            smoothing: smoothing.map(|smoothing| smoothing.parse().unwrap()),
            expected: lines
                .map(|(key, values)| (key.to_owned(), numbers(values)))
                .collect(),
        });
    }
    cases
}

/// What the reference computes for a case.
fn reference(case: &Case) -> Results {
    let [tokens, channels] = case.inputs.shape;
    let rows = |name: &str| {
        FloatRows::new(&case.inputs.tensors[name][..], tokens, channels, channels).unwrap()
    };
    fn into(data: &mut Vec<f64>, [tokens, channels]: [usize; 2]) -> FloatRowsMut<'_> {
        FloatRowsMut::new(data, tokens, channels, channels).unwrap()
    }
    let shape = case.inputs.shape;
    let blank = || vec![f64::NAN; tokens * channels];
    let gated = case.function == Function::SwiGlu;
    let branches = Branches {
        x: rows("x"),
        up: gated.then(|| rows("up")),
    };
    let mut results = Results::new();
    let scales = case
        .smoothing
        .map(|smoothing| smoothing_scales(smoothing, rows("up")));
    let smooth = match (case.smoothing, &scales) {
        (Some(Smoothing::Channel), Some(scales)) => Scales::Channel(scales),
        (Some(_), Some(scales)) => Scales::Token(scales),
        _ => Scales::None,
    };
    let (mut y, mut dgate, mut dup) = (blank(), blank(), blank());
    forward(case.function, branches, smooth, into(&mut y, shape)).unwrap();
    let gradients = if gated {
        Gradients::Two(into(&mut dgate, shape), into(&mut dup, shape))
    } else {
        Gradients::One(into(&mut dgate, shape))
    };
    backward(case.function, branches, smooth, rows("dy"), gradients).unwrap();
    results.insert("y".into(), y);
    if gated {
        results.insert("dgate".into(), dgate);
        results.insert("dup".into(), dup);
    } else {
        results.insert("dx".into(), dgate);
    }
    if let Some(scales) = &scales {
        let scales = scales.iter().map(|&scale| scale.into()).collect();
        results.insert("scales".into(), scales);
    }
    results
}

#[test]
fn the_reference_agrees_with_jax() {
    let cases = load();
    assert!(cases.len() >= 30, "{} cases", cases.len());
    for case in &cases {
        let wrong = case.mismatches(&reference(case), DOUBLE);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
