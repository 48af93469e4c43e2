//! Vector clocks.
//!
//! A thread's clock is a shared base plus its own component: after a barrier every participant
//! points to the same base, so a block-wide barrier costs one pass over its threads, not one pass
//! for each of them. What is known of other clusters hangs off the base in a map.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Who did something, and when: cluster (23 bits), thread (16), class (2), clock (22).
pub(crate) type Epoch = u64;

pub(crate) const CLOCK_BITS: u32 = 22;
pub(crate) const CLOCK_LIMIT: u32 = (1 << CLOCK_BITS) - 16;
pub(crate) const TID_SHIFT: u32 = 24;
pub(crate) const CLUSTER_SHIFT: u32 = 40;
pub(crate) const CLUSTER_LIMIT: u64 = 1 << 23;
pub(crate) const TID_LIMIT: u32 = 1 << 16;

/// What an access does, as far as conflicts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Class {
    Read = 0,
    AtomicWrite = 1,
    AtomicRead = 2,
    Write = 3,
}

#[inline]
pub(crate) fn epoch(cluster: u32, tid: u32, class: Class, clock: u32) -> Epoch {
    (u64::from(cluster) << CLUSTER_SHIFT)
        | (u64::from(tid) << TID_SHIFT)
        | ((class as u64) << CLOCK_BITS)
        | u64::from(clock)
}

#[inline]
pub(crate) fn cluster_of(e: Epoch) -> u32 {
    (e >> CLUSTER_SHIFT) as u32
}
#[inline]
pub(crate) fn tid_of(e: Epoch) -> u32 {
    (e >> TID_SHIFT) as u32 & 0xffff
}
#[inline]
pub(crate) fn clock_of(e: Epoch) -> u32 {
    e as u32 & ((1 << CLOCK_BITS) - 1)
}
#[inline]
pub(crate) fn class_of(e: Epoch) -> Class {
    match (e >> CLOCK_BITS) & 3 {
        0 => Class::Read,
        1 => Class::AtomicWrite,
        2 => Class::AtomicRead,
        _ => Class::Write,
    }
}

/// What is known of clusters, this one or others: their threads' clocks.
pub(crate) type Foreign = BTreeMap<u32, Arc<Vec<u32>>>;

/// What a thread knows of all others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Base {
    /// By thread of the own cluster; missing entries are 0.
    pub(crate) clocks: Vec<u32>,
    pub(crate) foreign: Option<Arc<Foreign>>,
}

impl Base {
    #[inline]
    pub(crate) fn get(&self, tid: u32) -> u32 {
        self.clocks.get(tid as usize).copied().unwrap_or(0)
    }

    /// Whether `e` happened before whatever its holder does now.
    #[inline]
    pub(crate) fn knows(&self, own_cluster: u32, e: Epoch) -> bool {
        if cluster_of(e) == own_cluster {
            self.get(tid_of(e)) >= clock_of(e)
        } else {
            self.knows_foreign(e)
        }
    }

    #[cold]
    fn knows_foreign(&self, e: Epoch) -> bool {
        self.foreign
            .as_ref()
            .and_then(|map| map.get(&cluster_of(e)))
            .and_then(|clocks| clocks.get(tid_of(e) as usize))
            .is_some_and(|&clock| clock >= clock_of(e))
    }
}

pub(crate) fn join_clocks(into: &mut Vec<u32>, from: &[u32]) {
    if into.len() < from.len() {
        into.resize(from.len(), 0);
    }
    for (a, &b) in into.iter_mut().zip(from) {
        *a = (*a).max(b);
    }
}

fn dominates(a: &[u32], b: &[u32]) -> bool {
    let (head, tail) = b.split_at(b.len().min(a.len()));
    head.iter().zip(a).all(|(b, a)| a >= b) && tail.iter().all(|&b| b == 0)
}

