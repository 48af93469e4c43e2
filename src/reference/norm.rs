//! Row operations in f64: forward and backward.
//!
//! [`rows`] holds `RmsNorm` and `LayerNorm` with a fused residual, [`heads`] the same over attention
//! heads with a rotary embedding, [`gated`], [`sdd`] and [`dyt`] their neighbours, [`softmax`] the softmaxes
//! over masked rows, [`spectral`] the spectral norm of sigmaReparam, [`tev`] the variability of an
//! embedding table.
//!
//! With x a row of length D, w = gamma + offset, and dy the gradient of y:
//!
//! ```text
//! mean = sum_j x_j / D (layer), 0 (rms)     r = 1 / sqrt(sum_j (x_j - mean)^2 / D + eps)
//! h_j = (x_j - mean) r                      y_j = w_j h_j + beta_j
//!
//! a_j = w_j dy_j     c1 = sum_j a_j / D (layer), 0 (rms)     c2 = sum_j a_j h_j / D
//! dx_j = r (a_j - c1 - h_j c2)      dgamma_j = sum_rows dy_j h_j      dbeta_j = sum_rows dy_j
//! ```
//!
//! The deviations are formed from the mean, in a second pass: a common offset of the row costs no
//! digits. A backward computes mean and r from x again; saved ones spare other devices that work.
//!
//! A row that holds NaN or an infinity, or that has neither spread nor eps, has no normalization:
//! its results are NaN, the status has `NON_FINITE_ROW`, and other rows' results are as they would
//! be without it (sums over rows, as dgamma, become NaN).

pub mod dyt;
pub mod gated;
pub mod heads;
mod pass;
pub mod rows;
pub mod sdd;
pub mod softmax;
pub mod spectral;
mod sums;
#[cfg(test)]
mod tests;
pub mod tev;

use super::floats::{Floats, FloatsMut};
use super::sum::Sum;
use crate::norm::{NormKind, NormOptions};
use crate::{Error, Status};

/// The statistics of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Of x for `Layer`, 0 for `Rms`.
    pub mean: f64,
    /// r = 1 / sqrt(variance or mean square + eps).
    pub rstd: f64,
}

impl Moments {
    /// The statistics of a row; NaN where it has no normalization.
    #[must_use]
    pub fn new(x: &[f64], options: &NormOptions) -> Self {
        let (mean, spread) = mean_and_spread(x, options.kind);
        let rstd = (spread + f64::from(options.eps)).sqrt().recip();
        // An infinity makes the spread infinite or NaN, and rstd 0 or NaN; eps = 0 without spread
        // makes it infinite.
        if rstd.is_finite() && rstd > 0.0 {
            Self { mean, rstd }
        } else {
            Self {
                mean: f64::NAN,
                rstd: f64::NAN,
            }
        }
    }

    /// h, the row before gamma and beta.
    fn normalized(self, x: &[f64]) -> Vec<f64> {
        x.iter().map(|x| (x - self.mean) * self.rstd).collect()
    }
}

/// The mean (0 for `Rms`) and the mean squared deviation from it.
fn mean_and_spread(x: &[f64], kind: NormKind) -> (f64, f64) {
    let d = x.len() as f64;
    let mean = match kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => x.iter().copied().collect::<Sum>().value() / d,
    };
    let squares: Sum = x.iter().map(|x| (x - mean) * (x - mean)).collect();
    (mean, squares.value() / d)
}

/// gamma and beta, each of its own type; absent ones are 1 and 0.
///
/// `[D]`, or over heads `[heads, D]` too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weights<'a> {
    /// The factor, less its offset.
    pub gamma: Option<Floats<'a>>,
    /// The term.
    pub beta: Option<Floats<'a>>,
}

impl<'a> Weights<'a> {
    /// gamma alone.
    #[must_use]
    pub fn gamma(gamma: impl Into<Floats<'a>>) -> Self {
        Self {
            gamma: Some(gamma.into()),
            beta: None,
        }
    }

    /// With beta.
    #[must_use]
    pub fn beta(mut self, beta: impl Into<Floats<'a>>) -> Self {
        self.beta = Some(beta.into());
        self
    }
}

/// Where the gradients of gamma and beta go; each has the length of its weight.
///
/// They are summed over the rows in f64 and rounded once, with what they are added to if they
/// accumulate.
#[derive(Debug, Default)]
pub struct WeightGradients<'a> {
    /// Of gamma. It may be asked for only where gamma is given.
    pub gamma: Option<FloatsMut<'a>>,
    /// Of beta.
    pub beta: Option<FloatsMut<'a>>,
    /// Whether they are added to what is there.
    pub accumulate: bool,
}

/// What a normalization gives beside y.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// The statistics of each row.
    pub moments: Vec<Moments>,
    /// What was found wrong with any row.
    pub status: Status,
}

fn row_status(fine: bool) -> Status {
    if fine {
        Status::empty()
    } else {
        Status::NON_FINITE_ROW
    }
}

fn expect(
    argument: &'static str,
    valid: bool,
    expected: &str,
    got: impl std::fmt::Debug,
) -> Result<(), Error> {
    if valid {
        return Ok(());
    }
    let got = format!("{got:?}");
    Err(Error::argument("reference::norm", argument, expected, got))
}

/// Checks that two matrices have the same rows.
fn same_shape(argument: &'static str, got: [usize; 3], expected: [usize; 3]) -> Result<(), Error> {
    let [tokens, heads, columns] = expected;
    let expected_text = format!("[{tokens}, {heads}, {columns}], as x is");
    expect(argument, got == expected, &expected_text, got)
}
