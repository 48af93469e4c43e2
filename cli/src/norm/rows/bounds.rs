//! How far a normalization computed in fp32 may be from the exact one.
//!
//! A result is right when it is the rounding, to its type, of a value within `e` of the exact one
//! ([`Interval::rounded`](crate::numbers::Interval::rounded)); this module derives `e` of every element
//! from its row's own exact numbers. Nothing is fitted to what was observed.
//!
//! With u = 2^-24, half a unit of the last place of 1 in fp32 (each correctly rounded operation errs
//! by at most u relatively), D columns, and `adds` the additions on the longest path from an element to its
//! row's sum: a thread adds the elements it holds, at most 64 of them or the 1024th part of a row where
//! that is more, then 5 merges of a warp, 5 of a block and 4 of a cluster.
//!
//! | quantity | error |
//! |---|---|
//! | sum of D terms of size \|t\| | `adds` u sum \|t\|; 0 where all terms are multiples of some g and sum \|t\| <= 2^24 g: then every partial sum is exact, in any order |
//! | mean | delta = that / D, and u \|mean\| of the division (where the sum is exact: what rounding the quotient takes, 0 for constant rows) |
//! | deviation d = x - mean | delta + u (\|d\| + delta); rms: none, d = x |
//! | variance or mean square | squares u, of rounded deviations 2 u, sum `adds` u, division u, eps u: k = `adds` + 5; and + delta^2, never -: the deviations from another centre are larger. V in [V (1 - k u), (V + delta^2) (1 + k u)] |
//! | rstd | both ends to the power -1/2, and 2 u for square root and division |
//! | h = d r | error of d times r, error of r times d, u |
//! | w = gamma + offset | u where there is an offset |
//! | n = h w + beta | errors of the factors, u for the product, u (\|h w\| + \|beta\|) for the sum |
//! | rotary a c - b s | those of a and b by \|c\| and \|s\|, 2 u (\|a c\| + \|b s\|) |
//! | silu(z) = z / (1 + exp(-z)) | ex2.approx of a rounded argument errs by (2 + \|z\| log2 e) 2^-23, damped by 1 - sig(z); then 3 u; a flushed exponential loses 2^-126 |
//! | its slope sig(z) (1 + z sig(-z)) | sig(-z) may be 1 - sig(z), absolutely off by the error of sig(z) and u; then term by term |
//! | a = w dy | errors of the factors, u |
//! | c1, c2 | the sums of the terms' errors, `adds` u of their sizes, and u for the division (u more for each product a h) |
//! | dx = r (a - c1 - h c2) | errors of each, 3 u (\|a\| + \|c1\| + \|h c2\|) as they may cancel, error of r times the bracket, u |
//! | + dstream | u of the sum |
//! | dgamma, dbeta | sums over rows: the terms' errors, and u of their sizes for each addition of a row: no order has more |
//! | dalpha of one number | the same, over rows and columns |
//!
//! The statistics that a backward reads are the forward's, with its errors. Products of errors are some
//! hundred u of what is counted: [`SECOND_ORDER`]. The same holds on rows whose squares leave fp32's
//! range: what scales them by a power of two errs no more.
//!
//! The CPU device computes in f64, u = 2^-53, and stores statistics in f32.

use evenkeel::norm::NormOptions;
use evenkeel::reference::norm::Moments;

use super::problem::Problem;

/// Half a unit of the last place of 1 in f32.
const SINGLE: f64 = 1.0 / (1u64 << 24) as f64;
/// The same in f64: 2^-53.
const DOUBLE: f64 = f64::EPSILON / 2.0;
/// Products of errors, beside the errors: some hundred u of them.
pub const SECOND_ORDER: f64 = 1.0 + 1.0 / 1024.0;

