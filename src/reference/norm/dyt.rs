//! Dynamic tanh (arXiv 2503.10622), which stands where a normalization would:
//!
//! ```text
//! y = gamma tanh(alpha x) + beta        alpha one number, 0.5 at first
//!
//! dx = alpha gamma dy (1 - t^2)         dalpha = sum gamma dy x (1 - t^2)
//! dgamma = sum_rows dy t                dbeta = sum_rows dy                 t = tanh(alpha x)
//! ```
//!
//! 1 - t^2 is formed from the exponential: the subtraction has no digits left where tanh saturates.
//! Elements are on their own: infinite ones have the limits of the formulas, NaN stays where it is;
//! either sets `NON_FINITE_ROW`.

use rayon::prelude::*;

use super::pass::all_finite;
use super::sums::over_rows;
use super::{WeightGradients, Weights, expect, row_status, same_shape};
use crate::reference::floats::{FloatRows, FloatRowsMut, FloatsMut};
use crate::reference::sum::Sum;
use crate::{Error, Status};

/// y; gamma and beta are `[D]`, absent ones are 1 and 0.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit.
pub fn forward(
    alpha: f32,
    weights: &Weights,
    x: FloatRows,
    y: FloatRowsMut,
) -> Result<Status, Error> {
    let alpha = f64::from(alpha);
    check(weights, x.columns())?;
    same_shape("y", y.shape(), x.shape())?;
    let statuses: Vec<Status> = y
        .into_rows()
        .into_par_iter()
        .enumerate()
        .map(|(row, mut y)| {
            let x = x.row(row);
            let mut values: Vec<f64> = x.iter().map(|x| (alpha * x).tanh()).collect();
            if let Some(gamma) = weights.gamma {
                let gamma = gamma.to_f64();
                values.iter_mut().zip(gamma).for_each(|(y, g)| *y *= g);
            }
            if let Some(beta) = weights.beta {
                let beta = beta.to_f64();
                values.iter_mut().zip(beta).for_each(|(y, b)| *y += b);
            }
            y.store(&values);
            row_status(all_finite(&x))
        })
        .collect();
    Ok(join(statuses))
}

/// The gradients of a [`forward`]; `dalpha` is `[1]` and accumulates as the weights' gradients do.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit.
pub fn backward(
    alpha: f32,
    weights: &Weights,
    x: FloatRows,
    dy: FloatRows,
    dx: FloatRowsMut,
    dalpha: Option<FloatsMut>,
    dweights: WeightGradients,
) -> Result<Status, Error> {
    let alpha = f64::from(alpha);
    let columns = x.columns();
    check(weights, columns)?;
    same_shape("dy", dy.shape(), x.shape())?;
    same_shape("dx", dx.shape(), x.shape())?;
    let gamma = |j: usize| weights.gamma.map_or(1.0, |gamma| gamma.at(j));

    let WeightGradients {
        gamma: dgamma,
        beta: dbeta,
        accumulate,
    } = dweights;
    if let Some(mut dgamma) = dgamma {
        let fits = weights.gamma.is_some() && dgamma.len() == columns;
        expect("dgamma", fits, "as long as gamma", dgamma.len())?;
        let sums = over_rows(x.rows(), columns, 1, |row, start, end| {
            let x = x.part(row, start, end);
            let dy = dy.part(row, start, end);
            dy.iter()
                .zip(x)
                .map(|(dy, x)| dy * (alpha * x).tanh())
                .collect()
        });
        dgamma.store_or_add(&sums, accumulate);
    }
    if let Some(mut dbeta) = dbeta {
        let fits = weights.beta.is_some() && dbeta.len() == columns;
        expect("dbeta", fits, "as long as beta", dbeta.len())?;
        let sums = over_rows(x.rows(), columns, 1, |row, start, end| {
            dy.part(row, start, end)
        });
        dbeta.store_or_add(&sums, accumulate);
    }
    if let Some(mut dalpha) = dalpha {
        expect("dalpha", dalpha.len() == 1, "[1]", dalpha.len())?;
        let sums = over_rows(x.rows(), columns, 1, |row, start, end| {
            let x = x.part(row, start, end);
            let dy = dy.part(row, start, end);
            (start..end)
                .zip(dy.iter().zip(x))
                .map(|(j, (dy, x))| gamma(j) * dy * times_slope(x, alpha * x))
                .collect()
        });
        let sum: Sum = sums.into_iter().collect();
        dalpha.store_or_add(&[sum.value()], accumulate);
    }

    let statuses: Vec<Status> = dx
        .into_rows()
        .into_par_iter()
        .enumerate()
        .map(|(row, mut dx)| {
            let (x, dy) = (x.row(row), dy.row(row));
            let values: Vec<f64> = x
                .iter()
                .zip(&dy)
                .enumerate()
                .map(|(j, (x, dy))| alpha * gamma(j) * times_slope(*dy, alpha * x))
                .collect();
            dx.store(&values);
            row_status(all_finite(&x) && all_finite(&dy))
        })
        .collect();
    Ok(join(statuses))
}

/// factor (1 - tanh^2(x)), 0 where x is infinite.
fn times_slope(factor: f64, x: f64) -> f64 {
    if x.is_infinite() {
        return 0.0;
    }
    let decay = (-2.0 * x.abs()).exp();
    factor * 4.0 * decay / (1.0 + decay).powi(2)
}

fn check(weights: &Weights, columns: usize) -> Result<(), Error> {
    for (argument, weight) in [("gamma", weights.gamma), ("beta", weights.beta)] {
        let len = weight.map_or(columns, |weight| weight.len());
        expect(argument, len == columns, "[D]", len)?;
    }
    Ok(())
}

fn join(statuses: Vec<Status>) -> Status {
    statuses
        .into_iter()
        .fold(Status::empty(), |all, status| all | status)
}
