//! What the kernels are told of their rows: kernels/common/rows.h, field by field.

use bytemuck::{Pod, Zeroable};

use super::{RowShape, WeightForm};
use crate::{DType, TensorRef};

/// `FloatType` of a type that check.rs let through.
pub(crate) fn float_type(dtype: DType) -> u32 {
    match dtype {
        DType::Bf16 => 0,
        DType::F16 => 1,
        _ => 2,
    }
}

/// `IntegerType` of a type that check.rs let through.
pub(crate) fn integer_type(dtype: DType) -> u32 {
    match dtype {
        DType::I32 => 1,
        DType::U32 => 2,
        _ => 0,
    }
}

/// `RowTensor`; zeros for an absent one.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct RowTensor {
    data: u64,
    token_stride: i64,
    head_stride: i64,
    float_type: u32,
    unused: u32,
}

impl RowTensor {
    pub(crate) fn new(view: &TensorRef<'_>, shape: RowShape) -> Self {
        Self {
            float_type: float_type(view.dtype()),
            ..Self::at(view.address(), shape.strides(view))
        }
    }

    /// Elements from a token to the next and from a head to the next.
    pub(super) fn at(data: u64, [token_stride, head_stride]: [usize; 2]) -> Self {
        Self {
            data,
            token_stride: token_stride as i64,
            head_stride: head_stride as i64,
            ..Self::default()
        }
    }

    pub(crate) fn optional(view: Option<&TensorRef<'_>>, shape: RowShape) -> Self {
        view.map_or_else(Self::default, |view| Self::new(view, shape))
    }
}

/// `ColumnVector`; zeros for an absent one.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct ColumnVector {
    data: u64,
    head_stride: i64,
    float_type: u32,
    scalar: u32,
}

impl ColumnVector {
    pub(crate) fn new(view: Option<&TensorRef<'_>>, form: WeightForm, columns: usize) -> Self {
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
pub(crate) struct Divisor {
    magic: u32,
    shift: u32,
}

impl Divisor {
    /// Of numbers below 2^31 by `n`, which is from 1 to 2^31.
    pub(crate) fn new(n: u32) -> Self {
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
pub(crate) struct RowGrid {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) heads: u32,
    pub(crate) by_heads: Divisor,
    pub(crate) threads: u32,
    pub(crate) segments: u32,
    pub(crate) unused: u32,
}

const _: () = {
    assert!(size_of::<RowTensor>() == 32);
    assert!(size_of::<ColumnVector>() == 24);
    assert!(size_of::<RowGrid>() == 32);
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
