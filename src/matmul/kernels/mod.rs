//! The operation as launches.

mod hopper;
mod portable;
#[cfg(all(test, feature = "emulator"))]
mod tests;

use self::hopper::HopperKernels;
use self::portable::PortableKernels;
use super::Matmul;
use super::call::{MatmulCall, MatmulShape};
use crate::{Result, Stream};

/// The kernels of one configuration.
#[derive(Debug)]
pub(super) struct MatmulKernels {
    portable: PortableKernels,
    /// On Hopper, of operands that its kernels multiply.
    hopper: Option<HopperKernels>,
}

impl MatmulKernels {
    /// Loads what calls of this configuration may launch.
    pub(super) fn load(stream: &Stream, matmul: &Matmul) -> Result<Self> {
        Ok(Self {
            portable: PortableKernels::load(stream, matmul)?,
            hopper: HopperKernels::load(stream, matmul)?,
        })
    }

    /// Scratch that a call of this shape needs; a function of the shape and the device alone.
    pub(super) fn workspace_bytes(&self, shape: &MatmulShape) -> usize {
        self.portable.workspace_bytes(shape)
    }

    /// Launches a checked call.
    pub(super) fn run(&self, stream: &Stream, call: MatmulCall<'_>) -> Result<()> {
        if let Some(hopper) = &self.hopper
            && let Some(plan) = hopper.plan(&call)
        {
            return hopper.run(stream, plan, call);
        }
        self.portable.run(stream, call)
    }
}
