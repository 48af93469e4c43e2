//! Streams of work, and events in them.

use std::{fmt, sync::Arc, time::Instant};

use cudarc::driver::{CudaEvent, CudaStream};

#[cfg(feature = "emulator")]
use super::emulated::EmulatedStream;
use super::{
    Buffer, Device, DeviceId,
    buffer::Contents,
    cpu::CpuStream,
    cuda::{self, CudaWork},
    launch::Kernel,
};
use crate::{DType, Element, Error, Result, Status, tensor::check_length};
#[cfg(feature = "emulator")]
pub use evenkeel_emulator::Report as LaunchReport;

/// A queue of work on a device, done in order. Cheap to clone; clones are the same queue.
///
/// A stream has a status word, in which kernels note what they found wrong with data ([`Status`]).
///
/// ```
/// use evenkeel::Device;
/// let stream = Device::cpu().stream()?;
/// let targets = stream.upload(&[3], &[5_i64, 0, 2])?;
/// assert_eq!(targets.read::<i64>()?, [5, 0, 2]);
/// stream.check()?; // no operation found fault with its data
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone)]
pub struct Stream {
    pub(super) device: Device,
    pub(super) inner: Arc<Inner>,
}

pub(crate) enum Inner {
    Cpu(CpuStream),
    Cuda(CudaWork),
    #[cfg(feature = "emulator")]
    Emulated(EmulatedStream),
}

/// How a device does operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// By calling the reference on host slices.
    Reference,
    /// By launching kernels.
    Kernels,
}

impl Stream {
    /// The device that does the work.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Copies `data` into a new buffer of this shape.
    ///
    /// The data may be dropped when the call returns; the copy takes its turn in the stream.
    ///
    /// # Errors
    /// [`Error::Argument`] when `data` does not have as many elements as `shape`,
    /// [`Error::OutOfMemory`], and on CUDA [`Error::Unsupported`] while the stream is captured into
    /// a graph.
    pub fn upload<T: Element>(&self, shape: &[usize], data: &[T]) -> Result<Buffer> {
        check_length("Stream::upload", shape, data.len())?;
        let mut buffer = self.uninitialised(T::DTYPE, shape)?;
        buffer.write(data)?;
        Ok(buffer)
    }

    /// A new buffer of zeros.
    ///
    /// # Errors
    /// As [`upload`](Stream::upload).
    pub fn zeros(&self, dtype: DType, shape: &[usize]) -> Result<Buffer> {
        Buffer::new(self, "Stream::zeros", dtype, shape, Contents::Zeros)
    }

    /// A new buffer whose contents nothing has written yet.
    ///
    /// On the CPU and on CUDA its contents are arbitrary; the emulator reports a kernel or a host
    /// that reads them.
    ///
    /// # Errors
    /// As [`upload`](Stream::upload).
    pub fn uninitialised(&self, dtype: DType, shape: &[usize]) -> Result<Buffer> {
        Buffer::new(
            self,
            "Stream::uninitialised",
            dtype,
            shape,
            Contents::Uninitialised,
        )
    }

    /// Waits for the stream, then reads and clears its status word.
    ///
    /// # Errors
    /// [`Error::Data`] says what the operations since the last check found wrong with their data.
    pub fn check(&self) -> Result<()> {
        self.take_status()?.into_result()
    }

    fn take_status(&self) -> Result<Status> {
        match &*self.inner {
            Inner::Cpu(stream) => Ok(stream.take_status()),
            Inner::Cuda(stream) => stream.take_status(),
            #[cfg(feature = "emulator")]
            Inner::Emulated(stream) => stream.take_status(),
        }
    }

    /// Waits until all work on the stream is done.
    ///
    /// # Errors
    /// [`Error::Cuda`] for what went wrong on the device, now or earlier.
    pub fn synchronize(&self) -> Result<()> {
        match &*self.inner {
            Inner::Cpu(_) => Ok(()),
            Inner::Cuda(stream) => stream.synchronize(),
            #[cfg(feature = "emulator")]
            Inner::Emulated(_) => Ok(()),
        }
    }

    /// Marks the present end of the stream.
    ///
    /// # Errors
    /// [`Error::Cuda`] for what went wrong on the device, now or earlier.
    pub fn record(&self) -> Result<Event> {
        let inner = match &*self.inner {
            Inner::Cpu(_) => EventInner::Host(Instant::now()),
            Inner::Cuda(stream) => EventInner::Cuda(stream.record()?),
            #[cfg(feature = "emulator")]
            Inner::Emulated(_) => EventInner::Host(Instant::now()),
        };
        Ok(Event {
            inner,
            device: self.device.id(),
        })
    }

