//! The operation: SwiGLU and Smooth-SwiGLU.

use super::arguments::{GateUp, GateUpMut, SmoothingScales};
use super::call::{Activation, Formats, Inputs, Output};
use super::options::Smoothing;
use crate::check::Check;
use crate::quant::{Quantize, QuantizeArguments, QuantizeOutputs, Quantized};
use crate::reference::quant::activation::Function;
use crate::{Buffer, DType, Result, Stream, TensorMut, TensorRef};

/// SwiGLU, between the two linear layers of a feed-forward block; to be prepared for a stream:
///
/// ```text
/// y = silu(gate) up                            silu(g) = g sigma(g)
///
/// dgate = dy up (sigma + silu (1 - sigma))     dup = dy silu(gate)        sigma = sigma(gate)
/// ```
///
/// and its results quantised at once, so that they are written in 8 or 4 bits alone: see
/// [`quantize_output`](Self::quantize_output) and [`quantize_gradient`](Self::quantize_gradient).
///
/// Smooth-SwiGLU divides up by a scale first, which what follows multiplies with:
///
/// ```text
/// y = silu(gate) (up / s)      s_j = max over tokens of |up_tj|      Smoothing::Channel
///                              s_t = max over channels of |up_tj|    Smoothing::Token
/// ```
///
/// so that |y| is at most |silu(gate)|, however large up has grown. Scales are of the finite elements,
/// and 1 where these are 0. With the next layer's weight W, `[N, F]`: its result is `y (W diag(s))^T`
/// for channels, and `diag(s) (y W^T)` for tokens. dy is the gradient of this y; the gradient of s
/// through up / s and that through the product with s cancel, and s counts as a constant.
///
/// Sources: "GLU Variants Improve Transformer" (arXiv 2002.05202, section 2); "Scaling FP8 training to
/// trillion-token LLMs" (arXiv 2409.12517, section 4.4) for channels, its authors' published program
/// for tokens.
///
/// ```
/// use evenkeel::quant::{Format, Fp8, Quantize, QuantizeArguments, Smoothing, SwiGlu};
/// use evenkeel::{DType, Device};
///
/// let stream = Device::cpu().stream()?;
/// // [tokens, 2 F]: gate and up.
/// let x = stream.upload(&[2, 4], &[1.0_f32, 2.0, 3.0, -40.0, -1.0, 0.5, 1.5, 10.0])?;
/// let op = SwiGlu::new()
///     .smoothing(Smoothing::Channel)
///     .quantize_output(Quantize::new(Format::Fp8Row(Fp8::E4m3)))
///     .quantize_gradient(Quantize::new(Format::Fp8Row(Fp8::E5m2)))
///     .prepare(&stream)?;
///
/// let smooth = op.forward_quantized(x.view().into(), QuantizeArguments::default())?;
/// let scales = smooth.scales.as_ref().unwrap(); // for the next layer's weight
/// assert_eq!(scales.read::<f32>()?, [3.0, 40.0]);
/// let y = smooth.y.rowwise()?; // what the next product takes
/// assert_eq!((y.data.dtype(), y.data.shape()), (DType::E4m3, &[2, 2][..]));
///
/// let dy = stream.upload(&[2, 2], &[1.0_f32, 0.0, 0.0, 1.0])?;
/// let gradients = op.backward(x.view().into(), Some(scales.view()), dy.view())?;
/// assert_eq!(gradients.shape(), [2, 4]);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SwiGlu {
    smoothing: Option<Smoothing>,
    formats: Formats,
}

impl SwiGlu {
    /// Without smoothing, and without formats.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Smooth-SwiGLU, with scales of channels or of tokens.
    #[must_use]
    pub fn smoothing(mut self, smoothing: Smoothing) -> Self {
        self.smoothing = Some(smoothing);
        self
    }

