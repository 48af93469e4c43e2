//! The operations as launches.

mod activation;
mod chunk;
mod delayed;
mod gauss;
mod straight_through;

use super::call::{DequantizeCall, QuantizeCall};
use super::form::QuantShape;
use super::{Format, Quantize, Scaling};
use crate::{Error, Result, Stream};

pub(super) use activation::ActivationKernels;
pub(super) use delayed::DelayedKernels;
pub(super) use gauss::GaussKernels;
pub(super) use straight_through::StraightThroughKernels;

/// Bytes of scratch that a quantisation needs: an amax of each output, tensor or group, and of each
/// column, where scales follow from them.
pub(crate) fn quantize_workspace_bytes(quantize: &Quantize, shape: QuantShape) -> usize {
    let format = quantize.options().format;
    let groups = shape.groups.max(1);
    let current = quantize.options().scaling == Scaling::Current;
    let [rowwise, transposed] = quantize.outputs();
    let mut words: usize = 0;
    if current && format.needs_tensor_amax() {
        let outputs = usize::from(rowwise.is_some()) + usize::from(transposed.is_some());
        words = words.saturating_add(groups.saturating_mul(outputs));
    }
    if transposed.is_some() && matches!(format, Format::Fp8Row(_)) {
        words = words.saturating_add(groups.saturating_mul(shape.columns));
    }
    let bytes = words.saturating_mul(size_of::<u32>());
    bytes.checked_next_multiple_of(16).unwrap_or(usize::MAX)
}

/// The kernels of [`Quantize`].
#[derive(Debug)]
pub(super) struct QuantizeKernels(());

impl QuantizeKernels {
    pub(super) fn load(_: &Stream, _: &Quantize) -> Result<Self> {
        Err(unsupported("Quantize::prepare"))
    }

    pub(super) fn quantize(&self, _: &Stream, _: QuantizeCall<'_>) -> Result<()> {
        Err(unsupported("Quantize::quantize"))
    }
}

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
