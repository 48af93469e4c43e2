//! Rows and heads on a GPU.

use evenkeel::{DType, Result};

use super::call::Call;
use super::work::Work;
use crate::bench::cuda::Gpu;
use crate::bench::record::{Ceilings, Row, ShapeOf};

/// Elements between the beginnings of two tensors in the pool of random values, so that no two of a
/// call are the same.
const APART: usize = 1_000_003;

/// One work in one size and type. Its tensors are freed at the end. All of them read about as much as
/// they write, so that the rate of a copy bounds them.
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
    let mut begin = 0;
    let mut call = Call::new(gpu.stream(), work, shape, dtype, true, |size| {
        begin += APART;
        gpu.fill(pool, size, begin)
    })?;
    let us = gpu.time(|| Ok(()), || call.run())?;
    gpu.stream().check()?;
    Ok(work.measured(shape, dtype).timed(us, ceilings.copy_gbs))
}
