//! Launches: one path for every device that has kernels.

use std::fmt;

use bytemuck::Pod;

#[cfg(feature = "emulator")]
use super::emulated::EmulatedKernel;
use super::{DeviceId, Stream, cuda::CudaKernel, stream::Inner};
use crate::{Error, Result, TensorMut, TensorRef};

/// The most threads of a block, on every GPU there is.
const MAX_BLOCK: u32 = 1024;

/// The shape of a launch. One dimension is enough for what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    #[cfg(feature = "emulator")]
    Emulated(EmulatedKernel),
}

impl Kernel {
    /// The clusters (blocks, where a cluster is one) of this launch that the device holds at once.
    ///
    /// The grid's size does not matter: a persistent kernel asks in order to choose it.
    pub(crate) fn max_active_clusters(&self, config: &LaunchConfig) -> Result<u32> {
        let config = &LaunchConfig {
            grid: config.cluster,
            ..*config
        };
        let limits = self.limits();
        if config.cluster > limits.cluster || config.shared_bytes > limits.shared_bytes {
            return Ok(0);
        }
        config.check(limits)?;
        match self {
            Kernel::Cuda(kernel) => kernel.max_active_clusters(config),
            #[cfg(feature = "emulator")]
            Kernel::Emulated(kernel) => Ok(kernel.max_active_clusters(config)),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Kernel::Cuda(kernel) => kernel.name(),
            #[cfg(feature = "emulator")]
            Kernel::Emulated(kernel) => kernel.name(),
        }
    }

    fn limits(&self) -> Limits {
        match self {
            Kernel::Cuda(kernel) => kernel.context().limits(),
            #[cfg(feature = "emulator")]
            Kernel::Emulated(kernel) => kernel.limits(),
        }
    }

    fn device(&self) -> DeviceId {
        match self {
            Kernel::Cuda(kernel) => kernel.context().id(),
            #[cfg(feature = "emulator")]
            Kernel::Emulated(kernel) => kernel.device(),
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({})", self.name())
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
    /// `params` is the kernel's only parameter; `reads` and `writes` are the views whose addresses
    /// it carries. They are checked (device, overlap) and ordered with the streams that own them.
    ///
    /// # Safety
    /// `params` must be of the type that the kernel takes, and the kernel, given it, must touch no
    /// global memory but that of the views, the stream's status word, and its writes no memory but
    /// that of `writes` and the status word.
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
                format!("prepared for {:?}", self.id()),
                format!("{} prepared for {:?}", kernel.name(), kernel.device()),
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
            #[cfg(feature = "emulator")]
            (Inner::Emulated(stream), Kernel::Emulated(kernel)) => {
                stream.launch(kernel, &config, params)
            }
            // The kernel was checked to be this device's; what is left is the CPU, which has none.
            _ => Err(Error::unsupported(
                "launch",
                "the CPU",
                "call the reference",
            )),
        }
    }

