//! One launch: clusters spread over the threads of the operating system.
//!
//! Clusters that touch nothing others synchronise on run side by side. What orders the others is
//! the turn: only the cluster that holds it may carry out atomics, ordered or volatile accesses of
//! global memory, and it passes in the order in which clusters start, so the interleaving depends
//! on the seed alone, not on how many workers there are.

use crate::architecture::Architecture;
use crate::exec::{Context, Outcome, RawFinding, SyncVariables};
use crate::heap::{Heap, Sparse};
use crate::kernel::Kernel;
use crate::launch::Launch;
use crate::report::{Finding, FindingKind, Report, SyncOperation, SyncSite, Traffic};
use crate::rng::Rng;
use crate::symbol;
use crate::traffic::Counters;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Clusters that are given turns to come between one that could go on.
const WINDOW: usize = 4;
const MOST_FINDINGS: usize = 64;
/// Contexts kept for the next launch: each holds the pages its stacks have touched.
const CONTEXTS_KEPT: usize = 8;

/// What all workers share.
pub(crate) struct Run {
    pub(crate) kernel: Kernel,
    pub(crate) launch: Launch,
    pub(crate) architecture: Architecture,
    pub(crate) params: Sparse,
    pub(crate) generation: u32,
    /// Whether several workers use the shadow of global memory.
    pub(crate) locked: bool,
    /// Which cluster starts as the n-th.
    pub(crate) order: Vec<u64>,
    heap: *const Heap,
    params_bytes: usize,
    constants: Vec<(usize, usize)>,
    disabled: HashSet<SyncSite>,
    sync: Mutex<SyncVariables>,
}

// SAFETY: the heap is locked by the launch for as long as the run exists and only read through
// this pointer; everything else is shared by nature.
unsafe impl Sync for Run {}
// SAFETY: as above.
unsafe impl Send for Run {}

impl Run {
    pub(crate) fn heap(&self) -> &Heap {
        // SAFETY: see `Sync`.
        unsafe { &*self.heap }
    }

    pub(crate) fn clusters(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn sync(&self) -> MutexGuard<'_, SyncVariables> {
        self.sync.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parameters and constants of the program may be read.
    pub(crate) fn readable(&self, address: usize, size: usize) -> bool {
        let within = |start: usize, len: usize| {
            let offset = address.wrapping_sub(start);
            offset < len && size <= len - offset
        };
        within(self.params.address(), self.params_bytes)
            || self
                .constants
                .iter()
                .any(|&(start, len)| within(start, len))
    }

    /// A return address in 32 bits: relative to the kernel; 0 if it is too far away.
    #[inline]
    pub(crate) fn short_pc(&self, pc: usize) -> u32 {
        let distance = pc.wrapping_sub(self.kernel.entry() as usize) as isize;
        i32::try_from(distance).map_or(0, |d| d as u32)
    }

    pub(crate) fn long_pc(&self, pc: u32) -> usize {
        if pc == 0 {
            return 0;
        }
        (self.kernel.entry() as usize).wrapping_add_signed(pc as i32 as isize)
    }

    pub(crate) fn is_disabled(
        &self,
        pc: usize,
        callers: &[usize],
        operation: SyncOperation,
    ) -> bool {
        symbol::line(pc, callers).is_some_and(|location| {
            self.disabled.contains(&SyncSite {
                location,
                operation,
            })
        })
    }

    /// A thread of another cluster, in words.
    pub(crate) fn name_foreign(&self, index: u32, tid: u32) -> String {
        let (launch, id) = (&self.launch, self.order[index as usize]);
        let extent = |i: usize| u64::from(launch.grid[i] / launch.cluster[i]);
        let cluster = [
            id % extent(0),
            id / extent(0) % extent(1),
            id / extent(0) / extent(1),
        ];
        let stride = launch.threads().next_multiple_of(32);
        let rank = tid / stride;
        if rank >= launch.cluster_blocks() {
            return format!("an asynchronous copy of cluster {cluster:?}");
        }
        let split = |n: u32, e: [u32; 3]| [n % e[0], n / e[0] % e[1], n / e[0] / e[1]];
        let within = split(rank, launch.cluster);
        let [bx, by, bz]: [u64; 3] = std::array::from_fn(|i| {
            cluster[i] * u64::from(launch.cluster[i]) + u64::from(within[i])
        });
        let [tx, ty, tz] = split(tid % stride, launch.block);
        format!("thread ({tx}, {ty}, {tz}) of block ({bx}, {by}, {bz})")
    }
}

/// Read-only segments of the program's images: constant tables a kernel may read.
fn constants() -> Vec<(usize, usize)> {
    unsafe extern "C" fn visit(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        data: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the loader passes a valid image, `data` is the vector below.
        unsafe {
            let found = &mut *data.cast::<Vec<(usize, usize)>>();
            let info = &*info;
            for i in 0..info.dlpi_phnum {
                let header = &*info.dlpi_phdr.add(usize::from(i));
                let read_only = header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
                if read_only || header.p_type == libc::PT_GNU_RELRO {
                    let start = (info.dlpi_addr + header.p_vaddr) as usize;
                    found.push((start, header.p_memsz as usize));
                }
            }
        }
        0
    }
    let mut found: Vec<(usize, usize)> = Vec::new();
    // SAFETY: `visit` has the type the loader expects and gets the vector it casts to.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    found
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Running,
    /// Runs again when it gets its turn.
    Parked,
    Finished,
}

/// What workers decide under the lock.
struct Board {
    stages: Vec<Stage>,
    turn: usize,
    /// Turns in a row that ended without anybody getting anywhere.
    fruitless: usize,
    /// The first cluster that ended the launch, if any.
    stop: usize,
    deadlock: Option<FindingKind>,
    first_unfinished: usize,
    unfinished: usize,
    started: usize,
    findings: BTreeMap<usize, Vec<RawFinding>>,
    sites: BTreeMap<usize, (SyncOperation, Vec<usize>)>,
    counters: Counters,
}

impl Board {
    fn finish(&mut self, index: usize) {
        self.stages[index] = Stage::Finished;
        self.unfinished -= 1;
        while self.stages.get(self.first_unfinished) == Some(&Stage::Finished) {
            self.first_unfinished += 1;
        }
    }

