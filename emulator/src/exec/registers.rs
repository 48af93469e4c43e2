//! setmaxnreg: registers that the warpgroups of a block hand to one another.

use super::aligned::Operands;
use super::{Cluster, Flow, Wait};
use crate::report::FindingKind;

/// Counts are multiples of this, between the two bounds.
const UNIT: u32 = 8;
const LEAST: u32 = 24;
const MOST: u32 = 256;

/// The registers of one block.
#[derive(Debug, Default)]
pub(super) struct RegisterFile {
    /// A thread's, by warp; none until its warp has set them.
    set: Vec<Option<u32>>,
    /// Warps that wait for more.
    waiting: Vec<(usize, u32)>,
}

impl Cluster {
    /// What a thread has at first: an equal share of the multiprocessor's registers, as the
    /// compiler gives to a kernel of one block.
    fn register_share(&self) -> u32 {
        let all = self.run().architecture.registers_per_multiprocessor;
        (all / self.cta_stride / UNIT * UNIT).min(MOST)
    }

    pub(super) fn setmaxnreg(&mut self, count: i32, increase: bool, pc: usize) -> Flow {
        let what = if increase {
            "setmaxnreg.inc"
        } else {
            "setmaxnreg.dec"
        };
        let count = u32::try_from(count).unwrap_or(0);
        if !(LEAST..=MOST).contains(&count) || !count.is_multiple_of(UNIT) {
            let message = format!("{what} {count}: a multiple of {UNIT} from {LEAST} to {MOST}");
            return self.fatal(FindingKind::LaunchLimits, pc, message, 0);
        }
        if !self.needs_compute((9, 0), what, pc) {
            return Flow::Wait;
        }
        let operands = Operands {
            form: [count, u32::from(increase), 0, 0],
            pc,
            ..Operands::default()
        };
        if let Err(flow) = self.gather(what, operands) {
            return flow;
        }
        let cta = self.cta_of(self.current);
        let warp = (self.current % self.cta_stride) as usize / 32;
        let share = self.register_share();
        let warps = self.cta_stride as usize / 32;
        let file = &mut self.ctas[cta].registers;
        file.set.resize(warps, None);
        let now = file.set[warp].unwrap_or(share);
        if if increase { count < now } else { count > now } {
            let message = format!("{what} {count} in a warp whose threads have {now}");
            return self.fatal(FindingKind::WarpMisuse, pc, message, 0);
        }
        if count > now && self.spare_registers(cta, share) < count - now {
            // For all 32 lanes; the last one is still to be parked.
            self.ctas[cta].registers.waiting.push((warp, count));
            for tid in self.current / 32 * 32..self.current / 32 * 32 + 32 {
                let thread = &mut self.threads[tid as usize];
                thread.wait = Wait::Registers(count);
                thread.wait_pc = pc;
            }
            return Flow::Wait;
        }
        self.ctas[cta].registers.set[warp] = Some(count);
        self.scatter(self.current as usize / 32);
        self.grant_registers(cta, share);
        Flow::Done(0)
    }

    /// Registers of each thread of a warp that nobody in the block holds.
    fn spare_registers(&self, cta: usize, share: u32) -> u32 {
        let set = &self.ctas[cta].registers.set;
        let held: u32 = set.iter().map(|count| count.unwrap_or(share)).sum();
        (share * set.len() as u32).saturating_sub(held)
    }

    /// Lets warps go on for which there are now enough.
    fn grant_registers(&mut self, cta: usize, share: u32) {
        let mut at = 0;
        while let Some(&(warp, count)) = self.ctas[cta].registers.waiting.get(at) {
            let now = self.ctas[cta].registers.set[warp].unwrap_or(share);
            if self.spare_registers(cta, share) < count - now {
                at += 1;
                continue;
            }
            let file = &mut self.ctas[cta].registers;
            file.waiting.remove(at);
            file.set[warp] = Some(count);
            let first = cta as u32 * self.cta_stride + warp as u32 * 32;
            for tid in first..first + 32 {
                self.wake(tid, 0);
            }
        }
    }

    /// A block has exited: each of its warpgroups must have set one number.
    pub(super) fn exit_registers(&mut self, cta: usize) {
        let set = &self.ctas[cta].registers.set;
        let torn = set
            .chunks(4)
            .position(|group| group.iter().any(|n| *n != group[0]));
        if let Some(group) = torn {
            let counts = format!("{:?}", set.chunks(4).nth(group).unwrap_or_default());
            self.current = cta as u32 * self.cta_stride + group as u32 * 128;
            self.finding(FindingKind::WarpMisuse, 0, 0, |_| {
                format!(
                    "the warps of a warpgroup have set different numbers of registers: {counts}"
                )
            });
        }
    }
}
