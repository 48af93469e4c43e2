//! Which kernel a loss runs on, and in what shape it is launched.

use super::params::Moments;
use crate::device::launch::LaunchConfig;
use crate::{DType, Device};

/// Shared memory before the slices: `kSliceOffset` of kernels/loss/softmax_cluster.cu.
const CLUSTER_HEADER_BYTES: u32 = 4288;
/// `sizeof(BlockShared)` of kernels/loss/softmax_block.cu.
const BLOCK_SHARED_BYTES: u32 = 1584;
/// Scratch of the kernels of kernels/loss/softmax_batch.cu.
const BATCH_SHARED_BYTES: u32 = 256;
/// The most dynamic shared memory of a block on compute capability 9.0 and 10.0.
const CLUSTER_SHARED_LIMIT: u32 = 227 * 1024;
/// `kMaxStages`.
const MAX_STAGES: u32 = 4;
/// Threads of a consumer group; with two groups and the producer's warp, the launch bound.
const MAX_GROUP_THREADS: usize = 192;
/// Threads of one block of the portable kernel, its launch bound.
const BLOCK_THREADS: u32 = 640;
/// Threads of the one block that reduces a batch.
const BATCH_THREADS: u32 = 512;

/// The kernel that does a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KernelPath {
    /// The formulas in f64, on the CPU.
    Reference,
    /// One block a row, from compute capability 8.0 on: forward with gradient reads the logits
    /// twice.
    Block,
    /// A cluster's shared memory holds the row: compute capability 9.0, 10.0 and 10.3. Forward with
    /// gradient reads the logits once. Backward from a saved state runs on `Block`, which reads
    /// them once as well.
    Cluster,
}

impl KernelPath {
    /// The fastest path of the device.
    pub(super) fn best(device: &Device) -> KernelPath {
        match device.compute_capability() {
            None => KernelPath::Reference,
            Some((9, 0) | (10, 0 | 3)) => KernelPath::Cluster,
            Some(_) => KernelPath::Block,
        }
    }
}

/// The module and the name of a row kernel.
pub(super) fn row_kernel(
    path: KernelPath,
    logits: DType,
    gradient: DType,
    moments: Moments,
) -> (&'static str, String) {
    let (module, stem) = match path {
        KernelPath::Cluster => ("loss_softmax_cluster", "softmax_loss_cluster"),
        _ => ("loss_softmax_block", "softmax_loss_block"),
    };
    let suffix = if moments == Moments::All { "_full" } else { "" };
    (
        module,
        format!("{stem}_{}_{}{suffix}", short(logits), short(gradient)),
    )
}

/// The type's name in a kernel's name.
pub(super) fn short(dtype: DType) -> &'static str {
    match dtype {
        DType::Bf16 => "bf16",
        DType::F16 => "f16",
        _ => "f32",
    }
}

/// A launch of the cluster kernel, but for the grid, which the device's occupancy gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClusterShape {
    /// Blocks that share a row.
    pub(super) cluster: u32,
    /// Rows in flight in each.
    pub(super) stages: u32,
    /// Shared memory of one row's slice.
    pub(super) stage_bytes: u32,
    /// Threads of a block: two groups and the producer's warp.
    pub(super) threads: u32,
}