/// The arithmetic of a device on rows of one length.
#[derive(Clone, Copy, Debug)]
pub struct Arithmetic {
    /// u.
    pub unit: f64,
    /// What a flushed exponential loses.
    pub flush: f64,
    /// What an underflow loses.
    pub tiny: f64,
    /// Additions from an element to the row's sum.
    pub adds: f64,
    /// Digits of a sum in which partial sums are exact.
    digits: i32,
}

impl Arithmetic {
    /// Of kernels, or of the CPU device.
    #[must_use]
    pub fn new(kernels: bool, columns: usize) -> Self {
        if !kernels {
            return Self {
                unit: DOUBLE,
                flush: 0.0,
                tiny: 0.0,
                adds: 4.0,
                digits: 53,
            };
        }
        let of_a_thread = columns.div_ceil(1024).max(64).min(columns);
        Self {
            unit: SINGLE,
            flush: (-126.0_f64).exp2(),
            tiny: (-148.0_f64).exp2(),
            adds: (of_a_thread + 5 + 5 + 4) as f64,
            digits: 24,
        }
    }

    /// The error of a sum.
    fn sum(&self, terms: &[f64]) -> f64 {
        let size: f64 = terms.iter().map(|x| x.abs()).sum();
        let grid = terms.iter().filter_map(|&x| lowest_bit(x)).min();
        match grid {
            Some(grid) if size <= f64::from(self.digits + grid).exp2() => 0.0,
            _ => self.adds * self.unit * size,
        }
    }
}

/// The exponent of the lowest bit of a number that is not 0.
fn lowest_bit(x: f64) -> Option<i32> {
    let bits = x.to_bits();
    let (exponent, mantissa) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
    match exponent {
        // Subnormal in f64: no element type has such.
        0 => None,
        _ => Some(exponent - 1075 + (mantissa | 1 << 52).trailing_zeros() as i32),
    }
}

/// The statistics of a row, by the reference.
#[must_use]
pub fn exact_moments(x: &[f64], norm: &NormOptions) -> Moments {
    Moments::new(x, norm)
}

/// Absolute errors of a row's statistics.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatisticsError {
    /// Of the mean.
    pub mean: f64,
    /// Of r.
    pub rstd: f64,
}

impl StatisticsError {
    /// Of a row that has them.
    #[must_use]
    pub fn new(x: &[f64], layer: bool, moments: &Moments, on: &Arithmetic) -> Self {
        let unit = on.unit;
        let mean = if layer {
            let sum = on.sum(x) / x.len() as f64;
            if sum == 0.0 && on.digits == 24 {
                (f64::from(moments.mean as f32) - moments.mean).abs()
            } else {
                sum + unit * (moments.mean.abs() + sum)
            }
        } else {
            0.0
        };
        let spread = moments.rstd.powi(-2);
        let k = (on.adds + 5.0) * unit * SECOND_ORDER;
        let high = (spread + mean * mean) * (1.0 + k);
        let low = spread * (1.0 - k);
        let root = 2.0 * unit * SECOND_ORDER;
        let rstd = (low.sqrt().recip() * (1.0 + root) - moments.rstd)
            .max(moments.rstd - high.sqrt().recip() * (1.0 - root));
        Self { mean, rstd }
    }

    /// As a backward reads them: stored in f32, computed or `given` exactly.
    #[must_use]
    pub fn saved(self, moments: &Moments, given: bool) -> Self {
        let rounding = |exact: f64| SINGLE * exact.abs();
        let (mean, rstd) = (rounding(moments.mean), rounding(moments.rstd));
        if given {
            Self { mean, rstd }
        } else {
            Self {
                mean: self.mean + mean,
                rstd: self.rstd + rstd,
            }
        }
    }
}

/// A number and how far it may be off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Near {
    /// The exact one.
    pub value: f64,
    /// The error allowed.
    pub error: f64,
}

impl Near {
    fn size(self) -> f64 {
        self.value.abs()
    }

    /// The most it may be.
    fn most(self) -> f64 {
        self.size() + self.error
    }

