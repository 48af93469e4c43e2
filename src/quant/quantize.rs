//! The operation: tensors in low-bit formats.

use super::arguments::{QuantizeArguments, QuantizeOutputs};
use super::call::{QuantizeCall, Store};
use super::check;
use super::form::{QuantShape, QuantizedForm};
use super::host;
use super::kernels::QuantizeKernels;
use super::launch::quantize_workspace_bytes;
use super::result::Quantized;
use super::{Format, OutputOptions, QuantizeOptions};
use crate::check::{Check, Named};
use crate::device::stream::Backend;
use crate::{DType, Result, Stream, TensorRef};

/// A quantisation of tensors X `[M, K]` into a low-bit [`Format`], along their rows, transposed, or
/// both at once; to be prepared for a stream.
///
/// ```text
/// element = round(x / scale)      value = element scale         blocks along the output's inner dimension
///
/// fp8-tensor, -row, -1x128, -128x128   scale = amax / largest            f32; amax of the tensor, row or block
///                                      scale = 2^ceil(log2(amax / largest))     with powers of two
/// mxfp8, mxfp4                         scale = 2^(floor(log2 amax) - emax)      E8M0, of 32 elements; or the power above
/// nvfp4, nvfp4-16x16                   scale = RN(s_b s_t)
///                                      s_t = amax / (448 6)             f32, of the tensor
///                                      s_b = E4M3((amax_b / 6) / s_t)   of 16 or 16 x 16 elements
/// ```
///
/// largest is 448 (E4M3), 57344 (E5M2) or 6 (E2M1), emax the exponent of its power of two: 8, 15
/// or 2. Each operation is rounded once, to f32; amax is that of finite elements. The rounding of
/// elements is to nearest even or stochastic ([`Rounding`](super::Rounding)), and saturates.
///
/// - An amax of 0 gives scale 1, and a quotient that underflows the smallest f32: never NaN. An NVFP4
///   block whose scale underflows E4M3 is 0.
/// - FP8 keeps NaN, and takes an infinity to the largest element of its sign. E2M1 has no NaN: a
///   block with an element that is not finite has scale NaN and elements 0, and sets
///   [`Status::NON_FINITE_BLOCK`](crate::Status::NON_FINITE_BLOCK).
/// - The last block of a row may be shorter; the last four bits of an odd row of E2M1 are 0.
///
/// Which outputs a trainer needs: 8- and 4-bit tensor cores contract along memory, so that Y = X W^T
/// takes X and W row-wise, dX = dY W takes dY row-wise and W transposed, and dW = dY^T X takes both
/// transposed. [`OutputOptions`] gives each output a random Hadamard rotation along its inner
/// dimension (on both operands of a product it cancels) and a layout of scales; each output has its
/// own amax, after its rotation.
///
/// Sources: OCP 8-bit Floating Point Specification (OFP8) 1.0 for FP8 elements; OCP Microscaling
/// Formats (MX) 1.0, section 6.3, for MX; "Pretraining Large Language Models with NVFP4" (arXiv
/// 2509.25149) for NVFP4, its 16 x 16 weights, rotation and stochastic rounding; DeepSeek-V3 (arXiv
/// 2412.19437), section 3.3, for 1 x 128 and 128 x 128; "FP8 Formats for Deep Learning" (arXiv
/// 2209.05433) for scales of a tensor.
///
/// ```
/// use evenkeel::quant::{Dequantize, Format, Fp8, OutputOptions, Quantize, QuantizeArguments};
/// use evenkeel::{DType, Device, E4m3};
///
/// let stream = Device::cpu().stream()?;
/// let x = stream.upload(&[2, 3], &[448.0_f32, 1.0, -0.3, 7.0, 3.5, 0.0])?;
/// let op = Quantize::new(Format::Fp8Row(Fp8::E4m3))
///     .rowwise(OutputOptions::new())
///     .transposed(OutputOptions::new())
///     .prepare(&stream)?;
/// let q = op.quantize(x.view(), QuantizeArguments::default())?;
///
/// let rowwise = q.rowwise.as_ref().expect("asked for");
/// assert_eq!(rowwise.data.read::<E4m3>()?[0].to_f32(), 448.0);
/// let scales = rowwise.scales.as_ref().expect("one a row").read::<f32>()?;
/// assert_eq!(scales, [1.0, 7.0 / 448.0]);
///
/// let values = Dequantize::new().prepare(&stream)?.dequantize(q.transposed()?, DType::F32)?;
/// assert_eq!(values.shape(), [3, 2]); // the transpose
/// assert_eq!(values.read_range::<f32>(2..4)?, [1.0, 3.5]); // each within half a step
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Quantize {
    options: QuantizeOptions,
    #[cfg_attr(feature = "serde", serde(default))]
    rowwise: Option<OutputOptions>,
    #[cfg_attr(feature = "serde", serde(default))]
    transposed: Option<OutputOptions>,
}

