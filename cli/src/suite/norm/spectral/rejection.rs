//! Spectral norms that are wrong in the ways kernels go wrong.

use evenkeel::{DType, Status};

use super::super::proofs::Wrong;
use crate::norm::spectral::{Case, Problem, Values};
use crate::numbers::{round_to, ulp};

fn plain() -> Problem {
    Case::new(2, 30, 40, DType::F32).problem()
}

fn halves() -> Problem {
    let mut case = Case::new(2, 30, 40, DType::Bf16);
    case.layouts.iter_mut().for_each(|layout| layout.gap = 3);
    case.problem()
}

fn adding() -> Problem {
    let mut case = Case::new(2, 30, 40, DType::F32);
    case.accumulate = true;
    case.problem()
}

/// Every way to be wrong.
pub(in super::super) const REFUSED: &[Wrong<Problem>] = &[
    Wrong {
        name: "sigma of the vectors before the step",
        problem: plain,
        spoil: |problem, outcome| {
            let v = outcome.v.values();
            let w = problem.weight(0).chunks(40);
            let sigma: f64 = w
                .zip(&v)
                .map(|(w, v)| v * w.iter().zip(&problem.u).map(|(w, u)| w * u).sum::<f64>())
                .sum();
            outcome.sigma.row_mut(0)[0] = round_to(DType::F32, sigma);
        },
    },
    Wrong {
        name: "a u that is not of norm 1",
        problem: plain,
        spoil: |_, outcome| {
            let sigma = outcome.sigma.row(0)[1];
            outcome.u.row_mut(0)[40..]
                .iter_mut()
                .for_each(|u| *u *= sigma);
        },
    },
    Wrong {
        name: "u and v of another weight of the batch",
        problem: plain,
        spoil: |_, outcome| outcome.v.row_mut(0).rotate_left(30),
    },
    Wrong {
        name: "gamma left out of the scale",
        problem: plain,
        spoil: |_, outcome| {
            let sigma = outcome.sigma.row(0)[1];
            outcome.scale.row_mut(0)[1] = round_to(DType::F32, 1.0 / sigma);
        },
    },
    Wrong {
        name: "a weight scaled by another's scale",
        problem: plain,
        spoil: |problem, outcome| {
            let scale = outcome.scale.row(0)[1];
            if let Some(scaled) = &mut outcome.scaled {
                for (got, w) in scaled.row_mut(0).iter_mut().zip(problem.w.row(0)) {
                    *got = round_to(DType::F32, scale * w);
                }
            }
        },
    },
    Wrong {
        name: "a gradient through the scale alone",
        problem: plain,
        spoil: |problem, outcome| {
            let scale = outcome.scale.row(0)[0];
            if let (Some(dw), Some(dscaled)) = (&mut outcome.dw, &problem.dscaled) {
                for (got, g) in dw.row_mut(3).iter_mut().zip(dscaled.row(3)) {
                    *got = round_to(DType::F32, scale * g);
                }
            }
        },
    },
    Wrong {
        name: "a dgamma without its division by sigma",
        problem: plain,
        spoil: |_, outcome| {
            let sigma = outcome.sigma.row(0)[0];
            if let Some(dgamma) = &mut outcome.dgamma {
                dgamma.row_mut(0)[0] = round_to(DType::F32, dgamma.row(0)[0] * sigma);
            }
        },
    },
    Wrong {
        name: "a gradient written where it was to be added",
        problem: adding,
        spoil: |problem, outcome| {
            if let (Some(dw), Some([before, _])) = (&mut outcome.dw, &problem.before) {
                for (got, before) in dw.row_mut(0).iter_mut().zip(before) {
                    *got = round_to(DType::F32, *got - before);
                }
            }
        },
    },
    Wrong {
        name: "two units of the last place in the scaled weight",
        problem: halves,
        spoil: |_, outcome| {
            if let Some(scaled) = &mut outcome.scaled {
                let w = &mut scaled.row_mut(59)[39];
                *w += 2.0 * ulp(DType::Bf16, *w);
            }
        },
    },
    Wrong {
        name: "a write between two rows of dw",
        problem: halves,
        spoil: |_, outcome| {
            if let Some(dw) = &mut outcome.dw {
                dw.memory[41] = 0.0;
            }
        },
    },
    Wrong {
        name: "a weight of zeros without a word",
        problem: || {
            let mut case = Case::new(2, 30, 40, DType::F32);
            case.values = Values::Zero;
            case.problem()
        },
        spoil: |_, outcome| outcome.status = Status::empty(),
    },
];
