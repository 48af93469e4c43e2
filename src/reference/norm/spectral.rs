//! The spectral norm of weights, for sigmaReparam (arXiv 2303.06296).
//!
//! For each weight W `[m, n]` of a batch, with vectors u `[n]` and v `[m]` that the caller keeps:
//!
//! ```text
//! each step  v = W u / |W u|    u = W^T v / |W^T v|
//! sigma = v^T W u               W^ = (gamma / sigma) W
//!
//! with u and v held still and G the gradient of W^:
//! dW = (gamma / sigma) (G - (<G, W> / sigma) v u^T)      dgamma = <G, W> / sigma
//! ```
//!
//! sigma is that of u and v as they are stored. A vector of norm 0 stays 0. Where sigma is 0 (a
//! weight of zeros), the scale and the gradients are 0 and the status has `ZERO_SIGMA`; where it is
//! not finite they are NaN and the status has `NON_FINITE_ROW`.

use rayon::prelude::*;

use super::{expect, same_shape};
use crate::norm::SpectralNormOptions;
use crate::reference::floats::{FloatRows, FloatRowsMut, Floats, FloatsMut};
use crate::reference::sum::Sum;
use crate::{Error, Status};

/// The vectors of a batch of weights.
#[derive(Debug)]
pub struct Vectors<'a> {
    /// `[batch, n]`.
    pub u: FloatsMut<'a>,
    /// `[batch, m]`; read only when there are no steps.
    pub v: FloatsMut<'a>,
}

/// What the power iteration gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Of each weight.
    pub sigmas: Vec<f64>,
    /// gamma / sigma of each weight.
    pub scales: Vec<f64>,
    /// What was found wrong with any weight.
    pub status: Status,
}

/// sigma, the scale and, if asked for, W^ of weights `w`, which [`FloatRows::heads`] describes as
/// `[batch, m, n]`. `gamma` is `[batch]`, 1 without.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit.
pub fn forward(
    options: &SpectralNormOptions,
    w: FloatRows,
    mut vectors: Vectors,
    gamma: Option<Floats>,
    scaled: Option<FloatRowsMut>,
) -> Result<Forward, Error> {
    let [batch, m, n] = w.shape();
    check_vectors(w.shape(), vectors.u.len(), vectors.v.len())?;
    check_batch("gamma", gamma, batch)?;
    if let Some(scaled) = &scaled {
        same_shape("scaled", scaled.shape(), w.shape())?;
    }
    let (mut u, mut v) = (vectors.u.to_f64(), vectors.v.to_f64());
    for weight in 0..batch {
        let u = &mut u[weight * n..(weight + 1) * n];
        let v = &mut v[weight * m..(weight + 1) * m];
        for _ in 0..options.steps {
            v.copy_from_slice(&unit(product(&w, weight, u)));
            u.copy_from_slice(&unit(transposed_product(&w, weight, v)));
        }
    }
    if options.steps > 0 {
        vectors.u.store(&u);
        vectors.v.store(&v);
        (u, v) = (vectors.u.to_f64(), vectors.v.to_f64());
    }

    let sigmas: Vec<f64> = (0..batch)
        .map(|weight| {
            let wu = product(&w, weight, &u[weight * n..(weight + 1) * n]);
            dot(&v[weight * m..(weight + 1) * m], &wu)
        })
        .collect();
    let scales: Vec<f64> = (0..batch)
        .map(|weight| scale(gamma, weight, sigmas[weight]))
        .collect();
    if let Some(scaled) = scaled {
        scaled
            .into_rows()
            .into_par_iter()
            .enumerate()
            .for_each(|(row, mut into)| {
                let scale = scales[row / m];
                let values: Vec<f64> = w.row(row).iter().map(|w| scale * w).collect();
                into.store(&values);
            });
    }
    Ok(Forward {
        status: status(&sigmas),
        sigmas,
        scales,
    })
}

/// What a backward reads beside the weights.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// `[batch, n]`, as the forward left it.
    pub u: Floats<'a>,
    /// `[batch, m]`, as the forward left it.
    pub v: Floats<'a>,
    /// `[batch]`, [`Forward::sigmas`].
    pub sigmas: Floats<'a>,
}

