//! Delayed scaling: steps of amax, and their comparison with the reference, bit for bit.

use evenkeel::quant::{AmaxHistory, DelayedScaling, Format, Fp8};
use evenkeel::reference::quant::delayed::{Memory, Rule, update};
use evenkeel::{DeviceKind, Result, Status, Stream};

use super::bits::of_f32;
use crate::compare::{Checked, Computed, Verdict};
use crate::norm::placed::status_of;
use crate::random::Random;

/// The formats that tensors have in turn.
const FORMATS: [Format; 3] = [
    Format::Fp8Tensor(Fp8::E4m3),
    Format::Fp8Tensor(Fp8::E5m2),
    Format::NvFp4,
];

/// What a device is asked for.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// Steps of a history.
    pub length: usize,
    /// What of it counts.
    pub history: AmaxHistory,
    /// Powers of two that are left as room.
    pub margin: i32,
    /// Whether scales are powers of two.
    pub power_of_two: bool,
    /// The amax of each tensor, step by step.
    pub steps: Vec<Vec<f32>>,
    /// After which step the state goes through the host to another one.
    pub resumed: Option<usize>,
}

impl Problem {
    /// Steps of `tensors` tensors: mostly normal, now and then 0, tiny, huge, or no amax at all.
    #[must_use]
    pub fn new(tensors: usize, length: usize, steps: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut amax = || match random.below(12) {
            0 => 0.0,
            1 => random.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, -0.0]),
            2 => f32::from_bits(random.below(1 << 23) as u32),
            3 => f32::from_bits(f32::MAX.to_bits() - random.below(1 << 24) as u32),
            4 => (448.0 * random.pick(&[0.5, 1.0, 2.0, 8.0])) as f32,
            _ => random.normal().abs() as f32 * 10.0,
        };
        let steps = (0..steps).map(|_| (0..tensors).map(|_| amax()).collect());
        let mut problem = Self {
            name: String::new(),
            length,
            history: AmaxHistory::Max,
            margin: 0,
            power_of_two: false,
            steps: steps.collect(),
            resumed: None,
        };
        problem.rename();
        problem
    }

    /// Names it by what it is now.
    pub fn rename(&mut self) {
        let tensors = self.tensors();
        let (steps, length) = (self.steps.len(), self.length);
        let (history, margin, power) = (self.history, self.margin, self.power_of_two);
        self.name = format!(
            "{steps} steps of {tensors} tensors: {history} of {length}, margin {margin}, powers of \
             two {power}, resumed after {:?}",
            self.resumed
        );
    }

    fn tensors(&self) -> usize {
        self.steps.first().map_or(0, Vec::len)
    }

    fn formats(&self) -> Vec<Format> {
        (0..self.tensors()).map(|at| FORMATS[at % 3]).collect()
    }

    fn options(&self) -> DelayedScaling {
        let options = DelayedScaling::new()
            .length(self.length)
            .history(self.history)
            .margin(self.margin);
        if self.power_of_two {
            options.power_of_two()
        } else {
            options
        }
    }
}

/// What a device has after each step.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Scales, amax slots, histories, as bytes of f32, and cursors.
    pub steps: Vec<[Vec<u8>; 4]>,
    /// Status bits.
    pub status: Status,
}

fn of_u32(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_ne_bytes()).collect()
}

/// Computes the problem.
///
/// # Errors
/// The library's, but for what the status word holds: that is part of the outcome.
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let (options, formats) = (problem.options(), problem.formats());
    let mut scales = options.prepare(stream, &formats)?;
    let mut steps = Vec::new();
    for (at, amax) in problem.steps.iter().enumerate() {
        // The slots of a step, as its quantisations would leave them.
        let mut state = scales.save()?;
        state.amax.copy_from_slice(amax);
        if problem.resumed == Some(at) {
            scales = options.prepare(stream, &formats)?;
        }
        scales.restore(&state)?;
        scales.update()?;
        let state = scales.save()?;
        steps.push([
            of_f32(&state.scales),
            of_f32(&state.amax),
            of_f32(&state.history),
            of_u32(&state.cursors),
        ]);
    }
    Ok(Outcome {
        steps,
        status: status_of(stream)?,
    })
}

/// Compares all of `outcome`.
///
/// # Errors
/// The reference's.
pub fn compare(problem: &Problem, outcome: &Outcome) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let tensors = problem.tensors();
    let rule = Rule {
        length: problem.length,
        most_recent: problem.history == AmaxHistory::MostRecent,
        power_of_two: problem.power_of_two,
    };
    let room = 2_f32.powi(-problem.margin);
    let largest = problem.formats().into_iter().map(|format| match format {
        Format::NvFp4 => 2688.0 * room,
        other => other.largest() * room,
    });
    let largest: Vec<f32> = largest.collect();
    let (mut history, mut scales) = (vec![0.0; tensors * problem.length], vec![1.0; tensors]);
    let mut cursors = vec![0; tensors];
    for (step, (amax, got)) in problem.steps.iter().zip(&outcome.steps).enumerate() {
        let mut amax = amax.clone();
        let memory = Memory {
            amax: &mut amax,
            history: &mut history,
            scales: &mut scales,
            cursors: &mut cursors,
            largest: &largest,
        };
        update(rule, memory)?;
        let want = [
            of_f32(&scales),
            of_f32(&amax),
            of_f32(&history),
            of_u32(&cursors),
        ];
        let names = ["scales", "amax slots", "histories", "cursors"];
        for ((name, got), want) in names.into_iter().zip(got).zip(&want) {
            verdict.worst.entry(name).or_default().compared += want.len() as u64 / 4;
            verdict.equal(|| format!("{name} of step {step}, as bytes,"), got, want);
        }
    }
    let steps = outcome.steps.len();
    verdict.equal(|| "the steps".into(), &steps, &problem.steps.len());
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
        one == other
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
