//! Device memory: sparse, full of NaN patterns, bounded by guard pages, never reused.

use crate::emulator::Shared;
use crate::shadow::Granule;
use std::fmt;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

const PAGE: usize = 4096;
/// Address space reserved at a time; halved while the system refuses.
const ARENA: usize = 1 << 44;
/// Fresh memory maps this much of 0xff bytes again and again.
const PATTERN: usize = 16 << 20;

/// Device memory could not be had, or was addressed outside its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// The system refused the address space.
    OutOfMemory {
        /// The bytes that were asked for.
        bytes: usize,
    },
    /// A host access leaves the buffer.
    OutOfBounds {
        /// First byte of the access.
        offset: usize,
        /// Length of the access.
        len: usize,
        /// Length of the buffer.
        buffer: usize,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryError::OutOfMemory { bytes } => {
                write!(
                    f,
                    "no address space for {bytes} bytes of emulated device memory"
                )
            }
            MemoryError::OutOfBounds {
                offset,
                len,
                buffer,
            } => write!(
                f,
                "bytes {offset}..{} of a buffer of {buffer} bytes",
                offset.saturating_add(*len)
            ),
        }
    }
}

impl std::error::Error for MemoryError {}

fn map(
    address: *mut libc::c_void,
    bytes: usize,
    protection: i32,
    flags: i32,
    file: i32,
) -> Option<usize> {
    // SAFETY: MAP_FIXED is only passed for ranges inside an arena or a mapping of this module.
    let p = unsafe { libc::mmap(address, bytes, protection, flags, file, 0) };
    (p != libc::MAP_FAILED).then_some(p as usize)
}

const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// Zeroed memory that costs nothing until it is touched.
#[derive(Debug)]
pub(crate) struct Sparse {
    address: usize,
    bytes: usize,
}

impl Sparse {
    pub(crate) fn new(bytes: usize) -> Option<Sparse> {
        let bytes = bytes.max(1).next_multiple_of(PAGE);
        let address = map(
            null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            ANONYMOUS,
            -1,
        )?;
        Some(Sparse { address, bytes })
    }

    pub(crate) fn pointer<T>(&self) -> *mut T {
        self.address as *mut T
    }

    pub(crate) fn address(&self) -> usize {
        self.address
    }

    pub(crate) fn read_only(&self) {
        // SAFETY: a mapping of our own; a failure leaves it writable, which only weakens a check.
        unsafe { libc::mprotect(self.pointer(), self.bytes, libc::PROT_READ) };
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, unmapped once.
        unsafe { libc::munmap(self.pointer(), self.bytes) };
    }
}

/// Addresses for all emulators of the process, handed out once and never again.
struct Addresses {
    next: usize,
    end: usize,
}

fn take_addresses(bytes: usize) -> Option<usize> {
    static ARENAS: Mutex<Addresses> = Mutex::new(Addresses { next: 0, end: 0 });
    let mut arena = ARENAS.lock().unwrap_or_else(PoisonError::into_inner);
    if arena.end - arena.next < bytes {
        let mut size = ARENA;
        let start = loop {
            if size < bytes {
                return None;
            }
            if let Some(start) = map(null_mut(), size, libc::PROT_NONE, ANONYMOUS, -1) {
                break start;
            }
            size /= 2;
        };
        *arena = Addresses {
            next: start + PAGE,
            end: start + size,
        };
        if arena.end - arena.next < bytes {
            return None;
        }
    }
    let at = arena.next;
    arena.next += bytes;
    Some(at)
}

/// A file of 0xff bytes, or -1 where there is none.
#[cfg(target_os = "linux")]
fn pattern() -> i32 {
    static PATTERN_FILE: OnceLock<i32> = OnceLock::new();
    *PATTERN_FILE.get_or_init(|| {
        // SAFETY: plain system calls on a descriptor of our own and a live buffer.
        unsafe {
            let file = libc::memfd_create(c"evenkeel-emulator".as_ptr(), libc::MFD_CLOEXEC);
            if file < 0 {
                return -1;
            }
            let block = vec![0xffu8; 1 << 20];
            for i in 0..PATTERN / block.len() {
                let at = (i * block.len()) as libc::off_t;
                if libc::pwrite(file, block.as_ptr().cast(), block.len(), at)
                    != block.len() as isize
                {
                    libc::close(file);
                    return -1;
                }
            }
            file
        }
    })
}

#[cfg(not(target_os = "linux"))]
fn pattern() -> i32 {
    -1
}

