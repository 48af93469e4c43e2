//! The limits of a GPU that a launch is checked against.

/// The published limits of one GPU architecture.
///
/// ```
/// use evenkeel_emulator::Architecture;
/// let hopper = Architecture::sm_90();
/// assert_eq!(hopper.shared_per_block, 227 * 1024);
/// // A smaller device of the same kind: fewer blocks are resident at once.
/// let one = hopper.with_multiprocessors(1);
/// assert_eq!(one.multiprocessors, 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Architecture {
    /// The name of the architecture, as in `sm_90`.
    pub name: &'static str,
    /// Compute capability, major and minor.
    pub compute: (u32, u32),
    /// Streaming multiprocessors of the device.
    pub multiprocessors: u32,
    /// How the multiprocessors are grouped; a cluster lies within one group.
    pub processing_clusters: Vec<u32>,
    /// The most dynamic shared memory of one block, in bytes (the opt-in maximum).
    pub shared_per_block: u32,
    /// Shared memory of one multiprocessor, in bytes.
    pub shared_per_multiprocessor: u32,
    /// Shared memory the system keeps of each resident block, in bytes.
    pub shared_reserved_per_block: u32,
    /// The most threads of one block.
    pub threads_per_block: u32,
    /// The most resident threads of one multiprocessor.
    pub threads_per_multiprocessor: u32,
    /// The most resident blocks of one multiprocessor.
    pub blocks_per_multiprocessor: u32,
    /// 32-bit registers of one multiprocessor.
    pub registers_per_multiprocessor: u32,
    /// The largest cluster every device of the architecture runs; 1 where there are none.
    pub max_cluster: u32,
    /// The largest cluster a kernel may ask for with the non-portable attribute.
    pub max_cluster_non_portable: u32,
    /// Bits below the largest exponent that tensor cores keep when they add up products of 8-bit
    /// floating-point numbers.
    pub fp8_fraction_bits: u32,
    /// The same for products of bf16 and f16.
    pub half_fraction_bits: u32,
}

impl Architecture {
    #[allow(clippy::too_many_arguments)]
    fn new(
        name: &'static str,
        compute: (u32, u32),
        groups: &[u32],
        shared_block_kib: u32,
        shared_kib: u32,
        threads: u32,
        blocks: u32,
        clusters: (u32, u32),
    ) -> Architecture {
        Architecture {
            name,
            compute,
            multiprocessors: groups.iter().sum(),
            processing_clusters: groups.to_vec(),
            shared_per_block: shared_block_kib * 1024,
            shared_per_multiprocessor: shared_kib * 1024,
            shared_reserved_per_block: 1024,
            threads_per_block: 1024,
            threads_per_multiprocessor: threads,
            blocks_per_multiprocessor: blocks,
            registers_per_multiprocessor: 65536,
            max_cluster: clusters.0,
            max_cluster_non_portable: clusters.1,
            fp8_fraction_bits: 13,
            half_fraction_bits: 24,
        }
    }

    /// A100: 108 multiprocessors, 163 KiB of shared memory a block, no clusters.
    #[must_use]
    pub fn sm_80() -> Architecture {
        let groups = [16, 16, 16, 16, 16, 14, 14];
        Architecture::new("sm_80", (8, 0), &groups, 163, 164, 2048, 32, (1, 1))
    }

    /// RTX 30 and A40 class: 84 multiprocessors, 99 KiB of shared memory a block, no clusters.
    #[must_use]
    pub fn sm_86() -> Architecture {
        Architecture::new("sm_86", (8, 6), &[12; 7], 99, 100, 1536, 16, (1, 1))
    }

    /// RTX 40 and L40 class: 142 multiprocessors, 99 KiB of shared memory a block, no clusters.
    #[must_use]
    pub fn sm_89() -> Architecture {
        let groups = [12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 10];
        Architecture::new("sm_89", (8, 9), &groups, 99, 100, 1536, 24, (1, 1))
    }

    /// H100 and H200: 132 multiprocessors, 227 KiB of shared memory a block, clusters of 8 (16).
    ///
    /// The grouping of multiprocessors is not published; this one gives 15 clusters of 8 full
    /// multiprocessors, as measured on an H100.
    #[must_use]
    pub fn sm_90() -> Architecture {
        let groups = [18, 18, 18, 16, 16, 16, 16, 14];
        Architecture::new("sm_90", (9, 0), &groups, 227, 228, 2048, 32, (8, 16))
    }

    /// B200: 148 multiprocessors, 227 KiB of shared memory a block, clusters of 8 (16).
    #[must_use]
    pub fn sm_100() -> Architecture {
        let groups = [20, 20, 18, 18, 18, 18, 18, 18];
        Architecture::new("sm_100", (10, 0), &groups, 227, 228, 2048, 32, (8, 16))
    }

    /// RTX 50 class: 170 multiprocessors, 99 KiB of shared memory a block, clusters of 8.
    #[must_use]
    pub fn sm_120() -> Architecture {
        let groups = [16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 10];
        Architecture::new("sm_120", (12, 0), &groups, 99, 100, 1536, 24, (8, 8))
    }

    /// A device of this architecture with another number of multiprocessors, in one group.
    #[must_use]
    pub fn with_multiprocessors(mut self, count: u32) -> Architecture {
        self.multiprocessors = count;
        self.processing_clusters = vec![count];
        self
    }

    /// A device whose tensor cores keep other numbers of fraction bits, up to 24 for 8-bit numbers
    /// and for bf16 and f16.
    #[must_use]
    pub fn with_fraction_bits(mut self, fp8: u32, half: u32) -> Architecture {
        self.fp8_fraction_bits = fp8.min(24);
        self.half_fraction_bits = half.min(24);
        self
    }

    /// Blocks of this size that fit on one multiprocessor. Registers are not known here, so this
    /// is an upper bound.
    #[must_use]
    pub fn blocks_resident(&self, threads: u32, shared_bytes: u32) -> u32 {
        let threads = threads.div_ceil(32).max(1) * 32;
        let shared = shared_bytes.saturating_add(self.shared_reserved_per_block);
        (self.threads_per_multiprocessor / threads)
            .min(self.shared_per_multiprocessor / shared.max(1))
            .min(self.blocks_per_multiprocessor)
    }

    /// Clusters of this size that are resident at once on the whole device.
    #[must_use]
    pub fn clusters_resident(&self, cluster: u32, threads: u32, shared_bytes: u32) -> u32 {
        let blocks = self.blocks_resident(threads, shared_bytes);
        let resident = |group: &u32| group * blocks / cluster.max(1);
        self.processing_clusters.iter().map(resident).sum()
    }
}
