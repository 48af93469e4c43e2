//! Floating-point host memory whose element type is known when the program runs.
//!
//! A normalization has up to six tensors of independent types: one function for each combination
//! would be thousands. Rows are widened to f64 instead, and rounded once from it.

use half::{bf16, f16};

use crate::{DType, Error, Number};

/// A slice of floats that is read.
#[derive(Clone, Copy, Debug)]
pub enum Floats<'a> {
    /// bf16.
    Bf16(&'a [bf16]),
    /// f16.
    F16(&'a [f16]),
    /// f32.
    F32(&'a [f32]),
    /// f64, exact: for those who check formulas.
    F64(&'a [f64]),
}

/// A slice of floats that is written, or read and written.
#[derive(Debug)]
pub enum FloatsMut<'a> {
    /// bf16.
    Bf16(&'a mut [bf16]),
    /// f16.
    F16(&'a mut [f16]),
    /// f32.
    F32(&'a mut [f32]),
    /// f64, exact: for those who check formulas.
    F64(&'a mut [f64]),
}

/// The same expression for the slice of each type.
macro_rules! each {
    ($floats:expr, $kind:ident, $values:ident => $result:expr) => {
        match $floats {
            $kind::Bf16($values) => $result,
            $kind::F16($values) => $result,
            $kind::F32($values) => $result,
            $kind::F64($values) => $result,
        }
    };
}

macro_rules! from_slices {
    ($($type:ty => $variant:ident),*) => {$(
        impl<'a> From<&'a [$type]> for Floats<'a> {
            fn from(values: &'a [$type]) -> Self {
                Self::$variant(values)
            }
        }

        impl<'a> From<&'a Vec<$type>> for Floats<'a> {
            fn from(values: &'a Vec<$type>) -> Self {
                Self::$variant(values)
            }
        }

        impl<'a> From<&'a mut [$type]> for FloatsMut<'a> {
            fn from(values: &'a mut [$type]) -> Self {
                Self::$variant(values)
            }
        }

        impl<'a> From<&'a mut Vec<$type>> for FloatsMut<'a> {
            fn from(values: &'a mut Vec<$type>) -> Self {
                Self::$variant(values)
            }
        }
    )*};
}

from_slices!(bf16 => Bf16, f16 => F16, f32 => F32, f64 => F64);

impl<'a> Floats<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        each!(self, Self, values => values.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Self::Bf16(_) => DType::Bf16,
            Self::F16(_) => DType::F16,
            Self::F32(_) => DType::F32,
            Self::F64(_) => DType::F64,
        }
    }

    /// The value at `index < self.len()`.
    pub(crate) fn at(&self, index: usize) -> f64 {
        each!(self, Self, values => values[index].to_f64())
    }

    /// Elements `start..end`, which are within, widened.
    pub(crate) fn widen(&self, start: usize, end: usize) -> Vec<f64> {
        each!(self, Self, values => values[start..end].iter().map(|v| Number::to_f64(*v)).collect())
    }

    /// All elements, widened.
    #[must_use]
    pub fn to_f64(&self) -> Vec<f64> {
        self.widen(0, self.len())
    }
}

impl FloatsMut<'_> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        each!(self, Self, values => values.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    #[must_use]
    pub fn dtype(&self) -> DType {
        match self {
            Self::Bf16(_) => DType::Bf16,
            Self::F16(_) => DType::F16,
            Self::F32(_) => DType::F32,
            Self::F64(_) => DType::F64,
        }
    }

    /// The same slice for a shorter while.
    pub fn reborrow(&mut self) -> FloatsMut<'_> {
        match self {
            Self::Bf16(values) => FloatsMut::Bf16(values),
            Self::F16(values) => FloatsMut::F16(values),
            Self::F32(values) => FloatsMut::F32(values),
            Self::F64(values) => FloatsMut::F64(values),
        }
    }

    /// All elements, widened.
    #[must_use]
    pub fn to_f64(&self) -> Vec<f64> {
        each!(self, Self, values => values.iter().map(|v| Number::to_f64(*v)).collect())
    }

    /// Rounds `values`, one for each element.
    pub(crate) fn store(&mut self, values: &[f64]) {
        each!(self, Self, into => {
            for (into, &value) in into.iter_mut().zip(values) {
                *into = Number::from_f64(value);
            }
        });
    }

    /// Rounds `values`, or their sum with what is there.
    pub(crate) fn store_or_add(&mut self, values: &[f64], add: bool) {
        each!(self, Self, into => {
            for (into, &value) in into.iter_mut().zip(values) {
                let before = if add { Number::to_f64(*into) } else { 0.0 };
                *into = Number::from_f64(before + value);
            }
        });
    }
}

