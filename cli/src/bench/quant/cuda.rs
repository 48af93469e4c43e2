//! Matrices on a GPU.

use evenkeel::{DType, Result};

use super::beside;
use super::call::Call;
use super::work::Work;
use crate::bench::cuda::Gpu;
use crate::bench::record::{Ceilings, Peer, Row, ShapeOf};

/// One work in one size and type, beside the rate of a copy. Its tensors are freed at the end.
///
/// # Errors
/// The library's and the driver's; [`Error::OutOfMemory`](evenkeel::Error::OutOfMemory) among them.
pub fn measure(
    gpu: &Gpu,
    work: Work,
    shape: ShapeOf,
    dtype: DType,
    ceilings: &Ceilings,
    pool: &evenkeel::Buffer,
) -> Result<Row> {
    let mut call = Call::new(gpu.stream(), work, shape, |size| gpu.fill(pool, size, 0))?;
    let us = gpu.time(|| Ok(()), || call.run())?;
    gpu.stream().check()?;
    Ok(work.measured(shape, dtype)?.timed(us, ceilings.copy_gbs))
}

/// Elements between the beginnings of two tensors in the pool of random values, so that no two of a
/// call are the same.
const APART: usize = 1_000_003;

/// The same of what stands beside, with the two operations apart where it is fused.
///
/// # Errors
/// As [`measure`].
pub fn beside(
    gpu: &Gpu,
    work: beside::Work,
    shape: ShapeOf,
    dtype: DType,
    ceilings: &Ceilings,
    pool: &evenkeel::Buffer,
) -> Result<Row> {
    let mut begin = 0;
    let mut call = beside::Call::new(gpu.stream(), work, shape, dtype, |size| {
        begin += APART;
        gpu.fill(pool, size, begin)
    })?;
    let us = gpu.time(|| Ok(()), || call.run())?;
    let mut row = work.measured(shape, dtype)?.timed(us, ceilings.copy_gbs);
    if call.is_fused() {
        let apart = gpu.time(|| Ok(()), || call.run_apart())?;
        row.peers.extend(Peer::apart(apart));
    }
    gpu.stream().check()?;
    Ok(row)
}
