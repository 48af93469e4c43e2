//! One problem for a dynamic tanh: its data, and how they lie in memory.

use evenkeel::DType;

use crate::memory::Layout;
use crate::norm::pass::Pass;
use crate::norm::placed::{Matrix, Place};
use crate::random::Random;

/// How x is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Normal: the bend of the tanh.
    Normal,
    /// |alpha x| from 5 to 60: 1 - t^2 has no digits there, the slope has all of them.
    Saturated,
    /// Below 2^-10: tanh is nearly its argument.
    Small,
    /// From 1e-3 to 1e4: exponentials underflow among others that do not.
    Wide,
}

impl Values {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Saturated, Self::Small, Self::Wide];
}

/// What a case is, before its data are drawn.
#[derive(Clone, Debug)]
pub struct Case {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Types of x, y, dy and dx.
    pub types: [DType; 4],
    /// Where they lie.
    pub layouts: [Layout; 4],
    /// The factor of x.
    pub alpha: f32,
    /// Type of gamma, where there is one.
    pub gamma: Option<DType>,
    /// Type of beta, where there is one.
    pub beta: Option<DType>,
    /// The calls.
    pub pass: Pass,
    /// How x is drawn.
    pub values: Values,
    /// Whether gradients of what rows share are added to what is there.
    pub accumulate: bool,
    /// What everything is drawn from.
    pub seed: u64,
}

impl Case {
    /// Rows of one type with gamma and beta, forward and backward.
    #[must_use]
    pub fn new(rows: usize, columns: usize, dtype: DType) -> Self {
        Self {
            rows,
            columns,
            types: [dtype; 4],
            layouts: [Layout::default(); 4],
            alpha: 0.5,
            gamma: Some(dtype),
            beta: Some(dtype),
            pass: Pass::Backward,
            values: Values::Normal,
            accumulate: false,
            seed: 1,
        }
    }

    /// Draws the data.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut random = Random::new(self.seed);
        let (rows, columns) = (self.rows, self.columns);
        let place = |at: usize| {
            let like = if self.pass.in_place() { at / 2 * 2 } else { at };
            Place::new(self.types[like], &[rows, columns]).at(self.layouts[like])
        };
        let count = rows * columns;
        let x: Vec<f64> = (0..count).map(|_| self.draw(&mut random)).collect();
        let dy: Vec<f64> = (0..count).map(|_| random.normal()).collect();
        let mut weight = |dtype: Option<DType>, at: usize, middle: f64| {
            let layout = Layout {
                phase: (self.seed as usize + at) % 9,
                padding: 0,
                gap: 2,
            };
            let values: Vec<f64> = (0..columns)
                .map(|_| middle + 0.5 * random.normal())
                .collect();
            dtype.map(|dtype| Matrix::new(Place::new(dtype, &[columns]).at(layout), values))
        };
        let (gamma, beta) = (weight(self.gamma, 0, 1.0), weight(self.beta, 5, 0.0));
        let mut before = |length: usize| {
            let values: Vec<f64> = (0..length).map(|_| 3.0 * random.normal()).collect();
            self.accumulate
                .then(|| Matrix::new(Place::vector(length), values).values)
        };
        Problem {
            name: format!("{self:?}"),
            pass: self.pass,
            alpha: self.alpha,
            x: Matrix::new(place(0), x),
            y: place(1),
            dy: Matrix::new(place(2), dy),
            dx: place(3),
            gamma,
            beta,
            before: [before(1), before(columns), before(columns)],
        }
    }

    fn draw(&self, random: &mut Random) -> f64 {
        let alpha = f64::from(self.alpha).abs().max(1e-3);
        match self.values {
            Values::Normal => 2.0 * random.normal(),
            Values::Saturated => random.pick(&[1.0, -1.0]) * (5.0 + 55.0 * random.unit()) / alpha,
            Values::Small => random.normal() * (-12.0_f64).exp2(),
            Values::Wide => random.pick(&[1.0, -1.0]) * 10.0_f64.powf(7.0 * random.unit() - 3.0),
        }
    }
}

/// A dynamic tanh with all its data, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// The calls.
    pub pass: Pass,
    /// The factor of x.
    pub alpha: f32,
    /// `[rows, D]`, as all that follow.
    pub x: Matrix,
    /// In place: where x is.
    pub y: Place,
    /// The gradient of y.
    pub dy: Matrix,
    /// In place: where dy is.
    pub dx: Place,
    /// `[D]`.
    pub gamma: Option<Matrix>,
    /// `[D]`.
    pub beta: Option<Matrix>,
    /// What dalpha, dgamma and dbeta are added to; nothing without.
    pub before: [Option<Vec<f64>>; 3],
}

impl Problem {
    /// Whether the gradients are added to what is there.
    #[must_use]
    pub fn accumulates(&self) -> bool {
        self.before[0].is_some()
    }
}
