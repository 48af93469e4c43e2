//! The properties of the variability of embedding tables.

use evenkeel::norm::Tev;
use evenkeel::{DType, Status};
use proptest::prelude::*;

use super::super::random::drawn;
use super::super::{Effort, Held, Workload, emulated, expect};
use super::proofs::{
    Budget, FLOATS, LONG_WIDTHS, WIDTHS, Wrong, computed, device, float, is_long_for, layout,
    names, other_architectures, same_bits, scattered, there, within,
};
use crate::norm::Operation;
use crate::norm::tev::{Case, Problem};
use crate::numbers::round_to;
use crate::subject::Subject;

/// Tables of every width, in each type, at every alignment.
pub(super) fn tev_tables(subject: &Subject, effort: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Tev) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for columns in WIDTHS.into_iter().chain(LONG_WIDTHS) {
        if is_long_for(subject, effort, columns) {
            continue;
        }
        for dtype in FLOATS {
            let mut case = Case::new([1, 3, 70][index % 3], columns, dtype);
            case.vocab = case.vocab.min(1 + 20_000 / columns);
            case.layout = scattered(index)[index % 4];
            case.seed = 100 + index as u64;
            held.check(device(subject, index)?, &case.problem())?;
            index += 1;
        }
    }
    // More tokens than blocks.
    for vocab in [1000, 3001] {
        let mut case = Case::new(vocab, 16, DType::Bf16);
        case.seed = 100 + index as u64;
        held.check(device(subject, index)?, &case.problem())?;
        index += 1;
    }
    Ok(held)
}

/// Rows with a common offset of 1e4, constant or nearly: deviations are from the mean, so that the
/// offset costs no more than its own rounding. Large and small elements, whose squares have no room.
pub(super) fn tev_offsets(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Tev) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for dtype in FLOATS {
        for spread in [0.0, 0.01, 100.0] {
            for columns in [1, 64, 1000] {
                let mut case = Case::new(4, columns, dtype);
                (case.offset, case.spread) = (1e4, spread);
                case.seed = 200 + index as u64;
                held.check(device(subject, index)?, &case.problem())?;
                index += 1;
            }
        }
        // Constant rows whose offset leaves the range once more where small deviations are scaled up.
        if dtype != DType::F16 {
            let mut case = Case::new(2, 64, dtype);
            (case.offset, case.spread) = (1e12, 0.0);
            case.seed = 300 + index as u64;
            held.check(device(subject, index)?, &case.problem())?;
            index += 1;
        }
    }
    // Squares of these leave the range of single precision; the second length is read in segments.
    for dtype in [DType::Bf16, DType::F32] {
        for spread in [1e30, 1e-17] {
            for columns in [64, 9000] {
                let mut case = Case::new(3, columns, dtype);
                case.spread = spread;
                case.seed = 250 + index as u64;
                held.check(device(subject, index)?, &case.problem())?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// A row that is not finite makes the mean NaN and is told; the others' deviations stay. No tokens: 0.
pub(super) fn tev_edges(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Tev) {
        return skipped;
    }
    let mut held = Held::default();
    for (index, dtype) in FLOATS.into_iter().enumerate() {
        let on = device(subject, index)?;
        let mut case = Case::new(0, 24, dtype);
        let nothing = computed(&mut held, on, &case.problem())?;
        let zero = nothing.tev.row(0)[0] == 0.0;
        expect("a TEV of 0 without tokens", zero, &case.problem())?;
        case.vocab = 5;
        let clean = case.problem();
        let alone = computed(&mut held, on, &clean)?;
        for poison in [f64::NAN, f64::INFINITY] {
            let mut problem = clean.clone();
            problem.table.values[2 * 24 + 7] = poison;
            problem.name = format!("{}, {poison} in row 2", problem.name);
            let outcome = computed(&mut held, on, &problem)?;
            let told = outcome.status == Status::NON_FINITE_ROW;
            expect("NON_FINITE_ROW", told, &problem)?;
            for token in [0, 1, 3, 4] {
                let same = outcome.deviations.row(0)[token] == alone.deviations.row(0)[token];
                expect("the same deviations of the others", same, &problem)?;
            }
        }
    }
    Ok(held)
}

/// Runs, schedules and device sizes give the same bits.
pub(super) fn tev_same_bits(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Tev) {
        return skipped;
    }
    let mut held = Held::default();
    for (index, (vocab, columns)) in [(600, 24), (30, 1001)].into_iter().enumerate() {
        let mut case = Case::new(vocab, columns, FLOATS[index]);
        case.seed = 500 + index as u64;
        same_bits(&mut held, subject, &case.problem())?;
    }
    Ok(held)
}

/// The table is read once.
pub(super) fn tev_traffic(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Tev) {
        return skipped;
    }
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    for (vocab, columns, dtype) in [(100, 768, DType::Bf16), (20, 4096, DType::F32)] {
        let budget = Budget {
            loads: vocab * columns * dtype.size(),
            stores: 4 * (vocab + 1),
            // The deviations once more for their mean, and its stages.
            more: 4096 + 8 * vocab,
        };
        let problem = Case::new(vocab, columns, dtype).problem();
        within(&mut held, device(subject, 0)?, &problem, &budget)?;
    }
    Ok(held)
}

