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
//! Work on a stream is asynchronous: [`Buffer::read`], [`Stream::check`] and
//! [`Stream::synchronize`] wait for it, and nothing else does. Nothing panics on what a caller
//! passes in: every constructor and operation returns [`Result`].

// A build without operations has nobody who launches or calls the reference.
#![cfg_attr(not(feature = "loss"), allow(dead_code))]
#![warn(
    missing_docs,
    unsafe_op_in_unsafe_fn,
    clippy::undocumented_unsafe_blocks
)]

pub mod device;
mod dtype;
mod error;
pub mod interop;
#[cfg(feature = "loss")]
pub mod loss;
pub mod reference;
pub mod tensor;

pub use device::{Buffer, Device, DeviceId, DeviceKind, Event, Stream};
#[cfg(feature = "emulator")]
pub use device::{EmulatorOptions, LaunchReport};
pub use dtype::{DType, Element};
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
