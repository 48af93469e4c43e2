//! Warp primitives: lanes named in a mask meet, exchange values, and go on.

use super::codes::WarpOp;
use super::{Cluster, Flow, Wait};
use crate::clock::Joiner;
use crate::report::{FindingKind, SyncOperation};

/// Lanes of one warp on their way into one primitive.
#[derive(Debug)]
pub(super) struct Meet {
    op: WarpOp,
    mask: u32,
    arrived: u32,
    values: [u64; 32],
    arguments: [u32; 32],
    widths: [u32; 32],
    pcs: [usize; 32],
}

impl Meet {
    pub(super) fn mask(&self) -> u32 {
        self.mask
    }

    /// The primitive in words, and where a lane waits in it.
    pub(super) fn describe(&self) -> (String, usize) {
        let name = format!("{:?} with mask {:#010x}", self.op, self.mask);
        (name, self.pcs[self.arrived.trailing_zeros() as usize & 31])
    }
}

impl Cluster {
    pub(super) fn warp(
        &mut self,
        op: WarpOp,
        mask: u32,
        value: u64,
        argument: u32,
        width: u32,
        pc: usize,
    ) -> Flow {
        if op == WarpOp::Syncwarp && self.disabled(pc, SyncOperation::Syncwarp) {
            return Flow::Done(0);
        }
        let tid = self.current;
        let (index, lane) = (tid as usize / 32, tid % 32);
        if op == WarpOp::Activemask {
            self.warps[index].active.push((lane, pc));
            return self.park(Wait::Warp(op, 0), pc);
        }
        let warp = &self.warps[index];
        if mask >> lane & 1 == 0 {
            let message =
                format!("{op:?} with mask {mask:#010x}, which lacks the calling lane {lane}");
            return self.fatal(FindingKind::WarpMisuse, pc, message, 0);
        }
        // Lanes that the block never had count as absent, as they do in hardware.
        let mask = mask & warp.exists;
        if mask & warp.exited != 0 {
            let gone = (mask & warp.exited).trailing_zeros();
            let message = format!("{op:?} with mask {mask:#010x}: lane {gone} has exited");
            return self.fatal(FindingKind::WarpMisuse, pc, message, 0);
        }
        if let Some(flow) = self.clash_with_aligned(index, mask, &format!("{op:?}"), pc) {
            return flow;
        }
        let warp = &self.warps[index];
        // A lane this call needs waits in a primitive that needs the caller: neither can complete.
        let clash = warp.meets.iter().find(|meet| {
            meet.arrived & mask != 0
                && meet.mask >> lane & 1 == 1
                && (meet.mask != mask || meet.op != op)
        });
        if let Some(clash) = clash {
            let message = format!(
                "{op:?} with mask {mask:#010x}, while lanes it names wait in {:?} with mask {:#010x}{{at}}",
                clash.op, clash.mask
            );
            let other = clash.pcs[clash.arrived.trailing_zeros() as usize & 31];
            return self.fatal(FindingKind::Divergence, pc, message, other);
        }
        let meets = &mut self.warps[index].meets;
        let at = meets
            .iter()
            .position(|m| m.mask == mask)
            .unwrap_or_else(|| {
                meets.push(Meet {
                    op,
                    mask,
                    arrived: 0,
                    values: [0; 32],
                    arguments: [0; 32],
                    widths: [32; 32],
                    pcs: [0; 32],
                });
                meets.len() - 1
            });
        let meet = &mut meets[at];
        let l = lane as usize;
        meet.arrived |= 1 << lane;
        meet.values[l] = value;
        meet.arguments[l] = argument;
        meet.widths[l] = width;
        meet.pcs[l] = pc;
        if meet.arrived != mask {
            return self.park(Wait::Warp(op, mask), pc);
        }
        let meet = self.warps[index].meets.swap_remove(at);
        self.complete(index, &meet, tid)
    }

    /// All lanes are here: computes their results, wakes the others.
    fn complete(&mut self, index: usize, meet: &Meet, last: u32) -> Flow {
        self.progress += 1;
        let warp = &self.warps[index];
        if meet.mask == warp.exists & !warp.exited {
            self.warp_traffic[index].flush(&mut self.counters);
        }
        if meet.op == WarpOp::Syncwarp {
            self.join_lanes(index, meet.mask);
        }
        let mut own = 0;
        for lane in lanes(meet.mask) {
            let tid = index as u32 * 32 + lane;
            let result = match self.result(meet, lane, tid) {
                Ok(result) => result,
                Err(flow) => return flow,
            };
            if tid == last {
                own = result;
            } else {
                self.wake(tid, result);
            }
        }
        self.current = last;
        Flow::Done(own)
    }

    /// `__syncwarp`: what each lane did is ordered before what any does next.
    fn join_lanes(&mut self, index: usize, mask: u32) {
        let mut joiner = Joiner::default();
        for lane in lanes(mask) {
            self.release(index as u32 * 32 + lane, &mut joiner);
        }
        let base = joiner.take();
        for lane in lanes(mask) {
            self.threads[index * 32 + lane as usize].base = std::sync::Arc::clone(&base);
        }
    }

