//! Compares what a device computed with the reference, result by result.

use evenkeel::loss::{Denominator, KernelPath, Reduction, Statistic};
use evenkeel::reference::loss::{
    RowOptions, RowResult, RowState, RowUpstream, Target, forward, gradient,
};
use evenkeel::{DType, Status};

use super::bounds::{Arithmetic, RowBounds, transformed};
use super::cases::Mode;
use super::gradient::GradientBounds;
use super::problem::Problem;
use super::run::Outcome;
use crate::compare::Verdict;
use crate::memory::UNTOUCHED;
use crate::numbers::Interval;

/// Everything that is known of one row.
struct RowTruth {
    exact: RowResult,
    bounds: RowBounds,
    valid: bool,
}

/// Compares all of `outcome`.
#[must_use]
pub fn compare(problem: &Problem, outcome: &Outcome) -> Verdict {
    let options = problem.effective_options();
    let row_options = RowOptions::from(&options);
    let path = outcome.path.unwrap_or(KernelPath::Reference);
    let size = problem.dtype.size();
    let on = Arithmetic::new(path, problem.vocab, size);
    let mut verdict = Verdict::default();
    let mut wide = Vec::new();
    let truths: Vec<RowTruth> = (0..problem.tokens)
        .map(|token| {
            let row = problem.row(token, &mut wide);
            let exact = forward(&row, &row_options);
            let valid = matches!(row.target, Target::Valid(_));
            let bounds = if valid && !exact.state.max.is_nan() {
                RowBounds::new(&row, &row_options, &exact, &on)
            } else {
                RowBounds::default()
            };
            RowTruth {
                exact,
                bounds,
                valid,
            }
        })
        .collect();

    compare_batch(problem, outcome, &truths, &on, &mut verdict);
    for (token, truth) in truths.iter().enumerate() {
        compare_statistics(problem, outcome, token, truth, &on, &mut verdict);
    }
    if !outcome.memory.is_empty() {
        compare_gradient(problem, outcome, &truths, path, &mut verdict);
    }
    verdict.of(&problem.name)
}

/// Reduced loss, counts, scale and status.
fn compare_batch(
    problem: &Problem,
    outcome: &Outcome,
    truths: &[RowTruth],
    on: &Arithmetic,
    verdict: &mut Verdict,
) {
    let kept: Vec<bool> = truths.iter().map(|truth| truth.exact.kept()).collect();
    let scales = problem.scales(&kept);
    let unit = on.unit;
    if let Some(loss) = outcome.loss {
        // The scale and its product; a thread of 512 adds its share, then 5 merges and 16 warps.
        let adds = (problem.tokens.div_ceil(512) + 16 + 5 + 4) as f64;
        let (mut sum, mut size, mut error) = (0.0, 0.0, 0.0);
        for (truth, &scale) in truths.iter().zip(&scales) {
            if scale != 0.0 {
                sum += truth.exact.loss * scale;
                size += (truth.exact.loss * scale).abs();
                error += truth.bounds.loss * scale.abs();
            }
        }
        let interval = Interval::around(sum, error + adds * unit * size).rounded(DType::F32);
        verdict.number(
            "reduced loss",
            DType::F32,
            loss.into(),
            interval,
            String::new,
        );
    }
    if let Some(counts) = outcome.counts {
        let valid = (0..problem.tokens)
            .filter(|&token| problem.counted(token))
            .count() as u32;
        verdict.equal(|| "the count of valid tokens".into(), &counts.valid, &valid);
        let kept = kept.iter().filter(|&&kept| kept).count() as u32;
        verdict.equal(|| "the count of kept tokens".into(), &counts.kept, &kept);
        let correct = outcome
            .statistic(Statistic::Correct)
            .iter()
            .filter(|&&x| x == 1.0)
            .count();
        verdict.equal(
            || "the count of correct tokens".into(),
            &counts.correct,
            &(correct as u32),
        );
    }
    if let Some(scale) = outcome.gradient_scale {
        let exact = scales.first().copied().unwrap_or(0.0) * upstream_of(problem, 0);
        let interval = Interval::around(exact, 2.0 * unit * exact.abs()).rounded(DType::F32);
        verdict.number(
            "gradient scale",
            DType::F32,
            scale.into(),
            interval,
            String::new,
        );
    }
    let status = truths
        .iter()
        .fold(Status::empty(), |all, truth| all | truth.exact.status);
    let offsets = if problem.offsets_are_bad() {
        Status::BAD_SEQUENCE_OFFSETS
    } else {
        Status::empty()
    };
    verdict.equal(|| "the status".into(), &outcome.status, &(status | offsets));
}

