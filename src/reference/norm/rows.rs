//! `RmsNorm` and `LayerNorm` of rows, with a fused residual: the formulas are at [`super`].

use rayon::prelude::*;

use super::pass::Pass;
use super::{Forward, Moments, WeightGradients, Weights, same_shape};
use crate::norm::NormOptions;
use crate::reference::floats::{FloatRows, FloatRowsMut, FloatsMut};
use crate::{Error, Status};

/// A residual that is added to x before the normalization.
#[derive(Debug)]
pub struct Residual<'a> {
    /// As x, of its own type.
    pub residual: FloatRows<'a>,
    /// s = x + residual, rounded once to this type. What is normalized is the rounded s, so that a
    /// backward from the stored s sees the same row.
    pub stream: FloatRowsMut<'a>,
}

/// y = norm(x), or s = x + residual and y = norm(s).
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn forward(
    options: &NormOptions,
    weights: &Weights,
    x: FloatRows,
    residual: Option<Residual>,
    y: FloatRowsMut,
) -> Result<Forward, Error> {
    options.validate()?;
    let pass = Pass::new(Some(*options), *weights, None, x.shape())?;
    forward_with(&pass, x, residual, y)
}

pub(super) fn forward_with(
    pass: &Pass,
    x: FloatRows,
    residual: Option<Residual>,
    y: FloatRowsMut,
) -> Result<Forward, Error> {
    same_shape("y", y.shape(), x.shape())?;
    let (residual, stream) = match residual {
        Some(Residual { residual, stream }) => {
            same_shape("residual", residual.shape(), x.shape())?;
            same_shape("stream", stream.shape(), x.shape())?;
            (Some(residual), Some(stream))
        }
        None => (None, None),
    };
    let rows: Vec<(Moments, Status)> = y
        .into_rows()
        .into_par_iter()
        .zip(optional_rows(stream, x.rows()))
        .enumerate()
        .map(|(row, (mut y, stream))| {
            let mut x = x.row(row);
            if let Some((residual, mut stream)) = residual.zip(stream) {
                for (x, residual) in x.iter_mut().zip(residual.row(row)) {
                    *x += residual;
                }
                stream.store(&x);
                x = stream.to_f64();
            }
            let (moments, values, status) = pass.forward(row, &x);
            y.store(&values);
            (moments, status)
        })
        .collect();
    Ok(Forward {
        status: rows.iter().fold(Status::empty(), |all, row| all | row.1),
        moments: rows.into_iter().map(|row| row.0).collect(),
    })
}

/// The gradients that come from above.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Of y.
    pub dy: FloatRows<'a>,
    /// Of s, the sum of x and the residual, from where else it is used; it is added.
    pub dstream: Option<FloatRows<'a>>,
}

/// Where the gradients go.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Of x.
    pub dx: FloatRowsMut<'a>,
    /// Of the residual: the same numbers as dx, rounded to this type.
    pub dresidual: Option<FloatRowsMut<'a>>,
    /// Of gamma and beta.
    pub weights: WeightGradients<'a>,
}

/// The gradients of a forward over x; with a residual, x is the stream s that the forward stored.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn backward(
    options: &NormOptions,
    weights: &Weights,
    x: FloatRows,
    incoming: Incoming,
    outgoing: Outgoing,
) -> Result<Status, Error> {
    options.validate()?;
    let pass = Pass::new(Some(*options), *weights, None, x.shape())?;
    backward_with(&pass, x, incoming, outgoing)
}

pub(super) fn backward_with(
    pass: &Pass,
    x: FloatRows,
    incoming: Incoming,
    outgoing: Outgoing,
) -> Result<Status, Error> {
    let Incoming { dy, dstream } = incoming;
    let Outgoing {
        dx,
        dresidual,
        weights,
    } = outgoing;
    same_shape("dy", dy.shape(), x.shape())?;
    same_shape("dx", dx.shape(), x.shape())?;
    if let Some(dstream) = &dstream {
        same_shape("dstream", dstream.shape(), x.shape())?;
    }
    if let Some(dresidual) = &dresidual {
        same_shape("dresidual", dresidual.shape(), x.shape())?;
    }
    let moments: Vec<Moments> = (0..x.rows())
        .into_par_iter()
        .map(|row| pass.moments(&x.row(row)))
        .collect();
    pass.weight_gradients(&x, &dy, &moments, weights)?;
    let statuses: Vec<Status> = dx
        .into_rows()
        .into_par_iter()
        .zip(optional_rows(dresidual, x.rows()))
        .enumerate()
        .map(|(row, (mut dx, dresidual))| {
            let (mut values, status) = pass.backward(row, &x.row(row), &dy.row(row));
            if let Some(dstream) = dstream {
                for (dx, dstream) in values.iter_mut().zip(dstream.row(row)) {
                    *dx += dstream;
                }
            }
            dx.store(&values);
            if let Some(mut dresidual) = dresidual {
                dresidual.store(&values);
            }
            status
        })
        .collect();
    Ok(statuses
        .into_iter()
        .fold(Status::empty(), |all, status| all | status))
}

/// The rows, or as many absent ones.
fn optional_rows(rows: Option<FloatRowsMut>, count: usize) -> Vec<Option<FloatsMut>> {
    match rows {
        Some(rows) => rows.into_rows().into_iter().map(Some).collect(),
        None => (0..count).map(|_| None).collect(),
    }
}
