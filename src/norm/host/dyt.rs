//! Dynamic tanh.

use super::rows::{open, optional, weights};
use crate::host::matrix;
#[cfg(feature = "quant")]
use crate::norm::call::Pair;
use crate::norm::dyt::{BackwardCall, ForwardCall};
#[cfg(feature = "quant")]
use crate::norm::quantized::DytQuantizedCall;
#[cfg(feature = "quant")]
use crate::quant::store_on_host;
use crate::reference::norm::{WeightGradients, dyt};
#[cfg(feature = "quant")]
use crate::{DType, Stream};
use crate::{Result, Status, TensorRef};

/// Runs a checked forward. Gives what was found wrong with the data.
pub(in crate::norm) fn forward(mut call: ForwardCall<'_>) -> Result<Status> {
    let mut copy = Vec::new();
    let (x, y) = open(call.shape, &mut call.x, &mut copy)?;
    let weights = weights(call.weights.gamma.as_ref(), call.weights.beta.as_ref())?;
    dyt::forward(alpha(&call.alpha)?, &weights, x, y)
}

/// Runs a checked forward, and quantises its rows, which are rounded to f32 first.
#[cfg(feature = "quant")]
pub(in crate::norm) fn forward_quantized(
    stream: &Stream,
    call: DytQuantizedCall<'_>,
) -> Result<Status> {
    let DytQuantizedCall {
        shape,
        alpha,
        weights,
        x,
        store,
    } = call;
    let mut y = stream.uninitialised(DType::F32, &[shape.rows(), shape.columns])?;
    let status = forward(ForwardCall {
        shape,
        alpha,
        weights,
        x: Pair::Apart(x, y.view_mut()),
    })?;
    Ok(status | store_on_host(y.view().host_slice()?, store)?)
}

/// Runs a checked backward. Gives what was found wrong with the data.
pub(in crate::norm) fn backward(mut call: BackwardCall<'_>) -> Result<Status> {
    let mut copy = Vec::new();
    let (dy, dx) = open(call.shape, &mut call.dy, &mut copy)?;
    let weights = weights(call.weights.gamma.as_ref(), call.weights.beta.as_ref())?;
    let dweights = WeightGradients {
        gamma: optional(&mut call.dgamma)?,
        beta: optional(&mut call.dbeta)?,
        accumulate: call.accumulate,
    };
    dyt::backward(
        alpha(&call.alpha)?,
        &weights,
        matrix(&call.x)?,
        dy,
        dx,
        optional(&mut call.dalpha)?,
        dweights,
    )
}

/// The one number of a view that was checked to have one.
fn alpha(view: &TensorRef<'_>) -> Result<f32> {
    Ok(view.host_slice::<f32>()?.first().copied().unwrap_or(0.0))
}
