//! A checked call: what the formulas and the kernels are given.

use super::Activation;
use super::operand::OperandView;
use crate::{TensorMut, TensorRef};

/// Which matrices a call multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::matmul) enum Grouping {
    One,
    /// m-grouped: so many groups, ranges of M; b has `groups n` rows.
    Rows(usize),
    /// k-grouped: so many groups, ranges of K; the output has `groups m` rows.
    Contraction(usize),
}

impl Grouping {
    /// How many groups; 1 without.
    pub(in crate::matmul) fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Rows(groups) | Self::Contraction(groups) => groups,
        }
    }
}

/// `[m, k]` times `[n, k]` transposed. k is that of the operands, the sum over k-groups; m that of a,
/// the sum over m-groups. n and k are at least 1, m may be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::matmul) struct MatmulShape {
    pub(in crate::matmul) m: usize,
    pub(in crate::matmul) n: usize,
    pub(in crate::matmul) k: usize,
    pub(in crate::matmul) grouping: Grouping,
}

impl MatmulShape {
    /// Rows of the output.
    pub(in crate::matmul) fn output_rows(&self) -> usize {
        match self.grouping {
            Grouping::Contraction(groups) => groups.saturating_mul(self.m),
            Grouping::One | Grouping::Rows(_) => self.m,
        }
    }

    /// Rows of b.
    pub(in crate::matmul) fn b_rows(&self) -> usize {
        match self.grouping {
            Grouping::Rows(groups) => groups.saturating_mul(self.n),
            Grouping::One | Grouping::Contraction(_) => self.n,
        }
    }
}

/// What C is.
#[derive(Clone, Copy, Debug)]
pub(in crate::matmul) enum AddendView<'a> {
    /// `[output rows, n]` bf16, f16 or f32, rows at any stride; overlaps nothing that is written.
    View(TensorRef<'a>),
    /// The output, which is bf16, f16 or f32 and has n columns.
    Output,
}

/// ```text
/// v = alpha acc;  v += bias_n;  v += beta C_mn;  pre = v;  out = activation(v);  amax;  rounding
/// ```
#[derive(Debug)]
pub(in crate::matmul) struct Epilogue<'a> {
    /// f32 `[1]`.
    pub(in crate::matmul) alpha: Option<TensorRef<'a>>,
    /// bf16, f16 or f32, contiguous, `[n]`; of m-groups `[groups n]`. Never with k-groups.
    pub(in crate::matmul) bias: Option<TensorRef<'a>>,
    pub(in crate::matmul) c: Option<AddendView<'a>>,
    /// 0 without `c`.
    pub(in crate::matmul) beta: f32,
    /// With SwiGLU n is even.
    pub(in crate::matmul) activation: Activation,
    /// `[output rows, n]` bf16, f16 or f32, of a type that may differ from the output's.
    pub(in crate::matmul) pre_activation: Option<TensorMut<'a>>,
    /// `[output rows, n]`, or `n / 2` columns with SwiGLU: bf16, f16, f32, E4M3 or E5M2; rows at any
    /// stride.
    pub(in crate::matmul) out: TensorMut<'a>,
    /// f32 `[1]`, there exactly where `out` is E4M3 or E5M2: element = sat(v / scale).
    pub(in crate::matmul) output_scale: Option<TensorRef<'a>>,
    /// f32 `[1]`: raised by an integer maximum to the largest finite |result| before its rounding.
    pub(in crate::matmul) amax: Option<TensorMut<'a>>,
}

/// A product whose arguments fit; the output has elements.
#[derive(Debug)]
pub(in crate::matmul) struct MatmulCall<'a> {
    pub(in crate::matmul) shape: MatmulShape,
    /// `[m, k]`.
    pub(in crate::matmul) a: OperandView<'a>,
    /// `[n, k]`, of m-groups `[groups n, k]`.
    pub(in crate::matmul) b: OperandView<'a>,
    /// `[groups + 1]` i64 or i32, there exactly where there are groups.
    pub(in crate::matmul) offsets: Option<TensorRef<'a>>,
    pub(in crate::matmul) epilogue: Epilogue<'a>,
    /// At least the kernels' `workspace_bytes`, u8 at a multiple of 16; there where these are not 0.
    pub(in crate::matmul) workspace: Option<TensorMut<'a>>,
}
