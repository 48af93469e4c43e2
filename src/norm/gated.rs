//! The operation: a normalization times a gate.

use super::arguments::{GradientOutputs, Saved, Statistics, Weights};
use super::call::{BackwardCall, ForwardCall, Pair, RowOp};
use super::check::workspace_bytes;
use super::result::{GatedNormGradients, NormResult, WeightBuffers, like};
use super::{NormKind, NormOptions};
use crate::check::reborrow;
#[cfg(feature = "quant")]
use crate::quant::Quantize;
use crate::rows::{RowShape, WeightForm};
use crate::{Result, Stream, TensorMut, TensorRef};

/// The norm of x times the silu of a gate z (Mamba 2, arXiv 2405.21060), to be prepared for a stream.
///
/// ```text
/// y = norm(x) silu(z)     silu(z) = z sig(z)     sig(z) = 1 / (1 + exp(-z))
///
/// dz = dy norm(x) sig(z) (1 + z sig(-z))
/// ```
///
/// and dx, dgamma and dbeta are those of [`Norm`](super::Norm), whose options and formulas it has,
/// for the gradient dy silu(z).
///
/// ```
/// use evenkeel::{Device, norm::{GatedNorm, NormOptions, Weights}};
///
/// let stream = Device::cpu().stream()?;
/// let x = stream.upload(&[1, 2], &[1.0_f32, 7.0])?;
/// let z = stream.upload(&[1, 2], &[100.0_f32, 0.0])?; // silu: 100 and 0
/// let op = GatedNorm::new(NormOptions::rms()).prepare(&stream)?;
/// let y = op.forward(x.view(), z.view(), &Weights::default())?.y.read::<f32>()?;
/// assert!((y[0] - 20.0).abs() < 1e-4 && y[1] == 0.0);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GatedNorm {
    options: NormOptions,
    #[cfg(feature = "quant")]
    quantize: Option<Quantize>,
}

impl GatedNorm {
    /// Of these options.
    #[must_use]
    pub fn new(options: NormOptions) -> Self {
        Self {
            options,
            #[cfg(feature = "quant")]
            quantize: None,
        }
    }

    /// How [`forward_quantized`](PreparedGatedNorm::forward_quantized) quantises y, as
    /// [`Norm::quantized`](super::Norm::quantized) says.
    #[cfg(feature = "quant")]
    #[must_use]
    pub fn quantized(mut self, quantize: Quantize) -> Self {
        self.quantize = Some(quantize);
        self
    }

    /// The options of the normalization.
    #[must_use]
    pub fn options(&self) -> &NormOptions {
        &self.options
    }

    /// Validates the options and loads the kernels.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for an option outside its range,
    /// [`Error::Unsupported`](crate::Error::Unsupported) on a device that has no kernels for it.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedGatedNorm> {
        self.options.validate()?;
        let rows = RowOp::prepare(stream, self.options.kind, "dgamma")?;
        #[cfg(feature = "quant")]
        let rows = rows.quantized("GatedNorm::quantized", self.options.kind, self.quantize)?;
        Ok(PreparedGatedNorm {
            options: self.options,
            rows,
        })
    }
}

/// A [`GatedNorm`] ready to run on a stream.
///
/// z, its gradient and all that [`PreparedNorm`](super::PreparedNorm) has are as there: rows at any
/// stride in types of their own, weights `[D]`, statistics f32. A row with NaN or an infinity in x or
/// z is NaN and sets [`Status::NON_FINITE_ROW`](crate::Status::NON_FINITE_ROW).
#[derive(Debug)]
pub struct PreparedGatedNorm {
    options: NormOptions,
    pub(super) rows: RowOp,
}

impl PreparedGatedNorm {
    /// The options of the normalization.
    #[must_use]
    pub fn options(&self) -> &NormOptions {
        &self.options
    }

    /// Scratch that a backward of so many rows needs for the gradients of weights, in bytes.
    #[must_use]
    pub fn backward_workspace_bytes(&self, rows: usize, columns: usize) -> usize {
        workspace_bytes(rows, columns)
    }

