//! The operation: GELU.

use super::call::{Activation, Formats, Inputs, Output};
use super::options::GeluKind;
use crate::quant::{Quantize, QuantizeArguments, QuantizeOutputs, Quantized};
use crate::reference::quant::activation::Function;
use crate::{Buffer, Result, Stream, TensorMut, TensorRef};

/// The Gaussian error linear unit, to be prepared for a stream:
///
/// ```text
/// exact  y = x Phi(x)          dx = dy (Phi(x) + x phi(x))       Phi, phi of the normal distribution
/// tanh   y = x sigma(2 a)      dx = dy (sigma + 2 a' x sigma (1 - sigma))
///                              a = sqrt(2 / pi) (x + 0.044715 x^3)      sigma = sigma(2 a)
/// ```
///
/// and its results quantised at once, so that they are written in 8 or 4 bits alone: see
/// [`quantize_output`](Self::quantize_output) and [`quantize_gradient`](Self::quantize_gradient).
/// x sigma(2 a) is x (1 + tanh a) / 2 with all digits of its tail.
///
/// Source: "Gaussian Error Linear Units" (arXiv 1606.08415, section 2).
///
/// ```
/// use evenkeel::{Device, quant::{Gelu, GeluKind}};
///
/// let stream = Device::cpu().stream()?;
/// let x = stream.upload(&[1, 3], &[0.0_f32, 1.0, -30.0])?;
/// let y = Gelu::new(GeluKind::Exact).prepare(&stream)?.forward(x.view())?;
/// assert_eq!(y.read::<f32>()?, [0.0, 0.841_344_8, 0.0]);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Gelu {
    kind: GeluKind,
    formats: Formats,
}

impl Gelu {
    /// Of this kind, without formats.
    #[must_use]
    pub fn new(kind: GeluKind) -> Self {
        Self {
            kind,
            formats: Formats::default(),
        }
    }

    /// How [`forward_quantized`](PreparedGelu::forward_quantized) quantises y.
    #[must_use]
    pub fn quantize_output(mut self, quantize: Quantize) -> Self {
        self.formats.output = Some(quantize);
        self
    }

    /// How [`backward_quantized`](PreparedGelu::backward_quantized) quantises dx.
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
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedGelu> {
        let function = Function::Gelu(self.kind);
        let activation = Activation::prepare(stream, function, None, self.formats)?;
        Ok(PreparedGelu(activation))
    }
}

/// A [`Gelu`] ready to run on a stream.
///
/// x, y, dy and dx are `[.., F]` bf16, f16 or f32, each of its own type, rows at any stride. Quantised
/// results, infinities and rounding are as [`PreparedSwiGlu`](super::PreparedSwiGlu) has them.
#[derive(Debug)]
pub struct PreparedGelu(Activation);

impl PreparedGelu {
    /// Scratch of [`forward_quantized_into`](Self::forward_quantized_into), in bytes; `groups` is 0
    /// without.
    #[must_use]
    pub fn output_workspace_bytes(&self, rows: usize, columns: usize, groups: usize) -> usize {
        Activation::workspace_bytes(self.0.formats.output.as_ref(), rows, columns, groups)
    }

    /// Scratch of [`backward_quantized_into`](Self::backward_quantized_into), in bytes; `groups` is 0
    /// without.
    #[must_use]
    pub fn gradient_workspace_bytes(&self, rows: usize, columns: usize, groups: usize) -> usize {
        Activation::workspace_bytes(self.0.formats.gradient.as_ref(), rows, columns, groups)
    }

    /// Memory for a quantised y, not yet written.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) without
    /// [`quantize_output`](Gelu::quantize_output), and the device's errors.
    pub fn allocate_output(&self, rows: usize, columns: usize, groups: usize) -> Result<Quantized> {
        let check = self.0.check("Gelu::allocate_output");
        let options = self.0.output(&check)?;
        self.0.room(options, rows, columns, groups)
    }

    /// Memory for a quantised dx, not yet written.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) without
    /// [`quantize_gradient`](Gelu::quantize_gradient), and the device's errors.
    pub fn allocate_gradient(
        &self,
        rows: usize,
        columns: usize,
        groups: usize,
    ) -> Result<Quantized> {
        let check = self.0.check("Gelu::allocate_gradient");
        let options = self.0.gradient(&check)?;
        self.0.room(options, rows, columns, groups)
    }

