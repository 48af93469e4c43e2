//! The operation: products of scaled operands.

use super::arguments::{MatmulArguments, MatmulOutputs};
use super::call::{Grouping, MatmulShape};
use super::kernels::MatmulKernels;
use super::{Activation, Operand, OperandFormat, Promotion, check, host};
use crate::check::{Check, Named};
use crate::device::stream::Backend;
use crate::{Buffer, DType, Result, Stream};

/// A product of two operands `[M, K]` and `[N, K]`, the contraction along memory in both; to be
/// prepared for a stream:
///
/// ```text
/// acc_mn = sum_k (scale_a a)_mk (scale_b b)_nk
/// v = alpha acc_mn + bias_n + beta C_mn                      kept, if asked for: pre_activation
/// out = round(activation(v))                                 round(activation(v) / scale) in FP8
/// amax = max(amax, |activation(v)|)                          of what is finite
/// ```
///
/// Which operands go together, and what is rounded where, is on the page of the [module](super). Scales
/// of 1 x 128 may lie row-major or column-major
/// ([`ScaleLayout`](crate::quant::ScaleLayout)); kernels that copy in bulk take them column-major.
/// Operands that were rotated have the same rotation, which cancels.
///
/// NaN and infinities are terms like others: what is not finite in a row of A stays in that row of the
/// result, and in B in its column. FP8 results keep NaN and saturate.
///
/// Groups ([`Groups`](super::Groups)) are the experts of a mixture: of rows for Y and dX, each with its
/// own B; of the contraction for dW, each with its own result.
///
/// Sources: "FP8 Formats for Deep Learning" (arXiv 2209.05433) for scaled products; DeepSeek-V3 (arXiv
/// 2412.19437, section 3.3) for scales of blocks and the promotion of sums.
///
/// ```
/// use evenkeel::matmul::{Activation, Matmul, MatmulArguments};
/// use evenkeel::quant::{Format, Fp8, Quantize, QuantizeArguments};
/// use evenkeel::{DType, Device};
///
/// let stream = Device::cpu().stream()?;
/// let row = Format::Fp8Row(Fp8::E4m3);
/// let quantize = Quantize::new(row).prepare(&stream)?;
/// let x = stream.upload(&[1, 2], &[448.0_f32, 7.0])?;
/// let w = stream.upload(&[2, 2], &[1.75_f32, 0.0, 0.0, -3.5])?;
/// let x = quantize.quantize(x.view(), QuantizeArguments::default())?;
/// let w = quantize.quantize(w.view(), QuantizeArguments::default())?;
///
/// let op = Matmul::new(row, row).prepare(&stream)?;
/// let y = op.multiply(x.rowwise()?, w.rowwise()?, DType::F32, MatmulArguments::default())?;
/// assert_eq!(y.read::<f32>()?, [784.0, -24.5]);
///
/// // The first layer of a feed-forward block, whose weight alternates gate and up.
/// let op = Matmul::new(row, row).activation(Activation::SwiGlu).prepare(&stream)?;
/// let h = op.multiply(x.rowwise()?, w.rowwise()?, DType::F32, MatmulArguments::default())?;
/// assert_eq!(h.read::<f32>()?, [784.0 * -24.5]); // silu(784) is 784
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Matmul {
    a: OperandFormat,
    b: OperandFormat,
    #[cfg_attr(feature = "serde", serde(default))]
    activation: Activation,
    #[cfg_attr(feature = "serde", serde(default))]
    promotion: Promotion,
}

impl Matmul {
    /// Of operands in these formats.
    #[must_use]
    pub fn new(a: impl Into<OperandFormat>, b: impl Into<OperandFormat>) -> Self {
        Self {
            a: a.into(),
            b: b.into(),
            activation: Activation::None,
            promotion: Promotion::Every128,
        }
    }

    /// With an activation.
    #[must_use]
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// When partial sums of FP8 products leave the tensor core.
    #[must_use]
    pub fn promotion(mut self, promotion: Promotion) -> Self {
        self.promotion = promotion;
        self
    }

    /// The formats of a and b.
    #[must_use]
    pub fn formats(&self) -> [OperandFormat; 2] {
        [self.a, self.b]
    }

    pub(super) fn activation_of(&self) -> Activation {
        self.activation
    }

    pub(super) fn promotion_of(&self) -> Promotion {
        self.promotion
    }

    /// Checks that there are products of such operands.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for another pair, with what to do instead.
    pub fn validate(&self) -> Result<()> {
        check::pair("Matmul", self.a, self.b)
    }

    /// Checks the options and loads the kernels, so that calls can be captured into a graph.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); [`Error::Unsupported`](crate::Error::Unsupported) on devices
    /// that have no kernels for it.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedMatmul> {
        self.validate()?;
        let kernels = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(MatmulKernels::load(stream, self)?),
        };
        Ok(PreparedMatmul {
            stream: stream.clone(),
            matmul: *self,
            kernels,
        })
    }
}

