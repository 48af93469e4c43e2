//! Which of Hopper's kernels takes a product, and in what shape it is launched: one model of a
//! product's time, in clocks, from its shape and the number of multiprocessors.
//!
//! The model (predicted; no measurement has adjusted it yet):
//!
//! ```text
//! time   = waves (slices slice + EPILOGUE)
//! waves  = ceil(units / clusters at once)    units of as many tiles as a cluster has blocks
//! slices = ceil(K bytes / 128)
//! slice  = max(M_t N_t / 32, bytes / L2_BYTES)          128 bytes of K of a tile M_t x N_t
//! bytes  = 128 (M_t + N_t), the longer side halved where two blocks share it
//! ```
//!
//! M_t N_t / 32 clocks is the tensor cores' rate for 16-bit (2,048 products a clock and 64 elements a
//! slice) and 8-bit elements (4,096 and 128) alike. Larger tiles ask less of L2 for the same products;
//! smaller ones leave fewer multiprocessors idle in the last wave: that is the choice. A pair of blocks
//! asks less of L2 and may leave one idle where tiles are odd in number.

use super::call::{Grouping, MatmulShape};
use crate::device::launch::LaunchConfig;

/// Bytes that L2 gives a multiprocessor a clock while all ask: an assumption between the 64 of its
/// port and the some 30 that all get at once; no measurement chose it yet.
const L2_BYTES: u64 = 40;
/// Clocks from a tile's last product to the next one's first, counted from the epilogue's instructions
/// (kernels/matmul/hopper.cuh); no measurement chose it yet.
const EPILOGUE: u64 = 1000;
/// Slices from which on a product of few tiles gains more from a divided contraction than from faster
/// tensor cores: two parts of eight slices. No measurement chose it yet.
const SPLIT_SLICES: usize = 16;
/// Rows of A (of a group, on average) up to which half of a tile would be idle.
const FEW_ROWS: usize = 64;
/// Bytes of K in a slice.
pub(super) const SLICE_BYTES: usize = 128;
/// Rows of a box that the copy engine stores: one warp's.
pub(super) const STORE_ROWS: u32 = 16;

/// What a kernel adds up, and where (`HopperSums` of kernels/matmul/hopper_config.cuh).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sums {
    Bf16,
    F16,
    /// FP8 in the tensor cores' accumulators.
    Fp8Fast,
    /// FP8, taken into fp32 every 128 of K.
    Fp8,
    /// The same with a scale for each column.
    Fp8Columns,
}

/// One kernel of the skeleton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) name: &'static str,
    pub(super) module: &'static str,
    /// Rows and columns.
    pub(super) rows: u32,
    pub(super) columns: u32,
    pub(super) stages: u32,
}

const DENSE: &str = "matmul_hopper_dense";
const FP8: &str = "matmul_hopper_fp8";

const fn tile(
    module: &'static str,
    name: &'static str,
    rows: u32,
    columns: u32,
    stages: u32,
) -> Tile {
    Tile {
        name,
        module,
        rows,
        columns,
        stages,
    }
}

/// Stages are what 227 KiB hold beside 32 KiB in which results are staged. Promoted sums of 256 x 128
/// take 64 registers of partial sums beside 128 of sums, which 128 x 256 would double.
const BF16: [Tile; 2] = [
    tile(DENSE, "matmul_hopper_bf16_128x256", 128, 256, 4),
    tile(DENSE, "matmul_hopper_bf16_128x128", 128, 128, 6),
];
const F16: [Tile; 2] = [
    tile(DENSE, "matmul_hopper_f16_128x256", 128, 256, 4),
    tile(DENSE, "matmul_hopper_f16_128x128", 128, 128, 6),
];
const FP8_FAST: [Tile; 2] = [
    tile(FP8, "matmul_hopper_fp8_fast_128x256", 128, 256, 4),
    tile(FP8, "matmul_hopper_fp8_fast_128x128", 128, 128, 6),
];
const FP8_PROMOTED: [Tile; 2] = [
    tile(FP8, "matmul_hopper_fp8_256x128", 256, 128, 4),
    tile(FP8, "matmul_hopper_fp8_128x128", 128, 128, 6),
];
const FP8_COLUMNS: [Tile; 1] = [tile(FP8, "matmul_hopper_fp8_columns_128x128", 128, 128, 5)];

