//! What a product multiplies.

use super::OperandFormat;
use crate::quant::{Format, QuantizedRef, ScaleLayout};
use crate::{DType, TensorRef};

/// One operand of a product, `[rows, K]` with the contraction along memory.
///
/// ```
/// use evenkeel::Device;
/// use evenkeel::matmul::{Operand, OperandFormat};
/// use half::bf16;
///
/// let stream = Device::cpu().stream()?;
/// let w = stream.upload(&[2, 3], &[bf16::ONE; 6])?;
/// assert_eq!(Operand::from(w.view()).format(), Some(OperandFormat::Bf16));
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
// Views that are copied once a call, as all views are.
#[allow(clippy::large_enum_variant)]
pub enum Operand<'a> {
    /// bf16 or f16 elements, rows at any stride; dimensions before the last count rows.
    Dense(TensorRef<'a>),
    /// FP8 elements and their scales: `[outer, inner]` is `[rows, K]`.
    Quantized(QuantizedRef<'a>),
}

impl Operand<'_> {
    /// What its elements and scales are; `None` of a type that products do not take.
    #[must_use]
    pub fn format(&self) -> Option<OperandFormat> {
        match self {
            Self::Dense(view) => match view.dtype() {
                DType::Bf16 => Some(OperandFormat::Bf16),
                DType::F16 => Some(OperandFormat::F16),
                _ => None,
            },
            Self::Quantized(tensor) => Some(OperandFormat::Quantized(tensor.format)),
        }
    }
}

impl<'a> From<TensorRef<'a>> for Operand<'a> {
    fn from(view: TensorRef<'a>) -> Self {
        Self::Dense(view)
    }
}

impl<'a> From<QuantizedRef<'a>> for Operand<'a> {
    fn from(tensor: QuantizedRef<'a>) -> Self {
        Self::Quantized(tensor)
    }
}

/// What an operand's scales belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::matmul) enum ScaleKind {
    /// There are none.
    Dense,
    /// f32, one of the tensor or one of each group.
    Tensor,
    /// f32 of rows.
    Row,
    /// f32 of 1 x 128.
    Block1x128,
    /// f32 of 128 x 128.
    Block128x128,
    /// E8M0 of 1 x 32.
    Mx,
}

impl ScaleKind {
    pub(in crate::matmul) fn of(format: OperandFormat) -> Option<Self> {
        Some(match format {
            OperandFormat::Bf16 | OperandFormat::F16 => Self::Dense,
            OperandFormat::Quantized(Format::Fp8Tensor(_)) => Self::Tensor,
            OperandFormat::Quantized(Format::Fp8Row(_)) => Self::Row,
            OperandFormat::Quantized(Format::Fp8Block1x128(_)) => Self::Block1x128,
            OperandFormat::Quantized(Format::Fp8Block128x128(_)) => Self::Block128x128,
            OperandFormat::Quantized(Format::MxFp8(_)) => Self::Mx,
            OperandFormat::Quantized(Format::MxFp4 | Format::NvFp4 | Format::NvFp4Square) => {
                return None;
            }
        })
    }

    /// Elements of the contraction of one scale; `None` where scales are of all of it.
    pub(in crate::matmul) fn block(self) -> Option<usize> {
        match self {
            Self::Block1x128 | Self::Block128x128 => Some(128),
            Self::Mx => Some(32),
            Self::Dense | Self::Tensor | Self::Row => None,
        }
    }
}

/// A checked operand.
///
/// The scale of element (row, k) is the one at (r, c) of the grid of scales:
///
/// ```text
/// Tensor         (0, group)                      c = 0 where the grid has one column
/// Row            (row, group) of k-groups, else (row, 0)      likewise
/// Block1x128     (row, slot(k, 128))     Mx (row, slot(k, 32))
/// Block128x128   (slot of the row, slot(k, 128))
/// slot(k, B)     = k / B; of k-groups floor(start / B) + g + (k - start) / B, start being group g's
/// slot of a row  = row / 128; of m-groups' b where `groups` > 0, with row = g N + n:
///                  floor(g N / 128) + g + n / 128
/// ```
#[derive(Clone, Copy, Debug)]
pub(in crate::matmul) struct OperandView<'a> {
    /// `[rows, K]`: bf16, f16, E4M3 or E5M2; rows at any stride.
    pub(in crate::matmul) data: TensorRef<'a>,
    pub(in crate::matmul) kind: ScaleKind,
    /// Contiguous; there unless `kind` is `Dense`. f32, or E8M0 of `Mx`.
    pub(in crate::matmul) scales: Option<TensorRef<'a>>,
    /// How many scales there are along the rows and along K, before their layout.
    pub(in crate::matmul) grid: [usize; 2],
    /// Row-major: (r, c) lies at r grid[1] + c; column-major: at c grid[0] + r. Tiled is refused.
    pub(in crate::matmul) layout: ScaleLayout,
    /// The groups it was quantised in, 0 for none.
    pub(in crate::matmul) groups: usize,
}
