//! Activations, with results and gradients that may be quantised at once.

mod arguments;
mod call;
mod gelu;
mod host;
mod options;
mod swiglu;
#[cfg(test)]
mod tests;

pub use arguments::{GateUp, GateUpMut, SmoothingScales};
pub(super) use call::{BackwardCall, ForwardCall, Inputs, Output, Shape};
pub use gelu::{Gelu, PreparedGelu};
pub use options::{GeluKind, Smoothing};
pub use swiglu::{PreparedSwiGlu, SwiGlu, SwiGluQuantized, SwiGluResult};
