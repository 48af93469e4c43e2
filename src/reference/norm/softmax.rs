//! Softmax, log-softmax and `StableMax` of masked rows, with the entropy of each row.
//!
//! Rows are those of `[.., queries, keys]`. A row sees its first keys: those that the causal mask
//! leaves its query, and those below its batch's length. With z = scale x over the keys j that the
//! row sees and whose x is not -inf,
//!
//! ```text
//! softmax    m = max z   S = sum_j exp(z_j - m)   p_j = exp(z_j - m) / S   H = log S - sum_j p_j (z_j - m)
//! log        log p_j = (z_j - m) - log S
//! stablemax  s_j = z_j + 1 (z_j >= 0), 1 / (1 - z_j) (z_j < 0)   S = sum_j s_j   p_j = s_j / S
//!                                                                H = -sum_j p_j log p_j
//! ```
//!
//! and p = 0 (log p = -inf) elsewhere. A row that sees nothing is 0 (-inf) throughout, its entropy
//! is 0 and its gradient too: a padded query disturbs nobody, and the status has nothing to say. A
//! row that sees NaN or +inf is NaN where it sees anything, and the status has `NON_FINITE_ROW`.
//! What a row does not see is not read.
//!
//! The backward goes from y, as it is stored. With g the gradient of y and u that of H:
//!
//! ```text
//! softmax    dz_j = p_j (g_j - sum_k p_k g_k) - u p_j (log p_j + H)
//! log        dz_j = g_j - p_j sum_k g_k - u p_j (log p_j + H)             p = exp(y)
//! stablemax  dz_j = s'_j / S (g_j - sum_k p_k g_k - u (log p_j + H))      s'_j = min(1, s_j)^2, s_j = S p_j
//! dx_j = scale dz_j, and 0 where p_j = 0
//! ```

use rayon::prelude::*;

use super::{expect, row_status, same_shape};
use crate::norm::{SoftmaxKind, SoftmaxOptions};
use crate::reference::Indices;
use crate::reference::floats::{FloatRows, FloatRowsMut, Floats};
use crate::reference::sum::Sum;
use crate::{Error, Status};

/// How rows form blocks.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    /// Rows of a block, which is what the causal mask counts from.
    pub queries: usize,
    /// `[batches]`: keys of each batch; rows are divided among the batches in order. Lengths below 0
    /// are 0, lengths beyond the keys are all of them.
    pub lengths: Option<Indices<'a>>,
}

impl Blocks<'_> {
    /// Blocks of so many rows, all keys present.
    #[must_use]
    pub fn new(queries: usize) -> Self {
        Self {
            queries,
            lengths: None,
        }
    }

    fn check(&self, rows: usize) -> Result<(), Error> {
        let whole = rows == 0 || (self.queries > 0 && rows.is_multiple_of(self.queries));
        expect("queries", whole, "a divisor of the rows", self.queries)?;
        if let Some(lengths) = self.lengths {
            let len = lengths.len();
            let whole = rows == 0 || (len > 0 && rows.is_multiple_of(len));
            expect("lengths", whole, "as many as divide the rows", len)?;
        }
        Ok(())
    }

    /// How many keys the row sees, from the first on.
    fn visible(&self, options: &SoftmaxOptions, row: usize, rows: usize, keys: usize) -> usize {
        let clamp = |count: i64| usize::try_from(count).unwrap_or(0).min(keys);
        let causal = options.causal.map_or(keys, |causal| {
            let query = (row % self.queries) as i64;
            let offset = causal.offset(self.queries, keys);
            clamp(query.saturating_add(offset).saturating_add(1))
        });
        let length = self.lengths.map_or(keys, |lengths| {
            clamp(lengths.at(row / (rows / lengths.len())))
        });
        causal.min(length)
    }
}

