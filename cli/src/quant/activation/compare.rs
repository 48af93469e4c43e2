//! Compares an activation with the reference, within the errors of [`Curve`] and one rounding of the
//! result's type. Scales are exact.

use evenkeel::quant::Smoothing;
use evenkeel::reference::quant::activation::{self as reference, Gradients, Inputs, Scales};
use evenkeel::{DType, DeviceKind, Result, Status};

use super::bounds::Curve;
use super::problem::Problem;
use super::run::Outcome;
use crate::compare::Verdict;
use crate::norm::arithmetic::Arithmetic;
use crate::norm::placed::{Written, exact, exact_mut};
use crate::numbers::Interval;

/// The scales of a problem: those given, those of its up, or none.
///
/// # Errors
/// The reference's.
pub fn scales(problem: &Problem) -> Result<Option<Vec<f32>>> {
    let Some(smoothing) = problem.smoothing else {
        return Ok(None);
    };
    if let Some(given) = &problem.given {
        return Ok(Some(
            given.values.iter().map(|&scale| scale as f32).collect(),
        ));
    }
    let [_, up] = problem.branches();
    let up = exact(&up, problem.channels)?;
    Ok(Some(reference::smoothing_scales(smoothing, up)))
}

/// Compares all of `outcome`, which a device of this kind computed.
///
/// # Errors
/// The reference's.
pub fn compare(problem: &Problem, outcome: &Outcome, kind: DeviceKind) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let (tokens, channels) = (problem.tokens, problem.channels);
    let on = Arithmetic::new(kind, channels);
    let scales = scales(problem)?;
    if let Some(got) = &outcome.scales {
        got.check_gaps("scales", &mut verdict);
        for (at, &want) in scales.iter().flatten().enumerate() {
            let interval = Interval::only(want.into());
            let place = || format!(" {at}");
            verdict.number("scale", DType::F32, got.row(0)[at], interval, place);
        }
    }
    let smooth = match (problem.smoothing, &scales) {
        (Some(Smoothing::Channel), Some(scales)) => Scales::Channel(scales),
        (Some(_), Some(scales)) => Scales::Token(scales),
        _ => Scales::None,
    };
    let scale_of = |row: usize, column: usize| match smooth {
        Scales::None => 1.0,
        Scales::Channel(scales) => f64::from(scales[column]),
        Scales::Token(scales) => f64::from(scales[row]),
    };
    let [x, up] = problem.branches();
    let inputs = Inputs {
        x: exact(&x, channels)?,
        up: problem.gated().then(|| exact(&up, channels)).transpose()?,
    };
    let mut y = vec![0.0; tokens * channels];
    reference::forward(
        problem.function,
        inputs,
        smooth,
        exact_mut(&mut y, channels)?,
    )?;
    let mut gate = vec![0.0; tokens * channels];
    let mut linear = vec![0.0; tokens * channels];
    let gradients = if problem.gated() {
        Gradients::Two(
            exact_mut(&mut gate, channels)?,
            exact_mut(&mut linear, channels)?,
        )
    } else {
        Gradients::One(exact_mut(&mut gate, channels)?)
    };
    let dy = problem.dy.exact()?;
    reference::backward(problem.function, inputs, smooth, dy, gradients)?;

    for row in 0..tokens {
        for column in 0..channels {
            let at = row * channels + column;
            let curve = Curve::at(problem.function, x[at], &on);
            let up = if problem.gated() { up[at] } else { 1.0 };
            let (scale, dy) = (scale_of(row, column), problem.dy.values[at]);
            let place = || format!(" of row {row}, column {column}");
            let mut number = |name, written: &Written, column: usize, exact: f64, error: f64| {
                let dtype = written.place.dtype;
                let interval = Interval::around(exact, error).rounded(dtype);
                verdict.number(name, dtype, written.row(row)[column], interval, place);
            };
            let error = curve.y_error(up, scale, &on);
            number("y", &outcome.y, column, y[at], error);
            let error = curve.gate_error(dy, up, scale, &on);
            number("dgate", &outcome.gradients[0], column, gate[at], error);
            if problem.gated() {
                let error = curve.up_error(dy, scale, &on);
                match outcome.gradients.get(1) {
                    Some(written) => number("dup", written, column, linear[at], error),
                    None => {
                        let written = &outcome.gradients[0];
                        number("dup", written, channels + column, linear[at], error);
                    }
                }
            }
        }
    }
    outcome.y.check_gaps("y", &mut verdict);
    for gradient in &outcome.gradients {
        gradient.check_gaps("a gradient", &mut verdict);
    }
    let status = Status::empty();
    verdict.equal(|| "the status".into(), &outcome.status, &status);
    Ok(verdict.of(&problem.name))
}