/// The gradient of the loss from above, of a token.
fn upstream_of(problem: &Problem, token: usize) -> f64 {
    match (&problem.upstream_loss, problem.mode.from_state()) {
        (Some(values), _) => f64::from(values[if values.len() == 1 { 0 } else { token }]),
        (None, true) => 0.0,
        (None, false) => 1.0,
    }
}

fn compare_statistics(
    problem: &Problem,
    outcome: &Outcome,
    token: usize,
    truth: &RowTruth,
    on: &Arithmetic,
    verdict: &mut Verdict,
) {
    let RowTruth { exact, bounds, .. } = truth;
    let state = &exact.state;
    for (statistic, values) in &outcome.statistics {
        let got = values[token];
        let (name, value, error) = match statistic {
            Statistic::Loss => ("loss of a token", exact.loss, bounds.loss),
            Statistic::Lse => ("lse", exact.lse, bounds.lse),
            Statistic::Lp => ("lp", state.lp, bounds.lp),
            Statistic::P => ("p", exact.p, bounds.p),
            Statistic::Entropy => ("entropy", state.entropy, bounds.entropy),
            Statistic::SumP2 => ("sum p^2", state.sum_p2, bounds.sum_p2),
            Statistic::El2n => ("EL2N", exact.el2n, bounds.el2n),
            Statistic::Kept => {
                verdict.equal(
                    || format!("kept of token {token}"),
                    &got,
                    &f64::from(u8::from(exact.kept())),
                );
                continue;
            }
            Statistic::Argmax => {
                if !same_maximum(problem, token, got, truth, on) {
                    verdict.wrong(|| {
                        format!(
                            "argmax of token {token} is {got}, expected {}",
                            exact.argmax
                        )
                    });
                }
                continue;
            }
            _ => {
                let argmax = outcome.statistic(Statistic::Argmax)[token];
                let correct =
                    truth.valid && !state.max.is_nan() && argmax == problem.targets[token] as f64;
                verdict.equal(
                    || format!("correct of token {token}"),
                    &got,
                    &f64::from(u8::from(correct)),
                );
                continue;
            }
        };
        let interval = Interval::around(value, error).rounded(DType::F32);
        verdict.number(name, DType::F32, got, interval, || {
            format!(" of token {token}")
        });
    }
    if !outcome.state.is_empty() {
        compare_state(
            &outcome.state[token * 8..token * 8 + 8],
            token,
            truth,
            verdict,
        );
    }
}

/// Whether the class `got` has the largest transformed logit, as far as fp32 can tell.
fn same_maximum(
    problem: &Problem,
    token: usize,
    got: f64,
    truth: &RowTruth,
    on: &Arithmetic,
) -> bool {
    if got == truth.exact.argmax as f64 {
        return true;
    }
    let options = RowOptions::from(&problem.effective_options());
    if !truth.valid || on.transform(&options) == 0.0 || got < 0.0 || got >= problem.vocab as f64 {
        return false;
    }
    let mut wide = Vec::new();
    let row = problem.row(token, &mut wide);
    let z = transformed(&row, got as usize, &options);
    truth.exact.state.max - z <= 2.0 * truth.bounds.tau_max
}

fn compare_state(saved: &[f32], token: usize, truth: &RowTruth, verdict: &mut Verdict) {
    let RowTruth { exact, bounds, .. } = truth;
    let state: &RowState = &exact.state;
    let want = [
        (state.max, bounds.tau_max),
        (state.log_sum, bounds.log_sum),
        (state.lp, bounds.lp),
        (state.one_minus_p, bounds.one_minus_p),
        (state.entropy, bounds.entropy),
        (state.sum_p2, bounds.sum_p2),
    ];
    for (field, (&got, (exact, error))) in saved.iter().zip(want).enumerate() {
        let interval = Interval::around(exact, error).rounded(DType::F32);
        verdict.number("saved state", DType::F32, got.into(), interval, || {
            format!(", field {field} of token {token}")
        });
    }
    // The seventh is only gathered where something needs it.
    let kept = f32::from(u8::from(exact.kept()));
    verdict.equal(
        || format!("the saved `kept` of token {token}"),
        &saved[7],
        &kept,
    );
}

