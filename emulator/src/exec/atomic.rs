//! Atomics, ordered loads and stores, and fences: how threads of different blocks synchronise.
//!
//! The model is that of C++ (and PTX): a release (or a fence before a relaxed operation) publishes
//! at a location, an acquire (or a fence after a relaxed operation) takes what is published there,
//! each within the smaller of the two scopes. Read-modify-writes carry on what was published.

use super::access::Place;
use super::codes::{AtomicOp, FenceOp, Order, Scope};
use super::{Cluster, Flow, Wait};
use crate::clock::{Base, Class, Foreign, join_clocks, join_foreign_into};
use crate::heap::{first_unmarked, mark};
use crate::report::{FindingKind, SyncOperation};
use std::collections::HashMap;
use std::sync::Arc;

/// One atomic operation, or an ordered load or store.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) op: AtomicOp,
    pub(super) address: usize,
    pub(super) size: usize,
    pub(super) value: u64,
    pub(super) compare: u64,
    pub(super) order: Order,
    pub(super) scope: Scope,
}

/// Something released at a location.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    scope: Scope,
    /// The releasing cluster, block and thread.
    by: (u32, u32, u32),
    clocks: Arc<Foreign>,
}

/// What is published at each location.
pub(crate) type SyncVariables = HashMap<usize, Arc<Vec<Published>>>;

/// A thread's fences: what later relaxed operations publish, what earlier ones have read.
#[derive(Debug, Default)]
pub(super) struct Fences {
    /// By scope: what the thread knew at its last fence, its own clock included.
    released: [Option<(Arc<Base>, u32)>; 4],
    /// Address and scope of relaxed reads, with what was published there.
    read: Vec<(usize, Scope, Arc<Vec<Published>>)>,
}

impl Fences {
    /// Keeps what a relaxed read has found, for a later fence. A later find at the same place that
    /// carries on an earlier one stands for both.
    fn note(&mut self, request: &Request, found: Arc<Vec<Published>>) {
        let carries_on = |known: &[Published]| {
            let same = |(a, b): (&Published, &Published)| a.by == b.by && a.scope == b.scope;
            known.len() <= found.len() && known.iter().zip(found.iter()).all(same)
        };
        let known = self.read.iter_mut().rev().find(|(address, scope, known)| {
            *address == request.address && *scope == request.scope && carries_on(known)
        });
        match known {
            Some((_, _, known)) => *known = found,
            None => self.read.push((request.address, request.scope, found)),
        }
    }
}

impl Cluster {
    pub(super) fn atomic(&mut self, request: &Request, pc: usize) -> Flow {
        let Request {
            op, address, size, ..
        } = *request;
        if !address.is_multiple_of(size) {
            return self.misaligned(address, size, pc);
        }
        let place = match self.locate(address, size, op != AtomicOp::Load, pc) {
            Ok(place) => place,
            Err(flow) => return flow,
        };
        if let Some(flow) = self.before_poll(place, address, pc) {
            return flow;
        }
        let class = if op == AtomicOp::Load {
            Class::AtomicRead
        } else {
            Class::AtomicWrite
        };
        self.record_atomic(place, address, size, class, op != AtomicOp::Store, pc);
        match op {
            AtomicOp::Load => self.count(place, address, size, false, pc),
            AtomicOp::Store => self.count(place, address, size, true, pc),
            _ => self.counters.traffic.atomics += 1,
        }
        // SAFETY: `locate` checked the bounds; the turn (or the single thread of the cluster)
        // keeps other atomics away, and a plain access at the same time is a race of the kernel.
        let old = unsafe { read_sized(address, size) };
        let new = compute(request, old);
        if op != AtomicOp::Load {
            // SAFETY: as above.
            unsafe { write_sized(address, size, new) };
        }
        // A compare-and-swap that fails writes nothing; any other operation does, if only the same.
        let failed = op == AtomicOp::Cas && old != masked(request.compare, size);
        self.synchronise(place, request, op != AtomicOp::Load && !failed);
        self.after_poll(address, old, op != AtomicOp::Load && new != old);
        if self.rng.one_in(8) {
            // Let another thread come between.
            let tid = self.current;
            self.me().result = old;
            self.set_ready(tid);
            return Flow::Wait;
        }
        Flow::Done(old)
    }

