//! Which thread runs next: drawn from the seed, a warp at a time.

use super::ffi::state;
use super::fiber::Suspender;
use super::{Cluster, Context, Flow, RawFinding, Wait};
use crate::report::FindingKind;
use crate::symbol;
use std::collections::BTreeMap;
use std::ptr::null_mut;

/// Rounds in which every polling thread polls once more before the cluster counts as stuck.
const IDLE_ROUNDS: u32 = 32;

/// Why a cluster stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All threads have returned.
    Finished,
    /// It needs its turn, or gives it to the next cluster while it could go on.
    Parked,
    /// It can only go on when another cluster has done something.
    Blocked,
    /// A fatal finding.
    Aborted,
}

impl Context {
    /// Runs the cluster until it ends or has to wait for other clusters.
    pub(crate) fn resume(&mut self) -> Outcome {
        let cluster: *mut Cluster = &raw mut *self.cluster;
        let run = self.cluster.run();
        let (entry, params) = (run.kernel.entry(), run.params.pointer());
        let hooks = state();
        // SAFETY: the state belongs to this OS thread, which runs nothing else now.
        unsafe { (*hooks).steps_left = (*cluster).steps_left };
        let outcome = loop {
            // SAFETY: no fiber runs, so this is the only reference.
            let next = unsafe { (*cluster).next() };
            let tid = match next {
                Ok(tid) => tid,
                Err(outcome) => break outcome,
            };
            // SAFETY: as above; the pointers stay valid because `threads` never grows in a run.
            unsafe {
                let threads = &mut (*cluster).threads;
                let thread = &mut threads[tid as usize];
                (*hooks).context = cluster;
                (*hooks).thread = &raw const thread.info;
                (*hooks).calls = thread.calls.as_mut_ptr();
                (*hooks).call_depth = thread.call_depth;
                ((*hooks).stack_low, (*hooks).stack_bytes) = self.fibers.stack(tid as usize);
            }
            let publish = move |suspender: *const Suspender| {
                // SAFETY: runs on the fiber, which only runs inside this call.
                unsafe {
                    let threads = &mut (*cluster).threads;
                    threads[tid as usize].suspender = suspender;
                }
            };
            // SAFETY: the kernel's contract (`Kernel::table`); its hooks reach the cluster through
            // the pointer above, and no reference to it is held here.
            let returned = unsafe { self.fibers.resume(tid as usize, entry, params, publish) };
            // SAFETY: the fiber is suspended: this is the only reference again.
            let c = unsafe { &mut *cluster };
            // SAFETY: as above.
            unsafe {
                c.threads[tid as usize].call_depth = (*hooks).call_depth;
                (*hooks).context = null_mut();
                (*hooks).stack_bytes = 0;
            }
            if !self.fibers.intact(tid as usize) {
                let message = "the thread ran over its stack; raise Launch::stack_bytes".to_owned();
                c.fatal(FindingKind::StackOverflow, 0, message, 0);
            }
            if returned && !c.abort {
                c.exit(tid);
            }
        };
        // SAFETY: as at the start.
        unsafe { (*cluster).steps_left = (*hooks).steps_left };
        if matches!(outcome, Outcome::Finished | Outcome::Aborted) {
            self.fibers.abandon();
        }
        outcome
    }
}

impl Cluster {
    /// Counts everything that could let a waiting thread go on.
    pub(crate) fn progress(&self) -> u64 {
        self.progress
    }

    /// The sites were handed over: the next cluster of this context lists its own.
    pub(crate) fn forget_sites(&mut self) {
        self.site_cache = [(0, false); 64];
        self.reported.clear();
    }

    /// There is no memory for this cluster's stacks or shared memory.
    pub(crate) fn out_of_memory(&mut self) {
        self.findings.push(RawFinding {
            kind: FindingKind::LaunchLimits,
            block: None,
            thread: None,
            pc: 0,
            callers: Vec::new(),
            message: "the system has no memory for the stacks of one more cluster".to_owned(),
            other: 0,
        });
        self.abort = true;
    }

