//! Mbarriers: phases of arrivals and transaction bytes, in shared memory.

use super::access::Place;
use super::codes::{MbarrierOp, Scope};
use super::{Cluster, Flow, Wait};
use crate::clock::{Base, Class, Joiner, join};
use crate::report::{FindingKind, SyncOperation};
use std::sync::Arc;

/// The largest count and the largest number of transaction bytes in flight.
const MOST: i64 = (1 << 20) - 1;

/// One mbarrier, kept beside the 8 bytes that stand for it.
#[derive(Debug, Default)]
pub(super) struct Mbarrier {
    count: i64,
    pending: i64,
    transactions: i64,
    /// Phases completed.
    phase: u64,
    joiner: Joiner,
    completed: Arc<Base>,
    /// What a base becomes by acquiring the last phase; threads of a warp share theirs.
    acquired: Vec<(Arc<Base>, Arc<Base>)>,
    waiters: Vec<u32>,
    pub(super) init_by: u32,
    /// Whether the initialisation is visible to the async proxy.
    pub(super) fenced: bool,
}

impl Cluster {
    pub(super) fn mbarrier(
        &mut self,
        op: MbarrierOp,
        address: usize,
        argument: u64,
        scope: Scope,
        pc: usize,
    ) -> Flow {
        let operation = match op {
            MbarrierOp::Init | MbarrierOp::Inval => None,
            MbarrierOp::ExpectTx => Some(SyncOperation::MbarrierExpectTx),
            MbarrierOp::TryWaitParity | MbarrierOp::TestWaitParity => {
                Some(SyncOperation::MbarrierWait)
            }
            _ => Some(SyncOperation::MbarrierArrive),
        };
        if let Some(operation) = operation
            && self.disabled(pc, operation)
        {
            return Flow::Done(1);
        }
        if !address.is_multiple_of(8) {
            return self.misaligned(address, 8, pc);
        }
        let (cta, offset) = match self.locate(address, 8, true, pc) {
            Ok(Place::Shared { cta, offset }) => (cta, offset),
            Ok(_) => {
                let place = self.describe_address(address);
                let message = format!("an mbarrier at {place}: they live in shared memory");
                return self.fatal(FindingKind::AsyncMisuse, pc, message, 0);
            }
            Err(flow) => return flow,
        };
        let own = cta == self.cta_of(self.current);
        let remote_allowed = matches!(
            op,
            MbarrierOp::ArriveRemote | MbarrierOp::ArriveRemoteExpectTx
        );
        if !own && !remote_allowed {
            let message =
                format!("{op:?} on an mbarrier of another block; only arrivals may be remote");
            return self.fatal(FindingKind::AsyncMisuse, pc, message, 0);
        }
        let place = Place::Shared { cta, offset };
        let key = (offset % self.shared_stride) as u32;
        if op == MbarrierOp::Init {
            return self.mbarrier_init(place, cta, key, address, argument, pc);
        }
        if !self.ctas[cta].mbarriers.contains_key(&key) {
            let place = self.describe_address(address);
            let message = format!("{op:?} on an mbarrier at {place}, which is not initialised");
            return self.fatal(FindingKind::AsyncMisuse, pc, message, 0);
        }
        if op == MbarrierOp::Inval {
            self.order(place, address, 8, Class::Write, pc, None);
            self.ctas[cta].mbarriers.remove(&key);
            self.ctas[cta].mbarrier_words[key as usize / 512] &= !(1 << (key / 8 % 64));
            return Flow::Done(0);
        }
        self.order(place, address, 8, Class::AtomicRead, pc, None);
        match op {
            MbarrierOp::TryWaitParity | MbarrierOp::TestWaitParity => {
                let block = op == MbarrierOp::TryWaitParity;
                self.mbarrier_wait(cta, key, address, argument as u32 & 1, block, pc)
            }
            MbarrierOp::ExpectTx => self.transactions(cta, key, argument as i64, pc),
            MbarrierOp::ArriveExpectTx | MbarrierOp::ArriveRemoteExpectTx => {
                match self.transactions(cta, key, argument as i64, pc) {
                    Flow::Done(_) => self.mbarrier_arrive(cta, key, scope, pc),
                    flow => flow,
                }
            }
            _ => self.mbarrier_arrive(cta, key, scope, pc),
        }
    }