/// One buffer, alive or dropped.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) start: usize,
    pub(crate) len: usize,
    mapped: usize,
    pub(crate) shadow: Option<Sparse>,
    initialised: Option<Sparse>,
    pub(crate) freed: bool,
}

impl Allocation {
    pub(crate) fn granules(&self) -> *mut Granule {
        self.shadow.as_ref().map_or(null_mut(), Sparse::pointer)
    }

    /// One bit a byte, in words of 16: a word for each granule.
    pub(crate) fn bits(&self) -> *mut AtomicU16 {
        self.initialised
            .as_ref()
            .map_or(null_mut(), Sparse::pointer)
    }
}

/// Marks bytes as written.
///
/// # Safety
/// `bits` covers the range.
#[inline]
pub(crate) unsafe fn mark(bits: *const AtomicU16, offset: usize, len: usize) {
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let high = end.min((at / 16 + 1) * 16);
        let mask = word_mask(at % 16, high - at);
        // SAFETY: by the contract.
        let word = unsafe { &*bits.add(at / 16) };
        if word.load(Ordering::Relaxed) & mask != mask {
            word.fetch_or(mask, Ordering::Relaxed);
        }
        at = high;
    }
}

/// Marks bytes as not written.
///
/// # Safety
/// `bits` covers the range.
pub(crate) unsafe fn unmark(bits: *const AtomicU16, offset: usize, len: usize) {
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let high = end.min((at / 16 + 1) * 16);
        // SAFETY: by the contract.
        unsafe { &*bits.add(at / 16) }.fetch_and(!word_mask(at % 16, high - at), Ordering::Relaxed);
        at = high;
    }
}

#[inline]
fn word_mask(low: usize, len: usize) -> u16 {
    (((1u32 << len) - 1) << low) as u16
}

/// The first byte of the range that was never written, if any.
///
/// # Safety
/// `bits` covers the range.
#[inline]
pub(crate) unsafe fn first_unmarked(
    bits: *const AtomicU16,
    offset: usize,
    len: usize,
) -> Option<usize> {
    let end = offset + len;
    let mut at = offset;
    while at < end {
        let high = end.min((at / 16 + 1) * 16);
        let mask = word_mask(at % 16, high - at);
        // SAFETY: by the contract.
        let missing = unsafe { &*bits.add(at / 16) }.load(Ordering::Relaxed) & mask ^ mask;
        if missing != 0 {
            return Some(at / 16 * 16 + missing.trailing_zeros() as usize);
        }
        at = high;
    }
    None
}

/// The buffers of one emulator, in the order of their addresses.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    pub(crate) allocations: Vec<Allocation>,
    pub(crate) generation: u32,
}

impl Heap {
    pub(crate) fn find(&self, address: usize) -> Option<&Allocation> {
        let after = self.allocations.partition_point(|a| a.start <= address);
        self.allocations[..after].last()
    }

    fn find_mut(&mut self, start: usize) -> Option<&mut Allocation> {
        let at = self
            .allocations
            .binary_search_by_key(&start, |a| a.start)
            .ok()?;
        self.allocations.get_mut(at)
    }

    fn allocate(&mut self, len: usize) -> Option<usize> {
        let mapped = len.max(1).checked_next_multiple_of(PAGE)?;
        // The page after it stays unmapped.
        let start = take_addresses(mapped.checked_add(PAGE)?)?;
        let shadow = Sparse::new(mapped / 16 * size_of::<Granule>())?;
        let initialised = Sparse::new(mapped / 8)?;
        let file = pattern();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        if file < 0 {
            map(
                start as *mut _,
                mapped,
                access,
                ANONYMOUS | libc::MAP_FIXED,
                -1,
            )?;
        } else {
            let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
            for at in (0..mapped).step_by(PATTERN) {
                let piece = (mapped - at).min(PATTERN);
                map((start + at) as *mut _, piece, access, flags, file)?;
            }
        }
        let allocation = Allocation {
            start,
            len,
            mapped,
            shadow: Some(shadow),
            initialised: Some(initialised),
            freed: false,
        };
        let at = self.allocations.partition_point(|a| a.start < start);
        self.allocations.insert(at, allocation);
        Some(start)
    }

