//! The operation as launches.

use super::Matmul;
use super::call::{MatmulCall, MatmulShape};
use crate::{Error, Result, Stream};

/// The kernels of one configuration.
#[derive(Debug)]
pub(super) struct MatmulKernels;

impl MatmulKernels {
    /// Loads what calls of this configuration may launch.
    pub(super) fn load(stream: &Stream, matmul: &Matmul) -> Result<Self> {
        let [a, b] = matmul.formats();
        let what = format!("{a} x {b} on {}", stream.device());
        Err(Error::unsupported(
            "Matmul::prepare",
            what,
            "this build has no kernels of products yet: use Device::cpu()",
        ))
    }

    /// Scratch that a call of this shape needs; a function of the shape and the device alone.
    pub(super) fn workspace_bytes(&self, _shape: &MatmulShape) -> usize {
        0
    }

    /// Launches a checked call.
    pub(super) fn run(&self, _stream: &Stream, _call: MatmulCall<'_>) -> Result<()> {
        Ok(())
    }
}
