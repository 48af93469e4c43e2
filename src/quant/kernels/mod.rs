//! The operations as launches.

mod activation;
mod activation_rows;
mod activation_store;
mod chunk;
mod delayed;
mod dequantize;
mod gauss;
mod quantize;
mod rows;
mod straight_through;

pub(super) use activation::ActivationKernels;
pub(super) use delayed::DelayedKernels;
pub(super) use dequantize::DequantizeKernels;
pub(super) use gauss::GaussKernels;
pub(super) use quantize::QuantizeKernels;
pub(super) use straight_through::StraightThroughKernels;