    /// How [`forward_quantized`](PreparedSwiGlu::forward_quantized) quantises y.
    #[must_use]
    pub fn quantize_output(mut self, quantize: Quantize) -> Self {
        self.formats.output = Some(quantize);
        self
    }

    /// How [`backward_quantized`](PreparedSwiGlu::backward_quantized) quantises the gradients.
    #[must_use]
    pub fn quantize_gradient(mut self, quantize: Quantize) -> Self {
        self.formats.gradient = Some(quantize);
        self
    }

    /// Checks the options and loads the kernels, so that calls can be captured into a graph.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for formats that do not fit their options,
    /// [`Error::Unsupported`](crate::Error::Unsupported) on devices that have no kernels for it.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedSwiGlu> {
        let (function, formats) = (Function::SwiGlu, self.formats);
        let activation = Activation::prepare(stream, function, self.smoothing, formats)?;
        Ok(PreparedSwiGlu(activation))
    }
}

/// What [`PreparedSwiGlu::forward`] returns, on the device.
#[derive(Debug)]
pub struct SwiGluResult {
    /// `[tokens, F]` of gate's type.
    pub y: Buffer,
    /// f32, `[F]` of channels or `[tokens]`: where there is smoothing.
    pub scales: Option<Buffer>,
}

/// What [`PreparedSwiGlu::forward_quantized`] returns, on the device.
#[derive(Debug)]
pub struct SwiGluQuantized {
    /// Of `[tokens, F]`.
    pub y: Quantized,
    /// f32, `[F]` of channels or `[tokens]`: where there is smoothing.
    pub scales: Option<Buffer>,
}

/// A [`SwiGlu`] ready to run on a stream.
///
/// - gate, up, y, dy and their gradients are bf16, f16 or f32, each of its own type, rows at any
///   stride; scales are f32.
/// - Quantised results are those of the f32 results: [`Quantize`](crate::quant::Quantize) of what a
///   plain call writes into f32 has the same bits, on the same device. Between devices a scale may
///   differ by the rounding errors of the largest element, and an element by one step where the errors of
///   f32 lie about the boundary of two.
/// - Infinities and NaN have the values of the formulas (silu(-inf) is NaN), and are quantised as
///   [`Quantize`](crate::quant::Quantize) says.
/// - The CPU computes in f64, kernels in f32; both round each result once.
/// - Scales that a call computes take one read of up more: every token of a channel, or every channel of a
///   token, comes before the first y. Given ones do not.
#[derive(Debug)]
pub struct PreparedSwiGlu(Activation);

impl PreparedSwiGlu {
    /// Scratch of [`forward_quantized_into`](Self::forward_quantized_into), in bytes; `groups` is 0
    /// without.
    #[must_use]
    pub fn output_workspace_bytes(&self, tokens: usize, channels: usize, groups: usize) -> usize {
        Activation::workspace_bytes(self.0.formats.output.as_ref(), tokens, channels, groups)
    }

    /// Scratch of [`backward_quantized_into`](Self::backward_quantized_into), in bytes; `channels` is F,
    /// `groups` is 0 without.
    #[must_use]
    pub fn gradient_workspace_bytes(&self, tokens: usize, channels: usize, groups: usize) -> usize {
        let columns = self.0.gradient_columns(channels);
        Activation::workspace_bytes(self.0.formats.gradient.as_ref(), tokens, columns, groups)
    }

    /// Memory for a quantised y, not yet written.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) without
    /// [`quantize_output`](SwiGlu::quantize_output), and the device's errors.
    pub fn allocate_output(
        &self,
        tokens: usize,
        channels: usize,
        groups: usize,
    ) -> Result<Quantized> {
        let check = self.0.check("SwiGlu::allocate_output");
        let options = self.0.output(&check)?;
        self.0.room(options, tokens, channels, groups)
    }

