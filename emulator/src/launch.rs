//! What to launch, and whether the architecture allows it.

use crate::architecture::Architecture;
use crate::kernel::Kernel;
use crate::report::{FindingKind, SyncSite};

/// The shape of a launch and how it is run.
///
/// ```
/// use evenkeel_emulator::Launch;
/// let launch = Launch::default().grid([16, 1, 1]).block([128, 1, 1]).shared_bytes(4096).seed(7);
/// assert_eq!(launch.block, [128, 1, 1]);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Launch {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Blocks of a cluster in x, y and z; each divides the grid's.
    pub cluster: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Draws the order of threads, blocks and asynchronous copies. Seed 0 starts blocks in order.
    pub seed: u64,
    /// Synchronisation calls that do nothing in this launch.
    pub disabled_sites: Vec<SyncSite>,
    /// Threads of the operating system to spread clusters over; all cores if absent. Results do
    /// not depend on it.
    pub workers: Option<usize>,
    /// The most basic blocks the threads of one cluster may run through together.
    pub max_steps: u64,
    /// Allows clusters up to the architecture's non-portable size.
    pub non_portable_cluster: bool,
    /// The stack of one thread, in bytes.
    pub stack_bytes: usize,
}

impl Default for Launch {
    fn default() -> Launch {
        Launch {
            grid: [1; 3],
            block: [1; 3],
            cluster: [1; 3],
            shared_bytes: 0,
            seed: 0,
            disabled_sites: Vec::new(),
            workers: None,
            max_steps: 4_000_000_000,
            non_portable_cluster: false,
            stack_bytes: 64 * 1024,
        }
    }
}

impl Launch {
    /// Sets the number of blocks.
    #[must_use]
    pub fn grid(mut self, grid: [u32; 3]) -> Launch {
        self.grid = grid;
        self
    }

    /// Sets the threads of a block.
    #[must_use]
    pub fn block(mut self, block: [u32; 3]) -> Launch {
        self.block = block;
        self
    }

    /// Sets the blocks of a cluster.
    #[must_use]
    pub fn cluster(mut self, cluster: [u32; 3]) -> Launch {
        self.cluster = cluster;
        self
    }

    /// Sets the dynamic shared memory of a block.
    #[must_use]
    pub fn shared_bytes(mut self, bytes: u32) -> Launch {
        self.shared_bytes = bytes;
        self
    }

    /// Sets the seed of the schedule.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Launch {
        self.seed = seed;
        self
    }

    /// Switches synchronisation calls off.
    #[must_use]
    pub fn disabled_sites(mut self, sites: Vec<SyncSite>) -> Launch {
        self.disabled_sites = sites;
        self
    }

    /// Sets the number of operating-system threads.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Launch {
        self.workers = Some(workers);
        self
    }

    /// Sets the bound on steps.
    #[must_use]
    pub fn max_steps(mut self, steps: u64) -> Launch {
        self.max_steps = steps;
        self
    }

    /// Allows clusters beyond the portable size.
    #[must_use]
    pub fn non_portable_cluster(mut self, allowed: bool) -> Launch {
        self.non_portable_cluster = allowed;
        self
    }

    /// Sets the stack of one thread.
    #[must_use]
    pub fn stack_bytes(mut self, bytes: usize) -> Launch {
        self.stack_bytes = bytes;
        self
    }

    fn volume(extent: [u32; 3]) -> u64 {
        extent
            .iter()
            .map(|&n| u64::from(n))
            .fold(1, u64::saturating_mul)
    }

    pub(crate) fn threads(&self) -> u32 {
        u32::try_from(Launch::volume(self.block)).unwrap_or(u32::MAX)
    }

    pub(crate) fn cluster_blocks(&self) -> u32 {
        u32::try_from(Launch::volume(self.cluster)).unwrap_or(u32::MAX)
    }

    pub(crate) fn clusters(&self) -> u64 {
        (0..3)
            .map(|i| u64::from(self.grid[i] / self.cluster[i].max(1)))
            .product()
    }

    pub(crate) fn max_active_clusters(&self, limits: &Architecture, kernel: &Kernel) -> u32 {
        if self.refusal(limits, kernel).is_some() {
            return 0;
        }
        limits.clusters_resident(self.cluster_blocks(), self.threads(), self.shared_bytes)
    }

    /// Why the architecture or the kernel does not allow this launch.
    pub(crate) fn refusal(
        &self,
        limits: &Architecture,
        kernel: &Kernel,
    ) -> Option<(FindingKind, String)> {
        let bad = |message: String| Some((FindingKind::LaunchLimits, message));
        if self.shared_bytes > limits.shared_per_block {
            let message = format!(
                "{} bytes of shared memory a block; {} gives {}",
                self.shared_bytes, limits.name, limits.shared_per_block
            );
            return Some((FindingKind::SharedTooLarge, message));
        }
        if [self.grid, self.block, self.cluster]
            .iter()
            .flatten()
            .any(|&n| n == 0)
        {
            return bad("an extent of the grid, block or cluster is 0".into());
        }
        let threads = self.threads();
        if threads > limits.threads_per_block || self.block[2] > 64 {
            return bad(format!(
                "a block of {threads} threads (z {}); {} allows {} (z 64)",
                self.block[2], limits.name, limits.threads_per_block
            ));
        }
        if threads > kernel.max_threads() {
            return bad(format!(
                "a block of {threads} threads; the kernel was compiled for at most {}",
                kernel.max_threads()
            ));
        }
        if self.grid[0] > 0x7fff_ffff || self.grid[1] > 65535 || self.grid[2] > 65535 {
            return bad(format!("a grid of {:?} blocks", self.grid));
        }
        let cluster = self.cluster_blocks();
        let most = if self.non_portable_cluster {
            limits.max_cluster_non_portable
        } else {
            limits.max_cluster
        };
        if cluster > most {
            return bad(format!(
                "clusters of {cluster} blocks; {} allows {most}{}",
                limits.name,
                if self.non_portable_cluster {
                    ""
                } else {
                    " without the non-portable attribute"
                }
            ));
        }
        if (0..3).any(|i| !self.grid[i].is_multiple_of(self.cluster[i])) {
            return bad(format!(
                "a grid of {:?} blocks is no multiple of the cluster {:?}",
                self.grid, self.cluster
            ));
        }
        if self.clusters() >= crate::clock::CLUSTER_LIMIT {
            return bad(format!(
                "{} clusters; the emulator counts to 2^23",
                self.clusters()
            ));
        }
        if limits.clusters_resident(cluster, threads, self.shared_bytes) == 0 {
            return bad("not one cluster of this shape fits on the device".into());
        }
        None
    }
}
