//! What a product is called with, and where it writes.

use crate::{TensorMut, TensorRef};

/// The matrices of a grouped product: the experts of a mixture, whose sizes lie on the device.
///
/// Offsets are `[groups + 1]` i64 or i32 that do not descend; group g is `offsets[g]..offsets[g + 1]`.
/// Offsets that descend or leave the dimension leave the output untouched, and set
/// [`Status::BAD_GROUP_OFFSETS`](crate::Status::BAD_GROUP_OFFSETS).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Groups<'a> {
    /// Ranges of the rows of a and of the output, each with its own b: b is `[groups N, K]`, and group
    /// g's rows of it start at g N. Rows of no group are not written.
    Rows(TensorRef<'a>),
    /// Ranges of the contraction, of a and b alike, each with a product of its own: the output is
    /// `[groups M, N]`, and group g's rows of it start at g M. An empty group's product is 0.
    Contraction(TensorRef<'a>),
}

impl<'a> Groups<'a> {
    pub(super) fn offsets(&self) -> TensorRef<'a> {
        match self {
            Self::Rows(offsets) | Self::Contraction(offsets) => *offsets,
        }
    }
}

/// What a product adds beta times.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Addend<'a> {
    /// C, of the product's shape, bf16, f16 or f32, rows at any stride.
    View(TensorRef<'a>),
    /// What the output holds.
    Output,
}

/// What a product is given beside its operands; by default nothing.
///
/// ```
/// use evenkeel::matmul::MatmulArguments;
/// use evenkeel::Device;
///
/// let stream = Device::cpu().stream()?;
/// let bias = stream.upload(&[4], &[0.5_f32; 4])?;
/// let arguments = MatmulArguments::default().bias(bias.view()).accumulate(1.0);
/// assert_eq!(arguments.beta, 1.0);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MatmulArguments<'a> {
    /// What the product is multiplied with, `[1]` f32 on the device.
    pub alpha: Option<TensorRef<'a>>,
    /// Added to each row: `[N]` bf16, f16 or f32; of groups of rows `[groups N]`, each its own.
    pub bias: Option<TensorRef<'a>>,
    /// What is added beta times.
    pub c: Option<Addend<'a>>,
    /// What `c` is multiplied with.
    pub beta: f32,
    /// Groups of rows or of the contraction.
    pub groups: Option<Groups<'a>>,
    /// The scale to decode an FP8 output with, `[1]` f32, positive and finite: given where the output
    /// is E4M3 or E5M2, and only there.
    pub output_scale: Option<TensorRef<'a>>,
}

impl<'a> MatmulArguments<'a> {
    /// A factor on the device.
    #[must_use]
    pub fn alpha(mut self, alpha: TensorRef<'a>) -> Self {
        self.alpha = Some(alpha);
        self
    }

    /// A bias.
    #[must_use]
    pub fn bias(mut self, bias: TensorRef<'a>) -> Self {
        self.bias = Some(bias);
        self
    }

    /// Adds beta C.
    #[must_use]
    pub fn c(mut self, c: TensorRef<'a>, beta: f32) -> Self {
        self.c = Some(Addend::View(c));
        self.beta = beta;
        self
    }

    /// Adds beta times what the output holds: gradients of weights, over micro-batches.
    #[must_use]
    pub fn accumulate(mut self, beta: f32) -> Self {
        self.c = Some(Addend::Output);
        self.beta = beta;
        self
    }

    /// Groups of rows or of the contraction.
    #[must_use]
    pub fn groups(mut self, groups: Groups<'a>) -> Self {
        self.groups = Some(groups);
        self
    }

    /// The scale of an FP8 output.
    #[must_use]
    pub fn output_scale(mut self, scale: TensorRef<'a>) -> Self {
        self.output_scale = Some(scale);
        self
    }
}

/// Where a product writes.
#[derive(Debug)]
pub struct MatmulOutputs<'a> {
    /// The result, `[M, N]` (after SwiGLU `[M, N / 2]`; of groups of the contraction `[groups M, ..]`):
    /// bf16, f16, f32, E4M3 or E5M2, rows at any stride.
    pub out: TensorMut<'a>,
    /// The values before the activation, `[M, N]` bf16, f16 or f32, rows at any stride: what a backward
    /// needs.
    pub pre_activation: Option<TensorMut<'a>>,
    /// Raised to the largest finite magnitude of the result before it is rounded, `[1]` f32; it starts
    /// as 0.
    pub amax: Option<TensorMut<'a>>,
    /// Scratch of [`workspace_bytes`](super::PreparedMatmul::workspace_bytes), u8 at a multiple of 16;
    /// calls may share it one after the other.
    pub workspace: Option<TensorMut<'a>>,
}

impl<'a> MatmulOutputs<'a> {
    /// The result.
    #[must_use]
    pub fn new(out: TensorMut<'a>) -> Self {
        Self {
            out,
            pre_activation: None,
            amax: None,
            workspace: None,
        }
    }

    /// With the values before the activation.
    #[must_use]
    pub fn pre_activation(mut self, pre_activation: TensorMut<'a>) -> Self {
        self.pre_activation = Some(pre_activation);
        self
    }

    /// With the amax.
    #[must_use]
    pub fn amax(mut self, amax: TensorMut<'a>) -> Self {
        self.amax = Some(amax);
        self
    }

    /// With scratch.
    #[must_use]
    pub fn workspace(mut self, workspace: TensorMut<'a>) -> Self {
        self.workspace = Some(workspace);
        self
    }
}
