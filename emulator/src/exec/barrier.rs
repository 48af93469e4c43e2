//! Barriers of a block (`__syncthreads` and the named ones) and of a cluster.

use super::codes::{BarrierOp, ClusterOp};
use super::{Cluster, Flow, Wait};
use crate::clock::Joiner;
use crate::report::{FindingKind, SyncOperation};
use crate::symbol;
use std::sync::Arc;

/// One barrier of a block, in one phase.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    /// Threads the phase needs; 0 between phases.
    expected: u32,
    arrived: Vec<u32>,
    waiting: Vec<u32>,
    joiner: Joiner,
    op: Option<BarrierOp>,
    pc: usize,
    count: u32,
}

/// The barrier of a cluster, in one phase.
#[derive(Debug, Default)]
pub(super) struct ClusterBarrier {
    arrived: u32,
    phase: u64,
    joiner: Joiner,
    completed: Option<Arc<crate::clock::Base>>,
    waiting: Vec<(u32, bool)>,
    last_pc: usize,
}

fn is_syncthreads(op: BarrierOp) -> bool {
    !matches!(op, BarrierOp::BarSync | BarrierOp::BarArrive)
}

impl Cluster {
    pub(super) fn barrier(
        &mut self,
        op: BarrierOp,
        id: i32,
        threads: i32,
        predicate: bool,
        pc: usize,
    ) -> Flow {
        let operation = match op {
            BarrierOp::BarSync => SyncOperation::BarSync,
            BarrierOp::BarArrive => SyncOperation::BarArrive,
            _ => SyncOperation::Syncthreads,
        };
        if self.disabled(pc, operation) {
            return Flow::Done(u64::from(predicate));
        }
        let tid = self.current;
        let cta = self.cta_of(tid);
        let expected = if is_syncthreads(op) {
            self.cta_threads
        } else {
            let most = self.cta_stride as i32;
            if !(0..16).contains(&id) || threads <= 0 || threads % 32 != 0 || threads > most {
                let message = format!(
                    "barrier {id} for {threads} threads: numbers are 0 to 15, thread counts \
                     multiples of 32 up to {most}"
                );
                return self.fatal(FindingKind::BarrierMisuse, pc, message, 0);
            }
            threads as u32
        };
        let barrier = &self.ctas[cta].barriers[id as usize & 15];
        if let Some(first) = barrier.op {
            let other = barrier.pc;
            if is_syncthreads(first) != is_syncthreads(op) || barrier.expected != expected {
                let message = format!(
                    "barrier {id} for {expected} threads, while others wait at it for {}{{at}}",
                    barrier.expected
                );
                return self.fatal(FindingKind::BarrierMisuse, pc, message, other);
            }
            if is_syncthreads(op) && other != pc && self.other_line(pc, other) {
                let message =
                    "comes to another __syncthreads() than the rest of its block, which waits{at}";
                return self.fatal(FindingKind::Divergence, pc, message.to_owned(), other);
            }
            // A waiting thread cannot come again; one that only arrived can.
            if barrier.arrived.len() > barrier.waiting.len() && barrier.arrived.contains(&tid) {
                let message = format!("arrives at barrier {id} twice in one phase");
                return self.fatal(FindingKind::BarrierMisuse, pc, message, other);
            }
        }
        let mut joiner = std::mem::take(&mut self.ctas[cta].barriers[id as usize & 15].joiner);
        self.release(tid, &mut joiner);
        let barrier = &mut self.ctas[cta].barriers[id as usize & 15];
        barrier.joiner = joiner;
        barrier.op = Some(op);
        barrier.pc = pc;
        barrier.expected = expected;
        barrier.arrived.push(tid);
        barrier.count += u32::from(predicate);
        let waits = op != BarrierOp::BarArrive;
        if waits {
            barrier.waiting.push(tid);
        }
        if barrier.arrived.len() as u32 == expected {
            return self.complete_barrier(cta, id as u32 & 15, pc);
        }
        if !waits {
            self.progress += 1;
            return Flow::Done(0);
        }
        if is_syncthreads(op) && self.ctas[cta].live < self.cta_threads {
            return self.missed_barrier(cta, id as u32 & 15);
        }
        self.park(Wait::Barrier(id as u32 & 15), pc)
    }

