//! The loss over a softmax, row by row in f64.
//!
//! With x the raw logits of a token, y its target, and j over the V' classes that take part (a class
//! is masked when its mask bit is set or its z is -inf; then p = 0 and its gradient is exactly 0):
//!
//! ```text
//! z = c tanh(x / c) / T                                     softcap, temperature
//! m = max_j z_j    S = sum_j exp(z_j - m)    lse = m + log S
//! p_j = exp(z_j - m) / S                     lp = (z_y - m) - log S
//! 1 - p = sum_{j != y} exp(z_j - m) / S      H = log S - sum_j p_j (z_j - m)
//! EL2N = sqrt(sum_j p_j^2 - 2 p + 1)
//!
//! loss = w ((1 - epsilon) f(p) + epsilon/V' sum_j -log p_j)
//!        + lambda_z lse^2 - eta H + lambda_s/2 sum_j x_j^2
//! dz_j = a p_j - b [j = y] - c p_j (log p_j + H) - d        a..e: Coefficients
//! dx_j = dz_j (1 - tanh^2(x_j / c)) / T + e x_j
//! ```
//!
//! Digits are kept where the plain forms lose them: log S is `log1p` of the sum without its
//! largest term, 1 - p is never formed by subtraction, and the gradient at the target is
//! -b (1 - p) and not b p - b.
//!
//! [`batch`] holds the rows of a whole batch, in parallel, with reductions.

pub mod batch;
mod gradient;
mod modes;
mod objective;
#[cfg(test)]
mod tests;

pub use gradient::{Coefficients, RowUpstream, gradient};
pub use objective::{ObjectiveValue, Probability, objective};

use std::borrow::Cow;

use super::sum::Sum;
use crate::Status;
use crate::loss::{Criterion, LossOptions, Threshold};

/// The options of [`LossOptions`] that concern one row, in f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowOptions {
    /// f(p) and the tokens it counts.
    pub criterion: Criterion,
    /// c of c tanh(x / c).
    pub softcap: Option<f64>,
    /// T.
    pub temperature: f64,
    /// `lambda_z`.
    pub z_loss: f64,
    /// epsilon.
    pub label_smoothing: f64,
    /// eta.
    pub entropy: f64,
    /// `lambda_s`.
    pub spectral_decoupling: f64,
}

impl From<&LossOptions> for RowOptions {
    fn from(options: &LossOptions) -> Self {
        Self {
            criterion: options.criterion,
            softcap: options.softcap.map(f64::from),
            temperature: options.temperature.into(),
            z_loss: options.z_loss.into(),
            label_smoothing: options.label_smoothing.into(),
            entropy: options.entropy.into(),
            spectral_decoupling: options.spectral_decoupling.into(),
        }
    }
}

impl RowOptions {
    /// The criterion alone.
    #[must_use]
    pub fn new(criterion: impl Into<Criterion>) -> Self {
        Self::from(&LossOptions::new(criterion))
    }
}

/// What a target says about its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A class of the vocabulary.
    Valid(usize),
    /// The ignored one: the row takes no part and is not read.
    Ignored,
    /// No class: the row takes no part and the status says so.
    OutOfRange,
}

impl Target {
    /// The meaning of `target` among `vocab` classes; `ignore_index` comes first.
    #[must_use]
    pub fn classify(target: i64, vocab: usize, ignore_index: i64) -> Self {
        if target == ignore_index {
            return Self::Ignored;
        }
        match usize::try_from(target) {
            Ok(class) if class < vocab => Self::Valid(class),
            _ => Self::OutOfRange,
        }
    }

    /// What is wrong with the target itself.
    fn status(self) -> Status {
        match self {
            Self::OutOfRange => Status::TARGET_OUT_OF_RANGE,
            Self::Valid(_) | Self::Ignored => Status::empty(),
        }
    }
}

/// One token's input.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The raw logits, `[vocab]`; not read unless the target is valid.
    pub logits: &'a [f64],
    /// Bit j % 32 of word j / 32 set: class j is masked. `[ceil(vocab / 32)]`.
    pub class_mask: Option<&'a [u32]>,
    /// The target.
    pub target: Target,
    /// w, of any sign.
    pub weight: f64,
}

impl<'a> Row<'a> {
    /// A row with neither mask nor weight.
    #[must_use]
    pub fn new(logits: &'a [f64], target: Target) -> Self {
        Self {
            logits,
            class_mask: None,
            target,
            weight: 1.0,
        }
    }