/// What a softmax gives beside y.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// The normalizer of each row: lse = m + log S, or for `StableMax` S itself.
    pub normalizers: Vec<f64>,
    /// The entropy of each row.
    pub entropies: Vec<f64>,
    /// What was found wrong with any row.
    pub status: Status,
}

/// One row's result.
struct Row {
    normalizer: f64,
    entropy: f64,
}

/// y of rows x.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn forward(
    options: &SoftmaxOptions,
    blocks: &Blocks,
    x: FloatRows,
    y: FloatRowsMut,
) -> Result<Forward, Error> {
    options.validate()?;
    blocks.check(x.rows())?;
    same_shape("y", y.shape(), x.shape())?;
    let keys = x.columns();
    let rows: Vec<Row> = y
        .into_rows()
        .into_par_iter()
        .enumerate()
        .map(|(row, mut into)| {
            let visible = blocks.visible(options, row, x.rows(), keys);
            let mut values = vec![absent(options.kind); keys];
            let result = shares(options, &x.part(row, 0, visible), &mut values);
            into.store(&values);
            result
        })
        .collect();
    Ok(Forward {
        status: row_status(rows.iter().all(|row| !row.entropy.is_nan())),
        normalizers: rows.iter().map(|row| row.normalizer).collect(),
        entropies: rows.iter().map(|row| row.entropy).collect(),
    })
}

/// y where p = 0.
fn absent(kind: SoftmaxKind) -> f64 {
    match kind {
        SoftmaxKind::LogSoftmax => f64::NEG_INFINITY,
        SoftmaxKind::Softmax | SoftmaxKind::StableMax => 0.0,
    }
}

/// Writes y of the keys that the row sees, which all are [`absent`] before.
fn shares(options: &SoftmaxOptions, x: &[f64], y: &mut [f64]) -> Row {
    let scale = f64::from(options.scale);
    let live = || {
        x.iter()
            .enumerate()
            .filter(|(_, x)| **x != f64::NEG_INFINITY)
            .map(|(j, x)| (j, scale * x))
    };
    if live().any(|(_, z)| !z.is_finite()) {
        y[..x.len()].fill(f64::NAN);
        return Row {
            normalizer: f64::NAN,
            entropy: f64::NAN,
        };
    }
    if options.kind == SoftmaxKind::StableMax {
        let sum = live().map(|(_, z)| stable(z)).collect::<Sum>().value();
        let mut entropy = Sum::default();
        for (j, z) in live() {
            y[j] = stable(z) / sum;
            entropy.add(-times_log(y[j], y[j].ln()));
        }
        return Row {
            normalizer: sum,
            entropy: entropy.value(),
        };
    }
    let Some((argmax, max)) = live().max_by(|a, b| a.1.total_cmp(&b.1)) else {
        return Row {
            normalizer: f64::NEG_INFINITY,
            entropy: 0.0,
        };
    };
    // The argmax' exp(z - m) is 1: without it the logarithm of the sum keeps its digits.
    let others = live().filter(|(j, _)| *j != argmax);
    let others: Sum = others.map(|(_, z)| (z - max).exp()).collect();
    let (sum, log_sum) = (1.0 + others.value(), others.value().ln_1p());
    let mut gap = Sum::default();
    for (j, z) in live() {
        let p = (z - max).exp() / sum;
        gap.add(p * (max - z));
        y[j] = match options.kind {
            SoftmaxKind::LogSoftmax => (z - max) - log_sum,
            SoftmaxKind::Softmax | SoftmaxKind::StableMax => p,
        };
    }
    Row {
        normalizer: max + log_sum,
        entropy: log_sum + gap.value(),
    }
}

/// s.
fn stable(z: f64) -> f64 {
    if z >= 0.0 { z + 1.0 } else { (1.0 - z).recip() }
}

/// p times a logarithm, 0 where p is.
fn times_log(p: f64, log: f64) -> f64 {
    if p == 0.0 { 0.0 } else { p * log }
}

