//! Products against the reference.

use evenkeel::matmul::{Activation, Matmul, OperandFormat, Promotion};
use evenkeel::quant::{Format, Fp8, GeluKind, ScaleLayout};
use evenkeel::{DType, Device, DeviceKind, Error};
use proptest::prelude::*;

use super::super::proofs::{device, layout, other_architectures, same_bits, scattered};
use super::super::random::drawn;
use super::super::{Effort, Held, Workload};
use crate::matmul::{Addend, Case, Grouping, Values};
use crate::subject::Subject;

/// Types of results.
const OUTPUTS: [DType; 5] = [
    DType::F32,
    DType::Bf16,
    DType::F16,
    DType::E4m3,
    DType::E5m2,
];

/// Each pair of operands that products have, with each mix of elements once.
pub(crate) fn pairs() -> Vec<[OperandFormat; 2]> {
    use Format::{Fp8Block1x128, Fp8Block128x128, Fp8Row, Fp8Tensor, MxFp8};
    let (e4m3, e5m2) = (Fp8::E4m3, Fp8::E5m2);
    let quantised = |a: Format, b: Format| [a.into(), b.into()];
    vec![
        [OperandFormat::Bf16; 2],
        [OperandFormat::F16; 2],
        quantised(Fp8Tensor(e4m3), Fp8Tensor(e4m3)),
        quantised(Fp8Tensor(e5m2), Fp8Row(e4m3)),
        quantised(Fp8Row(e4m3), Fp8Tensor(e5m2)),
        quantised(Fp8Row(e4m3), Fp8Row(e4m3)),
        quantised(Fp8Block1x128(e4m3), Fp8Block128x128(e4m3)),
        quantised(Fp8Block1x128(e5m2), Fp8Block128x128(e4m3)),
        quantised(Fp8Block1x128(e4m3), Fp8Block1x128(e4m3)),
        quantised(Fp8Block1x128(e4m3), Fp8Block1x128(e5m2)),
        quantised(MxFp8(e4m3), MxFp8(e4m3)),
        quantised(MxFp8(e5m2), MxFp8(e4m3)),
    ]
}

