//! Quantisations that are wrong in the ways kernels go wrong.

use evenkeel::quant::{Format, Fp8, Hadamard, QuantizeOptions, Rounding, ScaleLayout};
use evenkeel::reference::quant::Direction;
use evenkeel::{DType, Device};

use super::super::super::Refusals;
use super::super::super::proofs::{Wrong, refuse};
use super::cases::output;
use crate::memory::Layout;
use crate::quant::compare::expected;
use crate::quant::{Case, Outcome, Problem, Values, ValuesCase, ValuesOutcome, ValuesProblem};

fn plain(format: Format) -> Problem {
    let mut case = Case::new(50, 70, DType::Bf16, format);
    let place = Layout {
        phase: 3,
        padding: 0,
        gap: 2,
    };
    for output in [&mut case.rowwise, &mut case.transposed]
        .into_iter()
        .flatten()
    {
        output.layout = place;
    }
    case.problem()
}

/// What the reference makes of the same values with other options, in place of the outcome's.
fn instead(problem: &Problem, outcome: &mut Outcome, change: impl Fn(&mut Problem)) {
    let mut other = problem.clone();
    change(&mut other);
    for (wanted, stored) in other.wanted.iter().zip(&mut outcome.stored) {
        if let Ok(made) = expected(&other, wanted) {
            stored.data.bytes = made.data;
        }
    }
}

fn e4m3_rows() -> Problem {
    plain(Format::Fp8Row(Fp8::E4m3))
}

fn mxfp4() -> Problem {
    plain(Format::MxFp4)
}

fn stochastic() -> Problem {
    let mut case = Case::new(50, 70, DType::F32, Format::MxFp8(Fp8::E5m2));
    case.options = case.options.rounding(Rounding::Stochastic { seed: 5 });
    case.offset = 9;
    case.problem()
}

fn rotated() -> Problem {
    let mut case = Case::new(48, 64, DType::Bf16, Format::NvFp4);
    let made = output(Some(Hadamard::new(16, 2)), ScaleLayout::RowMajor);
    (case.rowwise, case.transposed) = (Some(made), Some(made));
    case.problem()
}