impl<'a> FloatsMut<'a> {
    /// The elements before `at`, which is within, and those from it on.
    fn split(self, at: usize) -> (FloatsMut<'a>, FloatsMut<'a>) {
        macro_rules! split {
            ($variant:ident, $values:ident) => {{
                let (head, tail) = $values.split_at_mut(at);
                (Self::$variant(head), Self::$variant(tail))
            }};
        }
        match self {
            Self::Bf16(values) => split!(Bf16, values),
            Self::F16(values) => split!(F16, values),
            Self::F32(values) => split!(F32, values),
            Self::F64(values) => split!(F64, values),
        }
    }
}

/// Where rows lie: `[outer, inner]` of them, each with its columns side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    outer: usize,
    inner: usize,
    columns: usize,
    outer_stride: usize,
    inner_stride: usize,
}

impl Place {
    fn rows(&self) -> usize {
        self.outer * self.inner
    }

    fn start(&self, row: usize) -> usize {
        row / self.inner * self.outer_stride + row % self.inner * self.inner_stride
    }

    /// Checks that there are columns, and memory for every row.
    fn check(&self, len: usize) -> Result<(), Error> {
        let last = |count: usize, stride: usize| (count - 1).checked_mul(stride);
        let end = if self.outer.checked_mul(self.inner) == Some(0) {
            Some(0)
        } else {
            last(self.outer, self.outer_stride)
                .zip(last(self.inner, self.inner_stride))
                .and_then(|(outer, inner)| outer.checked_add(inner)?.checked_add(self.columns))
        };
        let fits = self.columns >= 1 && end.is_some_and(|end| end <= len);
        self.expect(
            fits,
            "at least one column, and data for every row",
            &format!("{self:?} in {len} elements"),
        )
    }

    /// Checks that no two rows overlap: the rows of one index lie between those of the other.
    fn check_disjoint(&self) -> Result<(), Error> {
        if self.rows() == 0 {
            return Ok(());
        }
        let apart = |count: usize, stride: usize, extent: usize| count <= 1 || stride >= extent;
        let span = |count: usize, stride: usize| (count - 1) * stride + self.columns;
        let inner_within = apart(self.inner, self.inner_stride, self.columns)
            && apart(
                self.outer,
                self.outer_stride,
                span(self.inner, self.inner_stride),
            );
        let outer_within = apart(self.outer, self.outer_stride, self.columns)
            && apart(
                self.inner,
                self.inner_stride,
                span(self.outer, self.outer_stride),
            );
        self.expect(
            inner_within || outer_within,
            "rows that do not overlap",
            &format!("{self:?}"),
        )
    }

    fn expect(&self, valid: bool, expected: &str, got: &str) -> Result<(), Error> {
        if valid {
            return Ok(());
        }
        Err(Error::argument("reference", "rows", expected, got))
    }
}

/// Rows of floats that are read.
#[derive(Clone, Copy, Debug)]
pub struct FloatRows<'a> {
    data: Floats<'a>,
    place: Place,
}

/// Rows of floats that are written, no two of them overlapping.
#[derive(Debug)]
pub struct FloatRowsMut<'a> {
    data: FloatsMut<'a>,
    place: Place,
}

