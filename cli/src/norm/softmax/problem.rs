//! One problem for a softmax: its options and data, and how they lie in memory.

use evenkeel::DType;
use evenkeel::norm::{SoftmaxKind, SoftmaxOptions};

use crate::memory::Layout;
use crate::norm::pass::Pass;
use crate::norm::placed::{Matrix, Place};
use crate::random::Random;

/// How the scores of a case are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Normal, of standard deviation 3.
    Normal,
    /// Normal, one key 21 to 40 above the rest: p near 1, where 1 - p has no digits of its own.
    Peaked,
    /// All the same: every key has the largest score.
    Equal,
    /// Two values only: many keys share the largest.
    Coarse,
    /// Ascending: every vector raises the maximum.
    Ascending,
    /// A large common offset.
    Shifted,
    /// A third of the keys at -inf: masked by value.
    Infinite,
    /// Spread over hundreds: most exponentials underflow.
    Wide,
}

impl Values {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Normal,
        Self::Peaked,
        Self::Equal,
        Self::Coarse,
        Self::Ascending,
        Self::Shifted,
        Self::Infinite,
        Self::Wide,
    ];
}

/// What a case is, before its data are drawn.
#[derive(Clone, Debug)]
pub struct Case {
    /// Blocks of rows.
    pub blocks: usize,
    /// Rows of a block.
    pub queries: usize,
    /// Keys.
    pub keys: usize,
    /// Types of x, y, dy and dx.
    pub types: [DType; 4],
    /// Where they lie.
    pub layouts: [Layout; 4],
    /// The softmax.
    pub options: SoftmaxOptions,
    /// The calls.
    pub pass: Pass,
    /// How scores are drawn.
    pub values: Values,
    /// Batches with a length each; none without.
    pub batches: Option<usize>,
    /// Type of the lengths.
    pub lengths: DType,
    /// Whether the entropy has a gradient.
    pub dentropy: bool,
    /// What everything is drawn from.
    pub seed: u64,
}

impl Case {
    /// Plain rows of one type, forward and backward.
    #[must_use]
    pub fn new(kind: SoftmaxKind, rows: usize, keys: usize, dtype: DType) -> Self {
        Self {
            blocks: 1,
            queries: rows,
            keys,
            types: [dtype; 4],
            layouts: [Layout::default(); 4],
            options: SoftmaxOptions::new(kind),
            pass: Pass::Backward,
            values: Values::Normal,
            batches: None,
            lengths: DType::I64,
            dentropy: true,
            seed: 1,
        }
    }

    /// Draws the data. What no row sees is NaN.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut random = Random::new(self.seed);
        let (keys, rows) = (self.keys, self.blocks * self.queries);
        let place = |at: usize| {
            let like = if self.pass.in_place() { at / 2 * 2 } else { at };
            Place::new(self.types[like], &[self.blocks, self.queries, keys]).at(self.layouts[like])
        };
        let lengths = self.batches.map(|batches| {
            (0..batches)
                .map(|_| random.below(keys as u64 + 2) as i64)
                .collect::<Vec<i64>>()
        });
        let mut problem = Problem {
            name: format!("{self:?}"),
            options: self.options,
            pass: self.pass,
            x: Matrix::new(place(0), []),
            y: place(1),
            dy: Matrix::new(place(2), []),
            dx: place(3),
            lengths,
            lengths_type: self.lengths,
            dentropy: None,
        };
        let (mut x, mut dy) = (Vec::new(), Vec::new());
        for row in 0..rows {
            let visible = problem.visible(row);
            let scores = self.draw_row(&mut random);
            x.extend((0..keys).map(|key| if key < visible { scores[key] } else { f64::NAN }));
            dy.extend((0..keys).map(|key| {
                let drawn = random.normal();
                if key < visible { drawn } else { f64::NAN }
            }));
        }
        problem.x = Matrix::new(place(0), x);
        problem.dy = Matrix::new(place(2), dy);
        problem.dentropy = self.dentropy.then(|| {
            let values = (0..rows).map(|_| random.normal());
            Matrix::new(Place::vector(rows), values).values
        });
        problem
    }

    fn draw_row(&self, random: &mut Random) -> Vec<f64> {
        let keys = self.keys;
        let peak = random.below(keys as u64) as usize;
        let spread = if self.values == Values::Wide {
            150.0
        } else {
            3.0
        };
        let offset = match (self.values, self.types[0]) {
            // f16 ends at 65504, with steps of 8 at 10000.
            (Values::Shifted, DType::F16) => 512.0,
            (Values::Shifted, _) => 10_000.0,
            _ => 0.0,
        };
        let mut row: Vec<f64> = (0..keys)
            .map(|key| match self.values {
                Values::Equal => 1.5,
                Values::Coarse => random.pick(&[0.25, 1.75]),
                Values::Ascending => key as f64 * (40.0 / keys as f64) - 20.0,
                Values::Infinite if random.chance(0.33) => f64::NEG_INFINITY,
                _ => spread * random.normal() + offset,
            })
            .collect();
        if self.values == Values::Peaked {
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            row[peak] = top + 21.0 + 19.0 * random.unit();
        }
        row
    }
}

/// A softmax with all its data, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// The softmax.
    pub options: SoftmaxOptions,
    /// The calls.
    pub pass: Pass,
    /// `[blocks, queries, keys]`, as all that follow.
    pub x: Matrix,
    /// In place: where x is.
    pub y: Place,
    /// The gradient of y.
    pub dy: Matrix,
    /// In place: where dy is.
    pub dx: Place,
    /// `[batches]`.
    pub lengths: Option<Vec<i64>>,
    /// I64, I32 or U32.
    pub lengths_type: DType,
    /// `[rows]`, f32.
    pub dentropy: Option<Vec<f64>>,
}

impl Problem {
    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.x.place.rows()
    }

    /// Keys.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.x.place.width()
    }

    /// Rows of a block.
    #[must_use]
    pub fn queries(&self) -> usize {
        let shape = &self.x.place.shape;
        let inner = shape.len().checked_sub(2);
        inner.map_or(1, |at| shape[at])
    }

    /// How many keys a row sees: the definition, key by key.
    #[must_use]
    pub fn visible(&self, row: usize) -> usize {
        let (keys, queries) = (self.keys(), self.queries());
        let length = self.lengths.as_ref().map_or(keys as i64, |lengths| {
            lengths[row / (self.rows() / lengths.len())]
        });
        let last = self.options.causal.map_or(i64::MAX, |causal| {
            (row % queries) as i64 + causal.offset(queries, keys)
        });
        (0..keys as i64)
            .filter(|&key| key < length && key <= last)
            .count()
    }
}
