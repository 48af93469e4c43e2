//! Whole batches: typed rows in parallel, reductions, and the four modes.
//!
//! The loss of a batch is L = sum over tokens of `loss_t` / D, and the gradient of `loss_t` is
//! upstream / D. D is 1 for [`Reduction::None`] and [`Reduction::Sum`], and for a mean what its
//! [`Denominator`] says. D = 0 gives loss 0 and gradient 0.
//!
//! Every function checks its arguments' shapes and returns [`Error::Argument`] when they do not
//! fit. The result does not depend on the number of threads.

use rayon::prelude::*;

use super::{Row, RowOptions, RowResult, RowState, RowUpstream, Target};
use crate::Element;
use crate::loss::{Denominator, LossOptions, Objective, Reduction};
use crate::reference::rows::{Indices, PerToken, Rows, RowsMut};
use crate::reference::sum::Sum;
use crate::{Error, Status};

/// What a call gives beside the logits.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// V. Columns of the logits and of the gradient beyond it are padding.
    pub vocab: usize,
    /// `[tokens]`.
    pub targets: Indices<'a>,
    /// w, `[tokens]`; 1 without.
    pub token_weights: Option<&'a [f32]>,
    /// `[ceil(vocab / 32)]` words; a set bit masks its class.
    pub class_mask: Option<&'a [u32]>,
    /// The count that [`Denominator::Tokens`] divides by.
    pub tokens: Option<f64>,
    /// The first token of each sequence and the end of the last, ascending, for
    /// [`Denominator::Sequence`]. Tokens outside of them do not count.
    pub offsets: Option<Indices<'a>>,
}

impl<'a> Batch<'a> {
    /// Targets alone.
    #[must_use]
    pub fn new(vocab: usize, targets: Indices<'a>) -> Self {
        Self {
            vocab,
            targets,
            token_weights: None,
            class_mask: None,
            tokens: None,
            offsets: None,
        }
    }

    fn tokens(&self) -> usize {
        self.targets.len()
    }

    fn row<'r>(&'r self, token: usize, logits: &'r [f64], options: &LossOptions) -> Row<'r> {
        Row {
            logits,
            class_mask: self.class_mask,
            target: self.target(token, options),
            weight: self.token_weights.map_or(1.0, |w| w[token].into()),
        }
    }

    fn target(&self, token: usize, options: &LossOptions) -> Target {
        Target::classify(self.targets.at(token), self.vocab, options.ignore_index)
    }

    fn check(&self, rows: usize, columns: usize, options: &LossOptions) -> Result<(), Error> {
        options.validate()?;
        let tokens = self.tokens();
        let words = self.vocab.div_ceil(32);
        expect("vocab", self.vocab >= 1, "at least 1", self.vocab)?;
        expect("rows", rows == tokens, "one for each target", rows)?;
        expect("columns", columns >= self.vocab, "at least vocab", columns)?;
        if let Some(weights) = self.token_weights {
            let len = weights.len();
            expect("token_weights", len == tokens, "one for each target", len)?;
        }
        if let Some(mask) = self.class_mask {
            let len = mask.len();
            expect("class_mask", len == words, "ceil(vocab / 32) words", len)?;
        }
        match options.reduction {
            Reduction::Mean(Denominator::Tokens) => {
                expect("tokens", self.tokens.is_some(), "given", "absent")
            }
            Reduction::Mean(Denominator::Sequence) => {
                let Some(offsets) = self.offsets else {
                    return expect("offsets", false, "given", "absent");
                };
                let ascending = (1..offsets.len()).all(|i| offsets.at(i - 1) <= offsets.at(i));
                let inside = (0..offsets.len())
                    .all(|i| usize::try_from(offsets.at(i)).is_ok_and(|at| at <= tokens));
                let valid = !offsets.is_empty() && ascending && inside;
                expect("offsets", valid, "ascending within 0..=tokens", offsets)
            }
            _ => Ok(()),
        }
    }

    /// How many of `tokens` have a target that is not the ignored one.
    fn valid(&self, tokens: impl Iterator<Item = usize>, options: &LossOptions) -> u64 {
        tokens
            .filter(|&token| self.target(token, options) != Target::Ignored)
            .count() as u64
    }

