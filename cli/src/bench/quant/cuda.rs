//! Matrices on a GPU.

use evenkeel::{DType, Result};

use super::call::Call;
use super::work::Work;
use crate::bench::cuda::Gpu;
use crate::bench::record::{Ceilings, Row, ShapeOf};

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
