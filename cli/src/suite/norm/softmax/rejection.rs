//! Softmaxes that are wrong in the ways kernels go wrong.

use evenkeel::norm::{Causal, SoftmaxKind};
use evenkeel::{DType, Status};

use super::proofs::Wrong;
use crate::norm::pass::Pass;
use crate::norm::placed::Written;
use crate::norm::softmax::{Case, Outcome, Problem, Values};
use crate::numbers::{round_to, ulp};

fn case(kind: SoftmaxKind, dtype: DType) -> Case {
    let mut case = Case::new(kind, 4, 100, dtype);
    for layout in &mut case.layouts {
        layout.gap = 2;
    }
    case
}

fn plain() -> Problem {
    case(SoftmaxKind::Softmax, DType::F32).problem()
}

fn halves() -> Problem {
    case(SoftmaxKind::Softmax, DType::Bf16).problem()
}

fn logs() -> Problem {
    case(SoftmaxKind::LogSoftmax, DType::F32).problem()
}

fn stable() -> Problem {
    case(SoftmaxKind::StableMax, DType::F32).problem()
}

/// Row 0 sees 20 keys, the others more.
fn causal(kind: SoftmaxKind) -> Problem {
    let mut case = case(kind, DType::F32);
    case.options.causal = Some(Causal::Offset(19));
    case.problem()
}

fn scaled(rows: usize, written: &mut Written, factor: f64) {
    let dtype = written.place.dtype;
    for row in 0..rows {
        for x in written.row_mut(row) {
            *x = round_to(dtype, *x * factor);
        }
    }
}

fn dx(outcome: &mut Outcome) -> &mut Written {
    outcome.dx.get_or_insert_with(|| outcome.y.clone())
}

fn largest(row: &[f64]) -> usize {
    (0..row.len())
        .max_by(|&a, &b| row[a].total_cmp(&row[b]))
        .unwrap_or(0)
}

