//! The operation: Scale-Distribution Decoupling, a normalization after a product.

use super::NormKind;
use super::arguments::{GradientOutputs, Saved, Statistics};
use super::call::{BackwardCall, ForwardCall, Pair, RowOp};
use super::check::workspace_bytes;
use super::result::{NormResult, SddGradients, like};
use super::{NormOptions, SDD_EPS};
use crate::check::{Check, reborrow};
#[cfg(feature = "quant")]
use crate::quant::Quantize;
use crate::rows::{RowShape, WeightForm};
use crate::{DType, Result, Stream, TensorMut, TensorRef};

/// alpha may be one number or one for each feature.
pub(super) const FORMS: [WeightForm; 2] = [WeightForm::One, WeightForm::Row];

/// Scale-Distribution Decoupling (arXiv 2502.15499): the output features x = W u of a linear layer are
/// normalized, and a learned alpha has the scale. To be prepared for a stream.
///
/// ```text
/// y = alpha x r     r = 1 / sqrt(mean(x^2) + eps)     eps = 1e-6 (SDD_EPS)
///
/// dx as of RmsNorm with gamma = alpha     dalpha_j = sum_rows dy_j x_j r
/// ```
///
/// alpha is `[D]`, or `[1]`: one for all features, whose gradient then is the sum over them too.
///
/// ```
/// use evenkeel::{Device, norm::Sdd};
///
/// let stream = Device::cpu().stream()?;
/// let features = stream.upload(&[1, 2], &[1.0_f32, 7.0])?;
/// let alpha = stream.upload(&[1], &[10.0_f32])?;
/// let op = Sdd::new().prepare(&stream)?;
/// let forward = op.forward(features.view(), alpha.view())?;
/// assert!((forward.y.read::<f32>()?[1] - 14.0).abs() < 1e-5);
///
/// let dy = stream.upload(&[1, 2], &[1.0_f32, 1.0])?;
/// let backward = op.backward(features.view(), alpha.view(), &forward.saved(), dy.view())?;
/// assert!((backward.dalpha.read::<f32>()?[0] - 1.6).abs() < 1e-6);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Sdd {
    #[cfg(feature = "quant")]
    quantize: Option<Quantize>,
}

impl Sdd {
    /// It has no options: its authors chose eps.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How [`forward_quantized`](PreparedSdd::forward_quantized) quantises y, as
    /// [`Norm::quantized`](super::Norm::quantized) says.
    #[cfg(feature = "quant")]
    #[must_use]
    pub fn quantized(mut self, quantize: Quantize) -> Self {
        self.quantize = Some(quantize);
        self
    }

    /// Loads the kernels.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) on a device that has no kernels for it.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedSdd> {
        let rows = RowOp::prepare(stream, NormKind::Rms, "dalpha")?;
        #[cfg(feature = "quant")]
        let rows = rows.quantized("Sdd::quantized", NormKind::Rms, self.quantize)?;
        Ok(PreparedSdd { rows })
    }
}

/// An [`Sdd`] ready to run on a stream.
///
/// x, y and their gradients are as in [`PreparedNorm`](super::PreparedNorm): the same rows at any
/// stride, each bf16, f16 or f32 on its own, as is alpha. The statistic is rstd, f32.
#[derive(Debug)]
pub struct PreparedSdd {
    pub(super) rows: RowOp,
}

impl PreparedSdd {
    /// Scratch that a backward of so many rows needs for the gradient of alpha, in bytes.
    #[must_use]
    pub fn backward_workspace_bytes(&self, rows: usize, columns: usize) -> usize {
        workspace_bytes(rows, columns)
    }

    /// y, of x's shape and type, and what the backward needs.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for what does not fit, and the device's errors.
    pub fn forward(&self, x: TensorRef<'_>, alpha: TensorRef<'_>) -> Result<NormResult> {
        const OP: &str = "Sdd::forward";
        RowShape::of(&self.rows.check(OP), "x", &x)?;
        let mut result = NormResult::allocate(self.rows.stream(), &x, None, false)?;
        let (y, _, mut statistics) = result.outputs();
        self.run(OP, Pair::Apart(x, y), alpha, &mut statistics)?;
        Ok(result)
    }

