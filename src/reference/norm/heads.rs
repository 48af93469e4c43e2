//! Normalization of each head of `[tokens, heads, head_dim]` (QK-norm), and rotary embedding.
//!
//! With (a, b) = elements of pair i of a head after its normalization, and c, s = the tables at
//! `[position, i]`:
//!
//! ```text
//! (a, b) -> (a c - b s, a s + b c)        backward (da, db) -> (da c + db s, db c - da s)
//! ```
//!
//! The pairs are those of [`Pairing`](crate::norm::Pairing) within the first `width` elements
//! (`RoFormer`, arXiv 2104.09864). The tables have no gradient. The result is rounded once, after
//! both. Without a norm, NaN and infinities spread to their partners alone; the status has them.

use super::pass::Pass;
use super::rows::{Incoming, Outgoing, backward_with, forward_with};
use super::{Forward, WeightGradients, Weights, expect};
use crate::norm::{HeadNormOptions, Rotary};
use crate::reference::Indices;
use crate::reference::floats::{FloatRows, FloatRowsMut, Floats};
use crate::{Error, Status};

/// What a rotary embedding reads beside the heads.
#[derive(Clone, Copy, Debug)]
pub struct RotaryTables<'a> {
    /// `[positions, width / 2]`.
    pub cos: Floats<'a>,
    /// `[positions, width / 2]`.
    pub sin: Floats<'a>,
    /// `[tokens]`; the token's index without. A token whose position the tables do not have becomes
    /// NaN, and the status says so.
    pub positions: Option<Indices<'a>>,
}

impl RotaryTables<'_> {
    pub(super) fn check(&self, rotary: Rotary, tokens: usize) -> Result<(), Error> {
        let (cos, sin) = (self.cos.len(), self.sin.len());
        let whole = cos.is_multiple_of(rotary.width / 2) && cos == sin;
        expect(
            "cos and sin",
            whole,
            "[positions, width / 2] both",
            (cos, sin),
        )?;
        let positions = self.positions.map_or(tokens, |positions| positions.len());
        expect(
            "positions",
            positions == tokens,
            "one for each token",
            positions,
        )
    }

    /// Turns a head of the token, or turns it back.
    pub(super) fn turn(
        &self,
        rotary: Rotary,
        token: usize,
        head: &mut [f64],
        back: bool,
    ) -> Status {
        let pairs = rotary.width / 2;
        let position = self.positions.map_or(Some(token), |positions| {
            usize::try_from(positions.at(token)).ok()
        });
        let Some(position) = position.filter(|&position| position < self.cos.len() / pairs) else {
            head.fill(f64::NAN);
            return Status::POSITION_OUT_OF_RANGE;
        };
        for i in 0..pairs {
            let c = self.cos.at(position * pairs + i);
            let s = self.sin.at(position * pairs + i);
            let s = if back { -s } else { s };
            let (first, second) = rotary.pairing.elements(i, rotary.width);
            let (a, b) = (head[first], head[second]);
            (head[first], head[second]) = (a * c - b * s, a * s + b * c);
        }
        Status::empty()
    }
}

fn pass<'a>(
    options: &HeadNormOptions,
    weights: &Weights<'a>,
    tables: Option<&RotaryTables<'a>>,
    shape: [usize; 3],
) -> Result<Pass<'a>, Error> {
    options.validate(shape[2])?;
    let given = tables.is_some() == options.rotary.is_some();
    expect(
        "tables",
        given,
        "given with a rotary embedding, and only then",
        tables,
    )?;
    let rotary = options.rotary.zip(tables.copied());
    Pass::new(options.norm, *weights, rotary, shape)
}

/// y of heads x, which [`FloatRows::heads`] describes; gamma and beta are `[head_dim]` or
/// `[heads, head_dim]`.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn forward(
    options: &HeadNormOptions,
    weights: &Weights,
    tables: Option<&RotaryTables>,
    x: FloatRows,
    y: FloatRowsMut,
) -> Result<Forward, Error> {
    let pass = pass(options, weights, tables, x.shape())?;
    forward_with(&pass, x, None, y)
}

/// The gradients of a [`forward`].
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn backward(
    options: &HeadNormOptions,
    weights: &Weights,
    tables: Option<&RotaryTables>,
    x: FloatRows,
    dy: FloatRows,
    dx: FloatRowsMut,
    dweights: WeightGradients,
) -> Result<Status, Error> {
    let pass = pass(options, weights, tables, x.shape())?;
    let incoming = Incoming { dy, dstream: None };
    let outgoing = Outgoing {
        dx,
        dresidual: None,
        weights: dweights,
    };
    backward_with(&pass, x, incoming, outgoing)
}