    /// y, of x's shape and type, and what the backward needs.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for what does not fit, and the device's errors.
    pub fn forward(
        &self,
        x: TensorRef<'_>,
        z: TensorRef<'_>,
        weights: &Weights<'_>,
    ) -> Result<NormResult> {
        RowShape::of(&self.rows.check("GatedNorm::forward"), "x", &x)?;
        let layer = self.options.kind == NormKind::Layer;
        let mut result = NormResult::allocate(self.rows.stream(), &x, None, layer)?;
        let (y, _, mut statistics) = result.outputs();
        self.forward_into(x, z, weights, y, &mut statistics)?;
        Ok(result)
    }

    /// As [`forward`](Self::forward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_into(
        &self,
        x: TensorRef<'_>,
        z: TensorRef<'_>,
        weights: &Weights<'_>,
        mut y: TensorMut<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        let check = self.rows.check("GatedNorm::forward");
        let shape = RowShape::of(&check, "x", &x)?;
        let call = ForwardCall {
            norm: Some(self.options),
            shape,
            rows: Pair::Apart(x, y.reborrow()),
            residual: None,
            gate: Some(z),
            form: shape.weight_form(&check, weights, &[WeightForm::Row])?,
            gamma: weights.gamma,
            beta: weights.beta,
            rotary: None,
            rstd: reborrow(&mut statistics.rstd),
            mean: reborrow(&mut statistics.mean),
        };
        self.rows.forward(&check, call)
    }

    /// The gradients of x and z, in their types, and of the weights that are given. `saved` is what
    /// the forward saved.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(
        &self,
        x: TensorRef<'_>,
        z: TensorRef<'_>,
        weights: &Weights<'_>,
        saved: &Saved<'_>,
        dy: TensorRef<'_>,
    ) -> Result<GatedNormGradients> {
        let check = self.rows.check("GatedNorm::backward");
        let shape = RowShape::of(&check, "x", &x)?;
        shape.weight_form(&check, weights, &[WeightForm::Row])?;
        let stream = self.rows.stream();
        let mut dx = like(stream, &x, x.dtype())?;
        let mut dz = like(stream, &z, z.dtype())?;
        let bytes = self.backward_workspace_bytes(shape.rows(), shape.columns);
        let mut buffers = WeightBuffers::allocate(stream, weights, bytes)?;
        let mut outputs = buffers.outputs();
        let (dx_view, dz_view) = (dx.view_mut(), dz.view_mut());
        self.backward_into(x, z, weights, saved, dy, dx_view, dz_view, &mut outputs)?;
        let WeightBuffers { dgamma, dbeta, .. } = buffers;
        Ok(GatedNormGradients {
            dx,
            dz,
            dgamma,
            dbeta,
        })
    }

    /// As [`backward`](Self::backward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    #[expect(clippy::too_many_arguments, reason = "each is a tensor of the formula")]
    pub fn backward_into(
        &self,
        x: TensorRef<'_>,
        z: TensorRef<'_>,
        weights: &Weights<'_>,
        saved: &Saved<'_>,
        dy: TensorRef<'_>,
        mut dx: TensorMut<'_>,
        mut dz: TensorMut<'_>,
        outputs: &mut GradientOutputs<'_>,
    ) -> Result<()> {
        let check = self.rows.check("GatedNorm::backward");
        let shape = RowShape::of(&check, "x", &x)?;
        outputs.refuse_residual(&check)?;
        outputs.refuse_alpha(&check)?;
        let call = BackwardCall {
            norm: Some(self.options),
            shape,
            x: Some(x),
            saved: Some(*saved),
            gradient: Pair::Apart(dy, dx.reborrow()),
            dstream: None,
            dresidual: None,
            gate: Some((z, dz.reborrow())),
            form: shape.weight_form(&check, weights, &[WeightForm::Row])?,
            gamma: weights.gamma,
            beta: weights.beta,
            rotary: None,
            dgamma: reborrow(&mut outputs.dgamma),
            dbeta: reborrow(&mut outputs.dbeta),
            accumulate: outputs.accumulate,
            workspace: reborrow(&mut outputs.workspace),
        };
        self.rows.backward(&check, call)
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedGatedNorm>();
};
