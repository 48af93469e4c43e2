//! How far a normalization computed in fp32 may be from the exact one.
//!
//! A result is right when it is the rounding, to its type, of a value within `e` of the exact one
//! ([`Interval::rounded`](crate::numbers::Interval::rounded)); this module derives `e` of every element
//! from its row's own exact numbers. Nothing is fitted to what was observed.
//!
//! With u = 2^-24, half a unit of the last place of 1 in fp32 (each correctly rounded operation errs
//! by at most u relatively), D columns, R the largest less the smallest element of a row, and V its
//! variance or mean square:
//!
//! | quantity | error |
//! |---|---|
//! | sum of D terms of size \|t\| | u sum \|t\| for each addition on the longest path. A thread adds units of up to 8 pairwise, 3, and one to the other, at most 16 or the 1024th part of a row where that is more; then come 5 merges of a warp, 4 of a block and 4 of a cluster |
//! | mean of a layer | each thread takes deviations from one of its elements, at most R: (its additions + 2) u R. Each merge adds, by a share of the counts that is at most half (the second of two parts never has more elements), u of the differences of pivots (R) and of means (2 R) and of their sum (R), 2 u of share and product, and u of the new mean: 4 u R; there are 13 merges, and one for each of the segments of 4096 that a long row may be read in. delta is all of them; 0 where R is |
//! | deviation d = x - mean | delta, u R (x less the pivot), u (\|d\| + delta); rms: none, d = x |
//! | mean square | squares u, additions as above, division u, eps u: V k u |
//! | variance | the same, 5 u a merge; each merge adds w q^2, q the distance of its two means, where sum w <= 13/4 + 1 =: W and sum w q^2 <= V. Means that are off by at most delta, each by its part of delta at its merge, move the variance by 2 delta sqrt V (Cauchy and Schwarz over the parts of each merge), the 4 u R of each q by 8 u R sqrt(V W), the u R of each deviation by 4 u R sqrt V, counting u of d; squares of these: W (2 delta + 4 u R)^2 + delta^2 |
//! | rstd | both ends of the variance and eps to the power -1/2, and 2 u for square root and division |
//! | h = d r | error of d times r, error of r times d, u |
//! | w = gamma + offset | u where there is an offset |
//! | n = h w + beta | errors of the factors, u for the product, u (\|h w\| + \|beta\|) for the sum |
//! | rotary a c - b s | those of a and b by \|c\| and \|s\|, 2 u (\|a c\| + \|b s\|) |
//! | silu(z) = z / (1 + exp(-z)) | ex2.approx of a rounded argument errs by (2 + \|z\| log2 e) 2^-23, damped by 1 - sig(z); the sum u, rcp.approx 2 u, the product u; a flushed exponential loses 2^-126 |
//! | its slope sig(z) (1 + z sig(-z)) | sig(-z) may be 1 - sig(z), absolutely off by the error of sig(z) and u; then term by term |
//! | a = w dy | errors of the factors, u |
//! | c1, c2 | the sums of the terms' errors, u of their sizes for each addition, and u for the division (u more for each product a h) |
//! | dx = r (a - c1 - h c2) | errors of each, 3 u (\|a\| + \|c1\| + \|h c2\|) as they may cancel, error of r times the bracket, u |
//! | + dstream | u of the sum |
//! | dgamma, dbeta | sums over rows: the terms' errors, and u of their sizes for each addition of a row: no order has more |
//! | dalpha of one number | the same, over rows and columns |
//!
//! The statistics that a backward reads are the forward's, with its errors and the mean's rounding. The
//! kernels of a layer's backward form h = (x - mean) r, which the mean's error moves alike in all
//! columns, and take the mean of h away again: what remains is the rounding of that sum, u of the
//! sizes for each addition. Products of errors are some
//! hundred u of what is counted: [`SECOND_ORDER`]. The same holds on rows whose squares leave fp32's
//! range: what scales them by a power of two errs no more.
//!
//! The CPU device computes in f64, u = 2^-53, the mean by a compensated sum (whose error counts as 4
//! additions), and stores statistics in f32.

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
    /// Additions from an element to the sum of its thread.
    own_adds: f64,
    /// Additions from there to the row's sum.
    merges: f64,
    /// Parts of a row that a thread has one after the other.
    segments: f64,
    /// Whether means are relative to elements of the row.
    pivots: bool,
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
                own_adds: 4.0,
                merges: 0.0,
                segments: 0.0,
                pivots: false,
            };
        }
        let units = columns.div_ceil(1024).max(16);
        Self {
            unit: SINGLE,
            flush: (-126.0_f64).exp2(),
            tiny: (-148.0_f64).exp2(),
            own_adds: (3 + units).min(columns) as f64,
            merges: 13.0,
            segments: columns.div_ceil(4096) as f64,
            pivots: true,
        }
    }

    /// Additions from an element to the row's sum.
    #[must_use]
    pub fn adds(&self) -> f64 {
        self.own_adds + self.merges
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
    /// Of the mean as it is saved.
    pub mean: f64,
    /// Of the mean that deviations are taken from.
    centre: f64,
    /// Of a deviation beside that.
    deviation: f64,
    /// Of r.
    pub rstd: f64,
}

