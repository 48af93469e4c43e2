//! How a view's memory is ordered with work on other streams.

use cudarc::driver::{
    CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, SyncOnDrop,
};

use crate::{Element, device::Stream};

/// Who orders the work on a view that is read.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Host slices and raw pointers: the caller, or the borrow checker.
    Unmanaged,
    /// A buffer of this crate: its own stream.
    Buffer(&'a Stream),
    /// A slice of cudarc's: the events that cudarc keeps with it.
    Cudarc(&'a dyn ReadAccess),
}

/// Who orders the work on a view that is written.
pub(crate) enum SourceMut<'a> {
    /// Host slices and raw pointers: the caller, or the borrow checker.
    Unmanaged,
    /// A buffer of this crate: its own stream.
    Buffer(&'a Stream),
    /// A slice of cudarc's: the events that cudarc keeps with it.
    Cudarc(&'a mut dyn WriteAccess),
}

impl SourceMut<'_> {
    pub(crate) fn reborrow(&mut self) -> SourceMut<'_> {
        match self {
            SourceMut::Unmanaged => SourceMut::Unmanaged,
            SourceMut::Buffer(stream) => SourceMut::Buffer(stream),
            SourceMut::Cudarc(slice) => SourceMut::Cudarc(&mut **slice),
        }
    }

    pub(crate) fn shared(&self) -> Source<'_> {
        match self {
            SourceMut::Unmanaged => Source::Unmanaged,
            SourceMut::Buffer(stream) => Source::Buffer(stream),
            SourceMut::Cudarc(slice) => Source::Cudarc(&**slice),
        }
    }
}

/// Device memory of cudarc's, about to be read.
pub(crate) trait ReadAccess: Send + Sync {
    /// Lets `stream` wait for earlier writes; the guard, when dropped, notes this read.
    fn acquire<'s>(&'s self, stream: &'s CudaStream) -> SyncOnDrop<'s>;
}

/// Device memory of cudarc's, about to be written.
pub(crate) trait WriteAccess: ReadAccess {
    /// Lets `stream` wait for earlier uses; the guard, when dropped, notes this write.
    fn acquire_mut<'s>(&'s mut self, stream: &'s CudaStream) -> SyncOnDrop<'s>;
}

macro_rules! read_access {
    ($($slice:ty),*) => {$(
        impl<T: Element> ReadAccess for $slice {
            fn acquire<'s>(&'s self, stream: &'s CudaStream) -> SyncOnDrop<'s> {
                self.device_ptr(stream).1
            }
        }
    )*};
}

read_access!(CudaSlice<T>, CudaView<'_, T>, CudaViewMut<'_, T>);

macro_rules! write_access {
    ($($slice:ty),*) => {$(
        impl<T: Element> WriteAccess for $slice {
            fn acquire_mut<'s>(&'s mut self, stream: &'s CudaStream) -> SyncOnDrop<'s> {
                self.device_ptr_mut(stream).1
            }
        }
    )*};
}

write_access!(CudaSlice<T>, CudaViewMut<'_, T>);
