//! What the kernels are given: kernels/common/rows.h and kernels/norm/params.h, field by field.

use bytemuck::{Pod, Zeroable};

use super::Pairing;
use super::arguments::RotaryTables;
use super::shape::{RowShape, WeightForm};
use crate::{DType, TensorRef};

/// `FloatType` of a type that check.rs let through.
pub(super) fn float_type(dtype: DType) -> u32 {
    match dtype {
        DType::Bf16 => 0,
        DType::F16 => 1,
        _ => 2,
    }
}

/// `IntegerType` of a type that check.rs let through.
pub(super) fn integer_type(dtype: DType) -> u32 {
    match dtype {
        DType::I32 => 1,
        DType::U32 => 2,
        _ => 0,
    }
}

/// `RowTensor`; zeros for an absent one.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RowTensor {
    data: u64,
    token_stride: i64,
    head_stride: i64,
    float_type: u32,
    unused: u32,
}

impl RowTensor {
    pub(super) fn new(view: &TensorRef<'_>, shape: RowShape) -> Self {
        let [token_stride, head_stride] = shape.strides(view);
        Self {
            data: view.address(),
            token_stride: token_stride as i64,
            head_stride: head_stride as i64,
            float_type: float_type(view.dtype()),
            unused: 0,
        }
    }

    pub(super) fn optional(view: Option<&TensorRef<'_>>, shape: RowShape) -> Self {
        view.map_or_else(Self::default, |view| Self::new(view, shape))
    }
}

/// `ColumnVector`; zeros for an absent one.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ColumnVector {
    data: u64,
    head_stride: i64,
    float_type: u32,
    scalar: u32,
}

impl ColumnVector {
    pub(super) fn new(view: Option<&TensorRef<'_>>, form: WeightForm, columns: usize) -> Self {
        view.map_or_else(Self::default, |view| Self {
            data: view.address(),
            head_stride: match form {
                WeightForm::Heads => columns as i64,
                WeightForm::Row | WeightForm::One => 0,
            },
            float_type: float_type(view.dtype()),
            scalar: u32::from(form == WeightForm::One),
        })
    }
}

/// `Divisor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Divisor {
    magic: u32,
    shift: u32,
}

impl Divisor {
    /// Of numbers below 2^31 by `n`, which is from 1 to 2^31.
    pub(super) fn new(n: u32) -> Self {
        let shift = 32 - n.saturating_sub(1).leading_zeros();
        // floor(2^32 (2^shift - n) / n) + 1: Granlund and Montgomery's multiplier, without its top bit.
        let magic = ((1_u64 << shift) - u64::from(n)) * (1 << 32) / u64::from(n.max(1)) + 1;
        Self {
            magic: magic as u32,
            shift,
        }
    }
}

/// `RowGrid`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RowGrid {
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) heads: u32,
    pub(super) by_heads: Divisor,
    pub(super) threads: u32,
    pub(super) segments: u32,
    pub(super) unused: u32,
}

/// `RotaryParams`; zeros without a rotary embedding.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RotaryParams {
    cos: u64,
    sin: u64,
    positions: u64,
    position_count: i64,
    float_type: u32,
    position_type: u32,
    pairing: u32,
    width: u32,
    aligned: u32,
    unused: u32,
}

impl RotaryParams {
    /// For units of `chunk` elements.
    pub(super) fn new(rotary: &super::Rotary, tables: &RotaryTables<'_>, chunk: usize) -> Self {
        let half = rotary.width / 2;
        let at_vectors = |table: &TensorRef<'_>| table.address().is_multiple_of(16);
        Self {
            cos: tables.cos.address(),
            sin: tables.sin.address(),
            positions: tables.positions.map_or(0, |positions| positions.address()),
            position_count: tables.cos.rows() as i64,
            float_type: float_type(tables.cos.dtype()),
            position_type: tables
                .positions
                .map_or(0, |positions| integer_type(positions.dtype())),
            pairing: match rotary.pairing {
                Pairing::Interleaved => 0,
                Pairing::HalfSplit => 1,
            },
            width: rotary.width as u32,
            aligned: u32::from(
                half.is_multiple_of(chunk) && at_vectors(&tables.cos) && at_vectors(&tables.sin),
            ),
            unused: 0,
        }
    }
}

/// `NormForwardParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct NormForwardParams {
    pub(super) grid: RowGrid,
    pub(super) x: RowTensor,
    pub(super) beside: RowTensor,
    pub(super) stream: RowTensor,
    pub(super) y: RowTensor,
    pub(super) gamma: ColumnVector,
    pub(super) beta: ColumnVector,
    pub(super) rotary: RotaryParams,
    pub(super) mean: u64,
    pub(super) rstd: u64,
    pub(super) status: u64,
    pub(super) eps: f32,
    pub(super) gamma_offset: f32,
    pub(super) normalize: u32,
    pub(super) unused: u32,
}

/// `NormBackwardParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct NormBackwardParams {
    pub(super) grid: RowGrid,
    pub(super) x: RowTensor,
    pub(super) dy: RowTensor,
    pub(super) dstream: RowTensor,
    pub(super) gate: RowTensor,
    pub(super) dx: RowTensor,
    pub(super) dresidual: RowTensor,
    pub(super) dgate: RowTensor,
    pub(super) gamma: ColumnVector,
    pub(super) beta: ColumnVector,
    pub(super) rotary: RotaryParams,
    pub(super) mean: u64,
    pub(super) rstd: u64,
    pub(super) dgamma: u64,
    pub(super) dbeta: u64,
    pub(super) status: u64,
    pub(super) gamma_offset: f32,
    pub(super) normalize: u32,
    pub(super) groups: u32,
    pub(super) slices: u32,
    pub(super) by_slices: Divisor,
    pub(super) sums_offset: u32,
    pub(super) unused: u32,
}

/// `ColumnSumParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ColumnSumParams {
    pub(super) partial: u64,
    pub(super) out: u64,
    pub(super) groups: u32,
    pub(super) slices: u32,
    pub(super) columns: u32,
    pub(super) accumulate: u32,
}

const _: () = {
    assert!(size_of::<RowTensor>() == 32);
    assert!(size_of::<ColumnVector>() == 24);
    assert!(size_of::<RowGrid>() == 32);
    assert!(size_of::<RotaryParams>() == 56);
    assert!(size_of::<NormForwardParams>() == 304);
    assert!(size_of::<NormBackwardParams>() == 432);
    assert!(size_of::<ColumnSumParams>() == 32);
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `divide` of kernels/common/columns.cuh.
    fn divide(n: u32, by: Divisor) -> u32 {
        let high = (u64::from(n) * u64::from(by.magic)) >> 32;
        (high as u32 + n) >> by.shift
    }

    #[test]
    fn division_by_multiplication_is_exact_at_the_ends() {
        for d in (1..2000).chain([1 << 16, 65_537, (1 << 31) - 1, 1 << 31]) {
            for q in [0_u32, 1, 2, 1000] {
                for n in [
                    q.wrapping_mul(d).wrapping_sub(1),
                    q.wrapping_mul(d),
                    (1 << 31) - 1,
                ] {
                    if n < 1 << 31 {
                        assert_eq!(divide(n, Divisor::new(d)), n / d, "{n} / {d}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn division_by_multiplication_is_exact(n in 0_u32..1 << 31, d in 1_u32..=1 << 31) {
            prop_assert_eq!(divide(n, Divisor::new(d)), n / d);
        }
    }
}
