//! Groups of asynchronous copies, and carrying copies out.

use super::access::Place;
use super::asynchronous::{Completion, ONE_LATE_IN, Operation, Work};
use super::codes::GroupOp;
use super::{Cluster, Flow};
use crate::clock::{Class, with_entries};
use crate::heap::{first_unmarked, unmark};
use crate::report::{FindingKind, SyncOperation};
use std::sync::atomic::AtomicU16;

impl Cluster {
    pub(super) fn group(&mut self, op: GroupOp, pending: i32, bar: usize, pc: usize) -> Flow {
        let operation = match op {
            GroupOp::CpCommit | GroupOp::BulkCommit => SyncOperation::CommitGroup,
            GroupOp::CpWait | GroupOp::BulkWait | GroupOp::BulkWaitRead => SyncOperation::WaitGroup,
            GroupOp::CpMbarrierArrive | GroupOp::CpMbarrierArriveNoinc => {
                SyncOperation::MbarrierArrive
            }
        };
        if self.disabled(pc, operation) {
            return Flow::Done(0);
        }
        let pending = pending.max(0) as usize;
        match op {
            GroupOp::CpCommit => self.commit(0),
            GroupOp::BulkCommit => self.commit(1),
            GroupOp::CpWait => self.wait_groups(0, pending, false),
            GroupOp::BulkWait => self.wait_groups(1, pending, false),
            GroupOp::BulkWaitRead => self.wait_groups(1, pending, true),
            _ => return self.cp_arrive(op == GroupOp::CpMbarrierArrive, bar, pc),
        }
        Flow::Done(0)
    }

    fn commit(&mut self, kind: usize) {
        let copies = &mut self.me().copies;
        let group = std::mem::take(&mut copies.open[kind]);
        copies.committed[kind].push_back(group);
        copies.number[kind] += 1;
    }

    /// Carries out and orders all groups but the `pending` most recent ones.
    fn wait_groups(&mut self, kind: usize, pending: usize, read_only: bool) {
        let tid = self.current;
        let copies = &mut self.me().copies;
        let done = copies.committed[kind].len().saturating_sub(pending);
        let first_pending = copies.number[kind] - pending.min(copies.committed[kind].len()) as u64;
        let mut entries = Vec::new();
        if read_only {
            for group in copies.committed[kind].iter().take(done) {
                entries.extend_from_slice(&group.reads);
            }
        } else {
            for group in copies.committed[kind].drain(..done) {
                entries.extend(group.reads);
                entries.extend(group.writes);
            }
        }
        let due = |o: &Operation| {
            o.issuer == tid
                && o.group
                    .is_some_and(|(bulk, n)| bulk == (kind == 1) && n < first_pending)
        };
        if read_only {
            for i in 0..self.operations.len() {
                if due(&self.operations[i]) {
                    let mut operation = self.operations.swap_remove(i);
                    self.read_source(&mut operation);
                    self.operations.push(operation);
                    let last = self.operations.len() - 1;
                    self.operations.swap(i, last);
                }
            }
        } else {
            while let Some(i) = self.operations.iter().position(due) {
                let operation = self.operations.remove(i);
                self.carry_out(operation);
            }
        }
        let thread = self.me();
        thread.base = with_entries(&thread.base, &entries);
    }

    fn cp_arrive(&mut self, raises: bool, bar: usize, pc: usize) -> Flow {
        let place = match self.shared_place(bar, 8, true, true, pc) {
            Ok(place) => place,
            Err(flow) => return flow,
        };
        let Place::Shared { cta, offset } = place else {
            return Flow::Done(0);
        };
        let key = (offset % self.shared_stride) as u32;
        if !self.ctas[cta].mbarriers.contains_key(&key) {
            return self.misuse(pc, "cp.async.mbarrier.arrive on no mbarrier".to_owned());
        }
        self.order(place, bar, 8, Class::AtomicRead, pc, None);
        if raises {
            self.expect_arrival(cta, key);
        }
        let copies = &mut self.me().copies;
        copies.open[0].sealed = true;
        let mut engines: Vec<Completion> = copies.open[0].writes.clone();
        engines.extend(
            copies.committed[0]
                .iter()
                .flat_map(|group| group.writes.iter().copied()),
        );
        let before = copies.number[0] + 1;
        let late = self.rng.one_in(ONE_LATE_IN);
        self.operations.push(Operation {
            late,
            work: Work::Arrive {
                address: bar,
                engines,
                before,
            },
            issuer: self.current,
            pc,
            group: None,
        });
        Flow::Done(0)
    }

    /// Carries out one operation, whichever the seed draws; false if it is late.
    pub(super) fn carry_out_early(&mut self) -> bool {
        let index = self.rng.below(self.operations.len() as u32) as usize;
        if self.operations[index].late {
            return false;
        }
        let operation = self.operations.swap_remove(index);
        self.carry_out(operation);
        true
    }

