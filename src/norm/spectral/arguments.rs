//! What a spectral norm is called with and gives back, and the calls that devices carry out.

use crate::{Buffer, TensorMut, TensorRef};

/// The vectors of the power iteration, which the caller keeps; f32, contiguous.
#[derive(Debug)]
pub struct SpectralVectors<'a> {
    /// `[batch, n]`: read and, if there are steps, written.
    pub u: TensorMut<'a>,
    /// `[batch, m]`: written if there are steps, else read.
    pub v: TensorMut<'a>,
}

impl<'a> SpectralVectors<'a> {
    /// u and v.
    #[must_use]
    pub fn new(u: TensorMut<'a>, v: TensorMut<'a>) -> Self {
        Self { u, v }
    }
}

/// What a forward left, for its backward; f32, contiguous.
#[derive(Clone, Copy, Debug)]
pub struct SpectralSaved<'a> {
    /// `[batch, n]`.
    pub u: TensorRef<'a>,
    /// `[batch, m]`.
    pub v: TensorRef<'a>,
    /// `[batch]`.
    pub sigma: TensorRef<'a>,
}

impl<'a> SpectralSaved<'a> {
    /// u, v and sigma.
    #[must_use]
    pub fn new(u: TensorRef<'a>, v: TensorRef<'a>, sigma: TensorRef<'a>) -> Self {
        Self { u, v, sigma }
    }
}

/// Where a forward writes.
#[derive(Debug)]
pub struct SpectralNormOutputs<'a> {
    /// `[batch]` f32.
    pub sigma: TensorMut<'a>,
    /// gamma / sigma, `[batch]` f32.
    pub scale: TensorMut<'a>,
    /// The scaled weights: of w's shape, bf16, f16 or f32.
    pub scaled: Option<TensorMut<'a>>,
    /// Scratch: u8 at a multiple of 16, of
    /// [`workspace_bytes`](super::PreparedSpectralNorm::workspace_bytes).
    pub workspace: TensorMut<'a>,
}

impl<'a> SpectralNormOutputs<'a> {
    /// Sigma and the scale alone.
    #[must_use]
    pub fn new(sigma: TensorMut<'a>, scale: TensorMut<'a>, workspace: TensorMut<'a>) -> Self {
        Self {
            sigma,
            scale,
            scaled: None,
            workspace,
        }
    }

    /// With the scaled weights.
    #[must_use]
    pub fn scaled(mut self, scaled: TensorMut<'a>) -> Self {
        self.scaled = Some(scaled);
        self
    }
}

/// Where a backward writes.
#[derive(Debug)]
pub struct SpectralNormGradientOutputs<'a> {
    /// Of w: of its shape, bf16, f16 or f32.
    pub dw: TensorMut<'a>,
    /// Of gamma, `[batch]` f32, where there is one.
    pub dgamma: Option<TensorMut<'a>>,
    /// Whether both are added to what is there.
    pub accumulate: bool,
    /// Scratch: u8 at a multiple of 16, of
    /// [`backward_workspace_bytes`](super::PreparedSpectralNorm::backward_workspace_bytes).
    pub workspace: TensorMut<'a>,
}

impl<'a> SpectralNormGradientOutputs<'a> {
    /// The gradient of w alone, written over what is there.
    #[must_use]
    pub fn new(dw: TensorMut<'a>, workspace: TensorMut<'a>) -> Self {
        Self {
            dw,
            dgamma: None,
            accumulate: false,
            workspace,
        }
    }

    /// With the gradient of gamma.
    #[must_use]
    pub fn dgamma(mut self, dgamma: TensorMut<'a>) -> Self {
        self.dgamma = Some(dgamma);
        self
    }

    /// Added to what is there.
    #[must_use]
    pub fn accumulate(mut self) -> Self {
        self.accumulate = true;
        self
    }
}

/// What [`PreparedSpectralNorm::forward`](super::PreparedSpectralNorm::forward) returns, on the
/// device.
#[derive(Debug)]
pub struct SpectralNormResult {
    /// The largest singular value of each weight as u and v have it, `[batch]` f32.
    pub sigma: Buffer,
    /// gamma / sigma, `[batch]` f32: what a matmul takes as its alpha.
    pub scale: Buffer,
}

/// What [`PreparedSpectralNorm::forward_scaled`](super::PreparedSpectralNorm::forward_scaled)
/// returns, on the device.
#[derive(Debug)]
pub struct ScaledWeights {
    /// The largest singular value of each weight as u and v have it, `[batch]` f32.
    pub sigma: Buffer,
    /// gamma / sigma, `[batch]` f32.
    pub scale: Buffer,
    /// (gamma / sigma) W, of w's type and shape.
    pub scaled: Buffer,
}

/// What [`PreparedSpectralNorm::backward`](super::PreparedSpectralNorm::backward) returns, on the
/// device.
#[derive(Debug)]
pub struct SpectralNormGradients {
    /// Of w: of its type and shape.
    pub dw: Buffer,
    /// Of gamma, `[batch]` f32, where there is one.
    pub dgamma: Option<Buffer>,
}