    /// A volatile access: relaxed, at system scope; the kernel itself carries it out.
    pub(super) fn volatile(&mut self, address: usize, size: usize, write: bool, pc: usize) -> Flow {
        let place = match self.locate(address, size, write, pc) {
            Ok(place) => place,
            Err(flow) => return flow,
        };
        if let Some(flow) = self.before_poll(place, address, pc) {
            return flow;
        }
        let class = if write {
            Class::AtomicWrite
        } else {
            Class::AtomicRead
        };
        self.record_atomic(place, address, size, class, !write, pc);
        self.count(place, address, size, write, pc);
        let request = Request {
            op: if write {
                AtomicOp::Store
            } else {
                AtomicOp::Load
            },
            address,
            size,
            value: 0,
            compare: 0,
            order: Order::Relaxed,
            scope: Scope::ScopeSys,
        };
        self.synchronise(place, &request, write);
        self.after_poll(address, 0, write);
        Flow::Done(0)
    }

    /// Waits for the cluster's turn, and yields where the thread polls in vain.
    fn before_poll(&mut self, place: Place, address: usize, pc: usize) -> Option<Flow> {
        if self.me().last_poll.0 == address && !self.me().just_polled {
            self.me().just_polled = true;
            self.spin(address, pc);
            return Some(Flow::Again);
        }
        let global = matches!(place, Place::Global { .. });
        if global && self.await_turn(pc) {
            return Some(Flow::Again);
        }
        if global && self.has_turn && !self.me().just_polled && self.rng.one_in(16) {
            self.yield_turn = true;
        }
        self.me().wait = Wait::Nothing;
        None
    }

    /// True where the current thread has to wait until this cluster has the turn, and then calls
    /// again.
    pub(super) fn await_turn(&mut self, pc: usize) -> bool {
        if self.has_turn || self.run().clusters() <= 1 {
            return false;
        }
        self.wants_turn = true;
        // With the turn, this thread goes on as if it had had it all along: the schedule may not
        // depend on when the turn came.
        self.resume_first = Some(self.current);
        self.park(Wait::Turn, pc);
        true
    }

    fn after_poll(&mut self, address: usize, value: u64, changed: bool) {
        let thread = self.me();
        thread.just_polled = false;
        thread.last_poll = if changed { (0, 0) } else { (address, value) };
        self.progress += u64::from(changed);
    }

    fn record_atomic(
        &mut self,
        place: Place,
        address: usize,
        size: usize,
        class: Class,
        reads: bool,
        pc: usize,
    ) {
        let (bits, offset) = match place {
            Place::Shared { cta, offset } => {
                if !self.ctas[cta].mbarriers.is_empty() {
                    self.check_plain(cta, offset, size, pc);
                }
                (self.initialised.as_ptr(), offset)
            }
            Place::Global { bits, offset, .. } => (bits, offset),
            Place::ReadOnly => return,
        };
        // SAFETY: `locate` checked the bounds.
        if reads && let Some(first) = unsafe { first_unmarked(bits, offset, size) } {
            self.uninitialised(address + (first - offset), address, size, pc);
        }
        if class == Class::AtomicWrite {
            // SAFETY: as above.
            unsafe { mark(bits, offset, size) };
        }
        self.order(place, address, size, class, pc, None);
    }

    /// Applies the order of an operation at its location.
    fn synchronise(&mut self, place: Place, request: &Request, writes: bool) {
        let shared = matches!(place, Place::Shared { .. });
        let run = self.run();
        let mut own = std::mem::take(&mut self.sync);
        let mut global = (!shared).then(|| run.sync());
        let variables = global.as_deref_mut().unwrap_or(&mut own);
        if request.op != AtomicOp::Store
            && let Some(published) = variables.get(&request.address)
        {
            let published = Arc::clone(published);
            if matches!(request.order, Order::Acquire | Order::AcqRel) {
                for p in published.iter() {
                    self.take(p, request.scope);
                }
            }
            self.me().fences.note(request, published);
        }
        if request.op != AtomicOp::Load && writes {
            let new = self.publications(request);
            let slot = variables.entry(request.address).or_default();
            if request.op == AtomicOp::Store {
                *slot = Arc::default();
            }
            for published in new {
                add(Arc::make_mut(slot), published);
            }
            if slot.is_empty() {
                variables.remove(&request.address);
            }
        }
        drop(global);
        self.sync = own;
    }

