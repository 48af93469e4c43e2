//! The properties of dynamic tanh with quantised results.

use evenkeel::quant::{Format, Fp8};
use evenkeel::{DType, DeviceKind};

use super::super::proofs::{
    FLOATS, Wrong, computed, device, other_architectures, same_bits, scattered,
};
use super::{budget, formats, kernel_within, options};
use crate::norm::dyt;
use crate::norm::quantized::dyt::{Case, Problem};
use crate::quant::{Form, Output};
use crate::subject::Subject;
use crate::suite::{Effort, Held, Workload};

/// The case with everything else drawn from a number.
fn varied([rows, columns]: [usize; 2], format: Format, index: usize) -> Case {
    let mut case = dyt::Case::new(rows, columns, FLOATS[index % 3]);
    case.gamma = (!index.is_multiple_of(5)).then_some(FLOATS[index / 3 % 3]);
    case.beta = (!index.is_multiple_of(4)).then_some(FLOATS[index / 2 % 3]);
    case.values = dyt::Values::ALL[index % 4];
    case.seed = 32_000 + index as u64;
    let mut case = Case::new(case, format);
    let (options, output) = options(format, index);
    (case.options, case.output.options) = (options, output);
    if index % 4 == 3 {
        case.form = Form::Allocated;
    }
    case
}

/// Each format, option, type, alignment and length of rows.
pub(in super::super) fn quantised_dyts(subject: &Subject, effort: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut widths = vec![
        1, 15, 33, 64, 96, 128, 200, 515, 1000, 2048, 4104, 8201, 8328,
    ];
    if effort == Effort::Full {
        widths.extend([12_288, 16_385, 40_000, 131_080]);
    }
    for (index, columns) in widths.into_iter().enumerate() {
        for (number, format) in formats().enumerate() {
            let large = columns > 1000;
            if large && (number + index) % 3 != 0 {
                continue;
            }
            let rows = match columns {
                64 => 133,
                _ if large => 2,
                _ => 5,
            };
            let mut case = varied([rows, columns], format, index + number);
            if case.form == Form::Into && number % 2 == 0 {
                let layout = scattered(index);
                case.dyt.layouts = layout;
                case.output.layout = layout[2];
                (case.output.amax, case.output.counts) = (index % 2 == 0, index % 3 == 0);
            }
            computed(&mut held, device(subject, index)?, &case.problem())?;
        }
    }
    Ok(held)
}

/// The same bits on every schedule, device size and architecture.
pub(in super::super) fn quantised_dyt_bits(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, format) in formats().enumerate() {
        for columns in [320, 99, 8448] {
            let rows = if columns > 8192 { 3 } else { 40 };
            same_bits(
                &mut held,
                subject,
                &varied([rows, columns], format, index).problem(),
            )?;
        }
    }
    if subject.kind() == DeviceKind::Emulated {
        for device in other_architectures()? {
            for (index, format) in formats().enumerate() {
                let case = varied([3, 8448], format, index);
                computed(&mut held, &device, &case.problem())?;
            }
        }
    }
    Ok(held)
}

/// One read of x at every length, one write of the bytes and the scales.
pub(in super::super) fn quantised_dyt_traffic(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if subject.kind() != DeviceKind::Emulated {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    for format in formats() {
        for (dtype, columns) in [
            (DType::Bf16, 2048),
            (DType::Bf16, 16_384),
            (DType::F32, 4096),
            (DType::F32, 16_384),
        ] {
            let mut case = dyt::Case::new(16, columns, dtype);
            (case.gamma, case.beta) = (None, None);
            let mut case = Case::new(case, format);
            case.output = Output::PLAIN;
            let problem = case.problem();
            let budget = budget(16 * columns * dtype.size(), &problem.quantize);
            kernel_within(&mut held, device(subject, 0)?, &problem, &budget)?;
        }
    }
    Ok(held)
}

fn wrong(format: Format) -> Problem {
    Case::new(dyt::Case::new(3, 96, DType::F32), format).problem()
}

/// Results that are wrong as kernels are.
pub(in super::super) const REFUSED: &[Wrong<Problem>] = &[
    Wrong {
        name: "an element of a dynamic tanh one code away",
        problem: || wrong(Format::Fp8Row(Fp8::E5m2)),
        spoil: |_, outcome| outcome.stored.stored[0].data.bytes[100] ^= 1,
    },
    Wrong {
        name: "a block's scale of a dynamic tanh in its neighbour's place",
        problem: || wrong(Format::NvFp4),
        spoil: |_, outcome| {
            if let Some(scales) = &mut outcome.stored.stored[0].scales {
                scales.bytes.rotate_left(1);
            }
        },
    },
];

/// Blocks in the lanes of a warp and in shared memory, and a scale of a row of a cluster.
pub(super) fn workloads(quick: bool) -> Vec<Workload> {
    let mut problems = vec![
        ([10, 96], Format::MxFp8(Fp8::E4m3), 1),
        ([3, 8704], Format::Fp8Row(Fp8::E4m3), 4),
    ];
    if !quick {
        problems.push(([6, 1001], Format::NvFp4, 1));
    }
    let of_case = |(index, (shape, format, multiprocessors))| Workload {
        problem: Box::new(varied(shape, format, index).problem()),
        multiprocessors,
    };
    problems.into_iter().enumerate().map(of_case).collect()
}