impl Sums {
    /// The kernels, the larger tile first.
    pub(super) const fn tiles(self) -> &'static [Tile] {
        match self {
            Self::Bf16 => &BF16,
            Self::F16 => &F16,
            Self::Fp8Fast => &FP8_FAST,
            Self::Fp8 => &FP8_PROMOTED,
            Self::Fp8Columns => &FP8_COLUMNS,
        }
    }

    const fn element_bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::Fp8Fast | Self::Fp8 | Self::Fp8Columns => 1,
        }
    }
}

impl Tile {
    /// Whether a pair of blocks shares B, and its tiles are neighbours along rows.
    const fn shares_b(&self) -> bool {
        self.columns >= self.rows
    }

    /// Rows of the copy engine's boxes of A and of B.
    pub(super) const fn boxes(&self) -> [u32; 2] {
        if self.shares_b() {
            [self.rows, self.columns / 2]
        } else {
            [self.rows / 2, self.columns]
        }
    }

    /// `sizeof(HopperShared)`: the ring, what eight warps stage, scales of columns, barriers.
    pub(super) fn shared_bytes(&self) -> u32 {
        let ring = self.stages * (self.rows + self.columns) * SLICE_BYTES as u32;
        let scales = if self.name == FP8_COLUMNS[0].name {
            self.stages * self.columns * 4
        } else {
            16
        };
        (ring + 8 * 4096 + scales + 2 * self.stages * 8).next_multiple_of(16)
    }

    pub(super) fn launch(&self, grid: u32, cluster: u32) -> LaunchConfig {
        LaunchConfig {
            grid,
            block: 384,
            cluster,
            shared_bytes: self.shared_bytes(),
        }
    }

    /// Rows and columns of units of `cluster` tiles; of m-groups of equal size, as good a guess as any
    /// where sizes lie on the device.
    fn units(&self, shape: &MatmulShape, cluster: u32) -> [u64; 3] {
        let groups = shape.grouping.count().max(1);
        let rows = match shape.grouping {
            Grouping::Rows(_) => shape.m.div_ceil(groups),
            Grouping::One | Grouping::Contraction(_) => shape.m,
        };
        let mut rows = rows.div_ceil(self.rows as usize) as u64;
        let mut columns = shape.n.div_ceil(self.columns as usize) as u64;
        if self.shares_b() {
            rows = rows.div_ceil(u64::from(cluster));
        } else {
            columns = columns.div_ceil(u64::from(cluster));
        }
        [rows, columns, groups as u64]
    }

    /// Predicted clocks.
    fn time(&self, shape: &MatmulShape, sums: Sums, cluster: u32, resident: Resident) -> u64 {
        let [rows, columns, groups] = self.units(shape, cluster);
        let clusters = resident.clusters(cluster).max(1);
        let waves = (rows * columns * groups).div_ceil(clusters);
        let k = match shape.grouping {
            Grouping::Contraction(_) => shape.k.div_ceil(groups as usize),
            Grouping::One | Grouping::Rows(_) => shape.k,
        };
        let slices = (k * sums.element_bytes()).div_ceil(SLICE_BYTES) as u64;
        let [tile_rows, tile_columns] = [u64::from(self.rows), u64::from(self.columns)];
        let longer = tile_rows.max(tile_columns);
        let lines = tile_rows + tile_columns - longer + longer / u64::from(cluster);
        let products = tile_rows * tile_columns / 32;
        let slice = products.max(lines * SLICE_BYTES as u64 / L2_BYTES);
        waves * (slices * slice + EPILOGUE)
    }
}

/// What a device holds at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resident {
    /// Blocks.
    pub(super) blocks: u32,
    /// Clusters of two: fewer than half of them where multiprocessors are grouped unevenly, none where
    /// pairs do not fit.
    pub(super) pairs: u32,
}