    fn publications(&mut self, request: &Request) -> Vec<Published> {
        let tid = self.current;
        let by = (self.index, self.cta_of(tid) as u32, tid);
        let thread = &self.threads[tid as usize];
        let mut new = Vec::new();
        if matches!(request.order, Order::Release | Order::AcqRel) {
            let clocks = snapshot(&thread.base, self.index, tid, thread.clock);
            new.push(Published {
                scope: request.scope,
                by,
                clocks,
            });
        } else {
            let released = thread.fences.released.iter().enumerate();
            for (scope, (base, clock)) in released.filter_map(|(s, r)| Some((s, r.as_ref()?))) {
                let scope = Scope::from_code(scope as u32).min(request.scope);
                let clocks = snapshot(base, self.index, tid, *clock);
                new.push(Published { scope, by, clocks });
            }
        }
        if matches!(request.order, Order::Release | Order::AcqRel) {
            self.tick(tid);
        }
        new
    }

    /// Acquires something published, as far as the scopes reach.
    fn take(&mut self, published: &Published, scope: Scope) {
        let (cluster, cta, _) = published.by;
        let needed = if cluster != self.index {
            Scope::ScopeGpu
        } else if cta != self.cta_of(self.current) as u32 {
            Scope::ScopeCluster
        } else {
            Scope::ScopeCta
        };
        if published.scope < needed || scope < needed {
            return;
        }
        let index = self.index;
        let thread = self.me();
        let base = Arc::make_mut(&mut thread.base);
        let mut foreign = base.foreign.as_deref().cloned().unwrap_or_default();
        join_foreign_into(&mut foreign, &published.clocks);
        if let Some(own) = foreign.remove(&index) {
            join_clocks(&mut base.clocks, &own);
        }
        base.foreign = (!foreign.is_empty()).then(|| Arc::new(foreign));
    }

    pub(super) fn fence(&mut self, op: FenceOp, pc: usize) -> Flow {
        let tid = self.current;
        let operation = match op {
            FenceOp::FenceProxyAsync => SyncOperation::FenceProxyAsync,
            FenceOp::FenceMbarrierInit => SyncOperation::FenceMbarrierInit,
            _ => SyncOperation::Fence,
        };
        if self.disabled(pc, operation) {
            return Flow::Done(0);
        }
        match op {
            FenceOp::FenceProxyAsync => {
                self.fence_mbarriers(tid);
                let thread = self.me();
                thread.proxy_fences.push(thread.clock);
                self.tick(tid);
            }
            FenceOp::FenceMbarrierInit => self.fence_mbarriers(tid),
            _ => {
                let scope = Scope::from_code(op as u32);
                for (_, read_scope, published) in std::mem::take(&mut self.me().fences.read) {
                    for p in published.iter() {
                        self.take(p, read_scope.min(scope));
                    }
                }
                let thread = self.me();
                let snapshot = (Arc::clone(&thread.base), thread.clock);
                thread.fences.released[scope as usize] = Some(snapshot);
                self.tick(tid);
            }
        }
        if self.abort {
            Flow::Wait
        } else {
            Flow::Done(0)
        }
    }

    fn fence_mbarriers(&mut self, tid: u32) {
        let cta = self.cta_of(tid);
        for mbarrier in self.ctas[cta].mbarriers.values_mut() {
            mbarrier.fenced |= mbarrier.init_by == tid;
        }
    }

