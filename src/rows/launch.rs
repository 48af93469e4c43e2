//! How a row is spread over threads: the ladder of configurations, and which rung a call takes.

use super::RowShape;
use crate::{DType, TensorRef};

/// How a thread holds its part of a row: `RowLayout` of kernels/common/columns.cuh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    /// In a kernel's name.
    pub(crate) name: &'static str,
    /// Elements of a unit, which one access moves.
    pub(crate) chunk: usize,
    /// Units of a thread.
    pub(crate) units: usize,
    /// Whether a unit's elements lie apart and move one by one.
    pub(crate) spread: bool,
}

impl Layout {
    pub(crate) const C8U1: Self = Self::new("c8u1", 8, 1, false);
    pub(crate) const C8U2: Self = Self::new("c8u2", 8, 2, false);
    pub(crate) const C8U4: Self = Self::new("c8u4", 8, 4, false);
    pub(crate) const C8U8: Self = Self::new("c8u8", 8, 8, false);
    pub(crate) const C4U1: Self = Self::new("c4u1", 4, 1, false);
    pub(crate) const C4U2: Self = Self::new("c4u2", 4, 2, false);
    pub(crate) const C4U4: Self = Self::new("c4u4", 4, 4, false);
    pub(crate) const C4U8: Self = Self::new("c4u8", 4, 8, false);
    pub(crate) const S4U2: Self = Self::new("s4u2", 4, 2, true);
    pub(crate) const S4U1: Self = Self::new("s4u1", 4, 1, true);
    pub(crate) const S4U4: Self = Self::new("s4u4", 4, 4, true);

    const fn new(name: &'static str, chunk: usize, units: usize, spread: bool) -> Self {
        Self {
            name,
            chunk,
            units,
            spread,
        }
    }

    /// Columns that a thread holds.
    pub(crate) const fn columns(&self) -> usize {
        self.chunk * self.units
    }
}

/// A configuration: what holds a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rung {
    pub(crate) layout: Layout,
    /// The most threads of a block that share a row.
    pub(crate) threads: usize,
    /// Blocks that share a row.
    pub(crate) cluster: u32,
    /// Whether a thread's units may go round to cover a longer row.
    pub(crate) rounds: bool,
    /// Why it is there.
    pub(crate) reason: &'static str,
}

impl Rung {
    const fn new(layout: Layout, threads: usize, cluster: u32, reason: &'static str) -> Self {
        Self {
            layout,
            threads,
            cluster,
            rounds: true,
            reason,
        }
    }

    const fn once(mut self) -> Self {
        self.rounds = false;
        self
    }

    /// The longest row it holds.
    pub(crate) const fn capacity(&self) -> usize {
        self.layout.columns() * self.threads * self.cluster as usize
    }
}

/// The configurations of a kind of operation. A row takes the first that holds it, of those whose
/// layout fits its tensors and that the operation and the device have. Where none holds it, the one
/// that holds most of it goes round in segments, and reads the row twice.
#[derive(Debug)]
pub(crate) struct Ladder {
    rungs: &'static [Rung],
    /// Threads of a block, where a row takes fewer: several teams share it.
    block: usize,
}

impl Ladder {
    /// The launch bound of a layout's kernels.
    fn bound(&self, layout: &Layout) -> usize {
        let rungs = self.rungs.iter().filter(|rung| rung.layout == *layout);
        rungs.map(|rung| rung.threads).max().unwrap_or(0)
    }
}

