//! One problem for a spectral norm: its weights, and how they lie in memory.

use evenkeel::DType;

use crate::memory::Layout;
use crate::norm::placed::{Matrix, Place};
use crate::numbers::round_to;
use crate::random::Random;

/// How weights are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Normal, of standard deviation 1 / sqrt(n): a linear layer at first.
    Normal,
    /// Normal, and one direction several times as strong: what training makes of it.
    Spiked,
    /// Normal, a thousandth of it or a thousand times as large.
    Scaled,
    /// All zero: there is no scale.
    Zero,
}

impl Values {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Spiked, Self::Scaled, Self::Zero];
}

/// What a case is, before its data are drawn.
#[derive(Clone, Debug)]
pub struct Case {
    /// Weights; none for a weight without a batch dimension.
    pub batch: Option<usize>,
    /// Rows of a weight.
    pub m: usize,
    /// Columns of a weight.
    pub n: usize,
    /// Types of w, the scaled weight, its gradient and dw.
    pub types: [DType; 4],
    /// Where they lie.
    pub layouts: [Layout; 4],
    /// Steps of the power iteration.
    pub steps: u32,
    /// Whether there is a gamma.
    pub gamma: bool,
    /// Whether the scaled weight is asked for.
    pub scaled: bool,
    /// Whether there is a backward.
    pub backward: bool,
    /// Whether its gradients are added to what is there.
    pub accumulate: bool,
    /// How weights are drawn.
    pub values: Values,
    /// What everything is drawn from.
    pub seed: u64,
}

impl Case {
    /// One step on a batch, with everything that can be asked for.
    #[must_use]
    pub fn new(batch: usize, m: usize, n: usize, dtype: DType) -> Self {
        Self {
            batch: Some(batch),
            m,
            n,
            types: [dtype; 4],
            layouts: [Layout::default(); 4],
            steps: 1,
            gamma: true,
            scaled: true,
            backward: true,
            accumulate: false,
            values: Values::Normal,
            seed: 1,
        }
    }

    /// Draws the data.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut random = Random::new(self.seed);
        let (batch, m, n) = (self.batch.unwrap_or(1), self.m, self.n);
        let shape = match self.batch {
            Some(batch) => vec![batch, m, n],
            None => vec![m, n],
        };
        let place = |at: usize| Place::new(self.types[at], &shape).at(self.layouts[at]);
        let mut w = Vec::with_capacity(batch * m * n);
        for _ in 0..batch {
            self.draw_weight(&mut random, &mut w);
        }
        let single = |values: Vec<f64>| -> Vec<f64> {
            values
                .into_iter()
                .map(|x| round_to(DType::F32, x))
                .collect()
        };
        let mut unit = |length: usize| {
            let mut all = Vec::new();
            for _ in 0..batch {
                let one: Vec<f64> = (0..length).map(|_| random.normal()).collect();
                let norm = one.iter().map(|x| x * x).sum::<f64>().sqrt();
                all.extend(one.into_iter().map(|x| x / norm));
            }
            single(all)
        };
        let (u, mut v) = (unit(n), unit(m));
        let w = Matrix::new(place(0), w);
        if self.steps == 0 {
            // As training leaves it: with one at random sigma would be nothing but rounding.
            v = single(left_vectors(&w.values, &u, [batch, m, n]));
        }
        let mut draw = |length: usize, middle: f64| -> Vec<f64> {
            (0..length)
                .map(|_| middle + 0.5 * random.normal())
                .collect()
        };
        let dscaled = Matrix::new(place(2), draw(batch * m * n, 0.0));
        let gamma = single(draw(batch, 1.0));
        let before = [draw(batch * m * n, 0.0), draw(batch, 0.0)];
        let dw = place(3);
        Problem {
            name: format!("{self:?}"),
            steps: self.steps,
            w,
            u,
            v,
            gamma: self.gamma.then_some(gamma),
            scaled: self.scaled.then(|| place(1)),
            dscaled: self.backward.then_some(dscaled),
            before: self.accumulate.then(|| {
                let [of_w, of_gamma] = before;
                [Matrix::new(dw.clone(), of_w).values, single(of_gamma)]
            }),
            dw,
        }
    }

    fn draw_weight(&self, random: &mut Random, w: &mut Vec<f64>) {
        let (m, n) = (self.m, self.n);
        let spread = match self.values {
            Values::Zero => 0.0,
            Values::Scaled => random.pick(&[1e-3, 1e3]) / (n as f64).sqrt(),
            _ => 1.0 / (n as f64).sqrt(),
        };
        let spike = if self.values == Values::Spiked {
            6.0
        } else {
            0.0
        };
        let left: Vec<f64> = (0..m)
            .map(|_| random.normal() / (m as f64).sqrt())
            .collect();
        let right: Vec<f64> = (0..n)
            .map(|_| random.normal() / (n as f64).sqrt())
            .collect();
        for a in left {
            w.extend(
                right
                    .iter()
                    .map(|b| spread * random.normal() + spike * a * b),
            );
        }
    }
}

/// W u / |W u| of each weight.
fn left_vectors(w: &[f64], u: &[f64], [batch, m, n]: [usize; 3]) -> Vec<f64> {
    let mut all = Vec::with_capacity(batch * m);
    for weight in 0..batch {
        let u = &u[weight * n..(weight + 1) * n];
        let rows = w[weight * m * n..(weight + 1) * m * n].chunks(n);
        let product: Vec<f64> = rows
            .map(|row| row.iter().zip(u).map(|(w, u)| w * u).sum())
            .collect();
        let norm = product.iter().map(|x| x * x).sum::<f64>().sqrt();
        let norm = if norm == 0.0 { 1.0 } else { norm };
        all.extend(product.into_iter().map(|x: f64| x / norm));
    }
    all
}

/// Weights with all that comes with them, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// Steps of the power iteration.
    pub steps: u32,
    /// `[batch, m, n]` or `[m, n]`.
    pub w: Matrix,
    /// `[batch, n]`, f32, before the call.
    pub u: Vec<f64>,
    /// `[batch, m]`, f32, before the call.
    pub v: Vec<f64>,
    /// `[batch]`, f32.
    pub gamma: Option<Vec<f64>>,
    /// Where the scaled weight goes, if anywhere.
    pub scaled: Option<Place>,
    /// The gradient of the scaled weight, where there is a backward.
    pub dscaled: Option<Matrix>,
    /// Where the gradient of w goes.
    pub dw: Place,
    /// What dw and dgamma are added to; nothing without.
    pub before: Option<[Vec<f64>; 2]>,
}

impl Problem {
    /// `[batch, m, n]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        match self.w.place.shape[..] {
            [batch, m, n] => [batch, m, n],
            [m, n] => [1, m, n],
            _ => [0, 0, 0],
        }
    }

    /// A weight, row by row.
    #[must_use]
    pub fn weight(&self, weight: usize) -> &[f64] {
        let [_, m, n] = self.shape();
        &self.w.values[weight * m * n..(weight + 1) * m * n]
    }
}