    /// Passes the turn on from `turn` to the next unfinished cluster below `limit`.
    fn pass(&mut self, limit: usize) {
        let next = (self.turn + 1..limit.min(self.stages.len()))
            .find(|&i| self.stages[i] != Stage::Finished);
        self.turn = next.unwrap_or(self.first_unfinished);
    }

    /// How far clusters may have started: as many unfinished ones as are resident.
    fn limit(&self, resident: usize) -> usize {
        let finished = self.stages.len() - self.unfinished;
        self.started + resident.saturating_sub(self.started.saturating_sub(finished))
    }
}

struct Workers<'a> {
    run: &'a Run,
    board: Mutex<Board>,
    changed: Condvar,
    resident: usize,
    pool: &'a Mutex<Vec<Context>>,
}

impl Workers<'_> {
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let _release = ReleaseOnPanic(self);
        let mut mine: BTreeMap<usize, Context> = BTreeMap::new();
        let mut spare: Vec<Context> = Vec::new();
        let mut board = self.lock();
        loop {
            if board.unfinished == 0 {
                break;
            }
            let Some((index, has_turn)) = self.choose(&mut board, &mine) else {
                if board.unfinished == 0 {
                    break;
                }
                board = self
                    .changed
                    .wait(board)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            board.stages[index] = Stage::Running;
            drop(board);
            let mut context = mine.remove(&index).unwrap_or_else(|| {
                let mut context = spare.pop().unwrap_or_else(|| self.context());
                if !context.begin(self.run, index as u32) {
                    context.cluster.out_of_memory();
                }
                context
            });
            context.cluster.has_turn = has_turn;
            let before = context.cluster.progress();
            let outcome = context.resume();
            board = self.lock();
            self.settle(&mut board, index, outcome, &mut context, before);
            if board.stages[index] == Stage::Finished {
                spare.push(context);
            } else {
                mine.insert(index, context);
            }
            self.changed.notify_all();
        }
        drop(board);
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        for mut context in spare.into_iter().chain(mine.into_values()) {
            context.end_launch();
            if pool.len() < CONTEXTS_KEPT {
                pool.push(context);
            }
        }
    }

    fn context(&self) -> Context {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.pop().unwrap_or_else(Context::new)
    }

    /// The cluster a worker takes up next, and whether it has its turn.
    fn choose(&self, board: &mut Board, mine: &BTreeMap<usize, Context>) -> Option<(usize, bool)> {
        // After a fatal finding, later clusters do not matter any more.
        for index in board.first_unfinished..board.stages.len() {
            let over = index > board.stop || board.deadlock.is_some();
            if over && matches!(board.stages[index], Stage::Waiting | Stage::Parked) {
                board.finish(index);
                self.changed.notify_all();
            } else if board.deadlock.is_none() && board.stop == usize::MAX {
                break;
            }
        }
        if board.unfinished == 0 {
            return None;
        }
        if board.stages.get(board.turn) == Some(&Stage::Finished) {
            let limit = board.limit(self.resident);
            board.pass(limit);
        }
        let turn = board.turn;
        match board.stages[turn] {
            Stage::Parked if mine.contains_key(&turn) => return Some((turn, true)),
            Stage::Waiting if turn < board.limit(self.resident) => {
                board.started = board.started.max(turn + 1);
                return Some((turn, true));
            }
            _ => {}
        }
        while board.stages.get(board.started) == Some(&Stage::Finished) {
            board.started += 1;
        }
        let next = board.started;
        if mine.is_empty() && next < board.limit(self.resident).min(board.stages.len()) {
            board.started += 1;
            return Some((next, false));
        }
        None
    }

    fn settle(
        &self,
        board: &mut Board,
        index: usize,
        outcome: Outcome,
        context: &mut Context,
        before: u64,
    ) {
        let cluster = &mut context.cluster;
        match outcome {
            Outcome::Finished | Outcome::Aborted => {
                board.fruitless = 0;
                if outcome == Outcome::Aborted {
                    board.stop = board.stop.min(index);
                }
                board.finish(index);
                board.counters.merge(&cluster.counters);
                cluster.counters = Counters::default();
                for (pc, site) in cluster.sites.drain() {
                    board
                        .sites
                        .entry(pc)
                        .or_insert((site.operation, site.callers));
                }
                cluster.forget_sites();
                let findings = std::mem::take(&mut cluster.findings);
                if !findings.is_empty() {
                    board.findings.insert(index, findings);
                }
            }
            Outcome::Parked | Outcome::Blocked => {
                board.stages[index] = Stage::Parked;
                if !cluster.has_turn {
                    // A cluster that polled before its turn came waits for it.
                    return;
                }
                cluster.has_turn = false;
                if cluster.progress() != before {
                    board.fruitless = 0;
                } else if outcome == Outcome::Blocked {
                    board.fruitless += 1;
                }
                let limit = board.limit(self.resident);
                if outcome == Outcome::Blocked {
                    if board.fruitless > 2 * board.unfinished.min(self.resident) + 2 {
                        let waiting = board.stages.contains(&Stage::Waiting);
                        let kind = if waiting {
                            FindingKind::NonResidentWait
                        } else {
                            FindingKind::Deadlock
                        };
                        cluster.deadlock(kind);
                        board.deadlock = Some(kind);
                        let findings = std::mem::take(&mut cluster.findings);
                        board.findings.insert(index, findings);
                        board.stop = index.min(board.stop);
                        board.finish(index);
                        return;
                    }
                    board.pass(limit);
                } else {
                    board.pass(limit.min(board.first_unfinished + WINDOW));
                }
            }
        }
    }
}

