//! The formulas in f64.
//!
//! This is the CPU device, and the oracle that every other device is measured against: correct
//! first, rows in parallel second. It knows no device: plain rows of host memory in, numbers out.
//! Typed rows are widened to f64 exactly, and each result is rounded once.

#[cfg(test)]
mod differences;
#[cfg(feature = "norm")]
mod floats;
#[cfg(feature = "loss")]
pub mod loss;
#[cfg(feature = "norm")]
pub mod norm;
mod rows;
mod sum;

#[cfg(feature = "norm")]
pub use floats::{FloatRows, FloatRowsMut, Floats, FloatsMut};
pub use rows::{Indices, PerToken, Rows, RowsMut};