    /// The target, which is a class of the row if it is valid.
    fn checked_target(&self) -> Target {
        match self.target {
            Target::Valid(target) if target >= self.logits.len() => Target::OutOfRange,
            target => target,
        }
    }

    /// Whether the class mask removes class `j`; words that are missing remove nothing.
    fn masked_by_bit(&self, j: usize) -> bool {
        self.class_mask
            .and_then(|words| words.get(j / 32))
            .is_some_and(|word| word >> (j % 32) & 1 == 1)
    }

    /// The transformed logits, -inf where the class is masked. What is infinite stays so under a
    /// softcap, so that -inf masks its class there too.
    fn transformed(&self, options: &RowOptions) -> Cow<'a, [f64]> {
        let cap = |x: f64| match options.softcap {
            Some(c) if x.is_finite() => c * (x / c).tanh(),
            _ => x,
        };
        if self.class_mask.is_none() && options.softcap.is_none() && options.temperature == 1.0 {
            return Cow::Borrowed(self.logits);
        }
        let transformed = self.logits.iter().enumerate().map(|(j, &x)| {
            if self.masked_by_bit(j) {
                f64::NEG_INFINITY
            } else {
                cap(x) / options.temperature
            }
        });
        Cow::Owned(transformed.collect())
    }
}

/// The classes that take part, with their transformed logits.
fn live(z: &[f64]) -> impl Iterator<Item = (usize, f64)> {
    let classes = z.iter().copied().enumerate();
    classes.filter(|&(_, z)| z != f64::NEG_INFINITY)
}

/// What a forward saves of a row for its backward.
///
/// All zero for a row that takes no part; `max` is NaN for a row that is not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowState {
    /// m: the largest transformed logit.
    pub max: f64,
    /// log S.
    pub log_sum: f64,
    /// log p of the target.
    pub lp: f64,
    /// 1 - p of the target.
    pub one_minus_p: f64,
    /// H.
    pub entropy: f64,
    /// `sum_j p_j^2`.
    pub sum_p2: f64,
    /// V': the number of classes that are not masked.
    pub unmasked_count: f64,
    /// Whether the criterion counts the token.
    pub kept: bool,
}

impl RowState {
    /// m + log S.
    #[must_use]
    pub fn lse(&self) -> f64 {
        self.max + self.log_sum
    }

    /// The saved form `[8]`, in the order of the fields, `kept` as 1 or 0.
    #[must_use]
    pub fn to_saved(&self) -> [f32; 8] {
        [
            self.max,
            self.log_sum,
            self.lp,
            self.one_minus_p,
            self.entropy,
            self.sum_p2,
            self.unmasked_count,
            f64::from(u8::from(self.kept)),
        ]
        .map(|value| value as f32)
    }

    /// From the saved form.
    #[must_use]
    pub fn from_saved(saved: &[f32; 8]) -> Self {
        let [
            max,
            log_sum,
            lp,
            one_minus_p,
            entropy,
            sum_p2,
            unmasked_count,
            kept,
        ] = saved.map(f64::from);
        Self {
            max,
            log_sum,
            lp,
            one_minus_p,
            entropy,
            sum_p2,
            unmasked_count,
            kept: kept != 0.0,
        }
    }

    fn non_finite() -> Self {
        Self {
            max: f64::NAN,
            log_sum: f64::NAN,
            lp: f64::NAN,
            one_minus_p: f64::NAN,
            entropy: f64::NAN,
            sum_p2: f64::NAN,
            unmasked_count: f64::NAN,
            kept: true,
        }
    }

    /// What was found wrong with a row whose target is valid.
    fn status(&self, options: &RowOptions) -> Status {
        if self.max.is_nan() {
            return Status::NON_FINITE_ROW;
        }
        let mut status = Status::empty();
        if self.lp == f64::NEG_INFINITY {
            status |= Status::TARGET_MASKED;
        }
        if self.kept && self.objective(options.criterion).saturated {
            status |= Status::SATURATED;
        }
        status
    }

    fn objective(&self, criterion: Criterion) -> ObjectiveValue {
        objective(
            criterion.objective,
            Probability {
                lp: self.lp,
                one_minus_p: self.one_minus_p,
                sum_p2: self.sum_p2,
            },
        )
    }
}

