//! One fiber per CUDA thread, on stacks cut from one slab.

use crate::heap::Sparse;
use corosensei::stack::{Stack, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::ffi::c_void;
use std::num::NonZeroUsize;

/// Stacks start at different cache sets: a warp's 32 innermost frames would otherwise all fall
/// into the same few.
const STAGGER: usize = 9 * 64;
const CANARY: u64 = 0x5afe_57ac_0fca_11ed;
const CANARY_WORDS: usize = 8;

/// A piece of a slab; the slab outlives the fibers on it (see [`Fibers`]).
#[derive(Debug)]
struct Piece {
    base: StackPointer,
    limit: StackPointer,
}

// SAFETY: base and limit bound writable memory of the slab that nobody else uses, aligned to 64
// bytes. There is no guard page: overflow is checked by hooks and canaries instead, because one
// mapping a stack would exceed the system's limit near 32,000 stacks.
unsafe impl Stack for Piece {
    fn base(&self) -> StackPointer {
        self.base
    }
    fn limit(&self) -> StackPointer {
        self.limit
    }
}

type Fiber = Coroutine<(), (), (), Piece>;
/// What a running fiber suspends itself with.
pub(crate) type Suspender = Yielder<(), ()>;
pub(crate) type Entry = unsafe extern "C-unwind" fn(*const c_void);

/// The fibers of one cluster.
#[derive(Default)]
pub(crate) struct Fibers {
    fibers: Vec<Option<Fiber>>,
    slab: Option<Sparse>,
    stride: usize,
    capacity: usize,
}

impl std::fmt::Debug for Fibers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fibers")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl Fibers {
    /// Makes room for `count` fibers; false if the system has no address space for the stacks.
    pub(crate) fn prepare(&mut self, count: usize, stack_bytes: usize) -> bool {
        self.abandon();
        let stride = stack_bytes.max(32 * 1024).next_multiple_of(4096) + STAGGER;
        if self.capacity < count || self.stride != stride {
            self.slab = Sparse::new(count * stride);
            self.capacity = if self.slab.is_some() { count } else { 0 };
            self.stride = stride;
        }
        self.fibers.resize_with(count, || None);
        self.slab.is_some()
    }

    /// Forgets all fibers without unwinding them: their frames are C++ without destructors to run,
    /// above them only this module's entry closure, which owns nothing.
    pub(crate) fn abandon(&mut self) {
        for mut fiber in self.fibers.drain(..).flatten() {
            // SAFETY: see above; nothing on the stack needs to be dropped.
            unsafe { fiber.force_reset() };
        }
    }

    /// Lowest address and length of a thread's stack.
    pub(crate) fn stack(&self, index: usize) -> (usize, usize) {
        let low = self.slab.as_ref().map_or(0, Sparse::address) + index * self.stride;
        (low, self.stride)
    }

    fn canary(&self, index: usize) -> *mut [u64; CANARY_WORDS] {
        self.stack(index).0 as *mut [u64; CANARY_WORDS]
    }

    /// Whether the thread has stayed within its stack.
    pub(crate) fn intact(&self, index: usize) -> bool {
        // SAFETY: the low end of a stack of the slab, 64-byte aligned.
        unsafe { self.canary(index).read() == [CANARY; CANARY_WORDS] }
    }

    /// Runs a thread until it suspends (false) or returns (true).
    ///
    /// `publish` receives the suspender before the thread's first instruction.
    ///
    /// # Safety
    /// `entry` may be called with `params`, and `publish` is safe to call on the fiber.
    pub(crate) unsafe fn resume(
        &mut self,
        index: usize,
        entry: Entry,
        params: *const c_void,
        publish: impl FnOnce(*const Suspender) + 'static,
    ) -> bool {
        if self.fibers[index].is_none() {
            let (low, bytes) = self.stack(index);
            // SAFETY: as in `intact`.
            unsafe { self.canary(index).write([CANARY; CANARY_WORDS]) };
            let pointer = |address: usize| NonZeroUsize::new(address).unwrap_or(NonZeroUsize::MAX);
            let piece = Piece {
                base: pointer((low + bytes) & !63),
                limit: pointer(low),
            };
            let fiber = Fiber::with_stack(piece, move |yielder, ()| {
                publish(yielder);
                // SAFETY: by the contract.
                unsafe { entry(params) };
            });
            self.fibers[index] = Some(fiber);
        }
        let Some(fiber) = &mut self.fibers[index] else {
            return true;
        };
        matches!(fiber.resume(()), CoroutineResult::Return(()))
    }
}

impl Drop for Fibers {
    fn drop(&mut self) {
        self.abandon();
    }
}
