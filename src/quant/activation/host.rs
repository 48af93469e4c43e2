//! The CPU device: checked calls, run by the reference. What is quantised are the f32 results.

use super::arguments::SmoothingScales;
use super::call::{BackwardCall, ForwardCall, Inputs, Output};
use super::options::Smoothing;
use crate::host::{matrix, matrix_mut};
use crate::quant::host::store;
use crate::reference::FloatRowsMut;
use crate::reference::quant::activation::{self as reference, Gradients, Scales};
use crate::{Result, Status, TensorRef};

/// Runs a checked forward. Gives what was found wrong with the data.
pub(super) fn forward(call: ForwardCall<'_, '_, '_>) -> Result<Status> {
    let ForwardCall {
        shape,
        inputs,
        mut scales,
        y,
    } = call;
    let inputs = open(&inputs)?;
    if let (Some((smoothing, SmoothingScales::Computed(into))), Some(up)) = (&mut scales, inputs.up)
    {
        let computed = reference::smoothing_scales(*smoothing, up);
        into.host_slice_mut::<f32>()?.copy_from_slice(&computed);
    }
    let scales = match &scales {
        None => Scales::None,
        Some((smoothing, SmoothingScales::Computed(view))) => chosen(*smoothing, &view.as_ref())?,
        Some((smoothing, SmoothingScales::Given(view))) => chosen(*smoothing, view)?,
    };
    match y {
        Output::Plain(mut y) => {
            reference::forward(shape.function, inputs, scales, matrix_mut(&mut y)?)?;
            Ok(Status::empty())
        }
        Output::Quantized(target) => {
            let mut values = vec![0.0_f32; shape.tokens * shape.channels];
            let y = FloatRowsMut::new(&mut values, shape.tokens, shape.channels, shape.channels)?;
            reference::forward(shape.function, inputs, scales, y)?;
            store(&values, *target)
        }
        // The gradients of a backward alone.
        Output::Apart(..) => Ok(Status::empty()),
    }
}

/// Runs a checked backward. Gives what was found wrong with the data.
pub(super) fn backward(call: BackwardCall<'_, '_>) -> Result<Status> {
    let BackwardCall {
        shape,
        inputs,
        scales,
        dy,
        dx,
    } = call;
    let columns = shape.channels * if inputs.up.is_some() { 2 } else { 1 };
    let inputs = open(&inputs)?;
    let scales = match &scales {
        None => Scales::None,
        Some((smoothing, view)) => chosen(*smoothing, view)?,
    };
    let run = |gradients: Gradients<'_>| -> Result<()> {
        reference::backward(shape.function, inputs, scales, matrix(&dy)?, gradients)
    };
    match dx {
        Output::Plain(mut dx) => run(Gradients::One(matrix_mut(&mut dx)?))?,
        Output::Apart(mut gate, mut up) => {
            run(Gradients::Two(matrix_mut(&mut gate)?, matrix_mut(&mut up)?))?;
        }
        Output::Quantized(target) => {
            let mut values = vec![0.0_f32; shape.tokens * columns];
            let dx = FloatRowsMut::new(&mut values, shape.tokens, columns, columns)?;
            run(Gradients::One(dx))?;
            return store(&values, *target);
        }
    }
    Ok(Status::empty())
}

fn open<'a>(inputs: &Inputs<'a>) -> Result<reference::Inputs<'a>> {
    Ok(reference::Inputs {
        x: matrix(&inputs.x)?,
        up: inputs.up.as_ref().map(matrix).transpose()?,
    })
}

fn chosen<'a>(smoothing: Smoothing, view: &TensorRef<'a>) -> Result<Scales<'a>> {
    let scales = view.host_slice()?;
    Ok(match smoothing {
        Smoothing::Channel => Scales::Channel(scales),
        Smoothing::Token => Scales::Token(scales),
    })
}