    fn exactly(value: f64) -> Self {
        Self { value, error: 0.0 }
    }

    /// The product, rounded.
    fn times(self, other: Self, on: &Arithmetic) -> Self {
        let value = self.value * other.value;
        let error = self.error * other.most() + self.size() * other.error;
        Self {
            value,
            error: error + on.unit * (value.abs() + error) + on.tiny,
        }
    }

    /// The sum, rounded; where the terms may cancel, all of them are rounded.
    fn plus(self, other: Self, on: &Arithmetic) -> Self {
        let value = self.value + other.value;
        let error = self.error + other.error;
        Self {
            value,
            error: error + on.unit * (value.abs() + error),
        }
    }
}

/// One finite row, as a device computes it.
pub struct RowNear<'a> {
    problem: &'a Problem,
    on: &'a Arithmetic,
    row: usize,
    x: &'a [f64],
    moments: Moments,
    statistics: StatisticsError,
}

impl<'a> RowNear<'a> {
    /// Of row `row` with these statistics, off by so much.
    #[must_use]
    pub fn new(
        problem: &'a Problem,
        on: &'a Arithmetic,
        row: usize,
        x: &'a [f64],
        moments: Moments,
        statistics: StatisticsError,
    ) -> Self {
        Self {
            problem,
            on,
            row,
            x,
            moments,
            statistics,
        }
    }

    /// Where the weights of this row and a column are, in weights of `length`.
    #[must_use]
    pub fn weight_index(&self, length: usize, column: usize) -> usize {
        let shape = self.problem.shape;
        match length {
            1 => 0,
            _ if length == shape.columns => column,
            _ => self.row % shape.heads * shape.columns + column,
        }
    }

    /// h of a column; x where there is no norm.
    #[must_use]
    pub fn h(&self, column: usize) -> Near {
        let x = self.x[column];
        if self.problem.norm.is_none() {
            return Near::exactly(x);
        }
        let rstd = Near {
            value: self.moments.rstd,
            error: self.statistics.rstd,
        };
        let deviation = if self.problem.is_layer() {
            let mean = Near {
                value: -self.moments.mean,
                error: self.statistics.mean,
            };
            Near::exactly(x).plus(mean, self.on)
        } else {
            Near::exactly(x)
        };
        deviation.times(rstd, self.on)
    }

    /// gamma and its offset.
    fn w(&self, column: usize) -> Option<Near> {
        let gamma = self.problem.gamma.as_ref()?;
        let gamma = gamma.values[self.weight_index(gamma.values.len(), column)];
        let offset = self
            .problem
            .norm
            .map_or(0.0, |norm| norm.gamma_offset().into());
        Some(if offset == 0.0 {
            Near::exactly(gamma)
        } else {
            Near::exactly(gamma).plus(Near::exactly(offset), self.on)
        })
    }

    /// The normalized row with its weights.
    #[must_use]
    pub fn n(&self) -> Vec<Near> {
        (0..self.x.len())
            .map(|column| {
                let mut n = self.h(column);
                if let Some(w) = self.w(column) {
                    n = n.times(w, self.on);
                }
                if let Some(beta) = &self.problem.beta {
                    let beta = beta.values[self.weight_index(beta.values.len(), column)];
                    n = n.plus(Near::exactly(beta), self.on);
                }
                n
            })
            .collect()
    }

    /// Turns the row, or turns it back.
    fn turn(&self, values: &mut [Near], back: bool) {
        let problem = self.problem;
        let token = self.row / problem.shape.heads;
        let (Some(rotary), Some(tables)) = (problem.rotary, &problem.tables) else {
            return;
        };
        // Without a position the exact values are NaN, which have no error.
        let Some(position) = problem.position(token) else {
            return;
        };
        for pair in 0..tables.pairs {
            let at = position * tables.pairs + pair;
            let cos = Near::exactly(tables.cos[at]);
            let sin = Near::exactly(tables.sin[at] * if back { -1.0 } else { 1.0 });
            let (first, second) = rotary.pairing.elements(pair, rotary.width);
            let (a, b) = (values[first], values[second]);
            let minus = Near::exactly(-sin.value);
            values[first] = self.turned(a.times(cos, self.on), b.times(minus, self.on));
            values[second] = self.turned(a.times(sin, self.on), b.times(cos, self.on));
        }
    }

