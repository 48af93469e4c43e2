//! Activations that are wrong in the ways kernels go wrong.

use evenkeel::quant::{GeluKind, Smoothing};
use evenkeel::reference::quant::activation::Function;
use evenkeel::{DType, Device};

use super::super::super::Refusals;
use super::super::super::proofs::{Wrong, refuse};
use crate::norm::placed::Written;
use crate::numbers::{round_to, ulp};
use crate::quant::activation::{Case, Problem};

fn swiglu() -> Problem {
    Case::new(Function::SwiGlu, 6, 40, DType::F32).problem()
}

fn smooth(smoothing: Smoothing) -> Problem {
    let mut case = Case::new(Function::SwiGlu, 6, 40, DType::F32);
    case.smoothing = Some(smoothing);
    case.problem()
}

fn gelu() -> Problem {
    Case::new(Function::Gelu(GeluKind::Exact), 6, 40, DType::F32).problem()
}

fn set(written: &mut Written, column: usize, value: f64) {
    let dtype = written.place.dtype;
    written.row_mut(2)[column] = round_to(dtype, value);
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

const WRONG: &[Wrong<Problem>] = &[
    Wrong {
        name: "y of the wrong branch",
        problem: swiglu,
        spoil: |problem, outcome| {
            let [gate, up] = problem.branches();
            let at = 2 * 40 + 7;
            set(&mut outcome.y, 7, gate[at] * up[at] * sigmoid(up[at]));
        },
    },
    Wrong {
        name: "dgate without the slope of sigma",
        problem: swiglu,
        spoil: |problem, outcome| {
            let [gate, up] = problem.branches();
            let at = 2 * 40 + 7;
            let value = problem.dy.values[at] * up[at] * sigmoid(gate[at]);
            set(&mut outcome.gradients[0], 7, value);
        },
    },
    Wrong {
        name: "dgate and dup exchanged",
        problem: swiglu,
        spoil: |_, outcome| outcome.gradients[0].row_mut(2).rotate_left(40),
    },
    Wrong {
        name: "a row of y that was not written",
        problem: swiglu,
        spoil: |_, outcome| outcome.y.row_mut(5).fill(crate::memory::UNTOUCHED),
    },
    Wrong {
        name: "y 64 units of the last place off",
        problem: swiglu,
        spoil: |_, outcome| {
            let y = outcome.y.row(2)[7];
            set(&mut outcome.y, 7, y + 64.0 * ulp(DType::F32, y));
        },
    },
    Wrong {
        name: "the tanh form for the exact one",
        problem: gelu,
        spoil: |problem, outcome| {
            let x = problem.inputs[0].row(2)[7];
            let tanh = Function::Gelu(GeluKind::Tanh);
            let value = evenkeel::reference::quant::activation::value(tanh, x);
            set(&mut outcome.y, 7, value);
        },
    },
    Wrong {
        name: "a channel's scale of all but one token",
        problem: || smooth(Smoothing::Channel),
        spoil: |_, outcome| {
            if let Some(scales) = &mut outcome.scales {
                scales.row_mut(0)[39] *= 0.5;
            }
        },
    },
    Wrong {
        name: "dup of the plain SwiGLU",
        problem: || smooth(Smoothing::Token),
        spoil: |_, outcome| {
            let scale = outcome
                .scales
                .as_ref()
                .map_or(1.0, |scales| scales.row(0)[2]);
            let value = outcome.gradients[0].row(2)[47];
            set(&mut outcome.gradients[0], 47, value * scale);
        },
    },
];

/// Every way to be wrong.
pub(in crate::suite::quant) fn refusals(device: &Device, refusals: &mut Refusals) {
    refuse(device, WRONG, refusals);
}
