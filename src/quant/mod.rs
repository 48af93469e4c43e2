//! Low-bit formats and quantisation.

mod format;
mod options;

pub use format::{Block, Format, Fp8, ScaleLayout};
pub use options::{Hadamard, OutputOptions, QuantizeOptions, Rounding, ScaleRounding, Scaling};
