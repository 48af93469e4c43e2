//! What a program does without fused operations: each step a pass over the whole tensor, its result
//! stored in f64; each pass parallel over rows.

use evenkeel::{Buffer, Number, Result};
use rayon::prelude::*;

use super::call::Call;
use super::work::{Operation, Pass, Work};
use crate::bench::record::ShapeOf;

/// A call's tensors in the host's memory.
pub struct Host<T> {
    work: Work,
    columns: usize,
    /// Rows that share a token's angles.
    heads: usize,
    x: Vec<T>,
    /// The residual, or dy.
    second: Vec<T>,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    rstd: Vec<f64>,
    mean: Vec<f64>,
    cos: Vec<f64>,
    sin: Vec<f64>,
}

/// What the steps leave.
pub struct Outputs<T> {
    /// y, or dx.
    pub out: Vec<T>,
    /// x + residual.
    pub sum: Vec<T>,
    /// The gradient of gamma.
    pub dgamma: Vec<f64>,
    /// The gradient of beta.
    pub dbeta: Vec<f64>,
}

fn wide<T: Number>(buffer: Option<&Buffer>) -> Result<Vec<f64>> {
    let values = buffer.map(Buffer::read::<T>).transpose()?;
    Ok(values
        .into_iter()
        .flatten()
        .map(|value| value.to_f64())
        .collect())
}

fn widened<T: Number>(values: &[T]) -> Vec<f64> {
    values.par_iter().map(|value| value.to_f64()).collect()
}

fn rounded<T: Number>(values: &[f64]) -> Vec<T> {
    values.par_iter().map(|&value| T::from_f64(value)).collect()
}

impl<T: Number> Host<T> {
    /// Those of a call.
    ///
    /// # Errors
    /// The device's.
    pub fn of(call: &Call, work: Work, shape: ShapeOf) -> Result<Self> {
        let second = call
            .residual()
            .map(|(residual, _)| residual)
            .or(call.gradient());
        let second = second.map(Buffer::read::<T>).transpose()?;
        let tables = call.tables.as_ref();
        let columns = shape.columns();
        Ok(Self {
            work,
            columns,
            heads: shape.elements() / (columns * shape.tokens()).max(1),
            x: call.x.read::<T>()?,
            second: second.unwrap_or_default(),
            gamma: wide::<T>(call.gamma.as_ref())?,
            beta: wide::<T>(call.beta.as_ref())?,
            rstd: wide::<f32>(call.rstd.as_ref())?,
            mean: wide::<f32>(call.mean.as_ref())?,
            cos: wide::<T>(tables.map(|[cos, _]| cos))?,
            sin: wide::<T>(tables.map(|[_, sin]| sin))?,
        })
    }

    /// Every step.
    #[must_use]
    pub fn run(&self) -> Outputs<T> {
        let softmax = self.work.operation == Operation::Softmax;
        match self.work.pass {
            Pass::Backward if softmax => self.softmax_backward(),
            Pass::Backward => self.backward(),
            _ if softmax => self.softmax(),
            _ => self.forward(),
        }
    }

    /// A number of each row.
    fn each_row(&self, values: &[f64], of: impl Fn(&[f64]) -> f64 + Sync + Send) -> Vec<f64> {
        values.par_chunks(self.columns).map(of).collect()
    }

    /// A pass over the rows: what each becomes of itself and its number.
    fn rows(&self, values: &[f64], of: impl Fn(usize, usize, f64) -> f64 + Sync) -> Vec<f64> {
        let mut out = vec![0.0; values.len()];
        out.par_chunks_mut(self.columns)
            .zip(values.par_chunks(self.columns))
            .enumerate()
            .for_each(|(row, (out, values))| {
                for (column, (out, &value)) in out.iter_mut().zip(values).enumerate() {
                    *out = of(row, column, value);
                }
            });
        out
    }

    fn mean_of(&self, values: &[f64]) -> Vec<f64> {
        let columns = self.columns as f64;
        self.each_row(values, |row| row.iter().sum::<f64>() / columns)
    }

    /// Each pair of a head's halves turned by its token's angle, or back.
    fn turned(&self, values: &[f64], sign: f64) -> Vec<f64> {
        let half = self.columns / 2;
        let mut out = vec![0.0; values.len()];
        out.par_chunks_mut(self.columns)
            .zip(values.par_chunks(self.columns))
            .enumerate()
            .for_each(|(row, (out, values))| {
                let angles = row / self.heads * half;
                for pair in 0..half {
                    let (cos, sin) = (self.cos[angles + pair], sign * self.sin[angles + pair]);
                    let (a, b) = (values[pair], values[pair + half]);
                    out[pair] = a * cos - b * sin;
                    out[pair + half] = a * sin + b * cos;
                }
            });
        out
    }

    fn forward(&self) -> Outputs<T> {
        let layer = self.work.operation == Operation::Layer;
        let mut x = widened(&self.x);
        let mut sum = Vec::new();
        if self.work.pass == Pass::Residual {
            let residual = widened(&self.second);
            let added: Vec<f64> = x.par_iter().zip(&residual).map(|(x, r)| x + r).collect();
            sum = rounded(&added);
            x = widened(&sum);
        }
        if layer {
            let mean = self.mean_of(&x);
            x = self.rows(&x, |row, _, x| x - mean[row]);
        }
        let squares = self.rows(&x, |_, _, x| x * x);
        let eps = if layer { 1e-5 } else { 1e-6 };
        let rstd: Vec<f64> = self
            .mean_of(&squares)
            .into_iter()
            .map(|mean| 1.0 / (mean + eps).sqrt())
            .collect();
        let normed = self.rows(&x, |row, _, x| x * rstd[row]);
        let mut y = self.rows(&normed, |_, column, x| x * self.gamma[column]);
        if layer {
            y = self.rows(&y, |_, column, y| y + self.beta[column]);
        }
        if !self.cos.is_empty() {
            y = self.turned(&y, 1.0);
        }
        Outputs {
            out: rounded(&y),
            sum,
            dgamma: Vec::new(),
            dbeta: Vec::new(),
        }
    }