/// The gradients of W and gamma from `dscaled`, that of W^.
///
/// `dgamma` is `[batch]`; both are added to what is there if `accumulate`.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit.
pub fn backward(
    w: FloatRows,
    saved: Saved,
    gamma: Option<Floats>,
    dscaled: FloatRows,
    dw: FloatRowsMut,
    dgamma: Option<FloatsMut>,
    accumulate: bool,
) -> Result<Status, Error> {
    let [batch, m, n] = w.shape();
    check_vectors(w.shape(), saved.u.len(), saved.v.len())?;
    check_batch("gamma", gamma, batch)?;
    check_batch("sigmas", Some(saved.sigmas), batch)?;
    same_shape("dscaled", dscaled.shape(), w.shape())?;
    same_shape("dw", dw.shape(), w.shape())?;

    let sigmas = saved.sigmas.to_f64();
    // <G, W> / sigma.
    let ratios: Vec<f64> = (0..batch)
        .map(|weight| {
            let rows = weight * m..(weight + 1) * m;
            let by_row: Vec<f64> = rows
                .into_par_iter()
                .map(|row| dot(&dscaled.row(row), &w.row(row)))
                .collect();
            divided(by_row.into_iter().collect::<Sum>().value(), sigmas[weight])
        })
        .collect();
    dw.into_rows()
        .into_par_iter()
        .enumerate()
        .for_each(|(row, mut into)| {
            let weight = row / m;
            let scale = scale(gamma, weight, sigmas[weight]);
            let along = ratios[weight] * saved.v.at(row);
            let u = saved.u.widen(weight * n, (weight + 1) * n);
            let values: Vec<f64> = dscaled
                .row(row)
                .iter()
                .zip(u)
                .map(|(g, u)| times(scale, g - along * u))
                .collect();
            into.store_or_add(&values, accumulate);
        });
    if let Some(mut dgamma) = dgamma {
        let given = gamma.is_some() && dgamma.len() == batch;
        expect("dgamma", given, "one for each gamma", dgamma.len())?;
        dgamma.store_or_add(&ratios, accumulate);
    }
    Ok(status(&sigmas))
}

fn scale(gamma: Option<Floats>, weight: usize, sigma: f64) -> f64 {
    divided(gamma.map_or(1.0, |gamma| gamma.at(weight)), sigma)
}

/// A quotient by sigma, 0 where sigma is.
fn divided(value: f64, sigma: f64) -> f64 {
    if sigma == 0.0 { 0.0 } else { value / sigma }
}

/// A product in which a scale of 0 removes everything.
fn times(scale: f64, value: f64) -> f64 {
    if scale == 0.0 { 0.0 } else { scale * value }
}

fn status(sigmas: &[f64]) -> Status {
    sigmas.iter().fold(Status::empty(), |all, &sigma| {
        all | match sigma {
            0.0 => Status::ZERO_SIGMA,
            sigma if sigma.is_finite() => Status::empty(),
            _ => Status::NON_FINITE_ROW,
        }
    })
}

/// W u.
fn product(w: &FloatRows, weight: usize, u: &[f64]) -> Vec<f64> {
    let m = w.shape()[1];
    (weight * m..(weight + 1) * m)
        .into_par_iter()
        .map(|row| dot(&w.row(row), u))
        .collect()
}

/// `W^T` v.
fn transposed_product(w: &FloatRows, weight: usize, v: &[f64]) -> Vec<f64> {
    let [_, m, n] = w.shape();
    super::sums::over_rows(m, n, 1, |row, start, end| {
        let mut part = w.part(weight * m + row, start, end);
        part.iter_mut().for_each(|w| *w *= v[row]);
        part
    })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).collect::<Sum>().value()
}

fn unit(mut vector: Vec<f64>) -> Vec<f64> {
    let norm = dot(&vector, &vector).sqrt();
    if norm != 0.0 {
        vector.iter_mut().for_each(|value| *value /= norm);
    }
    vector
}

fn check_vectors(shape: [usize; 3], u: usize, v: usize) -> Result<(), Error> {
    let [batch, m, n] = shape;
    expect("u", u == batch * n, "[batch, n]", u)?;
    expect("v", v == batch * m, "[batch, m]", v)
}

fn check_batch(argument: &'static str, values: Option<Floats>, batch: usize) -> Result<(), Error> {
    let len = values.map_or(batch, |values| values.len());
    expect(argument, len == batch, "one for each weight", len)
}
