//! Views of memory: where it is, the type of its elements, and its shape.
//!
//! A view has up to four dimensions. Its last dimension is contiguous; consecutive rows (the last
//! dimension is a row, the others count rows) lie `row_stride` elements apart, at least a row's
//! length. Constructors check all of it, so an operation that is given a view can rely on it; sizes
//! of zero are fine everywhere.

use std::{fmt, marker::PhantomData, ops::Range};

use crate::{
    DType, Element, Error, Result,
    device::{DeviceId, DeviceKind},
    interop::access::{Source, SourceMut},
};

/// The most dimensions a view has.
pub const MAX_RANK: usize = 4;

/// Dimensions, held inline so that views are `Copy`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    dimensions: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    pub(crate) fn new(op: &'static str, dimensions: &[usize]) -> Result<Shape> {
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

    pub(crate) fn as_slice(&self) -> &[usize] {
        &self.dimensions[..usize::from(self.rank)]
    }

    fn columns(&self) -> usize {
        self.as_slice().last().copied().unwrap_or(1)
    }
}

/// What a view says about its memory; both kinds of view hold one.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Layout {
    address: u64,
    dtype: DType,
    shape: Shape,
    rows: usize,
    row_stride: usize,
    device: DeviceId,
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
    fn span(&self) -> usize {
        span(self.rows, self.columns(), self.row_stride).unwrap_or(0)
    }

    fn is_contiguous(&self) -> bool {
        self.rows <= 1 || self.row_stride == self.columns()
    }

    fn check_dtype(&self, op: &'static str, dtype: DType) -> Result<()> {
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

    fn check_host(&self, op: &'static str) -> Result<()> {
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

    fn reshape(&self, shape: &[usize]) -> Result<Layout> {
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

    fn strided(&self, shape: &[usize], row_stride: usize) -> Result<Layout> {
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

    fn slice_rows(&self, range: Range<usize>) -> Result<Layout> {
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

    fn slice_columns(&self, range: Range<usize>) -> Result<Layout> {
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
    fn overlaps(&self, other: &Layout) -> bool {
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

    fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

fn check_range(op: &'static str, range: &Range<usize>, length: usize) -> Result<()> {
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

/// A view of memory that is only read.
///
/// ```
/// use evenkeel::{DType, TensorRef};
/// let padded = [1.0_f32, 2.0, 0.0, 3.0, 4.0, 0.0];
/// let matrix = TensorRef::from_slice(&[2, 3], &padded)?.slice_columns(0..2)?;
/// assert_eq!((matrix.dtype(), matrix.shape(), matrix.row_stride()), (DType::F32, &[2, 2][..], 3));
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct TensorRef<'a> {
    layout: Layout,
    source: Source<'a>,
    memory: PhantomData<&'a [u8]>,
}

/// A view of memory that is written, and may be read.
///
/// Operations take it by value; [`reborrow`](TensorMut::reborrow) keeps it for a later one.
///
/// ```
/// use evenkeel::TensorMut;
/// let mut data = [0_u32; 6];
/// let mut matrix = TensorMut::from_slice(&[3, 2], &mut data)?;
/// matrix.reborrow().slice_rows(1..2)?.host_slice_mut::<u32>()?.fill(7);
/// assert_eq!(matrix.as_ref().host_slice::<u32>()?, [0, 0, 7, 7, 0, 0]);
/// # Ok::<(), evenkeel::Error>(())
/// ```
pub struct TensorMut<'a> {
    layout: Layout,
    source: SourceMut<'a>,
    memory: PhantomData<&'a mut [u8]>,
}

macro_rules! accessors {
    () => {
        /// The type of the elements.
        pub fn dtype(&self) -> DType {
            self.layout.dtype
        }

        /// The dimensions, outermost first; empty for a scalar.
        pub fn shape(&self) -> &[usize] {
            self.layout.shape.as_slice()
        }

        /// The length of the last dimension, which is contiguous; 1 for a scalar.
        pub fn columns(&self) -> usize {
            self.layout.columns()
        }

        /// The product of all dimensions but the last.
        pub fn rows(&self) -> usize {
            self.layout.rows
        }

        /// The number of elements, padding not counted.
        pub fn elements(&self) -> usize {
            self.layout.elements()
        }

        /// Elements from the start of a row to the start of the next.
        pub fn row_stride(&self) -> usize {
            self.layout.row_stride
        }

        /// Whether the rows follow each other without padding.
        pub fn is_contiguous(&self) -> bool {
            self.layout.is_contiguous()
        }

        /// The device whose memory this is.
        pub fn device(&self) -> DeviceId {
            self.layout.device
        }

        /// The address of the first element: a host pointer, a `CUdeviceptr`, or an address of the
        /// emulator.
        pub fn address(&self) -> u64 {
            self.layout.address
        }
    };
}

impl<'a> TensorRef<'a> {
    accessors!();

    /// A view of a slice, for the CPU device. `shape` must have as many elements as `data`.
    pub fn from_slice<T: Element>(shape: &[usize], data: &'a [T]) -> Result<TensorRef<'a>> {
        let layout = slice_layout(shape, data)?;
        Ok(TensorRef::new(layout, Source::Unmanaged))
    }

    /// A view of memory at a raw address: a `CUdeviceptr` on a CUDA device, a host pointer on the
    /// CPU.
    ///
    /// `row_stride` is counted in elements; `None` means that rows follow each other.
    ///
    /// # Safety
    /// - From the first row to the last the memory must be allocated on `device`, hold initialised
    ///   elements of `dtype`, and stay so for `'a` and until the work that reads it has run.
    /// - Nothing may write it meanwhile, other than work ordered by the stream that the view is
    ///   used on.
    pub unsafe fn from_raw(
        device: DeviceId,
        dtype: DType,
        address: u64,
        shape: &[usize],
        row_stride: Option<usize>,
    ) -> Result<TensorRef<'a>> {
        let layout = Layout::new(
            "TensorRef::from_raw",
            device,
            dtype,
            address,
            shape,
            row_stride,
            None,
        )?;
        Ok(TensorRef::new(layout, Source::Unmanaged))
    }

    pub(crate) fn new(layout: Layout, source: Source<'a>) -> TensorRef<'a> {
        TensorRef {
            layout,
            source,
            memory: PhantomData,
        }
    }

    pub(crate) fn source(&self) -> Source<'a> {
        self.source
    }

    fn with(self, layout: Layout) -> TensorRef<'a> {
        TensorRef { layout, ..self }
    }

    /// The same elements under another shape. Rows with padding between them keep their length.
    pub fn reshape(self, shape: &[usize]) -> Result<TensorRef<'a>> {
        Ok(self.with(self.layout.reshape(shape)?))
    }

    /// A contiguous view's memory as rows that lie `row_stride` elements apart.
    pub fn strided(self, shape: &[usize], row_stride: usize) -> Result<TensorRef<'a>> {
        Ok(self.with(self.layout.strided(shape, row_stride)?))
    }

    /// A range of the first dimension.
    pub fn slice_rows(self, range: Range<usize>) -> Result<TensorRef<'a>> {
        Ok(self.with(self.layout.slice_rows(range)?))
    }

    /// A range of the last dimension; rows stay where they are.
    pub fn slice_columns(self, range: Range<usize>) -> Result<TensorRef<'a>> {
        Ok(self.with(self.layout.slice_columns(range)?))
    }

    /// The memory of a view on the CPU, from its first element to its last, padding between rows
    /// included.
    pub fn host_slice<T: Element>(&self) -> Result<&'a [T]> {
        const OP: &str = "TensorRef::host_slice";
        self.layout.check_host(OP)?;
        self.layout.check_dtype(OP, T::DTYPE)?;
        // SAFETY: the constructors saw to it that the span is allocated, aligned and initialised on
        // the host for 'a, and that nothing writes it while this shared view lives.
        Ok(unsafe { host_slice(&self.layout) })
    }

    /// Whether an element of this view lies on an element of `other`.
    pub(crate) fn overlaps(&self, other: &TensorRef<'_>) -> bool {
        self.layout.overlaps(&other.layout)
    }
}