    /// As [`forward`](Self::forward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_into(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        mut y: TensorMut<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        let rows = Pair::Apart(x, y.reborrow());
        self.run("Sdd::forward", rows, alpha, statistics)
    }

    /// As [`forward`](Self::forward), y over x. The backward needs x, so this is for a forward that
    /// has none, or for a caller who makes x again.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_in_place(
        &self,
        mut x: TensorMut<'_>,
        alpha: TensorRef<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        let rows = Pair::InPlace(x.reborrow());
        self.run("Sdd::forward_in_place", rows, alpha, statistics)
    }

    /// The gradients of x, in its type, and of alpha. `saved` is what the forward saved.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        saved: &Saved<'_>,
        dy: TensorRef<'_>,
    ) -> Result<SddGradients> {
        let check = self.rows.check("Sdd::backward");
        let shape = RowShape::of(&check, "x", &x)?;
        shape.form_of(&check, "alpha", &alpha, &FORMS)?;
        let stream = self.rows.stream();
        let mut dx = like(stream, &x, x.dtype())?;
        let mut dalpha = like(stream, &alpha, DType::F32)?;
        let bytes = self.backward_workspace_bytes(shape.rows(), shape.columns);
        let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
        let mut outputs = GradientOutputs::default()
            .dalpha(dalpha.view_mut())
            .workspace(workspace.view_mut());
        self.backward_into(x, alpha, saved, dy, dx.view_mut(), &mut outputs)?;
        Ok(SddGradients { dx, dalpha })
    }

    /// As [`backward`](Self::backward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_into(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        saved: &Saved<'_>,
        dy: TensorRef<'_>,
        mut dx: TensorMut<'_>,
        outputs: &mut GradientOutputs<'_>,
    ) -> Result<()> {
        let check = self.rows.check("Sdd::backward");
        let gradient = Pair::Apart(dy, dx.reborrow());
        self.run_backward(&check, (x, alpha, saved), gradient, outputs)
    }

    /// As [`backward`](Self::backward), dx over dy.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_in_place(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        saved: &Saved<'_>,
        mut dy: TensorMut<'_>,
        outputs: &mut GradientOutputs<'_>,
    ) -> Result<()> {
        let check = self.rows.check("Sdd::backward_in_place");
        let gradient = Pair::InPlace(dy.reborrow());
        self.run_backward(&check, (x, alpha, saved), gradient, outputs)
    }

    fn run<'a>(
        &self,
        op: &'static str,
        rows: Pair<'a>,
        alpha: TensorRef<'a>,
        statistics: &'a mut Statistics<'_>,
    ) -> Result<()> {
        let check = self.rows.check(op);
        let shape = RowShape::of(&check, "x", &rows.input())?;
        let call = ForwardCall {
            norm: Some(options()),
            shape,
            rows,
            residual: None,
            gate: None,
            form: shape.form_of(&check, "alpha", &alpha, &FORMS)?,
            gamma: Some(alpha),
            beta: None,
            rotary: None,
            rstd: reborrow(&mut statistics.rstd),
            mean: reborrow(&mut statistics.mean),
        };
        self.rows.forward(&check, call)
    }

    fn run_backward<'a>(
        &self,
        check: &Check,
        (x, alpha, saved): (TensorRef<'a>, TensorRef<'a>, &Saved<'a>),
        gradient: Pair<'a>,
        outputs: &'a mut GradientOutputs<'_>,
    ) -> Result<()> {
        let shape = RowShape::of(check, "x", &x)?;
        outputs.refuse_residual(check)?;
        outputs.refuse_weights(check)?;
        let call = BackwardCall {
            norm: Some(options()),
            shape,
            x: Some(x),
            saved: Some(*saved),
            gradient,
            dstream: None,
            dresidual: None,
            gate: None,
            form: shape.form_of(check, "alpha", &alpha, &FORMS)?,
            gamma: Some(alpha),
            beta: None,
            rotary: None,
            dgamma: reborrow(&mut outputs.dalpha),
            dbeta: None,
            accumulate: outputs.accumulate,
            workspace: reborrow(&mut outputs.workspace),
        };
        self.rows.backward(check, call)
    }
}

pub(super) fn options() -> NormOptions {
    NormOptions::rms().eps(SDD_EPS)
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedSdd>();
};
