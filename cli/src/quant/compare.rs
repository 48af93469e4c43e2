//! Compares a quantisation with the reference, bit for bit: there is no tolerance, since every
//! operation is in single precision and rounds once.

use evenkeel::Result;
use evenkeel::quant::Format;
use evenkeel::reference::Indices;
use evenkeel::reference::quant::{self as reference, Call, Direction, Matrix, Quantized, Scales};

use super::bits::{Bits, of_f32};
use super::outcome::{Outcome, Stored};
use super::problem::{Problem, Wanted};
use crate::compare::Verdict;

/// The names of a direction's results.
struct Names {
    data: &'static str,
    scales: &'static str,
    tensor_scale: &'static str,
    amax: &'static str,
    counts: &'static str,
}

const ROWWISE: Names = Names {
    data: "data",
    scales: "scales",
    tensor_scale: "tensor scale",
    amax: "amax",
    counts: "counts",
};

const TRANSPOSED: Names = Names {
    data: "transposed data",
    scales: "transposed scales",
    tensor_scale: "transposed tensor scale",
    amax: "transposed amax",
    counts: "transposed counts",
};

/// What the reference makes of one output.
///
/// # Errors
/// The reference's.
pub fn expected(problem: &Problem, wanted: &Wanted) -> Result<Quantized> {
    let case = &problem.case;
    let x = Matrix::new(&problem.values, case.rows, case.columns)?;
    let call = Call {
        offset: problem.offset(),
        tensor_scales: wanted.given.as_deref(),
        groups: problem.groups.as_deref().map(Indices::I64),
    };
    reference::quantize(
        &case.options,
        &wanted.output.options,
        wanted.direction,
        x,
        &call,
    )
}

/// Compares all of `outcome` with the reference.
///
/// # Errors
/// The reference's.
pub fn compare(problem: &Problem, outcome: &Outcome) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut status = evenkeel::Status::empty();
    for (wanted, stored) in problem.wanted.iter().zip(&outcome.stored) {
        let expected = expected(problem, wanted)?;
        status |= expected.status;
        output(problem, wanted, stored, &expected, &mut verdict);
    }
    let stored = outcome.stored.len();
    verdict.equal(
        || "the number of outputs".into(),
        &stored,
        &problem.wanted.len(),
    );
    verdict.equal(|| "the status".into(), &outcome.status, &status);
    Ok(verdict.of(&problem.name))
}

fn output(
    problem: &Problem,
    wanted: &Wanted,
    stored: &Stored,
    expected: &Quantized,
    verdict: &mut Verdict,
) {
    let format = problem.case.options.format;
    let names = match wanted.direction {
        Direction::RowWise => ROWWISE,
        Direction::Transposed => TRANSPOSED,
    };
    stored.data.check(names.data, 1, &expected.data, verdict);
    let scales = match &expected.scales {
        Scales::F32(scales) => (of_f32(scales), 4),
        Scales::Bytes(scales) => (scales.clone(), 1),
    };
    // fp8-tensor has no others than its tensor's.
    let some = !matches!(format, Format::Fp8Tensor(_));
    let tensor = problem
        .keeps_tensor_scale(wanted)
        .then(|| of_f32(&expected.tensor_scales));
    let mut part =
        |name, got: &Option<Bits>, expected: Option<(&[u8], usize)>| match (got, expected) {
            (Some(got), Some((expected, size))) => got.check(name, size, expected, verdict),
            (None, None) => {}
            (got, _) => {
                let there = got.is_some();
                verdict.wrong(|| format!("{name}: there are {there}"));
            }
        };
    part(
        names.scales,
        &stored.scales,
        some.then_some((&scales.0, scales.1)),
    );
    part(
        names.tensor_scale,
        &stored.tensor_scale,
        tensor.as_deref().map(|scale| (scale, 4)),
    );
    let amax = wanted.amax.as_ref().map(|before| {
        let both = before.iter().zip(&expected.amaxes);
        of_f32(
            &both
                .map(|(&before, &amax)| before.max(amax))
                .collect::<Vec<_>>(),
        )
    });
    part(
        names.amax,
        &stored.amax,
        amax.as_deref().map(|amax| (amax, 4)),
    );
    let counts = wanted.counts.map(|[saturated, underflowed]| {
        let counts = [
            saturated.wrapping_add(expected.saturated as u32),
            underflowed.wrapping_add(expected.underflowed as u32),
        ];
        counts
            .iter()
            .flat_map(|x| x.to_ne_bytes())
            .collect::<Vec<u8>>()
    });
    part(
        names.counts,
        &stored.counts,
        counts.as_deref().map(|counts| (counts, 4)),
    );
}