/// The loss and the statistics of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowResult {
    /// The token's loss, before any reduction.
    pub loss: f64,
    /// What the backward needs.
    pub state: RowState,
    /// `log sum_j exp z_j`.
    pub lse: f64,
    /// p of the target.
    pub p: f64,
    /// The lowest class among those with the largest transformed logit.
    pub argmax: usize,
    /// Whether the target is the argmax.
    pub correct: bool,
    /// `sqrt(sum_j p_j^2 - 2 p + 1)`, the distance of the probabilities from the target's onehot.
    pub el2n: f64,
    /// f and g, whether or not the token is kept; `None` for a row that takes no part.
    pub objective: Option<ObjectiveValue>,
    /// What was found wrong with the row.
    pub status: Status,
}

impl RowResult {
    /// The row's threshold decision.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.state.kept
    }
}

/// Loss and statistics of one row.
///
/// A row whose target is ignored or out of range has loss 0 and statistics 0. A row with NaN or
/// +inf among its unmasked transformed logits, or with none that is not -inf, has loss NaN and
/// statistics NaN, counts as kept so that the loss of the batch shows it, and is never correct.
#[must_use]
pub fn forward(row: &Row, options: &RowOptions) -> RowResult {
    let Target::Valid(target) = row.checked_target() else {
        return RowResult {
            status: row.checked_target().status(),
            ..RowResult::default()
        };
    };

    let z = row.transformed(options);
    let mut unmasked_count = 0usize;
    let mut max = f64::NEG_INFINITY;
    let mut argmax = 0;
    let mut finite = true;
    for (j, z) in live(&z) {
        unmasked_count += 1;
        finite &= z.is_finite();
        if z > max {
            (max, argmax) = (z, j);
        }
    }
    if !finite || unmasked_count == 0 {
        let state = RowState::non_finite();
        return RowResult {
            loss: f64::NAN,
            state,
            lse: f64::NAN,
            p: f64::NAN,
            el2n: f64::NAN,
            status: state.status(options),
            ..RowResult::default()
        };
    }
    let unmasked = unmasked_count as f64;

    // Sums over the classes other than the argmax, whose exp(z - m) is exactly 1, and other than
    // the target: what is left when the largest term is taken out of a sum keeps its digits.
    let mut beside_argmax = Sum::default();
    let mut beside_target = Sum::default();
    let mut squares = Sum::default();
    let mut squares_beside_target = Sum::default();
    let mut weighted_gap = Sum::default();
    let mut gap = Sum::default();
    let mut raw_squares = Sum::default();
    for (j, z) in live(&z) {
        let e = (z - max).exp();
        if j != argmax {
            beside_argmax.add(e);
        }
        if j != target {
            beside_target.add(e);
            squares_beside_target.add(e * e);
        }
        squares.add(e * e);
        weighted_gap.add(e * (max - z));
        gap.add(max - z);
        raw_squares.add(row.logits[j] * row.logits[j]);
    }
    let log_sum = beside_argmax.value().ln_1p();
    let sum = 1.0 + beside_argmax.value();
    let target_z = z[target];
    let lp = (target_z - max) - log_sum;
    let one_minus_p = beside_target.value() / sum;

    let mut state = RowState {
        max,
        log_sum,
        lp,
        one_minus_p,
        entropy: log_sum + weighted_gap.value() / sum,
        sum_p2: squares.value() / (sum * sum),
        unmasked_count: unmasked,
        kept: true,
    };
    let p = (target_z - max).exp() / sum;
    state.kept = match options.criterion.threshold {
        None => true,
        Some(Threshold::Above(tau)) => p >= f64::from(tau),
        Some(Threshold::Below(tau)) => p <= f64::from(tau),
    };

    let value = state.objective(options.criterion);
    let loss = if state.kept {
        let epsilon = options.label_smoothing;
        let uniform = (unmasked * log_sum + gap.value()) / unmasked;
        let smoothed = times(1.0 - epsilon, value.f) + epsilon * uniform;
        times(row.weight, smoothed) + options.z_loss * state.lse().powi(2)
            - options.entropy * state.entropy
            + 0.5 * options.spectral_decoupling * raw_squares.value()
    } else {
        0.0
    };

    RowResult {
        loss,
        state,
        lse: state.lse(),
        p,
        argmax,
        correct: argmax == target,
        el2n: (squares_beside_target.value() / (sum * sum) + one_minus_p.powi(2)).sqrt(),
        objective: Some(value),
        status: state.status(options),
    }
}

/// A product in which a coefficient of 0 removes even an infinite value.
fn times(coefficient: f64, value: f64) -> f64 {
    if coefficient == 0.0 {
        0.0
    } else {
        coefficient * value
    }
}
