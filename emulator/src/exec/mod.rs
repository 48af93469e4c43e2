//! The execution of one cluster: its threads, their memory, and everything they can call.

mod access;
mod aligned;
mod asynchronous;
mod atomic;
mod barrier;
pub(crate) mod codes;
mod descriptor;
mod ffi;
mod fiber;
mod groups;
mod matrix;
mod mbarrier;
mod race;
mod registers;
mod schedule;
mod tensor;
mod warp;
mod wgmma;

pub(crate) use atomic::SyncVariables;
pub(crate) use schedule::Outcome;

use crate::clock::{Base, Joiner};
use crate::grid::Run;
use crate::heap::Sparse;
use crate::report::{FindingKind, SyncOperation};
use crate::rng::Rng;
use crate::shadow::{Granule, Store};
use crate::traffic::{Counters, WarpTraffic};
use access::CachedAllocation;
use asynchronous::{Engine, Operation};
use atomic::Fences;
use codes::WarpOp;
use ffi::ThreadInfo;
use fiber::{Fibers, Suspender};
use mbarrier::Mbarrier;
use std::collections::{HashMap, HashSet};
use std::ptr::null;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;

/// How many return addresses are kept for a thread (shim/state.h).
pub(crate) const CALLS_KEPT: usize = 16;
/// Between the shared memory of two blocks of a cluster.
const SHARED_GAP: usize = 1024;

/// What a primitive does to the thread that calls it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flow {
    /// It goes on with this result.
    Done(u64),
    /// It is suspended; its result will be in `Thread::result`.
    Wait,
    /// It is suspended and calls the primitive again.
    Again,
}

/// What a suspended thread waits for; the text of a deadlock report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Wait {
    Nothing,
    Warp(WarpOp, u32),
    Barrier(u32),
    Cluster,
    Mbarrier(usize, u32),
    /// An instruction that needs the whole warp.
    Aligned(&'static str),
    /// Registers that other warps hold.
    Registers(u32),
    Spin(usize),
    Turn,
}

pub(crate) struct Thread {
    pub(crate) info: ThreadInfo,
    calls: [usize; CALLS_KEPT],
    call_depth: u32,
    suspender: *const Suspender,
    exists: bool,
    exited: bool,
    wait: Wait,
    wait_pc: usize,
    result: u64,
    /// The own component of the clock.
    clock: u32,
    base: Arc<Base>,
    /// Own clocks at which `fence.proxy.async` was executed, ascending.
    proxy_fences: Vec<u32>,
    fences: Fences,
    copies: asynchronous::ThreadCopies,
    products: wgmma::ThreadProducts,
    /// The address and value of the last load or atomic that may be a spin.
    last_poll: (usize, u64),
    just_polled: bool,
    /// Blocks of the cluster known to have started.
    peers_seen: u32,
    cluster_arrived: bool,
    cluster_phase: u64,
    /// What the thread knew when it arrived at the cluster barrier with release.
    released_base: Option<Arc<Base>>,
}

#[derive(Default)]
struct Warp {
    ready: u32,
    exists: u32,
    exited: u32,
    /// Lanes that polled something and yielded.
    spinning: u32,
    listed: bool,
    meets: Vec<warp::Meet>,
    aligned: aligned::Gathering,
    active: Vec<(u32, usize)>,
}

#[derive(Default)]
struct Cta {
    block: [u32; 3],
    live: u32,
    barriers: [barrier::Barrier; 16],
    mbarriers: HashMap<u32, Mbarrier>,
    registers: registers::RegisterFile,
    /// One bit for each 8 bytes that are an mbarrier.
    mbarrier_words: Vec<u64>,
    /// By thread of the cluster: the clock and place of its last access from another block.
    remote: HashMap<u32, (u32, usize)>,
    exited: bool,
}

/// A finding whose places are still addresses. `{at}` in the message stands for `other`.
#[derive(Clone, Debug)]
pub(crate) struct RawFinding {
    pub(crate) kind: FindingKind,
    pub(crate) block: Option<[u32; 3]>,
    pub(crate) thread: Option<[u32; 3]>,
    pub(crate) pc: usize,
    pub(crate) callers: Vec<usize>,
    pub(crate) message: String,
    pub(crate) other: usize,
}

/// A synchronisation call seen in this launch.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) operation: SyncOperation,
    pub(crate) callers: Vec<usize>,
    disabled: bool,
}

