//! Rows and heads on the emulator: the bytes that the kernels moved.

use evenkeel::{DType, Device, Result};

use super::call::Call;
use super::work::{Operation, Work};
use crate::bench::ASSUMED_GBS;
use crate::bench::record::{Row, ShapeOf};
use crate::memory::upload;
use crate::random::Random;
use crate::traffic;

/// Elements that are emulated of each tensor, about: a few rows, but two at least.
const ELEMENTS: usize = 1 << 14;

/// One size in one type.
///
/// The emulator counts every access, and a few rows read their weights as often as thousands of rows
/// read them from memory, and leave as many partial sums. So the bytes are those of rows without
/// weights, scaled to the batch, and each weight and gradient of one once. Rotary embeddings are left
/// out: heads that share an angle read it from a cache, and each is counted.
///
/// # Errors
/// The library's.
pub fn measure(device: &Device, shape: ShapeOf, dtype: DType) -> Result<Vec<Row>> {
    let a_token = shape.elements() / shape.tokens();
    let few = shape.of_tokens((ELEMENTS / a_token).clamp(2, 64).min(shape.tokens()));
    let mut rows = Vec::new();
    for work in Work::of(shape) {
        if work.operation == Operation::RotaryQkNorm {
            continue;
        }
        let stream = device.stream()?;
        let mut random = Random::new(5);
        let mut call = Call::new(&stream, *work, few, dtype, false, |size| {
            let count = size.iter().product();
            let values: Vec<f64> = (0..count).map(|_| random.normal()).collect();
            upload(&stream, dtype, size, &values)
        })?;
        // What the forward before a backward moved is not its own.
        let _ = traffic::taken(&stream);
        call.run()?;
        stream.check()?;
        let moved = traffic::taken(&stream);
        let a_token = (moved.loads + moved.stores) as f64 / few.tokens() as f64;
        let whole = a_token * shape.tokens() as f64 + work.weight_bytes(shape, dtype) as f64;
        rows.push(work.measured(shape, dtype).emulated(whole, ASSUMED_GBS));
    }
    Ok(rows)
}
