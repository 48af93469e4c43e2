//! A plain dynamic tanh in single precision: what the bounds must hold, and not by far.

use evenkeel::{DType, DeviceKind, Status};

use super::problem::Problem;
use super::run::Outcome;
use super::{Case, Values, compare};
use crate::norm::single::{Approximate, output, rounded, vector, worst_of};

fn outcome(problem: &Problem) -> Outcome {
    let mut approximate = Approximate::new(3);
    let (rows, columns) = (problem.x.place.rows(), problem.x.place.width());
    let weight = |matrix: &Option<crate::norm::placed::Matrix>, absent: f32| -> Vec<f32> {
        match matrix {
            Some(matrix) => matrix.values.iter().map(|&x| x as f32).collect(),
            None => vec![absent; columns],
        }
    };
    let (gamma, beta) = (weight(&problem.gamma, 1.0), weight(&problem.beta, 0.0));
    let (mut y, mut dx) = (Vec::new(), Vec::new());
    let (mut dalpha, mut dgamma, mut dbeta) = (0.0_f32, vec![0.0_f32; columns], vec![0.0; columns]);
    for row in 0..rows {
        let mut of_row = 0.0_f32;
        for column in 0..columns {
            let x = problem.x.row(row)[column] as f32;
            let dy = problem.dy.row(row)[column] as f32;
            let a = problem.alpha * x;
            let t = approximate.tanh(a);
            y.push(gamma[column] * t + beta[column]);
            let e = approximate.exponential(-2.0 * a.abs());
            let slope = 4.0 * e / ((1.0 + e) * (1.0 + e));
            let upstream = gamma[column] * dy;
            dx.push(problem.alpha * upstream * slope);
            of_row += upstream * x * slope;
            dgamma[column] += dy * t;
            dbeta[column] += dy;
        }
        dalpha += of_row;
    }
    let added = |at: usize, sums: Vec<f32>| -> Vec<f32> {
        match &problem.before[at] {
            Some(before) => {
                let pairs = sums.iter().zip(before);
                pairs.map(|(sum, &before)| before as f32 + sum).collect()
            }
            None => sums,
        }
    };
    let shared = [
        Some(vector(&added(0, vec![dalpha]))),
        problem.gamma.as_ref().map(|_| vector(&added(1, dgamma))),
        problem.beta.as_ref().map(|_| vector(&added(2, dbeta))),
    ];
    Outcome {
        y: output(&problem.y, &rounded(problem.y.dtype, &y)),
        dx: Some(output(&problem.dx, &rounded(problem.dx.dtype, &dx))),
        shared,
        status: Status::empty(),
    }
}

#[test]
fn plain_single_precision_is_within_the_bounds_and_not_by_far() {
    let verdicts = Values::ALL.into_iter().flat_map(|values| {
        [0.5, -1.3].into_iter().flat_map(move |alpha| {
            [false, true].into_iter().map(move |accumulate| {
                let mut case = Case::new(20, 60, DType::F32);
                (case.values, case.alpha, case.accumulate) = (values, alpha, accumulate);
                let problem = case.problem();
                compare(&problem, &outcome(&problem), DeviceKind::Emulated)
            })
        })
    });
    worst_of(
        verdicts,
        &[("y", 0.1), ("dx", 0.1), ("dgamma", 0.1), ("dalpha", 0.01)],
    );
}
