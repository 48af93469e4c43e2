//! The formulas in f64.
//!
//! This is the CPU device, and the oracle that every other device is measured against: correct
//! first, rows in parallel second. It knows no device: plain rows of host memory in, numbers out.
//! Typed rows are widened to f64 exactly, and each result is rounded once.

#[cfg(feature = "loss")]
pub mod loss;
mod rows;
mod sum;

pub use rows::{Indices, PerToken, Rows, RowsMut};