    /// Memory for quantised gradients of `channels` = F, not yet written.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) without
    /// [`quantize_gradient`](SwiGlu::quantize_gradient), and the device's errors.
    pub fn allocate_gradient(
        &self,
        tokens: usize,
        channels: usize,
        groups: usize,
    ) -> Result<Quantized> {
        let check = self.0.check("SwiGlu::allocate_gradient");
        let options = self.0.gradient(&check)?;
        let columns = self.0.gradient_columns(channels);
        self.0.room(options, tokens, columns, groups)
    }

    /// y, of gate's type; one read of gate and up, one write.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for what does not fit, and the device's errors.
    pub fn forward(&self, x: GateUp<'_>) -> Result<SwiGluResult> {
        let check = self.0.check("SwiGlu::forward");
        let inputs = inputs(&check, &x)?;
        let shape = self.0.shape(&check, &inputs)?;
        let dtype = inputs.x.dtype();
        let mut result = SwiGluResult {
            y: self
                .0
                .stream
                .uninitialised(dtype, &[shape.tokens, shape.channels])?,
            scales: self.allocate_scales(shape.tokens, shape.channels)?,
        };
        let scales = result.scales.as_mut().map(computed);
        self.0
            .forward_plain(&check, inputs, scales, result.y.view_mut())?;
        Ok(result)
    }

