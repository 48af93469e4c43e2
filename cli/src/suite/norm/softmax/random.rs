//! Softmaxes drawn at random over everything a case has.

use evenkeel::norm::{Causal, SoftmaxKind, SoftmaxOptions};
use proptest::prelude::*;

use super::super::super::random::drawn;
use super::super::super::{Effort, Held};
use super::proofs::{INTEGERS, floats, layouts, there};
use crate::norm::Operation;
use crate::norm::pass::Pass;
use crate::norm::softmax::{Case, Values};
use crate::subject::Subject;

fn options() -> impl Strategy<Value = SoftmaxOptions> {
    let causal = prop_oneof![
        2 => Just(None),
        1 => (-40_i64..40).prop_map(|offset| Some(Causal::Offset(offset))),
        1 => Just(Some(Causal::End)),
    ];
    let scale = prop_oneof![Just(1.0_f32), Just(0.125_f32), 0.01_f32..8.0];
    (
        prop::sample::select(SoftmaxKind::ALL.to_vec()),
        scale,
        causal,
    )
        .prop_map(|(kind, scale, causal)| {
            let mut options = SoftmaxOptions::new(kind).scale(scale);
            options.causal = causal;
            options
        })
}

fn case() -> impl Strategy<Value = Case> {
    let keys = prop_oneof![2 => 1usize..40, 2 => 40usize..600, 1 => 600usize..6000];
    let shape = (
        1usize..4,
        prop_oneof![4 => 1usize..6, 1 => 6usize..30],
        keys,
    );
    let lengths = (
        // Batches that divide the blocks' rows: none, one, or one a block.
        0usize..3,
        prop::sample::select(INTEGERS.to_vec()),
        any::<bool>(),
    );
    (
        shape,
        floats(),
        layouts(),
        options(),
        prop::sample::select(Pass::ALL.to_vec()),
        prop::sample::select(Values::ALL.to_vec()),
        lengths,
        any::<u64>(),
    )
        .prop_map(
            |(shape, types, layouts, options, pass, values, (batches, lengths, dentropy), seed)| {
                let (blocks, queries, keys) = shape;
                Case {
                    blocks,
                    // Long rows are few.
                    queries: queries.min(1 + 6000 / keys),
                    keys,
                    types,
                    layouts,
                    options,
                    pass,
                    values,
                    batches: [None, Some(1), Some(blocks)][batches],
                    lengths,
                    dentropy,
                    seed,
                }
            },
        )
}

/// What fails is made small before it is told.
pub(in super::super) fn softmax_random_problems(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
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
