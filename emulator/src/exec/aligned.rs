//! Instructions that a whole warp executes together (`.sync.aligned`): its lanes gather, the last
//! one carries the instruction out for all.

use super::{Cluster, Flow, Wait};
use crate::report::FindingKind;

/// What one lane brings: the instruction's operands, by their addresses or values.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Operands {
    /// Where the lane's results and operands lie.
    pub(super) registers: [usize; 3],
    /// Addresses or descriptors in shared memory.
    pub(super) shared: [usize; 2],
    /// The instruction's form, the same in all lanes.
    pub(super) form: [u32; 4],
    pub(super) pc: usize,
}

/// The lanes of one warp on their way into one instruction.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    what: &'static str,
    pub(super) arrived: u32,
    lanes: Vec<(u32, Operands)>,
}

/// The operands of a warp, lane by lane.
pub(super) type WarpOperands = [Operands; 32];

impl Cluster {
    /// Brings the current lane's operands; all lanes', once they are here.
    pub(super) fn gather(
        &mut self,
        what: &'static str,
        operands: Operands,
    ) -> Result<WarpOperands, Flow> {
        let pc = operands.pc;
        let (index, lane) = (self.current as usize / 32, self.current % 32);
        let warp = &self.warps[index];
        if warp.exists & !warp.exited != u32::MAX {
            let missing = (warp.exited | !warp.exists).trailing_zeros();
            let message =
                format!("{what} needs all 32 lanes of a warp; lane {missing} is not there");
            return Err(self.fatal(FindingKind::WarpMisuse, pc, message, 0));
        }
        if let Some(meet) = warp.meets.iter().find(|meet| meet.mask() >> lane & 1 == 1) {
            let (name, other) = meet.describe();
            let message = format!("{what}, while other lanes of the warp wait in {name}{{at}}");
            return Err(self.fatal(FindingKind::Divergence, pc, message, other));
        }
        let first = warp.aligned.lanes.first().copied();
        if let Some((_, first)) = first {
            let waiting = warp.aligned.what;
            if waiting != what || first.form != operands.form {
                let message = format!(
                    "{what}, while other lanes of the warp wait in {waiting}{{at}}, another \
                     instruction"
                );
                return Err(self.fatal(FindingKind::Divergence, pc, message, first.pc));
            }
            if first.pc != pc && self.other_line(pc, first.pc) {
                let message =
                    format!("{what}, while other lanes of the warp wait in another{{at}}");
                return Err(self.fatal(FindingKind::Divergence, pc, message, first.pc));
            }
        }
        let gathering = &mut self.warps[index].aligned;
        gathering.what = what;
        gathering.arrived |= 1 << lane;
        gathering.lanes.push((lane, operands));
        if gathering.arrived != u32::MAX {
            return Err(self.park(Wait::Aligned(what), pc));
        }
        let mut all = [Operands::default(); 32];
        for (lane, operands) in std::mem::take(gathering).lanes {
            all[lane as usize] = operands;
        }
        self.progress += 1;
        self.warp_traffic[index].flush(&mut self.counters);
        Ok(all)
    }

    /// The lanes of the current thread's warp go on.
    pub(super) fn scatter(&mut self, warp: usize) {
        let current = self.current;
        for tid in warp as u32 * 32..warp as u32 * 32 + 32 {
            if tid != current {
                self.wake(tid, 0);
            }
        }
    }

    /// A warp primitive that needs lanes which wait in an aligned instruction, which needs the
    /// caller.
    pub(super) fn clash_with_aligned(
        &mut self,
        index: usize,
        mask: u32,
        op: &str,
        pc: usize,
    ) -> Option<Flow> {
        let gathering = &self.warps[index].aligned;
        if gathering.arrived & mask == 0 {
            return None;
        }
        let other = gathering.lanes.first().map_or(0, |(_, first)| first.pc);
        let message = format!(
            "{op} with mask {mask:#010x}, while lanes it names wait in {}{{at}}",
            gathering.what
        );
        Some(self.fatal(FindingKind::Divergence, pc, message, other))
    }

    /// A lane returns while others wait for it; true if that ends the launch.
    pub(super) fn exit_aligned(&mut self, tid: u32) -> bool {
        let index = tid as usize / 32;
        let gathering = &self.warps[index].aligned;
        let Some(&(waiting, operands)) = gathering.lanes.first() else {
            return false;
        };
        let what = gathering.what;
        let message = format!("{what}: {} exits and never comes", self.name(tid));
        self.current = index as u32 * 32 + waiting;
        self.fatal(FindingKind::Divergence, operands.pc, message, 0);
        true
    }
}