fn compare_gradient(
    problem: &Problem,
    outcome: &Outcome,
    truths: &[RowTruth],
    path: KernelPath,
    verdict: &mut Verdict,
) {
    let options = problem.effective_options();
    let row_options = RowOptions::from(&options);
    let from_state = problem.mode.from_state();
    let on = if from_state && path == KernelPath::Cluster {
        // Backward runs on the block kernel; the forward's sums were the cluster's.
        Arithmetic::new(KernelPath::Cluster, problem.vocab, problem.dtype.size())
    } else {
        Arithmetic::new(path, problem.vocab, problem.dtype.size())
    };
    let kept: Vec<bool> = truths.iter().map(|truth| truth.exact.kept()).collect();
    let scales = problem.scales(&kept);
    let deferred = problem.mode.fused() && options.reduction == Reduction::Mean(Denominator::Kept);
    let mut wide = Vec::new();
    let mut exact_row = vec![0.0; problem.vocab];
    for (token, truth) in truths.iter().enumerate() {
        let got = outcome.row(problem.gradient_layout, problem.vocab, token);
        let (own, padding) = got.split_at(problem.vocab);
        if padding.iter().any(|&x| x != 0.0) {
            verdict
                .wrong(|| format!("the gradient of token {token} is not 0 beyond the vocabulary"));
        }
        let row = problem.row(token, &mut wide);
        let (own_upstream, later) = if deferred {
            (1.0, Some(scales[token] * upstream_of(problem, token)))
        } else {
            (upstream_of(problem, token) * scales[token], None)
        };
        let of = |values: &Option<Vec<f32>>| values.as_ref().map_or(0.0, |v| f64::from(v[token]));
        let [lp, entropy, lse] = &problem.upstream_statistics;
        let log_probs = problem.mode == Mode::LogProbs;
        let upstream = RowUpstream {
            loss: if log_probs { 0.0 } else { own_upstream },
            lp: of(lp),
            entropy: of(entropy),
            lse: of(lse),
        };
        gradient(
            &row,
            &row_options,
            &truth.exact.state,
            &upstream,
            &mut exact_row,
        );
        let finite = truth.valid && !truth.exact.state.max.is_nan();
        let bounds = GradientBounds::new(
            &row,
            &row_options,
            &truth.exact,
            truth.bounds,
            &upstream,
            on,
            from_state,
        )
        .filter(|_| finite);
        for (class, (&got, &exact)) in own.iter().zip(&exact_row).enumerate() {
            let live = transformed(&row, class, &row_options) != f64::NEG_INFINITY;
            let interval = match &bounds {
                Some(bounds) if live => Interval::around(exact, bounds.at(class)),
                _ => Interval::only(exact),
            };
            let mut interval = interval.rounded(problem.gradient);
            if let Some(factor) = later
                && exact.is_finite()
                && truth.exact.kept()
            {
                let factor = Interval::around(
                    factor,
                    3.0 * on.unit * factor.abs() + on.saved * factor.abs(),
                );
                interval = interval.times(factor).rounded(problem.gradient);
            }
            verdict.number("gradient", problem.gradient, got, interval, || {
                format!(" of token {token}, class {class}")
            });
        }
    }
    check_gaps(problem, outcome, verdict);
}

/// That nothing was written between and around the rows.
fn check_gaps(problem: &Problem, outcome: &Outcome, verdict: &mut Verdict) {
    let layout = problem.gradient_layout;
    let (stride, columns) = (layout.stride(problem.vocab), layout.columns(problem.vocab));
    let before = |x: f64| {
        if problem.mode.in_place() {
            x.is_nan()
        } else {
            x == UNTOUCHED
        }
    };
    layout.check_gaps(
        "the gradient",
        &outcome.memory,
        columns,
        stride,
        before,
        verdict,
    );
}
