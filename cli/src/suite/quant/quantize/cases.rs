//! What every property of quantisation goes through.

use evenkeel::quant::{
    Format, Hadamard, OutputOptions, QuantizeOptions, Rounding, ScaleLayout, ScaleRounding, Scaling,
};
use evenkeel::reference::quant::Direction;

use super::super::super::{Held, proofs};
use crate::quant::{Case, Decoded, Operation, Output, Problem};
use crate::subject::Subject;

/// `None` where devices of this kind do not have the operation yet.
pub(super) fn there(subject: &Subject, operation: Operation) -> Option<Result<Held, String>> {
    let kind = subject.kind();
    (!operation.is_on(kind))
        .then(|| Held::skipped(format!("{operation:?} has no kernels on {kind}")))
}

/// The layouts that a format's scales have.
pub(super) fn layouts(format: Format) -> Vec<ScaleLayout> {
    ScaleLayout::ALL
        .into_iter()
        .filter(|layout| layout.fits(format))
        // The one scale of a tensor lies where it lies.
        .filter(|&layout| {
            !matches!(format, Format::Fp8Tensor(_)) || layout == ScaleLayout::RowMajor
        })
        .collect()
}

/// No rotation, and those of each size.
pub(super) fn rotations(seed: u64) -> [Option<Hadamard>; 4] {
    let of = |n| Some(Hadamard::new(n, seed));
    [None, of(16), of(32), of(128)]
}

/// Every way to make the scales of a format: current and given, powers of two, MX rounded up.
pub(super) fn scalings(format: Format) -> Vec<QuantizeOptions> {
    let plain = QuantizeOptions::new(format);
    let mut all = vec![plain];
    if format.has_f32_scales() {
        all.push(plain.power_of_two());
    }
    if format.needs_tensor_amax() {
        all.push(plain.scaling(Scaling::Given));
    }
    if matches!(format, Format::MxFp8(_) | Format::MxFp4) {
        all.push(plain.scale_rounding(ScaleRounding::Ceil));
    }
    all
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
