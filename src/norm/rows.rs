//! The operation: `RmsNorm` and `LayerNorm` of rows, with a fused residual.

use super::arguments::{GradientOutputs, Saved, Statistics, Weights};
use super::call::{BackwardCall, ForwardCall, Pair, RowOp};
use super::check::workspace_bytes;
use super::result::{NormGradients, NormResult, WeightBuffers, like};
use super::{NormKind, NormOptions};
use crate::check::reborrow;
#[cfg(feature = "quant")]
use crate::quant::Quantize;
use crate::rows::{RowShape, WeightForm};
use crate::{Result, Stream, TensorMut, TensorRef};

/// `RmsNorm` (arXiv 1910.07467) or `LayerNorm` (arXiv 1607.06450) of rows, to be prepared for a
/// stream.
///
/// For each row x of length D, and with s = x + residual in its place where there is a residual,
///
/// ```text
/// rms    y = x r (gamma + offset) + beta             r = 1 / sqrt(mean(x^2) + eps)
/// layer  y = (x - mean) r (gamma + offset) + beta    r = 1 / sqrt(mean((x - mean)^2) + eps)
/// ```
///
/// with offset 1 for a zero-centred gamma (Gemma) and 0 otherwise. With h = (x - mean) r and
/// a = (gamma + offset) dy the gradients are
///
/// ```text
/// dx = r (a - mean(a) - h mean(a h)) + dstream       without mean(a) for rms
/// dgamma = sum_rows dy h      dbeta = sum_rows dy
/// ```
///
/// The deviations are formed from the mean, so that a common offset of the row costs no digits.
///
/// ```
/// use evenkeel::{Device, norm::{Norm, Weights}};
///
/// let stream = Device::cpu().stream()?;
/// let x = stream.upload(&[1, 2], &[1.0_f32, 7.0])?;
/// let gamma = stream.upload(&[2], &[1.0_f32, 2.0])?;
/// let weights = Weights::gamma(gamma.view());
///
/// let op = Norm::rms().prepare(&stream)?;
/// let forward = op.forward(x.view(), &weights)?; // mean(x^2) = 25
/// let y = forward.y.read::<f32>()?;
/// assert!((y[0] - 0.2).abs() < 1e-6 && (y[1] - 2.8).abs() < 1e-6);
///
/// let dy = stream.upload(&[1, 2], &[1.0_f32, 0.0])?;
/// let backward = op.backward(x.view(), &weights, &forward.saved(), dy.view(), None)?;
/// let dx = backward.dx.read::<f32>()?;
/// assert!((dx[0] - 0.196).abs() < 1e-6 && (dx[1] + 0.028).abs() < 1e-6);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    options: NormOptions,
    #[cfg(feature = "quant")]
    quantize: Option<Quantize>,
}

impl Norm {
    /// Of these options.
    #[must_use]
    pub fn new(options: NormOptions) -> Self {
        Self {
            options,
            #[cfg(feature = "quant")]
            quantize: None,
        }
    }

    /// `RmsNorm` with eps 1e-6.
    #[must_use]
    pub fn rms() -> Self {
        Self::new(NormOptions::rms())
    }

    /// `LayerNorm` with eps 1e-5.
    #[must_use]
    pub fn layer() -> Self {
        Self::new(NormOptions::layer())
    }

    /// Another eps, >= 0.
    #[must_use]
    pub fn eps(mut self, eps: f32) -> Self {
        self.options = self.options.eps(eps);
        self
    }

    /// gamma stored less 1.
    #[must_use]
    pub fn zero_centred(mut self) -> Self {
        self.options = self.options.zero_centred();
        self
    }

    /// How [`forward_quantized`](PreparedNorm::forward_quantized) quantises y: along its rows, in one
    /// pass with the normalization. The other forms are as without.
    ///
    /// One pass has row-wise outputs without a rotation, in `fp8-row`, `fp8-1x128`, `mxfp8` and
    /// `mxfp4`, and under a given tensor scale ([`Scaling::Given`](crate::quant::Scaling::Given)) in
    /// `fp8-tensor` and `nvfp4`. The rest `prepare` refuses: what needs more than a row at a time is
    /// [`Quantize`]'s.
    #[cfg(feature = "quant")]
    #[must_use]
    pub fn quantized(mut self, quantize: Quantize) -> Self {
        self.quantize = Some(quantize);
        self
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> &NormOptions {
        &self.options
    }

    /// Validates the options and loads the kernels.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for an option outside its range,
    /// [`Error::Unsupported`](crate::Error::Unsupported) on a device that has no kernels for it, and
    /// for a quantisation that one pass over the rows cannot make.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedNorm> {
        self.options.validate()?;
        let rows = RowOp::prepare(stream, self.options.kind, "dgamma")?;
        #[cfg(feature = "quant")]
        let rows = rows.quantized("Norm::quantized", self.options.kind, self.quantize)?;
        Ok(PreparedNorm {
            options: self.options,
            rows,
        })
    }
}