    fn mbarrier_init(
        &mut self,
        place: Place,
        cta: usize,
        key: u32,
        address: usize,
        count: u64,
        pc: usize,
    ) -> Flow {
        if count == 0 || count as i64 > MOST {
            let message = format!("mbarrier_init with count {count}: 1 to {MOST}");
            return self.fatal(FindingKind::BarrierMisuse, pc, message, 0);
        }
        if self.ctas[cta].mbarriers.contains_key(&key) {
            let place = self.describe_address(address);
            let message =
                format!("initialises the mbarrier at {place} again without mbarrier_inval");
            return self.fatal(FindingKind::BarrierMisuse, pc, message, 0);
        }
        self.record(place, address, 8, Class::Write, pc);
        let init_by = self.current;
        let fresh = Mbarrier {
            count: count as i64,
            pending: count as i64,
            init_by,
            ..Mbarrier::default()
        };
        self.ctas[cta].mbarriers.insert(key, fresh);
        self.ctas[cta].mbarrier_words[key as usize / 512] |= 1 << (key / 8 % 64);
        Flow::Done(0)
    }

    fn mbarrier_at(&mut self, cta: usize, key: u32) -> &mut Mbarrier {
        self.ctas[cta].mbarriers.entry(key).or_default()
    }

    /// Changes the bytes a phase still waits for.
    fn transactions(&mut self, cta: usize, key: u32, bytes: i64, pc: usize) -> Flow {
        let mbarrier = self.mbarrier_at(cta, key);
        mbarrier.transactions += bytes;
        let now = mbarrier.transactions;
        if now.abs() > MOST {
            let message =
                format!("{now} transaction bytes are pending on an mbarrier; {MOST} is the most");
            return self.fatal(FindingKind::AsyncMisuse, pc, message, 0);
        }
        self.progress += 1;
        Flow::Done(0)
    }

    fn mbarrier_arrive(&mut self, cta: usize, key: u32, _scope: Scope, pc: usize) -> Flow {
        let tid = self.current;
        let mut joiner = std::mem::take(&mut self.mbarrier_at(cta, key).joiner);
        self.release(tid, &mut joiner);
        self.mbarrier_at(cta, key).joiner = joiner;
        self.arrive_at(cta, key, pc)
    }

    /// One arrival, whoever makes it.
    pub(super) fn arrive_at(&mut self, cta: usize, key: u32, pc: usize) -> Flow {
        self.progress += 1;
        let mbarrier = self.mbarrier_at(cta, key);
        let token = mbarrier.phase;
        if mbarrier.pending == 0 {
            let (count, bytes) = (mbarrier.count, mbarrier.transactions);
            let message = format!(
                "one arrival more than the {count} this mbarrier's phase counts ({bytes} bytes are \
                 still expected)"
            );
            return self.fatal(FindingKind::BarrierMisuse, pc, message, 0);
        }
        mbarrier.pending -= 1;
        self.complete_phase(cta, key);
        Flow::Done(token)
    }

    /// Raises the pending count of the present phase (cp.async.mbarrier.arrive).
    pub(super) fn expect_arrival(&mut self, cta: usize, key: u32) {
        self.mbarrier_at(cta, key).pending += 1;
    }

    /// Bytes of an asynchronous copy have arrived, and with them the copy's writes.
    pub(super) fn complete_transactions(
        &mut self,
        address: usize,
        bytes: usize,
        engine: (u32, u32),
    ) {
        self.progress += 1;
        let offset = address - self.shared_start;
        let (cta, key) = (
            offset / self.shared_stride,
            (offset % self.shared_stride) as u32,
        );
        if !self.ctas[cta].mbarriers.contains_key(&key) {
            return;
        }
        let mbarrier = self.mbarrier_at(cta, key);
        mbarrier.transactions -= bytes as i64;
        mbarrier.joiner.entry(engine.0, engine.1);
        self.complete_phase(cta, key);
    }

