//! Where operations run: devices, their streams, and memory on them.

mod buffer;
mod cpu;
pub(crate) mod cuda;
#[cfg(feature = "emulator")]
pub(crate) mod emulated;
pub(crate) mod launch;
mod modules;
pub(crate) mod stream;
#[cfg(feature = "matmul")]
pub(crate) mod tensor_map;

use std::{fmt, sync::Arc};

pub use self::{
    buffer::Buffer,
    modules::Build,
    stream::{Event, Stream},
};
#[cfg(feature = "emulator")]
pub use self::{emulated::EmulatorOptions, stream::LaunchReport};
use crate::{Error, Result};

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceKind {
    /// A GPU, through the CUDA driver.
    Cuda,
    /// The emulator, which runs the CUDA kernels on the CPU and reports their faults.
    Emulated,
    /// The CPU, which runs the operations' formulas in `f64`.
    Cpu,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DeviceKind::Cuda => "cuda",
            DeviceKind::Emulated => "emulated",
            DeviceKind::Cpu => "cpu",
        })
    }
}

/// Tells devices apart: memory of one is not memory of another.
///
/// On CUDA it names a context, so two [`Device`]s made for one GPU have the same id and share
/// memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceId {
    kind: DeviceKind,
    /// CUDA: the ordinal. Emulated: counts the emulators of this process.
    ordinal: u32,
    /// CUDA: the context's handle.
    context: u64,
}

impl DeviceId {
    /// The CPU.
    pub const CPU: DeviceId = DeviceId {
        kind: DeviceKind::Cpu,
        ordinal: 0,
        context: 0,
    };

    /// Some GPU's context, to be refused.
    #[cfg(test)]
    pub(crate) fn stand_in_for_tests() -> DeviceId {
        DeviceId {
            kind: DeviceKind::Cuda,
            ordinal: 3,
            context: 7,
        }
    }

    /// The device's kind.
    pub fn kind(self) -> DeviceKind {
        self.kind
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DeviceKind::Cpu => f.pad("cpu"),
            kind => f.pad(&format!("{kind}:{}", self.ordinal)),
        }
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        if self.kind == DeviceKind::Cuda {
            write!(f, " (context {:#x})", self.context)?;
        }
        Ok(())
    }
}

/// Something that runs operations. Cheap to clone; clones are the same device.
///
/// ```
/// use evenkeel::{Device, DeviceKind};
/// let device = Device::best()?; // CUDA where there is one, else the CPU
/// println!("{device}: {}", device.name());
/// assert_eq!(Device::cpu().kind(), DeviceKind::Cpu);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone)]
pub struct Device {
    inner: Inner,
}

#[derive(Clone)]
enum Inner {
    Cpu,
    Cuda(Arc<cuda::Context>),
    #[cfg(feature = "emulator")]
    Emulated(Arc<emulated::EmulatedDevice>),
}

impl Device {
    /// The GPU of this number, as the CUDA driver counts them.
    ///
    /// # Errors
    /// - [`Error::NoDriver`]: there is no CUDA driver.
    /// - [`Error::NotBuilt`]: this program was built without CUDA kernels.
    /// - [`Error::Unsupported`]: the driver or the GPU is older than the kernels need.
    /// - [`Error::Argument`]: there are fewer GPUs.
    pub fn cuda(ordinal: usize) -> Result<Device> {
        Ok(Device::from_context(cuda::Context::open(ordinal)?))
    }

    /// The CPU: every operation as its formula, computed in `f64` and rounded once.
    pub fn cpu() -> Device {
        Device { inner: Inner::Cpu }
    }

    /// An emulated H100; see [`emulated_with`](Device::emulated_with).
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "emulator")]
    pub fn emulated() -> Result<Device> {
        Device::emulated_with(EmulatorOptions::default())
    }

    /// A GPU that is emulated on the CPU: it runs the CUDA kernels, compiled for the host, and is
    /// strict about them.
    ///
    /// A launch in which the emulator finds a fault (a race, a read of memory that nothing wrote,
    /// an access out of bounds, ...) returns [`Error::Findings`]; [`Stream::take_reports`] gives
    /// what every launch did.
    #[cfg(feature = "emulator")]
    pub fn emulated_with(options: EmulatorOptions) -> Result<Device> {
        Ok(Device {
            inner: Inner::Emulated(Arc::new(emulated::EmulatedDevice::new(options))),
        })
    }

    /// The first GPU if a driver and a supported GPU answer, else the CPU.
    ///
    /// # Errors
    /// Only what is wrong with a GPU that is there and supported, such as [`Error::OutOfMemory`].
    pub fn best() -> Result<Device> {
        match Device::cuda(0) {
            Ok(device) => Ok(device),
            Err(
                Error::NoDriver { .. }
                | Error::NotBuilt { .. }
                | Error::Unsupported { .. }
                | Error::Argument { .. },
            ) => Ok(Device::cpu()),
            Err(other) => Err(other),
        }
    }

    /// The kind of device this is.
    pub fn kind(&self) -> DeviceKind {
        self.id().kind
    }

    /// What tells this device's memory from others'.
    pub fn id(&self) -> DeviceId {
        match &self.inner {
            Inner::Cpu => DeviceId::CPU,
            Inner::Cuda(context) => context.id(),
            #[cfg(feature = "emulator")]
            Inner::Emulated(device) => device.id(),
        }
    }

    /// The device's name, for people.
    pub fn name(&self) -> String {
        match &self.inner {
            Inner::Cpu => "CPU reference".into(),
            Inner::Cuda(context) => context.name().into(),
            #[cfg(feature = "emulator")]
            Inner::Emulated(device) => device.name(),
        }
    }

    /// Major and minor compute capability of a GPU, or of the one that is emulated.
    pub fn compute_capability(&self) -> Option<(u32, u32)> {
        match &self.inner {
            Inner::Cpu => None,
            Inner::Cuda(context) => Some(context.capability()),
            #[cfg(feature = "emulator")]
            Inner::Emulated(device) => Some(device.capability()),
        }
    }

    /// A new stream of work on this device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] and [`Error::Cuda`].
    pub fn stream(&self) -> Result<Stream> {
        match &self.inner {
            Inner::Cpu => Ok(Stream {
                device: self.clone(),
                inner: Arc::new(stream::Inner::Cpu(cpu::CpuStream::default())),
            }),
            Inner::Cuda(context) => {
                let stream = cuda::check("cuStreamCreate", context.cudarc().new_stream())?;
                Stream::cuda(self.clone(), stream)
            }
            #[cfg(feature = "emulator")]
            Inner::Emulated(device) => Ok(Stream {
                device: self.clone(),
                inner: Arc::new(stream::Inner::Emulated(emulated::EmulatedStream::new(
                    device.clone(),
                )?)),
            }),
        }
    }

    pub(crate) fn from_context(context: Arc<cuda::Context>) -> Device {
        Device {
            inner: Inner::Cuda(context),
        }
    }

    pub(crate) fn as_cuda(&self) -> Option<&Arc<cuda::Context>> {
        match &self.inner {
            Inner::Cuda(context) => Some(context),
            _ => None,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id().fmt(f)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {:?})", self.id(), self.name())
    }
}
