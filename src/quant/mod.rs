//! Low-bit formats and quantisation.
//!
//! | | computes | gradients of |
//! |---|---|---|
//! | [`Quantize`] | elements and scales of a tensor in a [`Format`]: along its rows, transposed, or both | none: [`StraightThrough`] passes them on |
//! | [`Dequantize`] | the values of a quantised tensor | none |
//! | [`WeightCache`] | a quantised weight, kept across micro-batches | none |
//! | [`DelayedScaling`] | the scales of many tensors from the amax of their earlier steps | none |
//! | [`SwiGlu`], [`Gelu`] | activations, plain or quantised in the same pass | their inputs |
//! | [`StraightThrough`] | the gradient that passes a rounding: masked where it saturates, or `ReSTE` | its input |
//! | [`GaussWs`] | weights with the noise of a quantisation to come | the weights, the bits of their blocks |
//!
//! The page of each has its formulas and its source; [`reference::quant`](crate::reference::quant)
//! has them to be run. FP8 (E4M3, E5M2) is that of the OCP text OFP8, MX that of OCP MX 1.0, NVFP4
//! that of NVIDIA's recipe (arXiv 2509.25149), the blocks of 128 those of DeepSeek-V3 (arXiv
//! 2412.19437). All devices give the same bits.
//!
//! # Which one
//!
//! | | activations, gradients | weights |
//! |---|---|---|
//! | one scale a tensor | `fp8-tensor`, with a given scale: the fewest reads | the same |
//! | f32 scales of blocks | `fp8-1x128` | `fp8-128x128`, whose transpose has the same bytes |
//! | tensor cores with MX | `mxfp8`, `mxfp4` | the same |
//! | NVFP4 | `nvfp4`, gradients by stochastic rounding | `nvfp4-16x16`, whose transpose has the same values |
//!
//! - E4M3 is for activations and weights; E5M2, with more range and less precision, was made for
//!   gradients. With scales of blocks E4M3 serves for all.
//! - 8- and 4-bit tensor cores take both operands with the contraction along memory: Y = X W^T reads X
//!   and W along their rows, dX = dY W reads dY along its rows and the transpose of W, dW = dY^T X the
//!   transposes of both. Ask [`Quantize`] for both outputs of a tensor that goes into two of them: X
//!   is then read once.
//! - [`Rounding::Stochastic`] keeps sums over many gradients unbiased; it costs error in each. Its bits
//!   follow from the seed, the call's offset and the element's place, on every device.
//! - [`Hadamard`] rotations spread outliers over their block. Rotate both operands of a product along
//!   the contraction, with the same n and seed: for dW the transposed outputs of X and dY.
//! - [`Scaling::Given`] takes the tensor's scale from elsewhere, and spares the read that finds the
//!   amax. [`DelayedScaling`] makes it of the steps before; a call leaves the amax of this step in its
//!   slot ([`OutputArguments::amax`]).
//!
//! # How they are called
//!
//! Each is configured, prepared for a stream (options are checked, kernels loaded) and called.
//!
//! - [`PreparedQuantize::quantize`] allocates what it returns. The form in `_into` writes where the
//!   caller says and allocates nothing; it takes a workspace of
//!   [`PreparedQuantize::workspace_bytes`], which calls may share one after the other.
//! - What a call is given beside its tensor is in [`QuantizeArguments`]: tensor scales, groups of rows,
//!   the offset of the random numbers, and where amax and counts are reported.
//! - Operations read a [`QuantizedRef`]: elements, scales, and what they mean. [`Quantized`] lends
//!   them; one can be put together from memory of the caller's.
//! - Nothing waits for the device, allocates in an `_into` form or reads back: calls can be captured
//!   into a graph. What a graph has to vary between replays lies on the device: scales,
//!   [`QuantizeArguments::device_offset`], groups.
//!
//! ```
//! use evenkeel::quant::{
//!     DelayedScaling, Format, Fp8, Hadamard, OutputOptions, Quantize, QuantizeArguments,
//!     QuantizeOptions, Rounding, Scaling, WeightCache,
//! };
//! use evenkeel::Device;
//!
//! let stream = Device::best()?.stream()?; // a GPU where one answers, else the CPU
//! let fp8 = Format::Fp8Tensor(Fp8::E4m3);
//!
//! // Activations in FP8 with a delayed scale, along their rows; one read.
//! let mut scales = DelayedScaling::new().prepare(&stream, &[fp8])?;
//! let x_op = Quantize::new(QuantizeOptions::new(fp8).scaling(Scaling::Given)).prepare(&stream)?;
//! // Gradients in NVFP4: along their rows for dX, transposed and rotated for dW.
//! let stochastic = QuantizeOptions::new(Format::NvFp4).rounding(Rounding::Stochastic { seed: 1 });
//! let dy_op = Quantize::new(stochastic)
//!     .rowwise(OutputOptions::new())
//!     .transposed(OutputOptions::new().rotation(Hadamard::new(16, 2)))
//!     .prepare(&stream)?;
//! // Weights in squares, both ways, once a step.
//! let w_op = Quantize::new(Format::NvFp4Square)
//!     .rowwise(OutputOptions::new())
//!     .transposed(OutputOptions::new())
//!     .prepare(&stream)?;
//! let mut w_cache = WeightCache::new(w_op, 64, 48, 0)?;
//!
//! let w = stream.upload(&[64, 48], &[0.02_f32; 64 * 48])?;
//! let x = stream.upload(&[32, 48], &[1.5_f32; 32 * 48])?;
//! let dy = stream.upload(&[32, 64], &[0.01_f32; 32 * 64])?;
//! for step in 0..2 {
//!     for micro_batch in 0..4 {
//!         let w = w_cache.get(w.view(), step, QuantizeArguments::default())?;
//!         let (_forward, _dgrad) = (w.rowwise()?, w.transposed()?); // to products
//!         let given = QuantizeArguments::default().rowwise(scales.tensor(0)?.into());
//!         let _x = x_op.quantize(x.view(), given)?;
//!         let random = QuantizeArguments::default().offset(4 * step + micro_batch);
//!         let _dy = dy_op.quantize(dy.view(), random)?;
//!     }
//!     scales.update()?; // for the next step
//! }
//! stream.check()?; // no block held what is not finite
//! # Ok::<(), evenkeel::Error>(())
//! ```