    /// That the views of an operation are on this stream's device, and that what it writes overlaps
    /// nothing else.
    ///
    /// Operations call it first, with their arguments' names; it is what keeps raw pointers honest
    /// on the CPU too.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    const HOPPER: Limits = Limits {
        shared_bytes: 232_448,
        cluster: 16,
    };

    fn config(grid: u32, block: u32, cluster: u32, shared_bytes: u32) -> LaunchConfig {
        LaunchConfig {
            grid,
            block,
            cluster,
            shared_bytes,
        }
    }

    #[test]
    fn launches_within_the_limits_pass() {
        for fits in [
            config(0, 1, 1, 0),
            config(32, 1024, 16, 232_448),
            config(5, 33, 1, 1),
        ] {
            fits.check(HOPPER).unwrap();
        }
    }

    #[test]
    fn launches_beyond_the_limits_are_named() {
        let ampere = Limits {
            shared_bytes: 166_912,
            cluster: 1,
        };
        let cases = [
            (config(1, 0, 1, 0), HOPPER, "1 to 1024 threads"),
            (config(1, 1025, 1, 0), HOPPER, "1 to 1024 threads"),
            (
                config(6, 32, 4, 0),
                HOPPER,
                "multiple of the cluster's 4 blocks",
            ),
            (
                config(6, 32, 0, 0),
                HOPPER,
                "multiple of the cluster's 0 blocks",
            ),
            (config(32, 32, 32, 0), HOPPER, "clusters of 32 blocks"),
            (config(4, 32, 2, 0), ampere, "clusters of 2 blocks"),
            (
                config(1, 32, 1, 232_449),
                HOPPER,
                "232449 bytes of shared memory",
            ),
        ];
        for (config, limits, words) in cases {
            let message = config.check(limits).unwrap_err().to_string();
            assert!(message.contains(words), "{words:?} is not in {message:?}");
        }
    }

    #[test]
    fn the_cpu_has_no_kernels_and_its_own_status() {
        let stream = Device::cpu().stream().unwrap();
        assert_eq!(stream.backend(), super::super::stream::Backend::Reference);
        let error = stream
            .kernel("loss_softmax", "any")
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("call the reference"), "{error}");
        stream.raise(crate::Status::SATURATED);
        stream.raise(crate::Status::TARGET_MASKED);
        let status = crate::Status::SATURATED | crate::Status::TARGET_MASKED;
        assert_eq!(stream.check(), Err(Error::Data(status)));
        stream.check().unwrap();
    }

    #[test]
    fn overlapping_arguments_are_refused() {
        let stream = Device::cpu().stream().unwrap();
        let mut memory = [0_f32; 24];
        let address = memory.as_mut_ptr() as u64;
        // SAFETY: within `memory`, which nothing else uses; the views are only compared.
        let view = |first: u64, shape: &[usize], stride| unsafe {
            let address = address + 4 * first;
            let device = stream.id();
            TensorMut::from_raw(device, crate::DType::F32, address, shape, stride).unwrap()
        };
        let check = |read: &TensorMut<'_>, write: &TensorMut<'_>| {
            stream.check_views("test", &[("x", read.as_ref())], &[("y", write.as_ref())])
        };
        let upper = view(0, &[2, 6], None);
        let lower = view(12, &[2, 6], None);
        check(&upper, &lower).unwrap();
        check(&lower, &upper).unwrap();
        let middle = view(11, &[2], None);
        for other in [&upper, &view(6, &[2, 6], None), &middle] {
            let error = check(other, &upper).unwrap_err().to_string();
            assert!(
                error.contains("`y`") && error.contains("overlaps"),
                "{error}"
            );
        }
        // Columns of the same rows interleave; one column more and they touch.
        let left = view(0, &[4, 3], Some(6));
        check(&left, &view(3, &[4, 3], Some(6))).unwrap();
        check(&view(3, &[3, 3], Some(6)), &left).unwrap();
        check(&left, &view(9, &[2, 3], Some(6))).unwrap();
        assert!(check(&left, &view(2, &[4, 3], Some(6))).is_err());
        assert!(check(&left, &view(3, &[3, 4], Some(6))).is_err());
        // Another stride is not worth the arithmetic.
        assert!(check(&left, &view(3, &[2, 3], Some(12))).is_err());
        // Nothing overlaps nothing.
        check(&upper, &view(0, &[0, 6], None)).unwrap();
        let written_twice = stream.check_views(
            "test",
            &[],
            &[("y", upper.as_ref()), ("z", middle.as_ref())],
        );
        assert!(written_twice.unwrap_err().to_string().contains("`z`"));
    }

    #[test]
    fn devices_do_not_mix() {
        let stream = Device::cpu().stream().unwrap();
        let gpu = DeviceId::stand_in_for_tests();
        // SAFETY: never read; the device is refused.
        let far = unsafe { TensorRef::from_raw(gpu, crate::DType::F32, 4096, &[1], None) };
        let error = stream
            .check_views("test", &[("x", far.unwrap())], &[])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "test: `x` should be on the stream's device cpu, but is on cuda:3 (context 0x7)"
        );
    }
}
