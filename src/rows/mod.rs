//! The framework of kernels over rows: how a row is spread over threads, which kernel takes it, and
//! what the kernels are told. The device's side is kernels/common/{rows.h, columns.cuh, team.cuh}.

mod kernels;
mod launch;
mod params;
#[cfg(feature = "quant")]
mod quantized;
mod shape;

pub(crate) use kernels::{CLUSTER_TEAM_SHARED_BYTES, Plan, RowKernels, Source, TEAM_SHARED_BYTES};
#[cfg(feature = "quant")]
pub(crate) use launch::QUANTIZED;
pub(crate) use launch::{Alignment, BACKWARD, Layout, RowLaunch};
pub(crate) use params::{ColumnVector, Divisor, RowGrid, RowTensor, float_type, integer_type};
#[cfg(feature = "quant")]
pub(crate) use quantized::{QuantizedRows, touch_store};
pub(crate) use shape::{RowShape, WeightForm};
