//! How a product is spread over the blocks of the portable kernels.

use super::call::{Grouping, MatmulShape};
use super::params::PortableGrid;
use crate::device::launch::LaunchConfig;
use crate::{Error, Result};

/// `sizeof(PortableShared)` of kernels/matmul/stage.cuh.
const SHARED_BYTES: u32 = 101_376;
const THREADS: u32 = 256;
/// Rows and columns of a block's tile.
const TILE: usize = 128;
/// Bytes of K in a stage.
const STAGE_BYTES: usize = 128;
/// The least stages of a split: each is filled and stored at a cost of some three. No measurement
/// chose it yet.
const SPLIT_STAGES: usize = 8;
/// The most splits: what is read back grows with them.
const MAX_SPLITS: usize = 32;

/// A block of the portable kernels.
pub(super) const fn portable_config(grid: u32) -> LaunchConfig {
    LaunchConfig {
        grid,
        block: THREADS,
        cluster: 1,
        shared_bytes: SHARED_BYTES,
    }
}

/// A product on the portable kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortablePlan {
    pub(super) grid: PortableGrid,
    pub(super) blocks: u32,
}

impl PortablePlan {
    /// For elements of so many bytes, on a device that holds `resident` blocks at once.
    ///
    /// # Errors
    /// [`Error::Unsupported`] beyond 2^31 - 1 blocks.
    pub(super) fn new(shape: &MatmulShape, element_bytes: usize, resident: u32) -> Result<Self> {
        let too_many = || {
            Error::unsupported(
                "Matmul",
                format!("a product of {} x {}", shape.output_rows(), shape.n),
                "give it in parts: a launch has at most 2^31 - 1 blocks of 128 x 128",
            )
        };
        let column_tiles = shape.n.div_ceil(TILE);
        let (row_tiles, layers) = match shape.grouping {
            Grouping::One => (shape.m.div_ceil(TILE), 1),
            Grouping::Rows(groups) => (shape.m / TILE + groups, 1),
            Grouping::Contraction(groups) => (shape.m.div_ceil(TILE), groups),
        };
        let stages = (shape.k * element_bytes).div_ceil(STAGE_BYTES);
        let tiles = row_tiles
            .checked_mul(column_tiles)
            .and_then(|tiles| tiles.checked_mul(layers))
            .ok_or_else(too_many)?;
        let wanted = match shape.grouping {
            Grouping::One => (resident as usize / tiles.max(1))
                .min(stages / SPLIT_STAGES)
                .clamp(1, MAX_SPLITS),
            Grouping::Rows(_) | Grouping::Contraction(_) => 1,
        };
        let split_stages = stages.div_ceil(wanted).max(1);
        // As many as have a stage.
        let splits = stages.div_ceil(split_stages).max(1);
        let blocks = tiles.checked_mul(splits).ok_or_else(too_many)?;
        let blocks = i32::try_from(blocks).map_err(|_| too_many())?;
        Ok(Self {
            grid: PortableGrid {
                row_tiles: row_tiles as u32,
                column_tiles: column_tiles as u32,
                splits: splits as u32,
                split_stages: split_stages as u32,
            },
            blocks: blocks as u32,
        })
    }

    /// Bytes of the partial sums; 0 where K is whole.
    pub(super) fn workspace_bytes(&self, shape: &MatmulShape) -> usize {
        match self.grid.splits {
            0 | 1 => 0,
            splits => (splits as usize)
                .saturating_mul(shape.m)
                .saturating_mul(shape.n.next_multiple_of(8))
                .saturating_mul(size_of::<f32>()),
        }
    }
}

/// That of the kernel which adds partial sums: a thread for eight columns.
pub(super) fn reduce_config(shape: &MatmulShape) -> LaunchConfig {
    // Less than a split's blocks times 64: a tile has 2048 units.
    let units = shape.m * shape.n.div_ceil(8);
    LaunchConfig {
        grid: u32::try_from(units.div_ceil(THREADS as usize)).unwrap_or(u32::MAX),
        block: THREADS,
        cluster: 1,
        shared_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(m: usize, n: usize, k: usize, grouping: Grouping) -> PortablePlan {
        let shape = MatmulShape { m, n, k, grouping };
        PortablePlan::new(&shape, 1, 132).unwrap()
    }

    #[test]
    fn small_products_split_their_contraction() {
        let split = plan(16, 4096, 4096, Grouping::One);
        // 32 tiles, of 132 blocks: 4 splits of 8 stages.
        assert_eq!(split.grid.splits, 4);
        assert_eq!(split.grid.split_stages, 8);
        assert_eq!(split.blocks, 128);
        let shape = MatmulShape {
            m: 16,
            n: 4096,
            k: 4096,
            grouping: Grouping::One,
        };
        assert_eq!(split.workspace_bytes(&shape), 4 * 16 * 4096 * 4);
        assert_eq!(plan(4096, 4096, 4096, Grouping::One).grid.splits, 1);
        assert_eq!(plan(16, 4096, 1024, Grouping::One).grid.splits, 1);
        assert_eq!(plan(16, 16, 1 << 20, Grouping::One).grid.splits, 32);
    }

    #[test]
    fn every_split_has_a_stage() {
        for k in (1..8192).step_by(61) {
            let grid = plan(1, 1, k, Grouping::One).grid;
            let stages = k.div_ceil(128) as u32;
            assert!((grid.splits - 1) * grid.split_stages < stages, "{k}");
            assert!(grid.splits * grid.split_stages >= stages, "{k}");
        }
    }

    #[test]
    fn groups_have_tiles_and_no_splits() {
        let rows = plan(1000, 300, 4096, Grouping::Rows(5));
        assert_eq!([rows.grid.row_tiles, rows.grid.column_tiles], [7 + 5, 3]);
        assert_eq!([rows.blocks, rows.grid.splits], [36, 1]);
        let contraction = plan(130, 300, 4096, Grouping::Contraction(5));
        assert_eq!(contraction.blocks, 2 * 3 * 5);
        assert_eq!(contraction.grid.splits, 1);
    }

    #[test]
    fn too_many_blocks_are_refused() {
        let shape = MatmulShape {
            m: (1 << 31) - 1,
            n: (1 << 31) - 1,
            k: 1,
            grouping: Grouping::One,
        };
        let error = PortablePlan::new(&shape, 1, 132).unwrap_err().to_string();
        assert!(error.contains("2^31 - 1 blocks"), "{error}");
    }
}