impl<'a> TensorMut<'a> {
    accessors!();

    /// A view of a slice, for the CPU device. `shape` must have as many elements as `data`.
    pub fn from_slice<T: Element>(shape: &[usize], data: &'a mut [T]) -> Result<TensorMut<'a>> {
        let layout = slice_layout(shape, data)?;
        Ok(TensorMut::new(layout, SourceMut::Unmanaged))
    }

    /// A view of memory at a raw address: a `CUdeviceptr` on a CUDA device, a host pointer on the
    /// CPU.
    ///
    /// `row_stride` is counted in elements; `None` means that rows follow each other.
    ///
    /// # Safety
    /// - From the first row to the last the memory must be allocated on `device`, hold elements of
    ///   `dtype` (on the CPU: initialised ones), and stay so for `'a` and until the work that uses
    ///   it has run.
    /// - Nothing else may read or write it meanwhile, other than work ordered by the stream that
    ///   the view is used on.
    pub unsafe fn from_raw(
        device: DeviceId,
        dtype: DType,
        address: u64,
        shape: &[usize],
        row_stride: Option<usize>,
    ) -> Result<TensorMut<'a>> {
        let layout = Layout::new(
            "TensorMut::from_raw",
            device,
            dtype,
            address,
            shape,
            row_stride,
            None,
        )?;
        Ok(TensorMut::new(layout, SourceMut::Unmanaged))
    }

