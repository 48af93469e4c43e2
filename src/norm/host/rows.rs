//! The normalizations of rows: one call, run by the reference.

use crate::host::{fill, floats, floats_mut, indices};
use crate::norm::arguments;
use crate::norm::call::{BackwardCall, ForwardCall, Pair};
use crate::norm::{HeadNormOptions, Rotary};
#[cfg(feature = "quant")]
use crate::quant::{Store, store_on_host};
use crate::reference::norm::heads::RotaryTables;
use crate::reference::norm::rows::{self, Incoming, Outgoing, Residual};
use crate::reference::norm::{Forward, WeightGradients, Weights, gated, heads, sdd};
use crate::reference::{FloatRows, FloatRowsMut, FloatsMut};
use crate::rows::{RowShape, WeightForm};
#[cfg(feature = "quant")]
use crate::{DType, Stream};
use crate::{Error, Result, Status, TensorMut, TensorRef};

/// Runs a checked forward. Gives what was found wrong with the data.
pub(in crate::norm) fn forward(call: ForwardCall<'_>) -> Result<Status> {
    let ForwardCall {
        norm,
        shape,
        mut rows,
        mut residual,
        gate,
        form,
        gamma,
        beta,
        rotary,
        rstd,
        mean,
    } = call;
    let weights = weights(gamma.as_ref(), beta.as_ref())?;
    let (mut copy, mut residual_copy) = (Vec::new(), Vec::new());
    let (x, y) = open(shape, &mut rows, &mut copy)?;
    let tables = rotary.as_ref().map(tables).transpose()?;
    let forward = match (norm, gate, form, weights.gamma) {
        (Some(options), Some(z), ..) => gated::forward(&options, &weights, x, of(shape, &z)?, y)?,
        (Some(_), _, WeightForm::One, Some(alpha)) => sdd::forward(alpha, x, y)?,
        (Some(options), ..) if tables.is_none() => {
            let residual = match &mut residual {
                Some(residual) => {
                    let (residual, stream) = open(shape, residual, &mut residual_copy)?;
                    Some(Residual { residual, stream })
                }
                None => None,
            };
            rows::forward(&options, &weights, x, residual, y)?
        }
        _ => {
            let options = HeadNormOptions {
                norm,
                rotary: rotary.map(|rotary| rotary.0),
            };
            heads::forward(&options, &weights, tables.as_ref(), x, y)?
        }
    };
    store(&forward, rstd, mean)?;
    Ok(forward.status)
}

/// Runs a checked forward, and quantises its rows, which are rounded to f32 first.
#[cfg(feature = "quant")]
pub(in crate::norm) fn forward_quantized(
    stream: &Stream,
    mut call: ForwardCall<'_>,
    store: Store<'_>,
) -> Result<Status> {
    let shape = call.shape;
    let mut y = stream.uninitialised(DType::F32, &[shape.rows(), shape.columns])?;
    let mut call = call.reborrow();
    let x = match call.rows {
        Pair::Read(x) | Pair::Apart(x, _) => x,
        Pair::InPlace(_) => return Err(missing_output()),
    };
    call.rows = Pair::Apart(x, y.view_mut());
    let status = forward(call)?;
    Ok(status | store_on_host(y.view().host_slice()?, store)?)
}