/// A [`Matmul`] ready to run on a stream.
///
/// - Operands have any M, N and K from 1 on (M also 0), rows at any stride; nothing has to be aligned,
///   though rows that begin at multiples of 16 bytes are the fast ones.
/// - Nothing waits for the device, and a call of [`multiply_into`](Self::multiply_into) can be captured
///   into a graph; alpha, the scales and the offsets of groups are read when it runs.
#[derive(Debug)]
pub struct PreparedMatmul {
    stream: Stream,
    matmul: Matmul,
    /// None: the reference runs the calls.
    kernels: Option<MatmulKernels>,
}

impl PreparedMatmul {
    /// What was prepared.
    #[must_use]
    pub fn configuration(&self) -> &Matmul {
        &self.matmul
    }

    /// Scratch that [`multiply_into`](Self::multiply_into) needs without groups or with those of rows
    /// (`groups` of them, 0 for none), in bytes.
    #[must_use]
    pub fn workspace_bytes(&self, m: usize, n: usize, k: usize, groups: usize) -> usize {
        let grouping = match groups {
            0 => Grouping::One,
            groups => Grouping::Rows(groups),
        };
        self.bytes(&MatmulShape { m, n, k, grouping })
    }

    /// Scratch that [`multiply_into`](Self::multiply_into) needs with groups of the contraction, in
    /// bytes; `k` is the sum over the groups.
    #[must_use]
    pub fn contraction_workspace_bytes(
        &self,
        m: usize,
        n: usize,
        k: usize,
        groups: usize,
    ) -> usize {
        let grouping = Grouping::Contraction(groups);
        self.bytes(&MatmulShape { m, n, k, grouping })
    }

    fn bytes(&self, shape: &MatmulShape) -> usize {
        let kernels = self.kernels.as_ref();
        kernels.map_or(0, |kernels| kernels.workspace_bytes(shape))
    }

    /// The product, in memory of its own; `dtype` is bf16, f16, f32, E4M3 or E5M2. Rows of no group
    /// are 0.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for what does not fit, and the device's errors.
    pub fn multiply<'a>(
        &self,
        a: impl Into<Operand<'a>>,
        b: impl Into<Operand<'a>>,
        dtype: DType,
        arguments: MatmulArguments<'a>,
    ) -> Result<Buffer> {
        let check = Check::new("Matmul::multiply", &self.stream);
        let operands = [a.into(), b.into()];
        let (_, shape) = self.operands(&check, operands, &arguments)?;
        if !check::OUTPUTS.contains(&dtype) {
            let expected = check::OUTPUTS.map(DType::name).join(", ");
            return check.fail("dtype", expected, dtype.to_string());
        }
        let columns = self.matmul.activation.output_columns(shape.n);
        let size = [shape.output_rows(), columns];
        let mut out = match shape.grouping {
            Grouping::One => self.stream.uninitialised(dtype, &size)?,
            Grouping::Rows(_) | Grouping::Contraction(_) => self.stream.zeros(dtype, &size)?,
        };
        let mut workspace = self
            .stream
            .uninitialised(DType::U8, &[self.bytes(&shape)])?;
        let mut outputs = MatmulOutputs::new(out.view_mut()).workspace(workspace.view_mut());
        if let Some(super::Addend::Output) = arguments.c {
            return check.fail("c", "a view, as the output is new", "the output");
        }
        self.run(&check, operands, arguments, &mut outputs)?;
        Ok(out)
    }

    /// As [`multiply`](Self::multiply), into memory of the caller's.
    ///
    /// # Errors
    /// As [`multiply`](Self::multiply).
    pub fn multiply_into<'a>(
        &self,
        a: impl Into<Operand<'a>>,
        b: impl Into<Operand<'a>>,
        arguments: MatmulArguments<'a>,
        outputs: &mut MatmulOutputs<'_>,
    ) -> Result<()> {
        let check = Check::new("Matmul::multiply_into", &self.stream);
        self.run(&check, [a.into(), b.into()], arguments, outputs)
    }

    fn operands<'a>(
        &self,
        check: &Check,
        operands: [Operand<'a>; 2],
        arguments: &MatmulArguments<'a>,
    ) -> Result<([super::operand::OperandView<'a>; 2], MatmulShape)> {
        let [a, b] = operands;
        let a = check::operand(check, "a", self.matmul.a, a)?;
        let b = check::operand(check, "b", self.matmul.b, b)?;
        let shape = check::shape(check, operands, [&a, &b], arguments.groups.as_ref())?;
        Ok(([a, b], shape))
    }

    fn run<'a>(
        &self,
        check: &Check,
        operands: [Operand<'a>; 2],
        arguments: MatmulArguments<'a>,
        outputs: &mut MatmulOutputs<'_>,
    ) -> Result<()> {
        let (views, shape) = self.operands(check, operands, &arguments)?;
        let bytes = self.bytes(&shape);
        let call = check::call(
            check,
            &self.matmul,
            views,
            shape,
            &arguments,
            outputs,
            bytes,
        )?;
        let (mut reads, mut writes) = (Named::new(), Named::new());
        check::name(&call, &mut reads, &mut writes);
        self.stream.check_views(check.op, &reads, &writes)?;
        drop((reads, writes));
        if shape.m == 0 {
            return Ok(());
        }
        match &self.kernels {
            Some(kernels) => kernels.run(&self.stream, call),
            None => {
                self.stream.raise(host::run(call)?);
                Ok(())
            }
        }
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedMatmul>();
};