    /// The reciprocal of every token's denominator; 0 for a denominator of 0.
    fn scales(&self, options: &LossOptions, kept: u64) -> Scales {
        let count = match options.reduction {
            Reduction::None | Reduction::Sum => 1.0,
            Reduction::Mean(Denominator::Valid) => self.valid(0..self.tokens(), options) as f64,
            Reduction::Mean(Denominator::Kept) => kept as f64,
            Reduction::Mean(Denominator::Tokens) => self.tokens.unwrap_or(0.0),
            Reduction::Mean(Denominator::Sequence) => {
                return Scales::Tokens(self.sequence_scales(options));
            }
        };
        Scales::Batch(reciprocal(count))
    }

    fn sequence_scales(&self, options: &LossOptions) -> Vec<f64> {
        let mut scales = vec![0.0; self.tokens()];
        let Some(offsets) = self.offsets else {
            return scales;
        };
        // `check` has seen that the offsets ascend within 0..=tokens.
        let sequence = |i: usize| offsets.at(i - 1) as usize..offsets.at(i) as usize;
        let counts: Vec<u64> = (1..offsets.len())
            .map(|i| self.valid(sequence(i), options))
            .collect();
        let sequences = counts.iter().filter(|&&count| count > 0).count() as f64;
        for (i, &count) in counts.iter().enumerate() {
            scales[sequence(i + 1)].fill(reciprocal(count as f64 * sequences));
        }
        scales
    }
}

/// 1/D of the tokens.
enum Scales {
    Batch(f64),
    Tokens(Vec<f64>),
}

impl Scales {
    fn at(&self, token: usize) -> f64 {
        match self {
            Self::Batch(scale) => *scale,
            Self::Tokens(scales) => scales[token],
        }
    }
}

fn reciprocal(count: f64) -> f64 {
    if count == 0.0 { 0.0 } else { count.recip() }
}

/// The result of a forward.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// Loss, statistics and saved state of each token.
    pub rows: Vec<RowResult>,
    /// The reduced loss; the sum of the tokens' losses for [`Reduction::None`].
    pub loss: f64,
    /// The sum of the tokens' losses.
    pub loss_sum: f64,
    /// Targets that are not the ignored one.
    pub valid: u64,
    /// Tokens that the criterion counts.
    pub kept: u64,
    /// Tokens whose target is the argmax.
    pub correct: u64,
    /// What was found wrong with any row.
    pub status: Status,
    /// What the gradient that `forward_backward` wrote is still to be multiplied by: upstream / D
    /// under [`Denominator::Kept`], whose D is known only after the pass, else 1.
    pub gradient_scale: f64,
}

impl Forward {
    fn new(batch: &Batch, options: &LossOptions, rows: Vec<RowResult>) -> Self {
        let count = |of: fn(&RowResult) -> bool| rows.iter().filter(|row| of(row)).count() as u64;
        let kept = count(RowResult::kept);
        let scales = batch.scales(options, kept);
        let scaled = |(token, row): (usize, &RowResult)| match scales.at(token) {
            // A denominator of 0 stands for no token, so that nothing remains of the loss.
            0.0 => 0.0,
            scale => scale * row.loss,
        };
        let loss = match scales {
            Scales::Batch(0.0) => 0.0,
            // Sum first: one rounding of the quotient.
            Scales::Batch(scale) => rows.iter().map(|r| r.loss).collect::<Sum>().value() * scale,
            Scales::Tokens(_) => rows.iter().enumerate().map(scaled).collect::<Sum>().value(),
        };
        Self {
            loss,
            loss_sum: rows.iter().map(|row| row.loss).collect::<Sum>().value(),
            valid: batch.valid(0..rows.len(), options),
            kept,
            correct: count(|row| row.correct),
            status: rows.iter().fold(Status::default(), |s, row| s | row.status),
            gradient_scale: 1.0,
            rows,
        }
    }
}

/// The upstream gradients of a backward.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// Of the loss of the batch, or of each token's loss under [`Reduction::None`].
    pub loss: PerToken<'a>,
    /// Of each token's lp.
    pub lp: PerToken<'a>,
    /// Of each token's H.
    pub entropy: PerToken<'a>,
    /// Of each token's lse.
    pub lse: PerToken<'a>,
}

