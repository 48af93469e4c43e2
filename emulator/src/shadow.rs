//! What is remembered of every byte: who wrote it last, who has read it since.
//!
//! A granule is 16 bytes. As long as accesses cover it whole, one cell describes all of it; a
//! smaller access splits it into cells of 8, 4, 2 or 1 bytes, and a later whole write joins them.

use crate::clock::TID_SHIFT;
use crate::clock::{Base, Class, Epoch, class_of, clock_of, cluster_of, epoch, tid_of};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const GRANULE: usize = 16;
const SET: u64 = 1 << 63;
const LOCK: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Cell {
    /// The last plain write, or 0.
    write: Epoch,
    /// Reads and atomics since: nothing (0), one epoch, or a tagged pointer to a set of them.
    reads: u64,
    write_pc: u32,
    read_pc: u32,
}

/// Zeroed memory is a valid granule without history.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Granule {
    history: History,
    /// The generation the history belongs to; the top bit is its lock.
    generation: AtomicU32,
}

#[derive(Debug, Default)]
#[repr(C)]
struct History {
    cell: Cell,
    /// Null, or the split cells; the low three bits hold the logarithm of their size.
    split: usize,
}

impl Granule {
    pub(crate) fn empty() -> Granule {
        Granule {
            history: History::default(),
            generation: AtomicU32::new(0),
        }
    }
}

/// Readers of one location: one entry for the lanes of a warp that read at the same clock.
#[derive(Clone, Debug)]
struct Reader {
    key: Epoch,
    mask: u32,
    pc: u32,
}

/// An earlier access that is not ordered before the present one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    pub(crate) earlier: Epoch,
    pub(crate) earlier_pc: u32,
}

/// The thread (or asynchronous copy) that accesses.
pub(crate) struct Accessor<'a> {
    pub(crate) base: &'a Base,
    pub(crate) cluster: u32,
    pub(crate) tid: u32,
    pub(crate) clock: u32,
    pub(crate) pc: u32,
    /// A copy acts for the thread that issued it: that thread's own past is ordered before it.
    pub(crate) issuer: Option<(u32, u32)>,
}

impl Accessor<'_> {
    #[inline]
    fn ordered(&self, e: Epoch) -> bool {
        if cluster_of(e) == self.cluster {
            let tid = tid_of(e);
            if tid == self.tid {
                return true;
            }
            if let Some((issuer, clock)) = self.issuer
                && tid == issuer
            {
                return clock_of(e) <= clock;
            }
        }
        self.base.knows(self.cluster, e)
    }
}

/// Backing for split cells and read sets; one for each cluster's shared memory, one for each
/// worker's view of global memory.
#[derive(Debug, Default)]
pub(crate) struct Store {
    chunks: Vec<Box<[Cell]>>,
    used: usize,
    free: [Vec<usize>; 4],
    sets: Vec<*mut Vec<Reader>>,
    free_sets: Vec<*mut Vec<Reader>>,
}

// SAFETY: the raw pointers lead to memory this store owns; granules that hold copies of them are
// reached only under the granule's lock or by the one thread that runs the cluster.
unsafe impl Send for Store {}

const CHUNK: usize = 4096;

impl Store {
    /// Forgets everything; the granules that point here must have been given a new generation.
    pub(crate) fn reset(&mut self) {
        self.chunks.truncate(16);
        self.used = 0;
        self.free = Default::default();
        if self.sets.len() > 4096 {
            self.drop_sets();
        }
        self.free_sets.clone_from(&self.sets);
    }

    fn drop_sets(&mut self) {
        for set in self.sets.drain(..) {
            // SAFETY: made by Box::into_raw in `new_set`, listed once, freed only here.
            drop(unsafe { Box::from_raw(set) });
        }
        self.free_sets.clear();
    }

