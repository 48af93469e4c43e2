//! `GaussWs`: its cases, and its comparison with the reference, bit for bit.

use evenkeel::quant::{GaussWs, NoiseGradients, NoiseOffset};
use evenkeel::reference::quant::gauss as reference;
use evenkeel::{DType, DeviceKind, Result, Status, Stream};

use super::exact::{check, widened};
use super::input::{Values, draw};
use crate::compare::{Checked, Computed, Verdict};
use crate::memory::{Layout, UNTOUCHED};
use crate::norm::placed::{Matrix, Place, Written, exact_mut, status_of};
use crate::numbers::round_to;
use crate::random::Random;

/// What a case is, before its data are drawn.
#[derive(Clone, Debug)]
pub struct Case {
    /// Rows of the weights.
    pub rows: usize,
    /// Their columns.
    pub columns: usize,
    /// Types of w, w^, dw^ and dw.
    pub dtypes: [DType; 4],
    /// Where they lie.
    pub layouts: [Layout; 4],
    /// Of the weights.
    pub values: Values,
    /// Between which b lies.
    pub bits: [f32; 2],
    /// Whether dw is asked for.
    pub dw: bool,
    /// Whether db is added to what is there.
    pub accumulate: bool,
    /// Of the noise: the call's and the device's.
    pub offsets: (u64, Option<i64>),
    /// What everything is drawn from, and the key of the noise.
    pub seed: u64,
}

impl Case {
    /// Weights as models have them, of one type.
    #[must_use]
    pub fn new(rows: usize, columns: usize, dtype: DType) -> Self {
        Self {
            rows,
            columns,
            dtypes: [dtype; 4],
            layouts: [Layout::default(); 4],
            values: Values::Normal,
            bits: [2.0, 9.0],
            dw: false,
            accumulate: false,
            offsets: (0, None),
            seed: 1,
        }
    }

    /// Draws the data.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut random = Random::new(self.seed);
        let shape = [self.rows, self.columns];
        let place = |at: usize| Place::new(self.dtypes[at], &shape).at(self.layouts[at]);
        let [down, across] = GaussWs::block_shape(self.rows, self.columns);
        let [low, high] = self.bits.map(f64::from);
        // Every third b is an integer, of which the power of two is exact.
        let bits = (0..down * across).map(|at| {
            let b = low + (high - low) * random.unit();
            (if at % 3 == 0 { b.round() } else { b }) as f32
        });
        let bits: Vec<f32> = bits.collect();
        let before = (0..down * across).map(|_| random.normal() as f32).collect();
        let w = draw(
            self.values,
            self.dtypes[0],
            self.rows,
            self.columns,
            self.seed,
        );
        let g = draw(
            Values::Normal,
            self.dtypes[2],
            self.rows,
            self.columns,
            !self.seed,
        );
        Problem {
            name: format!("{self:?}"),
            w: Matrix::new(place(0), w),
            noisy: place(1),
            dnoisy: Matrix::new(place(2), g),
            dw: self.dw.then(|| place(3)),
            bits,
            before: self.accumulate.then_some(before),
            offsets: self.offsets,
            seed: self.seed,
        }
    }
}

/// Weights and a gradient, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// `[rows, columns]`.
    pub w: Matrix,
    /// Of w^.
    pub noisy: Place,
    /// dw^.
    pub dnoisy: Matrix,
    /// Of dw, where it is asked for.
    pub dw: Option<Place>,
    /// b of each block.
    pub bits: Vec<f32>,
    /// What db is added to.
    pub before: Option<Vec<f32>>,
    /// Of the noise: the call's and the device's.
    pub offsets: (u64, Option<i64>),
    /// The key of the noise.
    pub seed: u64,
}

/// What a device computed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// w^.
    pub noisy: Written,
    /// Of each block.
    pub amax: Written,
    /// db.
    pub dbits: Written,
    /// dw, where it is asked for.
    pub dw: Option<Written>,
    /// Status bits.
    pub status: Status,
}

impl Problem {
    fn shape(&self) -> [usize; 2] {
        [self.w.place.rows(), self.w.place.width()]
    }

    /// What the noise is drawn from.
    #[must_use]
    pub fn noise(&self) -> reference::Noise {
        let replay = self.offsets.1.unwrap_or(0);
        reference::Noise {
            seed: self.seed,
            offset: self.offsets.0.wrapping_add(replay as u64),
        }
    }
}

