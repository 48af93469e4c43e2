//! Matrices on the CPU: the operation beside its steps one after the other, in the same process.

use std::time::Duration;

use evenkeel::{Buffer, DType, Device, Number, Result, Stream};
use half::{bf16, f16};

use super::beside;
use super::call::Call;
use super::unfused::Host;
use super::work::Work;
use crate::bench::cpu::{bandwidths, repeat};
use crate::bench::record::{Ceilings, Peer, Row, ShapeOf};
use crate::memory::upload;
use crate::random::Random;

/// Time for one measurement: there are many.
const PATIENCE: Duration = Duration::from_millis(100);

/// One size in one type: its rows, and the bandwidth of a copy of as many bytes.
///
/// # Errors
/// The library's.
pub fn measure(shape: ShapeOf, dtype: DType) -> Result<(Vec<Row>, Ceilings)> {
    match dtype {
        DType::Bf16 => typed::<bf16>(shape),
        DType::F16 => typed::<f16>(shape),
        _ => typed::<f32>(shape),
    }
}

/// A work on the CPU device with a random tensor.
///
/// # Errors
/// The library's.
pub fn call(work: Work, shape: ShapeOf, dtype: DType) -> Result<Call> {
    let stream = Device::cpu().stream()?;
    Call::new(&stream, work, shape, |size| random(&stream, dtype, size))
}

/// A tensor of normally distributed values.
///
/// # Errors
/// The library's.
pub fn random(stream: &Stream, dtype: DType, size: &[usize]) -> Result<Buffer> {
    let mut random = Random::new(5);
    let count = size.iter().product();
    let values: Vec<f64> = (0..count).map(|_| random.normal()).collect();
    upload(stream, dtype, size, &values)
}

fn typed<T: Number>(shape: ShapeOf) -> Result<(Vec<Row>, Ceilings)> {
    let ceilings = bandwidths(PATIENCE, shape.elements() * T::DTYPE.size())?;
    let mut rows = Vec::new();
    for work in Work::of(shape) {
        let mut call = call(work, shape, T::DTYPE)?;
        let fused = repeat(PATIENCE, || call.run())?;
        let host = Host::<T>::of(&call, work, shape)?;
        let unfused = repeat(PATIENCE, || {
            for output in host.run() {
                std::hint::black_box((output.data, output.scales));
            }
            Ok(())
        })?;
        let measured = work.measured(shape, T::DTYPE)?;
        let mut row = measured.timed(fused, ceilings.copy_gbs);
        row.peers.extend(Peer::unfused("f32", unfused));
        rows.push(row);
    }
    for work in beside::Work::all() {
        let stream = Device::cpu().stream()?;
        let mut call = beside::Call::new(&stream, work, shape, T::DTYPE, |size| {
            random(&stream, T::DTYPE, size)
        })?;
        let us = repeat(PATIENCE, || call.run())?;
        let mut row = work.measured(shape, T::DTYPE)?.timed(us, ceilings.copy_gbs);
        if call.is_fused() {
            let apart = repeat(PATIENCE, || call.run_apart())?;
            row.peers.extend(Peer::apart(apart));
        }
        rows.push(row);
    }
    Ok((rows, ceilings))
}
