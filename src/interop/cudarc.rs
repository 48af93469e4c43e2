//! cudarc's streams and slices.
//!
//! This is the way in for programs that use cudarc themselves, or a framework that stands on it:
//! the operations run on the caller's own stream and read and write the caller's own slices. cudarc
//! keeps events with each slice, so that streams wait for each other; operations of this crate wait
//! for them and record them as cudarc's own launches do.
//!
//! ```no_run
//! use evenkeel::{Stream, TensorMut, TensorRef, interop::cudarc::driver::CudaContext};
//!
//! let context = CudaContext::new(0)?;
//! let stream = context.default_stream();
//! let slice = stream.clone_htod(&[1.0_f32; 6])?;
//!
//! let work = Stream::from_cudarc(&stream)?;
//! let matrix = TensorRef::from_cudarc(&slice, &[2, 3])?;
//! assert_eq!(matrix.device(), work.device().id());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Capture
//! A captured stream must meet no event that was recorded outside the capture. Buffers that were
//! made on the captured stream itself have none. Slices of cudarc have, once a context has several
//! streams: make them while `CudaContext::disable_event_tracking` holds.

use std::{mem::ManuallyDrop, sync::Arc};

#[doc(no_inline)]
pub use cudarc::driver;
use cudarc::driver::{CudaContext, CudaStream, DevicePtr, SyncOnDrop};

use super::access::{ReadAccess, Source, SourceMut, WriteAccess};
use crate::{
    Element, Result, TensorMut, TensorRef,
    device::{Device, Stream, cuda},
    tensor::Layout,
};

impl Stream {
    /// Work on a stream of cudarc's, in the stream's own context.
    ///
    /// # Errors
    /// As [`Device::cuda`]; [`Error::Argument`](crate::Error::Argument) for the per-thread default
    /// stream, which is another queue on each thread;
    /// [`Error::Unsupported`](crate::Error::Unsupported) while the stream is captured into a graph.
    pub fn from_cudarc(stream: &Arc<CudaStream>) -> Result<Stream> {
        let context = cuda::Context::of(stream.context())?;
        Stream::cuda(Device::from_context(context), stream.clone())
    }

    /// The stream, to queue other work on it. `None` on other devices.
    pub fn cudarc(&self) -> Option<&Arc<CudaStream>> {
        self.as_cuda().map(cuda::CudaWork::cudarc)
    }
}

impl Device {
    /// The device's context. `None` on other devices.
    pub fn cudarc(&self) -> Option<&Arc<CudaContext>> {
        self.as_cuda().map(|context| context.cudarc())
    }
}

/// What [`TensorRef::from_cudarc`] takes: `CudaSlice`, `CudaView`, `CudaViewMut`.
#[expect(
    private_bounds,
    reason = "sealed: the crate relies on what the guards of these types do"
)]
pub trait ReadSlice<T>: DevicePtr<T> + ReadAccess {}
impl<T: Element, S: DevicePtr<T> + ReadAccess> ReadSlice<T> for S {}

/// What [`TensorMut::from_cudarc`] takes: `CudaSlice`, `CudaViewMut`.
#[expect(
    private_bounds,
    reason = "sealed: the crate relies on what the guards of these types do"
)]
pub trait WriteSlice<T>: DevicePtr<T> + WriteAccess {}
impl<T: Element, S: DevicePtr<T> + WriteAccess> WriteSlice<T> for S {}

impl<'a> TensorRef<'a> {
    /// A view of a slice of cudarc's. `shape` must have no more elements than `slice`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when the shape does not fit. Operations return
    /// it when the slice is of another context than their stream.
    pub fn from_cudarc<T: Element, S: ReadSlice<T>>(
        slice: &'a S,
        shape: &[usize],
    ) -> Result<TensorRef<'a>> {
        let layout = layout("TensorRef::from_cudarc", slice, shape)?;
        Ok(TensorRef::new(layout, Source::Cudarc(slice)))
    }
}

impl<'a> TensorMut<'a> {
    /// A view of a slice of cudarc's. `shape` must have no more elements than `slice`.
    ///
    /// # Errors
    /// As [`TensorRef::from_cudarc`].
    pub fn from_cudarc<T: Element, S: WriteSlice<T>>(
        slice: &'a mut S,
        shape: &[usize],
    ) -> Result<TensorMut<'a>> {
        let layout = layout("TensorMut::from_cudarc", &*slice, shape)?;
        Ok(TensorMut::new(layout, SourceMut::Cudarc(slice)))
    }
}

fn layout<T: Element>(
    op: &'static str,
    slice: &impl DevicePtr<T>,
    shape: &[usize],
) -> Result<Layout> {
    let stream = slice.stream();
    let device = cuda::id_of(stream.context());
    // Only the address is wanted. The guard would note a read that does not happen, in the place of
    // one that did.
    let (address, guard) = slice.device_ptr(stream);
    let _: ManuallyDrop<SyncOnDrop> = ManuallyDrop::new(guard);
    Layout::new(
        op,
        device,
        T::DTYPE,
        address,
        shape,
        None,
        Some(slice.len()),
    )
}
