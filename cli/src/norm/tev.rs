//! The variability of an embedding table: its cases, tolerance and comparison with the reference.
//!
//! With the arithmetic of [`Arithmetic`] over D features, the mean m of
//! a row errs by delta = (`elements` + `tree` + 1) u mean |x|. Deviations from the erring mean have the
//! exact variance plus delta^2, since the exact ones sum to 0; each deviation and square is 3 u, and
//! their sum that of a row. So the variance errs by (`elements` + `tree` + 5) u (var + delta^2) +
//! delta^2, and its root by no more than the root of that, nor than that over the root, and u. TEV, a
//! sum over V tokens in any order and its quotient, errs by their mean error and (V + 2) u.

use evenkeel::norm::Tev;
use evenkeel::reference::norm::tev as reference;
use evenkeel::{DType, DeviceKind, Result, Status, Stream};

use super::arithmetic::Arithmetic;
use super::placed::{Matrix, Place, Written, status_of};
use crate::compare::Verdict;
use crate::memory::{Layout, UNTOUCHED};
use crate::numbers::Interval;
use crate::random::Random;

/// What a case is, before its data are drawn.
#[derive(Clone, Debug)]
pub struct Case {
    /// Tokens.
    pub vocab: usize,
    /// Features.
    pub columns: usize,
    /// Type of the table.
    pub dtype: DType,
    /// Where it lies.
    pub layout: Layout,
    /// What every element has in common.
    pub offset: f64,
    /// The standard deviation of the elements around it.
    pub spread: f64,
    /// What everything is drawn from.
    pub seed: u64,
}

impl Case {
    /// A table as models begin with.
    #[must_use]
    pub fn new(vocab: usize, columns: usize, dtype: DType) -> Self {
        Self {
            vocab,
            columns,
            dtype,
            layout: Layout::default(),
            offset: 0.0,
            spread: 0.02,
            seed: 1,
        }
    }

    /// Draws the data.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut random = Random::new(self.seed);
        let place = Place::new(self.dtype, &[self.vocab, self.columns]).at(self.layout);
        let values =
            (0..self.vocab * self.columns).map(|_| self.offset + self.spread * random.normal());
        Problem {
            name: format!("{self:?}"),
            table: Matrix::new(place, values),
        }
    }
}

/// A table, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// `[vocab, D]`.
    pub table: Matrix,
}

/// What a device computed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `[1]`.
    pub tev: Written,
    /// `[vocab]`.
    pub deviations: Written,
    /// Status bits.
    pub status: Status,
}

impl Outcome {
    /// Whether another outcome is the same, bit for bit.
    #[must_use]
    pub fn same_bits(&self, other: &Self) -> bool {
        self.tev.bits() == other.tev.bits()
            && self.deviations.bits() == other.deviations.bits()
            && self.status == other.status
    }
}

/// Computes the problem.
///
/// # Errors
/// The library's, but for what the status word holds: that is part of the outcome.
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let op = Tev::new().prepare(stream)?;
    let table = problem.table.upload(stream)?;
    let (one, each) = (Place::vector(1), Place::vector(problem.table.place.rows()));
    let (mut tev, mut deviations) = (one.empty(stream)?, each.empty(stream)?);
    op.measure_into(
        problem.table.place.view(&table)?,
        one.view_mut(&mut tev)?,
        each.view_mut(&mut deviations)?,
    )?;
    Ok(Outcome {
        tev: one.take(&tev, UNTOUCHED)?,
        deviations: each.take(&deviations, UNTOUCHED)?,
        status: status_of(stream)?,
    })
}

/// Compares all of `outcome`, which a device of this kind computed.
///
/// # Errors
/// The reference's.
pub fn compare(problem: &Problem, outcome: &Outcome, kind: DeviceKind) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let on = Arithmetic::new(kind, problem.table.place.width());
    let found = reference::tev(problem.table.exact()?);
    let vocab = problem.table.place.rows();
    let mut errors = 0.0;
    for (token, &got) in outcome.deviations.row(0).iter().enumerate() {
        let exact = found.deviations[token];
        let error = deviation_error(problem.table.row(token), exact, &on);
        errors += error;
        let interval = Interval::around(exact, error).rounded(DType::F32);
        verdict.number("deviation", DType::F32, got, interval, || {
            format!(" of token {token}")
        });
    }
    let error =
        errors / vocab.max(1) as f64 + (vocab as f64 + 2.0) * on.unit * found.mean + on.tiny;
    let interval = Interval::around(found.mean, error).rounded(DType::F32);
    let got = outcome.tev.row(0)[0];
    verdict.number("TEV", DType::F32, got, interval, String::new);
    verdict.equal(|| "the status".into(), &outcome.status, &found.status);
    outcome.tev.check_gaps("the TEV", &mut verdict);
    outcome
        .deviations
        .check_gaps("the deviations", &mut verdict);
    Ok(verdict.of(&problem.name))
}

fn deviation_error(row: &[f64], exact: f64, on: &Arithmetic) -> f64 {
    let size = row.iter().map(|x| x.abs()).sum::<f64>() / row.len() as f64;
    let delta = (on.row_sum() + on.unit) * size;
    let squares = exact * exact + delta * delta;
    let error = (on.row_sum() + 5.0 * on.unit) * squares + delta * delta + on.tiny;
    error.sqrt().min(error / exact.max(f64::MIN_POSITIVE)) + on.unit * exact
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::norm::single::{vector, worst_of};

    /// In single precision, plainly, one thread a row.
    fn outcome(problem: &Problem) -> Outcome {
        let deviations: Vec<f32> = (0..problem.table.place.rows())
            .map(|token| {
                let row = problem.table.row(token);
                let count = row.len() as f32;
                let mean = row.iter().map(|&x| x as f32).sum::<f32>() / count;
                let squares = row.iter().map(|&x| (x as f32 - mean) * (x as f32 - mean));
                (squares.sum::<f32>() / count).sqrt()
            })
            .collect();
        let count = deviations.len().max(1) as f32;
        Outcome {
            tev: vector(&[deviations.iter().sum::<f32>() / count]),
            deviations: vector(&deviations),
            status: Status::empty(),
        }
    }

    #[test]
    fn plain_single_precision_is_within_the_bounds_and_not_by_far() {
        let offsets = [(0.0, 1.0), (1e4, 0.01), (1e4, 0.0), (-3.0, 1.0)];
        let verdicts = offsets.into_iter().flat_map(|(offset, spread)| {
            (1..64).map(move |columns| {
                let mut case = Case::new(20, columns, DType::F32);
                (case.offset, case.spread) = (offset, spread);
                let problem = case.problem();
                compare(&problem, &outcome(&problem), DeviceKind::Emulated)
            })
        });
        worst_of(verdicts, &[("deviation", 0.05), ("TEV", 0.02)]);
    }
}
