//! The values of one output: the input as it is or transposed, then rotated.

use rayon::prelude::*;

use super::blocks::{Direction, Group};
use super::{Matrix, hadamard};
use crate::quant::Hadamard;

/// Columns of the input that are gathered together, so that each visit to a row serves several.
const GATHERED: usize = 16;

/// `[outer, inner]` values of an output; what is in no group, or in a rotation's block that its group
/// cuts off, is 0.
pub(super) struct Oriented {
    pub values: Vec<f32>,
    pub direction: Direction,
    inner: usize,
}

impl Oriented {
    pub fn new(
        x: Matrix,
        direction: Direction,
        rotation: Option<&Hadamard>,
        groups: &[Group],
    ) -> Self {
        let [_, inner] = direction.orient(x.shape());
        let mut values = vec![0.0; x.values.len()];
        if !values.is_empty() {
            match direction {
                Direction::RowWise => fill_rows(x, rotation, &mut values),
                Direction::Transposed => fill_columns(x, rotation, groups, &mut values),
            }
        }
        Self {
            values,
            direction,
            inner,
        }
    }

    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.inner..(row + 1) * self.inner]
    }

    /// The largest finite magnitude of a group.
    pub fn amax(&self, group: &Group) -> f32 {
        if self.values.is_empty() {
            return 0.0;
        }
        let rows = group.rows.clone();
        match self.direction {
            Direction::RowWise => rows
                .into_par_iter()
                .map(|row| amax(self.row(row)))
                .reduce(|| 0.0, f32::max),
            Direction::Transposed => self
                .values
                .par_chunks(self.inner)
                .map(|row| amax(&row[rows.clone()]))
                .reduce(|| 0.0, f32::max),
        }
    }
}

/// The largest finite magnitude, 0 if there is none.
pub(super) fn amax(values: &[f32]) -> f32 {
    // The bits of magnitudes are in their order.
    let magnitudes = values.iter().map(|value| value.abs().to_bits());
    let finite = magnitudes.map(|bits| {
        if bits < f32::INFINITY.to_bits() {
            bits
        } else {
            0
        }
    });
    f32::from_bits(finite.fold(0, u32::max))
}

fn fill_rows(x: Matrix, rotation: Option<&Hadamard>, values: &mut [f32]) {
    values
        .par_chunks_mut(x.columns)
        .zip(x.values.par_chunks(x.columns))
        .for_each(|(into, from)| {
            into.copy_from_slice(from);
            if let Some(rotation) = rotation {
                hadamard::rotate(rotation, into);
            }
        });
}

fn fill_columns(x: Matrix, rotation: Option<&Hadamard>, groups: &[Group], values: &mut [f32]) {
    values
        .par_chunks_mut(GATHERED * x.rows)
        .enumerate()
        .for_each(|(chunk, into)| {
            let first = chunk * GATHERED;
            for group in groups {
                for row in group.rows.clone() {
                    let from = &x.values[row * x.columns + first..];
                    for (column, into) in into.chunks_exact_mut(x.rows).enumerate() {
                        into[row] = from[column];
                    }
                }
            }
            let Some(rotation) = rotation else { return };
            for column in into.chunks_exact_mut(x.rows) {
                for group in groups {
                    let part = &mut column[group.rows.clone()];
                    hadamard::rotate(rotation, part);
                    part.chunks_exact_mut(rotation.n).into_remainder().fill(0.0);
                }
            }
        });
}