/// On GPUs without large clusters, with their limits.
pub(super) fn tev_on_other_architectures(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Tev) {
        return skipped;
    }
    if !emulated(subject) {
        return Held::skipped("architectures are the emulator's to choose");
    }
    let mut held = Held::default();
    for (index, device) in other_architectures()?.into_iter().enumerate() {
        for columns in [64, 5000, 40_000] {
            held.check(&device, &Case::new(3, columns, FLOATS[index]).problem())?;
        }
    }
    Ok(held)
}

fn case() -> impl Strategy<Value = Case> {
    let columns = prop_oneof![2 => 1usize..40, 2 => 40usize..600, 1 => 600usize..6000];
    (
        (1usize..40, columns),
        float(),
        layout(),
        prop_oneof![Just(0.0), -1000.0..1000.0],
        prop_oneof![Just(0.0), 1e-3..10.0],
        any::<u64>(),
    )
        .prop_map(
            |((vocab, columns), dtype, layout, offset, spread, seed)| Case {
                vocab: vocab.min(1 + 12_000 / columns),
                columns,
                dtype,
                layout,
                offset,
                spread,
                seed,
            },
        )
}

/// What fails is made small before it is told.
pub(super) fn tev_random_problems(subject: &Subject, effort: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Tev) {
        return skipped;
    }
    drawn(
        subject,
        effort,
        &case(),
        |case| case.seed,
        |held, device, case| held.check(device, &case.problem()),
    )
}

pub(super) fn tev_wrong_arguments(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Tev) {
        return skipped;
    }
    let check = || -> evenkeel::Result<Result<(), String>> {
        let stream = subject.device(0)?.stream()?;
        let op = Tev::new().prepare(&stream)?;
        let table = stream.zeros(DType::F32, &[4, 10])?;
        let integers = stream.zeros(DType::I64, &[4, 10])?;
        let into = |means: usize, tokens: usize| -> evenkeel::Result<()> {
            let mut tev = stream.zeros(DType::F32, &[means])?;
            let mut deviations = stream.zeros(DType::F32, &[tokens])?;
            op.measure_into(table.view(), tev.view_mut(), deviations.view_mut())
        };
        let checks = [
            (
                "an integer table",
                op.measure(integers.view()).map(|_| ()),
                "table",
            ),
            (
                "no features",
                op.measure(table.view().slice_columns(0..0)?).map(|_| ()),
                "table",
            ),
            ("two means", into(2, 4), "tev"),
            ("three deviations", into(1, 3), "deviations"),
        ];
        for (what, result, argument) in checks {
            if let Err(wrong) = names(what, result, argument) {
                return Ok(Err(wrong));
            }
        }
        into(1, 4)?;
        Ok(Ok(()))
    };
    check().map_err(|error| error.to_string())??;
    Ok(Held {
        problems: 1,
        ..Held::default()
    })
}

/// Tokens enough that their mean has a second stage.
pub(super) fn workloads(_: bool) -> Vec<Workload> {
    [(700, 40, DType::Bf16, 2), (60, 1001, DType::F32, 1)]
        .into_iter()
        .map(|(vocab, columns, dtype, multiprocessors)| Workload {
            problem: Box::new(Case::new(vocab, columns, dtype).problem()),
            multiprocessors,
        })
        .collect()
}

fn plain() -> Problem {
    Case::new(6, 40, DType::F32).problem()
}

/// Every way to be wrong.
pub(super) const REFUSED: &[Wrong<Problem>] = &[
    Wrong {
        name: "a variance over D - 1",
        problem: plain,
        spoil: |_, outcome| {
            let deviation = &mut outcome.deviations.row_mut(0)[2];
            *deviation = round_to(DType::F32, *deviation * (40.0_f64 / 39.0).sqrt());
        },
    },
    Wrong {
        name: "a mean square in place of the variance",
        problem: || {
            let mut case = Case::new(6, 40, DType::F32);
            case.offset = 0.05;
            case.problem()
        },
        spoil: |problem, outcome| {
            let squares: f64 = problem.table.row(1).iter().map(|x| x * x).sum();
            outcome.deviations.row_mut(0)[1] = round_to(DType::F32, (squares / 40.0).sqrt());
        },
    },
    Wrong {
        name: "the mean of the squares minus the square of the mean, in f32",
        problem: || {
            let mut case = Case::new(6, 40, DType::F32);
            (case.offset, case.spread) = (1e4, 0.5);
            case.problem()
        },
        spoil: |problem, outcome| {
            let (mut sum, mut squares) = (0.0_f32, 0.0_f32);
            for &x in problem.table.row(1) {
                sum += x as f32;
                squares += x as f32 * x as f32;
            }
            let variance = squares / 40.0 - (sum / 40.0).powi(2);
            outcome.deviations.row_mut(0)[1] = f64::from(variance.max(0.0).sqrt());
        },
    },
    Wrong {
        name: "the deviation of the whole table as its mean",
        problem: plain,
        spoil: |problem, outcome| {
            let values = &problem.table.values;
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
            outcome.tev.row_mut(0)[0] =
                round_to(DType::F32, (squares / values.len() as f64).sqrt());
        },
    },
    Wrong {
        name: "a token left out of the mean",
        problem: plain,
        spoil: |_, outcome| {
            let last = outcome.deviations.row(0)[5];
            let tev = &mut outcome.tev.row_mut(0)[0];
            *tev = round_to(DType::F32, *tev - last / 6.0);
        },
    },
    Wrong {
        name: "a write past the deviations",
        problem: plain,
        spoil: |_, outcome| outcome.deviations.memory[7] = 0.0,
    },
];
