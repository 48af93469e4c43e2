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
/// v = alpha acc_mn + bias_n + beta C_mn
/// out = round(activation(v))                      amax = max |activation(v)|
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
