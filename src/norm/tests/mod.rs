//! The normalizations through their public API on the CPU: against plainly written formulas, in
//! place against apart, views with padding, and every argument that does not fit.

mod gated;
mod heads;
mod norm;
#[cfg(feature = "quant")]
mod quantized;
mod sdd;
mod wrong;

use half::{bf16, f16};

pub(super) use super::fixtures::{FLOATS, cpu, read};
pub(super) use crate::fixtures::refused;
use crate::{Buffer, DType, Number, TensorMut, TensorRef};

/// `count` numbers between -2 and 2 without a pattern, exact in every type.
pub(super) fn numbers(seed: usize, count: usize) -> Vec<f64> {
    let hash = |i: usize| (i + 1 + seed * 1_000_003).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    (0..count)
        .map(|i| (hash(i) % 129) as f64 / 32.0 - 2.0)
        .collect()
}

/// Memory of a matrix whose rows are followed by `padding` elements of no meaning.
pub(super) struct Matrix {
    buffer: Buffer,
    columns: usize,
}

const CANARY: f64 = -7.0;

impl Matrix {
    pub(super) fn new(dtype: DType, values: &[f64], columns: usize, padding: usize) -> Self {
        let padded: Vec<f64> = values
            .chunks(columns)
            .flat_map(|row| row.iter().copied().chain(vec![CANARY; padding]))
            .collect();
        let rows = values.len() / columns;
        Self {
            buffer: upload(dtype, &[rows, columns + padding], &padded),
            columns,
        }
    }

    /// One to be written.
    pub(super) fn empty(dtype: DType, rows: usize, columns: usize, padding: usize) -> Self {
        Self::new(dtype, &vec![CANARY; rows * columns], columns, padding)
    }

    pub(super) fn view(&self) -> TensorRef<'_> {
        self.buffer.view().slice_columns(0..self.columns).unwrap()
    }

    pub(super) fn view_mut(&mut self) -> TensorMut<'_> {
        let columns = self.columns;
        self.buffer.view_mut().slice_columns(0..columns).unwrap()
    }

    /// The values, after seeing that nothing wrote between them.
    pub(super) fn read(&self) -> Vec<f64> {
        let all = read(&self.buffer);
        let width = self.buffer.shape()[1];
        let rows = all.chunks(width).map(|row| row.split_at(self.columns));
        rows.flat_map(|(row, padding)| {
            assert!(padding.iter().all(|&v| v == CANARY), "padding was written");
            row.to_vec()
        })
        .collect()
    }
}

pub(super) fn upload(dtype: DType, shape: &[usize], values: &[f64]) -> Buffer {
    fn of<T: Number>(shape: &[usize], values: &[f64]) -> Buffer {
        let values: Vec<T> = values.iter().map(|&v| T::from_f64(v)).collect();
        cpu().upload(shape, &values).unwrap()
    }
    match dtype {
        DType::Bf16 => of::<bf16>(shape, values),
        DType::F16 => of::<f16>(shape, values),
        DType::I64 => of::<i64>(shape, values),
        DType::I32 => of::<i32>(shape, values),
        DType::U32 => of::<u32>(shape, values),
        _ => of::<f32>(shape, values),
    }
}

/// f32 of zeros, for statistics and gradients of weights.
pub(super) fn zeros(shape: &[usize]) -> Buffer {
    cpu().zeros(DType::F32, shape).unwrap()
}

pub(super) fn bytes(count: usize) -> Buffer {
    cpu().zeros(DType::U8, &[count]).unwrap()
}

/// That each value is the formula's, rounded once to the type; the formulas' own f64 arithmetic
/// over terms of magnitude `size` is granted 2^-40 of it.
#[track_caller]
pub(super) fn assert_rounded(got: &[f64], want: &[f64], dtype: DType, size: f64) {
    let bits = match dtype {
        DType::Bf16 => 8,
        DType::F16 => 11,
        _ => 24,
    };
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        // Half a unit in the last place, or of the smallest f16.
        let unit = want.abs() * 0.5_f64.powi(bits) + 0.5_f64.powi(25);
        let bound = unit + size * 0.5_f64.powi(40);
        assert!(
            (got - want).abs() <= bound,
            "element {i}: got {got}, want {want}"
        );
    }
}

/// The formulas of `RmsNorm` and `LayerNorm`, as they are written, without weights' offsets.
pub(super) struct Plain {
    pub(super) layer: bool,
    pub(super) eps: f64,
}

impl Plain {
    pub(super) fn moments(&self, x: &[f64]) -> (f64, f64) {
        let d = x.len() as f64;
        let mean = if self.layer {
            x.iter().sum::<f64>() / d
        } else {
            0.0
        };
        let spread = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d;
        (mean, (spread + self.eps).sqrt().recip())
    }

    /// h = (x - mean) r.
    pub(super) fn normalized(&self, x: &[f64]) -> Vec<f64> {
        let (mean, r) = self.moments(x);
        x.iter().map(|x| (x - mean) * r).collect()
    }

    /// y = h w + beta.
    pub(super) fn forward(&self, x: &[f64], w: &[f64], beta: &[f64]) -> Vec<f64> {
        let h = self.normalized(x);
        (0..x.len()).map(|j| h[j] * w[j] + beta[j]).collect()
    }

    /// dx = r (a - mean(a) - h mean(a h)).
    pub(super) fn backward(&self, x: &[f64], w: &[f64], dy: &[f64]) -> Vec<f64> {
        let d = x.len() as f64;
        let (_, r) = self.moments(x);
        let h = self.normalized(x);
        let a: Vec<f64> = w.iter().zip(dy).map(|(w, dy)| w * dy).collect();
        let c1 = if self.layer {
            a.iter().sum::<f64>() / d
        } else {
            0.0
        };
        let c2 = a.iter().zip(&h).map(|(a, h)| a * h).sum::<f64>() / d;
        (0..x.len()).map(|j| r * (a[j] - c1 - h[j] * c2)).collect()
    }
}
