//! The operation: the spectral norm of weights and the weights divided by it, for sigmaReparam.

mod arguments;
mod call;
#[cfg(test)]
mod tests;

pub use arguments::{
    ScaledWeights, SpectralNormGradientOutputs, SpectralNormGradients, SpectralNormOutputs,
    SpectralNormResult, SpectralSaved, SpectralVectors,
};

pub(super) use call::{BackwardCall, ForwardCall, Shape};

use super::SpectralNormOptions;
use super::host;
use super::kernels::{
    SpectralKernels, spectral_backward_workspace_bytes, spectral_workspace_bytes,
};
use crate::check::{Check, reborrow};
use crate::device::stream::Backend;
use crate::{Buffer, DType, Result, Stream, TensorRef};

/// sigma, the largest singular value of weights, and W^ = (gamma / sigma) W, to be prepared for a
/// stream.
///
/// For each weight W `[m, n]` of a batch, with vectors u `[n]` and v `[m]` that the caller keeps from
/// call to call:
///
/// ```text
/// each step  v = W u / |W u|    u = W^T v / |W^T v|
/// sigma = v^T W u               W^ = (gamma / sigma) W
///
/// with u and v held still and G the gradient of W^:
/// dW = (gamma / sigma) (G - (<G, W> / sigma) v u^T)      dgamma = <G, W> / sigma
/// ```
///
/// One step a call suffices in training, where weights move slowly; start u and v from random
/// numbers, not from zeros. Where the weight feeds a matmul, the scale alone will do: it stays on
/// the device, as the product's alpha, and W^ is never stored.
///
/// Source: "Stabilizing Transformer Training by Preventing Attention Entropy Collapse" (arXiv
/// 2303.06296).
///
/// ```
/// use evenkeel::{Device, norm::{SpectralNorm, SpectralSaved, SpectralVectors}};
///
/// let stream = Device::cpu().stream()?;
/// let w = stream.upload(&[2, 2], &[3.0_f32, 0.0, 0.0, 1.0])?;
/// let mut u = stream.upload(&[2], &[0.6_f32, 0.8])?;
/// let mut v = stream.zeros(evenkeel::DType::F32, &[2])?; // written before it is read
/// let op = SpectralNorm::new(30).prepare(&stream)?; // so many steps once, then 1 a call
/// let mut vectors = SpectralVectors::new(u.view_mut(), v.view_mut());
/// let result = op.forward_scaled(w.view(), &mut vectors, None)?;
/// assert_eq!(result.sigma.read::<f32>()?, [3.0]);
/// assert_eq!(result.scaled.read::<f32>()?[..3], [1.0, 0.0, 0.0]);
///
/// let dscaled = stream.upload(&[2, 2], &[1.0_f32, 1.0, 1.0, 1.0])?;
/// let saved = SpectralSaved::new(u.view(), v.view(), result.sigma.view());
/// let gradients = op.backward(w.view(), &saved, None, dscaled.view())?;
/// assert_eq!(gradients.dw.read_range::<f32>(1..4)?, [1.0 / 3.0; 3]);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpectralNorm {
    options: SpectralNormOptions,
}

impl SpectralNorm {
    /// So many steps of the power iteration a call; 1 by default. 0 leaves u and v as they are, for
    /// evaluation.
    #[must_use]
    pub fn new(steps: u32) -> Self {
        Self::from(SpectralNormOptions::new(steps))
    }

    /// The options as they stand.
    #[must_use]
    pub fn options(&self) -> &SpectralNormOptions {
        &self.options
    }

    /// Loads the kernels, so that calls can be captured into a graph.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) on devices that have no kernels for it.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedSpectralNorm> {
        let kernels = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(SpectralKernels::load(stream)?),
        };
        Ok(PreparedSpectralNorm {
            options: self.options,
            stream: stream.clone(),
            kernels,
        })
    }
}

impl From<SpectralNormOptions> for SpectralNorm {
    fn from(options: SpectralNormOptions) -> Self {
        Self { options }
    }
}

/// A [`SpectralNorm`] ready to run on a stream.
///
/// - w is `[m, n]` or `[batch, m, n]` bf16, f16 or f32, rows at any stride; u is `[batch, n]` and v
///   `[batch, m]` f32, contiguous; gamma is `[batch]` f32, 1 without.
/// - sigma is that of u and v as they are stored. A weight of zeros has sigma 0: its scale and its
///   gradients are 0, and [`Status::ZERO_SIGMA`](crate::Status::ZERO_SIGMA) is set. One with NaN or
///   an infinity has NaN, and sets [`Status::NON_FINITE_ROW`](crate::Status::NON_FINITE_ROW).
/// - The CPU computes in f64, kernels in f32; both round each result once.
#[derive(Debug)]
pub struct PreparedSpectralNorm {
    options: SpectralNormOptions,
    stream: Stream,
    /// None: the reference runs the calls.
    kernels: Option<SpectralKernels>,
}

impl PreparedSpectralNorm {
    /// The options.
    #[must_use]
    pub fn options(&self) -> &SpectralNormOptions {
        &self.options
    }

    /// Scratch that [`forward_into`](Self::forward_into) needs for `batch` weights `[m, n]`, in
    /// bytes.
    #[must_use]
    pub fn workspace_bytes(&self, batch: usize, m: usize, n: usize) -> usize {
        spectral_workspace_bytes(batch, m, n)
    }

    /// Scratch that [`backward_into`](Self::backward_into) needs, in bytes.
    #[must_use]
    pub fn backward_workspace_bytes(&self, batch: usize, m: usize, n: usize) -> usize {
        spectral_backward_workspace_bytes(batch, m, n)
    }

