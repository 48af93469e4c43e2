//! The row operations on a device: which kernels are loaded, what they are given, how they are launched.

mod backward;
mod columns;
mod dyt;
#[cfg(feature = "quant")]
mod dyt_quantized;
#[cfg(feature = "quant")]
mod quantized;
mod rows;
mod softmax;
mod softmax_params;
mod spectral;
mod tev;
mod walk;

pub(super) use dyt::{DytKernels, workspace_bytes as dyt_workspace_bytes};
pub(super) use rows::NormKernels;
pub(super) use softmax::SoftmaxKernels;
pub(super) use spectral::{
    SpectralKernels, backward_workspace_bytes as spectral_backward_workspace_bytes,
    workspace_bytes as spectral_workspace_bytes,
};
pub(super) use tev::TevKernels;
