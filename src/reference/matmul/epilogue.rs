//! What is done to the values of a product before they are stored.

use std::ops::Range;

use super::expect;
use crate::Error;
use crate::matmul::Activation;
use crate::quant::GeluKind;
use crate::reference::quant::activation::{Function, value};
use crate::reference::{FloatRows, Floats};

/// alpha, bias, beta C and an activation.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// A factor.
    pub alpha: f64,
    /// `[N]`; with groups of rows `[groups N]`.
    pub bias: Option<Floats<'a>>,
    /// C and beta: rows of the output, `[.., N]`.
    pub c: Option<(FloatRows<'a>, f64)>,
    /// What is applied at the end.
    pub activation: Activation,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Self {
            alpha: 1.0,
            bias: None,
            c: None,
            activation: Activation::None,
        }
    }
}

/// The values of a product.
#[derive(Clone, Debug)]
pub struct Product {
    /// The rows of the output that have values.
    pub rows: Range<usize>,
    /// Before the activation, row by row: N columns.
    pub pre: Vec<f64>,
    /// After it: N columns, or half of them.
    pub out: Vec<f64>,
    /// The largest finite magnitude of `out`.
    pub amax: f64,
}

impl Epilogue<'_> {
    /// Of sums `[rows, n]`; `group` is that of a row.
    pub(super) fn apply(
        &self,
        mut sums: Vec<f64>,
        rows: Range<usize>,
        n: usize,
        group: impl Fn(usize) -> usize,
    ) -> Result<Product, Error> {
        if let Some((c, _)) = &self.c {
            let fits = c.columns() == n && c.rows() >= rows.end;
            let expected = format!("[{}, {n}]", rows.end);
            expect(
                "c",
                fits,
                expected,
                format!("[{}, {}]", c.rows(), c.columns()),
            )?;
        }
        let even = self.activation != Activation::SwiGlu || n.is_multiple_of(2);
        expect("n", even, "even, for pairs of SwiGLU", n)?;
        if let Some(bias) = &self.bias {
            let last = rows.clone().last().map_or(0, |row| n * (group(row) + 1));
            expect("bias", bias.len() >= last, format!("[{last}]"), bias.len())?;
        }
        for (row, sums) in rows.clone().zip(sums.chunks_exact_mut(n.max(1))) {
            let first = n * group(row);
            let addend = self.c.as_ref().map(|(c, beta)| (c.row(row), beta));
            for (column, sum) in sums.iter_mut().enumerate() {
                *sum *= self.alpha;
                if let Some(bias) = &self.bias {
                    *sum += bias.at(first + column);
                }
                if let Some((c, beta)) = &addend {
                    *sum += *beta * c[column];
                }
            }
        }
        let out = match self.activation {
            Activation::None => sums.clone(),
            Activation::Gelu(kind) => gelu(kind, &sums),
            Activation::SwiGlu => {
                let pairs = sums.chunks_exact(2);
                pairs
                    .map(|pair| value(Function::SwiGlu, pair[0]) * pair[1])
                    .collect()
            }
        };
        let finite = out.iter().filter(|value| value.is_finite());
        let amax = finite.fold(0.0_f64, |amax, value| amax.max(value.abs()));
        Ok(Product {
            rows,
            pre: sums,
            out,
            amax,
        })
    }
}

fn gelu(kind: GeluKind, values: &[f64]) -> Vec<f64> {
    let function = Function::Gelu(kind);
    values.iter().map(|v| value(function, *v)).collect()
}