impl StatisticsError {
    /// Of a row that has them.
    #[must_use]
    pub fn new(x: &[f64], layer: bool, moments: &Moments, on: &Arithmetic) -> Self {
        let unit = on.unit;
        let with_eps = moments.rstd.powi(-2);
        let k = (on.adds() + 3.0) * unit * SECOND_ORDER;
        let mut error = Self::default();
        let (mut high, mut low) = (with_eps * (1.0 + k), with_eps * (1.0 - k));
        if layer && on.pivots {
            let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let least = x.iter().copied().fold(f64::INFINITY, f64::min);
            let range = unit * (most - least);
            let links = on.merges + on.segments;
            error.centre = (on.own_adds + 2.0 + 4.0 * links) * range;
            error.deviation = range;
            error.mean = error.centre + unit * moments.mean.abs();
            let weight = on.merges / 4.0 + 1.0;
            let apart = 2.0 * error.centre + 4.0 * range;
            let root = with_eps.sqrt();
            let first = 2.0 * root * (error.centre + (4.0 * weight.sqrt() + 2.0) * range);
            let second = weight * apart * apart + error.centre * error.centre;
            let more = 5.0 * links * unit * with_eps + first + second;
            (high, low) = (high + more, low - more);
        } else if layer {
            let size = x.iter().map(|x| x.abs()).sum::<f64>() / x.len() as f64;
            error.centre = on.adds() * unit * size + unit * moments.mean.abs();
            error.mean = error.centre;
            high += error.centre * error.centre;
        }
        let root = 2.0 * unit * SECOND_ORDER;
        // Below 0 nothing is known: that is so where no digit of the variance is.
        let most = low.max(0.0).sqrt().recip() * (1.0 + root);
        error.rstd = (most - moments.rstd).max(moments.rstd - high.sqrt().recip() * (1.0 - root));
        error
    }

    /// As a backward reads them: stored in f32, computed or `given` exactly.
    #[must_use]
    pub fn saved(
        self,
        x: &[f64],
        layer: bool,
        moments: &Moments,
        given: bool,
        on: &Arithmetic,
    ) -> Self {
        let rounding = |exact: f64| SINGLE * exact.abs();
        let (mean, rstd) = (rounding(moments.mean), rounding(moments.rstd));
        let (mean, rstd) = if given {
            (mean, rstd)
        } else {
            (self.mean + mean, self.rstd + rstd)
        };
        let mut read = Self {
            mean,
            centre: mean,
            deviation: 0.0,
            rstd,
        };
        if layer && on.pivots {
            let distances = x.iter().map(|x| (x - moments.mean).abs() + mean);
            let size = distances.sum::<f64>() / x.len() as f64;
            read.centre = (on.adds() + 3.0) * on.unit * size;
            read.deviation = on.unit * mean;
        }
        read
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
                error: self.statistics.centre + self.statistics.deviation,
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
            error: value * ((1.0 - value) * exponential + 3.0 * on.unit) + on.flush,
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
        let error = (errors + on.adds() * on.unit * sizes) / count;
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
    fn a_constant_row_has_its_mean() {
        let on = Arithmetic::new(true, 300);
        let row = [10_048.0; 300];
        let moments = exact_moments(&row, &NormOptions::layer());
        let error = StatisticsError::new(&row, true, &moments, &on);
        assert_eq!((error.centre, error.deviation), (0.0, 0.0));
        assert!(error.rstd < 1e-4 * moments.rstd);
    }

    #[test]
    fn an_offset_is_in_the_saved_mean_alone() {
        let on = Arithmetic::new(true, 300);
        let row: Vec<f64> = (0..300).map(|i| f64::from(i % 7)).collect();
        let far: Vec<f64> = row.iter().map(|x| x + 1e6).collect();
        let of = |row: &[f64]| {
            let moments = exact_moments(row, &NormOptions::layer());
            StatisticsError::new(row, true, &moments, &on)
        };
        let (near, far) = (of(&row), of(&far));
        assert_eq!(near.centre, far.centre);
        assert!((near.rstd - far.rstd).abs() < 1e-9);
        assert!(far.mean > 0.05 && near.mean < 1e-3);
    }
}