impl Resident {
    fn clusters(self, cluster: u32) -> u64 {
        u64::from(if cluster == 2 {
            self.pairs
        } else {
            self.blocks
        })
    }
}

/// How a product is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HopperPlan {
    /// Which of [`Sums::tiles`].
    pub(super) tile: usize,
    pub(super) cluster: u32,
    pub(super) grid: u32,
    /// Rows of units that are walked side by side.
    pub(super) raster: u32,
}

impl HopperPlan {
    /// The quickest, or `None` where the portable kernels are expected to be quicker: few rows, and
    /// few tiles of a long contraction, which they divide.
    pub(super) fn new(shape: &MatmulShape, sums: Sums, resident: Resident) -> Option<Self> {
        let rows = match shape.grouping {
            Grouping::Rows(groups) => shape.m / groups.max(1),
            Grouping::One | Grouping::Contraction(_) => shape.m,
        };
        if rows <= FEW_ROWS {
            return None;
        }
        let slices = (shape.k * sums.element_bytes()).div_ceil(SLICE_BYTES);
        let tiles = shape.m.div_ceil(128) * shape.n.div_ceil(128);
        if shape.grouping == Grouping::One
            && 2 * tiles <= resident.blocks as usize
            && slices >= SPLIT_SLICES
        {
            return None;
        }
        Some(Self::fastest(shape, sums, resident))
    }

    /// The quickest of these kernels.
    pub(super) fn fastest(shape: &MatmulShape, sums: Sums, resident: Resident) -> Self {
        let mut best = (0, 1);
        let mut least = u64::MAX;
        // The first of equals: larger tiles, and pairs.
        for (index, tile) in sums.tiles().iter().enumerate() {
            for cluster in [2, 1] {
                if resident.clusters(cluster) == 0 {
                    continue;
                }
                let time = tile.time(shape, sums, cluster, resident);
                if time < least {
                    (best, least) = ((index, cluster), time);
                }
            }
        }
        Self::of(shape, sums, best.0, best.1, resident)
    }

    /// With the tile and cluster given.
    pub(super) fn of(
        shape: &MatmulShape,
        sums: Sums,
        tile: usize,
        cluster: u32,
        resident: Resident,
    ) -> Self {
        let chosen = sums.tiles()[tile];
        let [rows, columns, groups] = chosen.units(shape, cluster);
        let clusters = resident.clusters(cluster).max(1);
        let units = match shape.grouping {
            // Each group may have a row of units more than its share.
            Grouping::Rows(_) => (rows + 1) * columns * groups,
            Grouping::One | Grouping::Contraction(_) => rows * columns * groups,
        };
        let at_once = units.clamp(1, clusters);
        Self {
            tile,
            cluster,
            grid: at_once as u32 * cluster,
            raster: raster(&chosen, cluster, at_once),
        }
    }
}

