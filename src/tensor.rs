//! Views of memory: where it is, the type of its elements, and its shape.
//!
//! A view has up to four dimensions. Its last dimension is contiguous; consecutive rows (the last
//! dimension is a row, the others count rows) lie `row_stride` elements apart, at least a row's
//! length. Constructors check all of it, so an operation that is given a view can rely on it; sizes
//! of zero are fine everywhere.

use std::{fmt, marker::PhantomData, ops::Range};

use crate::{
    DType, Element, Error, Result,
    device::DeviceId,
    interop::access::{Source, SourceMut},
};

mod layout;

pub(crate) use self::layout::{Layout, check_length, check_range};

/// The most dimensions a view has.
pub const MAX_RANK: usize = 4;

/// A view of memory that is only read.
///
/// ```
/// use evenkeel::{DType, TensorRef};
/// let padded = [1.0_f32, 2.0, 0.0, 3.0, 4.0, 0.0];
/// let matrix = TensorRef::from_slice(&[2, 3], &padded)?.slice_columns(0..2)?;
/// assert_eq!((matrix.dtype(), matrix.shape(), matrix.row_stride()), (DType::F32, &[2, 2][..], 3));
/// let bits = matrix.reinterpret(DType::U32)?.slice_rows(1..2)?;
/// assert_eq!(bits.host_slice::<u32>()?, [3.0_f32.to_bits(), 4.0_f32.to_bits()]);
/// assert!(matrix.reinterpret(DType::U8).is_err());
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

/// What both kinds of view have.
macro_rules! view {
    () => {
        /// The type of the elements.
        pub fn dtype(&self) -> DType {
            self.layout.dtype
        }

        /// The dimensions, outermost first; empty for a scalar.
        pub fn shape(&self) -> &[usize] {
            self.layout.shape()
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

        /// The same elements under another shape. Rows with padding between them keep their length.
        ///
        /// # Errors
        /// [`Error::Argument`] when the shape has another number of
        /// elements, or would break padded rows.
        pub fn reshape(mut self, shape: &[usize]) -> Result<Self> {
            self.layout = self.layout.reshape(shape)?;
            Ok(self)
        }

        /// The same memory as elements of another type of their size: bytes of another program's as
        /// [`E4m3`](crate::E4m3), for one.
        ///
        /// # Errors
        /// [`Error::Argument`] when the type has another size.
        pub fn reinterpret(mut self, dtype: DType) -> Result<Self> {
            let own = self.layout.dtype;
            if dtype.size() != own.size() {
                return Err(Error::argument(
                    "reinterpret",
                    "dtype",
                    format!("of {} bytes, as {own} is", own.size()),
                    dtype.to_string(),
                ));
            }
            self.layout.dtype = dtype;
            Ok(self)
        }

        /// A contiguous view's memory as rows that lie `row_stride` elements apart.
        ///
        /// # Errors
        /// [`Error::Argument`] when the view is not contiguous, the rows
        /// overlap, or they reach beyond the view.
        pub fn strided(mut self, shape: &[usize], row_stride: usize) -> Result<Self> {
            self.layout = self.layout.strided(shape, row_stride)?;
            Ok(self)
        }

        /// A range of the first dimension.
        ///
        /// # Errors
        /// [`Error::Argument`] when the range is not within it.
        pub fn slice_rows(mut self, range: Range<usize>) -> Result<Self> {
            self.layout = self.layout.slice_rows(range)?;
            Ok(self)
        }

        /// A range of the last dimension; rows stay where they are.
        ///
        /// # Errors
        /// [`Error::Argument`] when the range is not within it.
        pub fn slice_columns(mut self, range: Range<usize>) -> Result<Self> {
            self.layout = self.layout.slice_columns(range)?;
            Ok(self)
        }
    };
}

impl<'a> TensorRef<'a> {
    view!();

    /// A view of a slice, for the CPU device.
    ///
    /// # Errors
    /// [`Error::Argument`] when `data` does not have as many elements as
    /// `shape`.
    pub fn from_slice<T: Element>(shape: &[usize], data: &'a [T]) -> Result<TensorRef<'a>> {
        let layout = slice_layout::<T>(shape, data.as_ptr() as u64, data.len())?;
        Ok(TensorRef::new(layout, Source::Unmanaged))
    }

    /// A view of memory at a raw address: a `CUdeviceptr` on a CUDA device, a host pointer on the
    /// CPU.
    ///
    /// `row_stride` is counted in elements; `None` means that rows follow each other.
    ///
    /// # Errors
    /// [`Error::Argument`] for a null or misaligned address, or a stride
    /// less than a row.
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

    /// The memory of a view on the CPU, from its first element to its last, padding between rows
    /// included.
    ///
    /// # Errors
    /// [`Error::Argument`] on another device, or when `T` is not the view's
    /// type.
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
    view!();

    /// A view of a slice, for the CPU device.
    ///
    /// # Errors
    /// [`Error::Argument`] when `data` does not have as many elements as
    /// `shape`.
    pub fn from_slice<T: Element>(shape: &[usize], data: &'a mut [T]) -> Result<TensorMut<'a>> {
        let layout = slice_layout::<T>(shape, data.as_mut_ptr() as u64, data.len())?;
        Ok(TensorMut::new(layout, SourceMut::Unmanaged))
    }

    /// A view of memory at a raw address: a `CUdeviceptr` on a CUDA device, a host pointer on the
    /// CPU.
    ///
    /// `row_stride` is counted in elements; `None` means that rows follow each other.
    ///
    /// # Errors
    /// [`Error::Argument`] for a null or misaligned address, or a stride
    /// less than a row.
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

    /// The memory of a view on the CPU, from its first element to its last, padding between rows
    /// included.
    ///
    /// # Errors
    /// [`Error::Argument`] on another device, or when `T` is not the view's
    /// type.
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

fn slice_layout<T: Element>(shape: &[usize], address: u64, length: usize) -> Result<Layout> {
    const OP: &str = "from_slice";
    check_length(OP, shape, length)?;
    Layout::new(
        OP,
        DeviceId::CPU,
        T::DTYPE,
        address,
        shape,
        None,
        Some(length),
    )
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
