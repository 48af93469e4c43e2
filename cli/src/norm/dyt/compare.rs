//! Compares a dynamic tanh with the reference.
//!
//! With the arithmetic of [`Arithmetic`], a = alpha x and t =
//! tanh(a), the errors of a kernel are
//!
//! | step | error |
//! |---|---|
//! | a | u a, which moves t by the slope there times u a |
//! | t | `tanhf` 2 ulp: 4 u t |
//! | y = gamma t + beta | u of the product, u of the sum |
//! | e = exp(-2 abs(a)) by ex2.approx | its argument by u more for a: (4 + 4 * 2 abs(a)) u, and what is flushed |
//! | slope 4 e / (1 + e)^2 | 2 u for (1 + e), u for its square, 2 u for a reciprocal of 1 ulp, u for the product; and the error of e, which (1 + e)^2 only lessens |
//! | dx = alpha gamma dy slope | 3 u |
//! | a term of dalpha, gamma dy x slope | 3 u |
//! | a term of dgamma, dy t | t's and u |
//! | dgamma, dbeta | a sum over rows |
//! | dalpha | a thread sums its elements of a row, then adds row after row; trees over threads and over blocks: (`elements` + rows + 2 `tree`) u |
//! | what is added to what is there | u of the sum, u of the total |

use evenkeel::reference::norm::{WeightGradients, Weights, dyt as reference};
use evenkeel::{DType, DeviceKind, Result};

use super::problem::Problem;
use super::run::Outcome;
use crate::compare::Verdict;
use crate::norm::arithmetic::Arithmetic;
use crate::norm::placed::exact_mut;
use crate::numbers::Interval;

/// The slope of tanh, 0 where its argument is infinite.
fn slope(a: f64) -> f64 {
    let e = (-2.0 * a.abs()).exp();
    4.0 * e / (1.0 + e).powi(2)
}

/// Absolute error of t.
fn tanh_error(a: f64, on: &Arithmetic) -> f64 {
    let moved = if a.is_finite() {
        slope(a) * (2.0 * on.unit * a.abs()).exp_m1()
    } else {
        0.0
    };
    moved + 4.0 * on.unit * a.tanh().abs() + on.tiny
}

/// Absolute error of the slope.
fn slope_error(a: f64, on: &Arithmetic) -> f64 {
    if a.is_infinite() {
        return 0.0;
    }
    let distance = 2.0 * a.abs();
    let relative = on.exponential(distance) + (distance + 6.0) * on.unit;
    slope(a) * relative.exp_m1() + 4.0 * on.flush
}

/// Compares all of `outcome`, which a device of this kind computed.
///
/// # Errors
/// The reference's.
pub fn compare(problem: &Problem, outcome: &Outcome, kind: DeviceKind) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let columns = problem.x.place.width();
    let on = Arithmetic::new(kind, columns);
    let weights = Weights {
        gamma: problem.gamma.as_ref().map(|gamma| (&gamma.values).into()),
        beta: problem.beta.as_ref().map(|beta| (&beta.values).into()),
    };
    let mut y = vec![0.0; problem.x.values.len()];
    let into = exact_mut(&mut y, columns)?;
    let mut status = reference::forward(problem.alpha, &weights, problem.x.exact()?, into)?;
    let terms = Terms { problem, on };
    let dtype = problem.y.dtype;
    for row in 0..problem.x.place.rows() {
        for (column, &got) in outcome.y.row(row).iter().enumerate() {
            let exact = y[row * columns + column];
            let interval = Interval::around(exact, terms.y(row, column, exact)).rounded(dtype);
            verdict.number("y", dtype, got, interval, || {
                format!(" of row {row}, column {column}")
            });
        }
    }
    outcome.y.check_gaps("y", &mut verdict);
    if problem.pass.backward() {
        status |= backward(&terms, &weights, outcome, &mut verdict)?;
    }
    verdict.equal(|| "the status".into(), &outcome.status, &status);
    Ok(verdict.of(&problem.name))
}