/// The gradients that come from above, and what a forward saved.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Of y.
    pub dy: FloatRows<'a>,
    /// Of the entropy of each row, `[rows]`.
    pub dentropy: Option<Floats<'a>>,
    /// [`Forward::normalizers`], which `StableMax` needs, `[rows]`.
    pub normalizers: Option<Floats<'a>>,
}

/// The gradient of x from y.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn backward(
    options: &SoftmaxOptions,
    blocks: &Blocks,
    y: FloatRows,
    incoming: Incoming,
    dx: FloatRowsMut,
) -> Result<Status, Error> {
    options.validate()?;
    blocks.check(y.rows())?;
    let Incoming {
        dy,
        dentropy,
        normalizers,
    } = incoming;
    let (rows, keys) = (y.rows(), y.columns());
    same_shape("dy", dy.shape(), y.shape())?;
    same_shape("dx", dx.shape(), y.shape())?;
    for (argument, values) in [("dentropy", dentropy), ("normalizers", normalizers)] {
        let len = values.map_or(rows, |values| values.len());
        expect(argument, len == rows, "one for each row", len)?;
    }
    let enough = options.kind != SoftmaxKind::StableMax || normalizers.is_some();
    expect("normalizers", enough, "given for stablemax", "absent")?;

    let statuses: Vec<Status> = dx
        .into_rows()
        .into_par_iter()
        .enumerate()
        .map(|(row, mut into)| {
            let visible = blocks.visible(options, row, rows, keys);
            let at_row = |values: Option<Floats>| values.map_or(0.0, |values| values.at(row));
            let mut values = gradient(
                options,
                &y.part(row, 0, visible),
                &dy.part(row, 0, visible),
                at_row(dentropy),
                at_row(normalizers),
            );
            let fine = !values.iter().any(|dx| dx.is_nan());
            values.resize(keys, 0.0);
            into.store(&values);
            row_status(fine)
        })
        .collect();
    Ok(statuses
        .into_iter()
        .fold(Status::empty(), |all, status| all | status))
}

/// dx of the keys that a row sees: NaN throughout where y or dy is not finite.
fn gradient(options: &SoftmaxOptions, y: &[f64], dy: &[f64], dentropy: f64, sum: f64) -> Vec<f64> {
    let log_softmax = options.kind == SoftmaxKind::LogSoftmax;
    let masked = |y: f64| y == absent(options.kind);
    let fine = y
        .iter()
        .zip(dy)
        .all(|(y, dy)| masked(*y) || (y.is_finite() && dy.is_finite()));
    if !fine {
        return vec![f64::NAN; y.len()];
    }
    let share = |y: f64| {
        if log_softmax {
            (y.exp(), y)
        } else {
            (y, y.ln())
        }
    };
    let live = || y.iter().zip(dy).filter(|(y, _)| !masked(**y));
    let weighted = |(y, dy): (&f64, &f64)| if log_softmax { *dy } else { y * dy };
    let mean = live().map(weighted).collect::<Sum>().value();
    let entropy = live()
        .map(|(y, _)| share(*y))
        .map(|(p, log_p)| -times_log(p, log_p))
        .collect::<Sum>()
        .value();
    let dz = |(y, dy): (&f64, &f64)| {
        if masked(*y) {
            return 0.0;
        }
        let (p, log_p) = share(*y);
        let of_entropy = dentropy * (log_p + entropy);
        match options.kind {
            SoftmaxKind::Softmax => p * (dy - mean - of_entropy),
            SoftmaxKind::LogSoftmax => dy - p * mean - times_log(p, of_entropy),
            SoftmaxKind::StableMax => {
                let slope = (p * sum).min(1.0).powi(2);
                slope / sum * (dy - mean - of_entropy)
            }
        }
    };
    let scale = f64::from(options.scale);
    y.iter().zip(dy).map(|pair| scale * dz(pair)).collect()
}
