//! The race detector against the definition of a race.

use super::*;
use crate::clock::Joiner;
use crate::rng::Rng;
use std::sync::Arc;

const BYTES: usize = 48;
const THREADS: u32 = 70;

/// Every access ever made; the definition of a race, word for word.
#[derive(Default)]
struct Oracle(Vec<(usize, usize, Class, u32, u32)>);

impl Oracle {
    fn races(&self, at: usize, size: usize, class: Class, tid: u32, base: &Base) -> bool {
        self.0.iter().any(|&(from, len, before, other, clock)| {
            at < from + len
                && from < at + size
                && conflicts(class, before)
                && other != tid
                && base.get(other) < clock
        })
    }
}

/// Random accesses of all sizes and classes by 70 threads that synchronise now and then: the
/// first race is found when the definition says so, neither later nor earlier.
#[test]
fn finds_the_first_race_exactly() {
    let mut rng = Rng::new(1, 2);
    let (mut races, mut quiet) = (0, 0);
    for trial in 0..3000 {
        let mut store = Store::default();
        let mut granules: Vec<Granule> = Vec::new();
        granules.resize_with(BYTES / GRANULE, Granule::empty);
        let mut threads: Vec<(Arc<Base>, u32)> = vec![(Arc::default(), 1); THREADS as usize];
        let mut oracle = Oracle::default();
        let mostly_reads = trial % 3 > 0;
        let mut found = false;
        let steps = if trial % 2 == 0 { 200 } else { 20 };
        for _ in 0..steps {
            if rng.one_in(3) {
                let everybody = trial % 2 == 1 || rng.one_in(2);
                let (first, count) = (rng.below(THREADS), 1 + rng.below(40));
                let members: Vec<u32> = if everybody {
                    (0..THREADS).collect()
                } else {
                    (first..THREADS.min(first + count)).collect()
                };
                let mut joiner = Joiner::default();
                for &tid in &members {
                    let (base, clock) = &mut threads[tid as usize];
                    joiner.release(base, tid, *clock);
                    *clock += 1;
                }
                let base = joiner.take();
                for &tid in &members {
                    threads[tid as usize].0 = Arc::clone(&base);
                }
                continue;
            }
            let size = 1 << rng.below(5);
            let at = rng.below((BYTES / size) as u32) as usize * size;
            let class = match rng.below(if mostly_reads { 16 } else { 4 }) {
                1 => Class::Write,
                2 => Class::AtomicWrite,
                3 => Class::AtomicRead,
                _ => Class::Read,
            };
            let tid = rng.below(THREADS);
            let (base, clock) = &threads[tid as usize];
            let who = Accessor {
                base,
                cluster: 5,
                tid,
                clock: *clock,
                pc: 1,
                issuer: None,
            };
            // SAFETY: `at + size` is within the granules, which only this test uses.
            let conflict = unsafe {
                access(
                    granules.as_mut_ptr(),
                    1,
                    false,
                    &mut store,
                    at,
                    size,
                    class,
                    &who,
                )
            };
            let expected = oracle.races(at, size, class, tid, base);
            assert_eq!(
                conflict.is_some(),
                expected,
                "trial {trial}: {class:?} {at}+{size}"
            );
            oracle.0.push((at, size, class, tid, *clock));
            if expected {
                found = true;
                break;
            }
        }
        if found {
            races += 1;
        } else {
            quiet += 1;
        }
    }
    assert!(
        races > 300 && quiet > 30,
        "{races} with a race, {quiet} without"
    );
}