mod activation;
mod arguments;
mod cache;
mod call;
mod check;
mod delayed;
mod dequantize;
mod form;
mod format;
mod gauss;
mod host;
mod kernels;
mod launch;
mod options;
mod params;
mod quantize;
mod result;
mod straight_through;
#[cfg(test)]
mod tests;

pub use activation::{
    GateUp, GateUpMut, Gelu, GeluKind, PreparedGelu, PreparedSwiGlu, Smoothing, SmoothingScales,
    SwiGlu, SwiGluQuantized, SwiGluResult,
};
pub use arguments::{OutputArguments, QuantizeArguments, QuantizeOutputs, QuantizedMut};
pub use cache::WeightCache;
pub use delayed::{AmaxHistory, DelayedScales, DelayedScaling, DelayedState, DelayedTensors};
pub use dequantize::{Dequantize, PreparedDequantize};
pub use form::QuantizedForm;
pub use format::{Block, Format, Fp8, ScaleLayout};
pub use gauss::{GaussWs, NoiseGradients, NoiseOffset, NoisyWeights, PreparedGaussWs};
pub use options::{Hadamard, OutputOptions, QuantizeOptions, Rounding, ScaleRounding, Scaling};
pub use quantize::{PreparedQuantize, Quantize};
pub use result::{Quantized, QuantizedRef, QuantizedTensor};
pub use straight_through::{Estimator, PreparedStraightThrough, StraightThrough};

// Of operations that compute values and quantise them in one pass.
pub(crate) use call::{OutputStore, Store};
pub(crate) use form::QuantShape;
pub(crate) use host::store as store_on_host;
