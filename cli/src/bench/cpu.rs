//! On the CPU: how things are timed, and what its memory moves.

use std::time::{Duration, Instant};

use evenkeel::Result;
use rayon::prelude::*;

use super::record::{Ceilings, Times};

/// Microseconds of each repetition, after one that is not counted: at least three, at most fifteen,
/// within `patience`.
///
/// # Errors
/// What is timed gives.
pub fn repeat(patience: Duration, mut once: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    once()?;
    let (mut us, begun) = (Vec::new(), Instant::now());
    while us.len() < 3 || (us.len() < 15 && begun.elapsed() < patience) {
        let started = Instant::now();
        once()?;
        us.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(us)
}

/// A copy and a read of this many bytes on all cores.
///
/// # Errors
/// None.
pub fn bandwidths(patience: Duration, bytes: usize) -> Result<Ceilings> {
    const CHUNK: usize = 1 << 15;
    let from = vec![1_u64; bytes.div_ceil(8).max(1)];
    let mut to = vec![0_u64; from.len()];
    let copy = repeat(patience, || {
        to.par_chunks_mut(CHUNK)
            .zip(from.par_chunks(CHUNK))
            .for_each(|(to, from)| to.copy_from_slice(from));
        std::hint::black_box(&mut to);
        Ok(())
    })?;
    let read = repeat(patience, || {
        let sum: u64 = from
            .par_chunks(CHUNK)
            .map(|part| part.iter().fold(0, |a: u64, &b| a.wrapping_add(b)))
            .sum();
        std::hint::black_box(sum);
        Ok(())
    })?;
    let gbs =
        |us: Vec<f64>, passes: f64| Times::of(us).map(|us| passes * bytes as f64 / us.median / 1e3);
    Ok(Ceilings {
        copy_gbs: gbs(copy, 2.0),
        read_gbs: gbs(read, 1.0),
        ..Ceilings::default()
    })
}
