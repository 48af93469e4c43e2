//! Single precision as a GPU has it, for tests of the bounds: what a kernel may at worst compute.

use evenkeel::DType;

use super::placed::{Place, Written};
use crate::compare::Verdict;
use crate::memory::UNTOUCHED;
use crate::numbers::round_to;
use crate::random::Random;

/// Instructions that err: by as much as they may, up or down at random.
pub struct Approximate(Random);

impl Approximate {
    /// The errors of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// A value off by so many units of 2^-23, and rounded.
    fn off(&mut self, exact: f64, units: f64) -> f32 {
        let error = self.0.pick(&[1.0, -1.0]) * units * (-23.0_f64).exp2();
        (exact * (1.0 + error)) as f32
    }

    /// exp(x) by ex2.approx.ftz.
    pub fn exponential(&mut self, x: f32) -> f32 {
        let argument = x * std::f32::consts::LOG2_E;
        let value = self.off(f64::from(argument).exp2(), 1.5);
        if value < f32::MIN_POSITIVE {
            0.0
        } else {
            value
        }
    }

    /// tanh(x) by tanhf.
    pub fn tanh(&mut self, x: f32) -> f32 {
        self.off(f64::from(x).tanh(), 0.5).clamp(-1.0, 1.0)
    }
}

/// Each value rounded to a type.
pub fn rounded(dtype: DType, values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| round_to(dtype, x.into())).collect()
}

/// A memory as a call would leave it.
pub fn output(place: &Place, values: &[f64]) -> Written {
    let (rows, width) = (place.rows(), place.width());
    let mut written = Written {
        place: place.clone(),
        memory: vec![UNTOUCHED; place.layout.elements(rows, width)],
        around: UNTOUCHED,
    };
    for row in 0..rows {
        let values = &values[row * width..(row + 1) * width];
        written.row_mut(row).copy_from_slice(values);
    }
    written
}

/// The same of an f32 vector.
pub fn vector(values: &[f32]) -> Written {
    output(&Place::vector(values.len()), &rounded(DType::F32, values))
}

/// That every verdict is right, and that the worst of each of these results uses at least this share of
/// its bound.
pub fn worst_of(verdicts: impl Iterator<Item = evenkeel::Result<Verdict>>, least: &[(&str, f64)]) {
    let mut all = Verdict::default();
    for verdict in verdicts {
        let verdict = verdict.unwrap();
        assert!(verdict.is_right(), "{}", verdict.mismatches.join("\n"));
        all.merge(verdict);
    }
    for (name, worst) in &all.worst {
        println!("{name}: {:.3} of the bound", worst.share());
    }
    for (name, least) in least {
        let share = all.worst[name].share();
        assert!(share >= *least, "{name} uses {share} of its bound");
    }
}
