//! The functions the shim calls, and the state it reads.

use super::codes::{
    AtomicOp, BarrierOp, ClusterOp, CopyOp, Element, FenceOp, GroupOp, MatrixOp, MbarrierOp, Order,
    Scope, TensorOp, WarpOp, WgmmaOp,
};
use super::fiber::Suspender;
use super::{Cluster, Flow};
use crate::report::FindingKind;
use std::ffi::{CStr, c_char, c_void};

/// Mirrors `CudaEmulatorThreadInfo` of shim/state.h.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(crate) struct ThreadInfo {
    pub(crate) thread: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) block_dim: [u32; 3],
    pub(crate) grid_dim: [u32; 3],
    pub(crate) cluster_index: [u32; 3],
    pub(crate) cluster_grid: [u32; 3],
    pub(crate) cluster_dim: [u32; 3],
    pub(crate) cluster_rank: u32,
    pub(crate) shared_bytes: u32,
    pub(crate) shared: usize,
}

/// Mirrors `CudaEmulatorState` of shim/state.h.
#[repr(C)]
pub(super) struct HookState {
    pub(super) stack_low: usize,
    pub(super) stack_bytes: usize,
    pub(super) steps_left: i64,
    pub(super) context: *mut Cluster,
    pub(super) thread: *const ThreadInfo,
    pub(super) calls: *mut usize,
    pub(super) call_depth: u32,
}

unsafe extern "C" {
    fn cuda_emulator_state() -> *mut c_void;
}

/// The hooks' state of this OS thread.
#[inline]
pub(super) fn state() -> *mut HookState {
    // SAFETY: returns the address of a thread-local variable.
    unsafe { cuda_emulator_state() }.cast()
}

pub(super) fn call_depth() -> u32 {
    // SAFETY: the state lives as long as this OS thread, which alone uses it.
    unsafe { (*state()).call_depth }
}

/// Runs `f` on the scheduler's stack: fibers' are small.
pub(super) fn on_big_stack<R: Send>(suspender: *const Suspender, f: impl FnOnce() -> R) -> R {
    struct SameThread<F>(F);
    // SAFETY: the parent's stack belongs to the same OS thread.
    unsafe impl<F> Send for SameThread<F> {}
    impl<F: FnOnce() -> R, R> SameThread<F> {
        fn call(self) -> R {
            (self.0)()
        }
    }
    let f = SameThread(f);
    // SAFETY: called by the running fiber, whose suspender it is.
    unsafe { (*suspender).on_parent_stack(move || f.call()) }
}

/// Runs a primitive for the current thread, suspending it as it asks.
///
/// # Safety
/// `context` is the running cluster, and the caller is on the fiber of its current thread.
#[inline]
unsafe fn drive(context: *mut Cluster, mut primitive: impl FnMut(&mut Cluster) -> Flow) -> u64 {
    if context.is_null() {
        outside("a primitive");
    }
    loop {
        // SAFETY: no other reference to the cluster is alive while a fiber runs.
        match primitive(unsafe { &mut *context }) {
            Flow::Done(value) => return value,
            // SAFETY: by the contract.
            Flow::Wait => return unsafe { suspend(context) },
            // SAFETY: by the contract.
            Flow::Again => unsafe { suspend(context) },
        };
    }
}

/// # Safety
/// As for [`drive`].
unsafe fn suspend(context: *mut Cluster) -> u64 {
    // SAFETY: by the contract; the suspender is the running fiber's own. No reference to the
    // cluster is held across the switch.
    unsafe {
        let tid = (*context).current as usize;
        let suspender = (&(*context).threads)[tid].suspender;
        (*suspender).suspend(());
        let threads = &(*context).threads;
        threads[tid].result
    }
}

/// A primitive called by host code outside a launch. There is no thread it could act for, and no
/// result it could return.
#[cold]
fn outside(what: &str) -> ! {
    eprintln!("evenkeel-emulator: {what} of the emulator was called outside a launch");
    std::process::abort()
}

/// # Safety
/// Called by the shim on the fiber of `context`'s current thread (null outside launches).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_access(
    context: *mut Cluster,
    address: usize,
    bytes: usize,
    flags: u32,
    pc: usize,
) {
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.access(address, bytes, flags, pc)) };
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_atomic(
    context: *mut Cluster,
    op: u32,
    address: usize,
    size: u32,
    value: u64,
    compare: u64,
    order: u32,
    scope: u32,
    pc: usize,
) -> u64 {
    let request = super::atomic::Request {
        op: AtomicOp::from_code(op),
        address,
        size: size as usize,
        value,
        compare,
        order: Order::from_code(order),
        scope: Scope::from_code(scope),
    };
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.atomic(&request, pc)) }
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_warp(
    context: *mut Cluster,
    op: u32,
    mask: u32,
    value: u64,
    argument: u32,
    width: u32,
    pc: usize,
) -> u64 {
    let op = WarpOp::from_code(op);
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.warp(op, mask, value, argument, width, pc)) }
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_barrier(
    context: *mut Cluster,
    op: u32,
    id: i32,
    threads: i32,
    predicate: i32,
    pc: usize,
) -> u32 {
    let op = BarrierOp::from_code(op);
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.barrier(op, id, threads, predicate != 0, pc)) as u32 }
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_cluster_barrier(
    context: *mut Cluster,
    op: u32,
    flag: u32,
    pc: usize,
) {
    let op = ClusterOp::from_code(op);
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.cluster_barrier(op, flag != 0, pc)) };
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_mbarrier(
    context: *mut Cluster,
    op: u32,
    bar: usize,
    argument: u64,
    scope: u32,
    pc: usize,
) -> u64 {
    let op = MbarrierOp::from_code(op);
    let scope = Scope::from_code(scope);
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.mbarrier(op, bar, argument, scope, pc)) }
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_fence(context: *mut Cluster, op: u32, pc: usize) {
    let op = FenceOp::from_code(op);
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.fence(op, pc)) };
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_copy(
    context: *mut Cluster,
    op: u32,
    destination: usize,
    source: usize,
    bytes: u32,
    bar: usize,
    argument: u32,
    pc: usize,
) {
    let request = super::asynchronous::Request {
        op: CopyOp::from_code(op),
        destination,
        source,
        bytes: bytes as usize,
        bar,
        argument,
    };
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.copy(&request, pc)) };
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_group(
    context: *mut Cluster,
    op: u32,
    pending: i32,
    bar: usize,
    pc: usize,
) {
    let op = GroupOp::from_code(op);
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.group(op, pending, bar, pc)) };
}

