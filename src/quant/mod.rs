//! Low-bit formats and quantisation.

mod activation;
mod arguments;
mod cache;
mod call;
mod check;
mod dequantize;
mod form;
mod format;
mod host;
mod kernels;
mod options;
mod quantize;
mod result;
#[cfg(test)]
mod tests;

pub use activation::{
    GateUp, GateUpMut, Gelu, GeluKind, PreparedGelu, PreparedSwiGlu, Smoothing, SmoothingScales,
    SwiGlu, SwiGluQuantized, SwiGluResult,
};
pub use arguments::{OutputArguments, QuantizeArguments, QuantizeOutputs, QuantizedMut};
pub use cache::WeightCache;
pub use dequantize::{Dequantize, PreparedDequantize};
pub use form::QuantizedForm;
pub use format::{Block, Format, Fp8, ScaleLayout};
pub use options::{Hadamard, OutputOptions, QuantizeOptions, Rounding, ScaleRounding, Scaling};
pub use quantize::{PreparedQuantize, Quantize};
pub use result::{Quantized, QuantizedRef, QuantizedTensor};