    fn result(&mut self, meet: &Meet, lane: u32, tid: u32) -> Result<u64, Flow> {
        let l = lane as usize;
        let values = || lanes(meet.mask).map(|other| meet.values[other as usize]);
        let ballot = || {
            lanes(meet.mask)
                .filter(|&other| meet.values[other as usize] != 0)
                .fold(0u32, |bits, other| bits | 1 << other)
        };
        let words = || values().map(|v| v as u32);
        let signed = || values().map(|v| v as u32 as i32);
        Ok(match meet.op {
            WarpOp::Syncwarp | WarpOp::Activemask => 0,
            WarpOp::Shuffle | WarpOp::ShuffleUp | WarpOp::ShuffleDown | WarpOp::ShuffleXor => {
                return self.shuffled(meet, lane, tid);
            }
            WarpOp::Ballot => u64::from(ballot()),
            WarpOp::All => u64::from(ballot() == meet.mask),
            WarpOp::Any => u64::from(ballot() != 0),
            WarpOp::MatchAny => u64::from(
                lanes(meet.mask)
                    .filter(|&other| meet.values[other as usize] == meet.values[l])
                    .fold(0u32, |bits, other| bits | 1 << other),
            ),
            WarpOp::MatchAll => {
                let same = values().all(|v| v == meet.values[l]);
                u64::from(if same { meet.mask } else { 0 })
            }
            WarpOp::ReduceAdd => u64::from(words().fold(0u32, u32::wrapping_add)),
            WarpOp::ReduceMinU => u64::from(words().min().unwrap_or(0)),
            WarpOp::ReduceMaxU => u64::from(words().max().unwrap_or(0)),
            WarpOp::ReduceMinS => u64::from(signed().min().unwrap_or(0) as u32),
            WarpOp::ReduceMaxS => u64::from(signed().max().unwrap_or(0) as u32),
            WarpOp::ReduceAnd => u64::from(words().fold(u32::MAX, |a, b| a & b)),
            WarpOp::ReduceOr => u64::from(words().fold(0, |a, b| a | b)),
            WarpOp::ReduceXor => u64::from(words().fold(0, |a, b| a ^ b)),
            WarpOp::Elect => u64::from(lane == meet.mask.trailing_zeros()),
        })
    }

    fn shuffled(&mut self, meet: &Meet, lane: u32, tid: u32) -> Result<u64, Flow> {
        let l = lane as usize;
        let (argument, width) = (meet.arguments[l], meet.widths[l]);
        if !width.is_power_of_two() || width > 32 {
            self.current = tid;
            let message = format!("{:?} with width {width}: a power of two up to 32", meet.op);
            return Err(self.fatal(FindingKind::WarpMisuse, meet.pcs[l], message, 0));
        }
        let first = lane & !(width - 1);
        let source = match meet.op {
            WarpOp::Shuffle => first + (argument & (width - 1)),
            WarpOp::ShuffleUp => match lane.checked_sub(argument) {
                Some(source) if source >= first => source,
                _ => lane,
            },
            WarpOp::ShuffleDown => match lane.checked_add(argument) {
                Some(source) if source < first + width => source,
                _ => lane,
            },
            // A source in a later segment is out of reach, one in an earlier segment is not.
            _ => match lane ^ argument {
                source if source < first + width => source,
                _ => lane,
            },
        };
        if source < 32 && meet.mask >> source & 1 == 1 {
            return Ok(meet.values[source as usize]);
        }
        self.current = tid;
        let message = format!(
            "{:?} reads lane {source}, which is not active in it",
            meet.op
        );
        self.finding(FindingKind::WarpMisuse, meet.pcs[l], 0, |_| message);
        // What hardware returns is undefined: a NaN pattern.
        Ok(u64::MAX)
    }

    /// A lane returns: nobody may wait for it.
    pub(super) fn exit_warp(&mut self, tid: u32) {
        let (index, lane) = (tid as usize / 32, tid % 32);
        let warp = &mut self.warps[index];
        warp.exited |= 1 << lane;
        if let Some(meet) = warp.meets.iter().find(|meet| meet.mask >> lane & 1 == 1) {
            let (op, mask) = (meet.op, meet.mask);
            let waiting = meet.arrived.trailing_zeros() & 31;
            let pc = meet.pcs[waiting as usize];
            let name = self.name(tid);
            self.current = index as u32 * 32 + waiting;
            let message = format!(
                "{op:?} with mask {mask:#010x}: lane {lane} ({name}) exits and never comes"
            );
            self.fatal(FindingKind::Divergence, pc, message, 0);
            return;
        }
        if self.exit_aligned(tid) {
            return;
        }
        let warp = &self.warps[index];
        if warp.exists == warp.exited {
            self.warp_traffic[index].flush(&mut self.counters);
        }
    }

    /// Lets lanes out of `__activemask` where the rest of their warp can go no further; false if
    /// there are none.
    pub(super) fn release_active(&mut self) -> bool {
        let mut any = false;
        for index in 0..self.warps.len() {
            let mut active = std::mem::take(&mut self.warps[index].active);
            active.sort_unstable_by_key(|&(lane, pc)| (pc, lane));
            for group in active.chunk_by(|a, b| a.1 == b.1) {
                let mask = group.iter().fold(0u32, |bits, &(lane, _)| bits | 1 << lane);
                for &(lane, _) in group {
                    any = true;
                    self.wake(index as u32 * 32 + lane, u64::from(mask));
                }
            }
        }
        self.progress += u64::from(any);
        any
    }
}

/// The lanes of a mask, lowest first.
pub(super) fn lanes(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros();
            mask &= mask - 1;
            lane
        })
    })
}