const QUANTIZE: &[Wrong<Problem>] = &[
    Wrong {
        name: "an element one code off",
        problem: e4m3_rows,
        spoil: |_, outcome| outcome.stored[0].data.bytes[70 * 49 + 69] ^= 1,
    },
    Wrong {
        name: "the sign of one zero",
        problem: || {
            let mut case = Case::new(8, 40, DType::F32, Format::Fp8Row(Fp8::E5m2));
            case.values = Values::Zeros;
            case.problem()
        },
        spoil: |_, outcome| {
            let bytes = &mut outcome.stored[0].data.bytes;
            if let Some(zero) = bytes.iter_mut().find(|byte| **byte & 0x7f == 0) {
                *zero ^= 0x80;
            }
        },
    },
    Wrong {
        name: "rows moved by one",
        problem: e4m3_rows,
        spoil: |_, outcome| outcome.stored[0].data.bytes.rotate_right(70),
    },
    Wrong {
        name: "both nibbles of a byte the other way round",
        problem: mxfp4,
        spoil: |_, outcome| {
            for byte in outcome.stored[0].data.bytes.iter_mut().skip(700).take(1) {
                *byte = byte.rotate_left(4);
            }
        },
    },
    Wrong {
        name: "nearest where it was to be stochastic",
        problem: stochastic,
        spoil: |problem, outcome| {
            instead(problem, outcome, |other| {
                other.case.options = other.case.options.rounding(Rounding::Nearest);
            });
        },
    },
    Wrong {
        name: "the offset left out",
        problem: stochastic,
        spoil: |problem, outcome| instead(problem, outcome, |other| other.case.offset = 0),
    },
    Wrong {
        name: "random words counted along the output",
        problem: stochastic,
        spoil: |problem, outcome| {
            // Row-wise of the transposed matrix: e is column x rows + row then.
            let mut turned = problem.clone();
            let (rows, columns) = (problem.case.rows, problem.case.columns);
            turned.values = (0..rows * columns)
                .map(|at| problem.values[at % rows * columns + at / rows])
                .collect();
            (turned.case.rows, turned.case.columns) = (columns, rows);
            if let Ok(made) = expected(&turned, &turned.wanted[0]) {
                outcome.stored[1].data.bytes = made.data;
            }
        },
    },
    Wrong {
        name: "a rotation left out",
        problem: rotated,
        spoil: |problem, outcome| {
            instead(problem, outcome, |other| {
                other
                    .wanted
                    .iter_mut()
                    .for_each(|wanted| wanted.output.options.rotation = None);
            });
        },
    },
    Wrong {
        name: "signs of another seed",
        problem: rotated,
        spoil: |problem, outcome| {
            instead(problem, outcome, |other| {
                for wanted in &mut other.wanted {
                    wanted.output.options.rotation = Some(Hadamard::new(16, 3));
                }
            });
        },
    },
    Wrong {
        name: "a scale rounded down",
        problem: || {
            let mut case = Case::new(40, 40, DType::F32, Format::Fp8Row(Fp8::E4m3));
            case.options = QuantizeOptions::new(Format::Fp8Row(Fp8::E4m3)).power_of_two();
            case.problem()
        },
        spoil: |_, outcome| {
            if let Some(scales) = &mut outcome.stored[0].scales {
                // Half of it: one less in the exponent.
                let bits = u32::from_ne_bytes([
                    scales.bytes[0],
                    scales.bytes[1],
                    scales.bytes[2],
                    scales.bytes[3],
                ]) - (1 << 23);
                scales.bytes[..4].copy_from_slice(&bits.to_ne_bytes());
            }
        },
    },
    Wrong {
        name: "scales of two blocks the other way round",
        problem: || plain(Format::NvFp4),
        spoil: |_, outcome| {
            if let Some(scales) = &mut outcome.stored[1].scales
                && let Some(at) = scales.bytes.windows(2).position(|pair| pair[0] != pair[1])
            {
                scales.bytes.swap(at, at + 1);
            }
        },
    },
    Wrong {
        name: "row-major scales in a tiled layout",
        problem: || {
            Case::new(130, 70, DType::Bf16, Format::MxFp4)
                .only(Direction::RowWise, output(None, ScaleLayout::Tiled128x4))
                .problem()
        },
        spoil: |problem, outcome| {
            let mut plain = problem.clone();
            plain.wanted[0].output.options.layout = ScaleLayout::RowMajor;
            if let (Ok(made), Some(scales)) = (
                expected(&plain, &plain.wanted[0]),
                &mut outcome.stored[0].scales,
            ) && let evenkeel::reference::quant::Scales::Bytes(bytes) = made.scales
            {
                scales.bytes[..bytes.len()].copy_from_slice(&bytes);
            }
        },
    },
    Wrong {
        name: "a tensor's scale one unit off",
        problem: || plain(Format::NvFp4Square),
        spoil: |_, outcome| {
            if let Some(scale) = &mut outcome.stored[0].tensor_scale {
                scale.bytes[0] ^= 1;
            }
        },
    },
    Wrong {
        name: "an amax lowered",
        problem: || {
            let mut problem = plain(Format::Fp8Tensor(Fp8::E4m3));
            problem.wanted[0].amax = Some(vec![1e30]);
            problem
        },
        spoil: |problem, outcome| {
            let amax = problem
                .values
                .iter()
                .fold(0.0_f32, |amax, x| amax.max(x.abs()));
            if let Some(got) = &mut outcome.stored[0].amax {
                got.bytes = amax.to_ne_bytes().to_vec();
            }
        },
    },
    Wrong {
        name: "counts written where they were to be added",
        problem: e4m3_rows,
        spoil: |problem, outcome| {
            let before = problem.wanted[1].counts.unwrap_or_default();
            if let Some(counts) = &mut outcome.stored[1].counts {
                let added = counts.counts();
                let new = added.iter().zip(&before).map(|(all, before)| all - before);
                counts.bytes = new.flat_map(u32::to_ne_bytes).collect();
            }
        },
    },
    Wrong {
        name: "a write between two rows",
        problem: e4m3_rows,
        spoil: |_, outcome| outcome.stored[0].data.touched.push(3 + 70),
    },
    Wrong {
        name: "an output never written",
        problem: mxfp4,
        spoil: |_, outcome| {
            let bytes = &mut outcome.stored[1].data.bytes;
            bytes.fill(crate::quant::bits::AROUND);
        },
    },
    Wrong {
        name: "a block that is not finite, and nothing told",
        problem: || {
            let mut problem = mxfp4();
            problem.x.values[100] = f64::NAN;
            problem.values[100] = f32::NAN;
            problem
        },
        spoil: |_, outcome| outcome.status = evenkeel::Status::empty(),
    },
];

fn values() -> ValuesProblem {
    ValuesCase::new(20, 48, DType::Bf16, Format::NvFp4).problem()
}

const DEQUANTIZE: &[Wrong<ValuesProblem>] = &[
    Wrong {
        name: "a value one unit off",
        problem: values,
        spoil: |_, outcome| outcome.values.bytes[2 * 100] ^= 1,
    },
    Wrong {
        name: "values cut off where they were to be rounded",
        problem: || ValuesCase::new(64, 64, DType::Bf16, Format::Fp8Tensor(Fp8::E4m3)).problem(),
        spoil: cut_off,
    },
    Wrong {
        name: "a scale of the neighbour",
        problem: values,
        spoil: |problem, outcome| {
            let mut other = problem.clone();
            other.scales.rotate_left(1);
            if let Ok(values) = other.expected() {
                let bits = values.iter().map(|&x| half::bf16::from_f64(x));
                outcome.values.bytes = bits.flat_map(|x| x.to_ne_bytes()).collect();
            }
        },
    },
];

/// Values cut off where they were to be rounded.
fn cut_off(problem: &ValuesProblem, outcome: &mut ValuesOutcome) {
    let mut single = problem.clone();
    single.case.dtype = DType::F32;
    if let Ok(values) = single.expected() {
        let cut = |x: f64| (x as f32).to_bits() >> 16;
        let bytes = values.iter().flat_map(|&x| (cut(x) as u16).to_ne_bytes());
        outcome.values.bytes = bytes.collect();
    }
}

/// The right outcomes are taken, and the spoilt ones refused.
pub(in super::super) fn refusals(device: &Device, refusals: &mut Refusals) {
    refuse(device, QUANTIZE, refusals);
    refuse(device, DEQUANTIZE, refusals);
}
