//! Bytes that quantisations move, against the least there is, and how: whole sectors, and shared memory
//! without bank conflicts.

use evenkeel::DType;
use evenkeel::quant::{Format, Hadamard, Scaling};
use evenkeel::reference::quant::Direction;

use super::super::super::proofs::device;
use super::super::super::{Effort, Held, emulated, told};
use super::cases::{layouts, output, roundings, scalings};
use crate::compare::Checked;
use crate::norm::placed::Place;
use crate::quant::{Case, Problem, ValuesCase};
use crate::subject::Subject;
use crate::traffic::{Bytes, counted};

/// Reads of X: a second where a scale follows from an amax that is only known at its end: of the tensor,
/// or of columns.
fn reads(problem: &Problem) -> u64 {
    let case = &problem.case;
    let of_tensor = case.options.format.needs_tensor_amax();
    let of_columns = matches!(case.options.format, Format::Fp8Row(_)) && case.transposed.is_some();
    let current = of_tensor && case.options.scaling == Scaling::Current;
    1 + u64::from(current || of_columns)
}

/// The least that a problem reads and writes: X as often as it must be, every output once; and the bytes
/// of its scales among them.
fn least(problem: &Problem) -> (Bytes, u64) {
    let case = &problem.case;
    let x = case.rows * case.columns * case.dtype.size();
    let bytes = |place: Option<Place>| {
        place.map_or(0, |place| place.rows() * place.width() * place.dtype.size()) as u64
    };
    let (mut stores, mut scales) = (0, 0);
    for wanted in &problem.wanted {
        let places = crate::quant::places::Places::new(problem, wanted);
        scales += bytes(places.scales);
        stores += bytes(Some(places.data)) + bytes(places.tensor_scale);
    }
    let least = Bytes {
        loads: x as u64 * reads(problem),
        stores: stores + scales,
    };
    (least, scales)
}

/// Bytes of sectors for each byte of scales: four bytes, those of a tile's row, are stored at once, into a
/// sector of 32 whose others the neighbouring tiles store. The L2 gathers them.
const OF_SCALES: u64 = 8;

/// What comes with each tile of 128 x 128 elements beside them, in bytes: a scale of the tensor that each
/// thread reads, and partial results.
const OF_A_TILE: u64 = 2048;

fn within(
    held: &mut Held,
    device: &evenkeel::Device,
    problem: &dyn Checked,
    (least, scales): (Bytes, u64),
    tiles: u64,
    dtype: DType,
) -> Result<(), String> {
    let counts = counted(device, problem).map_err(|error| told(&error, problem))?;
    held.problems += 1;
    let more = OF_A_TILE * tiles + 1024;
    // The eight f32 of a thread are a sector, read by two instructions: the second finds it in L1.
    let twice = dtype == DType::F32;
    let sectors = least.stores + OF_SCALES * scales;
    for (what, got, least, most) in [
        ("read", counts.bytes.loads, least.loads, least.loads),
        ("written", counts.bytes.stores, least.stores, least.stores),
        (
            "read in sectors",
            counts.sectors.loads,
            least.loads,
            least.loads * if twice { 2 } else { 1 },
        ),
        (
            "written in sectors",
            counts.sectors.stores,
            least.stores,
            sectors * if twice && scales == 0 { 2 } else { 1 },
        ),
    ] {
        let most = most + most / 100 + more;
        if got < least || got > most {
            let launches = &counts.launches;
            return Err(format!(
                "{got} bytes {what}, expected {least} to {most}, by {launches:?}: {}",
                problem.name()
            ));
        }
    }
    if counts.bank_conflicts != 0 {
        let conflict = counts.conflict.unwrap_or_default();
        return Err(format!("bank conflicts, {conflict}: {}", problem.name()));
    }
    Ok(())
}

/// X is read as often as its scales ask for, and each output is written once, both in whole sectors but
/// for scales; shared memory is used without a bank conflict.
pub(in super::super) fn quantisation_traffic(subject: &Subject, _: Effort) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    let mut index = 0;
    let [rows, columns] = [256, 512];
    for format in Format::ALL {
        for options in scalings(format) {
            for which in 0..3 {
                index += 1;
                let dtype = [DType::Bf16, DType::F32, DType::F16][index % 3];
                let layouts = layouts(format);
                let mut made = output(None, layouts[index % layouts.len()]);
                (made.amax, made.counts) = (false, false);
                let mut case = Case::new(rows, columns, dtype, format);
                case.rowwise = (which != 1).then_some(made);
                case.transposed = (which != 2).then_some(made);
                case.options = options.rounding(roundings(1)[index % 2]);
                case.seed = 500_000 + index as u64;
                let problem = case.problem();
                let tiles = (rows / 128 * (columns / 128)) as u64 * reads(&problem);
                within(
                    &mut held,
                    device(subject, index)?,
                    &problem,
                    least(&problem),
                    tiles,
                    dtype,
                )?;
            }
        }
    }
    Ok(held)
}

/// Rotations, of one output or of both, read and write nothing more, and shared memory without a bank
/// conflict.
pub(in super::super) fn rotations_cost_no_bytes(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    let mut index = 0;
    let [rows, columns] = [128, 256];
    for format in [
        Format::MxFp8(evenkeel::quant::Fp8::E4m3),
        Format::MxFp4,
        Format::NvFp4,
        Format::Fp8Block1x128(evenkeel::quant::Fp8::E5m2),
    ] {
        for n in Hadamard::SIZES {
            for directions in [&Direction::ALL[..1], &Direction::ALL[1..], &Direction::ALL] {
                index += 1;
                let dtype = [DType::Bf16, DType::F32][index % 2];
                let mut made = output(Some(Hadamard::new(n, 1)), Default::default());
                (made.amax, made.counts) = (false, false);
                let mut case = Case::new(rows, columns, dtype, format);
                let of = |direction| directions.contains(&direction).then_some(made);
                case.rowwise = of(Direction::RowWise);
                case.transposed = of(Direction::Transposed);
                case.options = case.options.rounding(roundings(1)[index / 2 % 2]);
                case.seed = 510_000 + index as u64;
                let problem = case.problem();
                let tiles = (rows / 128 * (columns / 128)) as u64 * reads(&problem);
                within(
                    &mut held,
                    device(subject, index)?,
                    &problem,
                    least(&problem),
                    tiles,
                    dtype,
                )?;
            }
        }
    }
    Ok(held)
}

/// Elements and scales are read once, and values written once.
pub(in super::super) fn dequantisation_traffic(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    let [rows, columns] = [256, 512];
    for (index, format) in Format::ALL.into_iter().enumerate() {
        let dtype = [DType::Bf16, DType::F32][index % 2];
        let mut case = ValuesCase::new(rows, columns, dtype, format);
        case.seed = 520_000 + index as u64;
        let problem = case.problem();
        let scales = problem.scales.len() + 4 * problem.tensor_scales.len();
        let least = Bytes {
            loads: (problem.data.len() + scales) as u64,
            stores: (rows * columns * dtype.size()) as u64,
        };
        // Threads that share a scale each read it, and that of the tensor: 5 bytes for 8 elements at most.
        let tiles = (rows / 128 * (columns / 128)) as u64 * 5;
        within(
            &mut held,
            device(subject, index)?,
            &problem,
            (least, 0),
            tiles,
            dtype,
        )?;
    }
    Ok(held)
}
