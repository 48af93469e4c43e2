//! Row operations: normalizations, softmax, and what measures and bounds them.
//!
//! [`Norm`] is `RmsNorm` or `LayerNorm`, with a fused residual where there is one; [`HeadNorm`] the same
//! over the heads of attention with an optional rotary embedding; [`GatedNorm`], [`Sdd`] and [`Dyt`]
//! are their neighbours. [`Softmax`] is softmax, log-softmax or `StableMax` over masked rows with the
//! entropy of each; [`SpectralNorm`] bounds weights for sigmaReparam; [`Tev`] measures embeddings.
//! Each is configured, prepared for a stream and called; all but the last have a backward.
//! The formulas themselves are executable in [`crate::reference::norm`].

mod arguments;
mod call;
mod check;
mod dyt;
#[cfg(test)]
mod fixtures;
mod gated;
mod head_norm;
mod heads;
mod host;
mod kernels;
mod launch;
mod options;
mod params;
mod result;
mod rows;
mod sdd;
mod shape;
mod softmax;
mod spectral;
#[cfg(test)]
mod tests;
mod tev;

pub use arguments::{GradientOutputs, RotaryTables, Saved, Statistics, Weights};
pub use dyt::{Dyt, DytGradients, PreparedDyt};
pub use gated::{GatedNorm, PreparedGatedNorm};
pub use head_norm::{HeadNorm, PreparedHeadNorm};
pub use heads::{HeadNormOptions, Pairing, Rotary};
pub use options::{NormKind, NormOptions, SDD_EPS, SpectralNormOptions};
pub use result::{GatedNormGradients, HeadNormResult, NormGradients, NormResult, SddGradients};
pub use rows::{Norm, PreparedNorm};
pub use sdd::{PreparedSdd, Sdd};
pub use softmax::{
    Causal, PreparedSoftmax, Softmax, SoftmaxIncoming, SoftmaxKind, SoftmaxOptions, SoftmaxResult,
    SoftmaxStatistics,
};
pub use spectral::{
    PreparedSpectralNorm, ScaledWeights, SpectralNorm, SpectralNormGradientOutputs,
    SpectralNormGradients, SpectralNormOutputs, SpectralNormResult, SpectralSaved, SpectralVectors,
};
pub use tev::{PreparedTev, Tev, TevResult};