/// Computes both passes.
///
/// # Errors
/// The library's, but for what the status word holds: that is part of the outcome.
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let op = GaussWs::new(problem.seed).prepare(stream)?;
    let [rows, columns] = problem.shape();
    let blocks = Place::new(DType::F32, &GaussWs::block_shape(rows, columns));
    // Blocks have no room between their rows; something lies before and behind.
    let blocks = blocks.at(Layout {
        phase: 3,
        padding: 0,
        gap: 0,
    });
    let (w, dnoisy) = (problem.w.upload(stream)?, problem.dnoisy.upload(stream)?);
    let bits = blocks.upload(stream, &widened(&problem.bits), f64::NAN)?;
    let replay = match problem.offsets.1 {
        Some(replay) => Some(stream.upload(&[1], &[replay])?),
        None => None,
    };
    let noise = NoiseOffset {
        offset: problem.offsets.0,
        device_offset: replay.as_ref().map(evenkeel::Buffer::view),
    };
    let mut noisy = problem.noisy.empty(stream)?;
    let mut amax = blocks.empty(stream)?;
    op.forward_into(
        problem.w.place.view(&w)?,
        blocks.view(&bits)?,
        noise,
        problem.noisy.view_mut(&mut noisy)?,
        blocks.view_mut(&mut amax)?,
    )?;
    let mut dbits = match &problem.before {
        Some(before) => blocks.upload(stream, &widened(before), UNTOUCHED)?,
        None => blocks.empty(stream)?,
    };
    let mut dw = match &problem.dw {
        Some(place) => Some((place, place.empty(stream)?)),
        None => None,
    };
    let mut gradients = NoiseGradients::new(blocks.view_mut(&mut dbits)?);
    gradients.accumulate = problem.before.is_some();
    if let Some((place, dw)) = &mut dw {
        gradients.dw = Some(place.view_mut(dw)?);
    }
    op.backward_into(
        problem.dnoisy.place.view(&dnoisy)?,
        blocks.view(&bits)?,
        blocks.view(&amax)?,
        noise,
        gradients,
    )?;
    Ok(Outcome {
        noisy: problem.noisy.take(&noisy, UNTOUCHED)?,
        amax: blocks.take(&amax, UNTOUCHED)?,
        dbits: blocks.take(&dbits, UNTOUCHED)?,
        dw: match dw {
            Some((place, dw)) => Some(place.take(&dw, UNTOUCHED)?),
            None => None,
        },
        status: status_of(stream)?,
    })
}

/// Compares all of `outcome`.
///
/// # Errors
/// The reference's.
pub fn compare(problem: &Problem, outcome: &Outcome) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let [_, columns] = problem.shape();
    let mut noisy = vec![0.0; problem.w.values.len()];
    let mut amax = vec![0.0; problem.bits.len()];
    reference::forward(
        problem.noise(),
        problem.w.exact()?,
        &problem.bits,
        exact_mut(&mut noisy, columns)?,
        &mut amax,
    )?;
    let mut dbits = vec![0.0; problem.bits.len()];
    if let Some(before) = &problem.before {
        dbits.copy_from_slice(before);
    }
    let gradients = reference::Gradients {
        bits: &mut dbits,
        accumulate: problem.before.is_some(),
        w: None,
    };
    let (g, bits) = (problem.dnoisy.exact()?, &problem.bits);
    reference::backward(problem.noise(), g, bits, &amax, gradients)?;
    let rounded = |values: &[f64], dtype| -> Vec<f64> {
        values.iter().map(|&x| round_to(dtype, x)).collect()
    };
    let expected = rounded(&noisy, problem.noisy.dtype);
    check("w^", &outcome.noisy, &expected, &mut verdict);
    check("amax", &outcome.amax, &widened(&amax), &mut verdict);
    check("db", &outcome.dbits, &widened(&dbits), &mut verdict);
    if let (Some(place), Some(dw)) = (&problem.dw, &outcome.dw) {
        let expected = rounded(&problem.dnoisy.values, place.dtype);
        check("dw", dw, &expected, &mut verdict);
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

    fn verdict(&self, outcome: &Outcome, _: DeviceKind) -> Result<Verdict> {
        compare(self, outcome)
    }

    fn same_bits(one: &Outcome, other: &Outcome) -> bool {
        let all = |outcome: &Outcome| {
            let dw = outcome.dw.as_ref().map(Written::bits);
            let blocks = [outcome.amax.bits(), outcome.dbits.bits()];
            (outcome.noisy.bits(), blocks, dw, outcome.status)
        };
        all(one) == all(other)
    }
}

impl Checked for Problem {
    fn name(&self) -> &str {
        &self.name
    }

    fn check_on(&self, stream: &Stream) -> Result<Verdict> {
        compare(self, &run_on(stream, self)?)
    }
}
