//! Straight-through gradients: their cases, tolerance and comparison with the reference.
//!
//! The mask has no tolerance. `ReSTE`'s slope is 2^(p log2 |x| - log2 o) with p = (1 - o) / o: the
//! logarithm is at most 2^-22 off, or 2^-22 of itself where |x| is not between 1/2 and 2; p and
//! log2 o are rounded once, and so is their sum; the power is at most 2 ulp = 2^-22 of itself off,
//! and the product with dy is one rounding more, as is the inner slope.

use evenkeel::quant::{Estimator, StraightThrough};
use evenkeel::reference::quant::straight_through::Slope;
use evenkeel::{DType, DeviceKind, Result, Status, Stream};

use super::exact::check;
use super::input::{Values, draw};
use crate::compare::{Checked, Computed, Verdict};
use crate::memory::{Layout, UNTOUCHED};
use crate::norm::placed::{Matrix, Place, Written, status_of};
use crate::numbers::{Interval, round_to};

/// What a case is, before its data are drawn.
#[derive(Clone, Debug)]
pub struct Case {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// What stands for the derivative.
    pub estimator: Estimator,
    /// Of the saturation.
    pub scale: Option<f32>,
    /// Types of x, dy and dx; dx has dy's in place.
    pub dtypes: [DType; 3],
    /// Where they lie.
    pub layouts: [Layout; 3],
    /// Of x.
    pub values: Values,
    /// Whether dx takes dy's place.
    pub in_place: bool,
    /// What everything is drawn from.
    pub seed: u64,
}

impl Case {
    /// Of one type.
    #[must_use]
    pub fn new(rows: usize, columns: usize, dtype: DType, estimator: Estimator) -> Self {
        Self {
            rows,
            columns,
            estimator,
            scale: None,
            dtypes: [dtype; 3],
            layouts: [Layout::default(); 3],
            values: Values::Normal,
            in_place: false,
            seed: 1,
        }
    }

    /// Draws the data.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let shape = [self.rows, self.columns];
        let place = |at: usize| Place::new(self.dtypes[at], &shape).at(self.layouts[at]);
        let drawn =
            |values, at: usize, seed| draw(values, self.dtypes[at], self.rows, self.columns, seed);
        Problem {
            name: format!("{self:?}"),
            estimator: self.estimator,
            scale: self.scale,
            x: Matrix::new(place(0), drawn(self.values, 0, self.seed)),
            dy: Matrix::new(place(1), drawn(Values::Normal, 1, !self.seed)),
            dx: (!self.in_place).then(|| place(2)),
        }
    }
}

/// Elements and their gradients, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// What stands for the derivative.
    pub estimator: Estimator,
    /// Of the saturation.
    pub scale: Option<f32>,
    /// What was rounded.
    pub x: Matrix,
    /// The gradient of what it was rounded to.
    pub dy: Matrix,
    /// Of the result; in place without.
    pub dx: Option<Place>,
}

/// What a device computed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// dx.
    pub dx: Written,
    /// Status bits.
    pub status: Status,
}

/// Computes the problem.
///
/// # Errors
/// The library's, but for what the status word holds: that is part of the outcome.
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let op = StraightThrough::new(problem.estimator).prepare(stream)?;
    let (x, mut dy) = (problem.x.upload(stream)?, problem.dy.upload(stream)?);
    let scale = match problem.scale {
        Some(scale) => Some(stream.upload(&[1], &[scale])?),
        None => None,
    };
    let scale = scale.as_ref().map(evenkeel::Buffer::view);
    let (x, place) = (problem.x.place.view(&x)?, &problem.dy.place);
    let dx = if let Some(into) = &problem.dx {
        let mut dx = into.empty(stream)?;
        op.backward_into(x, scale, place.view(&dy)?, into.view_mut(&mut dx)?)?;
        into.take(&dx, UNTOUCHED)?
    } else {
        op.backward_in_place(x, scale, place.view_mut(&mut dy)?)?;
        place.take(&dy, f64::NAN)?
    };
    Ok(Outcome {
        dx,
        status: status_of(stream)?,
    })
}

