//! The properties of normalizations with quantised results.

mod dyt;

pub(super) use dyt::{
    REFUSED as DYT_REFUSED, quantised_dyt_bits, quantised_dyt_traffic, quantised_dyts,
};

use evenkeel::norm::{NormKind, NormOptions, Pairing, Rotary};
use evenkeel::quant::{
    Format, Fp8, OutputOptions, QuantizeOptions, Rounding, ScaleLayout, ScaleRounding,
};
use evenkeel::reference::quant::Direction;
use evenkeel::{DType, Device, DeviceKind};

use super::super::{Effort, Held, Workload};
use super::proofs::{
    Budget, FLOATS, Wrong, computed, device, other_architectures, same_bits, scattered,
};
use crate::compare::Checked;
use crate::norm::Operation;
use crate::norm::quantized::{Case, Problem, is_of_rows};
use crate::norm::rows::{self, Values};
use crate::quant::{self, Form, Output};
use crate::subject::Subject;

const OPERATIONS: [Operation; 4] = [
    Operation::Norm,
    Operation::HeadNorm,
    Operation::GatedNorm,
    Operation::Sdd,
];

/// A format with options that it has: one after the other.
fn options(format: Format, index: usize) -> (QuantizeOptions, OutputOptions) {
    let mut options = Case::new(of(Operation::Norm, 1, 1, DType::F32), format).options;
    if index % 2 == 1 {
        let seed = 77 + index as u64;
        options = options.rounding(Rounding::Stochastic { seed });
    }
    let floats = format.has_f32_scales() && !format.needs_tensor_amax();
    let mx = matches!(format, Format::MxFp8(_) | Format::MxFp4);
    match index % 3 {
        1 if floats => options = options.power_of_two(),
        1 if mx => options = options.scale_rounding(ScaleRounding::Ceil),
        _ => {}
    }
    let layouts: Vec<ScaleLayout> = ScaleLayout::ALL
        .into_iter()
        .filter(|layout| layout.fits(format) && !matches!(format, Format::Fp8Tensor(_)))
        .collect();
    let output = OutputOptions::new();
    match layouts.get(index % layouts.len().max(1)) {
        Some(&layout) => (options, output.layout(layout)),
        None => (options, output),
    }
}

fn formats() -> impl Iterator<Item = Format> {
    Format::ALL.into_iter().filter(|&format| is_of_rows(format))
}

/// A forward of rows, or of four heads.
fn of(operation: Operation, tokens: usize, columns: usize, dtype: DType) -> rows::Case {
    let mut case = rows::Case::new(operation, tokens, columns, dtype);
    if operation == Operation::HeadNorm {
        case.heads = 4;
    }
    case
}

/// The case with everything else of a norm drawn from a number.
fn varied(mut case: rows::Case, format: Format, index: usize) -> Case {
    case.norm = Some(NormOptions::new(NormKind::ALL[index % 2]));
    (case.beta, case.residual) = (index.is_multiple_of(3), index % 4 < 2);
    case.gamma = !index.is_multiple_of(5);
    if case.operation == Operation::HeadNorm
        && index.is_multiple_of(2)
        && case.columns.is_multiple_of(4)
    {
        case.rotary = Some(Rotary::new(Pairing::ALL[index / 2 % 2], case.columns / 2));
        case.positions = true;
    }
    case.seed = 31_000 + index as u64;
    let mut case = Case::new(case, format);
    let (options, output) = options(format, index);
    case.options = options;
    case.output.options = output;
    if index % 4 == 3 {
        case.form = Form::Allocated;
    }
    case
}

/// Whether a format has scales over these heads.
fn fits(operation: Operation, format: Format, columns: usize) -> bool {
    let block = format.block().columns;
    operation != Operation::HeadNorm
        || matches!(format, Format::Fp8Tensor(_))
        || columns.is_multiple_of(block)
}

/// Each operation in each format, with each option and type.
pub(super) fn quantised_norms(subject: &Subject, effort: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for operation in OPERATIONS {
        for format in formats() {
            for columns in [128, 96] {
                if !fits(operation, format, columns) {
                    continue;
                }
                let repeats = if effort == Effort::Full { 6 } else { 2 };
                for _ in 0..repeats {
                    let dtype = FLOATS[index % 3];
                    let case = varied(of(operation, 5, columns, dtype), format, index);
                    computed(&mut held, device(subject, index)?, &case.problem())?;
                    index += 1;
                }
            }
        }
    }
    Ok(held)
}

