//! Rows whose columns nobody sums up: threads keep to their columns and walk down the rows.

use crate::device::launch::{Kernel, LaunchConfig};
use crate::rows::TEAM_SHARED_BYTES;
use crate::rows::{Alignment, Layout};
use crate::rows::{Divisor, RowGrid};
use crate::{Result, Stream};

/// Threads of a block, where rows are short: several teams share it.
const BLOCK_THREADS: usize = 256;

/// What a walk is made for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deal {
    /// The most threads of a run.
    pub(super) threads: usize,
    /// Rows that a team has at a time.
    pub(super) rows: usize,
    /// Blocks that there are to be, about.
    pub(super) blocks: usize,
}

impl Deal {
    /// For the kernels of kernels/common/walk.cuh.
    pub(super) const fn blocks(blocks: usize) -> Self {
        Self {
            threads: BLOCK_THREADS,
            rows: 4, // kWalkRows
            blocks,
        }
    }
}

/// Those that the kernels of kernels/common/walk.cuh are compiled for.
pub(super) const LAYOUTS: [Layout; 3] = [Layout::C8U1, Layout::C4U1, Layout::S4U1];

/// How rows are dealt out: runs of columns to teams, slices of rows to blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    pub(super) layout: Layout,
    /// Threads that share a run of columns.
    pub(super) threads: usize,
    /// Teams of a block.
    pub(super) teams: usize,
    /// Runs that cover a row.
    pub(super) segments: usize,
    /// Slices that the rows are dealt out to; none without rows.
    pub(super) slices: usize,
}

impl Walk {
    /// Nothing of the device decides: sums over a slice are the same everywhere.
    pub(super) fn new(layout: Layout, rows: usize, columns: usize, deal: Deal) -> Self {
        let units = columns.div_ceil(layout.columns());
        let segments = units.div_ceil(deal.threads).max(1);
        let wanted = units.div_ceil(segments);
        let threads = if wanted <= 32 {
            wanted.next_power_of_two()
        } else {
            wanted.next_multiple_of(32)
        };
        let teams = (BLOCK_THREADS / threads).max(1);
        let rounds = rows.div_ceil(teams * deal.rows);
        Self {
            layout,
            threads,
            teams,
            segments,
            slices: (deal.blocks / segments).max(1).min(rounds),
        }
    }

    pub(super) fn blocks(&self) -> usize {
        self.segments * self.slices
    }

    /// Numbers that the teams of a block hold together, where there are several.
    pub(super) fn team_sums(&self) -> usize {
        if self.teams > 1 {
            self.teams * self.threads * self.layout.columns()
        } else {
            0
        }
    }

    pub(super) fn grid(&self, rows: usize, columns: usize) -> RowGrid {
        RowGrid {
            rows: rows as u32,
            columns: columns as u32,
            heads: 1,
            by_heads: Divisor::new(1),
            threads: self.threads as u32,
            segments: self.segments as u32,
            unused: 0,
        }
    }

    /// `shared` is what the operation needs of shared memory beside the team's, in bytes.
    pub(super) fn config(&self, shared: usize) -> LaunchConfig {
        LaunchConfig {
            grid: self.blocks() as u32,
            block: (self.threads * self.teams) as u32,
            cluster: 1,
            shared_bytes: (TEAM_SHARED_BYTES + shared) as u32,
        }
    }
}

/// One kernel for each layout.
#[derive(Debug)]
pub(super) struct WalkKernels([(Layout, Kernel); 3]);

impl WalkKernels {
    /// Of names that begin with `stem`; the last of the layouts fits any tensors.
    pub(super) fn load(
        stream: &Stream,
        module: &'static str,
        stem: &str,
        layouts: [Layout; 3],
    ) -> Result<Self> {
        let load = |layout: Layout| {
            let kernel = stream.kernel(module, &format!("{stem}_{}", layout.name))?;
            Ok((layout, kernel))
        };
        let [wide, narrow, spread] = layouts;
        Ok(Self([load(wide)?, load(narrow)?, load(spread)?]))
    }

    /// The kernel for tensors that lie like this. Some layout fits any.
    pub(super) fn choose(&self, alignment: &Alignment, columns: usize) -> (Layout, &Kernel) {
        let fits = |(layout, _): &&(Layout, Kernel)| alignment.fits(layout, columns);
        let (layout, kernel) = self.0.iter().find(fits).unwrap_or(&self.0[2]);
        (*layout, kernel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_walk_covers_its_rows() {
        for layout in LAYOUTS {
            for columns in [1, 7, 8, 9, 250, 2048, 2049, 4096, 5120, 50_257, 262_144] {
                for rows in [0, 1, 5, 1000, 1_000_000] {
                    for threads in [256, 512] {
                        let deal = Deal {
                            threads,
                            ..Deal::blocks(264)
                        };
                        let walk = Walk::new(layout, rows, columns, deal);
                        let run = walk.threads * layout.columns();
                        assert!(run * walk.segments >= columns);
                        assert!(run * (walk.segments - 1) < columns, "an empty run");
                        assert!(walk.threads <= threads);
                        assert!(walk.teams == 1 || walk.threads * walk.teams <= BLOCK_THREADS);
                        assert!((walk.threads * walk.teams).is_multiple_of(32));
                        assert!(walk.blocks() <= 264.max(walk.segments));
                        assert_eq!(walk.slices > 0, rows > 0);
                        // No slice is without rows.
                        assert!(rows == 0 || (walk.slices - 1) * walk.teams * 4 < rows);
                        // Sums of a row's segments lie in memory: there is one team.
                        assert!(walk.segments == 1 || walk.teams == 1 || threads == 256);
                    }
                }
            }
        }
    }
}