impl Problem {
    fn slope(&self) -> Option<Slope> {
        match self.estimator {
            Estimator::Saturation { largest } => Some(Slope::Saturation {
                largest,
                scale: self.scale.unwrap_or(1.0),
            }),
            Estimator::Reste {
                o,
                threshold,
                interval,
            } => Some(Slope::Reste {
                o,
                threshold,
                interval,
            }),
            _ => None,
        }
    }
}

/// What a kernel's `ReSTE` may be off, of itself.
fn reste_error(o: f32, x: f64) -> f64 {
    let unit = (-24.0_f64).exp2();
    let o = f64::from(o);
    let (power, logarithm) = ((1.0 - o) / o, x.abs().log2());
    let approximate = power.abs() * logarithm.abs().max(1.0) * (-22.0_f64).exp2();
    let argument = (power * logarithm).abs() + o.log2();
    let rounded = unit * (2.0 * (power * logarithm).abs() + o.log2() + argument);
    let ln_2 = std::f64::consts::LN_2;
    1.01 * (ln_2 * (approximate + rounded) + (-22.0_f64).exp2() + 2.0 * unit)
}

/// Compares all of `outcome`, which a device of this kind computed.
///
/// # Errors
/// None.
pub fn compare(problem: &Problem, outcome: &Outcome, kind: DeviceKind) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let pairs = problem.x.values.iter().zip(&problem.dy.values);
    let slope = problem.slope();
    let exact = |x: f64, dy: f64| slope.map_or(f64::NAN, |slope| slope.gradient(x as f32, dy));
    let dtype = outcome.dx.place.dtype;
    if let Estimator::Reste { o, interval, .. } = problem.estimator {
        outcome.dx.check_gaps("dx", &mut verdict);
        let got = outcome.dx.values();
        let width = outcome.dx.place.width().max(1);
        for (at, ((&x, &dy), got)) in pairs.zip(got).enumerate() {
            let exact = exact(x, dy);
            let error = match kind {
                DeviceKind::Cpu => 0.0,
                _ if exact == 0.0 || x.is_nan() => 0.0,
                _ if x.abs() <= f64::from(interval) => 2.0 * (-24.0_f64).exp2(),
                _ => reste_error(o, x),
            };
            // A gradient of f32 that is subnormal has an error of its own.
            let tiny = if error > 0.0 {
                (-149.0_f64).exp2()
            } else {
                0.0
            };
            let allowed = Interval::around(exact, error * exact.abs() + tiny).rounded(dtype);
            verdict.number("dx (ReSTE)", dtype, got, allowed, || {
                format!(" of row {}, column {}", at / width, at % width)
            });
        }
    } else {
        let expected: Vec<f64> = pairs
            .map(|(&x, &dy)| round_to(dtype, exact(x, dy)))
            .collect();
        check("dx", &outcome.dx, &expected, &mut verdict);
    }
    verdict.equal(|| "the status".into(), &outcome.status, &Status::empty());
    Ok(verdict.of(&problem.name))
}

impl Computed for Problem {
    type Outcome = Outcome;

    fn named(&self) -> &str {
        &self.name
    }

    fn outcome(&self, stream: &Stream) -> Result<Outcome> {
        run_on(stream, self)
    }

    fn verdict(&self, outcome: &Outcome, kind: DeviceKind) -> Result<Verdict> {
        compare(self, outcome, kind)
    }

    fn same_bits(one: &Outcome, other: &Outcome) -> bool {
        one.dx.bits() == other.dx.bits() && one.status == other.status
    }
}

impl Checked for Problem {
    fn name(&self) -> &str {
        &self.name
    }

    fn check_on(&self, stream: &Stream) -> Result<Verdict> {
        compare(self, &run_on(stream, self)?, stream.device().kind())
    }
}
