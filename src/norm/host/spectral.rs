//! Spectral norms of weights.

use super::rows::{of, of_mut, optional};
use crate::host::{fill, floats, floats_mut};
use crate::norm::SpectralNormOptions;
use crate::norm::spectral::{BackwardCall, ForwardCall, Shape};
use crate::reference::norm::spectral::{self, Saved, Vectors};
use crate::rows::RowShape;
use crate::{Result, Status};

/// Runs a checked forward. Gives what was found wrong with the data.
pub(in crate::norm) fn forward(mut call: ForwardCall<'_>) -> Result<Status> {
    let shape = shape(call.shape);
    let vectors = Vectors {
        u: floats_mut(&mut call.u)?,
        v: floats_mut(&mut call.v)?,
    };
    let scaled = call.scaled.as_mut().map(|scaled| of_mut(shape, scaled));
    let forward = spectral::forward(
        &SpectralNormOptions::new(call.steps),
        of(shape, &call.w)?,
        vectors,
        call.gamma.as_ref().map(floats).transpose()?,
        scaled.transpose()?,
    )?;
    fill(&mut call.sigma, forward.sigmas)?;
    fill(&mut call.scale, forward.scales)?;
    Ok(forward.status)
}

/// Runs a checked backward. Gives what was found wrong with the data.
pub(in crate::norm) fn backward(mut call: BackwardCall<'_>) -> Result<Status> {
    let shape = shape(call.shape);
    let saved = Saved {
        u: floats(&call.saved.u)?,
        v: floats(&call.saved.v)?,
        sigmas: floats(&call.saved.sigma)?,
    };
    spectral::backward(
        of(shape, &call.w)?,
        saved,
        call.gamma.as_ref().map(floats).transpose()?,
        of(shape, &call.dscaled)?,
        of_mut(shape, &mut call.dw)?,
        optional(&mut call.dgamma)?,
        call.accumulate,
    )
}

/// The rows of `[batch, m, n]`, which the reference nests as heads.
fn shape(shape: Shape) -> RowShape {
    RowShape {
        tokens: shape.batch,
        heads: shape.m,
        columns: shape.n,
    }
}