    /// The thread to run next, or why there is none.
    fn next(&mut self) -> Result<u32, Outcome> {
        loop {
            if self.abort {
                return Err(Outcome::Aborted);
            }
            if self.wants_turn && !self.has_turn {
                return Err(Outcome::Parked);
            }
            if let Some(tid) = self.resume_first.take() {
                self.current = tid;
                return Ok(tid);
            }
            if self.yield_turn {
                self.yield_turn = false;
                return Err(Outcome::Parked);
            }
            if !self.operations.is_empty()
                && self.rng.one_in(self.laziness)
                && self.carry_out_early()
            {
                continue;
            }
            if let Some(tid) = self.pick() {
                return Ok(tid);
            }
            if self.release_active() {
                continue;
            }
            if self.live == 0 {
                self.carry_out_all();
                if self.abort {
                    continue;
                }
                self.finish();
                return Err(Outcome::Finished);
            }
            if !self.operations.is_empty() {
                self.carry_out_random();
                continue;
            }
            if self.progress != self.idle_progress {
                self.idle_progress = self.progress;
                self.idle_rounds = 0;
            }
            self.idle_rounds += 1;
            if self.idle_rounds <= IDLE_ROUNDS && self.wake_pollers() {
                continue;
            }
            self.idle_rounds = 0;
            if self.polls_globally() {
                // Not yet a deadlock: another cluster may write what is polled.
                self.wake_pollers();
                return Err(Outcome::Blocked);
            }
            self.deadlock(FindingKind::Deadlock);
        }
    }

    fn pick(&mut self) -> Option<u32> {
        let stay = self
            .current_warp
            .filter(|&w| self.warps[w as usize].ready != 0);
        let warp = match stay {
            Some(warp) if !self.rng.one_in(16) => warp,
            _ => loop {
                if self.ready_warps.is_empty() {
                    self.current_warp = None;
                    return None;
                }
                let at = self.rng.below(self.ready_warps.len() as u32) as usize;
                let warp = self.ready_warps[at];
                if self.warps[warp as usize].ready != 0 {
                    break warp;
                }
                self.warps[warp as usize].listed = false;
                self.ready_warps.swap_remove(at);
            },
        };
        self.current_warp = Some(warp);
        let ready = &mut self.warps[warp as usize].ready;
        // The first ready lane at or after a random one.
        let from = self.rng.next() as u32 % 32;
        let lane = (from + ready.rotate_right(from).trailing_zeros()) % 32;
        *ready &= !(1 << lane);
        self.current = warp * 32 + lane;
        Some(self.current)
    }

    /// Yields after a poll; a fruitless one waits until every other thread had its chance.
    pub(super) fn spin(&mut self, address: usize, pc: usize) -> Flow {
        let tid = self.current;
        self.warps[tid as usize / 32].spinning |= 1 << (tid % 32);
        self.me().result = 0;
        self.park(Wait::Spin(address), pc)
    }

    /// Makes polling threads ready; false if there are none.
    fn wake_pollers(&mut self) -> bool {
        let mut any = false;
        for warp in 0..self.warps.len() {
            let mut lanes = std::mem::take(&mut self.warps[warp].spinning);
            while lanes != 0 {
                let lane = lanes.trailing_zeros();
                lanes &= lanes - 1;
                any = true;
                let tid = warp as u32 * 32 + lane;
                self.wake_poller(tid);
            }
        }
        any
    }

    fn wake_poller(&mut self, tid: u32) {
        if let Wait::Mbarrier(address, _) = self.threads[tid as usize].wait {
            self.forget_waiter(address, tid);
        }
        self.wake(tid, 0);
    }

    fn polls_globally(&self) -> bool {
        let outside = |address: usize| {
            address != 0
                && address.wrapping_sub(self.shared_start) >= self.shared_stride * self.ctas.len()
        };
        let polls = |wait: Wait| matches!(wait, Wait::Spin(address) if outside(address));
        self.run().clusters() > 1 && self.threads.iter().any(|t| !t.exited && polls(t.wait))
    }