/// One cluster at work. It is kept from cluster to cluster for its allocations.
pub(crate) struct Cluster {
    run: *const Run,
    /// Position in the order in which clusters start: its name in epochs.
    pub(crate) index: u32,
    threads: Vec<Thread>,
    warps: Vec<Warp>,
    warpgroups: Vec<wgmma::Warpgroup>,
    ctas: Vec<Cta>,
    /// Threads of a block, rounded up to whole warps.
    cta_stride: u32,
    cta_threads: u32,
    shared: Option<Sparse>,
    shared_start: usize,
    shared_stride: usize,
    shared_bytes: usize,
    granules: Vec<Granule>,
    initialised: Vec<AtomicU16>,
    generation: u32,
    store: Store,
    global_store: Store,
    cache: [CachedAllocation; 16],
    pub(crate) counters: Counters,
    warp_traffic: Vec<WarpTraffic>,
    pub(crate) findings: Vec<RawFinding>,
    reported: HashSet<(FindingKind, usize)>,
    pub(crate) sites: HashMap<usize, Site>,
    site_cache: [(usize, bool); 64],
    operations: Vec<Operation>,
    engines: Vec<Engine>,
    cluster_barrier: barrier::ClusterBarrier,
    /// Synchronisation variables in shared memory.
    sync: atomic::SyncVariables,
    rng: Rng,
    /// One in this many schedule points carries out an asynchronous operation.
    laziness: u32,
    current: u32,
    live: u32,
    ready_warps: Vec<u32>,
    current_warp: Option<u32>,
    /// Counts everything that could let a waiting thread go on.
    progress: u64,
    idle_rounds: u32,
    idle_progress: u64,
    /// Set by a fatal finding: the launch ends here.
    abort: bool,
    /// Whether this cluster may touch what other clusters synchronise on.
    pub(crate) has_turn: bool,
    wants_turn: bool,
    yield_turn: bool,
    /// The thread that waits for the turn.
    resume_first: Option<u32>,
    steps_left: i64,
}

/// A cluster and its fibers.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) cluster: Box<Cluster>,
    fibers: Fibers,
}

// SAFETY: a context is used by one OS thread at a time; its raw pointers lead to its own fibers,
// its own shadow memory, and the run, which is shared by reference and outlives the launch.
unsafe impl Send for Context {}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new() -> Context {
        Context {
            cluster: Box::new(Cluster::new()),
            fibers: Fibers::default(),
        }
    }

    /// Forgets what a launch left behind.
    pub(crate) fn end_launch(&mut self) {
        self.fibers.abandon();
        let c = &mut self.cluster;
        c.run = null();
        c.global_store.reset();
        c.store.reset();
        c.cache = Default::default();
        c.counters = Counters::default();
        c.findings.clear();
        c.reported.clear();
        c.sites.clear();
        c.site_cache = [(0, false); 64];
    }

    /// Sets up the cluster that starts as number `index`; false if there is no memory for it.
    pub(crate) fn begin(&mut self, run: &Run, index: u32) -> bool {
        let launch = &run.launch;
        let threads = launch.threads();
        let count = launch.cluster_blocks() * threads.next_multiple_of(32);
        self.cluster.begin(run, index) && self.fibers.prepare(count as usize, launch.stack_bytes)
    }
}

impl Cluster {
    fn new() -> Cluster {
        Cluster {
            run: null(),
            index: 0,
            threads: Vec::new(),
            warps: Vec::new(),
            warpgroups: Vec::new(),
            ctas: Vec::new(),
            cta_stride: 32,
            cta_threads: 0,
            shared: None,
            shared_start: 0,
            shared_stride: 0,
            shared_bytes: 0,
            granules: Vec::new(),
            initialised: Vec::new(),
            generation: 0,
            store: Store::default(),
            global_store: Store::default(),
            cache: Default::default(),
            counters: Counters::default(),
            warp_traffic: Vec::new(),
            findings: Vec::new(),
            reported: HashSet::new(),
            sites: HashMap::new(),
            site_cache: [(0, false); 64],
            operations: Vec::new(),
            engines: Vec::new(),
            cluster_barrier: barrier::ClusterBarrier::default(),
            sync: atomic::SyncVariables::default(),
            rng: Rng::new(0, 0),
            laziness: 8,
            current: 0,
            live: 0,
            ready_warps: Vec::new(),
            current_warp: None,
            progress: 0,
            idle_rounds: 0,
            idle_progress: 0,
            abort: false,
            has_turn: false,
            wants_turn: false,
            yield_turn: false,
            resume_first: None,
            steps_left: 0,
        }
    }

    /// The launch, with a lifetime of the caller's choice.
    #[inline]
    pub(crate) fn run<'r>(&self) -> &'r Run {
        // SAFETY: set by `begin`, and the run outlives every use of the cluster in its launch.
        unsafe { &*self.run }
    }

