//! Row operations: normalizations, softmax, and what measures and bounds them.
//!
//! For a row x of length D, with r = 1 / sqrt(mean(x^2) + eps), or of the deviations from the mean:
//!
//! | | computes | gradients of |
//! |---|---|---|
//! | [`Norm`] | `RmsNorm` x r gamma + beta, `LayerNorm` (x - mean) r gamma + beta; of s = x + residual in the same pass, with s | x and residual, gamma, beta |
//! | [`HeadNorm`] | the same of each attention head (QK-norm), then a rotary embedding; or either alone | x, gamma, beta |
//! | [`GatedNorm`] | norm(x) silu(z) | x, z, gamma, beta |
//! | [`Sdd`] | alpha x r, of the features x = W u that a linear layer gives | x, alpha |
//! | [`Dyt`] | gamma tanh(alpha x) + beta, in a norm's place | x, alpha, gamma, beta |
//! | [`Softmax`] | softmax, log-softmax or `StableMax` of the keys that a row sees, with its entropy | x |
//! | [`SpectralNorm`] | sigma of a weight W by power iteration, and (gamma / sigma) W | W, gamma |
//! | [`Tev`] | the mean over tokens of the deviation of their embeddings | none: it measures |
//!
//! The page of each has its formulas, its gradients and its source;
//! [`reference::norm`](crate::reference::norm) has them in `f64`, to be run. All run on every device.
//!
//! # Which one
//!
//! - [`Norm`] is the norm of most blocks. Where the block adds to a residual stream, use the forms
//!   with a residual: the sum and the norm take one pass, and the stream may be f32 beside bf16 rows.
//!   `zero_centred` is for weights stored as gamma - 1 (Gemma).
//! - [`HeadNorm`] on queries and keys bounds attention's scores; it reads them where a packed
//!   projection left them, through a view of its columns.
//! - [`Softmax`] reports each row's entropy, whose collapse precedes divergence; [`SpectralNorm`]
//!   (sigmaReparam) prevents it. Where W goes into a product, give the product [`SpectralNorm`]'s
//!   scale and spare W^.
//! - [`Sdd`] and [`Dyt`] stand for a norm where it is learned with its scale apart, or done without.
//! - Each tensor is bf16, f16 or f32, whatever the others are; weights' gradients and all statistics
//!   are f32. For the loss over a vocabulary use [`crate::loss`], which never stores the softmax.
//!
//! # Into low bits
//!
//! [`Norm`], [`HeadNorm`], [`GatedNorm`], [`Sdd`] and [`Dyt`] quantise their results as they leave,
//! where they are told to (`quantized`): `forward_quantized` and its forms read x once and write y in 8
//! or 4 bits, in each format whose scales a row or a given scale of the tensor decides. A backward does
//! not need y, and is the same.
//!
//! The others have no such form. [`Softmax`]'s y is what its own backward takes, so that it must be
//! stored as it is, and no product of a linear layer follows it whose operand it would be: attention
//! multiplies it with the values where it is made. [`SpectralNorm`]'s W^ is a weight, which is quantised
//! once for many tokens, transposed too; give the product its scale instead. Either can be quantised
//! by `quant::Quantize`.
//!
//! # How they are called
//!
//! Each is configured, prepared for a stream (options are checked, kernels loaded) and called.
//!
//! - `forward`, `backward` and `measure` allocate what they return. The forms in `_into` write where
//!   the caller says and allocate nothing, those in `_in_place` write y over x and dx over dy
//!   ([`Norm`], [`HeadNorm`], [`Sdd`], [`Dyt`], [`Softmax`]); with a residual, the stream comes to lie
//!   over it. No other overlap is accepted.
//! - Norms save r, and `LayerNorm` the mean: [`Saved`], `[rows]` f32. Their backward takes x beside
//!   it (the stream, where there was a residual). [`Softmax`] takes y, and the normalizer for
//!   `StableMax` alone; [`Dyt`] takes x; [`SpectralNorm`] W, u, v and sigma.
//! - Gradients of weights are sums over all rows in a fixed order. An `_into` or `_in_place` form
//!   takes them in [`GradientOutputs`], which may add to what is there, with a workspace of the
//!   operation's `backward_workspace_bytes`; scratch, which calls may share one after the other.
//! - Rows may lie at any stride. Those of whole 16-byte vectors (address, stride and length) should go
//!   fastest: others move in shorter pieces, at worst one element at a time.
//!
//! ```
//! use evenkeel::norm::{GradientOutputs, Norm, Saved, Statistics, Weights};
//! use evenkeel::{DType, Device};
//!
//! let stream = Device::best()?.stream()?; // a GPU where one answers, else the CPU
//! let mut block = stream.upload(&[1, 2], &[0.0_f32, 3.0])?;
//! let mut residual = stream.upload(&[1, 2], &[1.0_f32, 4.0])?;
//! let gamma = stream.upload(&[2], &[1.0_f32, 1.0])?;
//! let mut rstd = stream.uninitialised(DType::F32, &[1])?;
//! let op = Norm::rms().prepare(&stream)?;
//! let weights = Weights::gamma(gamma.view());
//! let mut statistics = Statistics::rstd(rstd.view_mut());
//! op.forward_residual_in_place(block.view_mut(), residual.view_mut(), &weights, &mut statistics)?;
//! assert_eq!(residual.read::<f32>()?, [1.0, 7.0]); // the stream; block is its norm
//!
//! let mut dy = stream.upload(&[1, 2], &[1.0_f32, 0.0])?;
//! let mut dgamma = stream.zeros(DType::F32, &[2])?; // once for all micro-batches
//! let bytes = op.backward_workspace_bytes(1, 2);
//! let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
//! let mut outputs = GradientOutputs::default()
//!     .dgamma(dgamma.view_mut())
//!     .workspace(workspace.view_mut())
//!     .accumulate();
//! let saved = Saved::new(rstd.view());
//! op.backward_in_place(residual.view(), &weights, &saved, dy.view_mut(), None, &mut outputs)?;
//! assert!((dy.read::<f32>()?[0] - 0.196).abs() < 1e-5); // dx
//! assert!((dgamma.read::<f32>()?[0] - 0.2).abs() < 1e-5);
//! # Ok::<(), evenkeel::Error>(())
//! ```

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
mod options;
mod params;
#[cfg(feature = "quant")]
mod quantized;
mod result;
mod rows;
mod sdd;
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
#[cfg(feature = "quant")]
pub use quantized::NormQuantized;
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
