//! Tensors of test problems in a device's memory: layouts, transfers, and what must stay untouched.

use evenkeel::{
    Buffer, DType, E2m1x2, E4m3, E5m2, E8m0, Number, Result, Stream, TensorMut, TensorRef,
};
use half::{bf16, f16};

use crate::compare::Verdict;

/// What lies in an output's memory before, and must still lie between its rows after.
pub const UNTOUCHED: f64 = 77.0;

/// How a matrix lies in memory: `phase` elements, then rows of `width + padding` columns, `gap`
/// elements between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Elements before the first row: shifts its alignment.
    pub phase: usize,
    /// Columns of a row beyond its width; the loss gives them to the call, as columns beyond the
    /// vocabulary, other operations leave them between the rows.
    pub padding: usize,
    /// Elements between rows.
    pub gap: usize,
}

impl Layout {
    /// Columns of a row.
    #[must_use]
    pub fn columns(&self, width: usize) -> usize {
        width + self.padding
    }

    /// Elements from row to row.
    #[must_use]
    pub fn stride(&self, width: usize) -> usize {
        self.columns(width) + self.gap
    }

    /// Elements of the memory.
    #[must_use]
    pub fn elements(&self, rows: usize, width: usize) -> usize {
        self.phase + rows * self.stride(width)
    }

    /// The memory of rows of `width` elements, with `around` before, between and after them, and where
    /// there are fewer values.
    #[must_use]
    pub fn spread(&self, values: &[f64], rows: usize, width: usize, around: f64) -> Vec<f64> {
        let mut memory = vec![around; self.elements(rows, width)];
        for (row, values) in values.chunks(width.max(1)).enumerate() {
            let begin = self.phase + row * self.stride(width);
            memory[begin..begin + width].copy_from_slice(values);
        }
        memory
    }

    /// The rows of such a memory, side by side.
    #[must_use]
    pub fn gather(&self, memory: &[f64], rows: usize, width: usize) -> Vec<f64> {
        (0..rows)
            .flat_map(|row| {
                let begin = self.phase + row * self.stride(width);
                memory[begin..begin + width].iter().copied()
            })
            .collect()
    }

    /// That nothing was written around the rows of a memory; `before` says what lay there.
    pub fn check_gaps(
        &self,
        what: &str,
        memory: &[f64],
        columns: usize,
        stride: usize,
        before: impl Fn(f64) -> bool,
        verdict: &mut Verdict,
    ) {
        for (place, &x) in memory.iter().enumerate() {
            let in_a_row = place >= self.phase && (place - self.phase) % stride < columns;
            if !in_a_row && !before(x) {
                verdict.wrong(|| {
                    format!("element {place} of the memory of {what}, outside of its rows, is {x}")
                });
            }
        }
    }
}

/// Uploads `values` as elements of `dtype`: bf16, f16 or f32.
///
/// # Errors
/// The device's.
pub fn upload(stream: &Stream, dtype: DType, shape: &[usize], values: &[f64]) -> Result<Buffer> {
    fn converted<T: Number>(values: &[f64]) -> Vec<T> {
        values.iter().map(|&x| T::from_f64(x)).collect()
    }
    match dtype {
        DType::Bf16 => stream.upload(shape, &converted::<bf16>(values)),
        DType::F16 => stream.upload(shape, &converted::<f16>(values)),
        _ => stream.upload(shape, &converted::<f32>(values)),
    }
}

/// Uploads `values` as i64, i32 or u32; those outside the type wrap.
///
/// # Errors
/// The device's.
pub fn upload_integers(stream: &Stream, dtype: DType, values: &[i64]) -> Result<Buffer> {
    let shape = [values.len()];
    match dtype {
        DType::I32 => stream.upload(
            &shape,
            &values.iter().map(|&x| x as i32).collect::<Vec<_>>(),
        ),
        DType::U32 => stream.upload(
            &shape,
            &values.iter().map(|&x| x as u32).collect::<Vec<_>>(),
        ),
        _ => stream.upload(&shape, values),
    }
}

/// Reads a buffer of any type.
///
/// # Errors
/// The device's.
pub fn download(buffer: &Buffer) -> Result<Vec<f64>> {
    fn widened<T: Number>(buffer: &Buffer) -> Result<Vec<f64>> {
        Ok(buffer.read::<T>()?.into_iter().map(T::to_f64).collect())
    }
    match buffer.dtype() {
        DType::Bf16 => widened::<bf16>(buffer),
        DType::F16 => widened::<f16>(buffer),
        DType::F64 => buffer.read::<f64>(),
        DType::I64 => widened::<i64>(buffer),
        DType::I32 => widened::<i32>(buffer),
        DType::U32 => widened::<u32>(buffer),
        DType::U8 => widened::<u8>(buffer),
        DType::E4m3 => widened::<E4m3>(buffer),
        DType::E5m2 => widened::<E5m2>(buffer),
        DType::E8m0 => widened::<E8m0>(buffer),
        DType::E2m1x2 => {
            let pairs = buffer.read::<E2m1x2>()?;
            Ok(pairs
                .into_iter()
                .flat_map(E2m1x2::to_f32)
                .map(f64::from)
                .collect())
        }
        _ => widened::<f32>(buffer),
    }
}

/// The columns of a matrix within its memory, padding included.
///
/// # Errors
/// When the memory is shorter.
pub fn rows<'a>(
    memory: &'a Buffer,
    layout: Layout,
    rows: usize,
    width: usize,
) -> Result<TensorRef<'a>> {
    let all = memory.elements();
    let shape = [rows, layout.columns(width)];
    memory
        .view()
        .slice_rows(layout.phase.min(all)..all)?
        .strided(&shape, layout.stride(width))
}

/// The same, to be written.
///
/// # Errors
/// When the memory is shorter.
pub fn rows_mut<'a>(
    memory: &'a mut Buffer,
    layout: Layout,
    rows: usize,
    width: usize,
) -> Result<TensorMut<'a>> {
    let all = memory.elements();
    let shape = [rows, layout.columns(width)];
    memory
        .view_mut()
        .slice_rows(layout.phase.min(all)..all)?
        .strided(&shape, layout.stride(width))
}

/// A view of a buffer that may be absent.
#[must_use]
pub fn view_of(buffer: Option<&Buffer>) -> Option<TensorRef<'_>> {
    buffer.map(Buffer::view)
}