    fn begin(&mut self, run: &Run, index: u32) -> bool {
        let launch = &run.launch;
        let ctas = launch.cluster_blocks();
        self.run = run;
        self.index = index;
        self.cta_threads = launch.threads();
        self.cta_stride = self.cta_threads.next_multiple_of(32);
        if !self.begin_shared(ctas as usize, launch.shared_bytes as usize) {
            return false;
        }
        self.rng = Rng::new(launch.seed, u64::from(index) + 1);
        self.laziness = 1 << self.rng.below(7);
        let extent = |i: usize| launch.grid[i] / launch.cluster[i];
        let id = run.order[index as usize];
        let cluster_index = [
            (id % u64::from(extent(0))) as u32,
            (id / u64::from(extent(0)) % u64::from(extent(1))) as u32,
            (id / u64::from(extent(0)) / u64::from(extent(1))) as u32,
        ];
        self.ctas.clear();
        self.threads.clear();
        let start = Arc::new(Base::default());
        for rank in 0..ctas {
            let c = launch.cluster;
            let within = [rank % c[0], rank / c[0] % c[1], rank / c[0] / c[1]];
            let block = std::array::from_fn(|i| cluster_index[i] * c[i] + within[i]);
            self.ctas.push(Cta {
                block,
                live: self.cta_threads,
                mbarrier_words: vec![0; self.shared_bytes.div_ceil(512)],
                ..Cta::default()
            });
            for t in 0..self.cta_stride {
                let info = ThreadInfo {
                    thread: [
                        t % launch.block[0],
                        t / launch.block[0] % launch.block[1],
                        t / launch.block[0] / launch.block[1],
                    ],
                    block,
                    block_dim: launch.block,
                    grid_dim: launch.grid,
                    cluster_index,
                    cluster_grid: std::array::from_fn(extent),
                    cluster_dim: c,
                    cluster_rank: rank,
                    shared_bytes: launch.shared_bytes,
                    shared: self.shared_start + rank as usize * self.shared_stride,
                };
                self.threads
                    .push(Thread::new(info, t < self.cta_threads, &start));
            }
        }
        self.begin_schedule(launch.max_steps);
        true
    }

    fn begin_schedule(&mut self, max_steps: u64) {
        let warps = self.threads.len() / 32;
        self.warps.clear();
        self.warps.resize_with(warps, Warp::default);
        self.warpgroups.clear();
        let warpgroups = self.ctas.len() * self.cta_stride.div_ceil(128) as usize;
        self.warpgroups.resize_with(warpgroups, Default::default);
        self.warp_traffic.resize_with(warps, WarpTraffic::default);
        self.ready_warps.clear();
        self.current_warp = None;
        self.live = 0;
        for tid in 0..self.threads.len() as u32 {
            if self.threads[tid as usize].exists {
                self.warps[tid as usize / 32].exists |= 1 << (tid % 32);
                self.live += 1;
                self.set_ready(tid);
            }
        }
        self.operations.clear();
        self.engines.clear();
        self.cluster_barrier = barrier::ClusterBarrier::default();
        self.sync.clear();
        self.progress = 0;
        self.idle_rounds = 0;
        self.idle_progress = 0;
        self.abort = false;
        self.has_turn = false;
        self.wants_turn = false;
        self.yield_turn = false;
        self.resume_first = None;
        self.steps_left = i64::try_from(max_steps).unwrap_or(i64::MAX);
    }

    /// Lays out the blocks' shared memory, full of NaN patterns and without history.
    fn begin_shared(&mut self, ctas: usize, bytes: usize) -> bool {
        self.shared_bytes = bytes;
        self.shared_stride = bytes.next_multiple_of(1024) + SHARED_GAP;
        let span = self.shared_stride * ctas;
        if self.granules.len() * 16 < span || self.shared.is_none() {
            self.shared = Sparse::new(span);
            self.granules.clear();
            self.granules.resize_with(span / 16, Granule::empty);
            self.initialised.resize_with(span / 16, AtomicU16::default);
        }
        let Some(shared) = &self.shared else {
            return false;
        };
        self.shared_start = shared.address();
        for rank in 0..ctas {
            let start = self.shared_start + rank * self.shared_stride;
            // SAFETY: the mapping has `span` bytes, and no fiber runs yet.
            unsafe { std::ptr::write_bytes(start as *mut u8, 0xff, bytes) };
        }
        for word in &mut self.initialised[..span / 16] {
            *word.get_mut() = 0;
        }
        self.generation = (self.generation + 1) & 0x7fff_ffff;
        self.store.reset();
        true
    }

    fn set_ready(&mut self, tid: u32) {
        let warp = &mut self.warps[tid as usize / 32];
        warp.ready |= 1 << (tid % 32);
        if !warp.listed {
            warp.listed = true;
            self.ready_warps.push(tid / 32);
        }
    }