    /// A thread has returned.
    fn exit(&mut self, tid: u32) {
        self.current = tid;
        self.progress += 1;
        self.threads[tid as usize].exited = true;
        self.live -= 1;
        self.exit_warp(tid);
        if !self.abort {
            self.exit_barriers(tid);
        }
        let cta = self.cta_of(tid);
        self.ctas[cta].live -= 1;
        if self.ctas[cta].live == 0 && !self.abort {
            self.exit_cta(cta);
        }
    }

    fn finish(&mut self) {
        for warp in 0..self.warps.len() {
            self.warp_traffic[warp].flush(&mut self.counters);
        }
    }

    /// Reports what each thread waits for, and ends the launch.
    pub(crate) fn deadlock(&mut self, kind: FindingKind) {
        let mut groups: BTreeMap<(usize, Wait, usize), Vec<u32>> = BTreeMap::new();
        for (tid, thread) in self.threads.iter().enumerate() {
            if thread.exists && !thread.exited {
                let wait = match thread.wait {
                    Wait::Nothing => Wait::Spin(thread.last_poll.0),
                    wait => wait,
                };
                let key = (self.cta_of(tid as u32), wait, thread.wait_pc);
                groups
                    .entry(key)
                    .or_default()
                    .push(tid as u32 % self.cta_stride);
            }
        }
        let mut text = String::from("no thread can go on:");
        for ((cta, wait, pc), threads) in &groups {
            let [x, y, z] = self.ctas[*cta].block;
            let at = symbol::line(*pc, &[])
                .map(|l| format!(" at {l}"))
                .unwrap_or_default();
            text.push_str(&format!(
                " [block ({x}, {y}, {z}), threads {}: {}{at}]",
                ranges(threads),
                self.describe(*wait)
            ));
        }
        let exited = self.threads.iter().filter(|t| t.exists && t.exited).count();
        if exited > 0 {
            text.push_str(&format!(" [{exited} threads have exited]"));
        }
        let first = groups.iter().next();
        let thread = first.map(|((cta, _, _), threads)| {
            &self.threads[*cta * self.cta_stride as usize + threads[0] as usize]
        });
        self.findings.push(RawFinding {
            kind,
            block: thread.map(|t| t.info.block),
            thread: thread.map(|t| t.info.thread),
            pc: first.map_or(0, |((_, _, pc), _)| *pc),
            callers: Vec::new(),
            message: text,
            other: 0,
        });
        self.abort = true;
    }

    fn describe(&self, wait: Wait) -> String {
        match wait {
            Wait::Nothing => "runs".into(),
            Wait::Warp(op, mask) => format!("wait in {op:?} with mask {mask:#010x}"),
            Wait::Barrier(id) => format!("wait at barrier {id}"),
            Wait::Cluster => "wait at the cluster barrier".into(),
            Wait::Mbarrier(address, parity) => {
                let state = self.describe_mbarrier(address);
                format!("wait for parity {parity} of {state}")
            }
            Wait::Aligned(what) => format!("wait in {what} for the rest of their warp"),
            Wait::Registers(count) => format!("wait for {count} registers a thread"),
            Wait::Spin(address) => format!("poll {}", self.describe_address(address)),
            Wait::Turn => "wait for another cluster".into(),
        }
    }
}

/// `0-31, 40` for sorted numbers.
pub(super) fn ranges(numbers: &[u32]) -> String {
    let mut text = String::new();
    let mut i = 0;
    while i < numbers.len() {
        let start = i;
        while i + 1 < numbers.len() && numbers[i + 1] == numbers[i] + 1 {
            i += 1;
        }
        if !text.is_empty() {
            text.push_str(", ");
        }
        if i > start {
            text.push_str(&format!("{}-{}", numbers[start], numbers[i]));
        } else {
            text.push_str(&numbers[start].to_string());
        }
        i += 1;
    }
    text
}