    /// Lets the work that follows on this stream wait for an event of another stream of this
    /// device.
    ///
    /// # Errors
    /// [`Error::Argument`] for an event of another device; [`Error::Cuda`].
    pub fn wait(&self, event: &Event) -> Result<()> {
        if event.device != self.device.id() {
            return Err(Error::argument(
                "Stream::wait",
                "event",
                format!("an event of {}", self.device),
                format!("an event of {}", event.device),
            ));
        }
        match (&*self.inner, &event.inner) {
            (Inner::Cuda(stream), EventInner::Cuda(event)) => stream.wait(event),
            // What a host event marks was done when it was recorded.
            _ => Ok(()),
        }
    }

    /// What the launches since the last call did, oldest first: findings, traffic, synchronisation
    /// calls. Empty on other devices. A stream keeps the last 1024.
    #[cfg(feature = "emulator")]
    pub fn take_reports(&self) -> Vec<LaunchReport> {
        match &*self.inner {
            Inner::Emulated(stream) => stream.take_reports(),
            _ => Vec::new(),
        }
    }

    /// How operations are done here; they branch on it.
    pub(crate) fn backend(&self) -> Backend {
        match &*self.inner {
            Inner::Cpu(_) => Backend::Reference,
            Inner::Cuda(_) => Backend::Kernels,
            #[cfg(feature = "emulator")]
            Inner::Emulated(_) => Backend::Kernels,
        }
    }

    /// Sets bits of the status word from the reference, on the CPU.
    pub(crate) fn raise(&self, status: Status) {
        if let Inner::Cpu(stream) = &*self.inner {
            stream.raise(status);
        }
    }

    /// The status word's address, for the parameters of kernels.
    pub(crate) fn status_address(&self) -> u64 {
        match &*self.inner {
            Inner::Cpu(_) => 0,
            Inner::Cuda(stream) => stream.status_address(),
            #[cfg(feature = "emulator")]
            Inner::Emulated(stream) => stream.status_address(),
        }
    }

    /// The kernel `name` of the module compiled from kernels/, loaded at its first use.
    pub(crate) fn kernel(&self, module: &'static str, name: &str) -> Result<Kernel> {
        match &*self.inner {
            Inner::Cpu(_) => Err(Error::unsupported(
                "Stream::kernel",
                format!("{module}/{name} on the CPU"),
                "call the reference",
            )),
            Inner::Cuda(stream) => Ok(Kernel::Cuda(stream.context().kernel(module, name)?)),
            #[cfg(feature = "emulator")]
            Inner::Emulated(stream) => Ok(Kernel::Emulated(stream.kernel(module, name)?)),
        }
    }

    /// Work on a stream of cudarc's in the context of `device`, which must be a CUDA device.
    pub(crate) fn cuda(device: Device, stream: Arc<CudaStream>) -> Result<Stream> {
        let Some(context) = device.as_cuda() else {
            return Err(Error::argument(
                "Stream",
                "device",
                "a CUDA device",
                device.to_string(),
            ));
        };
        let work = CudaWork::new(context.clone(), stream)?;
        Ok(Stream {
            inner: Arc::new(Inner::Cuda(work)),
            device,
        })
    }

    pub(crate) fn as_cuda(&self) -> Option<&CudaWork> {
        match &*self.inner {
            Inner::Cuda(stream) => Some(stream),
            _ => None,
        }
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.device.id()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.device)
    }
}

/// A point in a stream, from [`Stream::record`].
///
/// ```
/// use evenkeel::Device;
/// let stream = Device::cpu().stream()?;
/// let start = stream.record()?;
/// let end = stream.record()?;
/// assert!(end.elapsed_us(&start)? >= 0.0);
/// # Ok::<(), evenkeel::Error>(())
/// ```
pub struct Event {
    inner: EventInner,
    device: DeviceId,
}

enum EventInner {
    /// The CPU and the emulator are done when a call returns.
    Host(Instant),
    Cuda(CudaEvent),
}

impl Event {
    /// Microseconds from `since` to this event, after waiting for both.
    ///
    /// # Errors
    /// [`Error::Argument`] when the events are of different kinds of device; [`Error::Cuda`].
    pub fn elapsed_us(&self, since: &Event) -> Result<f64> {
        match (&self.inner, &since.inner) {
            (EventInner::Host(end), EventInner::Host(start)) => {
                Ok(end.saturating_duration_since(*start).as_secs_f64() * 1e6)
            }
            (EventInner::Cuda(end), EventInner::Cuda(start)) => {
                let milliseconds = cuda::check("cuEventElapsedTime", start.elapsed_ms(end))?;
                Ok(f64::from(milliseconds) * 1e3)
            }
            _ => Err(Error::argument(
                "Event::elapsed_us",
                "since",
                format!("an event of {}", self.device),
                format!("an event of {}", since.device),
            )),
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({})", self.device)
    }
}
