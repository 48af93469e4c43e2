//! Floats that have to be those of the reference, to the bit.

use evenkeel::DType;

use crate::compare::Verdict;
use crate::norm::placed::Written;
use crate::numbers::Interval;

/// That an output has exactly these numbers, zeros of their sign among them, and that nothing around
/// it was written. NaN is NaN, whatever its other bits.
pub fn check(name: &'static str, got: &Written, expected: &[f64], verdict: &mut Verdict) {
    got.check_gaps(name, verdict);
    let values = got.values();
    verdict.equal(
        || format!("the length of {name}"),
        &values.len(),
        &expected.len(),
    );
    let width = got.place.width().max(1);
    let worst = verdict.worst.entry(name).or_default();
    worst.compared += expected.len() as u64;
    for (at, (&got, &want)) in values.iter().zip(expected).enumerate() {
        if got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()) {
            continue;
        }
        let worst = verdict.worst.entry(name).or_default();
        worst.add(DType::F32, 1.0, Interval::only(0.0));
        let (row, column) = (at / width, at % width);
        verdict.wrong(|| format!("{name} of row {row}, column {column} is {got:e}, not {want:e}"));
    }
}

/// f32 as f64.
#[must_use]
pub fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}
