//! The properties of the activations.

mod fused;
mod rejection;

use evenkeel::DType;
use evenkeel::quant::Smoothing;
use evenkeel::reference::quant::activation::Function;
use proptest::prelude::*;

use super::super::proofs::{
    Budget, computed, device, layout, other_architectures, same_bits, scattered, within,
};
use super::super::random::drawn;
use super::super::{Effort, Held, Workload, emulated, expect};
use crate::norm::rows::cases::FLOATS;
use crate::quant::activation::problem::FUNCTIONS;
use crate::quant::activation::{Case, Values};
use crate::subject::Subject;

pub(super) use self::fused::{
    quantised_activation_traffic, quantised_activations_are_both_steps,
    quantised_activations_of_groups, quantised_activations_on_other_architectures,
};
pub(super) use self::rejection::refusals;

const SMOOTHINGS: [Option<Smoothing>; 3] = [None, Some(Smoothing::Channel), Some(Smoothing::Token)];

/// Each function, smoothing, type and way to draw, in one matrix or in two, anywhere in memory.
pub(super) fn activations_and_gradients(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for function in FUNCTIONS {
        for values in Values::ALL {
            for smoothing in SMOOTHINGS {
                for dtype in FLOATS {
                    let mut case = Case::new(function, 9, 40 + index % 3, dtype);
                    (case.values, case.smoothing) = (values, smoothing);
                    case.packed = index % 2 == 0;
                    case.given = index % 5 == 0;
                    case.layouts = scattered(index);
                    case.seed = 100 + index as u64;
                    held.check(device(subject, index)?, &case.problem())?;
                    index += 1;
                }
            }
        }
    }
    Ok(held)
}

/// Rows of every length and number: within a unit, of several blocks, more than a block's rows.
pub(super) fn activation_shapes(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let shapes = [
        (1, 1),
        (3, 7),
        (2, 8),
        (700, 3),
        (130, 24),
        (33, 136),
        (5, 2047),
        (4, 2048),
        (3, 2056),
        (2, 4100),
        (0, 16),
    ];
    for (index, (tokens, channels)) in shapes.into_iter().enumerate() {
        for function in FUNCTIONS {
            let mut case = Case::new(function, tokens, channels, FLOATS[index % 3]);
            case.smoothing = SMOOTHINGS[(index + 1) % 3];
            case.packed = index % 2 == 1;
            // A type for each tensor.
            case.types = std::array::from_fn(|at| FLOATS[(index + at * (index % 2)) % 3]);
            case.seed = 300 + index as u64;
            held.check(device(subject, index)?, &case.problem())?;
        }
    }
    Ok(held)
}

/// silu(-x) = -x e^-x and its like: the tails keep the digits that 1 + e^-x has not, to 2^-12 of
/// themselves.
pub(super) fn activation_tails_keep_their_digits(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, function) in FUNCTIONS.into_iter().enumerate() {
        let mut problem = Case::new(function, 2, 24, DType::F32).problem();
        let width = problem.inputs[0].place.width();
        for (at, x) in problem.inputs[0].values.iter_mut().enumerate() {
            // Up, where there is one, is 1.
            let gate = at % width < 24;
            let depth = if function == Function::SwiGlu {
                3.0
            } else {
                0.3
            };
            *x = if gate {
                -1.0 - depth * (at % width) as f64
            } else {
                1.0
            };
        }
        problem.inputs[0]
            .values
            .iter_mut()
            .for_each(|x| *x = f64::from(*x as f32));
        let outcome = computed(&mut held, device(subject, index)?, &problem)?;
        for (at, got) in outcome.y.row(1).iter().enumerate() {
            let x = problem.inputs[0].row(1)[at];
            let want = evenkeel::reference::quant::activation::value(function, x);
            let near = (got - want).abs() <= (-12.0_f64).exp2() * want.abs();
            expect("a tail with its digits", near, &problem)?;
        }
    }
    Ok(held)
}

/// NaN and infinities have the values of the formulas, in their elements alone; scales leave them out.
pub(super) fn activations_of_what_is_not_finite(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for function in FUNCTIONS {
        for poison in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for dtype in FLOATS {
                for at in [3, 41] {
                    let mut case = Case::new(function, 4, 20, dtype);
                    case.smoothing = SMOOTHINGS[index % 3];
                    case.seed = 500 + index as u64;
                    let mut problem = case.problem();
                    problem.inputs[0].values[at] = poison;
                    if index % 2 == 0 {
                        problem.dy.values[50] = poison;
                    }
                    problem.name = format!("{}, element {at} is {poison}", problem.name);
                    held.check(device(subject, index)?, &problem)?;
                    index += 1;
                }
            }
        }
    }
    Ok(held)
}