    /// Wakes a suspended thread.
    fn wake(&mut self, tid: u32, result: u64) {
        let thread = &mut self.threads[tid as usize];
        thread.wait = Wait::Nothing;
        thread.result = result;
        self.warps[tid as usize / 32].spinning &= !(1 << (tid % 32));
        self.set_ready(tid);
    }

    /// Suspends the current thread.
    fn park(&mut self, wait: Wait, pc: usize) -> Flow {
        let thread = self.me();
        thread.wait = wait;
        thread.wait_pc = pc;
        Flow::Wait
    }

    #[inline]
    fn me(&mut self) -> &mut Thread {
        &mut self.threads[self.current as usize]
    }

    #[inline]
    fn cta_of(&self, tid: u32) -> usize {
        (tid / self.cta_stride) as usize
    }

    /// Starts a new interval of a thread's clock: what it did so far can be told from what it does
    /// next.
    fn tick(&mut self, tid: u32) {
        let thread = &mut self.threads[tid as usize];
        thread.clock += 1;
        if thread.clock >= crate::clock::CLOCK_LIMIT {
            let message = "one thread released more than four million times".to_owned();
            self.fatal(FindingKind::LaunchLimits, 0, message, 0);
        }
    }

    /// Adds what `tid` has done to a joiner.
    fn release(&mut self, tid: u32, joiner: &mut Joiner) {
        let thread = &self.threads[tid as usize];
        joiner.release(&thread.base, tid, thread.clock);
        self.tick(tid);
    }

    /// Records a finding of the current thread, once for each kind and place.
    fn finding(
        &mut self,
        kind: FindingKind,
        pc: usize,
        other: usize,
        message: impl FnOnce(&Cluster) -> String,
    ) {
        if self.reported.len() >= 256 || !self.reported.insert((kind, pc)) {
            return;
        }
        let message = message(self);
        let thread = &self.threads[self.current as usize];
        let depth = (ffi::call_depth() as usize).min(CALLS_KEPT);
        self.findings.push(RawFinding {
            kind,
            block: Some(thread.info.block),
            thread: Some(thread.info.thread),
            pc,
            callers: thread.calls[..depth].to_vec(),
            message,
            other,
        });
    }

    /// Records a finding and ends the launch: the thread is never resumed.
    fn fatal(&mut self, kind: FindingKind, pc: usize, message: String, other: usize) -> Flow {
        self.finding(kind, pc, other, |_| message);
        self.abort = true;
        Flow::Wait
    }

    /// Notes a synchronisation call; true if it is switched off in this launch.
    fn disabled(&mut self, pc: usize, operation: SyncOperation) -> bool {
        let slot = (pc ^ (pc >> 6)) % self.site_cache.len();
        let (known, disabled) = self.site_cache[slot];
        if known == pc {
            return disabled;
        }
        let disabled = match self.sites.get(&pc) {
            Some(site) => site.disabled,
            None => {
                let depth = (ffi::call_depth() as usize).min(CALLS_KEPT);
                let thread = &self.threads[self.current as usize];
                let callers = thread.calls[..depth].to_vec();
                let run = self.run();
                let disabled = !run.launch.disabled_sites.is_empty()
                    && ffi::on_big_stack(thread.suspender, || {
                        run.is_disabled(pc, &callers, operation)
                    });
                self.sites.insert(
                    pc,
                    Site {
                        operation,
                        callers,
                        disabled,
                    },
                );
                disabled
            }
        };
        self.site_cache[slot] = (pc, disabled);
        disabled
    }

    /// The block and thread of a thread of this cluster, in words.
    fn name(&self, tid: u32) -> String {
        let info = &self.threads[tid as usize].info;
        let ([bx, by, bz], [tx, ty, tz]) = (info.block, info.thread);
        format!("thread ({tx}, {ty}, {tz}) of block ({bx}, {by}, {bz})")
    }
}

impl Thread {
    fn new(info: ThreadInfo, exists: bool, base: &Arc<Base>) -> Thread {
        Thread {
            info,
            calls: [0; CALLS_KEPT],
            call_depth: 0,
            suspender: null(),
            exists,
            exited: !exists,
            wait: Wait::Nothing,
            wait_pc: 0,
            result: 0,
            clock: 1,
            base: Arc::clone(base),
            proxy_fences: Vec::new(),
            fences: Fences::default(),
            copies: asynchronous::ThreadCopies::default(),
            products: wgmma::ThreadProducts::default(),
            last_poll: (0, 0),
            just_polled: false,
            peers_seen: 0,
            cluster_arrived: false,
            cluster_phase: 0,
            released_base: None,
        }
    }
}
