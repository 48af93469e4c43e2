//! Matrices on the emulator: the bytes that the kernels moved.

use evenkeel::{DType, Device, Result};

use super::call::Call;
use super::work::{Work, rows};
use crate::bench::ASSUMED_GBS;
use crate::bench::record::{Row, ShapeOf};
use crate::memory::upload;
use crate::random::Random;
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
        let mut random = Random::new(5);
        let mut call = Call::new(&stream, work, corner, |size| {
            let count = size.iter().product();
            let values: Vec<f64> = (0..count).map(|_| random.normal()).collect();
            upload(&stream, dtype, size, &values)
        })?;
        let _ = traffic::taken(&stream);
        call.run()?;
        stream.check()?;
        let moved = traffic::taken(&stream);
        let whole = (moved.loads + moved.stores) as f64 * share;
        let row = work.measured(shape, dtype)?;
        measured.push(row.emulated(whole, ASSUMED_GBS));
    }
    Ok(measured)
}