    /// The sum of two products: as they may be joined in one operation, in either order, each rounds.
    fn turned(&self, one: Near, other: Near) -> Near {
        let sum = one.plus(other, self.on);
        Near {
            error: sum.error + self.on.unit * (one.size() + other.size()),
            ..sum
        }
    }

    /// y of every column.
    #[must_use]
    pub fn y(&self) -> Vec<Near> {
        let mut y = self.n();
        self.turn(&mut y, false);
        if let Some(z) = self.z() {
            for (y, &z) in y.iter_mut().zip(z) {
                *y = y.times(self.silu(z), self.on);
            }
        }
        y
    }

    fn z(&self) -> Option<&'a [f64]> {
        let columns = self.problem.shape.columns;
        let z = self.problem.z.as_ref()?;
        z.values.get(self.row * columns..(self.row + 1) * columns)
    }

    fn sigmoid(&self, z: f64) -> Near {
        let on = self.on;
        let value = (1.0 + (-z).exp()).recip();
        let exponential = (4.0 + 2.0 * z.abs() * std::f64::consts::LOG2_E) * on.unit;
        Near {
            value,
            error: value * ((1.0 - value) * exponential + 2.0 * on.unit) + on.flush,
        }
    }

    fn silu(&self, z: f64) -> Near {
        self.sigmoid(z).times(Near::exactly(z), self.on)
    }

    /// The slope of silu.
    fn slope(&self, z: f64) -> Near {
        let on = self.on;
        let sigmoid = self.sigmoid(z);
        let other = Near {
            value: (1.0 + z.exp()).recip(),
            error: sigmoid.error + on.unit,
        };
        let bracket = other
            .times(Near::exactly(z), on)
            .plus(Near::exactly(1.0), on);
        let slope = bracket.times(sigmoid, on);
        // sig + z sig sig(-z) rounds its terms, which cancel near z = -1.28.
        let terms = sigmoid.size() * (1.0 + (z * other.value).abs());
        Near {
            error: slope.error + 2.0 * on.unit * terms,
            ..slope
        }
    }

    /// The gradient of n, from that of y.
    #[must_use]
    pub fn dn(&self, dy: &[f64]) -> Vec<Near> {
        let mut dn: Vec<Near> = dy.iter().map(|&dy| Near::exactly(dy)).collect();
        self.turn(&mut dn, true);
        if let Some(z) = self.z() {
            for (dn, &z) in dn.iter_mut().zip(z) {
                *dn = dn.times(self.silu(z), self.on);
            }
        }
        dn
    }

    /// The gradient of the gate.
    #[must_use]
    pub fn dz(&self, dy: &[f64]) -> Vec<Near> {
        let Some(z) = self.z() else {
            return Vec::new();
        };
        let n = self.n();
        (0..dy.len())
            .map(|column| {
                Near::exactly(dy[column])
                    .times(n[column], self.on)
                    .times(self.slope(z[column]), self.on)
            })
            .collect()
    }

    /// The error of a mean over the row.
    fn mean(&self, terms: &[Near]) -> Near {
        let (on, count) = (self.on, terms.len() as f64);
        let values: Vec<f64> = terms.iter().map(|term| term.value).collect();
        let errors: f64 = terms.iter().map(|term| term.error).sum();
        let sizes: f64 = terms.iter().map(|term| term.most()).sum();
        let value = values.iter().sum::<f64>() / count;
        let error = (errors + on.adds * on.unit * sizes) / count;
        Near {
            value,
            error: error + on.unit * (value.abs() + error),
        }
    }

    /// dx before the stream's gradient is added, from the gradient of n.
    #[must_use]
    pub fn dx(&self, dn: &[Near]) -> Vec<Near> {
        let on = self.on;
        if self.problem.norm.is_none() {
            return dn.to_vec();
        }
        let a: Vec<Near> = dn
            .iter()
            .enumerate()
            .map(|(column, &dn)| match self.w(column) {
                Some(w) => dn.times(w, on),
                None => dn,
            })
            .collect();
        let h: Vec<Near> = (0..a.len()).map(|column| self.h(column)).collect();
        let products: Vec<Near> = a.iter().zip(&h).map(|(a, &h)| a.times(h, on)).collect();
        let c2 = self.mean(&products);
        let c1 = if self.problem.is_layer() {
            self.mean(&a)
        } else {
            Near::default()
        };
        let rstd = Near {
            value: self.moments.rstd,
            error: self.statistics.rstd,
        };
        a.iter()
            .zip(&h)
            .map(|(a, h)| {
                let follows = h.times(c2, on);
                let value = a.value - c1.value - follows.value;
                let size = a.most() + c1.most() + follows.most();
                let bracket = Near {
                    value,
                    error: a.error + c1.error + follows.error + 3.0 * on.unit * size,
                };
                bracket.times(rstd, on)
            })
            .collect()
    }

    /// With the stream's gradient.
    #[must_use]
    pub fn with_stream(&self, dx: Near, dstream: f64) -> Near {
        dx.plus(Near::exactly(dstream), self.on)
    }
}

