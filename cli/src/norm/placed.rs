//! Tensors of problems: their numbers, and where they lie in memory.

use evenkeel::reference::{FloatRows, FloatRowsMut};
use evenkeel::{Buffer, DType, Error, Result, Status, Stream, TensorMut, TensorRef};

use crate::compare::Verdict;
use crate::memory::{Layout, UNTOUCHED, download, upload};
use crate::numbers::round_to;

/// Where a tensor lies: rows of its last dimension, anything before, between and after them.
#[derive(Clone, Debug)]
pub struct Place {
    /// The type of its elements.
    pub dtype: DType,
    /// Its dimensions; one dimension is one row.
    pub shape: Vec<usize>,
    /// Where the rows are.
    pub layout: Layout,
}

impl Place {
    /// Side by side from the first element on.
    #[must_use]
    pub fn new(dtype: DType, shape: &[usize]) -> Self {
        Self {
            dtype,
            shape: shape.to_vec(),
            layout: Layout::default(),
        }
    }

    /// Elsewhere.
    #[must_use]
    pub fn at(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// An f32 vector with something on each side.
    #[must_use]
    pub fn vector(length: usize) -> Self {
        Self::new(DType::F32, &[length]).at(Layout {
            phase: 1,
            padding: 0,
            gap: 3,
        })
    }

    /// Elements of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        let outer = self.shape.len().saturating_sub(1);
        self.shape[..outer].iter().product()
    }

    /// Uploads numbers, with `around` everywhere else.
    ///
    /// # Errors
    /// The device's.
    pub fn upload(&self, stream: &Stream, values: &[f64], around: f64) -> Result<Buffer> {
        let memory = self
            .layout
            .spread(values, self.rows(), self.width(), around);
        upload(stream, self.dtype, &[memory.len()], &memory)
    }

    /// Memory to be written, which holds [`UNTOUCHED`] everywhere.
    ///
    /// # Errors
    /// The device's.
    pub fn empty(&self, stream: &Stream) -> Result<Buffer> {
        self.upload(stream, &[], UNTOUCHED)
    }

    /// The tensor in its memory.
    ///
    /// # Errors
    /// When the memory is another's.
    pub fn view<'a>(&self, memory: &'a Buffer) -> Result<TensorRef<'a>> {
        let all = memory.elements();
        let from = memory.view().slice_rows(self.layout.phase.min(all)..all)?;
        from.strided(&self.shape, self.layout.stride(self.width()))
    }

    /// The same, to be written.
    ///
    /// # Errors
    /// When the memory is another's.
    pub fn view_mut<'a>(&self, memory: &'a mut Buffer) -> Result<TensorMut<'a>> {
        let all = memory.elements();
        let from = memory
            .view_mut()
            .slice_rows(self.layout.phase.min(all)..all)?;
        from.strided(&self.shape, self.layout.stride(self.width()))
    }

    /// What a device left in a memory that had `around` on each side of the rows.
    ///
    /// # Errors
    /// The device's.
    pub fn take(&self, memory: &Buffer, around: f64) -> Result<Written> {
        Ok(Written {
            place: self.clone(),
            memory: download(memory)?,
            around,
        })
    }
}

/// The status word, as part of an outcome.
///
/// # Errors
/// All but what the status word holds.
pub fn status_of(stream: &Stream) -> Result<Status> {
    match stream.check() {
        Ok(()) => Ok(Status::empty()),
        Err(Error::Data(status)) => Ok(status),
        Err(other) => Err(other),
    }
}

/// A tensor with its numbers, exact in its type.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Where it lies.
    pub place: Place,
    /// Its rows, side by side.
    pub values: Vec<f64>,
}

impl Matrix {
    /// Numbers rounded to their type.
    #[must_use]
    pub fn new(place: Place, values: impl IntoIterator<Item = f64>) -> Self {
        let dtype = place.dtype;
        let values = values.into_iter().map(|x| round_to(dtype, x)).collect();
        Self { place, values }
    }

    /// A row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f64] {
        let width = self.place.width();
        &self.values[row * width..(row + 1) * width]
    }

    /// Uploads it among NaN: whoever reads what is not the tensor's shows it.
    ///
    /// # Errors
    /// The device's.
    pub fn upload(&self, stream: &Stream) -> Result<Buffer> {
        self.place.upload(stream, &self.values, f64::NAN)
    }

    /// For the reference.
    ///
    /// # Errors
    /// The reference's.
    pub fn exact(&self) -> Result<FloatRows<'_>> {
        exact(&self.values, self.place.width())
    }
}

/// Numbers as rows for the reference.
///
/// # Errors
/// The reference's.
pub fn exact(values: &[f64], width: usize) -> Result<FloatRows<'_>> {
    FloatRows::new(values, values.len() / width.max(1), width, width)
}

/// Rows that the reference writes.
///
/// # Errors
/// The reference's.
pub fn exact_mut(values: &mut [f64], width: usize) -> Result<FloatRowsMut<'_>> {
    let rows = values.len() / width.max(1);
    FloatRowsMut::new(values, rows, width, width)
}

/// The memory of an output after a call.
#[derive(Clone, Debug)]
pub struct Written {
    /// Where the output lies in it.
    pub place: Place,
    /// All of it.
    pub memory: Vec<f64>,
    /// What lay around the rows before.
    pub around: f64,
}

impl Written {
    /// A buffer that the library made: nothing surrounds its elements.
    ///
    /// # Errors
    /// The device's.
    pub fn whole(buffer: &Buffer) -> Result<Self> {
        Place::new(buffer.dtype(), &[buffer.elements()]).take(buffer, UNTOUCHED)
    }

    /// A row of the output.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f64] {
        let width = self.place.width();
        let begin = self.place.layout.phase + row * self.place.layout.stride(width);
        &self.memory[begin..begin + width]
    }

    /// The same, for those who spoil results on purpose.
    pub fn row_mut(&mut self, row: usize) -> &mut [f64] {
        let width = self.place.width();
        let begin = self.place.layout.phase + row * self.place.layout.stride(width);
        &mut self.memory[begin..begin + width]
    }

    /// All rows, side by side.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        let place = &self.place;
        place
            .layout
            .gather(&self.memory, place.rows(), place.width())
    }

    /// The bits of everything.
    #[must_use]
    pub fn bits(&self) -> Vec<u64> {
        self.memory.iter().map(|x| x.to_bits()).collect()
    }

    /// That nothing was written around the rows.
    pub fn check_gaps(&self, what: &str, verdict: &mut Verdict) {
        let (layout, width) = (self.place.layout, self.place.width());
        let untouched = |x: f64| x == self.around || (x.is_nan() && self.around.is_nan());
        let stride = layout.stride(width).max(1);
        layout.check_gaps(what, &self.memory, width, stride, untouched, verdict);
    }
}
