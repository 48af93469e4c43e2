//! Row operations: normalizations, softmax, and what measures and bounds them.
//!
//! [`NormOptions`] shapes `RmsNorm` and `LayerNorm`, [`HeadNormOptions`] the same over the heads of
//! attention with an optional rotary embedding, [`SoftmaxOptions`] softmax, log-softmax and
//! `StableMax` over masked rows, [`SpectralNormOptions`] the power iteration of sigmaReparam.
//! The formulas themselves are executable in [`crate::reference::norm`].

mod arguments;
mod call;
mod check;
mod gated;
mod head_norm;
mod heads;
mod host;
mod options;
mod result;
mod rows;
mod sdd;
mod softmax;

pub use arguments::{GradientOutputs, RotaryTables, Saved, Statistics, Weights};
pub use gated::{GatedNorm, PreparedGatedNorm};
pub use head_norm::{HeadNorm, PreparedHeadNorm};
pub use heads::{HeadNormOptions, Pairing, Rotary};
pub use options::{NormKind, NormOptions, SDD_EPS, SpectralNormOptions};
pub use result::{GatedNormGradients, HeadNormResult, NormGradients, NormResult, SddGradients};
pub use rows::{Norm, PreparedNorm};
pub use sdd::{PreparedSdd, Sdd};
pub use softmax::{Causal, SoftmaxKind, SoftmaxOptions};