/// Runs a checked backward. Gives what was found wrong with the data.
pub(in crate::norm) fn backward(call: BackwardCall<'_>) -> Result<Status> {
    let BackwardCall {
        norm,
        shape,
        x,
        mut gradient,
        dstream,
        mut dresidual,
        gate,
        form,
        gamma,
        beta,
        rotary,
        mut dgamma,
        mut dbeta,
        accumulate,
        ..
    } = call;
    let weights = weights(gamma.as_ref(), beta.as_ref())?;
    let mut copy = Vec::new();
    let (dy, dx) = open(shape, &mut gradient, &mut copy)?;
    // A rotary embedding alone does not look at x.
    let x = x.map_or(Ok(dy), |x| of(shape, &x))?;
    let tables = rotary.as_ref().map(tables).transpose()?;
    let dweights = WeightGradients {
        gamma: optional(&mut dgamma)?,
        beta: optional(&mut dbeta)?,
        accumulate,
    };
    match (norm, gate, form, weights.gamma) {
        (Some(options), Some((z, mut dz)), ..) => {
            let incoming = Incoming { dy, dstream: None };
            let outgoing = Outgoing {
                dx,
                dresidual: None,
                weights: dweights,
            };
            let (z, dz) = (of(shape, &z)?, of_mut(shape, &mut dz)?);
            gated::backward(&options, &weights, x, z, incoming, outgoing, dz)
        }
        (Some(_), _, WeightForm::One, Some(alpha)) => {
            let mut unasked = [0.0_f64];
            let dalpha = dweights.gamma.unwrap_or(FloatsMut::F64(&mut unasked));
            sdd::backward(alpha, x, dy, dx, dalpha, accumulate)
        }
        (Some(options), ..) if tables.is_none() => {
            let dstream = dstream.map(|dstream| of(shape, &dstream)).transpose()?;
            let dresidual = dresidual.as_mut().map(|rows| of_mut(shape, rows));
            let outgoing = Outgoing {
                dx,
                dresidual: dresidual.transpose()?,
                weights: dweights,
            };
            rows::backward(&options, &weights, x, Incoming { dy, dstream }, outgoing)
        }
        _ => {
            let options = HeadNormOptions {
                norm,
                rotary: rotary.map(|rotary| rotary.0),
            };
            heads::backward(&options, &weights, tables.as_ref(), x, dy, dx, dweights)
        }
    }
}

pub(super) fn of<'a>(shape: RowShape, view: &TensorRef<'a>) -> Result<FloatRows<'a>> {
    FloatRows::heads(floats(view)?, dimensions(shape), shape.strides(view))
}

pub(super) fn of_mut<'v>(shape: RowShape, view: &'v mut TensorMut<'_>) -> Result<FloatRowsMut<'v>> {
    let strides = shape.strides(&view.as_ref());
    FloatRowsMut::heads(floats_mut(view)?, dimensions(shape), strides)
}

fn dimensions(shape: RowShape) -> [usize; 3] {
    [shape.tokens, shape.heads, shape.columns]
}

/// The rows to read and those to write; rows that are both are read from a copy.
pub(super) fn open<'p>(
    shape: RowShape,
    pair: &'p mut Pair<'_>,
    copy: &'p mut Vec<f64>,
) -> Result<(FloatRows<'p>, FloatRowsMut<'p>)> {
    match pair {
        Pair::Apart(input, output) => Ok((of(shape, input)?, of_mut(shape, output)?)),
        // Results that go elsewhere have no rows of their own to be written.
        Pair::Read(_) => Err(missing_output()),
        Pair::InPlace(both) => {
            *copy = floats(&both.as_ref())?.to_f64();
            let strides = shape.strides(&both.as_ref());
            let copy = FloatRows::heads(&*copy, dimensions(shape), strides)?;
            Ok((copy, of_mut(shape, both)?))
        }
    }
}

fn missing_output() -> Error {
    Error::argument("norm", "y", "rows to write", "none")
}

pub(super) fn weights<'a>(
    gamma: Option<&TensorRef<'a>>,
    beta: Option<&TensorRef<'a>>,
) -> Result<Weights<'a>> {
    Ok(Weights {
        gamma: gamma.map(floats).transpose()?,
        beta: beta.map(floats).transpose()?,
    })
}

fn tables<'a>(rotary: &(Rotary, arguments::RotaryTables<'a>)) -> Result<RotaryTables<'a>> {
    let tables = rotary.1;
    Ok(RotaryTables {
        cos: floats(&tables.cos)?,
        sin: floats(&tables.sin)?,
        positions: tables.positions.as_ref().map(indices).transpose()?,
    })
}

pub(super) fn optional<'v>(view: &'v mut Option<TensorMut<'_>>) -> Result<Option<FloatsMut<'v>>> {
    view.as_mut().map(floats_mut).transpose()
}

fn store(
    forward: &Forward,
    rstd: Option<TensorMut<'_>>,
    mean: Option<TensorMut<'_>>,
) -> Result<()> {
    if let Some(mut rstd) = rstd {
        fill(
            &mut rstd,
            forward.moments.iter().map(|moments| moments.rstd),
        )?;
    }
    if let Some(mut mean) = mean {
        fill(
            &mut mean,
            forward.moments.iter().map(|moments| moments.mean),
        )?;
    }
    Ok(())
}
