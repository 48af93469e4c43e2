//! One row of a normalization with its weights and rotary embedding, and the sums over rows.

use super::heads::RotaryTables;
use super::sums::over_rows;
use super::{Moments, WeightGradients, Weights, expect, row_status};
use crate::norm::{NormKind, NormOptions, Rotary};
use crate::reference::floats::{FloatRows, Floats};
use crate::reference::sum::Sum;
use crate::{Error, Status};

/// What all rows of a call share.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    norm: Option<NormOptions>,
    weights: Weights<'a>,
    rotary: Option<(Rotary, RotaryTables<'a>)>,
    heads: usize,
    columns: usize,
}

impl<'a> Pass<'a> {
    /// Checks the weights against rows of this shape.
    pub(super) fn new(
        norm: Option<NormOptions>,
        weights: Weights<'a>,
        rotary: Option<(Rotary, RotaryTables<'a>)>,
        shape: [usize; 3],
    ) -> Result<Self, Error> {
        let [tokens, heads, columns] = shape;
        for (argument, weight) in [("gamma", weights.gamma), ("beta", weights.beta)] {
            let len = weight.map_or(columns, |weight| weight.len());
            let fits = len == columns || len == heads * columns;
            expect(argument, fits, "[D] or [heads, D]", len)?;
        }
        if norm.is_none() {
            let none = weights.gamma.is_none() && weights.beta.is_none();
            expect("weights", none, "absent without a norm", weights)?;
        }
        if let Some((rotary, tables)) = &rotary {
            tables.check(*rotary, tokens)?;
        }
        Ok(Self {
            norm,
            weights,
            rotary,
            heads,
            columns,
        })
    }

    pub(super) fn moments(&self, x: &[f64]) -> Moments {
        match &self.norm {
            Some(options) => Moments::new(x, options),
            None => Moments {
                mean: 0.0,
                rstd: 1.0,
            },
        }
    }

    /// Columns of the row's part of a weight.
    fn weight(&self, weight: Floats, row: usize, start: usize, end: usize) -> Vec<f64> {
        let first = match weight.len() {
            len if len == self.columns => 0,
            _ => row % self.heads * self.columns,
        };
        weight.widen(first + start, first + end)
    }

    /// gamma and its offset; 1 without gamma.
    fn factor(&self, row: usize) -> Vec<f64> {
        let offset = self.norm.map_or(0.0, |norm| norm.gamma_offset().into());
        match self.weights.gamma {
            Some(gamma) => {
                let gamma = self.weight(gamma, row, 0, self.columns);
                gamma.iter().map(|gamma| gamma + offset).collect()
            }
            None => vec![1.0; self.columns],
        }
    }

    /// Turns the row, or turns it back. A position that the tables do not have makes it NaN.
    fn turn(&self, row: usize, values: &mut [f64], back: bool) -> Status {
        match &self.rotary {
            Some((rotary, tables)) => tables.turn(*rotary, row / self.heads, values, back),
            None => Status::empty(),
        }
    }

    /// y of a row.
    pub(super) fn forward(&self, row: usize, x: &[f64]) -> (Moments, Vec<f64>, Status) {
        let moments = self.moments(x);
        let mut y = moments.normalized(x);
        for (y, w) in y.iter_mut().zip(self.factor(row)) {
            *y *= w;
        }
        if let Some(beta) = self.weights.beta {
            let beta = self.weight(beta, row, 0, self.columns);
            y.iter_mut().zip(beta).for_each(|(y, beta)| *y += beta);
        }
        let status = self.turn(row, &mut y, false);
        let fine = moments.rstd.is_finite() && (self.norm.is_some() || all_finite(x));
        (moments, y, status | row_status(fine))
    }

    /// dx of a row.
    pub(super) fn backward(&self, row: usize, x: &[f64], dy: &[f64]) -> (Vec<f64>, Status) {
        let mut dx = dy.to_vec();
        let status = self.turn(row, &mut dx, true);
        let moments = self.moments(x);
        let fine = moments.rstd.is_finite() && all_finite(dy);
        if let Some(norm) = self.norm.filter(|_| fine) {
            for (dx, w) in dx.iter_mut().zip(self.factor(row)) {
                *dx *= w;
            }
            let h = moments.normalized(x);
            let mean = |sum: Sum| sum.value() / self.columns as f64;
            let c1 = match norm.kind {
                NormKind::Rms => 0.0,
                NormKind::Layer => mean(dx.iter().copied().collect()),
            };
            let c2 = mean(dx.iter().zip(&h).map(|(a, h)| a * h).collect());
            for (dx, h) in dx.iter_mut().zip(&h) {
                *dx = moments.rstd * (*dx - c1 - h * c2);
            }
        } else if self.norm.is_some() {
            dx.fill(f64::NAN);
        }
        (dx, status | row_status(fine))
    }

    /// The gradients of gamma and beta.
    pub(super) fn weight_gradients(
        &self,
        x: &FloatRows,
        dy: &FloatRows,
        moments: &[Moments],
        gradients: WeightGradients,
    ) -> Result<(), Error> {
        let WeightGradients {
            gamma,
            beta,
            accumulate,
        } = gradients;
        for (argument, weight, gradient) in [
            ("dgamma", self.weights.gamma, &gamma),
            ("dbeta", self.weights.beta, &beta),
        ] {
            if let Some(gradient) = gradient {
                let fits = weight.is_some_and(|weight| weight.len() == gradient.len());
                expect(argument, fits, "as long as its weight", gradient.len())?;
            }
        }
        // dy before the rotary embedding.
        let turned_back = |row: usize, start: usize, end: usize| {
            if self.rotary.is_none() {
                return dy.part(row, start, end);
            }
            let mut dy = dy.row(row);
            self.turn(row, &mut dy, true);
            dy[start..end].to_vec()
        };
        let groups = |len: usize| if len == self.columns { 1 } else { self.heads };
        if let Some(mut gamma) = gamma {
            let sums = over_rows(
                x.rows(),
                self.columns,
                groups(gamma.len()),
                |row, start, end| {
                    let h = moments[row].normalized(&x.part(row, start, end));
                    let dy = turned_back(row, start, end);
                    dy.iter().zip(h).map(|(dy, h)| dy * h).collect()
                },
            );
            gamma.store_or_add(&sums, accumulate);
        }
        if let Some(mut beta) = beta {
            let sums = over_rows(x.rows(), self.columns, groups(beta.len()), turned_back);
            beta.store_or_add(&sums, accumulate);
        }
        Ok(())
    }
}

pub(super) fn all_finite(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite())
}