macro_rules! row_constructors {
    ($data:ident) => {
        /// A matrix `[rows, columns]` whose rows start `row_stride` elements apart; `data` may end
        /// with the last row's last column.
        ///
        /// # Errors
        /// [`Error::Argument`] when there are no columns, when rows overlap, or when `data` is too
        /// short.
        pub fn new(
            data: impl Into<$data<'a>>,
            rows: usize,
            columns: usize,
            row_stride: usize,
        ) -> Result<Self, Error> {
            Self::heads(data, [rows, 1, columns], [row_stride, columns])
        }

        /// The heads of `[tokens, heads, head_dim]`, the last contiguous, with the strides of the
        /// other two: row `token * heads + head`.
        ///
        /// # Errors
        /// As [`new`](Self::new).
        pub fn heads(
            data: impl Into<$data<'a>>,
            shape: [usize; 3],
            strides: [usize; 2],
        ) -> Result<Self, Error> {
            let data = data.into();
            let place = Place {
                outer: shape[0],
                inner: shape[1],
                columns: shape[2],
                outer_stride: strides[0],
                inner_stride: strides[1],
            };
            place.check(data.len())?;
            place.check_disjoint()?;
            Ok(Self { data, place })
        }

        /// The number of rows.
        #[must_use]
        pub fn rows(&self) -> usize {
            self.place.rows()
        }

        /// `[tokens, heads, head_dim]`; a matrix has one head.
        #[must_use]
        pub fn shape(&self) -> [usize; 3] {
            [self.place.outer, self.place.inner, self.place.columns]
        }

        /// The number of columns.
        #[must_use]
        pub fn columns(&self) -> usize {
            self.place.columns
        }
    };
}

impl<'a> FloatRows<'a> {
    row_constructors!(Floats);

    /// The row, widened; `row < self.rows()`.
    pub(crate) fn row(&self, row: usize) -> Vec<f64> {
        self.part(row, 0, self.columns())
    }

    /// Columns `start..end` of a row, widened.
    pub(crate) fn part(&self, row: usize, start: usize, end: usize) -> Vec<f64> {
        let first = self.place.start(row);
        self.data.widen(first + start, first + end)
    }
}

impl<'a> FloatRowsMut<'a> {
    row_constructors!(FloatsMut);

    /// The rows in order, each to be written on its own.
    pub(crate) fn into_rows(self) -> Vec<FloatsMut<'a>> {
        let place = self.place;
        let mut order: Vec<usize> = (0..place.rows()).collect();
        order.sort_by_key(|&row| place.start(row));
        let mut found: Vec<Option<FloatsMut<'a>>> = order.iter().map(|_| None).collect();
        let mut rest = self.data;
        let mut at = 0;
        for row in order {
            let (_, from_row) = rest.split(place.start(row) - at);
            let (columns, after) = from_row.split(place.columns);
            found[row] = Some(columns);
            rest = after;
            at = place.start(row) + place.columns;
        }
        // Every row was found.
        found.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_either_nesting_are_found_in_order() {
        // [2 tokens, 3 heads, 2]: heads within tokens with padding, and tokens within heads.
        for strides in [[8, 2], [2, 4]] {
            let mut data = [-1.0_f32; 14];
            let rows = FloatRowsMut::heads(&mut data[..], [2, 3, 2], strides).unwrap();
            for (row, mut into) in rows.into_rows().into_iter().enumerate() {
                into.store(&[row as f64, row as f64 + 0.5]);
            }
            let read = FloatRows::heads(&data[..], [2, 3, 2], strides).unwrap();
            for row in 0..6 {
                assert_eq!(read.row(row), [row as f64, row as f64 + 0.5]);
            }
            assert_eq!(data.iter().filter(|&&v| v == -1.0).count(), 2);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut data = [0.0_f32; 12];
        assert!(FloatRows::new(&data[..], 3, 4, 4).is_ok());
        assert!(FloatRows::new(&data[..11], 3, 4, 4).is_err());
        assert!(FloatRows::new(&data[..], 3, 4, 3).is_err());
        assert!(FloatRows::new(&data[..], 3, 0, 4).is_err());
        assert!(FloatRows::new(&data[..], 3, 4, usize::MAX).is_err());
        assert!(FloatRows::new(&data[..], 0, 4, 4).is_ok());
        assert!(FloatRowsMut::heads(&mut data[..], [2, 3, 2], [1, 2]).is_err());
        assert!(FloatRowsMut::heads(&mut data[..], [2, 3, 2], [6, 2]).is_ok());
    }

    #[test]
    fn each_type_is_rounded_once() {
        let third = 1.0 / 3.0;
        let mut half = [f16::ZERO];
        FloatsMut::from(&mut half[..]).store(&[third]);
        assert_eq!(half[0], f16::from_f64(third));
        let mut brain = [bf16::from_f32(1.0)];
        FloatsMut::from(&mut brain[..]).store_or_add(&[2.0], true);
        assert_eq!(brain[0], bf16::from_f32(3.0));
    }
}
