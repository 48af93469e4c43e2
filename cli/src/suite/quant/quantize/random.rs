//! Quantisations drawn at random.

use evenkeel::DType;
use evenkeel::quant::{Format, Hadamard, Rounding};
use proptest::prelude::*;

use super::super::super::proofs::layout;
use super::super::super::random::drawn;
use super::super::super::{Effort, Held};
use super::cases::{layouts, output, rotations, scalings};
use crate::memory::Layout;
use crate::norm::rows::cases::FLOATS;
use crate::quant::{Case, Form, Given, Output, Values};
use crate::subject::Subject;

/// Of one output: rotation and layout by number, and what is asked for.
type Drawn = (usize, usize, bool, bool, Layout);

fn drawn_output() -> impl Strategy<Value = Drawn> {
    // Half of them are not rotated.
    let rotation = prop_oneof![Just(0_usize), 1_usize..4];
    (rotation, 0_usize..3, any::<bool>(), any::<bool>(), layout())
}

/// The output of a drawing, for an inner dimension that some rotations divide.
fn made(format: Format, inner: usize, drawn: Drawn, seed: u64) -> Output {
    let (rotation, layout, amax, counts, place) = drawn;
    let fits = |rotation: &Hadamard| inner.is_multiple_of(rotation.n);
    let layouts = layouts(format);
    Output {
        layout: place,
        amax,
        counts,
        ..output(
            rotations(seed)[rotation].filter(fits),
            layouts[layout % layouts.len()],
        )
    }
}

/// Sizes along one dimension: any, and those that rotations divide.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => 1_usize..150,
        1 => 150_usize..400,
        2 => (1_usize..10).prop_map(|n| 16 * n),
        1 => (1_usize..3).prop_map(|n| 128 * n),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let what = (
        prop::sample::select(Format::ALL.to_vec()),
        0_usize..4,
        prop::sample::select(FLOATS.to_vec()),
        prop::sample::select(Values::ALL.to_vec()),
        prop_oneof![Just(None), any::<u64>().prop_map(Some)],
    );
    let shape = (size(), size(), layout());
    let outputs = (0_usize..3, drawn_output(), drawn_output());
    // Where groups end, in hundredths of the rows.
    let groups = prop_oneof![
        2 => Just(None),
        1 => prop::collection::vec(0_usize..=100, 0..5).prop_map(Some),
    ];
    let call = (
        any::<u64>(),
        prop::option::of(any::<i64>()),
        any::<bool>(),
        prop_oneof![Just(1.0), Just(0.1), Just(50.0), 1e-3..1e3_f64],
    );
    (what, shape, outputs, groups, call, any::<u32>()).prop_map(
        |(what, shape, outputs, groups, call, seed)| {
            let (format, scaling, dtype, values, stochastic) = what;
            let (rows, columns, place) = shape;
            let scalings = scalings(format);
            let mut case = Case::new(rows, columns, dtype, format);
            case.options = scalings[scaling % scalings.len()];
            if let Some(seed) = stochastic {
                case.options = case.options.rounding(Rounding::Stochastic { seed });
            }
            let (which, rowwise, transposed) = outputs;
            let seed = u64::from(seed);
            case.groups = groups.map(|mut ends| {
                ends.sort_unstable();
                // Groups that a byte of two elements cannot hold are a property of their own.
                let even = |row: usize| {
                    if format.element_bits() == 4 {
                        row / 2 * 2
                    } else {
                        row
                    }
                };
                let mut ends: Vec<usize> = ends.iter().map(|end| even(end * rows / 100)).collect();
                ends.push(rows);
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let sizes = starts.zip(&ends).map(|(start, end)| end - start).collect();
                (sizes, [DType::I32, DType::I64][(seed % 2) as usize])
            });
            case.rowwise = (which != 1).then(|| made(format, columns, rowwise, seed));
            case.transposed = (which != 2).then(|| {
                // Rotations that cut groups are told: the comparison holds them to that.
                made(format, rows, transposed, seed + 1)
            });
            case.layout = place;
            case.values = values;
            (case.offset, case.device_offset) = (call.0, call.1);
            case.form = if call.2 { Form::Into } else { Form::Allocated };
            case.given = Given::Times(call.3);
            case.seed = seed;
            case
        },
    )
}

/// Shapes, formats, options, outputs, places, groups and values drawn at random, made small when they
/// fail.
pub(in super::super) fn random_quantisations(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    drawn(
        subject,
        effort,
        &cases(),
        |case| case.seed,
        |held, device, case| held.check(device, &case.problem()),
    )
}
