//! Counters: bytes, sectors and bank conflicts of one cluster.

use crate::report::Traffic;
use std::collections::{HashMap, VecDeque};

const LANES: usize = 32;
/// Open warp-level accesses of one instruction; the oldest is closed when a lane runs this far
/// ahead of the others.
const WINDOW: u32 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Shared,
}

/// One warp-level access in the making.
#[derive(Clone, Debug)]
struct Group {
    lanes: u32,
    addresses: [u64; LANES],
}

/// One instruction, as one warp executes it.
#[derive(Debug)]
struct Instruction {
    pc: usize,
    space: Space,
    write: bool,
    size: u32,
    /// How often each lane has executed it since the warp last met.
    counts: [u32; LANES],
    /// The occurrence the first open group belongs to.
    first: u32,
    groups: VecDeque<Group>,
}

/// The instructions of one warp that have open groups.
#[derive(Debug, Default)]
pub(crate) struct WarpTraffic {
    open: Vec<Instruction>,
    spare: Vec<Instruction>,
    last: usize,
}

/// Counts of one cluster; merged into the launch's at the end.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) traffic: Traffic,
    pub(crate) conflicts: HashMap<usize, u64>,
}

impl Counters {
    pub(crate) fn merge(&mut self, other: &Counters) {
        let (a, b) = (&mut self.traffic, &other.traffic);
        a.global_load_bytes += b.global_load_bytes;
        a.global_store_bytes += b.global_store_bytes;
        a.global_load_sectors += b.global_load_sectors;
        a.global_store_sectors += b.global_store_sectors;
        a.atomics += b.atomics;
        a.shared_load_bytes += b.shared_load_bytes;
        a.shared_store_bytes += b.shared_store_bytes;
        a.distributed_load_bytes += b.distributed_load_bytes;
        a.distributed_store_bytes += b.distributed_store_bytes;
        a.bank_conflicts += b.bank_conflicts;
        a.tensor_flops += b.tensor_flops;
        for (&pc, &count) in &other.conflicts {
            *self.conflicts.entry(pc).or_default() += count;
        }
    }

    /// Sectors of a copy that is one contiguous piece.
    pub(crate) fn contiguous(&mut self, address: usize, bytes: usize, write: bool) {
        let sectors = ((address + bytes).div_ceil(32) - address / 32) as u64;
        self.sectors(sectors, write);
    }

    fn sectors(&mut self, sectors: u64, write: bool) {
        if write {
            self.traffic.global_store_sectors += sectors;
        } else {
            self.traffic.global_load_sectors += sectors;
        }
    }

    fn close(&mut self, instruction: &Instruction, group: &Group) {
        match instruction.space {
            Space::Global => {
                let sectors = sectors_of(group, instruction.size);
                self.sectors(sectors, instruction.write);
            }
            Space::Shared => {
                let extra = extra_wavefronts(group, instruction.size);
                if extra > 0 {
                    self.traffic.bank_conflicts += extra;
                    *self.conflicts.entry(instruction.pc).or_default() += extra;
                }
            }
        }
    }
}

fn sectors_of(group: &Group, size: u32) -> u64 {
    let mut seen: Vec<u64> = Vec::with_capacity(LANES);
    let mut lanes = group.lanes;
    while lanes != 0 {
        let address = group.addresses[lanes.trailing_zeros() as usize];
        lanes &= lanes - 1;
        for sector in address / 32..=(address + u64::from(size) - 1) / 32 {
            if !seen.iter().rev().any(|&known| known == sector) {
                seen.push(sector);
            }
        }
    }
    seen.len() as u64
}

