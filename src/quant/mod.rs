//! Low-bit formats and quantisation.

mod activation;
mod format;
mod options;

pub use activation::{GeluKind, Smoothing};
pub use format::{Block, Format, Fp8, ScaleLayout};
pub use options::{Hadamard, OutputOptions, QuantizeOptions, Rounding, ScaleRounding, Scaling};