/// Lets the other workers go home when one panics, so that the panic reaches the caller.
struct ReleaseOnPanic<'a>(&'a Workers<'a>);

impl Drop for ReleaseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().unfinished = 0;
            self.0.changed.notify_all();
        }
    }
}

fn start_order(launch: &Launch) -> Vec<u64> {
    let mut order: Vec<u64> = (0..launch.clusters()).collect();
    if launch.seed != 0 {
        let mut rng = Rng::new(launch.seed, 0);
        for i in (1..order.len()).rev() {
            let j = rng.below(i as u32 + 1) as usize;
            order.swap(i, j);
        }
    }
    order
}

fn refused(kernel: &Kernel, kind: FindingKind, message: String, start: Instant) -> Report {
    Report {
        kernel: kernel.name().to_owned(),
        findings: vec![Finding {
            kind,
            kernel: kernel.name().to_owned(),
            block: None,
            thread: None,
            location: None,
            message,
        }],
        traffic: Traffic::default(),
        sync_sites: Vec::new(),
        elapsed: start.elapsed(),
    }
}

pub(crate) fn launch(
    architecture: &Architecture,
    heap: &mut Heap,
    pool: &Mutex<Vec<Context>>,
    kernel: &Kernel,
    launch: &Launch,
    params: &[u8],
) -> Report {
    let start = Instant::now();
    if let Some((kind, message)) = launch.refusal(architecture, kernel) {
        return refused(kernel, kind, message, start);
    }
    if params.len() != kernel.params_bytes() as usize {
        let expected = kernel.params_bytes();
        let message = format!(
            "{} bytes of parameters; the kernel takes {expected}",
            params.len()
        );
        return refused(kernel, FindingKind::LaunchLimits, message, start);
    }
    let Some(memory) = Sparse::new(params.len()) else {
        let message = "no memory for the parameters".to_owned();
        return refused(kernel, FindingKind::LaunchLimits, message, start);
    };
    // SAFETY: the mapping has at least this many bytes and nobody else knows it yet.
    unsafe { std::ptr::copy_nonoverlapping(params.as_ptr(), memory.pointer(), params.len()) };
    memory.read_only();
    heap.generation = (heap.generation + 1) & 0x7fff_ffff;
    let order = start_order(launch);
    let clusters = order.len();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = launch.workers.unwrap_or(cores).clamp(1, clusters);
    let run = Run {
        kernel: *kernel,
        launch: launch.clone(),
        architecture: architecture.clone(),
        params: memory,
        generation: heap.generation,
        locked: workers > 1,
        order,
        heap,
        params_bytes: params.len(),
        constants: constants(),
        disabled: launch.disabled_sites.iter().cloned().collect(),
        sync: Mutex::default(),
    };
    let threads = launch.threads();
    let resident =
        architecture.clusters_resident(launch.cluster_blocks(), threads, launch.shared_bytes);
    let state = Workers {
        run: &run,
        board: Mutex::new(Board {
            stages: vec![Stage::Waiting; clusters],
            turn: 0,
            fruitless: 0,
            stop: usize::MAX,
            deadlock: None,
            first_unfinished: 0,
            unfinished: clusters,
            started: 0,
            findings: BTreeMap::new(),
            sites: BTreeMap::new(),
            counters: Counters::default(),
        }),
        changed: Condvar::new(),
        resident: resident as usize,
        pool,
    };
    if workers == 1 {
        state.work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| state.work());
            }
        });
    }
    let board = state
        .board
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    report(&run, board, start)
}