impl<'a> Upstream<'a> {
    /// The gradient of the loss alone.
    #[must_use]
    pub fn loss(loss: PerToken<'a>) -> Self {
        Self {
            loss,
            ..Self::default()
        }
    }

    /// The token's share; `scale` is the 1/D of its loss.
    fn at(&self, token: usize, scale: f64) -> RowUpstream {
        RowUpstream {
            loss: self.loss.at(token) * scale,
            lp: self.lp.at(token),
            entropy: self.entropy.at(token),
            lse: self.lse.at(token),
        }
    }

    fn check(&self, tokens: usize) -> Result<(), Error> {
        let fits = [self.loss, self.lp, self.entropy, self.lse]
            .iter()
            .all(|gradient| gradient.fits(tokens));
        expect("upstream", fits, "one for each target", "another length")
    }
}

impl Default for Upstream<'_> {
    fn default() -> Self {
        let none = PerToken::Scalar(0.0);
        Self {
            loss: none,
            lp: none,
            entropy: none,
            lse: none,
        }
    }
}

/// Loss and statistics; `logits` is `[tokens, >= vocab]`.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn forward<T: Element>(
    batch: &Batch,
    options: &LossOptions,
    logits: Rows<T>,
) -> Result<Forward, Error> {
    batch.check(logits.rows(), logits.columns(), options)?;
    let row_options = RowOptions::from(options);
    let rows = (0..logits.rows())
        .into_par_iter()
        .map_init(Vec::new, |wide, token| {
            let row = widened(batch, options, token, logits.row(token), wide);
            super::forward(&row, &row_options)
        })
        .collect();
    Ok(Forward::new(batch, options, rows))
}

/// The gradient of the logits from the states that a forward saved.
///
/// Under [`Denominator::Kept`] the states say how many tokens were kept, so the gradient comes
/// scaled. `gradient` is `[tokens, >= vocab]`; its columns beyond the vocabulary become 0.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn backward<T: Element, G: Element>(
    batch: &Batch,
    options: &LossOptions,
    logits: Rows<T>,
    states: &[RowState],
    upstream: &Upstream,
    mut gradient: RowsMut<G>,
) -> Result<(), Error> {
    batch.check(logits.rows(), logits.columns(), options)?;
    batch.check(gradient.rows(), gradient.columns(), options)?;
    let pass = Backward::new(batch, options, states, upstream)?;
    gradient
        .par_rows()
        .enumerate()
        .for_each_init(Scratch::default, |scratch, (token, gradient)| {
            pass.row(token, logits.row(token), gradient, scratch)
        });
    Ok(())
}

/// [`backward`] that writes the gradient over the logits.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn backward_in_place<T: Element>(
    batch: &Batch,
    options: &LossOptions,
    mut logits: RowsMut<T>,
    states: &[RowState],
    upstream: &Upstream,
) -> Result<(), Error> {
    batch.check(logits.rows(), logits.columns(), options)?;
    let pass = Backward::new(batch, options, states, upstream)?;
    logits
        .par_rows()
        .enumerate()
        .for_each_init(Scratch::default, |scratch, (token, row)| {
            pass.row_in_place(token, row, scratch);
        });
    Ok(())
}

/// Loss, statistics and gradient in one pass.
///
/// `upstream` is the gradient of the loss of the batch, or of each token's loss. Under
/// [`Denominator::Kept`] the gradient is written without its scale: [`Forward::gradient_scale`]
/// is upstream / D, and [`scale_gradient`] applies it. (An upstream for each token is in the
/// gradient already; the scale then is 1 / D.)
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn forward_backward<T: Element, G: Element>(
    batch: &Batch,
    options: &LossOptions,
    logits: Rows<T>,
    upstream: PerToken,
    mut gradient: RowsMut<G>,
) -> Result<Forward, Error> {
    batch.check(logits.rows(), logits.columns(), options)?;
    batch.check(gradient.rows(), gradient.columns(), options)?;
    let pass = ForwardBackward::new(batch, options, upstream)?;
    let rows = gradient
        .par_rows()
        .enumerate()
        .map_init(Scratch::default, |scratch, (token, gradient)| {
            pass.row(token, logits.row(token), gradient, scratch)
        })
        .collect();
    Ok(pass.finish(rows))
}