impl From<NormOptions> for Norm {
    fn from(options: NormOptions) -> Self {
        Self::new(options)
    }
}

/// A [`Norm`] ready to run on a stream.
///
/// - Rows are all dimensions of x but the last, at any row stride; x, y, the residual, the stream and
///   all gradients of rows have the same rows, each bf16, f16 or f32 on its own.
/// - gamma and beta are `[D]`, in types of their own; statistics and gradients of weights are f32.
/// - The forms ending in `_into` and `_in_place` write where the caller says and allocate nothing;
///   the others allocate what they return. What a call writes may not overlap anything else of it.
/// - A row that holds NaN or an infinity, or that has neither spread nor eps, is NaN and sets
///   [`Status::NON_FINITE_ROW`](crate::Status::NON_FINITE_ROW); other rows are not affected.
/// - The same input at the same alignment gives the same bits on the same device.
#[derive(Debug)]
pub struct PreparedNorm {
    options: NormOptions,
    pub(super) rows: RowOp,
}

impl PreparedNorm {
    /// The options.
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
    pub fn forward(&self, x: TensorRef<'_>, weights: &Weights<'_>) -> Result<NormResult> {
        const OP: &str = "Norm::forward";
        let mut result = self.allocate(OP, &x, None)?;
        let (y, _, mut statistics) = result.outputs();
        self.run(OP, Pair::Apart(x, y), None, weights, &mut statistics)?;
        Ok(result)
    }

