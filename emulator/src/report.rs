//! What a launch tells: findings, traffic, and the synchronisation calls it executed.

use std::fmt;
use std::time::Duration;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FindingKind {
    /// Two accesses to the same bytes, one of them a write, with nothing that orders them.
    Race,
    /// A read of bytes nobody has written.
    Uninitialised,
    /// An access outside every buffer, or a write to read-only memory.
    OutOfBounds,
    /// An access to a buffer that has been dropped.
    UseAfterFree,
    /// Threads wait and nothing can ever wake them.
    Deadlock,
    /// A thread ran past the launch's bound on steps.
    Livelock,
    /// Threads of a block wait for one that is not resident and cannot become so.
    NonResidentWait,
    /// Threads that should meet at one barrier or warp primitive do not.
    Divergence,
    /// A warp primitive with a mask that lacks its caller, or a read from an inactive lane.
    WarpMisuse,
    /// Wrong thread counts, numbers or arrivals at a barrier or mbarrier.
    BarrierMisuse,
    /// A wrong size, alignment, address space or order of an asynchronous copy.
    AsyncMisuse,
    /// Registers of a warpgroup's product used out of order: no `wgmma.fence` before it, written
    /// before its wait, or never waited for.
    WgmmaMisuse,
    /// A generic access that no `fence.proxy.async` orders before an asynchronous one.
    ProxyFence,
    /// Shared memory of a block that has exited, or may have.
    ExitedPeer,
    /// Shared memory of a block of the cluster that is not known to have started.
    UnstartedPeer,
    /// More shared memory than the architecture gives a block.
    SharedTooLarge,
    /// A grid, block or cluster the architecture or the kernel does not allow.
    LaunchLimits,
    /// An address that is no multiple of the access's size.
    Misaligned,
    /// A thread used more stack than it has.
    StackOverflow,
    /// `__trap()` or a failed `assert`.
    Trap,
}

/// A line of source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The file, as the compiler was given it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One thing found wrong in a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What went wrong.
    pub kind: FindingKind,
    /// The kernel's name.
    pub kernel: String,
    /// The block, where one is concerned.
    pub block: Option<[u32; 3]>,
    /// The thread within its block, where one is concerned.
    pub thread: Option<[u32; 3]>,
    /// The line of the kernel, where debug information has it.
    pub location: Option<Location>,
    /// What happened, in words.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {}", self.kind, self.kernel)?;
        if let Some([x, y, z]) = self.block {
            write!(f, ", block ({x}, {y}, {z})")?;
        }
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x}, {y}, {z})")?;
        }
        if let Some(location) = &self.location {
            write!(f, ", {location}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// What a synchronisation call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SyncOperation {
    /// `__syncthreads` and its reducing forms.
    Syncthreads,
    /// `__syncwarp`.
    Syncwarp,
    /// `bar.sync` on a named barrier.
    BarSync,
    /// `bar.arrive` on a named barrier.
    BarArrive,
    /// `barrier.cluster.arrive`.
    ClusterArrive,
    /// `barrier.cluster.wait`.
    ClusterWait,
    /// An arrival at an mbarrier, with or without expected bytes.
    MbarrierArrive,
    /// Expected bytes alone.
    MbarrierExpectTx,
    /// A wait on an mbarrier's phase.
    MbarrierWait,
    /// A memory fence.
    Fence,
    /// `fence.proxy.async`.
    FenceProxyAsync,
    /// `fence.mbarrier_init`.
    FenceMbarrierInit,
    /// `cp.async.commit_group`, `cp.async.bulk.commit_group` or `wgmma.commit_group`.
    CommitGroup,
    /// `cp.async.wait_group`, the bulk form with or without `.read`, or `wgmma.wait_group`.
    WaitGroup,
    /// `wgmma.fence`.
    WgmmaFence,
}

/// A synchronisation call of the kernel: the line outside the wrappers, and what is called there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SyncSite {
    /// The line that calls, wrappers in `ptx/`, `platform/` and the emulator's headers left out.
    pub location: Location,
    /// What is called.
    pub operation: SyncOperation,
}

impl fmt::Display for SyncSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.location, self.operation)
    }
}

/// Bytes moved by a launch. Asynchronous copies count as the loads and stores they are.
///
/// Sectors and bank conflicts are those of warp-level accesses: the k-th execution of one
/// instruction by each lane of a warp, counted from the last point where the whole warp met (a
/// warp primitive with every live lane, or a barrier), is one access of the warp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes read from global memory.
    pub global_load_bytes: u64,
    /// Bytes written to global memory.
    pub global_store_bytes: u64,
    /// 32-byte sectors read from global memory, by warp-level access.
    pub global_load_sectors: u64,
    /// 32-byte sectors written to global memory, by warp-level access.
    pub global_store_sectors: u64,
    /// Atomic operations on global or shared memory, one a thread; loads and stores with an order
    /// count as loads and stores instead.
    pub atomics: u64,
    /// Bytes read from the block's own shared memory.
    pub shared_load_bytes: u64,
    /// Bytes written to the block's own shared memory.
    pub shared_store_bytes: u64,
    /// Bytes read from another block's shared memory.
    pub distributed_load_bytes: u64,
    /// Bytes written to another block's shared memory.
    pub distributed_store_bytes: u64,
    /// Shared-memory wavefronts beyond the one (or two, or four) an access needs.
    pub bank_conflicts: u64,
    /// Floating-point operations of tensor cores: two for each product.
    pub tensor_flops: u64,
    /// Where the bank conflicts happened, most first.
    pub bank_conflict_sites: Vec<(Location, u64)>,
}

/// What a launch did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The kernel's name.
    pub kernel: String,
    /// What was found wrong, in the order of blocks; the same line is reported once.
    pub findings: Vec<Finding>,
    /// Bytes moved.
    pub traffic: Traffic,
    /// The synchronisation calls that were executed, sorted; the switched-off ones included.
    pub sync_sites: Vec<SyncSite>,
    /// How long the launch took here.
    pub elapsed: Duration,
}

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether something of this kind was found.
    #[must_use]
    pub fn found(&self, kind: FindingKind) -> bool {
        self.findings.iter().any(|finding| finding.kind == kind)
    }
}