/// [`forward_backward`] that writes the gradient over the logits.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn forward_backward_in_place<T: Element>(
    batch: &Batch,
    options: &LossOptions,
    mut logits: RowsMut<T>,
    upstream: PerToken,
) -> Result<Forward, Error> {
    batch.check(logits.rows(), logits.columns(), options)?;
    let pass = ForwardBackward::new(batch, options, upstream)?;
    let rows = logits
        .par_rows()
        .enumerate()
        .map_init(Scratch::default, |scratch, (token, row)| {
            pass.row_in_place(token, row, scratch)
        })
        .collect();
    Ok(pass.finish(rows))
}

/// The statistics of the targets (lp, H, lse, ...) without a loss: of `options` only softcap,
/// temperature and `ignore_index` are used.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn log_probs<T: Element>(
    batch: &Batch,
    options: &LossOptions,
    logits: Rows<T>,
) -> Result<Forward, Error> {
    forward(batch, &statistics_only(options), logits)
}

/// The gradient of the logits from upstream gradients of lp, H and lse; that of the loss is not
/// used. Otherwise as [`backward`].
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn log_probs_backward<T: Element, G: Element>(
    batch: &Batch,
    options: &LossOptions,
    logits: Rows<T>,
    states: &[RowState],
    upstream: &Upstream,
    gradient: RowsMut<G>,
) -> Result<(), Error> {
    let upstream = Upstream {
        loss: PerToken::Scalar(0.0),
        ..*upstream
    };
    let options = statistics_only(options);
    backward(batch, &options, logits, states, &upstream, gradient)
}

fn statistics_only(options: &LossOptions) -> LossOptions {
    let mut plain = LossOptions::new(Objective::Nll);
    plain.softcap = options.softcap;
    plain.temperature = options.temperature;
    plain.ignore_index = options.ignore_index;
    plain.reduction = Reduction::None;
    plain
}

/// Multiplies the rows of the kept tokens by `scale`, rounding once more; the other rows are 0
/// already. `kept` has one entry for each row.
///
/// # Errors
/// [`Error::Argument`] when it has not.
pub fn scale_gradient<G: Element>(
    mut gradient: RowsMut<G>,
    kept: &[bool],
    scale: f64,
) -> Result<(), Error> {
    let rows = gradient.rows();
    expect("kept", kept.len() == rows, "one for each row", kept.len())?;
    gradient
        .par_rows()
        .zip(kept)
        .filter(|&(_, &kept)| kept)
        .for_each(|(row, _)| {
            for value in row {
                *value = G::from_f64(value.to_f64() * scale);
            }
        });
    Ok(())
}

/// One thread's rows in f64.
#[derive(Default)]
struct Scratch {
    logits: Vec<f64>,
    gradient: Vec<f64>,
}

/// The token's row in f64, held in `wide`; a row that takes no part is not read.
fn widened<'r, T: Element>(
    batch: &'r Batch,
    options: &LossOptions,
    token: usize,
    logits: &[T],
    wide: &'r mut Vec<f64>,
) -> Row<'r> {
    wide.clear();
    if matches!(batch.target(token, options), Target::Valid(_)) {
        wide.extend(logits[..batch.vocab].iter().map(|x| x.to_f64()));
    }
    batch.row(token, wide, options)
}

/// Rounds a row of the gradient; what lies beyond the vocabulary becomes 0.
fn round<G: Element>(wide: &[f64], gradient: &mut [G]) {
    let (vocab, padding) = gradient.split_at_mut(wide.len());
    for (narrow, &wide) in vocab.iter_mut().zip(wide) {
        *narrow = G::from_f64(wide);
    }
    padding.fill(G::from_f64(0.0));
}

struct Backward<'a> {
    batch: &'a Batch<'a>,
    options: &'a LossOptions,
    row_options: RowOptions,
    states: &'a [RowState],
    upstream: &'a Upstream<'a>,
    scales: Scales,
}

