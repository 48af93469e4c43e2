//! The properties of straight-through gradients.

use evenkeel::quant::{Estimator, StraightThrough};
use evenkeel::{DType, Device};
use proptest::prelude::*;

use super::super::proofs::{
    Budget, Wrong, device, layout, other_architectures, refuse, same_bits, scattered, within,
};
use super::super::random::drawn;
use super::super::{Effort, Held, Refusals, Workload, emulated, names};
use crate::norm::rows::cases::FLOATS;
use crate::numbers::round_to;
use crate::quant::Values;
use crate::quant::straight_through::{Case, Problem};
use crate::subject::Subject;

/// Masks of each format, with scales and without, and roots of several degrees.
fn estimators() -> Vec<(Estimator, Option<f32>)> {
    let mask = |largest, scale| (Estimator::Saturation { largest }, scale);
    let steep = Estimator::Reste {
        o: 7.5,
        threshold: 3.0,
        interval: 1e-3,
    };
    vec![
        mask(448.0, Some(1.0 / 448.0)),
        mask(57344.0, Some(3e-5)),
        mask(6.0, Some(0.123)),
        mask(1.0, None),
        mask(448.0, Some(f32::from_bits(3))),
        mask(448.0, Some(1e38)),
        (Estimator::reste(1.0), None),
        (Estimator::reste(3.0), None),
        (steep, None),
    ]
}