    pub(super) fn other_line(&self, a: usize, b: usize) -> bool {
        let suspender = self.threads[self.current as usize].suspender;
        super::ffi::on_big_stack(suspender, || {
            let (a, b) = (symbol::place(a), symbol::place(b));
            a.caller.or(a.innermost) != b.caller.or(b.innermost)
        })
    }

    fn complete_barrier(&mut self, cta: usize, id: u32, pc: usize) -> Flow {
        self.progress += 1;
        let last = self.current;
        let barrier = std::mem::take(&mut self.ctas[cta].barriers[id as usize]);
        let Barrier {
            expected,
            arrived,
            waiting,
            mut joiner,
            op,
            count,
            ..
        } = barrier;
        // Barriers count whole warps: every live lane of a warp that takes part must be here.
        let mut present = vec![0u32; self.warps.len()];
        for &tid in &arrived {
            present[tid as usize / 32] |= 1 << (tid % 32);
        }
        for (index, &lanes) in present.iter().enumerate() {
            let missing = self.warps[index].exists & !lanes;
            if lanes != 0 && missing != 0 {
                let name = self.name(index as u32 * 32 + missing.trailing_zeros());
                let message = format!(
                    "barrier {id} counts whole warps, and {name} is not among the {expected} threads"
                );
                return self.fatal(FindingKind::BarrierMisuse, pc, message, 0);
            }
            if lanes != 0 {
                self.warp_traffic[index].flush(&mut self.counters);
            }
        }
        let base = joiner.take();
        let result = match op {
            Some(BarrierOp::SyncthreadsCount) => count,
            Some(BarrierOp::SyncthreadsAnd) => u32::from(count == expected),
            Some(BarrierOp::SyncthreadsOr) => u32::from(count > 0),
            _ => 0,
        };
        for &tid in &waiting {
            // A waiter's base is among the joined ones.
            self.threads[tid as usize].base = Arc::clone(&base);
            if tid != last {
                self.wake(tid, u64::from(result));
            }
        }
        // The barrier's buffers serve the next phase.
        let slot = &mut self.ctas[cta].barriers[id as usize];
        (slot.arrived, slot.waiting) = (arrived, waiting);
        slot.arrived.clear();
        slot.waiting.clear();
        Flow::Done(u64::from(result))
    }

    /// Somebody waits at `__syncthreads()` and a thread of the block has exited.
    fn missed_barrier(&mut self, cta: usize, id: u32) -> Flow {
        let first = cta as u32 * self.cta_stride;
        let gone = (first..first + self.cta_threads)
            .find(|&tid| self.threads[tid as usize].exited)
            .unwrap_or(first);
        let barrier = &self.ctas[cta].barriers[id as usize];
        let (pc, waiting) = (barrier.pc, barrier.waiting[0]);
        let name = self.name(gone);
        self.current = waiting;
        let message = format!("waits at __syncthreads(), which {name} has skipped: it has exited");
        self.fatal(FindingKind::Divergence, pc, message, 0)
    }

    /// A thread returns: barriers that need the whole block or cluster can no longer complete.
    pub(super) fn exit_barriers(&mut self, tid: u32) {
        let cta = self.cta_of(tid);
        for id in 0..16 {
            let barrier = &self.ctas[cta].barriers[id];
            if barrier.op.is_some_and(is_syncthreads) && !barrier.waiting.is_empty() {
                // `live` still counts the exiting thread.
                self.missed_barrier(cta, id as u32);
                return;
            }
        }
        if !self.threads[tid as usize].cluster_arrived && self.cluster_barrier.arrived > 0 {
            self.missed_cluster_barrier(tid);
        }
    }

    fn missed_cluster_barrier(&mut self, gone: u32) -> Flow {
        let pc = self.cluster_barrier.last_pc;
        let waiting = self
            .threads
            .iter()
            .position(|t| t.cluster_arrived)
            .unwrap_or(0);
        let name = self.name(gone);
        self.current = waiting as u32;
        let message = format!("arrived at the cluster barrier, which {name} skips: it has exited");
        self.fatal(FindingKind::Divergence, pc, message, 0)
    }