    fn free(&mut self, start: usize) {
        if let Some(allocation) = self.find_mut(start) {
            let flags = ANONYMOUS | libc::MAP_FIXED;
            map(
                start as *mut _,
                allocation.mapped,
                libc::PROT_NONE,
                flags,
                -1,
            );
            allocation.freed = true;
            allocation.shadow = None;
            allocation.initialised = None;
        }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        for allocation in &self.allocations {
            if !allocation.freed {
                let flags = ANONYMOUS | libc::MAP_FIXED;
                map(
                    allocation.start as *mut _,
                    allocation.mapped,
                    libc::PROT_NONE,
                    flags,
                    -1,
                );
            }
        }
    }
}

/// A buffer of emulated device memory; dropping it frees it, and a later access by a kernel is
/// reported as a use after free.
///
/// Fresh memory reads as 0xff bytes (a NaN in every floating-point format) and counts as not
/// initialised. It is sparse: pages cost memory once they are written.
#[derive(Debug)]
pub struct Memory {
    shared: Arc<Shared>,
    start: usize,
    len: usize,
}

impl Memory {
    pub(crate) fn new(shared: Arc<Shared>, len: usize) -> Result<Memory, MemoryError> {
        let start = shared.heap().allocate(len);
        let start = start.ok_or(MemoryError::OutOfMemory { bytes: len })?;
        Ok(Memory { shared, start, len })
    }

    /// The address kernels use.
    #[must_use]
    pub fn addr(&self) -> u64 {
        self.start as u64
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the length is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn lock(&self, offset: usize, len: usize) -> Result<MutexGuard<'_, Heap>, MemoryError> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            let buffer = self.len;
            return Err(MemoryError::OutOfBounds {
                offset,
                len,
                buffer,
            });
        }
        Ok(self.shared.heap())
    }

    /// Copies `data` to `offset`; waits for a running launch.
    ///
    /// # Errors
    /// The range leaves the buffer.
    pub fn write(&self, offset: usize, data: &[u8]) -> Result<(), MemoryError> {
        let heap = self.lock(offset, data.len())?;
        // SAFETY: within this live buffer; the lock keeps launches and other host accesses away.
        unsafe {
            let to = (self.start + offset) as *mut u8;
            std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len());
        }
        self.mark(&heap, offset, data.len());
        Ok(())
    }

    /// Copies from `offset`; bytes never written read as 0xff.
    ///
    /// # Errors
    /// The range leaves the buffer.
    pub fn read(&self, offset: usize, data: &mut [u8]) -> Result<(), MemoryError> {
        let _heap = self.lock(offset, data.len())?;
        // SAFETY: within this live buffer; the lock keeps launches and other host accesses away.
        unsafe {
            let from = (self.start + offset) as *const u8;
            std::ptr::copy_nonoverlapping(from, data.as_mut_ptr(), data.len());
        }
        Ok(())
    }

    /// Sets `len` bytes to `byte`.
    ///
    /// # Errors
    /// The range leaves the buffer.
    pub fn fill(&self, offset: usize, len: usize, byte: u8) -> Result<(), MemoryError> {
        let heap = self.lock(offset, len)?;
        // SAFETY: within this live buffer; the lock keeps launches and other host accesses away.
        unsafe { std::ptr::write_bytes((self.start + offset) as *mut u8, byte, len) };
        self.mark(&heap, offset, len);
        Ok(())
    }

    fn mark(&self, heap: &Heap, offset: usize, len: usize) {
        if let Some(allocation) = heap.find(self.start) {
            // SAFETY: the range was checked against the buffer the bits describe.
            unsafe { mark(allocation.bits(), offset, len) };
        }
    }

    /// Forgets that the bytes were written: a kernel that reads them is reported.
    ///
    /// # Errors
    /// The range leaves the buffer.
    pub fn set_uninitialised(&self, offset: usize, len: usize) -> Result<(), MemoryError> {
        let heap = self.lock(offset, len)?;
        if let Some(allocation) = heap.find(self.start) {
            // SAFETY: the range was checked against the buffer the bits describe.
            unsafe { unmark(allocation.bits(), offset, len) };
        }
        Ok(())
    }

    /// The offset of the first byte of the range that nobody has written, if there is one.
    ///
    /// # Errors
    /// The range leaves the buffer.
    pub fn first_uninitialised(
        &self,
        offset: usize,
        len: usize,
    ) -> Result<Option<usize>, MemoryError> {
        let heap = self.lock(offset, len)?;
        let allocation = heap.find(self.start);
        // SAFETY: the range was checked against the buffer the bits describe.
        Ok(allocation.and_then(|a| unsafe { first_unmarked(a.bits(), offset, len) }))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.shared.heap().free(self.start);
    }
}