    /// Carries out one operation when nothing else can go on: a late one only if all are.
    pub(super) fn carry_out_random(&mut self) {
        let count = self.operations.len();
        let from = self.rng.below(count as u32) as usize;
        let early = (0..count)
            .map(|i| (from + i) % count)
            .find(|&i| !self.operations[i].late);
        let operation = self.operations.swap_remove(early.unwrap_or(from));
        self.carry_out(operation);
    }

    pub(super) fn carry_out_all(&mut self) {
        while !self.operations.is_empty() && !self.abort {
            self.carry_out_random();
        }
    }

    fn read_source(&mut self, operation: &mut Operation) {
        if let Work::Tile(tile) = &mut operation.work {
            return self.read_tile(tile);
        }
        let Work::Copy {
            source,
            source_bytes,
            bytes,
            data,
            ..
        } = &mut operation.work
        else {
            return;
        };
        if data.is_some() {
            return;
        }
        let mut copied = vec![0u8; *bytes];
        let mut known = vec![true; *bytes];
        if *source_bytes > 0 {
            let bits = self.bits_of(*source);
            // SAFETY: the bounds were checked when the copy was issued, and the buffers of a
            // launch live as long as it.
            unsafe {
                let from = *source as *const u8;
                std::ptr::copy_nonoverlapping(from, copied.as_mut_ptr(), *source_bytes);
                if let Some((bits, offset)) = bits {
                    let mut at = 0;
                    while let Some(missing) = first_unmarked(bits, offset + at, *source_bytes - at)
                    {
                        known[missing - offset] = false;
                        at = missing - offset + 1;
                    }
                }
            }
        }
        *data = Some((copied, known));
    }

    /// The initialisation bits of an address, with its offset in them.
    pub(super) fn bits_of(&self, address: usize) -> Option<(*const AtomicU16, usize)> {
        let offset = address.wrapping_sub(self.shared_start);
        if offset < self.shared_stride * self.ctas.len() {
            return Some((self.initialised.as_ptr(), offset));
        }
        let allocation = self.run().heap().find(address)?;
        Some((allocation.bits(), address - allocation.start))
    }

    fn carry_out(&mut self, mut operation: Operation) {
        self.progress += 1;
        self.read_source(&mut operation);
        let Operation {
            work, issuer, pc, ..
        } = operation;
        match work {
            Work::Copy {
                destination,
                bytes,
                bar,
                data,
                ..
            } => {
                let Some((copied, known)) = data else {
                    return;
                };
                // SAFETY: as in `read_source`.
                unsafe {
                    std::ptr::copy_nonoverlapping(copied.as_ptr(), destination as *mut u8, bytes);
                    if let Some((bits, offset)) = self.bits_of(destination) {
                        for (i, _) in known.iter().enumerate().filter(|(_, known)| !**known) {
                            unmark(bits, offset + i, 1);
                        }
                    }
                }
                if let Some((bar, engine)) = bar {
                    self.complete_transactions(bar, bytes, engine);
                }
            }
            Work::Tile(tile) => self.carry_out_tile(tile),
            Work::Product(index) => self.carry_out_product(index),
            Work::Arrive {
                address,
                engines,
                before,
            } => {
                let due = |o: &Operation| {
                    o.issuer == issuer && o.group.is_some_and(|(bulk, n)| !bulk && n < before)
                };
                while let Some(i) = self.operations.iter().position(due) {
                    let earlier = self.operations.remove(i);
                    self.carry_out(earlier);
                }
                let offset = address - self.shared_start;
                let (cta, key) = (
                    offset / self.shared_stride,
                    (offset % self.shared_stride) as u32,
                );
                if self.ctas[cta].mbarriers.contains_key(&key) {
                    self.release_copies(cta, key, &engines);
                    self.current = issuer;
                    self.arrive_at(cta, key, pc);
                }
            }
        }
    }

    /// A block has exited: copies to and from its shared memory must be complete, and known to be.
    pub(super) fn exit_with_copies(&mut self, cta: usize) {
        self.exit_with_products(cta);
        self.exit_registers(cta);
        let low = self.shared_start + cta * self.shared_stride;
        let inside = |address: usize| address.wrapping_sub(low) < self.shared_stride;
        let late = self.operations.iter().find(|o| match &o.work {
            Work::Copy {
                destination,
                source,
                data,
                ..
            } => inside(*destination) || inside(*source) && data.is_none(),
            Work::Tile(tile) => inside(tile.shared) && !tile.read(),
            Work::Product(_) => false,
            Work::Arrive { address, .. } => inside(*address),
        });
        if let Some(operation) = late {
            let (pc, issuer) = (operation.pc, operation.issuer);
            self.current = issuer;
            self.finding(FindingKind::ExitedPeer, pc, 0, |c| {
                let [x, y, z] = c.ctas[cta].block;
                format!("block ({x}, {y}, {z}) exits while this copy still uses its shared memory")
            });
        }
    }
}