    pub(super) fn cluster_barrier(&mut self, op: ClusterOp, flag: bool, pc: usize) -> Flow {
        let tid = self.current;
        let arrived = self.me().cluster_arrived;
        match op {
            ClusterOp::ClusterArrive => {
                if self.disabled(pc, SyncOperation::ClusterArrive) {
                    return Flow::Done(0);
                }
                if arrived {
                    let message = "arrives at the cluster barrier twice without a wait".to_owned();
                    return self.fatal(FindingKind::BarrierMisuse, pc, message, 0);
                }
                self.cluster_arrive(tid, flag, pc)
            }
            ClusterOp::ClusterWait => {
                if self.disabled(pc, SyncOperation::ClusterWait) {
                    self.me().cluster_arrived = false;
                    return Flow::Done(0);
                }
                if !arrived {
                    let message = "waits at the cluster barrier without having arrived".to_owned();
                    return self.fatal(FindingKind::BarrierMisuse, pc, message, 0);
                }
                self.cluster_wait(tid, flag, pc)
            }
        }
    }

    fn cluster_arrive(&mut self, tid: u32, release: bool, pc: usize) -> Flow {
        let threads = self.ctas.len() as u32 * self.cta_threads;
        if release {
            let mut joiner = std::mem::take(&mut self.cluster_barrier.joiner);
            self.release(tid, &mut joiner);
            self.cluster_barrier.joiner = joiner;
        }
        let thread = self.me();
        thread.cluster_arrived = true;
        thread.released_base = release.then(|| Arc::clone(&thread.base));
        self.me().cluster_phase = self.cluster_barrier.phase;
        let barrier = &mut self.cluster_barrier;
        barrier.arrived += 1;
        barrier.last_pc = pc;
        self.progress += 1;
        if barrier.arrived < threads {
            let gone = |t: &super::Thread| t.exists && t.exited && !t.cluster_arrived;
            if self.live < threads
                && let Some(gone) = self.threads.iter().position(gone)
            {
                return self.missed_cluster_barrier(gone as u32);
            }
            return Flow::Done(0);
        }
        let barrier = &mut self.cluster_barrier;
        barrier.arrived = 0;
        barrier.phase += 1;
        let base = barrier.joiner.take();
        barrier.completed = Some(Arc::clone(&base));
        for (waiter, acquire) in std::mem::take(&mut barrier.waiting) {
            self.pass_cluster_barrier(waiter, acquire, &base);
            self.wake(waiter, 0);
        }
        // Those that have arrived and not yet waited pass their next wait at once.
        Flow::Done(0)
    }

    fn pass_cluster_barrier(&mut self, tid: u32, acquire: bool, base: &Arc<crate::clock::Base>) {
        let thread = &mut self.threads[tid as usize];
        thread.cluster_arrived = false;
        let released = thread.released_base.take();
        if acquire {
            // Usually the thread has learnt nothing since it arrived, so the barrier knows more.
            thread.base = match released {
                Some(released) if Arc::ptr_eq(&released, &thread.base) => Arc::clone(base),
                _ => crate::clock::join(base, &thread.base),
            };
        }
        self.warp_traffic[tid as usize / 32].flush(&mut self.counters);
    }

    fn cluster_wait(&mut self, tid: u32, acquire: bool, pc: usize) -> Flow {
        // The phase this thread arrived in is complete once the number has moved on. A thread
        // cannot arrive for the next phase before it has waited, so one phase is all there is.
        let own = self.threads[tid as usize].cluster_phase;
        if self.cluster_barrier.phase > own {
            if let Some(base) = self.cluster_barrier.completed.clone() {
                self.pass_cluster_barrier(tid, acquire, &base);
            }
            return Flow::Done(0);
        }
        self.cluster_barrier.waiting.push((tid, acquire));
        self.park(Wait::Cluster, pc)
    }
}
