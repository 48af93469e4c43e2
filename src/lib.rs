//! CUDA kernels that keep language-model training on an even keel.
//!
//! A [`Device`] gives a [`Stream`]; the stream uploads data into [`Buffer`]s and runs operations on
//! views of them ([`TensorRef`], [`TensorMut`]). The same program runs on a CUDA GPU, on the CPU,
//! where the operations are their formulas in `f64`, and (feature `emulator`) on the emulator,
//! which runs the CUDA kernels themselves and finds their faults.
//!
//! ```
//! use evenkeel::{Device, DType};
//!
//! let stream = Device::cpu().stream()?;
//! let mut buffer = stream.zeros(DType::F32, &[2, 3])?;
//! buffer.write(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
//! assert_eq!(buffer.view().slice_rows(1..2)?.host_slice::<f32>()?, [4.0, 5.0, 6.0]);
//! assert_eq!(buffer.read::<f32>()?.len(), 6);
//! # Ok::<(), evenkeel::Error>(())
//! ```
//!
//! # Operations and devices
//!
//! | | what it computes | CUDA 9.0, 10.0, 10.3 | other CUDA from 8.0 on | emulated | CPU |
//! |---|---|---|---|---|---|
//! | [`loss::SoftmaxLoss`] | objectives on the target's probability, value and gradient | each logit read once | read twice | the GPU's kernels | formulas in `f64` |
//! | [`loss::LogProbs`] | log-probabilities, entropies and lse of given tokens, with a gradient | as above | as above | as above | as above |
//! | [`norm::Norm`], [`norm::Sdd`] | `RmsNorm` and `LayerNorm` of rows, with a fused residual; a norm after a product | each element read once | once in rows that a block holds, longer ones twice | as above | as above |
//! | [`norm::Softmax`] | softmax, log-softmax and `StableMax` of masked rows, with their entropy | as `Norm`, what a row sees alone | likewise | as above | as above |
//! | [`norm::HeadNorm`] | the norm of attention heads (QK-norm), with a rotary embedding | read once | as 9.0 | as above | as above |
//! | [`norm::GatedNorm`] | a norm times a gate | once in rows that a block holds, longer ones twice | as 9.0 | as above | as above |
//! | [`norm::Dyt`], [`norm::Tev`] | a tanh in a norm's place; what measures embeddings | read once | as 9.0 | as above | as above |
//! | [`norm::SpectralNorm`] | what bounds weights (sigmaReparam) | the weight once a step | as 9.0 | as above | as above |
//! | [`quant::Quantize`] | tensors in FP8, MX and NVFP4, along rows and transposed | read once; twice where a scale needs the amax of a tensor or column | as 9.0 | as above | the formulas to the bit |
//! | [`quant::Dequantize`] | their values | read once | as 9.0 | as above | likewise |
//! | [`quant::SwiGlu`], [`quant::Gelu`] | activations, plain or quantised in the same call | their inputs once; quantised as [`quant::Quantize`] | as 9.0 | as above | formulas in `f64` |
//! | [`quant::DelayedScaling`], [`quant::StraightThrough`], [`quant::GaussWs`] | what training in few bits needs beside | read once | as 9.0 | as above | the formulas |
//! | [`matmul::Matmul`] | products of operands in FP8 or 16 bits, with what follows them | `wgmma` on 9.0, else `mma.sync` | `mma.sync`; FP8 as f16 on 8.0 and 8.6 | as above | formulas in `f64` |
//! | [`matmul::LinearFp8`] | a linear layer quantised by a recipe, forward and backward | by these | as 9.0 | as above | likewise |
//!
//! How long the rows of "once" are is in the README.
//!
//! An operation is configured, prepared for a stream and called:
//!
//! ```
//! # #[cfg(feature = "loss")] {
//! use evenkeel::Device;
//! use evenkeel::loss::{Objective, SoftmaxLoss};
//!
//! let stream = Device::best()?.stream()?; // a GPU where one answers, else the CPU
//! let mut logits = stream.upload(&[2, 3], &[1.0_f32, 2.0, 0.5, 0.0, 0.0, 0.0])?;
//! let targets = stream.upload(&[2], &[1_i64, 2])?;
//!
//! let op = SoftmaxLoss::new(Objective::Linear).prepare(&stream)?;
//! let loss = op.forward_backward_in_place(logits.view_mut(), targets.view())?;
//! assert!((loss.read()? - 0.519).abs() < 1e-3);
//! let gradient = logits.read::<f32>()?; // the logits became their gradients
//! assert!(gradient[1] < 0.0 && gradient[0] > 0.0);
//! # }
//! # Ok::<(), evenkeel::Error>(())
//! ```
//!
//! # Who waits, and what fails
//!
//! Work on a stream is asynchronous: [`Buffer::read`], [`Stream::check`] and
//! [`Stream::synchronize`] wait for it, and nothing else does. Nothing panics on what a caller
//! passes in: every constructor and operation returns [`Result`].

// A build without operations has nobody who launches or calls the reference.
#![cfg_attr(not(feature = "loss"), allow(dead_code))]
// The overview names operations that a build may leave out.
#![cfg_attr(
    not(all(feature = "loss", feature = "norm", feature = "matmul")),
    allow(rustdoc::broken_intra_doc_links)
)]
#![warn(
    missing_docs,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks
)]

// What all operations share; a build may have those alone that need less of it.
#[cfg_attr(not(feature = "norm"), allow(dead_code))]
mod check;
pub mod device;
mod dtype;
mod error;
#[cfg(all(test, any(feature = "norm", feature = "quant")))]
mod fixtures;
#[cfg(any(feature = "norm", feature = "quant"))]
#[cfg_attr(not(feature = "norm"), allow(dead_code))]
mod host;
pub mod interop;
#[cfg(feature = "loss")]
pub mod loss;
#[cfg(feature = "matmul")]
pub mod matmul;
#[cfg(feature = "norm")]
pub mod norm;
#[cfg(feature = "quant")]
pub mod quant;
pub mod reference;
// Normalizations use all of it.
#[cfg(any(feature = "norm", feature = "quant"))]
#[cfg_attr(not(feature = "norm"), allow(dead_code, unused_imports))]
mod rows;
pub mod tensor;
#[cfg(any(feature = "loss", feature = "norm", feature = "quant"))]
mod text;

pub use device::{Buffer, Device, DeviceId, DeviceKind, Event, Stream};
#[cfg(feature = "emulator")]
pub use device::{EmulatorOptions, LaunchReport};
pub use dtype::low_bit::{E2m1x2, E4m3, E5m2, E8m0};
pub use dtype::{DType, Element, Number};
pub use error::{Error, Result, Status};
/// The emulator: its architectures, and the types of its reports.
#[cfg(feature = "emulator")]
#[doc(no_inline)]
pub use evenkeel_emulator as emulator;
pub use tensor::{TensorMut, TensorRef};

/// The README's example, which is tested like the others.
#[cfg(all(doctest, feature = "loss"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
