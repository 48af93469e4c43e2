//! What the tests of the operations share: rows of any type with guarded padding, and refusals.

use half::{bf16, f16};

pub(super) use crate::check::FLOATS;
pub(super) use crate::fixtures::cpu;
use crate::{Buffer, DType, Error, Number, Result, Stream, TensorMut, TensorRef};

/// Numbers in (-2, 2) without a pattern, the same for the same seed.
pub(super) fn numbers(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / f64::from(1 << 22) - 2.0
    };
    (0..count).map(|_| next()).collect()
}

/// `values` rounded to the type.
pub(super) fn rounded(dtype: DType, values: &[f64]) -> Vec<f64> {
    let round: fn(f64) -> f64 = match dtype {
        DType::Bf16 => |value| <bf16 as Number>::from_f64(value).to_f64(),
        DType::F16 => |value| <f16 as Number>::from_f64(value).to_f64(),
        _ => |value| f64::from(value as f32),
    };
    values.iter().map(|&value| round(value)).collect()
}

fn upload(stream: &Stream, dtype: DType, values: &[f64]) -> Buffer {
    fn typed<T: Number>(stream: &Stream, values: &[f64]) -> Buffer {
        let values: Vec<T> = values.iter().map(|&value| T::from_f64(value)).collect();
        stream.upload(&[values.len()], &values).unwrap()
    }
    match dtype {
        DType::Bf16 => typed::<bf16>(stream, values),
        DType::F16 => typed::<f16>(stream, values),
        _ => typed::<f32>(stream, values),
    }
}

/// A buffer's numbers.
pub(super) fn read(buffer: &Buffer) -> Vec<f64> {
    fn typed<T: Number>(buffer: &Buffer) -> Vec<f64> {
        let values = buffer.read::<T>().unwrap();
        values.into_iter().map(Number::to_f64).collect()
    }
    match buffer.dtype() {
        DType::Bf16 => typed::<bf16>(buffer),
        DType::F16 => typed::<f16>(buffer),
        _ => typed::<f32>(buffer),
    }
}

/// What lies between rows: representable in every type, and no result.
const GUARD: f64 = -1808.0;
/// Elements before the first row and after each.
const LEAD: usize = 1;
const GAP: usize = 3;

/// Rows of any type, off alignment and with padding after each, which nothing may write.
pub(super) struct Padded {
    buffer: Buffer,
    shape: Vec<usize>,
}

impl Padded {
    pub(super) fn new(stream: &Stream, dtype: DType, shape: &[usize], values: &[f64]) -> Self {
        let mut memory = vec![GUARD; LEAD];
        for row in values.chunks(shape[shape.len() - 1]) {
            memory.extend(row);
            memory.extend([GUARD; GAP]);
        }
        Self {
            buffer: upload(stream, dtype, &memory),
            shape: shape.to_vec(),
        }
    }

    /// Rows that hold no result yet.
    pub(super) fn blank(stream: &Stream, dtype: DType, shape: &[usize]) -> Self {
        let count = shape.iter().product();
        Self::new(stream, dtype, shape, &vec![GUARD; count])
    }

    fn columns(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    pub(super) fn view(&self) -> TensorRef<'_> {
        let (columns, memory) = (self.columns(), self.buffer.view());
        let memory = memory.slice_rows(LEAD..self.buffer.elements()).unwrap();
        memory.strided(&self.shape, columns + GAP).unwrap()
    }

    pub(super) fn view_mut(&mut self) -> TensorMut<'_> {
        let (columns, elements) = (self.columns(), self.buffer.elements());
        let memory = self.buffer.view_mut().slice_rows(LEAD..elements).unwrap();
        memory.strided(&self.shape, columns + GAP).unwrap()
    }

    /// The rows' numbers; the padding is as it was.
    pub(super) fn values(&self) -> Vec<f64> {
        let (memory, columns) = (read(&self.buffer), self.columns());
        let (lead, rows) = memory.split_at(LEAD);
        assert!(lead.iter().all(|&guard| guard == GUARD));
        let mut values = Vec::new();
        for row in rows.chunks(columns + GAP) {
            values.extend(&row[..columns]);
            assert!(row[columns..].iter().all(|&guard| guard == GUARD));
        }
        values
    }
}

/// Bits of numbers, so that NaN equals itself and 0 is not -0.
pub(super) fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Asserts that a call was refused for this argument.
#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(result: Result<T>, op: &str, argument: &str) {
    match result {
        Err(Error::Argument {
            op: refused_by,
            argument: refused,
            ..
        }) => assert_eq!((refused_by, refused), (op, argument)),
        other => panic!("{other:?} is no refusal of {argument}"),
    }
}

/// A view of f32 from element `first` on, which the borrow checker does not know to overlap others:
/// for calls that are refused.
pub(super) fn alias<'a>(memory: &'a Buffer, first: usize, shape: &[usize]) -> TensorMut<'a> {
    let elements: usize = shape.iter().product();
    assert!(memory.dtype() == DType::F32 && first + elements <= memory.elements());
    let address = memory.view().address() + 4 * first as u64;
    // SAFETY: within `memory`, which is borrowed; a call that is refused writes nothing.
    unsafe {
        TensorMut::from_raw(
            memory.stream().device().id(),
            DType::F32,
            address,
            shape,
            None,
        )
        .unwrap()
    }
}