/// # Safety
/// As for `cuda_emulator_core_access`; `registers` leads to `count` of the current thread's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_matrix(
    context: *mut Cluster,
    op: u32,
    count: u32,
    registers: usize,
    row: usize,
    pc: usize,
) {
    let op = MatrixOp::from_code(op);
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.matrix(op, count, registers, row, pc)) };
}

/// # Safety
/// As for `cuda_emulator_core_access`; the pointers lead to four, four and two registers of the
/// current thread's.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_mma(
    context: *mut Cluster,
    a_type: u32,
    b_type: u32,
    d: usize,
    a: usize,
    b: usize,
    pc: usize,
) {
    let types = (Element::from_code(a_type), Element::from_code(b_type));
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.mma(types, d, a, b, pc)) };
}

/// # Safety
/// As for `cuda_emulator_core_access`; `coordinates` leads to `dimensions` of them.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_tensor(
    context: *mut Cluster,
    op: u32,
    shared: usize,
    map: usize,
    bar: usize,
    coordinates: *const i32,
    dimensions: u32,
    blocks: u32,
    pc: usize,
) {
    let request = super::tensor::TensorRequest {
        op: TensorOp::from_code(op),
        shared,
        map,
        bar,
        // SAFETY: by the contract.
        at: unsafe { std::slice::from_raw_parts(coordinates, dimensions as usize) }.to_vec(),
        blocks,
    };
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.tensor(&request, pc)) };
}

/// # Safety
/// As for `cuda_emulator_core_access`; `d` leads to `columns / 2` registers of the current thread's,
/// `a_registers` to four unless it is null.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_wgmma(
    context: *mut Cluster,
    types: u32,
    columns: u32,
    flags: u32,
    d: usize,
    a_registers: usize,
    a: u64,
    b: u64,
    pc: usize,
) {
    let form = super::wgmma::Form {
        a: Element::from_code(types & 0xff),
        b: Element::from_code(types >> 8),
        columns,
        flags,
    };
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.wgmma(form, [d, a_registers], [a, b], pc)) };
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_wgmma_group(
    context: *mut Cluster,
    op: u32,
    pending: i32,
    pc: usize,
) {
    let op = WgmmaOp::from_code(op);
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.wgmma_group(op, pending, pc)) };
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_map_shared(
    context: *mut Cluster,
    own: usize,
    rank: u32,
    pc: usize,
) -> usize {
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.map_shared(own, rank, pc)) as usize }
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_setmaxnreg(
    context: *mut Cluster,
    count: i32,
    increase: u32,
    pc: usize,
) {
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.setmaxnreg(count, increase != 0, pc)) };
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_pause(context: *mut Cluster, pc: usize) {
    // SAFETY: by the contract.
    unsafe {
        drive(context, |c| {
            let polled = c.me().last_poll.0;
            c.spin(polled, pc)
        })
    };
}

/// # Safety
/// As for `cuda_emulator_core_access`; `message` is NUL-terminated.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_trap(
    context: *mut Cluster,
    message: *const c_char,
    pc: usize,
) {
    // SAFETY: by the contract.
    let text = unsafe { CStr::from_ptr(message) }
        .to_string_lossy()
        .into_owned();
    // SAFETY: by the contract.
    unsafe { drive(context, |c| c.fatal(FindingKind::Trap, pc, text.clone(), 0)) };
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_out_of_steps(context: *mut Cluster, pc: usize) {
    // SAFETY: by the contract.
    unsafe {
        drive(context, |c| {
            let steps = c.run().launch.max_steps;
            let message = format!("the cluster ran {steps} basic blocks without coming to an end");
            c.fatal(FindingKind::Livelock, pc, message, 0)
        })
    };
}

/// # Safety
/// As for `cuda_emulator_core_access`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cuda_emulator_core_stack_overflow(context: *mut Cluster, pc: usize) {
    // SAFETY: by the contract.
    unsafe {
        drive(context, |c| {
            let message = "the thread's stack is nearly used up; raise Launch::stack_bytes";
            c.fatal(FindingKind::StackOverflow, pc, message.to_owned(), 0)
        })
    };
}

// The state's context is a `void*` to the shim.
const _: () = assert!(size_of::<*mut Cluster>() == size_of::<*mut c_void>());