/// Why a device does not have a product, if it has not.
fn missing(device: &Device, [a, b]: [OperandFormat; 2]) -> Result<Option<String>, String> {
    if device.kind() == DeviceKind::Cpu {
        return Ok(None);
    }
    let stream = device.stream().map_err(|error| error.to_string())?;
    match Matmul::new(a, b).prepare(&stream) {
        Ok(_) => Ok(None),
        Err(error @ Error::Unsupported { .. }) => Ok(Some(error.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

/// Checks each case whose formats the device has kernels for, on one device after the other.
fn check_all(subject: &Subject, cases: impl IntoIterator<Item = Case>) -> Result<Held, String> {
    let mut held = Held::default();
    let mut reason = None;
    for (index, case) in cases.into_iter().enumerate() {
        let device = device(subject, index)?;
        match missing(device, case.formats)? {
            None => held.check(device, &case.problem())?,
            missing => reason = missing,
        }
    }
    match reason {
        Some(reason) if held.problems == 0 => Held::skipped(reason),
        _ => Ok(held),
    }
}

fn case(index: usize, shape: [usize; 3], [a, b]: [OperandFormat; 2], dtype: DType) -> Case {
    let mut case = Case::new(shape, a, b, dtype);
    case.seed = 1000 + index as u64;
    case.scale_layout = [ScaleLayout::ColumnMajor, ScaleLayout::RowMajor][index % 2];
    case.promotion = Promotion::ALL[index / 2 % 2];
    // Half without tolerance, where the epilogue leaves it so.
    case.values = [Values::Integers, Values::Normal][index / 3 % 2];
    case
}

pub(super) fn products_of_every_pair(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut cases = Vec::new();
    for (at, pair) in pairs().into_iter().enumerate() {
        for (index, dtype) in OUTPUTS.into_iter().enumerate() {
            let shape = [[70, 40, 320], [33, 136, 200]][index % 2];
            cases.push(case(5 * at + index, shape, pair, dtype));
        }
    }
    check_all(subject, cases)
}

pub(super) fn product_shapes(subject: &Subject, effort: Effort) -> Result<Held, String> {
    let (rows, columns): (&[usize], &[usize]) = if effort == Effort::Quick {
        (&[1, 17, 129], &[1, 130])
    } else {
        (
            &[1, 2, 7, 16, 63, 64, 65, 128, 131],
            &[1, 3, 8, 65, 127, 130],
        )
    };
    let ks = [1, 15, 16, 31, 33, 96, 127, 128, 129, 257, 400];
    let pairs = pairs();
    let mut cases = Vec::new();
    for (row, m) in rows.iter().enumerate() {
        for (column, n) in columns.iter().enumerate() {
            let index = row * columns.len() + column;
            let pair = pairs[index % pairs.len()];
            let k = ks[(7 * index + row) % ks.len()];
            let mut case = case(index, [*m, *n, k], pair, OUTPUTS[index % 3]);
            if index % 3 > 0 {
                case.layouts = scattered(index);
            }
            cases.push(case);
        }
    }
    // Each remainder of K, where rows begin at 16 bytes and where they do not.
    for (index, k) in ks.into_iter().enumerate() {
        for (at, pair) in [0, 5, 6, 10].into_iter().enumerate() {
            let mut case = case(4 * index + at, [18, 10, k], pairs[pair], DType::F32);
            let aligned = k.next_multiple_of(16) - k;
            for layout in &mut case.layouts[..2] {
                layout.gap = if index % 2 == 0 { aligned } else { 0 };
            }
            cases.push(case);
        }
    }
    check_all(subject, cases)
}

pub(super) fn product_values(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut cases = Vec::new();
    for (at, pair) in pairs().into_iter().enumerate() {
        for (index, values) in Values::FINITE.into_iter().enumerate() {
            let index = 5 * at + index;
            let mut case = case(index, [20, 24, 520], pair, OUTPUTS[index % 3]);
            case.values = values;
            cases.push(case);
        }
    }
    check_all(subject, cases)
}

/// Sums that nothing rounds, of scales, groups and epilogues that round nothing either: every bit is
/// given.
pub(super) fn integers_are_exact(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut cases = Vec::new();
    for (at, pair) in pairs().into_iter().enumerate() {
        for variant in 0..4 {
            let index = 4 * at + variant;
            let mut case = case(index, [40, 33, 517], pair, OUTPUTS[variant % 3]);
            case.values = Values::Integers;
            case.grouping = match variant {
                2 => Grouping::Rows(vec![1, 2, 19, 19, 40]),
                3 => Grouping::Contraction(vec![0, 5, 200, 200, 516]),
                _ => Grouping::One,
            };
            case.scale_groups = at % 2 == 0;
            if variant != 3 {
                case.bias = Some(DType::F32);
            }
            (case.c, case.beta) = (Addend::Output, 1.0);
            (case.pre, case.amax) = (Some(DType::F32), true);
            assert!(case.is_exact());
            cases.push(case);
        }
    }
    check_all(subject, cases)
}

/// Everything after the sums, with each other part or without.
fn epilogue(index: usize, case: &mut Case) {
    const FLOATS: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];
    let float = |at: usize| FLOATS[(index / 3 + at) % 3];
    case.alpha = index
        .is_multiple_of(2)
        .then_some(0.375 - index as f32 / 64.0);
    case.bias = (!index.is_multiple_of(3)).then(|| float(0));
    case.activation = Activation::ALL[index % 4];
    case.pre = (!index.is_multiple_of(5)).then(|| float(1));
    case.amax = !index.is_multiple_of(7);
    let in_place = FLOATS.contains(&case.dtype) && case.activation != Activation::SwiGlu;
    case.c = match index % 3 {
        0 => Addend::None,
        1 if in_place => Addend::Output,
        _ => Addend::View(float(2)),
    };
    case.beta = if index % 4 == 1 { 1.0 } else { -0.7 };
}

pub(super) fn product_epilogues(subject: &Subject, effort: Effort) -> Result<Held, String> {
    let pairs = pairs();
    let count = if effort == Effort::Quick { 30 } else { 120 };
    let cases = (0..count).map(|index| {
        let shape = [[37, 26, 144], [64, 130, 128], [5, 8, 33]][index % 3];
        let dtype = OUTPUTS[index / 2 % 5];
        let mut case = case(index, shape, pairs[index % pairs.len()], dtype);
        epilogue(index, &mut case);
        // Sums of about 1, where activations bend.
        if index % 2 == 0 {
            case.alpha = Some(1e-4);
        }
        if index % 4 > 1 {
            case.layouts = scattered(index);
        }
        case
    });
    check_all(subject, cases)
}

/// Offsets of groups that leave rows before and after them.
fn offsets(index: usize) -> (usize, Vec<i64>) {
    match index % 5 {
        0 => (40, vec![0, 16, 16, 40]),
        1 => (150, vec![3, 4, 135, 150]),
        2 => (9, vec![2, 2, 2]),
        3 => (200, vec![0, 200]),
        _ => (70, vec![1, 34, 65, 65, 69]),
    }
}

pub(super) fn products_of_groups(subject: &Subject, effort: Effort) -> Result<Held, String> {
    let pairs = pairs();
    let count = if effort == Effort::Quick { 24 } else { 120 };
    let cases = (0..count).map(|index| {
        let (length, offsets) = offsets(index / 2);
        let n = [24, 130, 7, 128][index / 4 % 4];
        let pair = pairs[(index / 2) % pairs.len()];
        let dtype = OUTPUTS[index / 3 % 5];
        let mut case = if index % 2 == 0 {
            let mut case = case(index, [length, n, 140], pair, dtype);
            case.grouping = Grouping::Rows(offsets);
            case
        } else {
            let mut case = case(index, [21, n, length], pair, dtype);
            case.grouping = Grouping::Contraction(offsets);
            case
        };
        case.scale_groups = index % 3 == 0;
        if index % 4 > 1 {
            epilogue(index, &mut case);
            if matches!(case.grouping, Grouping::Contraction(_)) {
                case.bias = None;
            }
            if !case.shape[1].is_multiple_of(2) {
                case.activation = Activation::Gelu(GeluKind::Tanh);
            }
            case.layouts = scattered(index);
        }
        case
    });
    check_all(subject, cases)
}

pub(super) fn groups_that_are_none(subject: &Subject, _: Effort) -> Result<Held, String> {
    let bad = [
        vec![0, 5, 4, 9],
        vec![0, 3, 10],
        vec![-1, 3, 9],
        vec![9, 0],
        vec![0, i64::from(i32::MAX)],
    ];
    let pairs = pairs();
    let mut cases = Vec::new();
    for (index, offsets) in bad.into_iter().enumerate() {
        for (at, pair) in [pairs[0], pairs[2], pairs[5]].into_iter().enumerate() {
            let index = 3 * index + at;
            let mut case = case(index, [9, 8, 9], pair, DType::F32);
            case.grouping = if index % 2 == 0 {
                Grouping::Rows(offsets.clone())
            } else {
                Grouping::Contraction(offsets.clone())
            };
            case.amax = true;
            case.pre = Some(DType::Bf16);
            cases.push(case);
        }
    }
    check_all(subject, cases)
}

pub(super) fn what_is_not_finite_stays(subject: &Subject, _: Effort) -> Result<Held, String> {
    let cases = pairs().into_iter().enumerate().flat_map(|(at, pair)| {
        (0..2).map(move |repeat| {
            let index = 2 * at + repeat;
            let mut case = case(index, [66, 34, 150], pair, OUTPUTS[index % 5]);
            case.values = Values::Nan;
            case.amax = true;
            case
        })
    });
    check_all(subject, cases)
}

pub(super) fn products_same_bits(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut reason = None;
    for (index, pair) in pairs().into_iter().enumerate() {
        reason = missing(device(subject, index)?, pair)?;
        if reason.is_some() {
            continue;
        }
        // Small M and a long K are where a contraction may be split.
        for shape in [[3, 40, 1100], [150, 140, 260]] {
            let mut case = case(index, shape, pair, OUTPUTS[index % 3]);
            epilogue(index, &mut case);
            same_bits(&mut held, subject, &case.problem())?;
        }
    }
    match reason {
        Some(reason) if held.problems == 0 => Held::skipped(reason),
        _ => Ok(held),
    }
}

/// A case drawn at random.
#[derive(Clone, Debug)]
struct Drawn(Case);

fn cases() -> impl Strategy<Value = Drawn> {
    let shape = (1usize..80, 1usize..80, 1usize..300);
    let choices = (any::<u64>(), 0usize..12, 0usize..5, 0usize..60, 0usize..5);
    let layouts = [layout(), layout(), layout(), layout()];
    (shape, choices, 0usize..3, layouts).prop_map(|(shape, choices, grouping, layouts)| {
        let (seed, pair, dtype, parts, values) = choices;
        let pairs = pairs();
        let shape = [shape.0, shape.1, shape.2];
        let mut case = case(parts, shape, pairs[pair % pairs.len()], OUTPUTS[dtype]);
        epilogue(parts, &mut case);
        case.seed = seed;
        case.values = Values::FINITE[values];
        case.layouts = layouts;
        let length = [0, shape[0], shape[2]][grouping] as u64;
        let mut random = crate::random::Random::new(seed);
        let mut offsets: Vec<i64> = (0..1 + parts % 4 + 1)
            .map(|_| random.below(length + 1) as i64)
            .collect();
        offsets.sort_unstable();
        case.grouping = match grouping {
            0 => Grouping::One,
            1 => Grouping::Rows(offsets),
            _ => Grouping::Contraction(offsets),
        };
        case.scale_groups = parts % 2 == 0;
        if grouping == 2 {
            case.bias = None;
        }
        if case.activation == Activation::SwiGlu && !shape[1].is_multiple_of(2) {
            case.activation = Activation::None;
            if case.c == Addend::Output {
                case.c = Addend::None;
            }
        }
        Drawn(case)
    })
}

pub(super) fn random_products(subject: &Subject, effort: Effort) -> Result<Held, String> {
    let first = device(subject, 0)?;
    for pair in pairs() {
        if let Some(reason) = missing(first, pair)? {
            return Held::skipped(reason);
        }
    }
    let seed = |drawn: &Drawn| drawn.0.seed;
    drawn(subject, effort, &cases(), seed, |held, device, drawn| {
        held.check(device, &drawn.0.problem())
    })
}

pub(super) fn products_on_other_architectures(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if subject.kind() != DeviceKind::Emulated {
        return Held::skipped("the emulator has the architectures");
    }
    let devices = other_architectures()?;
    let mut held = Held::default();
    let mut reason = None;
    for (index, pair) in pairs().into_iter().enumerate() {
        for device in &devices {
            reason = missing(device, pair)?;
            if reason.is_some() {
                continue;
            }
            let mut case = case(index, [70, 66, 300], pair, OUTPUTS[index % 5]);
            epilogue(index, &mut case);
            held.check(device, &case.problem())?;
        }
    }
    match reason {
        Some(reason) if held.problems == 0 => Held::skipped(reason),
        _ => Ok(held),
    }
}

/// Several tiles, a split contraction, groups, and staging of rows that are not aligned.
pub(super) fn workloads(quick: bool) -> Vec<Workload> {
    let pairs = pairs();
    let mut workloads = Vec::new();
    let chosen: &[usize] = if quick {
        &[0, 6, 10]
    } else {
        &[0, 1, 2, 5, 6, 8, 10]
    };
    for pair in chosen {
        for (index, shape) in [[150, 140, 400], [4, 40, 1100], [20, 9, 77]]
            .into_iter()
            .enumerate()
        {
            let mut case = case(10 * pair + index, shape, pairs[*pair], DType::F32);
            case.amax = true;
            workloads.push(Workload {
                problem: Box::new(case.problem()),
                multiprocessors: 4,
            });
        }
        // On Hopper a ring that goes round, several tiles a block, and results by the copy engine, whose
        // last stores are two a warp: an odd number is waited for on the way.
        workloads.push(Workload {
            problem: Box::new(case(*pair, [300, 328, 1000], pairs[*pair], DType::Bf16).problem()),
            multiprocessors: 2,
        });
        let mut case = case(*pair, [70, 24, 70], pairs[*pair], DType::Bf16);
        case.grouping = Grouping::Rows(vec![1, 34, 65, 65, 69]);
        workloads.push(Workload {
            problem: Box::new(case.problem()),
            multiprocessors: 4,
        });
        let mut case = self::case(*pair, [70, 24, 150], pairs[*pair], DType::F32);
        case.grouping = Grouping::Contraction(vec![3, 4, 135, 150]);
        workloads.push(Workload {
            problem: Box::new(case.problem()),
            multiprocessors: 4,
        });
        // Of the last group only, so that one thread has seen it.
        let mut case = self::case(*pair, [70, 24, 70], pairs[*pair], DType::F32);
        case.grouping = Grouping::Rows(vec![0, 34, 65, 60]);
        workloads.push(Workload {
            problem: Box::new(case.problem()),
            multiprocessors: 4,
        });
    }
    workloads
}