impl<'a> Backward<'a> {
    fn new(
        batch: &'a Batch<'a>,
        options: &'a LossOptions,
        states: &'a [RowState],
        upstream: &'a Upstream<'a>,
    ) -> Result<Self, Error> {
        let tokens = batch.tokens();
        let count = states.len();
        expect("states", count == tokens, "one for each target", count)?;
        upstream.check(tokens)?;
        let kept = states.iter().filter(|state| state.kept).count() as u64;
        Ok(Self {
            batch,
            options,
            row_options: RowOptions::from(options),
            states,
            upstream,
            scales: batch.scales(options, kept),
        })
    }

    fn row<T: Element, G: Element>(
        &self,
        token: usize,
        logits: &[T],
        gradient: &mut [G],
        scratch: &mut Scratch,
    ) {
        self.gradient(token, logits, scratch);
        round(&scratch.gradient, gradient);
    }

    fn row_in_place<T: Element>(&self, token: usize, row: &mut [T], scratch: &mut Scratch) {
        self.gradient(token, row, scratch);
        round(&scratch.gradient, row);
    }

    fn gradient<T: Element>(&self, token: usize, logits: &[T], scratch: &mut Scratch) {
        let upstream = self.upstream.at(token, self.scales.at(token));
        let row = widened(self.batch, self.options, token, logits, &mut scratch.logits);
        scratch.gradient.resize(self.batch.vocab, 0.0);
        let state = &self.states[token];
        super::gradient(
            &row,
            &self.row_options,
            state,
            &upstream,
            &mut scratch.gradient,
        );
    }
}

struct ForwardBackward<'a> {
    batch: &'a Batch<'a>,
    options: &'a LossOptions,
    row_options: RowOptions,
    upstream: PerToken<'a>,
    /// 1 where the denominator is not known yet.
    scales: Scales,
    deferred: bool,
}

impl<'a> ForwardBackward<'a> {
    fn new(
        batch: &'a Batch<'a>,
        options: &'a LossOptions,
        upstream: PerToken<'a>,
    ) -> Result<Self, Error> {
        Upstream::loss(upstream).check(batch.tokens())?;
        let deferred = options.reduction == Reduction::Mean(Denominator::Kept);
        Ok(Self {
            batch,
            options,
            row_options: RowOptions::from(options),
            upstream,
            scales: if deferred {
                Scales::Batch(1.0)
            } else {
                batch.scales(options, 0)
            },
            deferred,
        })
    }

    fn row<T: Element, G: Element>(
        &self,
        token: usize,
        logits: &[T],
        gradient: &mut [G],
        scratch: &mut Scratch,
    ) -> RowResult {
        let result = self.gradient(token, logits, scratch);
        round(&scratch.gradient, gradient);
        result
    }

    fn row_in_place<T: Element>(
        &self,
        token: usize,
        row: &mut [T],
        scratch: &mut Scratch,
    ) -> RowResult {
        let result = self.gradient(token, row, scratch);
        round(&scratch.gradient, row);
        result
    }

    fn gradient<T: Element>(&self, token: usize, logits: &[T], scratch: &mut Scratch) -> RowResult {
        let row = widened(self.batch, self.options, token, logits, &mut scratch.logits);
        let result = super::forward(&row, &self.row_options);
        let upstream = match self.upstream {
            PerToken::Scalar(_) if self.deferred => 1.0,
            upstream => upstream.at(token) * self.scales.at(token),
        };
        scratch.gradient.resize(self.batch.vocab, 0.0);
        super::gradient(
            &row,
            &self.row_options,
            &result.state,
            &RowUpstream::loss(upstream),
            &mut scratch.gradient,
        );
        result
    }

    fn finish(&self, rows: Vec<RowResult>) -> Forward {
        let mut forward = Forward::new(self.batch, self.options, rows);
        if self.deferred {
            let upstream = match self.upstream {
                PerToken::Scalar(upstream) => upstream,
                PerToken::Tokens(_) => 1.0,
            };
            forward.gradient_scale = upstream * reciprocal(forward.kept as f64);
        }
        forward
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
    Err(Error::Argument {
        op: "reference::loss",
        argument,
        expected: expected.to_string(),
        got: format!("{got:?}"),
    })
}
