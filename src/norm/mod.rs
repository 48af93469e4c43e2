//! Row operations: normalizations, softmax, and what measures and bounds them.
//!
//! [`NormOptions`] shapes `RmsNorm` and `LayerNorm`, [`HeadNormOptions`] the same over the heads of
//! attention with an optional rotary embedding, [`SoftmaxOptions`] softmax, log-softmax and
//! `StableMax` over masked rows, [`SpectralNormOptions`] the power iteration of sigmaReparam.
//! The formulas themselves are executable in [`crate::reference::norm`].

mod arguments;
mod check;
mod heads;
mod host;
mod options;
mod softmax;

pub use arguments::{GradientOutputs, RotaryTables, Saved, Statistics, Weights};
pub use heads::{HeadNormOptions, Pairing, Rotary};
pub use options::{NormKind, NormOptions, SDD_EPS, SpectralNormOptions};
pub use softmax::{Causal, SoftmaxKind, SoftmaxOptions};
