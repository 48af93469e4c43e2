//! The CPU device's memory and stream. Work on it is done when the call returns.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{Error, Result, Status};

/// Alignment of host memory: two cache lines, and more than any vector load asks for.
const ALIGNMENT: usize = 128;

/// What the allocator aligns to without being asked. Zeroed memory of a larger alignment is written
/// over by Rust's allocator; at this one it comes from the system as pages of zeros, untouched.
const PLAIN_ALIGNMENT: usize = 16;

/// A block of host memory, zeroed when it is made.
pub(crate) struct HostMemory {
    base: NonNull<u8>,
    layout: Layout,
    /// Where the aligned part begins.
    start: usize,
    bytes: usize,
}

// SAFETY: the block is owned, plain bytes; access goes through references to its owner.
unsafe impl Send for HostMemory {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    pub(crate) fn new(bytes: usize) -> Result<HostMemory> {
        let out_of_memory = || Error::OutOfMemory {
            bytes: bytes as u64,
        };
        let size = bytes.checked_add(ALIGNMENT).ok_or_else(out_of_memory)?;
        let layout = Layout::from_size_align(size, PLAIN_ALIGNMENT).map_err(|_| out_of_memory())?;
        // SAFETY: the layout's size is at least ALIGNMENT, not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(out_of_memory)?;
        let address = base.as_ptr() as usize;
        Ok(HostMemory {
            base,
            layout,
            start: address.next_multiple_of(ALIGNMENT) - address,
            bytes,
        })
    }

    fn pointer(&self) -> *mut u8 {
        // SAFETY: `start` is less than ALIGNMENT, which the allocation has in excess of `bytes`.
        unsafe { self.base.as_ptr().add(self.start) }
    }

    pub(crate) fn address(&self) -> u64 {
        self.pointer() as u64
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: these bytes lie in the block, which was zeroed; `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.bytes) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.bytes) }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
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
