//! Dynamic tanhs that are wrong in the ways kernels go wrong.

use evenkeel::DType;

use super::super::proofs::Wrong;
use crate::norm::dyt::{Case, Problem, Values};
use crate::numbers::{round_to, ulp};

fn plain() -> Problem {
    Case::new(6, 40, DType::F32).problem()
}

fn halves() -> Problem {
    let mut case = Case::new(6, 40, DType::Bf16);
    case.layouts.iter_mut().for_each(|layout| layout.gap = 3);
    case.problem()
}

fn adding() -> Problem {
    let mut case = Case::new(6, 40, DType::F32);
    case.accumulate = true;
    case.problem()
}

/// Every way to be wrong.
pub(in super::super) const REFUSED: &[Wrong<Problem>] = &[
    Wrong {
        name: "1 - t^2 from a rounded t",
        problem: || {
            let mut case = Case::new(6, 40, DType::F32);
            case.values = Values::Saturated;
            case.problem()
        },
        spoil: |problem, outcome| {
            let alpha = f64::from(problem.alpha);
            let (x, dy) = (problem.x.row(0).to_vec(), problem.dy.row(0).to_vec());
            let gamma = problem.gamma.as_ref().map(|gamma| gamma.values.clone());
            if let (Some(dx), Some(gamma)) = (&mut outcome.dx, gamma) {
                for (at, got) in dx.row_mut(0).iter_mut().enumerate() {
                    let t = round_to(DType::F32, (alpha * x[at]).tanh());
                    *got = round_to(DType::F32, alpha * gamma[at] * dy[at] * (1.0 - t * t));
                }
            }
        },
    },
    Wrong {
        name: "alpha left out of dx",
        problem: plain,
        spoil: |problem, outcome| {
            let alpha = f64::from(problem.alpha);
            if let Some(dx) = &mut outcome.dx {
                dx.row_mut(2).iter_mut().for_each(|x| *x /= alpha);
            }
        },
    },
    Wrong {
        name: "gamma left out of dalpha",
        problem: plain,
        spoil: |problem, outcome| {
            let alpha = f64::from(problem.alpha);
            let terms = problem.x.values.iter().zip(&problem.dy.values);
            let sum: f64 = terms
                .map(|(x, dy)| dy * x * (1.0 - (alpha * x).tanh().powi(2)))
                .sum();
            if let Some(dalpha) = &mut outcome.shared[0] {
                dalpha.row_mut(0)[0] = round_to(DType::F32, sum);
            }
        },
    },
    Wrong {
        name: "a row left out of dgamma",
        problem: plain,
        spoil: |problem, outcome| {
            let alpha = f64::from(problem.alpha);
            let (x, dy) = (problem.x.row(5), problem.dy.row(5));
            if let Some(dgamma) = &mut outcome.shared[1] {
                for (at, got) in dgamma.row_mut(0).iter_mut().enumerate() {
                    *got = round_to(DType::F32, *got - dy[at] * (alpha * x[at]).tanh());
                }
            }
        },
    },
    Wrong {
        name: "a dbeta written where it was to be added",
        problem: adding,
        spoil: |problem, outcome| {
            if let (Some(dbeta), Some(before)) = (&mut outcome.shared[2], &problem.before[2]) {
                for (got, before) in dbeta.row_mut(0).iter_mut().zip(before) {
                    *got = round_to(DType::F32, *got - before);
                }
            }
        },
    },
    Wrong {
        name: "beta left out",
        problem: plain,
        spoil: |problem, outcome| {
            if let Some(beta) = &problem.beta {
                for (y, beta) in outcome.y.row_mut(1).iter_mut().zip(&beta.values) {
                    *y = round_to(DType::F32, *y - beta);
                }
            }
        },
    },
    Wrong {
        name: "two units of the last place",
        problem: halves,
        spoil: |_, outcome| {
            let y = &mut outcome.y.row_mut(4)[39];
            *y += 2.0 * ulp(DType::Bf16, *y);
        },
    },
    Wrong {
        name: "columns moved by one",
        problem: halves,
        spoil: |_, outcome| outcome.y.row_mut(3).rotate_right(1),
    },
    Wrong {
        name: "a write between two rows",
        problem: halves,
        spoil: |_, outcome| outcome.y.memory[41] = 0.0,
    },
    Wrong {
        name: "a dalpha never written",
        problem: plain,
        spoil: |_, outcome| {
            if let Some(dalpha) = &mut outcome.shared[0] {
                dalpha.row_mut(0)[0] = crate::memory::UNTOUCHED;
            }
        },
    },
];
