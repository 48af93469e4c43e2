//! The formulas in f64.
//!
//! This is the CPU device, and the oracle that every other device is measured against: correct
//! first, rows in parallel second. It knows no device: plain rows of host memory in, numbers out.
//! Typed rows are widened to f64 exactly, and each result is rounded once. Quantisation alone is
//! defined to the bit, in f32.

#[cfg(test)]
mod differences;
#[cfg(any(feature = "norm", feature = "quant"))]
mod floats;
#[cfg(feature = "loss")]
pub mod loss;
#[cfg(feature = "matmul")]
pub mod matmul;
#[cfg(feature = "norm")]
pub mod norm;
#[cfg(feature = "quant")]
pub mod quant;
mod rows;
mod sum;

#[cfg(any(feature = "norm", feature = "quant"))]
pub use floats::{FloatRows, FloatRowsMut, Floats, FloatsMut};
pub use rows::{Indices, PerToken, Rows, RowsMut};