    /// The writes of copies become visible to those who wait for this phase.
    pub(super) fn release_copies(&mut self, cta: usize, key: u32, engines: &[(u32, u32)]) {
        let joiner = &mut self.mbarrier_at(cta, key).joiner;
        for &(tid, clock) in engines {
            joiner.entry(tid, clock);
        }
    }

    fn complete_phase(&mut self, cta: usize, key: u32) {
        let mbarrier = self.mbarrier_at(cta, key);
        if mbarrier.pending != 0 || mbarrier.transactions != 0 {
            return;
        }
        mbarrier.phase += 1;
        mbarrier.pending = mbarrier.count;
        let completed = Arc::clone(&mbarrier.completed);
        mbarrier.joiner.base(&completed);
        mbarrier.completed = mbarrier.joiner.take();
        mbarrier.acquired.clear();
        for tid in std::mem::take(&mut mbarrier.waiters) {
            self.acquire_phase(cta, key, tid);
            self.wake(tid, 1);
        }
    }

    fn acquire_phase(&mut self, cta: usize, key: u32, tid: u32) {
        let base = Arc::clone(&self.threads[tid as usize].base);
        let mbarrier = self.mbarrier_at(cta, key);
        let known = mbarrier
            .acquired
            .iter()
            .find(|(before, _)| Arc::ptr_eq(before, &base));
        let after = if let Some((_, after)) = known {
            Arc::clone(after)
        } else {
            let after = join(&mbarrier.completed, &base);
            if mbarrier.acquired.len() < 64 {
                mbarrier.acquired.push((base, Arc::clone(&after)));
            }
            after
        };
        self.threads[tid as usize].base = after;
    }

    fn mbarrier_wait(
        &mut self,
        cta: usize,
        key: u32,
        address: usize,
        parity: u32,
        block: bool,
        pc: usize,
    ) -> Flow {
        let tid = self.current;
        if self.mbarrier_at(cta, key).phase & 1 != u64::from(parity) {
            self.acquire_phase(cta, key, tid);
            return Flow::Done(1);
        }
        if !block {
            self.me().result = 0;
            return self.spin(address, pc);
        }
        // Hardware may give up early.
        if self.rng.one_in(16) {
            return Flow::Done(0);
        }
        self.mbarrier_at(cta, key).waiters.push(tid);
        self.warps[tid as usize / 32].spinning |= 1 << (tid % 32);
        self.park(Wait::Mbarrier(address, parity), pc)
    }

    /// A waiter is woken without its phase being complete.
    pub(super) fn forget_waiter(&mut self, address: usize, tid: u32) {
        let offset = address - self.shared_start;
        let (cta, key) = (
            offset / self.shared_stride,
            (offset % self.shared_stride) as u32,
        );
        self.mbarrier_at(cta, key)
            .waiters
            .retain(|&waiter| waiter != tid);
    }

    /// Plain accesses may not touch the bytes of an mbarrier.
    pub(super) fn check_plain(&mut self, cta: usize, offset: usize, size: usize, pc: usize) {
        let within = offset % self.shared_stride;
        for word in within / 8..=(within + size - 1) / 8 {
            if self.ctas[cta].mbarrier_words[word / 64] >> (word % 64) & 1 == 1 {
                self.finding(FindingKind::AsyncMisuse, pc, 0, |_| {
                    format!(
                        "a plain access of {size} bytes to an mbarrier at offset {}",
                        word * 8
                    )
                });
                return;
            }
        }
    }

    pub(super) fn describe_mbarrier(&self, address: usize) -> String {
        let offset = address - self.shared_start;
        let (cta, key) = (
            offset / self.shared_stride,
            (offset % self.shared_stride) as u32,
        );
        match self.ctas[cta].mbarriers.get(&key) {
            Some(m) => format!(
                "the mbarrier at offset {key} (phase {}, {} of {} arrivals and {} bytes missing)",
                m.phase, m.pending, m.count, m.transactions
            ),
            None => format!("the mbarrier at offset {key}"),
        }
    }
}
