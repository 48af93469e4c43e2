//! Products of scaled operands, with what is done to their values before these are stored:
//!
//! ```text
//! acc_mn = sum_k (scale_a a)_mk (scale_b b)_nk          a [M, K], b [N, K]
//! v = alpha acc + bias_n + beta C_mn
//! out = v, GELU(v), or silu(v_2j) v_2j+1 in column j
//! ```
//!
//! Elements and scales are widened to f64, in which the product of two of them is exact, and so is
//! their product with the other operand's but for its last bits. Sums run along k in eight lanes that
//! are added at the end. Nothing is rounded to another type here.
//!
//! NaN and infinities are terms like others: one in row m of a is in row m of the product alone.
//!
//! Rows of a may be in groups that have a b each, and the contraction may be in groups that have a
//! product each.

mod epilogue;
mod operand;
#[cfg(test)]
mod tests;

use std::ops::Range;

use rayon::prelude::*;

pub use epilogue::{Epilogue, Product};
pub use operand::{Elements, Operand, Scales, Scaling};

use crate::Error;
use crate::reference::Indices;

/// What is multiplied with what.
#[derive(Clone, Copy, Debug)]
pub enum Groups<'a> {
    /// a with b.
    One,
    /// Ranges of a's rows that ascend, each with its own rows of b: group g's start at g N.
    Rows(&'a [Range<usize>]),
    /// Ranges of the contraction that ascend, each a product of its own.
    Contraction(&'a [Range<usize>]),
}

impl Groups<'_> {
    fn ranges(&self) -> &[Range<usize>] {
        match self {
            Self::One => &[],
            Self::Rows(ranges) | Self::Contraction(ranges) => ranges,
        }
    }
}

/// The groups between offsets, unless these descend or leave `0..=length`.
#[must_use]
pub fn group_ranges(offsets: &Indices<'_>, length: usize) -> Option<Vec<Range<usize>>> {
    let mut ranges = Vec::with_capacity(offsets.len().saturating_sub(1));
    let at = |index| usize::try_from(offsets.at(index)).ok();
    for group in 1..offsets.len() {
        let (start, end) = (at(group - 1)?, at(group)?);
        if start > end || end > length {
            return None;
        }
        ranges.push(start..end);
    }
    Some(ranges)
}

/// The values of both operands: `[M, K]`, and `[N, K]` or with groups of rows `[groups N, K]`.
#[derive(Clone, Debug)]
pub struct Values {
    /// Of a.
    pub a: Vec<f64>,
    /// Of b.
    pub b: Vec<f64>,
    /// M, N of one group, and K.
    pub shape: [usize; 3],
}

/// The values of two operands.
///
/// # Errors
/// [`Error::Argument`] for parts that do not fit each other.
pub fn values(a: &Operand, b: &Operand, groups: &Groups) -> Result<Values, Error> {
    let k = a.columns();
    let same = b.columns() == k;
    expect(
        "b",
        same,
        format!("[.., {k}]"),
        format!("[.., {}]", b.columns()),
    )?;
    let n = match groups {
        Groups::Rows(ranges) => {
            let whole = !ranges.is_empty() && b.rows().is_multiple_of(ranges.len());
            expect("b", whole, "rows of each group", b.rows())?;
            b.rows() / ranges.len()
        }
        Groups::One | Groups::Contraction(_) => b.rows(),
    };
    let limit = match groups {
        Groups::Contraction(_) => k,
        Groups::One | Groups::Rows(_) => a.rows(),
    };
    let within = groups.ranges().iter().all(|range| range.end <= limit);
    expect("groups", within, format!("within {limit}"), "beyond")?;
    Ok(Values {
        a: a.values(groups, None)?,
        b: b.values(groups, Some(n))?,
        shape: [a.rows(), n, k],
    })
}

impl Values {
    /// For each element of the output, `visit` of the row of a, the row of b and the range of the
    /// contraction that make it; row-major `[rows, N]`, where rows are those of the first group to
    /// those of the last, and with groups of the contraction `[groups M, N]`.
    pub fn each<T: Send>(
        &self,
        groups: &Groups,
        visit: impl Fn(&[f64], &[f64]) -> T + Sync,
    ) -> Vec<T> {
        let [m, n, k] = self.shape;
        let row = |out: usize| -> (usize, usize, Range<usize>) {
            match groups {
                Groups::One => (out, 0, 0..k),
                Groups::Rows(ranges) => {
                    let row = written_rows(groups, m).start + out;
                    (row, n * group_of(ranges, row), 0..k)
                }
                Groups::Contraction(ranges) => (out % m, 0, ranges[out / m].clone()),
            }
        };
        let visit = &visit;
        (0..written_rows(groups, m).len())
            .into_par_iter()
            .flat_map_iter(|out| {
                let (row, first, range) = row(out);
                let a = &self.a[row * k..][range.clone()];
                (first..first + n).map(move |column| {
                    let b = &self.b[column * k..][range.clone()];
                    visit(a, b)
                })
            })
            .collect()
    }

    /// The sums of products, as [`each`](Self::each) has them.
    #[must_use]
    pub fn product(&self, groups: &Groups) -> Vec<f64> {
        self.each(groups, dot)
    }
}

/// The rows of the output that are written, where a has `m` rows.
#[must_use]
pub fn written_rows(groups: &Groups, m: usize) -> Range<usize> {
    match groups {
        Groups::One => 0..m,
        Groups::Rows(ranges) => {
            let first = ranges.first().map_or(0, |range| range.start);
            first..ranges.last().map_or(0, |range| range.end)
        }
        Groups::Contraction(ranges) => 0..m * ranges.len(),
    }
}

/// The group that holds a row between the first and the last.
fn group_of(ranges: &[Range<usize>], row: usize) -> usize {
    ranges.partition_point(|range| range.end <= row)
}

/// The product with its epilogue.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit.
pub fn multiply(
    a: &Operand,
    b: &Operand,
    groups: &Groups,
    epilogue: &Epilogue,
) -> Result<Product, Error> {
    let values = values(a, b, groups)?;
    let [m, n, _] = values.shape;
    let rows = written_rows(groups, m);
    let expert = |row: usize| match groups {
        Groups::Rows(ranges) => group_of(ranges, row),
        Groups::One | Groups::Contraction(_) => 0,
    };
    epilogue.apply(values.product(groups), rows, n, expert)
}

/// The sum of the products of elements.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let tail: f64 = tail.map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f64>() + tail
}

fn expect(
    argument: &'static str,
    valid: bool,
    expected: impl Into<String>,
    got: impl std::fmt::Display,
) -> Result<(), Error> {
    if valid {
        return Ok(());
    }
    let got = got.to_string();
    Err(Error::argument(
        "reference::matmul",
        argument,
        expected,
        got,
    ))
}
