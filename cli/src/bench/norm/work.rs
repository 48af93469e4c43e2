//! What is measured: operations and passes, their sizes, and the bytes that they must move at least.

use evenkeel::DType;

use crate::bench::record::{Heads, Measured, Rows, ShapeOf};

/// Widths of rows: those of models from small to large, and what a vocabulary or a long context makes.
pub const WIDTHS: [usize; 7] = [1024, 2048, 4096, 8192, 16_384, 65_536, 131_072];

/// Tokens of a batch.
pub const TOKENS: [usize; 2] = [4096, 16_384];

/// The width that is measured in f32 too.
pub const F32_WIDTH: usize = 8192;

/// Queries of a batch, with the two lengths that heads have.
pub const HEADS: [Heads; 2] = [heads(64), heads(128)];

const fn heads(head_dim: usize) -> Heads {
    Heads {
        tokens: 8192,
        heads: 32,
        head_dim,
    }
}

/// An operation of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `RmsNorm` with gamma.
    Rms,
    /// `LayerNorm` with gamma and beta.
    Layer,
    /// Softmax.
    Softmax,
    /// `RmsNorm` of each head with a gamma for all of them.
    QkNorm,
    /// The same with a rotary embedding of the whole head in halves.
    RotaryQkNorm,
}

impl Operation {
    /// Its name in a row.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rms => "rms",
            Self::Layer => "layer",
            Self::Softmax => "softmax",
            Self::QkNorm => "qk-norm",
            Self::RotaryQkNorm => "qk-norm rotary",
        }
    }

    /// Weights of a row's length: gamma, beta.
    #[must_use]
    pub fn weights(self) -> u64 {
        match self {
            Self::Layer => 2,
            Self::Softmax => 0,
            _ => 1,
        }
    }
}

/// A pass of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// y and the statistics that the backward needs.
    Forward,
    /// The same of x + residual, which is written too.
    Residual,
    /// dx and the gradients of the weights.
    Backward,
}

impl Pass {
    /// Its name in a row.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Residual => "forward with residual",
            Self::Backward => "backward",
        }
    }
}

/// An operation in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// What.
    pub operation: Operation,
    /// Which way.
    pub pass: Pass,
}

const fn work(operation: Operation, pass: Pass) -> Work {
    Work { operation, pass }
}

impl Work {
    /// Those of rows.
    pub const OF_ROWS: [Self; 7] = [
        work(Operation::Rms, Pass::Forward),
        work(Operation::Rms, Pass::Residual),
        work(Operation::Rms, Pass::Backward),
        work(Operation::Layer, Pass::Forward),
        work(Operation::Layer, Pass::Backward),
        work(Operation::Softmax, Pass::Forward),
        work(Operation::Softmax, Pass::Backward),
    ];

    /// Those of heads.
    pub const OF_HEADS: [Self; 4] = [
        work(Operation::QkNorm, Pass::Forward),
        work(Operation::QkNorm, Pass::Backward),
        work(Operation::RotaryQkNorm, Pass::Forward),
        work(Operation::RotaryQkNorm, Pass::Backward),
    ];

