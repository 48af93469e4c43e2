//! The operations as launches.

mod activation;
mod activation_store;
mod chunk;
mod delayed;
mod gauss;
mod quantize;
mod rows;
mod straight_through;

use super::call::DequantizeCall;
use crate::{Error, Result, Stream};

pub(super) use activation::ActivationKernels;
pub(super) use delayed::DelayedKernels;
pub(super) use gauss::GaussKernels;
pub(super) use quantize::QuantizeKernels;
pub(super) use straight_through::StraightThroughKernels;

/// The kernels of [`Dequantize`](super::Dequantize).
#[derive(Debug)]
pub(super) struct DequantizeKernels(());

impl DequantizeKernels {
    pub(super) fn load(_: &Stream) -> Result<Self> {
        Err(unsupported("Dequantize::prepare"))
    }

    pub(super) fn dequantize(&self, _: &Stream, _: DequantizeCall<'_>) -> Result<()> {
        Err(unsupported("Dequantize::dequantize"))
    }
}

fn unsupported(op: &'static str) -> Error {
    Error::unsupported(op, "this device", "use Device::cpu()")
}