/// Rows shorter than a block and longer than a team's registers, of every kind of team: lanes of a
/// warp, warps, units that lie apart, clusters, and rows that go round.
pub(super) fn quantised_widths(subject: &Subject, effort: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut widths = vec![
        1, 2, 7, 15, 16, 33, 64, 100, 127, 200, 256, 515, 1000, 2048, 4104, 8192, 8201, 8328,
    ];
    if effort == Effort::Full {
        widths.extend([12_288, 16_384, 16_385, 40_000, 131_080]);
    }
    for (index, columns) in widths.into_iter().enumerate() {
        for (number, format) in formats().enumerate() {
            let large = columns > 1000;
            if large && (number + index) % 3 != 0 {
                continue;
            }
            let tokens = if large {
                2
            } else {
                3 + 130 * usize::from(columns == 64)
            };
            let dtype = FLOATS[(index + number) % 3];
            let mut rows = of(Operation::Norm, tokens, columns, dtype);
            if columns > 8192 && columns % 8 != 0 {
                // Exact in any order, whatever the type.
                rows.values = Values::Zero;
            }
            let mut case = varied(rows, format, index + number);
            case.rows.residual &= case.rows.values != Values::Zero;
            computed(&mut held, device(subject, index)?, &case.problem())?;
        }
    }
    Ok(held)
}

/// Every tensor at another alignment, with gaps between rows; what is asked for beside, or not.
pub(super) fn quantised_alignments(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for index in 0..12 {
        let layout = scattered(index);
        for format in formats() {
            let mut rows = of(Operation::Norm, 4, 160, DType::F32);
            (rows.layout, rows.side_layout) = (layout[0], layout[1]);
            let mut case = varied(rows, format, index);
            case.output = Output {
                layout: layout[2],
                amax: index % 2 == 0,
                counts: index % 3 == 0,
                keep_scale: index % 4 == 0,
                ..case.output
            };
            case.form = Form::Into;
            computed(&mut held, device(subject, index)?, &case.problem())?;
        }
    }
    Ok(held)
}

/// Rows of extreme values, which saturate and vanish.
pub(super) fn quantised_extremes(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, values) in Values::ALL.into_iter().enumerate() {
        for format in formats() {
            let mut rows = of(Operation::Norm, 3, 288, DType::F32);
            rows.values = values;
            let mut case = varied(rows, format, index);
            case.rows.norm = Some(NormOptions::rms());
            case.given *= [1.0, 1e-3, 1e3][index % 3];
            computed(&mut held, device(subject, index)?, &case.problem())?;
        }
    }
    Ok(held)
}

/// The same bits on every schedule and device size.
pub(super) fn quantised_same_bits(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, format) in formats().enumerate() {
        for columns in [320, 99] {
            let case = varied(of(Operation::Norm, 40, columns, DType::F32), format, index);
            same_bits(&mut held, subject, &case.problem())?;
        }
    }
    Ok(held)
}