    /// As [`forward`](Self::forward), into memory of the caller's: y `[tokens, F]` bf16, f16 or f32, and
    /// the scales of the smoothing, where there is one.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_into(
        &self,
        x: GateUp<'_>,
        scales: Option<SmoothingScales<'_>>,
        y: TensorMut<'_>,
    ) -> Result<()> {
        let check = self.0.check("SwiGlu::forward");
        self.0.forward_plain(&check, inputs(&check, &x)?, scales, y)
    }

    /// y, quantised: the reads of [`Quantize`](crate::quant::Quantize) for the format, of gate and up.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); and [`Error::Unsupported`](crate::Error::Unsupported) without
    /// [`quantize_output`](SwiGlu::quantize_output).
    pub fn forward_quantized(
        &self,
        x: GateUp<'_>,
        arguments: QuantizeArguments<'_>,
    ) -> Result<SwiGluQuantized> {
        let check = self.0.check("SwiGlu::forward_quantized");
        let inputs = inputs(&check, &x)?;
        let shape = self.0.shape(&check, &inputs)?;
        let (tokens, channels) = (shape.tokens, shape.channels);
        let options = self.0.output(&check)?;
        let (mut y, mut workspace) = self
            .0
            .allocate(&check, options, tokens, channels, &arguments)?;
        let mut scales = self.allocate_scales(tokens, channels)?;
        let mut outputs = y.outputs().workspace(workspace.view_mut());
        let computed = scales.as_mut().map(computed);
        self.0
            .forward_quantized(&check, inputs, computed, arguments, &mut outputs)?;
        Ok(SwiGluQuantized { y, scales })
    }

    /// As [`forward_quantized`](Self::forward_quantized), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward_quantized`](Self::forward_quantized).
    pub fn forward_quantized_into(
        &self,
        x: GateUp<'_>,
        scales: Option<SmoothingScales<'_>>,
        arguments: QuantizeArguments<'_>,
        outputs: &mut QuantizeOutputs<'_>,
    ) -> Result<()> {
        let check = self.0.check("SwiGlu::forward_quantized");
        let inputs = inputs(&check, &x)?;
        self.0
            .forward_quantized(&check, inputs, scales, arguments, outputs)
    }

    /// The gradients of gate and up, `[tokens, 2 F]` of gate's type; one read of gate, up and dy, one
    /// write. `scales` are those of the forward, where there is smoothing.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(
        &self,
        x: GateUp<'_>,
        scales: Option<TensorRef<'_>>,
        dy: TensorRef<'_>,
    ) -> Result<Buffer> {
        let check = self.0.check("SwiGlu::backward");
        let inputs = inputs(&check, &x)?;
        let shape = self.0.shape(&check, &inputs)?;
        let columns = self.0.gradient_columns(shape.channels);
        let dtype = inputs.x.dtype();
        let mut dx = self
            .0
            .stream
            .uninitialised(dtype, &[shape.tokens, columns])?;
        let into = Output::Plain(dx.view_mut());
        self.0.backward_plain(&check, inputs, scales, dy, into)?;
        Ok(dx)
    }

    /// As [`backward`](Self::backward), into memory of the caller's: one matrix or two, bf16, f16 or f32.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_into(
        &self,
        x: GateUp<'_>,
        scales: Option<TensorRef<'_>>,
        dy: TensorRef<'_>,
        gradients: GateUpMut<'_>,
    ) -> Result<()> {
        let check = self.0.check("SwiGlu::backward");
        let into = match gradients {
            GateUpMut::Packed(packed) => Output::Plain(packed),
            GateUpMut::Apart { gate, up } => Output::Apart(gate, up),
        };
        let inputs = inputs(&check, &x)?;
        self.0.backward_plain(&check, inputs, scales, dy, into)
    }

    /// The gradients of gate and up, one matrix `[tokens, 2 F]`, quantised: the reads of
    /// [`Quantize`](crate::quant::Quantize) for the format, of gate, up and dy. Where F is no multiple of
    /// 128, or both outputs are rotated, kernels load gate and dy once more for up's half, from L2 where
    /// it holds a row of tiles; but not for `fp8-row` along rows alone.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); and [`Error::Unsupported`](crate::Error::Unsupported) without
    /// [`quantize_gradient`](SwiGlu::quantize_gradient).
    pub fn backward_quantized(
        &self,
        x: GateUp<'_>,
        scales: Option<TensorRef<'_>>,
        dy: TensorRef<'_>,
        arguments: QuantizeArguments<'_>,
    ) -> Result<Quantized> {
        let check = self.0.check("SwiGlu::backward_quantized");
        let inputs = inputs(&check, &x)?;
        let shape = self.0.shape(&check, &inputs)?;
        let columns = self.0.gradient_columns(shape.channels);
        let options = self.0.gradient(&check)?;
        let (mut dx, mut workspace) =
            self.0
                .allocate(&check, options, shape.tokens, columns, &arguments)?;
        let mut outputs = dx.outputs().workspace(workspace.view_mut());
        self.0
            .backward_quantized(&check, inputs, scales, dy, arguments, &mut outputs)?;
        Ok(dx)
    }

    /// As [`backward_quantized`](Self::backward_quantized), into memory of the caller's.
    ///
    /// # Errors
    /// As [`backward_quantized`](Self::backward_quantized).
    pub fn backward_quantized_into(
        &self,
        x: GateUp<'_>,
        scales: Option<TensorRef<'_>>,
        dy: TensorRef<'_>,
        arguments: QuantizeArguments<'_>,
        outputs: &mut QuantizeOutputs<'_>,
    ) -> Result<()> {
        let check = self.0.check("SwiGlu::backward_quantized");
        let inputs = inputs(&check, &x)?;
        self.0
            .backward_quantized(&check, inputs, scales, dy, arguments, outputs)
    }

    fn allocate_scales(&self, tokens: usize, channels: usize) -> Result<Option<Buffer>> {
        let allocate = |smoothing: Smoothing| {
            let len = smoothing.scales(tokens, channels);
            self.0.stream.uninitialised(DType::F32, &[len])
        };
        self.0.smoothing.map(allocate).transpose()
    }
}

fn inputs<'a>(check: &Check, x: &GateUp<'a>) -> Result<Inputs<'a>> {
    let [gate, up] = x.views(check)?;
    Ok(Inputs {
        x: gate,
        up: Some(up),
    })
}

fn computed(scales: &mut Buffer) -> SmoothingScales<'_> {
    SmoothingScales::Computed(scales.view_mut())
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedSwiGlu>();
};
