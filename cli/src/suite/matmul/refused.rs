//! Results made wrong on purpose.

use evenkeel::matmul::OperandFormat;
use evenkeel::quant::{Format, Fp8};
use evenkeel::{DType, Device};

use super::super::Refusals;
use super::super::proofs::{Wrong, refuse};
use crate::matmul::{Addend, Case, Grouping, Outcome, Problem, Values};

const BLOCKS: [Format; 2] = [
    Format::Fp8Block1x128(Fp8::E4m3),
    Format::Fp8Block128x128(Fp8::E4m3),
];

fn dense() -> Problem {
    let mut case = Case::new(
        [9, 14, 40],
        OperandFormat::Bf16,
        OperandFormat::Bf16,
        DType::F32,
    );
    case.bias = Some(DType::F32);
    case.c = Addend::View(DType::F32);
    case.beta = 0.5;
    case.amax = true;
    case.problem()
}

fn blocks() -> Problem {
    Case::new([9, 14, 300], BLOCKS[0], BLOCKS[1], DType::F32).problem()
}

fn experts() -> Problem {
    let row = Format::Fp8Row(Fp8::E4m3);
    let mut case = Case::new([12, 8, 64], row, row, DType::Bf16);
    case.grouping = Grouping::Rows(vec![2, 5, 11]);
    case.problem()
}

fn nan() -> Problem {
    let mut case = Case::new(
        [5, 6, 40],
        OperandFormat::F16,
        OperandFormat::F16,
        DType::F32,
    );
    case.values = Values::Nan;
    case.problem()
}

/// One term of one sum.
fn term(problem: &Problem, k: usize) -> f64 {
    problem.a.elements[k] * problem.b.elements[k]
}

/// The terms of the first row's element in a column of [`blocks`], of one block, with the scales of a
/// block.
fn block(problem: &Problem, column: usize, block: usize, scales: usize) -> f64 {
    let [_, width] = problem.a.shape;
    let terms = (128 * block..(128 * (block + 1)).min(width))
        .map(|k| problem.a.elements[k] * problem.b.elements[column * width + k]);
    // Column-major scales of a, row-major ones of b.
    let scale = problem.a.scales[scales * problem.a.grid[0]] * problem.b.scales[scales];
    terms.sum::<f64>() * scale
}

const WRONG: &[Wrong<Problem>] = &[
    Wrong {
        name: "the last of K left out",
        problem: dense,
        spoil: |problem, outcome| outcome.out[0] -= term(problem, 39),
    },
    Wrong {
        name: "a bias twice",
        problem: dense,
        spoil: |problem, outcome| {
            let bias = problem.bias.as_deref().unwrap_or_default();
            let at = bias.iter().position(|bias| *bias != 0.0).unwrap_or(0);
            outcome.out[at] += bias[at];
        },
    },
    Wrong {
        name: "beta as 1",
        problem: dense,
        spoil: |problem, outcome| {
            let c = problem.c.as_deref().unwrap_or_default();
            for (out, c) in outcome.out.iter_mut().zip(c) {
                *out += 0.5 * c;
            }
        },
    },
    Wrong {
        name: "two columns exchanged",
        problem: dense,
        spoil: |_, outcome| outcome.out.swap(3, 4),
    },
    Wrong {
        name: "an amax that is not raised",
        problem: dense,
        spoil: |problem, outcome| outcome.amax = problem.amax_before,
    },
    Wrong {
        name: "the second block left out",
        problem: blocks,
        spoil: |problem, outcome| outcome.out[0] -= block(problem, 0, 1, 1),
    },
    Wrong {
        name: "blocks with the scales of those before",
        problem: blocks,
        spoil: |problem, outcome| {
            for (column, out) in outcome.out[..14].iter_mut().enumerate() {
                for at in 1..3 {
                    *out += block(problem, column, at, at - 1) - block(problem, column, at, at);
                }
            }
        },
    },
    Wrong {
        name: "a row of no group",
        problem: experts,
        spoil: |_, outcome| outcome.out[0] = 0.0,
    },
    Wrong {
        name: "a row with the weight of another group",
        problem: experts,
        spoil: |_, outcome| outcome.out.swap(2 * 8, 5 * 8),
    },
    Wrong {
        name: "NaN swallowed",
        problem: nan,
        spoil: |_, outcome| replace(outcome, |x| if x.is_nan() { 0.0 } else { x }),
    },
    Wrong {
        name: "NaN in a neighbouring row",
        problem: nan,
        spoil: |_, outcome| {
            let at = outcome.out.iter().position(|x| !x.is_nan()).unwrap_or(0);
            outcome.out[at] = f64::NAN;
        },
    },
];

fn replace(outcome: &mut Outcome, of: impl Fn(f64) -> f64) {
    outcome.out.iter_mut().for_each(|x| *x = of(*x));
}

/// Right outcomes are accepted, and the spoilt ones refused.
pub(super) fn refusals(device: &Device, refusals: &mut Refusals) {
    // Without kernels there is no right outcome to spoil.
    let op = evenkeel::matmul::Matmul::new(OperandFormat::Bf16, OperandFormat::Bf16);
    let there = device.stream().and_then(|stream| op.prepare(&stream));
    let cpu = Device::cpu();
    refuse(if there.is_ok() { device } else { &cpu }, WRONG, refusals);
}