/// Wavefronts beyond the least for the lanes that take part: 32 banks of 4 bytes; accesses of 8
/// and 16 bytes are served by halves and quarters of the warp.
fn extra_wavefronts(group: &Group, size: u32) -> u64 {
    let lanes_a_part = match size {
        0..=4 => 32,
        5..=8 => 16,
        _ => 8,
    };
    let mut extra = 0;
    for part in (0..LANES).step_by(lanes_a_part) {
        let mut words: Vec<u64> = Vec::with_capacity(LANES);
        for lane in part..part + lanes_a_part {
            if group.lanes >> lane & 1 == 1 {
                let address = group.addresses[lane];
                words.extend(address / 4..=(address + u64::from(size) - 1) / 4);
            }
        }
        words.sort_unstable();
        words.dedup();
        let mut banks = [0u64; LANES];
        for word in words {
            banks[(word % 32) as usize] += 1;
        }
        let wavefronts = banks.iter().max().copied().unwrap_or(0);
        extra += wavefronts.saturating_sub(1);
    }
    extra
}

impl WarpTraffic {
    /// Adds one lane's access to the warp-level access it belongs to.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn add(
        &mut self,
        counters: &mut Counters,
        space: Space,
        write: bool,
        lane: u32,
        address: usize,
        size: usize,
        pc: usize,
        live: u32,
    ) {
        if size > 16 {
            // No single instruction moves so much: a copy loop, one contiguous piece each lane.
            if space == Space::Global {
                counters.contiguous(address, size, write);
            }
            return;
        }
        let found = match self.open.get(self.last) {
            Some(i) if i.pc == pc && i.write == write => Some(self.last),
            _ => self
                .open
                .iter()
                .position(|i| i.pc == pc && i.write == write),
        };
        let index = found.unwrap_or_else(|| {
            let mut fresh = self.spare.pop().unwrap_or_else(|| Instruction {
                pc,
                space,
                write,
                size: 0,
                counts: [0; LANES],
                first: 0,
                groups: VecDeque::new(),
            });
            (fresh.pc, fresh.space, fresh.write, fresh.size) = (pc, space, write, size as u32);
            (fresh.counts, fresh.first) = ([0; LANES], 0);
            self.open.push(fresh);
            self.open.len() - 1
        });
        self.last = index;
        let instruction = &mut self.open[index];
        let occurrence = instruction.counts[lane as usize];
        instruction.counts[lane as usize] += 1;
        if occurrence < instruction.first {
            // Its group was closed when another lane ran far ahead: a group of its own.
            let mut alone = Group {
                lanes: 1 << lane,
                addresses: [0; LANES],
            };
            alone.addresses[lane as usize] = address as u64;
            counters.close(&self.open[index], &alone);
            return;
        }
        let mut slot = (occurrence - instruction.first) as usize;
        while instruction.groups.len() <= slot {
            instruction.groups.push_back(Group {
                lanes: 0,
                addresses: [0; LANES],
            });
        }
        let group = &mut instruction.groups[slot];
        group.lanes |= 1 << lane;
        group.addresses[lane as usize] = address as u64;
        let complete = group.lanes & live == live;
        let mut drop_front = 0;
        if complete && slot == 0 {
            drop_front = 1;
        } else if slot as u32 >= WINDOW {
            drop_front = slot - WINDOW as usize + 1;
        }
        // Completed groups behind the first are closed with it, in order.
        let instruction = &self.open[index];
        while drop_front > 0 && drop_front < instruction.groups.len() {
            let lanes = instruction.groups[drop_front].lanes;
            if lanes & live == live && lanes != 0 {
                drop_front += 1;
            } else {
                break;
            }
        }
        for group in instruction.groups.range(..drop_front) {
            counters.close(instruction, group);
        }
        slot = drop_front;
        let instruction = &mut self.open[index];
        instruction.groups.drain(..slot);
        instruction.first += slot as u32;
    }

    /// The warp has met: what is open is complete.
    pub(crate) fn flush(&mut self, counters: &mut Counters) {
        while let Some(mut instruction) = self.open.pop() {
            for group in &instruction.groups {
                counters.close(&instruction, group);
            }
            instruction.groups.clear();
            self.spare.push(instruction);
        }
        self.last = 0;
    }
}
