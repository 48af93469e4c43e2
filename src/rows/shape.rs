//! The rows of a call, and the form of weights over them: shapes, strides and their checks.

use crate::check::{Check, shape_of};
use crate::{Result, TensorRef};

/// `[tokens, heads, columns]`; what is not split into heads has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowShape {
    pub(crate) tokens: usize,
    pub(crate) heads: usize,
    pub(crate) columns: usize,
}

impl RowShape {
    /// Of a matrix of floats.
    pub(crate) fn of(check: &Check, argument: &'static str, view: &TensorRef<'_>) -> Result<Self> {
        check.float(argument, view)?;
        check.row_count(argument, view.rows(), view.columns())?;
        Ok(Self {
            tokens: view.rows(),
            heads: 1,
            columns: view.columns(),
        })
    }

    /// Of `[tokens, heads * columns]`, `[tokens, heads, columns]` or
    /// `[batch, tokens, heads, columns]`.
    pub(crate) fn of_heads(
        check: &Check,
        argument: &'static str,
        view: &TensorRef<'_>,
        heads: usize,
    ) -> Result<Self> {
        check.float(argument, view)?;
        let rank = view.shape().len();
        let (rows, columns) = match rank {
            2 if view.columns().is_multiple_of(heads) => {
                (view.rows().checked_mul(heads), view.columns() / heads)
            }
            // An empty view may have columns past counting.
            3 | 4
                if view.shape()[rank - 2] == heads
                    && view.columns().checked_mul(heads).is_some() =>
            {
                (Some(view.rows()), view.columns())
            }
            _ => {
                return check.fail(
                    argument,
                    format!("[tokens, {heads} * head_dim] or [tokens, {heads}, head_dim]"),
                    shape_of(view),
                );
            }
        };
        // Only empty views have rows past counting.
        let rows = rows.unwrap_or(0);
        check.row_count(argument, rows, columns)?;
        Ok(Self {
            tokens: rows / heads,
            heads,
            columns,
        })
    }

    /// The form of a weight, the first of those that an operation knows.
    pub(crate) fn form_of(
        self,
        check: &Check,
        argument: &'static str,
        weight: &TensorRef<'_>,
        known: &[WeightForm],
    ) -> Result<WeightForm> {
        check.float(argument, weight)?;
        let fits = |form: &&WeightForm| form.elements(self) == weight.elements();
        if let Some(form) = known.iter().find(fits)
            && weight.is_contiguous()
        {
            return Ok(*form);
        }
        let Self { heads, columns, .. } = self;
        let expected: Vec<String> = known
            .iter()
            .map(|form| match form {
                WeightForm::One => "[1]".to_owned(),
                WeightForm::Row => format!("[{columns}]"),
                WeightForm::Heads => format!("[{heads}, {columns}]"),
            })
            .collect();
        let expected = format!("contiguous, of shape {}", expected.join(" or "));
        check.fail(argument, expected, shape_of(weight))
    }

    pub(crate) fn rows(self) -> usize {
        self.tokens * self.heads
    }

    /// Elements from a token to the next, and from a head to the next.
    pub(crate) fn strides(self, view: &TensorRef<'_>) -> [usize; 2] {
        if view.columns() == self.columns {
            [
                self.heads.saturating_mul(view.row_stride()),
                view.row_stride(),
            ]
        } else {
            [view.row_stride(), self.columns]
        }
    }

    /// Whether a view has these rows.
    pub(crate) fn check(
        self,
        check: &Check,
        argument: &'static str,
        view: &TensorRef<'_>,
    ) -> Result<()> {
        let Self {
            tokens,
            heads,
            columns,
        } = self;
        check.float(argument, view)?;
        let got = (view.rows(), view.columns());
        if got == (self.rows(), columns) || got == (tokens, heads * columns) {
            return Ok(());
        }
        let expected = match heads {
            1 => format!("[{tokens}, {columns}]"),
            _ => format!("[{tokens}, {heads} * {columns}] or [{tokens}, {heads}, {columns}]"),
        };
        check.fail(argument, expected, shape_of(view))
    }
}

/// What a weight has one element for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeightForm {
    /// One for all: alpha `[1]`.
    One,
    /// Each column: `[D]`.
    Row,
    /// Each column of each head: `[heads, D]`.
    Heads,
}

impl WeightForm {
    pub(crate) fn elements(self, shape: RowShape) -> usize {
        match self {
            Self::One => 1,
            Self::Row => shape.columns,
            Self::Heads => shape.heads * shape.columns,
        }
    }
}