    pub(crate) fn new(layout: Layout, source: SourceMut<'a>) -> TensorMut<'a> {
        TensorMut {
            layout,
            source,
            memory: PhantomData,
        }
    }

    pub(crate) fn source_mut(&mut self) -> &mut SourceMut<'a> {
        &mut self.source
    }

    /// The same view for a shorter while.
    pub fn reborrow(&mut self) -> TensorMut<'_> {
        TensorMut::new(self.layout, self.source.reborrow())
    }

    /// The same view for reading.
    pub fn as_ref(&self) -> TensorRef<'_> {
        TensorRef::new(self.layout, self.source.shared())
    }

    /// The same elements under another shape. Rows with padding between them keep their length.
    pub fn reshape(mut self, shape: &[usize]) -> Result<TensorMut<'a>> {
        self.layout = self.layout.reshape(shape)?;
        Ok(self)
    }

    /// A contiguous view's memory as rows that lie `row_stride` elements apart.
    pub fn strided(mut self, shape: &[usize], row_stride: usize) -> Result<TensorMut<'a>> {
        self.layout = self.layout.strided(shape, row_stride)?;
        Ok(self)
    }

    /// A range of the first dimension.
    pub fn slice_rows(mut self, range: Range<usize>) -> Result<TensorMut<'a>> {
        self.layout = self.layout.slice_rows(range)?;
        Ok(self)
    }

    /// A range of the last dimension; rows stay where they are.
    pub fn slice_columns(mut self, range: Range<usize>) -> Result<TensorMut<'a>> {
        self.layout = self.layout.slice_columns(range)?;
        Ok(self)
    }

    /// The memory of a view on the CPU, from its first element to its last, padding between rows
    /// included.
    pub fn host_slice_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        const OP: &str = "TensorMut::host_slice_mut";
        self.layout.check_host(OP)?;
        self.layout.check_dtype(OP, T::DTYPE)?;
        let span = self.layout.span();
        if span == 0 {
            return Ok(&mut []);
        }
        // SAFETY: the constructors saw to it that the span is allocated, aligned and initialised on
        // the host for 'a; this view is the only one to it and is borrowed mutably here.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.layout.address as *mut T, span) })
    }
}

/// The host memory of a view.
///
/// # Safety
/// The layout's span must be initialised host memory of type `T` that nothing writes for `'a`.
unsafe fn host_slice<'a, T>(layout: &Layout) -> &'a [T] {
    let span = layout.span();
    if span == 0 {
        return &[];
    }
    // SAFETY: passed on to the caller; the constructors checked alignment and size.
    unsafe { std::slice::from_raw_parts(layout.address as *const T, span) }
}

fn slice_layout<T: Element>(shape: &[usize], data: &[T]) -> Result<Layout> {
    const OP: &str = "from_slice";
    let address = data.as_ptr() as u64;
    check_length(OP, shape, data.len())?;
    Layout::new(
        OP,
        DeviceId::CPU,
        T::DTYPE,
        address,
        shape,
        None,
        Some(data.len()),
    )
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

impl fmt::Debug for TensorRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layout.describe("TensorRef", f)
    }
}

impl fmt::Debug for TensorMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layout.describe("TensorMut", f)
    }
}