/// Operations that keep nothing from row to row.
///
/// A thread has as many bytes in flight as keep memory busy with the blocks that its registers allow
/// (about 24 KiB a multiprocessor on an H200), and a row as few threads as that gives: a row within
/// one warp meets no barrier. No measurement chose these numbers yet.
pub(crate) const FORWARD: Ladder = Ladder {
    block: 256,
    rungs: &[
        // 16-bit tensors.
        Rung::new(
            Layout::C8U2,
            16,
            1,
            "to 256 columns: several rows a warp, 32 bytes a lane",
        ),
        Rung::new(
            Layout::C8U4,
            256,
            1,
            "to 8192: a warp a row to 1024; 64 bytes a thread",
        ),
        Rung::new(
            Layout::C8U8,
            256,
            1,
            "to 16384: registers cost less than an exchange of blocks",
        ),
        Rung::new(
            Layout::C8U2,
            256,
            1,
            "to 4096, for operations without the two before",
        ),
        Rung::new(Layout::C8U4, 256, 4, "to 32768: four blocks' registers"),
        Rung::new(
            Layout::C8U4,
            256,
            8,
            "to 65536: the largest cluster that every such GPU has",
        ),
        Rung::new(
            Layout::C8U4,
            256,
            16,
            "to 131072: the largest cluster there is",
        ),
        Rung::new(
            Layout::C8U8,
            256,
            16,
            "to 262144: all registers of the largest cluster",
        ),
        Rung::new(
            Layout::C8U8,
            256,
            8,
            "to 131072 where there is no cluster of 16",
        ),
        // f32 among the tensors: half the elements take as many registers.
        Rung::new(
            Layout::C4U4,
            256,
            1,
            "to 4096: as C8U4, in elements of twice the size",
        ),
        Rung::new(Layout::C4U8, 256, 1, "to 8192: as C8U8"),
        Rung::new(Layout::C4U8, 256, 2, "to 16384"),
        Rung::new(Layout::C4U8, 256, 4, "to 32768"),
        Rung::new(Layout::C4U8, 256, 8, "to 65536"),
        Rung::new(Layout::C4U8, 256, 16, "to 131072"),
        Rung::new(
            Layout::C4U8,
            512,
            16,
            "to 262144: two blocks' worth of threads in one",
        ),
        Rung::new(
            Layout::C4U8,
            512,
            8,
            "to 131072 where there is no cluster of 16",
        ),
        // Rows that do not begin or end on a vector's boundary.
        Rung::new(
            Layout::S4U4,
            512,
            1,
            "to 8192: neighbouring threads, neighbouring elements",
        ),
        Rung::new(Layout::S4U4, 512, 2, "to 16384"),
        Rung::new(Layout::S4U4, 512, 4, "to 32768"),
        Rung::new(Layout::S4U4, 512, 8, "to 65536"),
        Rung::new(
            Layout::S4U4,
            512,
            16,
            "to 131072; longer odd rows are read twice",
        ),
    ],
};

/// Operations that keep nothing from row to row and store their results quantised.
///
/// As [`FORWARD`], whose rungs give the same orders of sums, without those whose registers the code of
/// a format needs: eight units of 8, and eight units in blocks of 512 threads (of 128 registers each,
/// which spill). No measurement chose these numbers yet.
#[cfg(feature = "quant")]
pub(crate) const QUANTIZED: Ladder = Ladder {
    block: 256,
    rungs: &[
        // 16-bit tensors.
        Rung::new(Layout::C8U2, 16, 1, "to 256 columns: several rows a warp"),
        Rung::new(Layout::C8U4, 256, 1, "to 8192: a warp a row to 1024"),
        Rung::new(
            Layout::C8U2,
            256,
            1,
            "to 4096, for operations without the one before",
        ),
        Rung::new(Layout::C8U4, 256, 4, "to 32768: four blocks' registers"),
        Rung::new(
            Layout::C8U4,
            256,
            8,
            "to 65536: the largest cluster that every such GPU has",
        ),
        Rung::new(
            Layout::C8U4,
            256,
            16,
            "to 131072; longer rows are read twice",
        ),
        // f32 among the tensors.
        Rung::new(Layout::C4U4, 256, 1, "to 4096: as C8U4"),
        Rung::new(Layout::C4U8, 256, 1, "to 8192"),
        Rung::new(Layout::C4U8, 256, 2, "to 16384"),
        Rung::new(Layout::C4U8, 256, 4, "to 32768"),
        Rung::new(Layout::C4U8, 256, 8, "to 65536"),
        Rung::new(
            Layout::C4U8,
            256,
            16,
            "to 131072; longer rows are read twice",
        ),
        // Rows that do not begin or end on a vector's boundary.
        Rung::new(Layout::S4U4, 512, 1, "to 8192: as in FORWARD"),
        Rung::new(Layout::S4U4, 512, 2, "to 16384"),
        Rung::new(Layout::S4U4, 512, 4, "to 32768"),
        Rung::new(Layout::S4U4, 512, 8, "to 65536"),
        Rung::new(
            Layout::S4U4,
            512,
            16,
            "to 131072; longer odd rows are read twice",
        ),
    ],
};

