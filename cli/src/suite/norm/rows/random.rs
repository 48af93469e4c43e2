//! Problems drawn at random over everything a problem has.

use evenkeel::norm::{NormKind, NormOptions, Pairing, Rotary};
use proptest::prelude::*;

use super::super::super::random::drawn;
use super::{Effort, Held, operations};
use crate::memory::Layout;
use crate::norm::Operation;
use crate::norm::rows::cases::FLOATS;
use crate::norm::rows::{Case, Form, Types, Values};
use crate::subject::Subject;

/// The longest heads that every device turns.
const TURNED: usize = 4096;

fn layout() -> impl Strategy<Value = Layout> {
    let few = || prop_oneof![Just(0usize), 1usize..12];
    (few(), few()).prop_map(|(phase, gap)| Layout {
        phase,
        padding: 0,
        gap,
    })
}

fn norm() -> impl Strategy<Value = NormOptions> {
    let eps = prop_oneof![Just(None), (1e-8_f32..1e-2).prop_map(Some)];
    (
        prop::sample::select(NormKind::ALL.to_vec()),
        eps,
        any::<bool>(),
    )
        .prop_map(|(kind, eps, zero_centred)| {
            let mut norm = NormOptions::new(kind);
            norm.eps = eps.unwrap_or(norm.eps);
            norm.zero_centred = zero_centred;
            norm
        })
}

fn case(operations: Vec<Operation>, most_columns: usize) -> impl Strategy<Value = Case> {
    let columns = prop_oneof![2 => 1usize..40, 2 => 40usize..600, 1 => 600..most_columns];
    let tokens = prop_oneof![4 => 1usize..6, 1 => 6usize..60];
    // A rotary embedding of half of the heads, of any even width.
    let rotary = (0usize..4, any::<u16>());
    let types = (
        prop::sample::select(FLOATS.to_vec()),
        0u64..531_441,
        any::<bool>(),
    );
    let flags = prop::collection::vec(any::<bool>(), 10);
    (
        prop::sample::select(operations),
        (tokens, 1usize..6, columns),
        norm(),
        rotary,
        types,
        (layout(), layout(), layout()),
        prop::sample::select(Form::ALL.to_vec()),
        prop::sample::select(Values::ALL.to_vec()),
        flags,
        any::<u64>(),
    )
        .prop_map(
            |(operation, shape, norm, rotary, types, layouts, form, values, flags, seed)| {
                let (tokens, heads, columns) = shape;
                let heads = if operation == Operation::HeadNorm {
                    heads
                } else {
                    1
                };
                let width = 2 * (1 + usize::from(rotary.1) % (columns / 2).max(1));
                let rotary = (rotary.0 > 1 && (2..=TURNED).contains(&columns))
                    .then(|| Rotary::new(Pairing::ALL[rotary.0 % 2], width));
                Case {
                    operation,
                    // A rotary embedding alone, sometimes.
                    norm: (rotary.is_none() || !flags[0] || !flags[1]).then_some(norm),
                    rotary,
                    positions: flags[2],
                    // Long rows are few.
                    tokens: tokens.min(1 + 12_000 / (columns * heads)),
                    heads,
                    columns,
                    packed: flags[3],
                    form,
                    types: if types.2 {
                        Types::all(types.0)
                    } else {
                        Types::from_digits(types.0, types.1)
                    },
                    layout: layouts.0,
                    out_layout: layouts.1,
                    side_layout: layouts.2,
                    gamma: flags[4] || flags[5],
                    beta: flags[0],
                    whole_weights: flags[1],
                    residual: flags[6],
                    stream_gradients: flags[7],
                    statistics: flags[8] || flags[3],
                    backward: true,
                    weight_gradients: flags[9] || flags[2],
                    accumulate: flags[9],
                    // A residual fills a constant row with what is no longer one, and tiny ones with eps 0
                    // are made for themselves.
                    values: match values {
                        Values::Tiny if flags[6] || columns < 2 => Values::Normal,
                        other => other,
                    },
                    seed,
                }
            },
        )
}

/// What fails is made small before it is told.
pub(in super::super) fn random_norms(subject: &Subject, effort: Effort) -> Result<Held, String> {
    let here = operations(subject);
    if here.is_empty() {
        return Held::skipped("the kernels are to come");
    }
    drawn(
        subject,
        effort,
        &case(here, 6000),
        |case| case.seed,
        |held, device, case| held.check(device, &case.problem()),
    )
}