    fn cells(&mut self, shift: u32) -> *mut Cell {
        if let Some(cells) = self.free[shift as usize].pop() {
            return cells as *mut Cell;
        }
        let count = GRANULE >> shift;
        let (mut chunk, mut at) = (self.used / CHUNK, self.used % CHUNK);
        if at + count > CHUNK {
            chunk += 1;
            at = 0;
        }
        if chunk == self.chunks.len() {
            self.chunks
                .push(vec![Cell::default(); CHUNK].into_boxed_slice());
        }
        self.used = chunk * CHUNK + at + count;
        self.chunks[chunk][at..].as_mut_ptr()
    }

    fn new_set(&mut self) -> *mut Vec<Reader> {
        self.free_sets.pop().map_or_else(
            || {
                let set = Box::into_raw(Box::default());
                self.sets.push(set);
                set
            },
            |set| {
                // SAFETY: a set on the free list is owned by this store and used by no cell.
                unsafe { (*set).clear() };
                set
            },
        )
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.drop_sets();
    }
}

/// # Safety
/// `reads` is a tagged pointer made by `new_set` whose store is alive.
unsafe fn set_of<'a>(reads: u64) -> &'a mut Vec<Reader> {
    // SAFETY: by the contract; the cell that holds the pointer is its only user.
    unsafe { &mut *((reads & !SET) as usize as *mut Vec<Reader>) }
}

#[inline]
fn key_of(e: Epoch) -> (Epoch, u32) {
    let lane = tid_of(e) & 31;
    (e & !(31 << TID_SHIFT), 1 << lane)
}

fn conflicts(now: Class, before: Class) -> bool {
    match now {
        Class::Write => true,
        Class::Read => matches!(before, Class::AtomicWrite | Class::Write),
        Class::AtomicWrite => matches!(before, Class::Read | Class::Write),
        Class::AtomicRead => before == Class::Write,
    }
}

/// Whether an ordered earlier entry of class `before` says nothing that `now` does not.
fn subsumes(now: Class, before: Class) -> bool {
    now == before || before == Class::AtomicRead || now == Class::Write
}

/// Checks one cell against an access and records it.
#[inline]
fn touch(
    cell: &mut Cell,
    who: &Accessor<'_>,
    class: Class,
    store: &mut Store,
) -> Option<(Epoch, u32)> {
    let now = epoch(who.cluster, who.tid, class, who.clock);
    let mut found = None;
    if cell.write != 0 && cell.write != now && !who.ordered(cell.write) {
        found = Some((cell.write, cell.write_pc));
    }
    if class == Class::Write {
        if cell.reads != 0 {
            if cell.reads & SET == 0 {
                if !who.ordered(cell.reads) {
                    found = found.or(Some((cell.reads, cell.read_pc)));
                }
            } else {
                found = found.or_else(|| conflict_in_set(cell.reads, who, class));
                store
                    .free_sets
                    .push((cell.reads & !SET) as usize as *mut Vec<Reader>);
            }
            cell.reads = 0;
        }
        cell.write = now;
        cell.write_pc = who.pc;
        return found;
    }
    if cell.reads == now {
        return found;
    }
    if cell.reads == 0 {
        cell.reads = now;
        cell.read_pc = who.pc;
        return found;
    }
    if cell.reads & SET == 0 {
        let before = class_of(cell.reads);
        let ordered = who.ordered(cell.reads);
        if !ordered && conflicts(class, before) {
            found = found.or(Some((cell.reads, cell.read_pc)));
        }
        if ordered && subsumes(class, before) {
            cell.reads = now;
            cell.read_pc = who.pc;
            return found;
        }
        let set = store.new_set();
        let (key, mask) = key_of(cell.reads);
        // SAFETY: just made, and reachable from nowhere else.
        unsafe {
            (*set).push(Reader {
                key,
                mask,
                pc: cell.read_pc,
            })
        };
        cell.reads = SET | set as usize as u64;
    } else if class != Class::AtomicRead {
        found = found.or_else(|| conflict_in_set(cell.reads, who, class));
    }
    insert(cell.reads, now, who.pc);
    found
}