/// Operations that keep sums over rows for every column, in registers where these hold them.
///
/// 128 registers a thread leave 512 threads a multiprocessor, with two tensors' next row on its way.
/// A block has all of them, since each writes a row of partial sums. No measurement chose these
/// numbers yet.
pub(crate) const BACKWARD: Ladder = Ladder {
    block: 512,
    rungs: &[
        // 16-bit tensors.
        Rung::new(
            Layout::C8U2,
            512,
            1,
            "to 8192: 16 columns' sums in registers",
        )
        .once(),
        Rung::new(Layout::C8U2, 512, 2, "to 16384").once(),
        Rung::new(Layout::C8U2, 512, 4, "to 32768").once(),
        Rung::new(Layout::C8U2, 512, 8, "to 65536").once(),
        Rung::new(Layout::C8U2, 512, 16, "to 131072").once(),
        Rung::new(
            Layout::C8U4,
            384,
            2,
            "to 24576: 32 columns a thread, their sums in memory",
        ),
        Rung::new(Layout::C8U4, 384, 4, "to 49152"),
        Rung::new(Layout::C8U4, 384, 8, "to 98304"),
        Rung::new(Layout::C8U4, 384, 16, "to 196608"),
        Rung::new(Layout::C8U4, 384, 1, "to 12288 where there are no clusters"),
        // f32 among the tensors.
        Rung::new(
            Layout::C4U2,
            512,
            1,
            "to 4096: 8 columns' sums in registers",
        )
        .once(),
        Rung::new(Layout::C4U2, 512, 2, "to 8192").once(),
        Rung::new(Layout::C4U2, 512, 4, "to 16384").once(),
        Rung::new(Layout::C4U2, 512, 8, "to 32768").once(),
        Rung::new(Layout::C4U2, 512, 16, "to 65536").once(),
        // Odd rows, and longer ones of f32, which lose nothing by moving one element at a time.
        Rung::new(Layout::S4U2, 512, 1, "to 4096: sums in memory"),
        Rung::new(Layout::S4U2, 512, 2, "to 8192"),
        Rung::new(Layout::S4U2, 512, 4, "to 16384"),
        Rung::new(Layout::S4U2, 512, 8, "to 32768"),
        Rung::new(
            Layout::S4U2,
            512,
            16,
            "to 65536; longer odd rows are read twice",
        ),
    ],
};

/// The launch of a rung for rows of so many columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowLaunch {
    pub(crate) rung: Rung,
    /// Threads of a block that share a row.
    pub(crate) threads: usize,
    /// Rows that a block works on at a time.
    pub(crate) teams: usize,
    /// How often a thread's units go round to cover a row.
    pub(crate) segments: usize,
}

impl RowLaunch {
    fn new(rung: Rung, columns: usize, block: usize) -> Self {
        let segments = columns.div_ceil(rung.capacity()).max(1);
        let share = columns.div_ceil(segments * rung.cluster as usize);
        let wanted = share.div_ceil(rung.layout.columns()).max(1);
        // Lanes of a warp in a power of two, warps in any number; a cluster's blocks have two at least,
        // so that their merges have a barrier.
        let threads = if rung.cluster > 1 {
            wanted.next_multiple_of(32).max(64)
        } else if wanted <= 32 {
            wanted.next_power_of_two()
        } else {
            wanted.next_multiple_of(32)
        };
        let teams = if rung.cluster > 1 || segments > 1 {
            1
        } else {
            (block / threads).max(1)
        };
        Self {
            rung,
            threads,
            teams,
            segments,
        }
    }

    /// Threads of a block.
    pub(crate) fn block(&self) -> usize {
        self.threads * self.teams
    }
}

/// Which layouts an operation has kernels for, in blocks and in clusters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Available<'a> {
    pub(crate) ladder: &'static Ladder,
    pub(crate) block: &'a [Layout],
    pub(crate) cluster: &'a [Layout],
    /// The largest cluster of the device; 1 where there are none.
    pub(crate) largest_cluster: u32,
}

