//! The properties of `GaussWs`.

use evenkeel::quant::{GaussWs, NoiseGradients};
use evenkeel::{DType, Device};
use proptest::prelude::*;

use super::super::proofs::{
    Budget, Wrong, computed, device, layout, other_architectures, refuse, same_bits, scattered,
    within,
};
use super::super::random::drawn;
use super::super::{Effort, Held, Refusals, Workload, emulated, expect, names};
use crate::norm::placed::Matrix;
use crate::norm::rows::cases::FLOATS;
use crate::numbers::round_to;
use crate::quant::Values;
use crate::quant::gauss::{Case, Problem};
use crate::subject::Subject;

/// Each kind of weights, each type of each tensor, gradients added and not, with dw and without.
pub(super) fn gauss_values_and_types(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for values in Values::ALL {
        for from in FLOATS {
            for to in FLOATS {
                let mut case = Case::new(45, 72, from);
                case.dtypes = [from, to, to, FLOATS[index % 3]];
                case.values = values;
                case.dw = index % 3 != 0;
                case.accumulate = index % 2 == 1;
                case.seed = 100 + index as u64;
                case.offsets = (index as u64, (index % 4 == 0).then_some(-3));
                held.check(device(subject, index)?, &case.problem())?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// One element, primes, the edges of blocks and of a block of threads, every alignment.
pub(super) fn gauss_shapes(subject: &Subject, effort: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let sizes: &[usize] = if effort == Effort::Quick && emulated(subject) {
        &[1, 4, 31, 36, 257]
    } else {
        &[1, 2, 3, 4, 8, 31, 32, 33, 36, 40, 64, 255, 256, 257, 520]
    };
    let mut index = 0;
    for &rows in sizes {
        for &columns in sizes {
            let mut case = Case::new(rows, columns, FLOATS[index % 3]);
            case.dtypes[1] = FLOATS[index / 3 % 3];
            case.dtypes[2] = FLOATS[index / 2 % 3];
            case.dw = index % 2 == 0;
            if index % 3 != 0 {
                case.layouts = scattered(index);
            }
            case.seed = 300 + index as u64;
            held.check(device(subject, index)?, &case.problem())?;
            index += 1;
        }
    }
    Ok(held)
}

/// Bits far from any that are meant, NaN among them, of weights of every size.
pub(super) fn gauss_extremes(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let odd = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        -126.0,
        -125.5,
        127.0,
        128.0,
        1e-30,
        0.0,
    ];
    for (index, values) in Values::ALL.into_iter().enumerate() {
        for dtype in FLOATS {
            let mut case = Case::new(64, 160, dtype);
            case.values = values;
            case.seed = 500 + index as u64;
            let mut problem = case.problem();
            problem.bits.copy_from_slice(&odd);
            problem.name += ", bits far off";
            held.check(device(subject, index)?, &problem)?;
        }
    }
    // Gradients that are not finite are their blocks' alone.
    let mut problem = Case::new(64, 64, DType::F32).problem();
    for (at, value) in [(0, f64::NAN), (40, f64::INFINITY)] {
        problem.dnoisy.values[at] = value;
    }
    problem.name += ", gradients not finite";
    let outcome = computed(&mut held, device(subject, 0)?, &problem)?;
    let dbits = outcome.dbits.values();
    expect("a gradient of NaN", dbits[0].is_nan(), &problem)?;
    expect("others", dbits[2..].iter().all(|x| x.is_finite()), &problem)?;
    Ok(held)
}

/// Weights of which one in each block is 1, the others 0, with b = 1: w^ - w is R.
fn bare_noise(rows: usize, columns: usize, offset: u64) -> Problem {
    let mut case = Case::new(rows, columns, DType::F32);
    case.offsets = (offset, None);
    case.seed = 77;
    let mut problem = case.problem();
    let place = problem.w.place.clone();
    let corner = |at: usize| (at / columns).is_multiple_of(32) && (at % columns).is_multiple_of(32);
    let values = (0..rows * columns).map(|at| f64::from(u8::from(corner(at))));
    problem.w = Matrix::new(place, values);
    problem.bits.fill(1.0);
    problem.name = format!("bare noise, [{rows}, {columns}], offset {offset}");
    problem
}

/// Frequencies and correlations of R against round(N(0, 1) / 2).
///
/// Each statistic is a sum of n terms with a known mean and variance, and refused beyond 6.5 standard
/// deviations: 8e-11 each, by the normal approximation. |R| = 3 has 6 in 10^7, of which n = 2^18 has
/// 0.15 on average: 5 or more of them have a probability below 1e-6 at most, and it is 5e-7; 8 or more
/// 6e-12, which is what is refused. In all less than 1e-9.
pub(super) fn gauss_noise_is_a_rounded_normal(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    const LIMIT: f64 = 6.5;
    let mut held = Held::default();
    let rows = if effort == Effort::Quick && emulated(subject) {
        128
    } else {
        256
    };
    let columns = 1024;
    let noise = |held: &mut Held, offset| -> Result<(Problem, Vec<f64>), String> {
        let problem = bare_noise(rows, columns, offset);
        let outcome = computed(held, device(subject, 0)?, &problem)?;
        let pairs = outcome.noisy.values().into_iter().zip(&problem.w.values);
        let r = pairs.map(|(noisy, w)| noisy - w).collect();
        Ok((problem, r))
    };
    let (problem, r) = noise(&mut held, 5)?;
    let (_, other) = noise(&mut held, 6)?;
    let n = r.len() as f64;
    // P(|N| >= 1), P(|N| >= 3), P(|N| >= 5).
    let tails = [
        0.317_310_507_862_914,
        0.002_699_796_063_260,
        5.733_031_437e-7,
    ];
    let check = |what: &str, sum: f64, mean: f64, variance: f64| -> Result<(), String> {
        let deviations = (sum - n * mean) / (n * variance).sqrt();
        let what = format!("{what}: {deviations:.2} standard deviations off");
        expect(&what, deviations.abs() < LIMIT, &problem)
    };
    for (size, p) in [(1.0, tails[0] - tails[1]), (2.0, tails[1] - tails[2])] {
        for sign in [1.0, -1.0] {
            let count = r.iter().filter(|&&r| r == sign * size).count() as f64;
            let p = p / 2.0;
            check("a frequency", count, p, p * (1.0 - p))?;
        }
    }
    let largest = r.iter().filter(|r| r.abs() >= 3.0).count();
    expect("few of the largest", largest < 8, &problem)?;
    expect("none beyond", r.iter().all(|r| r.abs() <= 3.0), &problem)?;
    let square = (tails[0] - tails[1]) + 4.0 * (tails[1] - tails[2]) + 9.0 * tails[2];
    check("the mean", r.iter().sum(), 0.0, square)?;
    // Neighbours in a row, in a column, a block further, and at another offset.
    for apart in [1, columns, 32] {
        let products = r.iter().zip(&r[apart..]).map(|(a, b)| a * b);
        check("a correlation", products.sum(), 0.0, square * square)?;
    }
    let products = r.iter().zip(&other).map(|(a, b)| a * b);
    check(
        "a correlation of offsets",
        products.sum(),
        0.0,
        square * square,
    )?;
    Ok(held)
}

/// Schedules, device sizes and how often it runs change no bit; nor does where tensors lie, nor
/// which type a gradient's values come in.
pub(super) fn gauss_same_bits(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, (rows, columns)) in [(70, 328), (33, 513)].into_iter().enumerate() {
        let mut case = Case::new(rows, columns, [DType::Bf16, DType::F32][index]);
        case.dw = true;
        case.seed = 700 + index as u64;
        same_bits(&mut held, subject, &case.problem())?;
    }
    // Values of bf16, as f32 and elsewhere: other kernels, one result.
    let mut case = Case::new(66, 264, DType::Bf16);
    case.seed = 710;
    let problem = case.problem();
    let first = computed(&mut held, device(subject, 0)?, &problem)?;
    for (index, gap) in [0, 1, 4].into_iter().enumerate() {
        let mut other = problem.clone();
        other.name += ", lying elsewhere";
        for tensor in [&mut other.w, &mut other.dnoisy] {
            tensor.place.dtype = [DType::F32, DType::Bf16, DType::Bf16][index];
            tensor.place.layout.gap = gap;
        }
        let again = computed(&mut held, device(subject, 0)?, &other)?;
        let same = first.noisy.values() == again.noisy.values()
            && first.amax.bits() == again.amax.bits()
            && first.dbits.bits() == again.dbits.bits();
        expect("the same bits", same, &other)?;
    }
    Ok(held)
}

/// One read and one write of the weights, one read of their gradient.
pub(super) fn gauss_traffic(subject: &Subject, _: Effort) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    for (rows, columns, dtype) in [
        (96, 1024, DType::Bf16),
        (64, 512, DType::F32),
        (40, 333, DType::Bf16),
    ] {
        let mut case = Case::new(rows, columns, dtype);
        case.dw = rows == 64;
        case.offsets = (1, Some(2));
        let problem = case.problem();
        let (bytes, blocks) = (rows * columns * dtype.size(), problem.bits.len());
        let budget = Budget {
            loads: 2 * bytes + 12 * blocks,
            stores: (if case.dw { 2 } else { 1 }) * bytes + 8 * blocks,
            // The offset on the device, for each block in each pass.
            more: 16 * blocks,
        };
        within(&mut held, device(subject, 0)?, &problem, &budget)?;
    }
    Ok(held)
}

/// With the limits of other GPUs.
pub(super) fn gauss_on_other_architectures(subject: &Subject, _: Effort) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("architectures are the emulator's to choose");
    }
    let mut held = Held::default();
    for device in other_architectures()? {
        for dtype in FLOATS {
            held.check(&device, &Case::new(40, 300, dtype).problem())?;
        }
    }
    Ok(held)
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (1usize..150, 1usize..400);
    let float = || prop::sample::select(FLOATS.to_vec());
    (
        shape,
        [float(), float(), float(), float()],
        [layout(), layout(), layout(), layout()],
        prop::sample::select(Values::ALL.to_vec()),
        (any::<u64>(), prop::option::of(any::<i64>())),
        (any::<bool>(), any::<bool>(), any::<u64>()),
    )
        .prop_map(
            |((rows, columns), dtypes, layouts, values, offsets, (dw, accumulate, seed))| Case {
                rows: rows.min(1 + 20_000 / columns),
                columns,
                dtypes,
                layouts,
                values,
                bits: [-2.0, 12.0],
                dw,
                accumulate,
                offsets,
                seed,
            },
        )
}

