//! Launches: one path for every device that has kernels.

use bytemuck::Pod;

use super::{DeviceId, Stream, cuda::CudaKernel, stream::Inner};
use crate::{Error, Result, TensorMut, TensorRef};

/// The most threads of a block, on every GPU there is.
const MAX_BLOCK: u32 = 1024;

/// The shape of a launch. One dimension is enough for what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaunchConfig {
    /// Blocks, a multiple of `cluster`. None: there is nothing to do.
    pub(crate) grid: u32,
    /// Threads per block.
    pub(crate) block: u32,
    /// Blocks per cluster; 1 for none.
    pub(crate) cluster: u32,
    /// Dynamic shared memory per block.
    pub(crate) shared_bytes: u32,
}

/// What one block or cluster may have on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Shared memory of a block.
    pub(crate) shared_bytes: u32,
    /// Blocks of a cluster; 1 where there are no clusters.
    pub(crate) cluster: u32,
}

/// A kernel, loaded.
#[derive(Clone)]
pub(crate) enum Kernel {
    Cuda(CudaKernel),
}

impl Kernel {
    /// The clusters (blocks, where a cluster is one) of this launch that the device holds at once.
    pub(crate) fn max_active_clusters(&self, config: &LaunchConfig) -> Result<u32> {
        config.check(self.limits())?;
        match self {
            Kernel::Cuda(kernel) => kernel.max_active_clusters(config),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Kernel::Cuda(kernel) => kernel.name(),
        }
    }

    fn limits(&self) -> Limits {
        match self {
            Kernel::Cuda(kernel) => kernel.context().limits(),
        }
    }

    fn device(&self) -> DeviceId {
        match self {
            Kernel::Cuda(kernel) => kernel.context().id(),
        }
    }
}

impl LaunchConfig {
    fn check(&self, limits: Limits) -> Result<()> {
        const OP: &str = "launch";
        if self.block == 0 || self.block > MAX_BLOCK {
            let expected = format!("1 to {MAX_BLOCK} threads");
            return Err(Error::argument(
                OP,
                "block",
                expected,
                self.block.to_string(),
            ));
        }
        if self.cluster == 0 || !self.grid.is_multiple_of(self.cluster) {
            return Err(Error::argument(
                OP,
                "grid",
                format!("a multiple of the cluster's {} blocks", self.cluster),
                self.grid.to_string(),
            ));
        }
        if self.cluster > limits.cluster {
            return Err(Error::unsupported(
                OP,
                format!("clusters of {} blocks on this device", self.cluster),
                format!("use at most {}", limits.cluster),
            ));
        }
        if self.shared_bytes > limits.shared_bytes {
            return Err(Error::unsupported(
                OP,
                format!(
                    "{} bytes of shared memory in a block on this device",
                    self.shared_bytes
                ),
                format!("use at most {}", limits.shared_bytes),
            ));
        }
        Ok(())
    }
}

impl Stream {
    /// Queues one launch; a grid of no blocks is nothing to do.
    ///
    /// `params` is the kernel's only parameter; `reads` and `writes` are the views whose addresses it carries. They are
    /// checked (device, overlap) and ordered with the streams that own them.
    ///
    /// # Safety
    /// `params` must be of the type that the kernel takes, and the kernel, given it, must touch no global memory but
    /// that of the views, the stream's status word, and its writes no memory but that of `writes` and the status word.
    pub(crate) unsafe fn launch<P: Pod>(
        &self,
        kernel: &Kernel,
        config: LaunchConfig,
        params: &P,
        reads: &[TensorRef<'_>],
        writes: &mut [TensorMut<'_>],
    ) -> Result<()> {
        if kernel.device() != self.id() {
            return Err(Error::argument(
                "launch",
                "kernel",
                format!("prepared for {}", self.id()),
                format!("prepared for {}", kernel.device()),
            ));
        }
        config.check(kernel.limits())?;
        for view in reads {
            check_device("launch", "a view", self, view.device())?;
        }
        for (index, view) in writes.iter().enumerate() {
            check_device("launch", "a view", self, view.device())?;
            let view = view.as_ref();
            let read = reads.iter().any(|other| other.overlaps(&view));
            let mut earlier = writes[..index].iter();
            if read || earlier.any(|other| other.as_ref().overlaps(&view)) {
                return Err(overlap("launch", "a view"));
            }
        }
        if config.grid == 0 {
            return Ok(());
        }
        match (&*self.inner, kernel) {
            // SAFETY: passed on to the caller; the views were checked above.
            (Inner::Cuda(stream), Kernel::Cuda(kernel)) => unsafe {
                stream.launch(kernel, &config, params, reads, writes)
            },
            (Inner::Cpu(_), _) => Err(Error::unsupported(
                "launch",
                "the CPU",
                "call the reference",
            )),
        }
    }

    /// That the views of an operation are on this stream's device, and that what it writes overlaps nothing else.
    ///
    /// Operations call it first, with their arguments' names; it is what keeps raw pointers honest on the CPU too.
    pub(crate) fn check_views(
        &self,
        op: &'static str,
        reads: &[(&'static str, TensorRef<'_>)],
        writes: &[(&'static str, TensorRef<'_>)],
    ) -> Result<()> {
        for (name, view) in reads {
            check_device(op, name, self, view.device())?;
        }
        for (index, (name, view)) in writes.iter().enumerate() {
            check_device(op, name, self, view.device())?;
            let read = reads.iter().any(|(_, other)| other.overlaps(view));
            if read
                || writes[..index]
                    .iter()
                    .any(|(_, other)| other.overlaps(view))
            {
                return Err(overlap(op, name));
            }
        }
        Ok(())
    }
}

fn check_device(
    op: &'static str,
    argument: &'static str,
    stream: &Stream,
    device: DeviceId,
) -> Result<()> {
    if device == stream.id() {
        return Ok(());
    }
    Err(Error::argument(
        op,
        argument,
        format!("on the stream's device {:?}", stream.id()),
        format!("on {device:?}"),
    ))
}

fn overlap(op: &'static str, argument: &'static str) -> Error {
    Error::argument(
        op,
        argument,
        "memory that no other argument touches",
        "memory that overlaps another argument's",
    )
}