    fn backward(&self) -> Outputs<T> {
        let layer = self.work.operation == Operation::Layer;
        let mut dy = widened(&self.second);
        if !self.cos.is_empty() {
            dy = self.turned(&dy, -1.0);
        }
        let mut h = widened(&self.x);
        if layer {
            h = self.rows(&h, |row, _, x| x - self.mean[row]);
        }
        h = self.rows(&h, |row, _, x| x * self.rstd[row]);
        let product = |a: &[f64], b: &[f64]| -> Vec<f64> {
            a.par_iter().zip(b).map(|(a, b)| a * b).collect()
        };
        let dy_h = product(&dy, &h);
        let dgamma = self.columns_of(&dy_h);
        let dbeta = if layer {
            self.columns_of(&dy)
        } else {
            Vec::new()
        };
        let a = self.rows(&dy, |_, column, dy| dy * self.gamma[column]);
        let mean_ah = self.mean_of(&product(&a, &h));
        let pulled = self.rows(&h, |row, _, h| h * mean_ah[row]);
        let mut dx: Vec<f64> = a.par_iter().zip(&pulled).map(|(a, p)| a - p).collect();
        if layer {
            let mean_a = self.mean_of(&a);
            dx = self.rows(&dx, |row, _, dx| dx - mean_a[row]);
        }
        dx = self.rows(&dx, |row, _, dx| dx * self.rstd[row]);
        Outputs {
            out: rounded(&dx),
            sum: Vec::new(),
            dgamma,
            dbeta,
        }
    }

    /// The sum over the rows of each column.
    fn columns_of(&self, values: &[f64]) -> Vec<f64> {
        let zeros = || vec![0.0; self.columns];
        let add = |mut sums: Vec<f64>, row: &[f64]| {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            sums
        };
        values
            .par_chunks(self.columns)
            .fold(zeros, add)
            .reduce(zeros, |sums, other| add(sums, &other))
    }

    fn softmax(&self) -> Outputs<T> {
        let x = widened(&self.x);
        let max = self.each_row(&x, |row| {
            row.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        });
        let shifted = self.rows(&x, |row, _, x| x - max[row]);
        let exps = self.rows(&shifted, |_, _, x| x.exp());
        let sums = self.each_row(&exps, |row| row.iter().sum());
        let y = self.rows(&exps, |row, _, x| x / sums[row]);
        Outputs {
            out: rounded(&y),
            sum: Vec::new(),
            dgamma: Vec::new(),
            dbeta: Vec::new(),
        }
    }

    fn softmax_backward(&self) -> Outputs<T> {
        let (y, dy) = (widened(&self.x), widened(&self.second));
        let products: Vec<f64> = y.par_iter().zip(&dy).map(|(y, dy)| y * dy).collect();
        let sums = self.each_row(&products, |row| row.iter().sum());
        let weighted = self.rows(&y, |row, _, y| y * sums[row]);
        let dx: Vec<f64> = products
            .par_iter()
            .zip(&weighted)
            .map(|(product, weighted)| product - weighted)
            .collect();
        Outputs {
            out: rounded(&dx),
            sum: Vec::new(),
            dgamma: Vec::new(),
            dbeta: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cpu::call;
    use super::super::work::rows;
    use super::*;
    use crate::bench::record::Heads;

    fn close(what: &str, got: &[f32], expected: impl IntoIterator<Item = f64>) {
        let expected: Vec<f64> = expected.into_iter().collect();
        assert_eq!(got.len(), expected.len(), "{what}");
        for (got, expected) in got.iter().zip(expected) {
            let error = (f64::from(*got) - expected).abs();
            assert!(
                error <= 1e-5 * expected.abs().max(1.0),
                "{what}: {got}, expected {expected}"
            );
        }
    }

    /// Both sides of a row of the benchmark compute the same.
    #[test]
    fn the_steps_give_what_the_operation_gives() {
        let heads = ShapeOf::Heads(Heads {
            tokens: 3,
            heads: 2,
            head_dim: 8,
        });
        for shape in [rows(3, 100), heads] {
            for &work in Work::of(shape) {
                let mut call = call(work, shape, evenkeel::DType::F32).unwrap();
                call.run().unwrap();
                let steps = Host::<f32>::of(&call, work, shape).unwrap().run();
                let name = work.name();
                let read = |buffer: Option<&Buffer>| {
                    buffer.map_or(vec![], |buffer| buffer.read::<f32>().unwrap())
                };
                let out = steps.out.iter().map(|x| f64::from(*x));
                close(&name, &read(Some(&call.out)), out);
                let sum = steps.sum.iter().map(|x| f64::from(*x));
                close(&name, &read(call.residual().map(|(_, sum)| sum)), sum);
                close(&name, &read(call.dgamma.as_ref()), steps.dgamma);
                close(&name, &read(call.dbeta.as_ref()), steps.dbeta);
            }
        }
    }
}
