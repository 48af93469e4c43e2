//! On the emulator: nothing is timed. The bytes that the kernels moved, beside the least there is, and
//! what those bytes alone would take on a real device: a prediction, and labelled so.

use evenkeel::loss::KernelPath;
use evenkeel::{DType, Device, Result};

use super::record::{Row, ShapeOf};
use super::work::Work;
use crate::loss::Case;
use crate::traffic;

/// The copy rate that predictions assume, in bytes a nanosecond: nine tenths of the 4.8 TB/s that an
/// H200 nominally has. No run of this project has measured it.
pub const ASSUMED_GBS: f64 = 4300.0;

/// Tokens that are emulated: enough that what a launch brings along does not count.
pub const TOKENS: usize = 2;

/// One shape in one type, on both kernels.
///
/// # Errors
/// The library's.
pub fn measure(device: &Device, works: &[Work], shape: ShapeOf, dtype: DType) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let tokens = shape.tokens.min(TOKENS);
    for work in works {
        for path in [KernelPath::Cluster, KernelPath::Block] {
            let mut case = Case::new(tokens, shape.vocab, dtype);
            case.options.criterion = work.objective.into();
            case.mode = work.mode;
            case.path = Some(path);
            let moved = traffic::of(device, &case.problem())?;
            let bytes = moved.loads + moved.stores;
            let emulated = ShapeOf {
                tokens,
                vocab: shape.vocab,
            };
            // The tokens are alike: the whole batch moves as many times the bytes.
            let whole = bytes as f64 * shape.tokens as f64 / tokens as f64;
            rows.push(Row {
                op: "loss".into(),
                variant: format!("{} {}", work.name(), format!("{path:?}").to_lowercase()),
                shape,
                dtype: dtype.to_string(),
                bytes: whole as u64,
                predicted_us: Some(whole / ASSUMED_GBS / 1e3),
                bytes_of_least: Some(bytes as f64 / work.bytes(emulated, dtype) as f64),
                ..Row::default()
            });
        }
    }
    Ok(rows)
}