/// Every way.
pub(in super::super) const REFUSED: &[Wrong<Problem>] = &[
    Wrong {
        name: "a key left out of the sum",
        problem: plain,
        spoil: |_, outcome| {
            // The key whose share is nearest the average one.
            let row = outcome.y.row(0).to_vec();
            let off = |p: f64| (p * row.len() as f64).ln().abs();
            let share = row
                .iter()
                .copied()
                .min_by(|a, b| off(*a).total_cmp(&off(*b)));
            let factor = 1.0 / (1.0 - share.unwrap_or(0.0));
            for y in outcome.y.row_mut(0) {
                *y = round_to(DType::F32, *y * factor);
            }
        },
    },
    Wrong {
        name: "a key more than the causal mask leaves",
        problem: || causal(SoftmaxKind::Softmax),
        spoil: |_, outcome| outcome.y.row_mut(0)[20] = 1e-4,
    },
    Wrong {
        name: "0 in place of -inf beyond the mask",
        problem: || causal(SoftmaxKind::LogSoftmax),
        spoil: |_, outcome| outcome.y.row_mut(0)[20] = 0.0,
    },
    Wrong {
        name: "a gradient beyond the mask",
        problem: || causal(SoftmaxKind::Softmax),
        spoil: |_, outcome| dx(outcome).row_mut(0)[21] = 1e-6,
    },
    Wrong {
        name: "a scale left out of the chain rule",
        problem: || {
            let mut case = case(SoftmaxKind::Softmax, DType::F32);
            case.options.scale = 0.7;
            case.problem()
        },
        spoil: |problem, outcome| scaled(problem.rows(), dx(outcome), 1.0 / 0.7),
    },
    Wrong {
        name: "a gradient without the sum taken off",
        problem: plain,
        spoil: |problem, outcome| {
            let y = outcome.y.row(1).to_vec();
            let mean: f64 = y.iter().zip(problem.dy.row(1)).map(|(p, g)| p * g).sum();
            for (x, p) in dx(outcome).row_mut(1).iter_mut().zip(y) {
                *x = round_to(DType::F32, *x + p * mean);
            }
        },
    },
    Wrong {
        name: "the entropy's gradient left out",
        problem: plain,
        spoil: |problem, outcome| {
            let y = outcome.y.row(2).to_vec();
            let entropy: f64 = -y.iter().map(|p| p * p.ln()).sum::<f64>();
            let weight = problem.dentropy.as_ref().map_or(0.0, |values| values[2]);
            for (x, p) in dx(outcome).row_mut(2).iter_mut().zip(y) {
                *x = round_to(DType::F32, *x + weight * p * (p.ln() + entropy));
            }
        },
    },
    Wrong {
        name: "two units of the last place in one share",
        problem: halves,
        spoil: |_, outcome| {
            let row = outcome.y.row_mut(3);
            let at = largest(row);
            row[at] += 2.0 * ulp(DType::Bf16, row[at]);
        },
    },
    Wrong {
        name: "two units of the last place in one gradient",
        problem: halves,
        spoil: |_, outcome| {
            let row = dx(outcome).row_mut(3);
            let at = largest(row);
            row[at] += 2.0 * ulp(DType::Bf16, row[at]);
        },
    },
    Wrong {
        name: "shares moved by one key",
        problem: halves,
        spoil: |_, outcome| outcome.y.row_mut(1).rotate_left(1),
    },
    Wrong {
        name: "an entropy in bits",
        problem: plain,
        spoil: |_, outcome| outcome.entropy.row_mut(0)[1] /= std::f64::consts::LN_2,
    },
    Wrong {
        name: "an entropy without the gaps",
        problem: logs,
        spoil: |problem, outcome| {
            let x = problem.x.row(2);
            let top = x[largest(x)];
            let normalizer = outcome.normalizer.row(0)[2];
            outcome.entropy.row_mut(0)[2] = round_to(DType::F32, normalizer - top);
        },
    },
    Wrong {
        name: "lse without its maximum",
        problem: plain,
        spoil: |problem, outcome| {
            let x = problem.x.row(0);
            outcome.normalizer.row_mut(0)[0] -= x[largest(x)];
        },
    },
    Wrong {
        name: "log p as a logarithm of the rounded p",
        problem: || {
            let mut case = case(SoftmaxKind::LogSoftmax, DType::F32);
            case.values = Values::Peaked;
            case.problem()
        },
        spoil: |problem, outcome| {
            let at = largest(problem.x.row(0));
            outcome.y.row_mut(0)[at] = 0.0;
        },
    },
    Wrong {
        name: "an entropy of 0 where one key has nearly all",
        problem: || {
            let mut case = case(SoftmaxKind::Softmax, DType::F32);
            case.values = Values::Peaked;
            case.problem()
        },
        spoil: |_, outcome| outcome.entropy.row_mut(0)[3] = 0.0,
    },
    Wrong {
        name: "lse in place of StableMax' sum",
        problem: stable,
        spoil: |_, outcome| {
            let sum = &mut outcome.normalizer.row_mut(0)[1];
            *sum = round_to(DType::F32, sum.ln());
        },
    },
    Wrong {
        name: "StableMax with the slope of one side on both",
        problem: stable,
        spoil: |_, outcome| {
            let sum = outcome.normalizer.row(0)[0];
            let y = outcome.y.row(0).to_vec();
            let at = y.iter().position(|p| p * sum < 0.9).unwrap_or(0);
            let slope = (y[at] * sum).powi(2);
            dx(outcome).row_mut(0)[at] /= slope;
        },
    },
    Wrong {
        name: "a write between two rows",
        problem: halves,
        spoil: |_, outcome| outcome.y.memory[100] = 0.0,
    },
    Wrong {
        name: "a write past the entropies",
        problem: halves,
        spoil: |_, outcome| {
            if let Some(last) = outcome.entropy.memory.last_mut() {
                *last = 0.0;
            }
        },
    },
    Wrong {
        name: "a NaN",
        problem: plain,
        spoil: |_, outcome| outcome.y.row_mut(1)[7] = f64::NAN,
    },
    Wrong {
        name: "a row never written",
        problem: || {
            let mut case = case(SoftmaxKind::Softmax, DType::F32);
            case.pass = Pass::Forward;
            case.problem()
        },
        spoil: |_, outcome| outcome.y.row_mut(3).fill(crate::memory::UNTOUCHED),
    },
    Wrong {
        name: "a row of NaN without a word",
        problem: || {
            let mut problem = plain();
            problem.x.values[3] = f64::NAN;
            problem
        },
        spoil: |_, outcome| outcome.status = Status::empty(),
    },
];
