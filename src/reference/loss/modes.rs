//! The four modes over a batch: rows in parallel, each result rounded once.

use rayon::prelude::*;

use super::batch::{Batch, Forward, Scales, Upstream, expect, reciprocal};
use super::{Row, RowOptions, RowResult, RowState, RowUpstream, Target};
use crate::loss::{Denominator, LossOptions, Objective, Reduction};
use crate::reference::rows::{PerToken, Rows, RowsMut};
use crate::{Error, Number, Status};

/// Loss and statistics; `logits` is `[tokens, >= vocab]`.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn forward<T: Number>(
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
/// scaled. `gradient` is `[tokens, >= vocab]`; its columns beyond the vocabulary become 0. Returns
/// what was found wrong with any row.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn backward<T: Number, G: Number>(
    batch: &Batch,
    options: &LossOptions,
    logits: Rows<T>,
    states: &[RowState],
    upstream: &Upstream,
    mut gradient: RowsMut<G>,
) -> Result<Status, Error> {
    batch.check(logits.rows(), logits.columns(), options)?;
    batch.check(gradient.rows(), gradient.columns(), options)?;
    let pass = Backward::new(batch, options, states, upstream)?;
    let status = gradient
        .par_rows()
        .enumerate()
        .map_init(Scratch::default, |scratch, (token, gradient)| {
            let status = pass.gradient(token, logits.row(token), scratch);
            round(&scratch.gradient, gradient);
            status
        })
        .reduce(Status::empty, |a, b| a | b);
    Ok(status | batch.status(options))
}

/// [`backward`] that writes the gradient over the logits.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn backward_in_place<T: Number>(
    batch: &Batch,
    options: &LossOptions,
    mut logits: RowsMut<T>,
    states: &[RowState],
    upstream: &Upstream,
) -> Result<Status, Error> {
    batch.check(logits.rows(), logits.columns(), options)?;
    let pass = Backward::new(batch, options, states, upstream)?;
    let status = logits
        .par_rows()
        .enumerate()
        .map_init(Scratch::default, |scratch, (token, row)| {
            let status = pass.gradient(token, row, scratch);
            round(&scratch.gradient, row);
            status
        })
        .reduce(Status::empty, |a, b| a | b);
    Ok(status | batch.status(options))
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
pub fn forward_backward<T: Number, G: Number>(
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
            let result = pass.gradient(token, logits.row(token), scratch);
            round(&scratch.gradient, gradient);
            result
        })
        .collect();
    Ok(pass.finish(rows))
}

/// [`forward_backward`] that writes the gradient over the logits.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn forward_backward_in_place<T: Number>(
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
            let result = pass.gradient(token, row, scratch);
            round(&scratch.gradient, row);
            result
        })
        .collect();
    Ok(pass.finish(rows))
}

/// The statistics of the targets (lp, H, lse, ...) without a loss: of `options` only softcap,
/// temperature and `ignore_index` are used.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn log_probs<T: Number>(
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
pub fn log_probs_backward<T: Number, G: Number>(
    batch: &Batch,
    options: &LossOptions,
    logits: Rows<T>,
    states: &[RowState],
    upstream: &Upstream,
    gradient: RowsMut<G>,
) -> Result<Status, Error> {
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
pub fn scale_gradient<G: Number>(
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
fn widened<'r, T: Number>(
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
fn round<G: Number>(wide: &[f64], gradient: &mut [G]) {
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

    fn gradient<T: Number>(&self, token: usize, logits: &[T], scratch: &mut Scratch) -> Status {
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
        )
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

    fn gradient<T: Number>(&self, token: usize, logits: &[T], scratch: &mut Scratch) -> RowResult {
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
