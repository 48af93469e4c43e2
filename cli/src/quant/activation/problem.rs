//! One problem for an activation: its data, and how they lie in memory.

use evenkeel::DType;
use evenkeel::quant::{GeluKind, Smoothing};
use evenkeel::reference::quant::activation::Function;

use crate::memory::Layout;
use crate::norm::placed::{Matrix, Place};
use crate::random::Random;

/// Every function.
pub const FUNCTIONS: [Function; 3] = [
    Function::SwiGlu,
    Function::Gelu(GeluKind::Exact),
    Function::Gelu(GeluKind::Tanh),
];

/// How x, or the gate, is drawn; up and dy are normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Normal: the bend of the curve.
    Normal,
    /// |x| from 5 to 100: the tails, where 1 + e^x keeps nothing of e^x.
    Tails,
    /// Below 2^-10: a line.
    Small,
    /// From 1e-6 to 1e6: squares and cubes overflow no later than the curve is flat.
    Wide,
}

impl Values {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Tails, Self::Small, Self::Wide];
}

/// What a case is, before its data are drawn.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is applied.
    pub function: Function,
    /// Rows.
    pub tokens: usize,
    /// Columns of y.
    pub channels: usize,
    /// Types of x (or gate), up, y, dy and dx.
    pub types: [DType; 5],
    /// Where x, up, y, dy and their gradients lie.
    pub layouts: [Layout; 4],
    /// Whether gate and up are one matrix, and so their gradients.
    pub packed: bool,
    /// The scales of Smooth-SwiGLU.
    pub smoothing: Option<Smoothing>,
    /// Whether they are the caller's, and not those of this input.
    pub given: bool,
    /// How x is drawn.
    pub values: Values,
    /// What everything is drawn from.
    pub seed: u64,
}

impl Case {
    /// Of one type, side by side; SwiGLU's inputs in one matrix, without smoothing.
    #[must_use]
    pub fn new(function: Function, tokens: usize, channels: usize, dtype: DType) -> Self {
        Self {
            function,
            tokens,
            channels,
            types: [dtype; 5],
            layouts: [Layout::default(); 4],
            packed: true,
            smoothing: None,
            given: false,
            values: Values::Normal,
            seed: 1,
        }
    }

    /// Draws the data.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut random = Random::new(self.seed);
        let (tokens, channels) = (self.tokens, self.channels);
        let gated = self.function == Function::SwiGlu;
        let packed = gated && self.packed;
        let smoothing = self.smoothing.filter(|_| gated);
        let count = tokens * channels;
        let x: Vec<f64> = (0..count).map(|_| self.draw(&mut random)).collect();
        let up: Vec<f64> = (0..count).map(|_| 2.0 * random.normal()).collect();
        let dy: Vec<f64> = (0..count).map(|_| random.normal()).collect();
        let given = smoothing.filter(|_| self.given).map(|smoothing| {
            let count = smoothing.scales(tokens, channels);
            let draw = |_| (0.1 + random.unit()) * random.pick(&[1e-3, 1.0, 300.0]);
            Matrix::new(Place::vector(count), (0..count).map(draw))
        });
        let types = self.types;
        let place =
            |dtype, at: usize, columns| Place::new(dtype, &[tokens, columns]).at(self.layouts[at]);
        let (inputs, gradients) = if packed {
            let mut both = Vec::with_capacity(2 * count);
            for (x, up) in x.chunks(channels.max(1)).zip(up.chunks(channels.max(1))) {
                both.extend_from_slice(x);
                both.extend_from_slice(up);
            }
            (
                vec![Matrix::new(place(types[0], 0, 2 * channels), both)],
                vec![place(types[4], 3, 2 * channels)],
            )
        } else {
            let mut inputs = vec![Matrix::new(place(types[0], 0, channels), x)];
            let mut gradients = vec![place(types[4], 3, channels)];
            if gated {
                inputs.push(Matrix::new(place(types[1], 1, channels), up));
                gradients.push(place(types[1], 2, channels));
            }
            (inputs, gradients)
        };
        Problem {
            name: format!("{self:?}"),
            function: self.function,
            tokens,
            channels,
            smoothing,
            given,
            inputs,
            y: place(types[2], 1, channels),
            dy: Matrix::new(place(types[3], 2, channels), dy),
            gradients,
        }
    }

    fn draw(&self, random: &mut Random) -> f64 {
        match self.values {
            Values::Normal => 3.0 * random.normal(),
            Values::Tails => random.pick(&[1.0, -1.0]) * (5.0 + 95.0 * random.unit()),
            Values::Small => random.normal() * (-12.0_f64).exp2(),
            Values::Wide => {
                let most = if self.types[0] == DType::F16 {
                    4.0
                } else {
                    6.0
                };
                random.pick(&[1.0, -1.0]) * 10.0_f64.powf((most + 6.0) * random.unit() - 6.0)
            }
        }
    }
}

/// An activation with all its data, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// What is applied.
    pub function: Function,
    /// Rows.
    pub tokens: usize,
    /// Columns of y.
    pub channels: usize,
    /// Of Smooth-SwiGLU.
    pub smoothing: Option<Smoothing>,
    /// The caller's scales, where they are not those of this input.
    pub given: Option<Matrix>,
    /// x; gate and up in one matrix or in two.
    pub inputs: Vec<Matrix>,
    /// Where y goes.
    pub y: Place,
    /// The gradient of y.
    pub dy: Matrix,
    /// Where the gradients go: as many as there are inputs.
    pub gradients: Vec<Place>,
}

impl Problem {
    /// Whether there is an up.
    #[must_use]
    pub fn gated(&self) -> bool {
        self.function == Function::SwiGlu
    }

    /// x or the gate, and up, which is x where there is none; row by row.
    #[must_use]
    pub fn branches(&self) -> [Vec<f64>; 2] {
        let half = |from: usize| -> Vec<f64> {
            let rows = 0..self.tokens;
            rows.flat_map(|row| self.inputs[0].row(row)[from..from + self.channels].to_vec())
                .collect()
        };
        match (self.gated(), self.inputs.get(1)) {
            (true, None) => [half(0), half(self.channels)],
            (_, up) => [
                self.inputs[0].values.clone(),
                up.unwrap_or(&self.inputs[0]).values.clone(),
            ],
        }
    }
}
