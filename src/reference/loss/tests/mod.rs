//! The reference against what it does not share code with: closed forms, finite differences of
//! the plainly written loss, and properties.

mod batch;
mod closed_forms;
mod differences;
mod edges;
mod properties;

use super::{Row, RowOptions, RowState, RowUpstream, Target, gradient};
use crate::loss::Objective;

/// Every member of the family, with the parameters where its shape changes.
pub(super) const OBJECTIVES: [Objective; 15] = [
    Objective::Nll,
    Objective::Linear,
    Objective::Power(0.0),
    Objective::Power(0.5),
    Objective::Power(1.0),
    Objective::Power(10.0),
    Objective::Power(-0.7),
    Objective::Dft,
    Objective::Focal(0.0),
    Objective::Focal(0.5),
    Objective::Focal(2.0),
    Objective::Poly1(1.0),
    Objective::Poly1(-1.0),
    Objective::Gce(0.7),
    Objective::Deft,
];

/// The plain criterion, as a starting point for changes.
pub(super) fn plain(objective: Objective) -> RowOptions {
    RowOptions::new(objective)
}

/// Every added term at once, none of them small.
pub(super) fn with_all_terms(objective: Objective) -> RowOptions {
    RowOptions {
        z_loss: 0.03,
        label_smoothing: 0.2,
        entropy: 0.4,
        spectral_decoupling: 0.05,
        ..plain(objective)
    }
}

pub(super) fn gradient_of(
    row: &Row,
    options: &RowOptions,
    state: &RowState,
    upstream: &RowUpstream,
) -> Vec<f64> {
    let mut dx = vec![f64::NAN; row.logits.len()];
    gradient(row, options, state, upstream, &mut dx);
    dx
}

pub(super) fn row(logits: &[f64], target: usize) -> Row<'_> {
    Row::new(logits, Target::Valid(target))
}

/// Asserts that two numbers agree within `tolerance` of the larger, or are the same non-number.
#[track_caller]
pub(super) fn assert_close(got: f64, want: f64, tolerance: f64) {
    let close = got == want
        || (got - want).abs() <= tolerance * got.abs().max(want.abs())
        || (got.is_nan() && want.is_nan());
    assert!(close, "got {got:e}, want {want:e}");
}
