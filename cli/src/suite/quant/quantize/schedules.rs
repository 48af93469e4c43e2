//! What must not depend on who runs a quantisation, and the problems that go through every
//! synchronisation.

use evenkeel::DType;
use evenkeel::quant::{Format, Fp8, Hadamard, QuantizeOptions, Rounding, ScaleLayout, Scaling};

use super::super::super::proofs::{other_architectures, same_bits};
use super::super::super::{Effort, Held, Workload, emulated};
use super::cases::output;
use crate::norm::rows::cases::FLOATS;
use crate::quant::{Case, Values, ValuesCase};
use crate::subject::Subject;

/// Runs, schedules and device sizes give the same bits, in several tiles and groups; stochastic rounding
/// too.
pub(in super::super) fn quantisation_same_bits(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, format) in Format::ALL.into_iter().enumerate() {
        let rotation = [
            None,
            Some(Hadamard::new(16, 1)),
            Some(Hadamard::new(128, 1)),
        ][index % 3];
        let mut case = Case::new(256, 384, FLOATS[index % 3], format);
        let made = output(rotation, ScaleLayout::RowMajor);
        (case.rowwise, case.transposed) = (Some(made), Some(made));
        case.options = case.options.rounding(Rounding::Stochastic { seed: 3 });
        case.values = Values::Spikes;
        if rotation.is_none() {
            case.groups = Some((vec![130, 0, 126], DType::I32));
        }
        case.seed = 400_000 + index as u64;
        same_bits(&mut held, subject, &case.problem())?;
        let mut case = ValuesCase::new(200, 256, FLOATS[index % 3], format);
        case.output.rotation = rotation;
        case.seed = 401_000 + index as u64;
        same_bits(&mut held, subject, &case.problem())?;
    }
    Ok(held)
}

/// Each architecture, with its limits.
pub(in super::super) fn quantisation_on_other_architectures(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("architectures are the emulator's to choose");
    }
    let mut held = Held::default();
    for (at, device) in other_architectures()?.into_iter().enumerate() {
        for (index, format) in Format::ALL.into_iter().enumerate() {
            let mut case = Case::new(140, 256, FLOATS[(at + index) % 3], format);
            let rotation = (index % 2 == 0).then(|| Hadamard::new(32, 1));
            case.rowwise = Some(output(rotation, ScaleLayout::ColumnMajor));
            if matches!(format, Format::Fp8Tensor(_)) {
                case.rowwise = Some(output(rotation, ScaleLayout::RowMajor));
            }
            case.seed = 410_000 + index as u64;
            held.check(&device, &case.problem())?;
            let case = ValuesCase::new(140, 130, FLOATS[index % 3], format);
            held.check(&device, &case.problem())?;
        }
    }
    Ok(held)
}

/// Shapes, formats, options and rotations that go through every kernel: one read and two, narrow and
/// wide, with both outputs; each format of scales, each rotation; tiles enough that blocks follow each
/// other, on one multiprocessor and on several.
pub(in super::super) fn workloads(quick: bool) -> Vec<Workload> {
    let mut all = Vec::new();
    let formats: &[Format] = if quick {
        &[
            Format::Fp8Tensor(Fp8::E4m3),
            Format::Fp8Row(Fp8::E5m2),
            Format::Fp8Block128x128(Fp8::E4m3),
            Format::MxFp8(Fp8::E4m3),
            Format::NvFp4Square,
        ]
    } else {
        &Format::ALL
    };
    for (index, &format) in formats.iter().enumerate() {
        let mut cases = Vec::new();
        let mut case = Case::new(150, 200, [DType::Bf16, DType::F32][index % 2], format);
        case.seed = 31 + index as u64;
        cases.push(case.clone());
        if format.needs_tensor_amax() {
            case.options = QuantizeOptions::new(format).scaling(Scaling::Given);
            cases.push(case);
        }
        let rotation = Some(Hadamard::new([16, 32, 128][index % 3], 2));
        let made = output(rotation, ScaleLayout::RowMajor);
        let mut rotated = Case::new(128, 256, DType::Bf16, format);
        (rotated.rowwise, rotated.transposed) = (Some(made), Some(made));
        rotated.options = rotated.options.rounding(Rounding::Stochastic { seed: 4 });
        rotated.seed = 61 + index as u64;
        cases.push(rotated);
        // Undone along rows.
        let mut values = ValuesCase::new(40, 256, DType::F32, format);
        values.output.rotation = rotation;
        for (at, case) in cases.iter().enumerate() {
            all.push(Workload {
                problem: Box::new(case.problem()),
                multiprocessors: 1 + (at as u32 + index as u32) % 2,
            });
        }
        all.push(Workload {
            problem: Box::new(values.problem()),
            multiprocessors: 1,
        });
    }
    all
}
