//! On the emulator: nothing is timed. The bytes that the kernels moved, beside the least there is, and
//! what those bytes alone would take on a real device: a prediction, and labelled so.

use evenkeel::loss::KernelPath;
use evenkeel::{DType, Device, Result};

use super::work::Work;
use crate::bench::ASSUMED_GBS;
use crate::bench::record::{Logits, Row};
use crate::loss::Case;
use crate::traffic;

/// Tokens that are emulated: enough that what a launch brings along does not count.
pub const TOKENS: usize = 2;

/// One shape in one type, on both kernels.
///
/// # Errors
/// The library's.
pub fn measure(device: &Device, works: &[Work], shape: Logits, dtype: DType) -> Result<Vec<Row>> {
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
            // The tokens are alike: the whole batch moves as many times the bytes.
            let whole = bytes as f64 * shape.tokens as f64 / tokens as f64;
            let mut measured = work.measured(shape, dtype);
            measured.variant = format!("{} {}", work.name(), format!("{path:?}").to_lowercase());
            rows.push(measured.emulated(whole, ASSUMED_GBS));
        }
    }
    Ok(rows)
}