fn report(run: &Run, board: Board, start: Instant) -> Report {
    let mut seen = HashSet::new();
    let mut findings = Vec::new();
    for (&index, raw) in &board.findings {
        if index > board.stop {
            break;
        }
        for f in raw {
            let location = (f.pc != 0)
                .then(|| symbol::line(f.pc, &f.callers))
                .flatten();
            if findings.len() >= MOST_FINDINGS
                || !seen.insert((f.kind, location.clone(), f.pc == 0))
            {
                continue;
            }
            let at = (f.other != 0).then(|| symbol::line(f.other, &[])).flatten();
            let at = at.map(|line| format!(" at {line}")).unwrap_or_default();
            findings.push(Finding {
                kind: f.kind,
                kernel: run.kernel.name().to_owned(),
                block: f.block,
                thread: f.thread,
                location,
                message: f.message.replace("{at}", &at),
            });
        }
    }
    let sites: BTreeSet<SyncSite> = board
        .sites
        .iter()
        .filter_map(|(&pc, (operation, callers))| {
            let location = symbol::line(pc, callers)?;
            Some(SyncSite {
                location,
                operation: *operation,
            })
        })
        .collect();
    let mut traffic = board.counters.traffic;
    let mut conflicts = BTreeMap::new();
    for (&pc, &count) in &board.counters.conflicts {
        if let Some(location) = symbol::line(pc, &[]) {
            *conflicts.entry(location).or_insert(0) += count;
        }
    }
    traffic.bank_conflict_sites = conflicts.into_iter().collect();
    traffic
        .bank_conflict_sites
        .sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Report {
        kernel: run.kernel.name().to_owned(),
        findings,
        traffic,
        sync_sites: sites.into_iter().collect(),
        elapsed: start.elapsed(),
    }
}
