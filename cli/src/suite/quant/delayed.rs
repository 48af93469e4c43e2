//! The properties of delayed scaling.

use evenkeel::quant::{AmaxHistory, DelayedScaling, Format, Fp8};
use evenkeel::{DType, Device};

use super::super::proofs::{Budget, Wrong, device, other_architectures, refuse, same_bits, within};
use super::super::{Effort, Held, Refusals, Workload, emulated, names};
use crate::quant::delayed::Problem;
use crate::subject::Subject;

/// Each way to make scales, of tensors one to more than a block, of histories one step to more than
/// a warp has in flight, going round.
pub(super) fn delayed_scales(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for tensors in [1, 7, 8, 9, 40] {
        for length in [1, 2, 5, 31, 32, 33, 256, 300, 1024] {
            for history in AmaxHistory::ALL {
                let mut problem =
                    Problem::new(tensors, length, 7.min(length + 2), 10 + index as u64);
                problem.history = history;
                problem.margin = [0, 3, -2, 32, -32][index % 5];
                problem.power_of_two = index % 3 == 1;
                problem.resumed = (index % 4 == 0).then_some(1);
                problem.rename();
                held.check(device(subject, index)?, &problem)?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// Schedules and device sizes change no bit.
pub(super) fn delayed_same_bits(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    same_bits(&mut held, subject, &Problem::new(30, 70, 6, 5))?;
    Ok(held)
}

/// Each history is read once, and one step of it written.
pub(super) fn delayed_traffic(subject: &Subject, _: Effort) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    for (tensors, length, history) in [
        (20, 1024, AmaxHistory::Max),
        (20, 33, AmaxHistory::Max),
        (100, 1024, AmaxHistory::MostRecent),
    ] {
        let mut problem = Problem::new(tensors, length, 1, 3);
        problem.steps[0].fill(5.0);
        problem.history = history;
        let rings = match history {
            // All but the step that is written.
            AmaxHistory::Max => 4 * tensors * (length - 1),
            _ => 0,
        };
        let budget = Budget {
            loads: rings + 12 * tensors,
            stores: 16 * tensors,
            more: 0,
        };
        within(&mut held, device(subject, 0)?, &problem, &budget)?;
    }
    Ok(held)
}

/// With the limits of other GPUs.
pub(super) fn delayed_on_other_architectures(subject: &Subject, _: Effort) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("architectures are the emulator's to choose");
    }
    let mut held = Held::default();
    for device in other_architectures()? {
        held.check(&device, &Problem::new(12, 100, 4, 9))?;
    }
    Ok(held)
}

/// On every device: options, tensors and states that do not fit.
pub(super) fn delayed_wrong_arguments(subject: &Subject, _: Effort) -> Result<Held, String> {
    let check = || -> evenkeel::Result<Result<(), String>> {
        let stream = subject.device(0)?.stream()?;
        let e4m3 = Format::Fp8Tensor(Fp8::E4m3);
        let options = DelayedScaling::new().length(8);
        let prepare =
            |options: DelayedScaling, format| options.prepare(&stream, &[e4m3, format]).map(|_| ());
        let mut scales = options.prepare(&stream, &[e4m3; 3])?;
        let saved = scales.save()?;
        let other = options.length(9).prepare(&stream, &[e4m3; 3])?.save()?;
        let mut outside = saved.clone();
        outside.cursors[2] = 8;
        let checks = [
            ("no steps", prepare(options.length(0), e4m3), "length"),
            (
                "a margin of 33",
                prepare(options.margin(33), e4m3),
                "margin",
            ),
            (
                "rows",
                prepare(options, Format::Fp8Row(Fp8::E4m3)),
                "formats",
            ),
            ("other steps", scales.restore(&other), "state"),
            ("a cursor outside", scales.restore(&outside), "state"),
        ];
        for (what, result, argument) in checks {
            if let Err(wrong) = names(what, result, argument) {
                return Ok(Err(wrong));
            }
        }
        // What was refused left no trace; neighbours are one view, of the same memory.
        let group = scales.group(1..3)?;
        let far = group.amax.address() - 4;
        let fits = group.scales.shape() == [2] && group.amax.dtype() == DType::F32;
        let fits = fits && scales.amax().address() == far && scales.save()? == saved;
        Ok(if fits && scales.tensor(3).is_err() {
            Ok(())
        } else {
            Err("the views of tensors do not fit".into())
        })
    };
    check().map_err(|error| error.to_string())??;
    Ok(Held {
        problems: 1,
        ..Held::default()
    })
}

/// Both ways to look at a history.
pub(super) fn workloads(_: bool) -> Vec<Workload> {
    AmaxHistory::ALL
        .into_iter()
        .map(|history| {
            let mut problem = Problem::new(12, 70, 3, 4);
            problem.history = history;
            Workload {
                problem: Box::new(problem),
                multiprocessors: 1,
            }
        })
        .collect()
}

fn plain() -> Problem {
    let mut problem = Problem::new(3, 4, 6, 8);
    for (at, step) in problem.steps.iter_mut().enumerate() {
        step.fill(7.0 - at as f32);
    }
    problem
}

/// An f32 among the bytes.
fn set(bytes: &mut [u8], at: usize, value: f32) {
    bytes[4 * at..4 * at + 4].copy_from_slice(&value.to_ne_bytes());
}

/// Every way to be wrong.
const REFUSED: &[Wrong<Problem>] = &[
    Wrong {
        name: "a history that never forgets",
        problem: plain,
        spoil: |_, outcome| {
            let first = outcome.steps[0][0].clone();
            outcome.steps[5][0] = first;
        },
    },
    Wrong {
        name: "a slot that is not reset",
        problem: plain,
        spoil: |_, outcome| set(&mut outcome.steps[2][1], 1, 5.0),
    },
    Wrong {
        name: "the range of another format",
        problem: plain,
        spoil: |_, outcome| {
            let (e4m3, e5m2) = outcome.steps[0][0].split_at_mut(4);
            e5m2[..4].copy_from_slice(e4m3);
        },
    },
    Wrong {
        name: "a history whose cursor stays",
        problem: plain,
        spoil: |_, outcome| {
            let before = outcome.steps[1][3].clone();
            outcome.steps[2][3] = before;
        },
    },
];

/// Results made wrong on purpose.
pub(super) fn refusals(device: &Device, all: &mut Refusals) {
    refuse(device, REFUSED, all);
}