    pub(super) fn map_shared(&mut self, own: usize, rank: u32, pc: usize) -> Flow {
        let cta = self.cta_of(self.current);
        let offset = own.wrapping_sub(self.shared_start + cta * self.shared_stride);
        if offset > self.shared_bytes || rank as usize >= self.ctas.len() {
            let place = self.describe_address(own);
            let blocks = self.ctas.len();
            let message = format!(
                "maps {place} to block {rank} of a cluster of {blocks}: the address is one of the \
                 block's own shared memory"
            );
            return self.fatal(FindingKind::OutOfBounds, pc, message, 0);
        }
        Flow::Done((self.shared_start + rank as usize * self.shared_stride + offset) as u64)
    }
}

fn snapshot(base: &Base, cluster: u32, tid: u32, clock: u32) -> Arc<Foreign> {
    let mut clocks = base.clocks.clone();
    let index = tid as usize;
    if clocks.len() <= index {
        clocks.resize(index + 1, 0);
    }
    clocks[index] = clocks[index].max(clock);
    let mut all = base.foreign.as_deref().cloned().unwrap_or_default();
    all.insert(cluster, Arc::new(clocks));
    Arc::new(all)
}

fn add(slot: &mut Vec<Published>, new: Published) {
    // What is visible to the same threads is one publication.
    let known = slot
        .iter_mut()
        .find(|p| p.scope == new.scope && p.by == new.by);
    if let Some(known) = known {
        join_foreign_into(Arc::make_mut(&mut known.clocks), &new.clocks);
    } else {
        slot.push(new);
    }
}

/// The low `size` bytes of a value.
fn masked(value: u64, size: usize) -> u64 {
    if size >= 8 {
        value
    } else {
        value & ((1 << (8 * size)) - 1)
    }
}

fn compute(request: &Request, old: u64) -> u64 {
    let bits = request.size as u32 * 8;
    let mask = masked(u64::MAX, request.size);
    let signed = |v: u64| ((v << (64 - bits)) as i64) >> (64 - bits);
    let value = request.value & mask;
    let new = match request.op {
        AtomicOp::Load => old,
        AtomicOp::Store | AtomicOp::Exchange => value,
        AtomicOp::Cas => {
            if old == request.compare & mask {
                value
            } else {
                old
            }
        }
        AtomicOp::Add => old.wrapping_add(value),
        AtomicOp::Sub => old.wrapping_sub(value),
        AtomicOp::And => old & value,
        AtomicOp::Or => old | value,
        AtomicOp::Xor => old ^ value,
        AtomicOp::Nand => !(old & value),
        AtomicOp::MinS => signed(old).min(signed(value)) as u64,
        AtomicOp::MaxS => signed(old).max(signed(value)) as u64,
        AtomicOp::MinU => old.min(value),
        AtomicOp::MaxU => old.max(value),
        AtomicOp::Inc => {
            if old >= value {
                0
            } else {
                old + 1
            }
        }
        AtomicOp::Dec => {
            if old == 0 || old > value {
                value
            } else {
                old - 1
            }
        }
        AtomicOp::AddF32 => {
            u64::from((f32::from_bits(old as u32) + f32::from_bits(value as u32)).to_bits())
        }
        AtomicOp::AddF64 => (f64::from_bits(old) + f64::from_bits(value)).to_bits(),
    };
    new & mask
}

/// # Safety
/// `address` is readable, aligned to `size`, which is 1, 2, 4 or 8.
unsafe fn read_sized(address: usize, size: usize) -> u64 {
    // SAFETY: by the contract.
    unsafe {
        match size {
            1 => u64::from(*(address as *const u8)),
            2 => u64::from(*(address as *const u16)),
            4 => u64::from(*(address as *const u32)),
            _ => *(address as *const u64),
        }
    }
}

/// # Safety
/// `address` is writable, aligned to `size`, which is 1, 2, 4 or 8.
unsafe fn write_sized(address: usize, size: usize, value: u64) {
    // SAFETY: by the contract.
    unsafe {
        match size {
            1 => *(address as *mut u8) = value as u8,
            2 => *(address as *mut u16) = value as u16,
            4 => *(address as *mut u32) = value as u32,
            _ => *(address as *mut u64) = value,
        }
    }
}