/// What fails is made small before it is told.
pub(super) fn gauss_random_problems(subject: &Subject, effort: Effort) -> Result<Held, String> {
    drawn(
        subject,
        effort,
        &case(),
        |case| case.seed,
        |held, device, case| held.check(device, &case.problem()),
    )
}

/// On every device: each argument that does not fit, and weights without rows.
pub(super) fn gauss_wrong_arguments(subject: &Subject, _: Effort) -> Result<Held, String> {
    let check = || -> evenkeel::Result<Result<(), String>> {
        let stream = subject.device(0)?.stream()?;
        let op = GaussWs::new(1).prepare(&stream)?;
        let w = stream.zeros(DType::Bf16, &[40, 64])?;
        let (b, mut amax) = (
            stream.zeros(DType::F32, &[2, 2])?,
            stream.zeros(DType::F32, &[2, 2])?,
        );
        let other = stream.zeros(DType::F32, &[2, 3])?;
        let mut narrow = stream.zeros(DType::Bf16, &[40, 63])?;
        let mut memory = stream.zeros(DType::F32, &[40 * 64 + 1])?;
        let none = w.view().slice_columns(0..0)?;
        let checks = [
            ("no columns", op.forward(none, b.view(), 0).map(|_| ()), "w"),
            (
                "blocks of another shape",
                op.forward(w.view(), other.view(), 0).map(|_| ()),
                "bits",
            ),
            (
                "narrow weights",
                op.forward_into(w.view(), b.view(), 0, narrow.view_mut(), amax.view_mut()),
                "weights",
            ),
            (
                "another amax",
                op.backward(w.view(), b.view(), other.view(), 0).map(|_| ()),
                "amax",
            ),
        ];
        for (what, result, argument) in checks {
            if let Err(wrong) = names(what, result, argument) {
                return Ok(Err(wrong));
            }
        }
        // dw over a part of dw^.
        let held = memory.view_mut();
        let gradient = held.as_ref().slice_rows(1..2561)?.reshape(&[40, 64])?;
        // SAFETY: refused before anything is read or written.
        let overlapping = unsafe {
            evenkeel::TensorMut::from_raw(
                gradient.device(),
                DType::F32,
                gradient.address() - 4,
                &[40, 64],
                None,
            )?
        };
        let gradients = NoiseGradients::new(amax.view_mut()).dw(overlapping);
        let result = op.backward_into(gradient, b.view(), b.view(), 0, gradients);
        if let Err(wrong) = names("dw over dw^", result, "dw") {
            return Ok(Err(wrong));
        }
        let empty = stream.zeros(DType::F32, &[0, 2])?;
        let nothing = op.forward(w.view().slice_rows(0..0)?, empty.view(), 0)?;
        Ok(
            if nothing.weights.elements() + nothing.amax.elements() == 0 {
                Ok(())
            } else {
                Err("weights without rows have results".into())
            },
        )
    };
    check().map_err(|error| error.to_string())??;
    Ok(Held {
        problems: 1,
        ..Held::default()
    })
}