fn insert(reads: u64, now: Epoch, pc: u32) {
    // SAFETY: the caller's cell holds a live set.
    let set = unsafe { set_of(reads) };
    let (key, lane) = key_of(now);
    if let Some(entry) = set.iter_mut().rev().find(|entry| entry.key == key) {
        if entry.mask & lane != 0 {
            return;
        }
        entry.mask |= lane;
    } else {
        set.push(Reader {
            key,
            mask: lane,
            pc,
        });
    }
    // The same lane's older reads say nothing more.
    let same = !((1u64 << crate::clock::CLOCK_BITS) - 1);
    let mut emptied = false;
    for entry in set.iter_mut() {
        if entry.key != key && entry.key & same == key & same {
            entry.mask &= !lane;
            emptied |= entry.mask == 0;
        }
    }
    if emptied {
        set.retain(|entry| entry.mask != 0);
    }
}

fn conflict_in_set(reads: u64, who: &Accessor<'_>, class: Class) -> Option<(Epoch, u32)> {
    // SAFETY: the caller's cell holds a live set.
    let set = unsafe { set_of(reads) };
    for entry in set.iter() {
        if !conflicts(class, class_of(entry.key)) {
            continue;
        }
        let mut lanes = entry.mask;
        while lanes != 0 {
            let lane = lanes.trailing_zeros();
            lanes &= lanes - 1;
            let e = entry.key | (u64::from(lane) << TID_SHIFT);
            if !who.ordered(e) {
                return Some((e, entry.pc));
            }
        }
    }
    None
}

fn copy_cell(cell: &Cell, store: &mut Store) -> Cell {
    let mut copy = *cell;
    if cell.reads & SET != 0 {
        let set = store.new_set();
        // SAFETY: both sets are alive and distinct.
        unsafe { (*set).extend_from_slice(set_of(cell.reads)) };
        copy.reads = SET | set as usize as u64;
    }
    copy
}

impl History {
    fn split_cells(&self) -> (*mut Cell, u32) {
        ((self.split & !7) as *mut Cell, (self.split & 7) as u32)
    }

    fn split_to(&mut self, shift: u32, store: &mut Store) {
        let new = store.cells(shift);
        let (old, old_shift) = if self.split == 0 {
            (&raw mut self.cell, 4)
        } else {
            self.split_cells()
        };
        for i in 0..GRANULE >> shift {
            // SAFETY: `new` has GRANULE >> shift cells, `old` GRANULE >> old_shift of them, and
            // shift < old_shift.
            unsafe {
                let from = &*old.add(i >> (old_shift - shift));
                new.add(i).write(copy_cell(from, store));
            }
        }
        self.release_cells(store);
        if self.split != 0 {
            store.free[old_shift as usize].push(old as usize);
        }
        self.split = new as usize | shift as usize;
        self.cell = Cell::default();
    }

    /// Returns the read sets of all present cells to the store.
    fn release_cells(&mut self, store: &mut Store) {
        let (cells, count) = if self.split == 0 {
            (&raw mut self.cell, 1)
        } else {
            let (cells, shift) = self.split_cells();
            (cells, GRANULE >> shift)
        };
        for i in 0..count {
            // SAFETY: within the cells of this granule.
            let reads = unsafe { (*cells.add(i)).reads };
            if reads & SET != 0 {
                store
                    .free_sets
                    .push((reads & !SET) as usize as *mut Vec<Reader>);
            }
        }
    }

    #[inline]
    fn access(
        &mut self,
        low: usize,
        high: usize,
        class: Class,
        who: &Accessor<'_>,
        store: &mut Store,
    ) -> Option<(Epoch, u32)> {
        let whole = low == 0 && high == GRANULE;
        if whole && self.split == 0 {
            return touch(&mut self.cell, who, class, store);
        }
        if !whole {
            let unit = (low | high | GRANULE).trailing_zeros().min(3);
            if self.split == 0 || (self.split & 7) as u32 > unit {
                self.split_to(unit, store);
            }
        }
        let (cells, shift) = self.split_cells();
        let mut found = None;
        for i in low >> shift..high >> shift {
            // SAFETY: high <= GRANULE, so i is one of the GRANULE >> shift cells.
            let hit = touch(unsafe { &mut *cells.add(i) }, who, class, store);
            found = found.or(hit);
        }
        if whole && class == Class::Write {
            store.free[shift as usize].push(cells as usize);
            self.split = 0;
            self.cell = Cell {
                write: epoch(who.cluster, who.tid, class, who.clock),
                reads: 0,
                write_pc: who.pc,
                read_pc: 0,
            };
        }
        found
    }
}