impl From<Format> for QuantizeOptions {
    fn from(format: Format) -> Self {
        Self::new(format)
    }
}

impl Quantize {
    /// Of a format, or of options for one.
    #[must_use]
    pub fn new(options: impl Into<QuantizeOptions>) -> Self {
        Self {
            options: options.into(),
            rowwise: None,
            transposed: None,
        }
    }

    /// Asks for the row-wise output: X `[M, K]`, with blocks along K. Where nothing is asked for,
    /// this is what there is.
    #[must_use]
    pub fn rowwise(mut self, output: OutputOptions) -> Self {
        self.rowwise = Some(output);
        self
    }

    /// Asks for the transposed output: X^T `[K, M]`, with blocks along M.
    #[must_use]
    pub fn transposed(mut self, output: OutputOptions) -> Self {
        self.transposed = Some(output);
        self
    }

    /// Format, scales and rounding.
    #[must_use]
    pub fn options(&self) -> &QuantizeOptions {
        &self.options
    }

    /// The row-wise and the transposed output, at least one of which there is.
    #[must_use]
    pub fn outputs(&self) -> [Option<OutputOptions>; 2] {
        match (self.rowwise, self.transposed) {
            (None, None) => [Some(OutputOptions::new()), None],
            outputs => outputs.into(),
        }
    }

    /// The forms of the row-wise and the transposed output.
    pub(crate) fn forms(&self, shape: QuantShape) -> [Option<QuantizedForm>; 2] {
        let [rowwise, transposed] = self.outputs();
        let format = self.options.format;
        [
            rowwise.map(|output| QuantizedForm::new(format, output, false, shape)),
            transposed.map(|output| QuantizedForm::new(format, output, true, shape)),
        ]
    }

    /// Checks that the format has what is asked of it.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for options, rotations and layouts that do not
    /// fit.
    pub fn validate(&self) -> Result<()> {
        self.options.validate()?;
        for output in self.outputs().into_iter().flatten() {
            // Of the inner dimension calls have to say; every block divides 0.
            output.validate(self.options.format, 0)?;
        }
        Ok(())
    }

    /// Checks the options and loads the kernels, so that calls can be captured into a graph.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); [`Error::Unsupported`](crate::Error::Unsupported) on devices
    /// that have no kernels for it.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedQuantize> {
        self.validate()?;
        let kernels = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(QuantizeKernels::load(stream, self)?),
        };
        Ok(PreparedQuantize {
            stream: stream.clone(),
            quantize: *self,
            kernels,
        })
    }
}

/// A [`Quantize`] ready to run on a stream.
///
/// - X is `[.., K]` bf16, f16 or f32, rows at any stride; the dimensions before the last count rows.
/// - X is read once, and each output written once. X is read twice where scales follow from an amax
///   that is only known at its end: of the tensor ([`Scaling::Current`](super::Scaling::Current)
///   scales of `fp8-tensor` and NVFP4), and of columns (`fp8-row` transposed). A given tensor scale
///   spares the second read.
/// - All devices give the same bits, whatever the launch; stochastic rounding too.
/// - Nothing waits for the device, and a call can be captured into a graph.
#[derive(Debug)]
pub struct PreparedQuantize {
    stream: Stream,
    quantize: Quantize,
    /// None: the reference runs the calls.
    kernels: Option<QuantizeKernels>,
}