/// Each kind of kernel.
pub(super) fn workloads(_: bool) -> Vec<Workload> {
    [
        (64, 256, DType::Bf16),
        (40, 100, DType::F32),
        (33, 37, DType::Bf16),
    ]
    .into_iter()
    .map(|(rows, columns, dtype)| {
        let mut case = Case::new(rows, columns, dtype);
        case.offsets = (1, Some(1));
        Workload {
            problem: Box::new(case.problem()),
            multiprocessors: 1,
        }
    })
    .collect()
}

fn plain() -> Problem {
    Case::new(40, 70, DType::F32).problem()
}

/// Every way to be wrong.
const REFUSED: &[Wrong<Problem>] = &[
    Wrong {
        name: "the noise of the next offset",
        problem: plain,
        spoil: |problem, outcome| {
            let mut next = problem.clone();
            next.offsets.0 += 1;
            if let Ok(stream) = Device::cpu().stream()
                && let Ok(spoilt) = crate::quant::gauss::run_on(&stream, &next)
            {
                outcome.noisy = spoilt.noisy;
            }
        },
    },
    Wrong {
        name: "a step of 2^-b",
        problem: plain,
        spoil: |problem, outcome| {
            for row in 0..40 {
                let w = problem.w.row(row).to_vec();
                for (noisy, w) in outcome.noisy.row_mut(row).iter_mut().zip(w) {
                    *noisy = round_to(DType::F32, w + (*noisy - w) / 2.0);
                }
            }
        },
    },
    Wrong {
        name: "an amax with its sign",
        problem: plain,
        spoil: |problem, outcome| {
            let largest = problem.w.row(0)[..32].iter().copied().fold(0.0, f64::max);
            outcome.amax.row_mut(0)[0] = largest / 2.0;
        },
    },
    Wrong {
        name: "a gradient without ln 2",
        problem: plain,
        spoil: |_, outcome| {
            let db = &mut outcome.dbits.row_mut(0)[1];
            *db = round_to(DType::F32, *db / std::f64::consts::LN_2);
        },
    },
    Wrong {
        name: "a gradient one unit off",
        problem: plain,
        spoil: |_, outcome| {
            let db = &mut outcome.dbits.row_mut(1)[2];
            *db = f64::from((*db as f32).next_up());
        },
    },
    Wrong {
        name: "a write past the weights",
        problem: || {
            let mut case = Case::new(40, 70, DType::F32);
            case.layouts = scattered(3);
            case.problem()
        },
        spoil: |_, outcome| outcome.noisy.memory[0] = 0.0,
    },
];

/// Results made wrong on purpose.
pub(super) fn refusals(device: &Device, all: &mut Refusals) {
    refuse(device, REFUSED, all);
}