/// Each estimator, kind of values and type, apart and in place.
pub(super) fn straight_through_values_and_types(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for (estimator, scale) in estimators() {
        for values in Values::ALL {
            for dtype in FLOATS {
                let mut case = Case::new(5, 72, dtype, estimator);
                case.scale = scale;
                case.values = values;
                case.dtypes[1] = FLOATS[index % 3];
                case.dtypes[2] = FLOATS[index / 3 % 3];
                case.in_place = index % 4 == 3;
                case.seed = 100 + index as u64;
                held.check(device(subject, index)?, &case.problem())?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// One element, primes, more than a piece of a block, every alignment, rows with gaps.
pub(super) fn straight_through_shapes(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let estimators = estimators();
    let sizes = [
        (1, 1),
        (3, 5),
        (7, 37),
        (64, 8),
        (200, 20),
        (2, 4097),
        (3, 8200),
        (1, 20_000),
        (5000, 3),
    ];
    for (index, (rows, columns)) in sizes.into_iter().enumerate() {
        for (at, dtype) in FLOATS.into_iter().enumerate() {
            for places in 0..3 {
                let number = 9 * index + 3 * at + places;
                let (estimator, scale) = estimators[number % estimators.len()];
                let mut case = Case::new(rows, columns, dtype, estimator);
                case.scale = scale;
                if places > 0 {
                    let [x, dy, dx, _] = scattered(number);
                    case.layouts = [x, dy, dx];
                }
                case.in_place = places == 2;
                case.seed = 500 + number as u64;
                held.check(device(subject, number)?, &case.problem())?;
            }
        }
    }
    Ok(held)
}

/// x at the edge of saturation, a unit to either side: as the quotient rounds.
pub(super) fn straight_through_edges(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let scales = [
        1.0,
        0.1,
        1.0 / 3.0,
        7e-42,
        6e35,
        0.0,
        -0.5,
        f32::NAN,
        f32::INFINITY,
    ];
    for (index, scale) in scales.into_iter().enumerate() {
        for largest in [448.0_f32, 57344.0, 6.0] {
            let mut case = Case::new(1, 64, DType::F32, Estimator::Saturation { largest });
            case.scale = Some(scale);
            let mut problem = case.problem();
            let mut edge = (scale * largest).abs().min(f32::MAX);
            for _ in 0..16 {
                edge = edge.next_down().max(0.0);
            }
            for x in problem.x.values.chunks_mut(2) {
                x[0] = edge.into();
                x[1] = f64::from(-edge);
                edge = edge.next_up().min(f32::MAX);
            }
            problem.name = format!("the edge of {largest} times {scale:e}");
            held.check(device(subject, index)?, &problem)?;
        }
    }
    Ok(held)
}

/// Schedules, device sizes and how often it runs change no bit.
pub(super) fn straight_through_same_bits(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, (estimator, scale)) in estimators().into_iter().enumerate() {
        let mut case = Case::new(30, 640, FLOATS[index % 3], estimator);
        case.scale = scale;
        case.in_place = index % 2 == 0;
        same_bits(&mut held, subject, &case.problem())?;
    }
    Ok(held)
}

/// One read of x and dy, one write of dx.
pub(super) fn straight_through_traffic(subject: &Subject, _: Effort) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    for (index, (estimator, scale)) in estimators().into_iter().enumerate() {
        let dtype = FLOATS[index % 3];
        let columns = [512, 4099][index % 2];
        let mut case = Case::new(8, columns, dtype, estimator);
        case.scale = scale;
        let bytes = 8 * columns * dtype.size();
        let budget = Budget {
            loads: 2 * bytes,
            stores: bytes,
            // The scale, for each warp.
            more: 4 * 8 * 32,
        };
        within(&mut held, device(subject, 0)?, &case.problem(), &budget)?;
    }
    Ok(held)
}

/// With the limits of other GPUs.
pub(super) fn straight_through_on_other_architectures(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("architectures are the emulator's to choose");
    }
    let mut held = Held::default();
    for device in other_architectures()? {
        for (estimator, scale) in estimators() {
            let mut case = Case::new(9, 100, DType::Bf16, estimator);
            case.scale = scale;
            held.check(&device, &case.problem())?;
        }
    }
    Ok(held)
}

fn case() -> impl Strategy<Value = Case> {
    let estimator = prop_oneof![
        (
            prop::sample::select(vec![448.0_f32, 57344.0, 6.0, 1.0]),
            prop::option::of(1e-6_f32..10.0),
        )
            .prop_map(|(largest, scale)| (Estimator::Saturation { largest }, scale)),
        (1.0_f32..10.0, 0.5_f32..4.0, 1e-4_f32..1.0).prop_map(|(o, threshold, interval)| {
            let estimator = Estimator::Reste {
                o,
                threshold,
                interval,
            };
            (estimator, None)
        }),
    ];
    let float = || prop::sample::select(FLOATS.to_vec());
    (
        (1usize..60, 1usize..300),
        estimator,
        [float(), float(), float()],
        [layout(), layout(), layout()],
        prop::sample::select(Values::ALL.to_vec()),
        (any::<bool>(), any::<u64>()),
    )
        .prop_map(
            |((rows, columns), (estimator, scale), dtypes, layouts, values, (in_place, seed))| {
                Case {
                    rows,
                    columns,
                    estimator,
                    scale,
                    dtypes,
                    layouts,
                    values,
                    in_place,
                    seed,
                }
            },
        )
}

/// What fails is made small before it is told.
pub(super) fn straight_through_random_problems(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    drawn(
        subject,
        effort,
        &case(),
        |case| case.seed,
        |held, device, case| held.check(device, &case.problem()),
    )
}

/// On every device: each argument that does not fit, and nothing at all.
pub(super) fn straight_through_wrong_arguments(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let check = || -> evenkeel::Result<Result<(), String>> {
        let stream = subject.device(0)?.stream()?;
        let mask = StraightThrough::new(Estimator::Saturation { largest: 448.0 });
        let mask = mask.prepare(&stream)?;
        let reste = StraightThrough::new(Estimator::reste(2.0)).prepare(&stream)?;
        let x = stream.zeros(DType::F32, &[4, 10])?;
        let narrow = stream.zeros(DType::F32, &[4, 9])?;
        let one = stream.zeros(DType::F32, &[1])?;
        let mut integers = stream.zeros(DType::I32, &[4, 10])?;
        let none = x.view().slice_columns(0..0)?;
        let checks = [
            (
                "no columns",
                mask.backward(none, None, none).map(|_| ()),
                "x",
            ),
            (
                "narrow gradients",
                mask.backward(x.view(), None, narrow.view()).map(|_| ()),
                "dy",
            ),
            (
                "integers",
                mask.backward_in_place(x.view(), None, integers.view_mut()),
                "dy",
            ),
            (
                "a scale of four",
                mask.backward(x.view(), Some(x.view().slice_columns(0..1)?), x.view())
                    .map(|_| ()),
                "scale",
            ),
            (
                "a scale of ReSTE",
                reste
                    .backward(x.view(), Some(one.view()), x.view())
                    .map(|_| ()),
                "scale",
            ),
        ];
        for (what, result, argument) in checks {
            if let Err(wrong) = names(what, result, argument) {
                return Ok(Err(wrong));
            }
        }
        let nothing = x.view().slice_rows(0..0)?;
        mask.backward(nothing, Some(one.view()), nothing)?;
        Ok(Ok(()))
    };
    check().map_err(|error| error.to_string())??;
    Ok(Held {
        problems: 1,
        ..Held::default()
    })
}

/// Each kind of kernel.
pub(super) fn workloads(_: bool) -> Vec<Workload> {
    [(40, DType::Bf16), (40, DType::F32), (37, DType::Bf16)]
        .into_iter()
        .map(|(columns, dtype)| {
            let estimator = Estimator::Saturation { largest: 6.0 };
            let mut case = Case::new(9, columns, dtype, estimator);
            case.scale = Some(0.2);
            Workload {
                problem: Box::new(case.problem()),
                multiprocessors: 1,
            }
        })
        .collect()
}

fn masked() -> Problem {
    let mut case = Case::new(4, 40, DType::F32, Estimator::Saturation { largest: 6.0 });
    case.scale = Some(0.1);
    case.problem()
}

fn rooted() -> Problem {
    Case::new(4, 40, DType::F32, Estimator::reste(3.0)).problem()
}

/// Every way to be wrong.
const REFUSED: &[Wrong<Problem>] = &[
    Wrong {
        name: "a mask that forgets the scale",
        problem: masked,
        spoil: |problem, outcome| {
            let dy = problem.dy.row(1).to_vec();
            outcome.dx.row_mut(1).copy_from_slice(&dy);
        },
    },
    Wrong {
        name: "1 in place of the gradient",
        problem: masked,
        spoil: |_, outcome| {
            for dx in outcome.dx.row_mut(2) {
                *dx = f64::from(u8::from(*dx != 0.0));
            }
        },
    },
    Wrong {
        name: "a root without its 1/o",
        problem: rooted,
        spoil: |_, outcome| {
            for dx in outcome.dx.row_mut(0) {
                *dx = round_to(DType::F32, *dx * 3.0);
            }
        },
    },
    Wrong {
        name: "a slope 2^-18 off",
        problem: rooted,
        spoil: |_, outcome| {
            for dx in outcome.dx.row_mut(0) {
                *dx = round_to(DType::F32, *dx * (1.0 + (-18.0_f64).exp2()));
            }
        },
    },
    Wrong {
        name: "no end at the threshold",
        problem: rooted,
        spoil: |problem, outcome| {
            for row in 0..4 {
                let dy = problem.dy.row(row).to_vec();
                for (dx, dy) in outcome.dx.row_mut(row).iter_mut().zip(dy) {
                    if *dx == 0.0 {
                        *dx = dy / 4.0;
                    }
                }
            }
        },
    },
];

/// Results made wrong on purpose.
pub(super) fn refusals(device: &Device, all: &mut Refusals) {
    refuse(device, REFUSED, all);
}
