//! The CPU device's memory and stream. Work on it is done when the call returns.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{Error, Result, Status};

/// Alignment of host memory: two cache lines, and more than any vector load asks for.
const ALIGNMENT: usize = 128;

/// A block of host memory, zeroed when it is made.
pub(crate) struct HostMemory {
    pointer: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is owned, plain bytes; access goes through references to its owner.
unsafe impl Send for HostMemory {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// `bytes` must not be zero.
    pub(crate) fn new(bytes: usize) -> Result<HostMemory> {
        let out_of_memory = || Error::OutOfMemory {
            bytes: bytes as u64,
        };
        let layout = Layout::from_size_align(bytes, ALIGNMENT).map_err(|_| out_of_memory())?;
        if bytes == 0 {
            return Err(Error::argument("allocate", "bytes", "not 0", "0"));
        }
        // SAFETY: the layout's size is not zero.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(out_of_memory)?;
        Ok(HostMemory { pointer, layout })
    }

    pub(crate) fn address(&self) -> u64 {
        self.pointer.as_ptr() as u64
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the block is allocated with this size and was zeroed; `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.layout.size()) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.layout.size()) }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) }
    }
}

/// The CPU's stream: no more than its status word.
#[derive(Default)]
pub(crate) struct CpuStream {
    status: AtomicU32,
}

impl CpuStream {
    pub(crate) fn raise(&self, status: Status) {
        self.status.fetch_or(status.bits(), Ordering::Relaxed);
    }

    pub(crate) fn take_status(&self) -> Status {
        Status::from_bits(self.status.swap(0, Ordering::Relaxed))
    }
}
