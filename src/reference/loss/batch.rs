//! Whole batches: typed rows in parallel, reductions, and the four modes (forward, backward,
//! `forward_backward`, `log_probs`).
//!
//! The loss of a batch is L = sum over tokens of `loss_t` / D, and the gradient of `loss_t` is
//! upstream / D. D is 1 for [`Reduction::None`] and [`Reduction::Sum`], and for a mean what its
//! [`Denominator`] says. D = 0 gives loss 0 and gradient 0.
//!
//! Every function checks its arguments' shapes and returns [`Error::Argument`] when they do not
//! fit. The result does not depend on the number of threads.

pub use super::modes::{
    backward, backward_in_place, forward, forward_backward, forward_backward_in_place, log_probs,
    log_probs_backward, scale_gradient,
};
use super::{Row, RowResult, RowUpstream, Target};
use crate::loss::{Denominator, LossOptions, Reduction};
use crate::reference::rows::{Indices, PerToken};
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
    /// [`Denominator::Sequence`]. Tokens outside of them do not count; where the offsets do not
    /// ascend within the tokens, no token does, and the status says so.
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

    pub(super) fn tokens(&self) -> usize {
        self.targets.len()
    }

    pub(super) fn row<'r>(
        &'r self,
        token: usize,
        logits: &'r [f64],
        options: &LossOptions,
    ) -> Row<'r> {
        Row {
            logits,
            class_mask: self.class_mask,
            target: self.target(token, options),
            weight: self.token_weights.map_or(1.0, |w| w[token].into()),
        }
    }

    pub(super) fn target(&self, token: usize, options: &LossOptions) -> Target {
        Target::classify(self.targets.at(token), self.vocab, options.ignore_index)
    }

    pub(super) fn check(
        &self,
        rows: usize,
        columns: usize,
        options: &LossOptions,
    ) -> Result<(), Error> {
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
                let given = self.offsets.is_some_and(|offsets| !offsets.is_empty());
                expect(
                    "offsets",
                    given,
                    "one for each sequence and the end",
                    self.offsets,
                )
            }
            _ => Ok(()),
        }
    }

    /// What is wrong with the batch as a whole: offsets that do not ascend within the tokens.
    pub(super) fn status(&self, options: &LossOptions) -> Status {
        let by_sequence = options.reduction == Reduction::Mean(Denominator::Sequence);
        match self.offsets {
            Some(offsets) if by_sequence && !self.ascend(offsets) => Status::BAD_SEQUENCE_OFFSETS,
            _ => Status::empty(),
        }
    }

    fn ascend(&self, offsets: Indices) -> bool {
        (1..offsets.len()).all(|i| offsets.at(i - 1) <= offsets.at(i))
            && (0..offsets.len())
                .all(|i| usize::try_from(offsets.at(i)).is_ok_and(|at| at <= self.tokens()))
    }

    /// How many of `tokens` have a target that is not the ignored one.
    fn valid(&self, tokens: impl Iterator<Item = usize>, options: &LossOptions) -> u64 {
        tokens
            .filter(|&token| self.target(token, options) != Target::Ignored)
            .count() as u64
    }

    /// The reciprocal of every token's denominator; 0 for a denominator of 0.
    pub(super) fn scales(&self, options: &LossOptions, kept: u64) -> Scales {
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
        let Some(offsets) = self.offsets.filter(|&offsets| self.ascend(offsets)) else {
            return scales;
        };
        // They ascend within 0..=tokens.
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
pub(super) enum Scales {
    Batch(f64),
    Tokens(Vec<f64>),
}

impl Scales {
    pub(super) fn at(&self, token: usize) -> f64 {
        match self {
            Self::Batch(scale) => *scale,
            Self::Tokens(scales) => scales[token],
        }
    }
}

pub(super) fn reciprocal(count: f64) -> f64 {
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
    pub(super) fn new(batch: &Batch, options: &LossOptions, rows: Vec<RowResult>) -> Self {
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
            status: rows
                .iter()
                .fold(batch.status(options), |status, row| status | row.status),
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
    pub(super) fn at(&self, token: usize, scale: f64) -> RowUpstream {
        RowUpstream {
            loss: self.loss.at(token) * scale,
            lp: self.lp.at(token),
            entropy: self.entropy.at(token),
            lse: self.lse.at(token),
        }
    }

    pub(super) fn check(&self, tokens: usize) -> Result<(), Error> {
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

pub(super) fn expect(
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