/// Sums over rows: gradients of weights.
#[derive(Clone, Debug)]
pub struct OverRows {
    errors: Vec<f64>,
    sizes: Vec<f64>,
}

impl OverRows {
    /// Of a weight of so many elements.
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self {
            errors: vec![0.0; length],
            sizes: vec![0.0; length],
        }
    }

    /// Takes one more term in.
    pub fn add(&mut self, index: usize, term: Near) {
        self.errors[index] += term.error;
        self.sizes[index] += term.most();
    }

    /// The error of a sum whose longest path has so many additions, of which one may be to `before`.
    #[must_use]
    pub fn error(&self, index: usize, additions: f64, total: f64, on: &Arithmetic) -> f64 {
        (self.errors[index] + additions * on.unit * self.sizes[index] + on.unit * total.abs())
            * SECOND_ORDER
    }
}

/// The product of a gradient and h, a term of dgamma.
#[must_use]
pub fn gamma_term(dn: Near, h: Near, on: &Arithmetic) -> Near {
    dn.times(h, on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_bit_of_a_number() {
        assert_eq!(lowest_bit(1.0), Some(0));
        assert_eq!(lowest_bit(-6.0), Some(1));
        assert_eq!(lowest_bit(0.375), Some(-3));
        assert_eq!(lowest_bit(0.0), None);
    }

    #[test]
    fn sums_on_a_grid_are_exact() {
        let on = Arithmetic::new(true, 1000);
        // bf16 numbers near 1e4 are multiples of 64.
        assert_eq!(on.sum(&[10_048.0; 1000]), 0.0);
        assert!(on.sum(&[10_048.0, 1e-3]) > 0.0);
        // Every partial sum in f32 is exact indeed.
        let sum = (0..1000).fold(0.0_f32, |sum, _| sum + 10_048.0);
        assert_eq!(f64::from(sum), 1000.0 * 10_048.0);
    }

    #[test]
    fn a_constant_row_has_its_mean() {
        let on = Arithmetic::new(true, 300);
        let row = [10_048.0; 300];
        let moments = exact_moments(&row, &NormOptions::layer());
        let error = StatisticsError::new(&row, true, &moments, &on);
        assert_eq!(error.mean, 0.0);
        assert!(error.rstd < 1e-4 * moments.rstd);
    }
}
