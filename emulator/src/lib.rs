//! The CUDA programming model on the CPU.
#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

#[cfg(not(target_os = "linux"))]
compile_error!("the emulator maps memory and reads its own images as Linux lets it: Linux only");

mod architecture;
mod clock;
mod emulator;
mod exec;
mod grid;
mod heap;
mod kernel;
mod launch;
mod report;
mod rng;
mod shadow;
mod symbol;
mod tensor_core;
mod tensor_map;
mod traffic;

pub use architecture::Architecture;
pub use emulator::Emulator;
pub use heap::{Memory, MemoryError};
pub use kernel::{CudaEmulatorKernel, Kernel, KernelTable};
pub use launch::Launch;
pub use report::{Finding, FindingKind, Location, Report, SyncOperation, SyncSite, Traffic};
pub use tensor_map::{TensorMap, TensorMapElement, TensorMapError, TensorMapSwizzle, TensorTile};
