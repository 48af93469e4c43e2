//! What the kernels are given: kernels/norm/params.h, field by field.

use bytemuck::{Pod, Zeroable};

use super::Pairing;
use super::arguments::RotaryTables;
use crate::TensorRef;
use crate::rows::{ColumnVector, Divisor, RowGrid, RowTensor, float_type, integer_type};

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

/// `NormForwardQuantizedParams` of kernels/norm/forward_quantized.cuh.
#[cfg(feature = "quant")]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct NormForwardQuantizedParams {
    pub(super) norm: NormForwardParams,
    pub(super) y: crate::rows::QuantizedRows,
}

#[cfg(feature = "quant")]
const _: () = assert!(size_of::<NormForwardQuantizedParams>() == 408);

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
    assert!(size_of::<RotaryParams>() == 56);
    assert!(size_of::<NormForwardParams>() == 304);
    assert!(size_of::<NormBackwardParams>() == 432);
    assert!(size_of::<ColumnSumParams>() == 32);
};