pub(crate) fn join_foreign_into(into: &mut Foreign, from: &Foreign) {
    for (cluster, clocks) in from {
        match into.get_mut(cluster) {
            Some(known) if Arc::ptr_eq(known, clocks) || dominates(known, clocks) => {}
            Some(known) => join_clocks(Arc::make_mut(known), clocks),
            None => {
                into.insert(*cluster, Arc::clone(clocks));
            }
        }
    }
}

fn join_foreign(a: &Option<Arc<Foreign>>, b: &Option<Arc<Foreign>>) -> Option<Arc<Foreign>> {
    match (a, b) {
        (None, x) | (x, None) => x.clone(),
        (Some(x), Some(y)) if Arc::ptr_eq(x, y) => Some(Arc::clone(x)),
        (Some(x), Some(y)) => {
            let mut joined = Foreign::clone(x);
            join_foreign_into(&mut joined, y);
            Some(Arc::new(joined))
        }
    }
}

/// The least base that knows what both know; shares one of them where it already does.
pub(crate) fn join(a: &Arc<Base>, b: &Arc<Base>) -> Arc<Base> {
    if Arc::ptr_eq(a, b) {
        return Arc::clone(a);
    }
    let same_foreign = match (&a.foreign, &b.foreign) {
        (None, None) => true,
        (Some(x), Some(y)) => Arc::ptr_eq(x, y),
        _ => false,
    };
    if same_foreign && dominates(&a.clocks, &b.clocks) {
        return Arc::clone(a);
    }
    if same_foreign && dominates(&b.clocks, &a.clocks) {
        return Arc::clone(b);
    }
    let mut clocks = a.clocks.clone();
    join_clocks(&mut clocks, &b.clocks);
    Arc::new(Base {
        clocks,
        foreign: join_foreign(&a.foreign, &b.foreign),
    })
}

/// `base` with one more thing known.
pub(crate) fn with_entries(base: &Arc<Base>, entries: &[(u32, u32)]) -> Arc<Base> {
    if entries.iter().all(|&(tid, clock)| base.get(tid) >= clock) {
        return Arc::clone(base);
    }
    let mut joined = Base::clone(base);
    set_entries(&mut joined.clocks, entries);
    Arc::new(joined)
}

fn set_entries(clocks: &mut Vec<u32>, entries: &[(u32, u32)]) {
    for &(tid, clock) in entries {
        let index = tid as usize;
        if clocks.len() <= index {
            clocks.resize(index + 1, 0);
        }
        clocks[index] = clocks[index].max(clock);
    }
}

/// Collects what several threads release; the joining is put off until somebody acquires.
#[derive(Clone, Debug, Default)]
pub(crate) struct Joiner {
    bases: Vec<Arc<Base>>,
    entries: Vec<(u32, u32)>,
}

impl Joiner {
    pub(crate) fn release(&mut self, base: &Arc<Base>, tid: u32, clock: u32) {
        if !self
            .bases
            .iter()
            .rev()
            .any(|known| Arc::ptr_eq(known, base))
        {
            self.bases.push(Arc::clone(base));
        }
        self.entries.push((tid, clock));
    }

    /// One component alone: the end of an asynchronous copy.
    pub(crate) fn entry(&mut self, tid: u32, clock: u32) {
        self.entries.push((tid, clock));
    }

    pub(crate) fn base(&mut self, base: &Arc<Base>) {
        if !self.bases.iter().any(|known| Arc::ptr_eq(known, base)) {
            self.bases.push(Arc::clone(base));
        }
    }

    /// Everything released, as one base; leaves the joiner empty.
    pub(crate) fn take(&mut self) -> Arc<Base> {
        let bases = std::mem::take(&mut self.bases);
        let entries = std::mem::take(&mut self.entries);
        let mut bases = bases.into_iter();
        let Some(first) = bases.next() else {
            return with_entries(&Arc::new(Base::default()), &entries);
        };
        let mut joined = Base::clone(&first);
        for base in bases {
            join_clocks(&mut joined.clocks, &base.clocks);
            joined.foreign = join_foreign(&joined.foreign, &base.foreign);
        }
        set_entries(&mut joined.clocks, &entries);
        Arc::new(joined)
    }
}