impl PreparedQuantize {
    /// What was prepared.
    #[must_use]
    pub fn configuration(&self) -> &Quantize {
        &self.quantize
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Scratch that [`quantize_into`](Self::quantize_into) needs for an input `[rows, columns]` whose
    /// rows are in `groups` groups (0 for none), in bytes.
    #[must_use]
    pub fn workspace_bytes(&self, rows: usize, columns: usize, groups: usize) -> usize {
        let shape = QuantShape {
            rows,
            columns,
            groups,
        };
        quantize_workspace_bytes(&self.quantize, shape)
    }

    /// The shapes of the row-wise output of such an input, where it is asked for.
    #[must_use]
    pub fn rowwise_form(
        &self,
        rows: usize,
        columns: usize,
        groups: usize,
    ) -> Option<QuantizedForm> {
        let shape = QuantShape {
            rows,
            columns,
            groups,
        };
        self.quantize.forms(shape)[0]
    }

    /// The shapes of the transposed output of such an input, where it is asked for.
    #[must_use]
    pub fn transposed_form(
        &self,
        rows: usize,
        columns: usize,
        groups: usize,
    ) -> Option<QuantizedForm> {
        let shape = QuantShape {
            rows,
            columns,
            groups,
        };
        self.quantize.forms(shape)[1]
    }

    /// Memory for the outputs of such an input, not yet written.
    ///
    /// # Errors
    /// The device's errors.
    pub fn allocate(&self, rows: usize, columns: usize, groups: usize) -> Result<Quantized> {
        let shape = QuantShape {
            rows,
            columns,
            groups,
        };
        Quantized::allocate(&self.stream, &self.quantize, shape)
    }

    /// X in the format, in memory of its own.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for what does not fit, and the device's errors.
    pub fn quantize(
        &self,
        x: TensorRef<'_>,
        arguments: QuantizeArguments<'_>,
    ) -> Result<Quantized> {
        let check = Check::new("Quantize::quantize", &self.stream);
        let shape = check::input(&check, "x", &x, arguments.groups.as_ref())?;
        let mut quantized = Quantized::allocate(&self.stream, &self.quantize, shape)?;
        let bytes = quantize_workspace_bytes(&self.quantize, shape);
        let mut workspace = self.stream.uninitialised(DType::U8, &[bytes])?;
        let mut outputs = quantized.outputs();
        outputs.workspace = Some(workspace.view_mut());
        self.run(&check, shape, x, arguments, &mut outputs)?;
        Ok(quantized)
    }

    /// As [`quantize`](Self::quantize), into memory of the caller's; nothing is allocated.
    ///
    /// ```
    /// use evenkeel::quant::{Format, Fp8, OutputArguments, Quantize, QuantizeArguments};
    /// use evenkeel::{DType, Device};
    ///
    /// let stream = Device::cpu().stream()?;
    /// let op = Quantize::new(Format::Fp8Tensor(Fp8::E4m3)).prepare(&stream)?;
    /// // The tokens of two experts, 3 and 1; memory and scratch serve every step.
    /// let mut q = op.allocate(4, 32, 2)?;
    /// let bytes = op.workspace_bytes(4, 32, 2);
    /// let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
    /// let mut amax = stream.zeros(DType::F32, &[2])?;
    ///
    /// let x = stream.upload(&[4, 32], &[[2.0_f32; 96].as_slice(), &[7.0; 32]].concat())?;
    /// let experts = stream.upload(&[3], &[0_i32, 3, 4])?;
    /// let arguments = QuantizeArguments::default()
    ///     .groups(experts.view())
    ///     .rowwise(OutputArguments::default().amax(amax.view_mut()));
    /// let mut outputs = q.outputs().workspace(workspace.view_mut());
    /// op.quantize_into(x.view(), arguments, &mut outputs)?;
    /// assert_eq!(amax.read::<f32>()?, [2.0, 7.0]);
    /// let scale = q.rowwise()?.tensor_scale.expect("of an fp8-tensor");
    /// assert_eq!(scale.host_slice::<f32>()?, [2.0 / 448.0, 7.0 / 448.0]);
    /// # Ok::<(), evenkeel::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize).
    pub fn quantize_into(
        &self,
        x: TensorRef<'_>,
        arguments: QuantizeArguments<'_>,
        outputs: &mut QuantizeOutputs<'_>,
    ) -> Result<()> {
        let check = Check::new("Quantize::quantize_into", &self.stream);
        let shape = check::input(&check, "x", &x, arguments.groups.as_ref())?;
        self.run(&check, shape, x, arguments, outputs)
    }

    pub(super) fn run(
        &self,
        check: &Check,
        shape: QuantShape,
        x: TensorRef<'_>,
        mut arguments: QuantizeArguments<'_>,
        outputs: &mut QuantizeOutputs<'_>,
    ) -> Result<()> {
        let bytes = quantize_workspace_bytes(&self.quantize, shape);
        let store = Store::new(check, &self.quantize, shape, &mut arguments, outputs, bytes)?;
        let (mut reads, mut writes) = (vec![("x", x)], Named::new());
        store.name(&mut reads, &mut writes);
        self.stream.check_views(check.op, &reads, &writes)?;
        let call = QuantizeCall { x, store };
        match &self.kernels {
            Some(kernels) => kernels.quantize(&self.stream, call),
            None => {
                self.stream.raise(host::quantize(call)?);
                Ok(())
            }
        }
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedQuantize>();
};