    /// As [`forward`](Self::forward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_into(
        &self,
        x: TensorRef<'_>,
        weights: &Weights<'_>,
        mut y: TensorMut<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        let rows = Pair::Apart(x, y.reborrow());
        self.run("Norm::forward", rows, None, weights, statistics)
    }

    /// As [`forward`](Self::forward), y over x. The backward needs x, so this is for a forward that
    /// has none, or for a caller who makes x again.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_in_place(
        &self,
        mut x: TensorMut<'_>,
        weights: &Weights<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        let rows = Pair::InPlace(x.reborrow());
        self.run("Norm::forward_in_place", rows, None, weights, statistics)
    }

    /// The stream s = x + residual, rounded to the residual's type, y = norm(s) of the rounded s in
    /// x's type, and what the backward needs, which takes s as x.
    ///
    /// ```
    /// use evenkeel::{Device, norm::{Norm, Weights}};
    ///
    /// let stream = Device::cpu().stream()?;
    /// let block = stream.upload(&[1, 2], &[0.0_f32, 3.0])?;
    /// let residual = stream.upload(&[1, 2], &[1.0_f32, 4.0])?;
    /// let op = Norm::rms().prepare(&stream)?;
    /// let result = op.forward_residual(block.view(), residual.view(), &Weights::default())?;
    /// let sum = result.stream.as_ref().map(|sum| sum.read::<f32>()).transpose()?;
    /// assert_eq!(sum, Some(vec![1.0, 7.0]));
    /// assert!((result.y.read::<f32>()?[1] - 1.4).abs() < 1e-6);
    /// # Ok::<(), evenkeel::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_residual(
        &self,
        x: TensorRef<'_>,
        residual: TensorRef<'_>,
        weights: &Weights<'_>,
    ) -> Result<NormResult> {
        const OP: &str = "Norm::forward_residual";
        let mut result = self.allocate(OP, &x, Some(&residual))?;
        let (y, stream, mut statistics) = result.outputs();
        let residual = stream.map(|stream| Pair::Apart(residual, stream));
        self.run(OP, Pair::Apart(x, y), residual, weights, &mut statistics)?;
        Ok(result)
    }

    /// As [`forward_residual`](Self::forward_residual), into memory of the caller's. The stream is
    /// rounded to the type of `stream`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_residual_into(
        &self,
        x: TensorRef<'_>,
        residual: TensorRef<'_>,
        weights: &Weights<'_>,
        mut stream: TensorMut<'_>,
        mut y: TensorMut<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        let rows = Pair::Apart(x, y.reborrow());
        let residual = Some(Pair::Apart(residual, stream.reborrow()));
        self.run(
            "Norm::forward_residual",
            rows,
            residual,
            weights,
            statistics,
        )
    }

    /// As [`forward_residual`](Self::forward_residual), y over x and the stream over the residual.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_residual_in_place(
        &self,
        mut x: TensorMut<'_>,
        mut residual: TensorMut<'_>,
        weights: &Weights<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        const OP: &str = "Norm::forward_residual_in_place";
        let rows = Pair::InPlace(x.reborrow());
        let residual = Some(Pair::InPlace(residual.reborrow()));
        self.run(OP, rows, residual, weights, statistics)
    }

    /// The gradients of x, in its type, and of the weights that are given.
    ///
    /// `saved` is what the forward saved; with a residual, x is the stream s that the forward gave,
    /// dx is the gradient of x and of the residual alike, and `dstream` the gradient of s from where
    /// else it is used.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(
        &self,
        x: TensorRef<'_>,
        weights: &Weights<'_>,
        saved: &Saved<'_>,
        dy: TensorRef<'_>,
        dstream: Option<TensorRef<'_>>,
    ) -> Result<NormGradients> {
        let check = self.rows.check("Norm::backward");
        let shape = RowShape::of(&check, "x", &x)?;
        shape.weight_form(&check, weights, &[WeightForm::Row])?;
        let stream = self.rows.stream();
        let mut dx = like(stream, &x, x.dtype())?;
        let bytes = self.backward_workspace_bytes(shape.rows(), shape.columns);
        let mut buffers = WeightBuffers::allocate(stream, weights, bytes)?;
        let mut outputs = buffers.outputs();
        self.backward_into(x, weights, saved, dy, dstream, dx.view_mut(), &mut outputs)?;
        let WeightBuffers { dgamma, dbeta, .. } = buffers;
        Ok(NormGradients { dx, dgamma, dbeta })
    }

    /// As [`backward`](Self::backward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    #[expect(clippy::too_many_arguments, reason = "each is a tensor of the formula")]
    pub fn backward_into(
        &self,
        x: TensorRef<'_>,
        weights: &Weights<'_>,
        saved: &Saved<'_>,
        dy: TensorRef<'_>,
        dstream: Option<TensorRef<'_>>,
        mut dx: TensorMut<'_>,
        outputs: &mut GradientOutputs<'_>,
    ) -> Result<()> {
        let forward = (x, weights, saved);
        let gradient = Pair::Apart(dy, dx.reborrow());
        self.run_backward("Norm::backward", forward, gradient, dstream, outputs)
    }

    /// As [`backward`](Self::backward), dx over dy.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_in_place(
        &self,
        x: TensorRef<'_>,
        weights: &Weights<'_>,
        saved: &Saved<'_>,
        mut dy: TensorMut<'_>,
        dstream: Option<TensorRef<'_>>,
        outputs: &mut GradientOutputs<'_>,
    ) -> Result<()> {
        const OP: &str = "Norm::backward_in_place";
        let gradient = Pair::InPlace(dy.reborrow());
        self.run_backward(OP, (x, weights, saved), gradient, dstream, outputs)
    }

    fn allocate(
        &self,
        op: &'static str,
        x: &TensorRef<'_>,
        residual: Option<&TensorRef<'_>>,
    ) -> Result<NormResult> {
        let check = self.rows.check(op);
        RowShape::of(&check, "x", x)?;
        let layer = self.options.kind == NormKind::Layer;
        NormResult::allocate(self.rows.stream(), x, residual, layer)
    }

    fn run<'a>(
        &self,
        op: &'static str,
        rows: Pair<'a>,
        residual: Option<Pair<'a>>,
        weights: &Weights<'a>,
        statistics: &'a mut Statistics<'_>,
    ) -> Result<()> {
        let check = self.rows.check(op);
        let shape = RowShape::of(&check, "x", &rows.input())?;
        let call = ForwardCall {
            norm: Some(self.options),
            shape,
            rows,
            residual,
            gate: None,
            form: shape.weight_form(&check, weights, &[WeightForm::Row])?,
            gamma: weights.gamma,
            beta: weights.beta,
            rotary: None,
            rstd: reborrow(&mut statistics.rstd),
            mean: reborrow(&mut statistics.mean),
        };
        self.rows.forward(&check, call)
    }

    fn run_backward<'a>(
        &self,
        op: &'static str,
        (x, weights, saved): (TensorRef<'a>, &Weights<'a>, &Saved<'a>),
        gradient: Pair<'a>,
        dstream: Option<TensorRef<'a>>,
        outputs: &'a mut GradientOutputs<'_>,
    ) -> Result<()> {
        let check = self.rows.check(op);
        let shape = RowShape::of(&check, "x", &x)?;
        outputs.refuse_alpha(&check)?;
        let call = BackwardCall {
            norm: Some(self.options),
            shape,
            x: Some(x),
            saved: Some(*saved),
            gradient,
            dstream,
            dresidual: reborrow(&mut outputs.dresidual),
            gate: None,
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
    send_and_sync::<PreparedNorm>();
};