/// Takes the granule's lock where others may come; true if its history is of another launch.
#[inline]
fn enter(word: &AtomicU32, generation: u32, locked: bool) -> bool {
    if !locked {
        let stale = word.load(Ordering::Relaxed) != generation;
        if stale {
            word.store(generation, Ordering::Relaxed);
        }
        return stale;
    }
    loop {
        let seen = word.load(Ordering::Relaxed);
        if seen & LOCK == 0
            && word
                .compare_exchange_weak(seen, seen | LOCK, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        {
            return seen != generation;
        }
        std::hint::spin_loop();
    }
}

/// Checks and records an access of `size` bytes at `offset` of the memory these granules describe.
///
/// # Safety
/// `granules` covers `offset + size` bytes and nobody else uses them, except through this function
/// with `locked` set.
#[allow(clippy::too_many_arguments)]
#[inline]
pub(crate) unsafe fn access(
    granules: *mut Granule,
    generation: u32,
    locked: bool,
    store: &mut Store,
    offset: usize,
    size: usize,
    class: Class,
    who: &Accessor<'_>,
) -> Option<Conflict> {
    let end = offset + size;
    let mut at = offset;
    let mut found = None;
    while at < end {
        let index = at / GRANULE;
        let high = end.min((index + 1) * GRANULE);
        // SAFETY: index is within the granules by the contract; the word is atomic.
        let word = unsafe { &(*granules.add(index)).generation };
        let stale = enter(word, generation, locked);
        // SAFETY: as above, and the lock (or the single thread) makes this the only reference.
        let history = unsafe { &mut (*granules.add(index)).history };
        if stale {
            *history = History::default();
        }
        let hit = history.access(
            at - index * GRANULE,
            high - index * GRANULE,
            class,
            who,
            store,
        );
        if locked {
            word.store(generation, Ordering::Release);
        }
        if let Some((earlier, earlier_pc)) = hit
            && found.is_none()
        {
            found = Some(Conflict {
                earlier,
                earlier_pc,
            });
        }
        at = high;
    }
    found
}

/// Calls `f` with the last plain writer of each piece of a range, until it returns false.
///
/// # Safety
/// As for [`access`].
pub(crate) unsafe fn writers(
    granules: *mut Granule,
    generation: u32,
    offset: usize,
    size: usize,
    mut f: impl FnMut(usize, Epoch, u32) -> bool,
) {
    let end = offset + size;
    let mut at = offset;
    while at < end {
        let index = at / GRANULE;
        let high = end.min((index + 1) * GRANULE);
        // SAFETY: within the granules by the contract.
        let granule = unsafe { &*granules.add(index) };
        let history = &granule.history;
        if granule.generation.load(Ordering::Relaxed) & !LOCK == generation {
            if history.split == 0 {
                if history.cell.write != 0 && !f(at, history.cell.write, history.cell.write_pc) {
                    return;
                }
            } else {
                let (cells, shift) = history.split_cells();
                for i in (at % GRANULE) >> shift..(high - index * GRANULE).div_ceil(1 << shift) {
                    // SAFETY: i is one of the GRANULE >> shift cells.
                    let cell = unsafe { &*cells.add(i) };
                    if cell.write != 0
                        && !f(index * GRANULE + (i << shift), cell.write, cell.write_pc)
                    {
                        return;
                    }
                }
            }
        }
        at = high;
    }
}

#[cfg(test)]
#[path = "shadow_tests.rs"]
mod tests;