impl ClusterShape {
    /// The shapes that hold rows of `vocab` elements of `element_bytes`, best first.
    ///
    /// The smallest cluster that keeps three rows in flight: the two groups hold one each, so only
    /// a third is on its way while they compute; and a row's exchange costs less in a small
    /// cluster. Clusters above 8 blocks are not portable: where the device holds none, 8 blocks
    /// with fewer rows in flight remain.
    ///
    /// A group has as many threads as give each about eight vectors, within 32 and 192: more threads
    /// on a short row would only wait, and several such blocks share a multiprocessor. No
    /// measurement chose these numbers yet.
    pub(super) fn candidates(vocab: usize, element_bytes: usize) -> Vec<ClusterShape> {
        let vectors = vocab * element_bytes / 16;
        let shape = |cluster: u32| {
            let share = vectors.div_ceil(cluster as usize);
            let stage_bytes = u32::try_from(share * 16).ok()?.max(16);
            let stages = (CLUSTER_SHARED_LIMIT - CLUSTER_HEADER_BYTES) / stage_bytes;
            let group = share
                .div_ceil(8)
                .next_multiple_of(32)
                .clamp(32, MAX_GROUP_THREADS) as u32;
            (stages > 0).then_some(ClusterShape {
                cluster,
                stages: stages.min(MAX_STAGES),
                stage_bytes,
                threads: 2 * group + 32,
            })
        };
        let shapes: Vec<ClusterShape> = [1, 2, 4, 8, 16].into_iter().filter_map(shape).collect();
        let best = shapes.iter().find(|s| s.stages >= 3);
        let portable = shapes.iter().rfind(|s| s.cluster <= 8);
        let last = shapes.last();
        let mut ordered: Vec<ClusterShape> = Vec::new();
        for shape in [best, portable, last].into_iter().flatten() {
            if !ordered.contains(shape) {
                ordered.push(*shape);
            }
        }
        ordered
    }

    /// The launch with one cluster; the grid grows to what the device holds.
    pub(super) fn launch(&self, clusters: u32) -> LaunchConfig {
        LaunchConfig {
            grid: clusters * self.cluster,
            block: self.threads,
            cluster: self.cluster,
            shared_bytes: CLUSTER_HEADER_BYTES + self.stages * self.stage_bytes,
        }
    }
}

/// The launch of the portable kernel on `blocks` blocks, for rows of `vocab` elements.
pub(super) fn block_launch(vocab: usize, element_bytes: usize, blocks: u32) -> LaunchConfig {
    let vectors = vocab * element_bytes / 16;
    let block = vectors
        .next_multiple_of(32)
        .clamp(64, BLOCK_THREADS as usize) as u32;
    LaunchConfig {
        grid: blocks,
        block,
        cluster: 1,
        shared_bytes: BLOCK_SHARED_BYTES,
    }
}

/// The launch of the kernels that see the batch as a whole.
pub(super) fn batch_launch() -> LaunchConfig {
    LaunchConfig {
        grid: 1,
        block: BATCH_THREADS,
        cluster: 1,
        shared_bytes: BATCH_SHARED_BYTES,
    }
}

/// The launch of the kernel that rescales the kept rows.
pub(super) fn rescale_launch(blocks: u32) -> LaunchConfig {
    LaunchConfig {
        grid: blocks,
        block: 512,
        cluster: 1,
        shared_bytes: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(vocab: usize, bytes: usize) -> (u32, u32) {
        let shape = ClusterShape::candidates(vocab, bytes)[0];
        (shape.cluster, shape.stages)
    }

    /// Cluster and rows in flight of the vocabularies that models use.
    #[test]
    fn real_vocabularies_stay_resident() {
        for (vocab, bytes, expected) in [
            (32_000, 2, (1, 3)),
            (50_257, 2, (2, 4)),
            (128_256, 2, (4, 3)),
            (151_936, 2, (4, 3)),
            (262_144, 2, (8, 3)),
            (128_256, 4, (8, 3)),
            (151_936, 4, (8, 3)),
            (262_144, 4, (16, 3)),
        ] {
            assert_eq!(best(vocab, bytes), expected, "{vocab} x {bytes} bytes");
        }
    }

    #[test]
    fn a_device_without_large_clusters_has_a_ring_of_one() {
        let second = ClusterShape::candidates(262_144, 4)[1];
        assert_eq!((second.cluster, second.stages), (8, 1));
    }

    #[test]
    fn every_candidate_fits_and_holds_its_row() {
        for vocab in [1, 7, 8, 100, 1000, 4095, 50_257, 500_000, 900_000] {
            for bytes in [2, 4] {
                for shape in ClusterShape::candidates(vocab, bytes) {
                    let launch = shape.launch(1);
                    assert!(launch.shared_bytes <= CLUSTER_SHARED_LIMIT);
                    assert!(launch.block <= 416 && (launch.block - 32) % 64 == 0);
                    assert!(
                        shape.stage_bytes as usize * shape.cluster as usize + 32 >= vocab * bytes
                    );
                }
            }
        }
    }
}
