//! Where a view's elements are, and the checks that make it so.

use std::{fmt, ops::Range};

use super::MAX_RANK;
use crate::{
    DType, Error, Result,
    device::{DeviceId, DeviceKind},
};

/// Dimensions, held inline so that views are `Copy`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    dimensions: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    fn new(op: &'static str, dimensions: &[usize]) -> Result<Shape> {
        if dimensions.len() > MAX_RANK {
            return Err(Error::argument(
                op,
                "shape",
                format!("at most {MAX_RANK} dimensions"),
                format!("{dimensions:?}, {} of them", dimensions.len()),
            ));
        }
        let mut shape = Shape {
            dimensions: [1; MAX_RANK],
            rank: dimensions.len() as u8,
        };
        shape.dimensions[..dimensions.len()].copy_from_slice(dimensions);
        Ok(shape)
    }

    fn as_slice(&self) -> &[usize] {
        &self.dimensions[..usize::from(self.rank)]
    }

    pub(super) fn columns(&self) -> usize {
        self.as_slice().last().copied().unwrap_or(1)
    }
}

/// What a view says about its memory; both kinds of view hold one.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Layout {
    pub(super) address: u64,
    pub(super) dtype: DType,
    shape: Shape,
    pub(super) rows: usize,
    pub(super) row_stride: usize,
    pub(super) device: DeviceId,
}

impl Layout {
    /// Checks and describes memory of `available` elements (unknown for raw pointers) at `address`.
    pub(crate) fn new(
        op: &'static str,
        device: DeviceId,
        dtype: DType,
        address: u64,
        shape: &[usize],
        row_stride: Option<usize>,
        available: Option<usize>,
    ) -> Result<Layout> {
        let dimensions = shape;
        let shape = Shape::new(op, dimensions)?;
        let too_large = || {
            Error::argument(
                op,
                "shape",
                "a tensor of fewer than 2^63 bytes",
                format!("{dimensions:?} of {dtype}"),
            )
        };
        let columns = shape.columns();
        // A zero anywhere makes the whole empty, whatever the other dimensions multiply to.
        let rows = if dimensions.contains(&0) {
            dimensions[..dimensions.len() - 1]
                .iter()
                .try_fold(1_usize, |product, &n| product.checked_mul(n))
                .unwrap_or(0)
        } else {
            dimensions[..dimensions.len().saturating_sub(1)]
                .iter()
                .try_fold(1_usize, |product, &n| product.checked_mul(n))
                .ok_or_else(too_large)?
        };
        let row_stride = row_stride.unwrap_or(columns);
        if row_stride < columns {
            return Err(Error::argument(
                op,
                "row_stride",
                format!("at least the {columns} columns of a row"),
                row_stride.to_string(),
            ));
        }
        let span = span(rows, columns, row_stride).ok_or_else(too_large)?;
        let bytes = span.checked_mul(dtype.size()).ok_or_else(too_large)?;
        if bytes > isize::MAX as usize {
            return Err(too_large());
        }
        if let Some(available) = available
            && span > available
        {
            return Err(Error::argument(
                op,
                "shape",
                format!("within the memory's {available} elements"),
                format!("{dimensions:?} with row stride {row_stride}, which spans {span}"),
            ));
        }
        if span > 0 {
            if address == 0 {
                return Err(Error::argument(op, "address", "not null", "null"));
            }
            if !address.is_multiple_of(dtype.size() as u64) {
                return Err(Error::argument(
                    op,
                    "address",
                    format!("a multiple of the {} bytes of {dtype}", dtype.size()),
                    format!("{address:#x}"),
                ));
            }
            if address.checked_add(bytes as u64).is_none() {
                return Err(Error::argument(
                    op,
                    "address",
                    format!("the start of {bytes} bytes of memory"),
                    format!("{address:#x}"),
                ));
            }
        }
        Ok(Layout {
            address,
            dtype,
            shape,
            rows,
            row_stride,
            device,
        })
    }

    pub(crate) fn columns(&self) -> usize {
        self.shape.columns()
    }