/// One read of the rows, one write of their bytes and scales.
pub(super) fn quantised_traffic(subject: &Subject, _: Effort) -> Result<Held, String> {
    if subject.kind() != DeviceKind::Emulated {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    for format in formats() {
        for (operation, dtype, columns) in [
            (Operation::Norm, DType::Bf16, 2048),
            (Operation::Norm, DType::Bf16, 8192),
            (Operation::Norm, DType::Bf16, 16_384),
            (Operation::Norm, DType::F32, 4096),
            (Operation::Norm, DType::F32, 8192),
            (Operation::Norm, DType::F32, 16_384),
            (Operation::GatedNorm, DType::F32, 8192),
            (Operation::GatedNorm, DType::Bf16, 16_384),
        ] {
            let tokens = 16;
            let mut rows = of(operation, tokens, columns, dtype);
            (rows.gamma, rows.statistics) = (false, false);
            let mut case = Case::new(rows, format);
            case.output = Output::PLAIN;
            let problem = case.problem();
            let inputs = 1 + usize::from(operation == Operation::GatedNorm);
            let loads = inputs * tokens * columns * dtype.size();
            let budget = budget(loads, &problem.quantize);
            kernel_within(&mut held, device(subject, 0)?, &problem, &budget)?;
        }
    }
    Ok(held)
}

/// So many bytes read, each element and scale written once.
fn budget(loads: usize, quantize: &quant::Problem) -> Budget {
    let case = &quantize.case;
    let format = case.options.format;
    let [rows, blocks] = quantize.scale_shape(Direction::RowWise);
    Budget {
        loads,
        stores: case.rows * case.columns * format.element_bits() / 8
            + rows * blocks * format.scale_dtype().size(),
        // A thread's look at the offset and at the given scale.
        more: 64 * 1024,
    }
}

/// As `within`, of the kernels that quantise alone.
fn kernel_within(
    held: &mut Held,
    device: &Device,
    problem: &dyn Checked,
    budget: &Budget,
) -> Result<(), String> {
    let bytes = crate::traffic::of_kernels(device, problem, "norm_quantized")
        .map_err(|error| format!("{error}\n    in {}", problem.name()))?;
    held.problems += 1;
    for (what, got, least) in [
        ("read", bytes.loads, budget.loads),
        ("written", bytes.stores, budget.stores),
    ] {
        let most = least + least / 100 + budget.more;
        if !(least as u64..=most as u64).contains(&got) {
            return Err(format!(
                "{got} bytes {what}, expected {least} to {most}: {}",
                problem.name()
            ));
        }
    }
    Ok(())
}

/// Other architectures, with their limits.
pub(super) fn quantised_on_other_architectures(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if subject.kind() != DeviceKind::Emulated {
        return Held::skipped("architectures are the emulator's to choose");
    }
    let mut held = Held::default();
    for device in other_architectures()? {
        for (index, format) in formats().enumerate() {
            for (operation, columns) in [(Operation::Norm, 1000), (Operation::HeadNorm, 128)] {
                if !fits(operation, format, columns) {
                    continue;
                }
                let case = varied(of(operation, 3, columns, DType::F32), format, index);
                computed(&mut held, &device, &case.problem())?;
            }
        }
    }
    Ok(held)
}

fn wrong(format: Format) -> Problem {
    Case::new(of(Operation::Norm, 3, 96, DType::F32), format).problem()
}

/// Results that are wrong as kernels are.
pub(super) const REFUSED: &[Wrong<Problem>] = &[
    Wrong {
        name: "an element one code away",
        problem: || wrong(Format::MxFp8(Fp8::E4m3)),
        spoil: |_, outcome| outcome.stored.stored[0].data.bytes[100] ^= 1,
    },
    Wrong {
        name: "a nibble of a neighbour",
        problem: || wrong(Format::MxFp4),
        spoil: |_, outcome| outcome.stored.stored[0].data.bytes[50] ^= 0x10,
    },
    Wrong {
        name: "a scale one power of two away",
        problem: || wrong(Format::MxFp8(Fp8::E5m2)),
        spoil: |_, outcome| {
            if let Some(scales) = &mut outcome.stored.stored[0].scales {
                scales.bytes[2] += 1;
            }
        },
    },
    Wrong {
        name: "an amax that was lowered",
        problem: || wrong(Format::NvFp4),
        spoil: |_, outcome| {
            if let Some(amax) = &mut outcome.stored.stored[0].amax {
                amax.bytes[0] ^= 1;
            }
        },
    },
    Wrong {
        name: "an element too many counted",
        problem: || wrong(Format::Fp8Row(Fp8::E4m3)),
        spoil: |_, outcome| {
            if let Some(counts) = &mut outcome.stored.stored[0].counts {
                counts.bytes[0] ^= 1;
            }
        },
    },
    Wrong {
        name: "a statistic of another row",
        problem: || wrong(Format::Fp8Row(Fp8::E4m3)),
        spoil: |_, outcome| {
            if let Some(rstd) = outcome.beside.get_mut("rstd") {
                rstd.row_mut(0)[0] *= 1.25;
            }
        },
    },
];

/// Problems that execute every synchronisation: blocks in the lanes of a warp and in shared memory, a
/// scale of a row over several warps and over a cluster, and rows that go round.
pub(in crate::suite) fn workloads(quick: bool) -> Vec<Workload> {
    let mut problems = vec![
        (Operation::Norm, 10, 96, Format::MxFp8(Fp8::E4m3)),
        (Operation::Norm, 6, 1001, Format::NvFp4),
        (Operation::Norm, 6, 4096, Format::Fp8Row(Fp8::E4m3)),
        (Operation::Norm, 2, 8201, Format::MxFp4),
        (Operation::Norm, 3, 8704, Format::Fp8Row(Fp8::E4m3)),
    ];
    if !quick {
        problems.extend([
            (
                Operation::HeadNorm,
                5,
                128,
                Format::Fp8Block1x128(Fp8::E4m3),
            ),
            (Operation::GatedNorm, 5, 2048, Format::MxFp4),
        ]);
    }
    let of_case = |(index, (operation, tokens, columns, format))| {
        let mut rows = of(operation, tokens, columns, DType::F32);
        if columns > 8192 {
            rows.values = Values::Zero;
        }
        Workload {
            problem: Box::new(varied(rows, format, 2 * index).problem()),
            multiprocessors: if columns > 8192 { 4 } else { 1 },
        }
    };
    let mut workloads: Vec<_> = problems.into_iter().enumerate().map(of_case).collect();
    workloads.extend(dyt::workloads(quick));
    workloads
}