impl Available<'_> {
    fn has(&self, rung: &Rung) -> bool {
        if rung.cluster == 1 {
            self.block.contains(&rung.layout)
        } else {
            rung.cluster <= self.largest_cluster && self.cluster.contains(&rung.layout)
        }
    }

    /// The launches for rows of so many columns in layouts that `fits`, best first: the device may
    /// turn out to hold no cluster of the first.
    pub(crate) fn launches(
        &self,
        columns: usize,
        fits: impl Fn(&Layout) -> bool,
    ) -> Vec<RowLaunch> {
        let there = || {
            let rungs = self.ladder.rungs.iter();
            rungs.filter(|r| self.has(r) && fits(&r.layout))
        };
        let mut rungs: Vec<Rung> = there()
            .filter(|r| r.capacity() >= columns)
            .copied()
            .collect();
        if rungs.first().is_none_or(|rung| rung.cluster > 1) {
            // Round in segments: in the largest clusters, or without any.
            let last = |most: u32| {
                let round = there().filter(|r| r.rounds && r.cluster <= most);
                round
                    .max_by_key(|r| (r.capacity(), !r.layout.spread))
                    .copied()
            };
            rungs.extend([last(16), last(8), last(1)].into_iter().flatten());
        }
        let launch = |rung: Rung| {
            let block = self.ladder.block.min(self.ladder.bound(&rung.layout));
            RowLaunch::new(rung, columns, block)
        };
        rungs.into_iter().map(launch).collect()
    }
}

/// What decides whether a row's units are neighbours that one access moves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alignment {
    wide: bool,
    /// Addresses in bytes and strides in elements of the rows' tensors, with the element's bits.
    rows: Vec<(u64, [usize; 2], usize)>,
    /// Addresses and sizes of the elements of vectors of columns.
    vectors: Vec<(u64, usize)>,
}

impl Alignment {
    pub(crate) fn add_rows(&mut self, view: &TensorRef<'_>, shape: RowShape) {
        self.wide |= view.dtype() == DType::F32;
        let [token, head] = shape.strides(view);
        // A stride that is never taken does not matter.
        let strides = [
            if shape.tokens > 1 { token } else { 0 },
            if shape.heads > 1 { head } else { 0 },
        ];
        self.add_bits(view.address(), strides, 8 * view.dtype().size());
    }

    pub(super) fn add_bits(&mut self, address: u64, strides: [usize; 2], bits: usize) {
        self.rows.push((address, strides, bits));
    }

    pub(crate) fn add_vector(&mut self, view: &TensorRef<'_>) {
        self.vectors.push((view.address(), view.dtype().size()));
    }