/// 8 or 16 rows of units: a wave of `units` reads raster M_u rows of A and (units / raster) N_u of B,
/// and L2 keeps less of the fewer.
fn raster(tile: &Tile, cluster: u32, units: u64) -> u32 {
    let [mut rows, mut columns] = [u64::from(tile.rows), u64::from(tile.columns)];
    if tile.shares_b() {
        rows *= u64::from(cluster);
    } else {
        columns *= u64::from(cluster);
    }
    let read = |raster: u64| raster * rows + units.div_ceil(raster) * columns;
    if read(16) < read(8) { 16 } else { 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: Resident = Resident {
        blocks: 132,
        pairs: 66,
    };

    fn shape(m: usize, n: usize, k: usize) -> MatmulShape {
        MatmulShape {
            m,
            n,
            k,
            grouping: Grouping::One,
        }
    }

    fn chosen(m: usize, n: usize, k: usize, sums: Sums) -> (&'static str, HopperPlan) {
        let plan = HopperPlan::new(&shape(m, n, k), sums, H200).unwrap();
        (sums.tiles()[plan.tile].name, plan)
    }

    #[test]
    fn large_products_take_large_tiles_in_pairs() {
        for (m, n, k) in [
            (4096, 7168, 16384),
            (8192, 4096, 4096),
            (16384, 14336, 4096),
        ] {
            let (name, plan) = chosen(m, n, k, Sums::Fp8);
            assert_eq!(name, "matmul_hopper_fp8_256x128", "{m} {n} {k}");
            assert_eq!((plan.cluster, plan.grid), (2, 132));
            let (name, plan) = chosen(m, n, k, Sums::Bf16);
            assert_eq!(name, "matmul_hopper_bf16_128x256", "{m} {n} {k}");
            assert_eq!((plan.cluster, plan.grid), (2, 132));
        }
    }

    #[test]
    fn small_results_take_small_tiles() {
        // 32 tiles of 256 x 128 would leave 100 multiprocessors idle, 64 of 128 x 128 only 68.
        let (name, plan) = chosen(1024, 1024, 1024, Sums::Fp8);
        assert_eq!(name, "matmul_hopper_fp8_128x128");
        assert_eq!(plan.grid, 64);
    }

    #[test]
    fn few_rows_and_few_long_tiles_are_the_portable_kernels() {
        assert_eq!(
            HopperPlan::new(&shape(64, 8192, 8192), Sums::Fp8, H200),
            None
        );
        assert_eq!(
            HopperPlan::new(&shape(256, 256, 8192), Sums::Fp8, H200),
            None
        );
        assert!(HopperPlan::new(&shape(256, 256, 512), Sums::Fp8, H200).is_some());
        let groups = MatmulShape {
            grouping: Grouping::Rows(8),
            ..shape(512, 4096, 4096)
        };
        assert_eq!(HopperPlan::new(&groups, Sums::Fp8, H200), None);
    }

    #[test]
    fn one_row_of_tiles_is_no_pair_of_rows() {
        // 128 x 256 shares B between two rows of tiles; a lone row would leave half of each pair idle.
        let plan = HopperPlan::fastest(&shape(128, 1 << 16, 4096), Sums::Bf16, H200);
        assert_eq!(plan.cluster, 1);
    }

    #[test]
    fn launches_fit_the_device() {
        let all = [
            Sums::Bf16,
            Sums::F16,
            Sums::Fp8Fast,
            Sums::Fp8,
            Sums::Fp8Columns,
        ];
        for sums in all {
            for tile in sums.tiles() {
                assert!(tile.shared_bytes() <= 232_448, "{}", tile.name);
                assert!(tile.boxes().iter().all(|&rows| rows <= 256));
            }
            for m in (1..5000).step_by(97) {
                for cluster in [1, 2] {
                    let plan = HopperPlan::of(&shape(m, 3 * m, 64), sums, 0, cluster, H200);
                    assert!(plan.grid.is_multiple_of(cluster) && plan.grid <= H200.blocks);
                    assert!(plan.grid > 0 && [8, 16].contains(&plan.raster));
                }
            }
        }
    }

    #[test]
    fn shared_memory_is_the_kernels() {
        // The static_asserts of kernels/matmul/hopper_{dense,fp8}.cu.
        let bytes =
            |sums: Sums| -> Vec<u32> { sums.tiles().iter().map(Tile::shared_bytes).collect() };
        assert_eq!(bytes(Sums::Bf16), [229_456, 229_488]);
        assert_eq!(bytes(Sums::Fp8), [229_456, 229_488]);
        assert_eq!(bytes(Sums::Fp8Columns), [199_248]);
    }

    #[test]
    fn rasters_keep_what_a_wave_reads_square() {
        let of = |sums: Sums, cluster, units| raster(&sums.tiles()[0], cluster, units);
        // 66 pairs of 128 x 256: 8 x 256 + 9 x 256 beats 16 x 256 + 5 x 256.
        assert_eq!(of(Sums::Bf16, 2, 66), 8);
        // 132 of 128 x 256: 16 x 128 + 9 x 256 beats 8 x 128 + 17 x 256.
        assert_eq!(of(Sums::Bf16, 1, 132), 16);
    }
}