    /// Those that have such a size.
    #[must_use]
    pub fn of(shape: ShapeOf) -> &'static [Self] {
        match shape {
            ShapeOf::Rows(_) => &Self::OF_ROWS,
            // Nothing to pair the last element of an odd head with.
            ShapeOf::Heads(heads) if heads.head_dim % 2 == 1 => &Self::OF_HEADS[..2],
            ShapeOf::Heads(_) => &Self::OF_HEADS,
            ShapeOf::Logits(_) | ShapeOf::Product(_) => &[],
        }
    }

    /// Its name in a row.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {}", self.operation.name(), self.pass.name())
    }

    /// What a row of it measures.
    #[must_use]
    pub fn measured(&self, shape: ShapeOf, dtype: DType) -> Measured {
        Measured {
            op: "norm",
            variant: self.name(),
            shape,
            dtype,
            bytes: self.bytes(shape, dtype),
        }
    }

    /// The least bytes, each tensor once: x and y; with a residual that and the stream; backward x (a
    /// softmax's y), dy and dx; the statistics of rows in f32, the tables of angles, and the weights
    /// with their gradients in f32. Weights and tables are of the rows' type.
    #[must_use]
    pub fn bytes(&self, shape: ShapeOf, dtype: DType) -> u64 {
        let size = dtype.size() as u64;
        let (elements, columns) = (shape.elements() as u64, shape.columns() as u64);
        let rows = elements / columns.max(1);
        let of_rows = match self.pass {
            Pass::Forward => 2,
            Pass::Residual => 4,
            Pass::Backward => 3,
        } * elements
            * size;
        let statistics = self.operation.weights() * rows * 4;
        let tables = match self.operation {
            Operation::RotaryQkNorm => shape.tokens() as u64 * columns * size,
            _ => 0,
        };
        of_rows + statistics + tables + self.weight_bytes(shape, dtype)
    }

    /// The part of [`bytes`](Self::bytes) that does not grow with the tokens. A backward has no use
    /// for beta.
    #[must_use]
    pub fn weight_bytes(&self, shape: ShapeOf, dtype: DType) -> u64 {
        let (weights, size) = (self.operation.weights(), dtype.size() as u64);
        let each = match self.pass {
            Pass::Backward => weights.min(1) * size + weights * 4,
            _ => weights * size,
        };
        shape.columns() as u64 * each
    }
}

/// Rows of so many columns.
#[must_use]
pub fn rows(tokens: usize, width: usize) -> ShapeOf {
    ShapeOf::Rows(Rows { tokens, width })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted by hand for 10 rows of 100 columns, and for 10 tokens of 3 heads of 8.
    #[test]
    fn the_least_bytes_are_each_tensor_once() {
        let shape = rows(10, 100);
        let least = [
            // x and y 4000, gamma 200, rstd 40.
            4240, // Residual and stream 4000 more.
            8240, // x, dy, dx 6000, gamma 200, rstd 40, dgamma 400.
            6640, // x and y 4000, gamma and beta 400, rstd and mean 80.
            4480, // x, dy, dx 6000, gamma 200, rstd and mean 80, dgamma and dbeta 800.
            7080, // x and y.
            4000, // y, dy, dx.
            6000,
        ];
        for (work, least) in Work::of(shape).iter().zip(least) {
            assert_eq!(work.bytes(shape, DType::Bf16), least, "{}", work.name());
        }
        let shape = ShapeOf::Heads(Heads {
            tokens: 10,
            heads: 3,
            head_dim: 8,
        });
        let least = [
            // x and y 960, gamma 16, rstd of each head 120.
            1096, // x, dy, dx 1440, gamma 16, rstd 120, dgamma 32.
            1608, // The cosines and sines of 10 positions and 4 pairs: 160 more.
            1256, 1768,
        ];
        for (work, least) in Work::of(shape).iter().zip(least) {
            assert_eq!(work.bytes(shape, DType::Bf16), least, "{}", work.name());
        }
        let odd = ShapeOf::Heads(Heads {
            tokens: 10,
            heads: 3,
            head_dim: 7,
        });
        let rotary = |work: &Work| work.operation == Operation::RotaryQkNorm;
        assert!(!Work::of(odd).iter().any(rotary));
        // f32: rows, gamma and dgamma of four bytes an element.
        let backward = work(Operation::Rms, Pass::Backward);
        assert_eq!(backward.bytes(rows(10, 100), DType::F32), 12_840);
    }

    #[test]
    fn names_tell_the_rows_apart() {
        let all = Work::OF_ROWS.iter().chain(&Work::OF_HEADS);
        let mut names: Vec<String> = all.map(Work::name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