    /// Whether a layout suits the tensors, with rows of so many columns.
    pub(crate) fn fits(&self, layout: &Layout, columns: usize) -> bool {
        if layout.spread {
            return true;
        }
        let chunk = layout.chunk;
        (chunk == 4 || !self.wide)
            && columns.is_multiple_of(chunk)
            && self.rows.iter().all(|(address, strides, bits)| {
                address.is_multiple_of((chunk * bits / 8) as u64)
                    && strides.iter().all(|stride| stride.is_multiple_of(chunk))
            })
            && self
                .vectors
                .iter()
                .all(|(address, size)| address.is_multiple_of((chunk * size).min(16) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available<'a>(
        ladder: &'static Ladder,
        all: &'a [Layout],
        largest_cluster: u32,
    ) -> Available<'a> {
        Available {
            ladder,
            block: all,
            cluster: all,
            largest_cluster,
        }
    }

    const LADDERS: &[&Ladder] = &[
        &FORWARD,
        &BACKWARD,
        #[cfg(feature = "quant")]
        &QUANTIZED,
    ];

    /// Sums of quantised rows have the order of the plain ones, wherever both have the layout.
    #[cfg(feature = "quant")]
    #[test]
    fn quantised_rows_of_f32_take_the_rungs_of_plain_ones() {
        for columns in [4, 100, 4096, 8192, 8196, 16_384, 40_000, 131_072] {
            for chunk in [4, 8] {
                let plain = shape(&FORWARD, columns, chunk);
                if chunk == 4 || columns <= 8192 || (16_385..=131_072).contains(&columns) {
                    assert_eq!(
                        shape(&QUANTIZED, columns, chunk),
                        plain,
                        "{columns} columns"
                    );
                }
            }
        }
    }

    const ALL: [Layout; 8] = [
        Layout::C8U2,
        Layout::C8U4,
        Layout::C8U8,
        Layout::C4U2,
        Layout::C4U4,
        Layout::C4U8,
        Layout::S4U2,
        Layout::S4U4,
    ];

    /// Threads, teams, blocks and segments of a row in units of `chunk`.
    fn shape(ladder: &'static Ladder, columns: usize, chunk: usize) -> (usize, usize, u32, usize) {
        let launches =
            available(ladder, &ALL, 16).launches(columns, |l| l.chunk == chunk && !l.spread);
        let launch = launches[0];
        (
            launch.threads,
            launch.teams,
            launch.rung.cluster,
            launch.segments,
        )
    }

    #[test]
    fn widths_of_models() {
        for (columns, forward, backward) in [
            (64, (4, 64, 1, 1), (4, 128, 1, 1)),
            (128, (8, 32, 1, 1), (8, 64, 1, 1)),
            (1024, (32, 8, 1, 1), (64, 8, 1, 1)),
            (4096, (128, 2, 1, 1), (256, 2, 1, 1)),
            (5120, (160, 1, 1, 1), (320, 1, 1, 1)),
            (8192, (256, 1, 1, 1), (512, 1, 1, 1)),
            (16_384, (256, 1, 1, 1), (512, 1, 2, 1)),
            (65_536, (256, 1, 8, 1), (512, 1, 8, 1)),
            (131_072, (256, 1, 16, 1), (512, 1, 16, 1)),
            (262_144, (256, 1, 16, 1), (256, 1, 16, 2)),
        ] {
            assert_eq!(shape(&FORWARD, columns, 8), forward, "{columns} columns");
            assert_eq!(shape(&BACKWARD, columns, 8), backward, "{columns} columns");
        }
        assert_eq!(shape(&FORWARD, 4096, 4), (256, 1, 1, 1));
        assert_eq!(shape(&FORWARD, 262_144, 4), (512, 1, 16, 1));
        assert_eq!(shape(&BACKWARD, 4096, 4), (512, 1, 1, 1));
    }

    #[test]
    fn every_launch_covers_its_row() {
        for columns in [
            1, 7, 8, 100, 256, 257, 4097, 8200, 12_296, 16_384, 16_385, 50_257, 131_073, 262_144,
        ] {
            for ladder in LADDERS {
                for chunk in [8, 4] {
                    for cluster in [1, 8, 16] {
                        let launches = available(ladder, &ALL, cluster)
                            .launches(columns, |l| l.spread || l.chunk == chunk);
                        for launch in &launches {
                            let rung = launch.rung;
                            let held = rung.layout.columns() * launch.threads * launch.segments;
                            assert!(held * rung.cluster as usize >= columns);
                            assert!(launch.threads <= rung.threads);
                            assert!(launch.segments == 1 || rung.rounds);
                            let bound = ladder.bound(&rung.layout);
                            assert!(launch.block() <= bound, "{columns}: {launch:?}");
                            assert!(launch.block().is_multiple_of(32));
                            // Named barriers are 16 a block, the first for the whole of it.
                            assert!(launch.threads <= 32 || launch.teams <= 15);
                        }
                        assert!(launches.iter().any(|l| l.rung.cluster == 1));
                    }
                }
            }
        }
    }

    #[test]
    fn every_rung_has_its_rows() {
        for ladder in LADDERS {
            for (index, rung) in ladder.rungs.iter().enumerate() {
                assert!(rung.threads <= 512 && rung.cluster <= 16 && !rung.reason.is_empty());
                let only = [rung.layout];
                let chosen =
                    available(ladder, &only, rung.cluster).launches(rung.capacity(), |_| true);
                assert!(chosen.iter().any(|l| l.rung == *rung), "rung {index}");
            }
        }
    }
}
