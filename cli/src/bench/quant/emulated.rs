//! Matrices on the emulator: the bytes that the kernels moved.

use evenkeel::{DType, Device, Result, Stream};

use super::beside;
use super::call::Call;
use super::cpu::random;
use super::work::{Work, rows};
use crate::bench::ASSUMED_GBS;
use crate::bench::record::{Row, ShapeOf};
use crate::traffic;

/// What is emulated of a matrix at most: whole tiles and whole blocks of every format.
const CORNER: [usize; 2] = [256, 256];

/// One size in one type: the bytes of a corner of it, scaled to all its elements.
///
/// # Errors
/// The library's.
pub fn measure(device: &Device, shape: ShapeOf, dtype: DType) -> Result<Vec<Row>> {
    let corner = rows(
        shape.tokens().min(CORNER[0]),
        shape.columns().min(CORNER[1]),
    );
    let share = shape.elements() as f64 / corner.elements() as f64;
    let mut measured = Vec::new();
    for work in Work::of(shape) {
        let stream = device.stream()?;
        let mut call = Call::new(&stream, work, corner, |size| random(&stream, dtype, size))?;
        let whole = moved(&stream, || call.run())? * share;
        measured.push(work.measured(shape, dtype)?.emulated(whole, ASSUMED_GBS));
    }
    for work in beside::Work::all() {
        let stream = device.stream()?;
        let mut call = beside::Call::new(&stream, work, corner, dtype, |size| {
            random(&stream, dtype, size)
        })?;
        let whole = moved(&stream, || call.run())? * share;
        measured.push(work.measured(shape, dtype)?.emulated(whole, ASSUMED_GBS));
    }
    Ok(measured)
}

/// The bytes that a run moves.
fn moved(stream: &Stream, run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let _ = traffic::taken(stream);
    run()?;
    stream.check()?;
    let moved = traffic::taken(stream);
    Ok((moved.loads + moved.stores) as f64)
}
