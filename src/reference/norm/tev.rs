//! Token embedding variability, a probe of stability (arXiv 2409.07787):
//!
//! ```text
//! TEV = mean over tokens t of sqrt(sum_j (E_tj - mean_j E_tj)^2 / D)      E the embedding table, [V, D]
//! ```
//!
//! A row that is not finite makes it NaN, and the status says so. A table without rows has 0.

use rayon::prelude::*;

use super::{mean_and_spread, row_status};
use crate::Status;
use crate::norm::NormKind;
use crate::reference::floats::FloatRows;
use crate::reference::sum::Sum;

/// The variability of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Variability {
    /// The standard deviation over the features of each token.
    pub deviations: Vec<f64>,
    /// TEV, their mean.
    pub mean: f64,
    /// What was found wrong with any row.
    pub status: Status,
}

/// TEV of `[V, D]`.
#[must_use]
pub fn tev(table: FloatRows) -> Variability {
    let rows = table.rows();
    let deviations: Vec<f64> = (0..rows)
        .into_par_iter()
        .map(|row| mean_and_spread(&table.row(row), NormKind::Layer).1.sqrt())
        .collect();
    let sum: Sum = deviations.iter().copied().collect();
    Variability {
        mean: sum.value() / rows.max(1) as f64,
        status: row_status(deviations.iter().all(|deviation| deviation.is_finite())),
        deviations,
    }
}
