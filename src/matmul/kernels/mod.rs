//! The operation as launches.

mod portable;

use self::portable::PortableKernels;
use super::Matmul;
use super::call::{MatmulCall, MatmulShape};
use crate::{Result, Stream};

/// The kernels of one configuration.
#[derive(Debug)]
pub(super) struct MatmulKernels {
    portable: PortableKernels,
}

impl MatmulKernels {
    /// Loads what calls of this configuration may launch.
    pub(super) fn load(stream: &Stream, matmul: &Matmul) -> Result<Self> {
        Ok(Self {
            portable: PortableKernels::load(stream, matmul)?,
        })
    }

    /// Scratch that a call of this shape needs; a function of the shape and the device alone.
    pub(super) fn workspace_bytes(&self, shape: &MatmulShape) -> usize {
        self.portable.workspace_bytes(shape)
    }

    /// Launches a checked call.
    pub(super) fn run(&self, stream: &Stream, call: MatmulCall<'_>) -> Result<()> {
        self.portable.run(stream, call)
    }
}