    /// y, of x's type and shape; one read, one write.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for what does not fit, and the device's errors.
    pub fn forward(&self, x: TensorRef<'_>) -> Result<Buffer> {
        let mut y = self.0.stream.uninitialised(x.dtype(), x.shape())?;
        self.forward_into(x, y.view_mut())?;
        Ok(y)
    }

    /// As [`forward`](Self::forward), into memory of the caller's, bf16, f16 or f32.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_into(&self, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
        let check = self.0.check("Gelu::forward");
        self.0.forward_plain(&check, alone(x), None, y)
    }

    /// y, quantised: the reads of [`Quantize`](crate::quant::Quantize) for the format.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); and [`Error::Unsupported`](crate::Error::Unsupported) without
    /// [`quantize_output`](Gelu::quantize_output).
    pub fn forward_quantized(
        &self,
        x: TensorRef<'_>,
        arguments: QuantizeArguments<'_>,
    ) -> Result<Quantized> {
        let check = self.0.check("Gelu::forward_quantized");
        let options = self.0.output(&check)?;
        let shape = self.0.shape(&check, &alone(x))?;
        let (mut y, mut workspace) =
            self.0
                .allocate(&check, options, shape.tokens, shape.channels, &arguments)?;
        let mut outputs = y.outputs().workspace(workspace.view_mut());
        self.forward_quantized_into(x, arguments, &mut outputs)?;
        Ok(y)
    }

    /// As [`forward_quantized`](Self::forward_quantized), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward_quantized`](Self::forward_quantized).
    pub fn forward_quantized_into(
        &self,
        x: TensorRef<'_>,
        arguments: QuantizeArguments<'_>,
        outputs: &mut QuantizeOutputs<'_>,
    ) -> Result<()> {
        let check = self.0.check("Gelu::forward_quantized");
        self.0
            .forward_quantized(&check, alone(x), None, arguments, outputs)
    }

    /// dx, of x's type and shape; one read of x and dy, one write.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(&self, x: TensorRef<'_>, dy: TensorRef<'_>) -> Result<Buffer> {
        let mut dx = self.0.stream.uninitialised(x.dtype(), x.shape())?;
        self.backward_into(x, dy, dx.view_mut())?;
        Ok(dx)
    }

    /// As [`backward`](Self::backward), into memory of the caller's, bf16, f16 or f32.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_into(
        &self,
        x: TensorRef<'_>,
        dy: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()> {
        let check = self.0.check("Gelu::backward");
        let into = Output::Plain(dx);
        self.0.backward_plain(&check, alone(x), None, dy, into)
    }

    /// dx, quantised: the reads of [`Quantize`](crate::quant::Quantize) for the format, of x and dy.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); and [`Error::Unsupported`](crate::Error::Unsupported) without
    /// [`quantize_gradient`](Gelu::quantize_gradient).
    pub fn backward_quantized(
        &self,
        x: TensorRef<'_>,
        dy: TensorRef<'_>,
        arguments: QuantizeArguments<'_>,
    ) -> Result<Quantized> {
        let check = self.0.check("Gelu::backward_quantized");
        let options = self.0.gradient(&check)?;
        let shape = self.0.shape(&check, &alone(x))?;
        let (mut dx, mut workspace) =
            self.0
                .allocate(&check, options, shape.tokens, shape.channels, &arguments)?;
        let mut outputs = dx.outputs().workspace(workspace.view_mut());
        self.backward_quantized_into(x, dy, arguments, &mut outputs)?;
        Ok(dx)
    }

    /// As [`backward_quantized`](Self::backward_quantized), into memory of the caller's.
    ///
    /// # Errors
    /// As [`backward_quantized`](Self::backward_quantized).
    pub fn backward_quantized_into(
        &self,
        x: TensorRef<'_>,
        dy: TensorRef<'_>,
        arguments: QuantizeArguments<'_>,
        outputs: &mut QuantizeOutputs<'_>,
    ) -> Result<()> {
        let check = self.0.check("Gelu::backward_quantized");
        self.0
            .backward_quantized(&check, alone(x), None, dy, arguments, outputs)
    }
}

fn alone(x: TensorRef<'_>) -> Inputs<'_> {
    Inputs { x, up: None }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedGelu>();
};
