//! Activations, with results and gradients that may be quantised at once.

mod options;

pub use options::{GeluKind, Smoothing};
