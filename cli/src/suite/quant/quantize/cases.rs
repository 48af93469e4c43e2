//! What every property of quantisation goes through.

use evenkeel::quant::{Hadamard, OutputOptions, Rounding, ScaleLayout};
use evenkeel::reference::quant::Direction;

use super::super::super::{Held, proofs};
pub(super) use crate::quant::cases::{layouts, scalings};
use crate::quant::{Case, Decoded, Output, Problem};
use crate::subject::Subject;

/// No rotation, and those of each size.
pub(super) fn rotations(seed: u64) -> [Option<Hadamard>; 4] {
    let of = |n| Some(Hadamard::new(n, seed));
    [None, of(16), of(32), of(128)]
}

/// Both roundings.
pub(super) fn roundings(seed: u64) -> [Rounding; 2] {
    [Rounding::Nearest, Rounding::Stochastic { seed }]
}

/// An output with a rotation and a layout, and everything that can be asked for.
pub(super) fn output(rotation: Option<Hadamard>, layout: ScaleLayout) -> Output {
    let mut options = OutputOptions::new().layout(layout);
    options.rotation = rotation;
    Output {
        options,
        ..Output::FULL
    }
}

/// The output of a direction, decoded, and where it is among the problem's.
pub(super) fn decoded(
    problem: &Problem,
    outcome: &crate::quant::Outcome,
    direction: Direction,
) -> Result<Decoded, String> {
    problem
        .wanted
        .iter()
        .zip(&outcome.stored)
        .find(|(wanted, _)| wanted.direction == direction)
        .map(|(wanted, stored)| Decoded::new(problem, wanted, stored))
        .ok_or_else(|| format!("no such output: {}", problem.name))
}

/// Computes a case, compares it with the reference, and decodes both of its outputs as far as it has
/// them.
pub(super) fn outputs(
    held: &mut Held,
    subject: &Subject,
    index: usize,
    case: &Case,
) -> Result<(Problem, Vec<(Direction, Decoded)>), String> {
    let problem = case.problem();
    let outcome = proofs::computed(held, proofs::device(subject, index)?, &problem)?;
    let both = problem.wanted.iter().zip(&outcome.stored);
    let decoded = both
        .map(|(wanted, stored)| (wanted.direction, Decoded::new(&problem, wanted, stored)))
        .collect();
    Ok((problem, decoded))
}