    /// Steps u and v on, and gives sigma and gamma / sigma of each weight.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for what does not fit, and the device's errors.
    pub fn forward(
        &self,
        w: TensorRef<'_>,
        vectors: &mut SpectralVectors<'_>,
        gamma: Option<TensorRef<'_>>,
    ) -> Result<SpectralNormResult> {
        let shape = self.forward_shape(&w)?;
        let mut result = SpectralNormResult {
            sigma: self.vector(shape)?,
            scale: self.vector(shape)?,
        };
        let mut workspace = self.workspace(shape)?;
        let mut outputs = SpectralNormOutputs::new(
            result.sigma.view_mut(),
            result.scale.view_mut(),
            workspace.view_mut(),
        );
        self.forward_into(w, vectors, gamma, &mut outputs)?;
        Ok(result)
    }

    /// As [`forward`](Self::forward), with the scaled weights, of w's type and shape.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_scaled(
        &self,
        w: TensorRef<'_>,
        vectors: &mut SpectralVectors<'_>,
        gamma: Option<TensorRef<'_>>,
    ) -> Result<ScaledWeights> {
        let shape = self.forward_shape(&w)?;
        let mut result = ScaledWeights {
            sigma: self.vector(shape)?,
            scale: self.vector(shape)?,
            scaled: self.stream.uninitialised(w.dtype(), w.shape())?,
        };
        let mut workspace = self.workspace(shape)?;
        let mut outputs = SpectralNormOutputs::new(
            result.sigma.view_mut(),
            result.scale.view_mut(),
            workspace.view_mut(),
        )
        .scaled(result.scaled.view_mut());
        self.forward_into(w, vectors, gamma, &mut outputs)?;
        Ok(result)
    }

    /// As [`forward`](Self::forward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_into(
        &self,
        w: TensorRef<'_>,
        vectors: &mut SpectralVectors<'_>,
        gamma: Option<TensorRef<'_>>,
        outputs: &mut SpectralNormOutputs<'_>,
    ) -> Result<()> {
        let check = self.check("SpectralNorm::forward");
        let shape = Shape::of(&check, &w)?;
        let call = ForwardCall {
            steps: self.options.steps,
            shape,
            w,
            u: vectors.u.reborrow(),
            v: vectors.v.reborrow(),
            gamma,
            sigma: outputs.sigma.reborrow(),
            scale: outputs.scale.reborrow(),
            scaled: reborrow(&mut outputs.scaled),
            workspace: outputs.workspace.reborrow(),
        };
        let bytes = self.workspace_bytes(shape.batch, shape.m, shape.n);
        call.check(&check, bytes, &self.stream)?;
        match &self.kernels {
            Some(kernels) => kernels.forward(&self.stream, call),
            None => {
                self.stream.raise(host::spectral::forward(call)?);
                Ok(())
            }
        }
    }

    /// The gradients of w, of its type and shape, and of gamma where it is given, from `dscaled`,
    /// that of the scaled weights; u, v and sigma are what the forward left.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(
        &self,
        w: TensorRef<'_>,
        saved: &SpectralSaved<'_>,
        gamma: Option<TensorRef<'_>>,
        dscaled: TensorRef<'_>,
    ) -> Result<SpectralNormGradients> {
        let Shape { batch, m, n } = Shape::of(&self.check("SpectralNorm::backward"), &w)?;
        let dgamma = gamma.map(|_| self.stream.uninitialised(DType::F32, &[batch]));
        let mut gradients = SpectralNormGradients {
            dw: self.stream.uninitialised(w.dtype(), w.shape())?,
            dgamma: dgamma.transpose()?,
        };
        let bytes = self.backward_workspace_bytes(batch, m, n);
        let mut workspace = self.stream.uninitialised(DType::U8, &[bytes])?;
        let mut outputs = SpectralNormGradientOutputs {
            dgamma: gradients.dgamma.as_mut().map(Buffer::view_mut),
            ..SpectralNormGradientOutputs::new(gradients.dw.view_mut(), workspace.view_mut())
        };
        self.backward_into(w, saved, gamma, dscaled, &mut outputs)?;
        Ok(gradients)
    }

    /// As [`backward`](Self::backward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_into(
        &self,
        w: TensorRef<'_>,
        saved: &SpectralSaved<'_>,
        gamma: Option<TensorRef<'_>>,
        dscaled: TensorRef<'_>,
        outputs: &mut SpectralNormGradientOutputs<'_>,
    ) -> Result<()> {
        let check = self.check("SpectralNorm::backward");
        let shape = Shape::of(&check, &w)?;
        let call = BackwardCall {
            shape,
            w,
            saved: *saved,
            gamma,
            dscaled,
            dw: outputs.dw.reborrow(),
            dgamma: reborrow(&mut outputs.dgamma),
            accumulate: outputs.accumulate,
            workspace: outputs.workspace.reborrow(),
        };
        let bytes = self.backward_workspace_bytes(shape.batch, shape.m, shape.n);
        call.check(&check, bytes, &self.stream)?;
        match &self.kernels {
            Some(kernels) => kernels.backward(&self.stream, call),
            None => {
                self.stream.raise(host::spectral::backward(call)?);
                Ok(())
            }
        }
    }

    fn check(&self, op: &'static str) -> Check {
        Check::new(op, &self.stream)
    }

    fn forward_shape(&self, w: &TensorRef<'_>) -> Result<Shape> {
        Shape::of(&self.check("SpectralNorm::forward"), w)
    }

    fn vector(&self, shape: Shape) -> Result<Buffer> {
        self.stream.uninitialised(DType::F32, &[shape.batch])
    }

    fn workspace(&self, shape: Shape) -> Result<Buffer> {
        let bytes = self.workspace_bytes(shape.batch, shape.m, shape.n);
        self.stream.uninitialised(DType::U8, &[bytes])
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedSpectralNorm>();
};