    pub(crate) fn elements(&self) -> usize {
        self.rows * self.columns()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn shape(&self) -> &[usize] {
        self.shape.as_slice()
    }

    /// Bytes from the first element to the last, padding between rows included.
    pub(crate) fn bytes(&self) -> usize {
        self.span() * self.dtype.size()
    }

    /// Elements from the first to the last, padding between rows included.
    pub(super) fn span(&self) -> usize {
        span(self.rows, self.columns(), self.row_stride).unwrap_or(0)
    }

    pub(super) fn is_contiguous(&self) -> bool {
        self.rows <= 1 || self.row_stride == self.columns()
    }

    pub(super) fn check_dtype(&self, op: &'static str, dtype: DType) -> Result<()> {
        if self.dtype == dtype {
            Ok(())
        } else {
            Err(Error::argument(
                op,
                "T",
                format!("the tensor's type {}", self.dtype),
                dtype.to_string(),
            ))
        }
    }

    pub(super) fn check_host(&self, op: &'static str) -> Result<()> {
        if self.device.kind() == DeviceKind::Cpu {
            Ok(())
        } else {
            Err(Error::argument(
                op,
                "device",
                "cpu (Buffer::read copies from other devices)",
                self.device.to_string(),
            ))
        }
    }

    pub(super) fn reshape(&self, shape: &[usize]) -> Result<Layout> {
        const OP: &str = "reshape";
        let columns_kept = shape.last().copied().unwrap_or(1) == self.columns();
        if !self.is_contiguous() && !columns_kept {
            return Err(Error::argument(
                OP,
                "shape",
                format!(
                    "one with the same {} columns: the rows lie {} apart",
                    self.columns(),
                    self.row_stride
                ),
                format!("{shape:?}"),
            ));
        }
        let row_stride = (columns_kept && !self.is_contiguous()).then_some(self.row_stride);
        let available = Some(self.span());
        let layout = Layout::new(
            OP,
            self.device,
            self.dtype,
            self.address,
            shape,
            row_stride,
            available,
        )?;
        if layout.elements() != self.elements() {
            return Err(Error::argument(
                OP,
                "shape",
                format!("a shape of {} elements", self.elements()),
                format!("{shape:?}"),
            ));
        }
        Ok(layout)
    }

    pub(super) fn strided(&self, shape: &[usize], row_stride: usize) -> Result<Layout> {
        const OP: &str = "strided";
        if !self.is_contiguous() {
            return Err(Error::argument(
                OP,
                "self",
                "a contiguous view",
                format!("a view whose rows lie {} apart", self.row_stride),
            ));
        }
        Layout::new(
            OP,
            self.device,
            self.dtype,
            self.address,
            shape,
            Some(row_stride),
            Some(self.elements()),
        )
    }

    pub(super) fn slice_rows(&self, range: Range<usize>) -> Result<Layout> {
        const OP: &str = "slice_rows";
        let Some(&first) = self.shape.as_slice().first() else {
            return Err(Error::argument(
                OP,
                "self",
                "at least 1 dimension",
                "a scalar",
            ));
        };
        check_range(OP, &range, first)?;
        let mut layout = *self;
        layout.shape.dimensions[0] = range.len();
        if self.shape.rank == 1 {
            layout.row_stride = range.len();
            return Ok(layout.moved(range.start));
        }
        let rows_each = self.rows.checked_div(first).unwrap_or(0);
        layout.rows = range.len() * rows_each;
        // An empty range at the end may lie past counting; `moved` then ignores it.
        Ok(layout.moved((range.start * rows_each).wrapping_mul(self.row_stride)))
    }

    pub(super) fn slice_columns(&self, range: Range<usize>) -> Result<Layout> {
        const OP: &str = "slice_columns";
        if self.shape.rank == 0 {
            return Err(Error::argument(
                OP,
                "self",
                "at least 1 dimension",
                "a scalar",
            ));
        }
        check_range(OP, &range, self.columns())?;
        let mut layout = *self;
        layout.shape.dimensions[usize::from(self.shape.rank) - 1] = range.len();
        Ok(layout.moved(range.start))
    }

    /// The same layout `elements` further on; an empty view may stand at the very end.
    fn moved(mut self, elements: usize) -> Layout {
        if self.elements() > 0 {
            self.address += (elements * self.dtype.size()) as u64;
        }
        self
    }

    /// Whether an element of one lies on an element of the other.
    pub(super) fn overlaps(&self, other: &Layout) -> bool {
        if self.device != other.device || self.span() == 0 || other.span() == 0 {
            return false;
        }
        let size = |layout: &Layout, elements: usize| (elements * layout.dtype.size()) as u64;
        let end = |layout: &Layout| layout.address + size(layout, layout.span());
        if self.address >= end(other) || other.address >= end(self) {
            return false;
        }
        // Rows of one stride interleave without touching when each fits into the other's gap.
        let stride = size(self, self.row_stride);
        if self.rows > 1 && other.rows > 1 && stride == size(other, other.row_stride) {
            let distance = (i128::from(other.address) - i128::from(self.address))
                .rem_euclid(i128::from(stride)) as u64;
            let apart = distance >= size(self, self.columns())
                && distance + size(other, other.columns()) <= stride;
            return !apart;
        }
        true
    }

    pub(super) fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{name}({} {:?}", self.dtype, self.shape.as_slice())?;
        if !self.is_contiguous() {
            write!(f, ", row stride {}", self.row_stride)?;
        }
        write!(f, " on {} at {:#x})", self.device, self.address)
    }
}

/// Elements from the first to the last of `rows` rows; `None` when they are past counting.
fn span(rows: usize, columns: usize, row_stride: usize) -> Option<usize> {
    if rows == 0 || columns == 0 {
        return Some(0);
    }
    (rows - 1).checked_mul(row_stride)?.checked_add(columns)
}

/// That a range lies within `0..length`.
pub(crate) fn check_range(op: &'static str, range: &Range<usize>, length: usize) -> Result<()> {
    if range.start <= range.end && range.end <= length {
        return Ok(());
    }
    Err(Error::argument(
        op,
        "range",
        format!("within 0..{length}"),
        format!("{range:?}"),
    ))
}

/// That `data` has the number of elements that `shape` says.
pub(crate) fn check_length(op: &'static str, shape: &[usize], length: usize) -> Result<()> {
    let elements = if shape.contains(&0) {
        Some(0)
    } else {
        shape
            .iter()
            .try_fold(1_usize, |product, &n| product.checked_mul(n))
    };
    if elements == Some(length) {
        return Ok(());
    }
    let expected = match elements {
        Some(elements) => format!("{elements} elements for shape {shape:?}"),
        None => format!("of the size of shape {shape:?}, which no memory holds"),
    };
    Err(Error::argument(
        op,
        "data",
        expected,
        format!("{length} elements"),
    ))
}
