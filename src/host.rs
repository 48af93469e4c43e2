//! Views on the CPU in the words of the reference.

use crate::reference::{FloatRows, FloatRowsMut, Floats, FloatsMut, Indices};
use crate::{DType, Error, Result, TensorMut, TensorRef};

/// The memory of a view of floats, padding between rows included.
pub(crate) fn floats<'a>(view: &TensorRef<'a>) -> Result<Floats<'a>> {
    match view.dtype() {
        DType::Bf16 => Ok(Floats::Bf16(view.host_slice()?)),
        DType::F16 => Ok(Floats::F16(view.host_slice()?)),
        DType::F32 => Ok(Floats::F32(view.host_slice()?)),
        dtype => Err(not_float(dtype)),
    }
}

/// As [`floats`], to be written.
pub(crate) fn floats_mut<'v>(view: &'v mut TensorMut<'_>) -> Result<FloatsMut<'v>> {
    match view.dtype() {
        DType::Bf16 => Ok(FloatsMut::Bf16(view.host_slice_mut()?)),
        DType::F16 => Ok(FloatsMut::F16(view.host_slice_mut()?)),
        DType::F32 => Ok(FloatsMut::F32(view.host_slice_mut()?)),
        dtype => Err(not_float(dtype)),
    }
}

fn not_float(dtype: DType) -> Error {
    Error::argument("host", "tensor", "bf16, f16 or f32", dtype.to_string())
}

/// A view as a matrix.
pub(crate) fn matrix<'a>(view: &TensorRef<'a>) -> Result<FloatRows<'a>> {
    FloatRows::new(
        floats(view)?,
        view.rows(),
        view.columns(),
        view.row_stride(),
    )
}

/// A view as a matrix to be written.
pub(crate) fn matrix_mut<'v>(view: &'v mut TensorMut<'_>) -> Result<FloatRowsMut<'v>> {
    let (rows, columns, stride) = (view.rows(), view.columns(), view.row_stride());
    FloatRowsMut::new(floats_mut(view)?, rows, columns, stride)
}

/// A view of integers.
pub(crate) fn indices<'a>(view: &TensorRef<'a>) -> Result<Indices<'a>> {
    Ok(match view.dtype() {
        DType::I32 => Indices::I32(view.host_slice()?),
        DType::U32 => Indices::U32(view.host_slice()?),
        _ => Indices::I64(view.host_slice()?),
    })
}

/// Rounds results into a contiguous view of f32.
pub(crate) fn fill(view: &mut TensorMut<'_>, values: impl IntoIterator<Item = f64>) -> Result<()> {
    for (slot, value) in view.host_slice_mut::<f32>()?.iter_mut().zip(values) {
        *slot = value as f32;
    }
    Ok(())
}