/// No linear branch at all has scales of 1.
pub(super) fn smoothing_of_nothing(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, smoothing) in [Smoothing::Channel, Smoothing::Token]
        .into_iter()
        .enumerate()
    {
        for dtype in FLOATS {
            let mut case = Case::new(Function::SwiGlu, 5, 48, dtype);
            (case.smoothing, case.packed) = (Some(smoothing), false);
            let mut problem = case.problem();
            problem.inputs[1].values.fill(-0.0);
            let outcome = computed(&mut held, device(subject, index)?, &problem)?;
            let scales = outcome.scales.map(|scales| scales.values());
            let ones = scales.is_some_and(|scales| scales.iter().all(|&scale| scale == 1.0));
            expect("scales of 1", ones, &problem)?;
        }
    }
    Ok(held)
}

/// Runs, schedules and device sizes give the same bits.
pub(super) fn activations_same_bits(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, function) in FUNCTIONS.into_iter().enumerate() {
        let mut case = Case::new(function, 300, 72, FLOATS[index]);
        case.smoothing = SMOOTHINGS[1 + index % 2];
        same_bits(&mut held, subject, &case.problem())?;
    }
    Ok(held)
}

/// Inputs are read once and results written once; scales read up once more.
pub(super) fn activation_traffic(subject: &Subject, _: Effort) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    for function in FUNCTIONS {
        for (tokens, channels, dtype) in [(64, 1024, DType::Bf16), (8, 4096, DType::F32)] {
            for smoothing in SMOOTHINGS {
                let gated = function == Function::SwiGlu;
                let Some(smoothing) = smoothing.filter(|_| gated) else {
                    if smoothing.is_some() {
                        continue;
                    }
                    let problem = Case::new(function, tokens, channels, dtype).problem();
                    let bytes = tokens * channels * dtype.size();
                    let branches = if gated { 2 } else { 1 };
                    // Forward: branches and y; backward: branches, dy and as many gradients.
                    let budget = Budget {
                        loads: bytes * (2 * branches + 1),
                        stores: bytes * (1 + branches),
                        more: 0,
                    };
                    within(&mut held, device(subject, 0)?, &problem, &budget)?;
                    continue;
                };
                let mut case = Case::new(function, tokens, channels, dtype);
                case.smoothing = Some(smoothing);
                let bytes = tokens * channels * dtype.size();
                let scales = 4 * smoothing.scales(tokens, channels);
                // A thread loads its columns' scales once, and a row's for each of its units.
                let of_units = match smoothing {
                    Smoothing::Channel => channels * tokens * 4 * 3 / 2,
                    _ => 2 * tokens * channels / 8 * 4,
                };
                let budget = Budget {
                    loads: 6 * bytes,
                    stores: 3 * bytes + scales,
                    more: of_units,
                };
                within(&mut held, device(subject, 0)?, &case.problem(), &budget)?;
            }
        }
    }
    Ok(held)
}

/// On GPUs with other limits.
pub(super) fn activations_on_other_architectures(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("architectures are the emulator's to choose");
    }
    let mut held = Held::default();
    for (index, device) in other_architectures()?.into_iter().enumerate() {
        for function in FUNCTIONS {
            let mut case = Case::new(function, 20, 264, FLOATS[index]);
            case.smoothing = SMOOTHINGS[1 + index % 2];
            held.check(&device, &case.problem())?;
        }
    }
    Ok(held)
}

fn case() -> impl Strategy<Value = Case> {
    let float = || prop::sample::select(FLOATS.to_vec());
    let types = prop_oneof![
        float().prop_map(|dtype| [dtype; 5]),
        [float(), float(), float(), float(), float()],
    ];
    let channels =
        prop_oneof![3 => 1usize..60, 2 => 60usize..400, 1 => (1usize..60).prop_map(|n| 8 * n)];
    (
        prop::sample::select(FUNCTIONS.to_vec()),
        (1usize..40, channels),
        types,
        [layout(), layout(), layout(), layout()],
        any::<bool>(),
        prop::sample::select(SMOOTHINGS.to_vec()),
        any::<bool>(),
        prop::sample::select(Values::ALL.to_vec()),
        any::<u64>(),
    )
        .prop_map(
            |(
                function,
                (tokens, channels),
                types,
                layouts,
                packed,
                smoothing,
                given,
                values,
                seed,
            )| Case {
                function,
                tokens: tokens.min(1 + 4000 / channels),
                channels,
                types,
                layouts,
                packed,
                smoothing,
                given,
                values,
                seed,
            },
        )
}

/// What fails is made small before it is told.
pub(super) fn random_activations(subject: &Subject, effort: Effort) -> Result<Held, String> {
    drawn(
        subject,
        effort,
        &case(),
        |case| case.seed,
        |held, device, case| held.check(device, &case.problem()),
    )
}

/// Channels' scales meet in a block; nothing else does.
pub(super) fn workloads(quick: bool) -> Vec<Workload> {
    let mut case = Case::new(Function::SwiGlu, 150, 40, DType::Bf16);
    case.smoothing = Some(Smoothing::Channel);
    let scales = Workload {
        problem: Box::new(case.problem()),
        multiprocessors: 2,
    };
    [scales]
        .into_iter()
        .chain(fused::workloads(quick))
        .collect()
}
