//! Typed host memory as the reference sees it: matrices with a row stride, indices, scalars.

use rayon::prelude::*;

use crate::Element;
use crate::Error;

/// A matrix `[rows, columns]` in host memory whose rows start `row_stride` elements apart.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a, T: Element> Rows<'a, T> {
    /// A view of `data`, which may end with the last row's last column.
    ///
    /// # Errors
    /// [`Error::Argument`] when `row_stride < columns`, when there are no columns, or when `data`
    /// is too short.
    pub fn new(
        data: &'a [T],
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Result<Self, Error> {
        check_extent(data.len(), rows, columns, row_stride)?;
        Ok(Self {
            data,
            rows,
            columns,
            row_stride,
        })
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The row's elements; `row < self.rows()`.
    pub(crate) fn row(&self, row: usize) -> &'a [T] {
        let start = row * self.row_stride;
        &self.data[start..start + self.columns]
    }
}

/// A matrix `[rows, columns]` in host memory that is written, or read and written.
#[derive(Debug)]
pub struct RowsMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a, T: Element> RowsMut<'a, T> {
    /// A view of `data`, which may end with the last row's last column.
    ///
    /// # Errors
    /// As [`Rows::new`].
    pub fn new(
        data: &'a mut [T],
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Result<Self, Error> {
        check_extent(data.len(), rows, columns, row_stride)?;
        Ok(Self {
            data,
            rows,
            columns,
            row_stride,
        })
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The rows in order, in parallel, each with its columns alone.
    pub(crate) fn par_rows(&mut self) -> impl IndexedParallelIterator<Item = &mut [T]> {
        let columns = self.columns;
        let end = match self.rows {
            0 => 0,
            rows => (rows - 1) * self.row_stride + columns,
        };
        self.data[..end]
            .par_chunks_mut(self.row_stride)
            .map(move |row| &mut row[..columns])
    }
}

fn check_extent(len: usize, rows: usize, columns: usize, row_stride: usize) -> Result<(), Error> {
    let end = match rows {
        0 => Some(0),
        rows => (rows - 1)
            .checked_mul(row_stride)
            .and_then(|start| start.checked_add(columns)),
    };
    if columns >= 1 && row_stride >= columns && end.is_some_and(|end| end <= len) {
        return Ok(());
    }
    Err(Error::Argument {
        op: "reference",
        argument: "rows",
        expected: "at least one column, row_stride >= columns, and data for every row".into(),
        got: format!("[{rows}, {columns}] with row stride {row_stride} in {len} elements"),
    })
}

/// Integers of the types that targets and offsets come in.
#[derive(Clone, Copy, Debug)]
pub enum Indices<'a> {
    /// Signed 64-bit.
    I64(&'a [i64]),
    /// Signed 32-bit.
    I32(&'a [i32]),
    /// Unsigned 32-bit.
    U32(&'a [u32]),
}

impl Indices<'_> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::I64(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::U32(values) => values.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `index < self.len()`.
    pub(crate) fn at(&self, index: usize) -> i64 {
        match self {
            Self::I64(values) => values[index],
            Self::I32(values) => values[index].into(),
            Self::U32(values) => values[index].into(),
        }
    }
}

/// One number for all tokens, or one for each.
#[derive(Clone, Copy, Debug)]
pub enum PerToken<'a> {
    /// The same for all.
    Scalar(f64),
    /// `[tokens]`.
    Tokens(&'a [f32]),
}

impl PerToken<'_> {
    /// The value of token `index < tokens`.
    pub(crate) fn at(&self, index: usize) -> f64 {
        match self {
            Self::Scalar(value) => *value,
            Self::Tokens(values) => values[index].into(),
        }
    }

    /// Whether there is one for each of `tokens`.
    pub(crate) fn fits(&self, tokens: usize) -> bool {
        match self {
            Self::Scalar(_) => true,
            Self::Tokens(values) => values.len() == tokens,
        }
    }
}