fn backward(
    terms: &Terms<'_>,
    weights: &Weights<'_>,
    outcome: &Outcome,
    verdict: &mut Verdict,
) -> Result<evenkeel::Status> {
    let problem = terms.problem;
    let (rows, columns) = (problem.x.place.rows(), problem.x.place.width());
    let mut dx = vec![0.0; problem.x.values.len()];
    let lengths = [1, columns, columns];
    let mut shared: [Vec<f64>; 3] = std::array::from_fn(|at| {
        problem.before[at]
            .clone()
            .unwrap_or_else(|| vec![0.0; lengths[at]])
    });
    let [dalpha, dgamma, dbeta] = &mut shared;
    let gradients = WeightGradients {
        gamma: problem.gamma.as_ref().map(|_| dgamma.into()),
        beta: problem.beta.as_ref().map(|_| dbeta.into()),
        accumulate: problem.accumulates(),
    };
    let status = reference::backward(
        problem.alpha,
        weights,
        problem.x.exact()?,
        problem.dy.exact()?,
        exact_mut(&mut dx, columns)?,
        Some(dalpha.into()),
        gradients,
    )?;
    let Some(got) = &outcome.dx else {
        verdict.wrong(|| "there is no dx".into());
        return Ok(status);
    };
    let dtype = problem.dx.dtype;
    for row in 0..rows {
        for (column, &got) in got.row(row).iter().enumerate() {
            let exact = dx[row * columns + column];
            let interval = Interval::around(exact, terms.dx(row, column, exact)).rounded(dtype);
            verdict.number("dx", dtype, got, interval, || {
                format!(" of row {row}, column {column}")
            });
        }
    }
    got.check_gaps("dx", verdict);
    let unit = terms.on.unit;
    for (at, name) in ["dalpha", "dgamma", "dbeta"].into_iter().enumerate() {
        let Some(got) = &outcome.shared[at] else {
            continue;
        };
        got.check_gaps(name, verdict);
        for (column, &got) in got.row(0).iter().enumerate() {
            let exact = shared[at][column];
            let before = problem.before[at]
                .as_ref()
                .map_or(0.0, |before| before[column]);
            let error = match at {
                0 => terms.dalpha(),
                1 => terms.dgamma(column),
                _ => terms.dbeta(column),
            };
            let added = unit * (exact - before).abs() + unit * exact.abs();
            let error = if problem.accumulates() {
                error + added
            } else {
                error
            };
            let interval = Interval::around(exact, error).rounded(DType::F32);
            verdict.number(name, DType::F32, got, interval, || format!(" {column}"));
        }
    }
    Ok(status)
}

/// The errors of a problem's results.
struct Terms<'a> {
    problem: &'a Problem,
    on: Arithmetic,
}

impl Terms<'_> {
    fn a(&self, row: usize, column: usize) -> f64 {
        f64::from(self.problem.alpha) * self.problem.x.row(row)[column]
    }

    fn gamma(&self, column: usize) -> f64 {
        let gamma = self.problem.gamma.as_ref();
        gamma.map_or(1.0, |gamma| gamma.values[column])
    }

    fn y(&self, row: usize, column: usize, exact: f64) -> f64 {
        let (a, gamma) = (self.a(row, column), self.gamma(column).abs());
        let t = a.tanh().abs();
        gamma * (tanh_error(a, &self.on) + self.on.unit * t)
            + self.on.unit * exact.abs()
            + self.on.tiny
    }

    fn dx(&self, row: usize, column: usize, exact: f64) -> f64 {
        let factor =
            f64::from(self.problem.alpha) * self.gamma(column) * self.problem.dy.row(row)[column];
        factor.abs() * slope_error(self.a(row, column), &self.on)
            + 3.0 * self.on.unit * exact.abs()
            + 3.0 * self.on.tiny
    }

    fn dalpha(&self) -> f64 {
        let (on, problem) = (&self.on, self.problem);
        let (rows, columns) = (problem.x.place.rows(), problem.x.place.width());
        let chain = (on.elements + rows as f64 + 2.0 * on.tree + 3.0) * on.unit;
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        places
            .map(|(row, column)| {
                let a = self.a(row, column);
                if a.is_infinite() {
                    return 0.0;
                }
                let x = problem.x.row(row)[column];
                let factor = (self.gamma(column) * problem.dy.row(row)[column] * x).abs();
                factor * (slope_error(a, on) + chain * slope(a)) + on.tiny
            })
            .sum()
    }

    fn dgamma(&self, column: usize) -> f64 {
        let on = &self.on;
        let rows = self.problem.x.place.rows();
        let chain = (rows as f64 + 1.0) * on.unit;
        (0..rows)
            .map(|row| {
                let (a, dy) = (self.a(row, column), self.problem.dy.row(row)[column].abs());
                dy * (tanh_error(a, on) + chain * a.tanh().abs()) + on.tiny
            })
            .sum()
    }

    fn dbeta(&self, column: usize) -> f64 {
        let rows = self.problem.x.place.rows();
        let sizes = (0..rows).map(|row| self.problem.dy.row(row)[column].abs());
        rows as f64 * self.on.unit * sizes.sum::<f64>()
    }
}
