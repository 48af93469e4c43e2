//! Problems drawn at random over everything a problem has.

use evenkeel::DType;
use evenkeel::loss::{Criterion, KernelPath, LossOptions, Objective, Reduction, Threshold};
use proptest::prelude::*;

use super::super::random::drawn;
use super::{Effort, Held};
use crate::loss::cases::{INTEGERS, LOGITS};
use crate::loss::{Case, Mode, Values};
use crate::memory::Layout;
use crate::subject::Subject;

fn objective() -> impl Strategy<Value = Objective> {
    prop_oneof![
        Just(Objective::Nll),
        Just(Objective::Linear),
        (-2.0_f32..12.0).prop_map(Objective::Power),
        Just(Objective::Dft),
        (0.0_f32..5.0).prop_map(Objective::Focal),
        (-2.0_f32..4.0).prop_map(Objective::Poly1),
        (0.05_f32..1.0).prop_map(Objective::Gce),
        Just(Objective::Deft),
    ]
}

fn criterion() -> impl Strategy<Value = Criterion> {
    // The threshold itself is moved into a gap of the batch's probabilities.
    let threshold = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Threshold::Above(0.5))),
        1 => Just(Some(Threshold::Below(0.5))),
    ];
    (objective(), threshold).prop_map(|(objective, threshold)| Criterion {
        objective,
        threshold,
    })
}

/// Absent three times in four.
fn sometimes(range: std::ops::Range<f32>) -> impl Strategy<Value = Option<f32>> {
    prop_oneof![3 => Just(None), 1 => range.prop_map(Some)]
}

fn options() -> impl Strategy<Value = LossOptions> {
    let reduction = prop::sample::select(Reduction::ALL.to_vec());
    let numbers = (
        sometimes(5.0..50.0),
        sometimes(0.3..3.0),
        sometimes(0.0..1e-2),
        sometimes(0.0..1.0),
        sometimes(-0.5..0.5),
        sometimes(0.0..0.1),
    );
    (criterion(), reduction, numbers).prop_map(|(criterion, reduction, numbers)| {
        let mut options = LossOptions::new(criterion);
        options.reduction = reduction;
        options.softcap = numbers.0;
        options.temperature = numbers.1.unwrap_or(1.0);
        options.z_loss = numbers.2.unwrap_or(0.0);
        options.label_smoothing = numbers.3.unwrap_or(0.0);
        options.entropy = numbers.4.unwrap_or(0.0);
        options.spectral_decoupling = numbers.5.unwrap_or(0.0);
        options
    })
}

fn layout() -> impl Strategy<Value = Layout> {
    (
        0usize..9,
        prop_oneof![Just(0usize), 1usize..9],
        prop_oneof![Just(0usize), 1usize..20],
    )
        .prop_map(|(phase, padding, gap)| Layout {
            phase,
            padding,
            gap,
        })
}

fn case(most_classes: usize) -> impl Strategy<Value = Case> {
    let vocab = prop_oneof![2 => 1usize..40, 2 => 40usize..600, 1 => 600..most_classes];
    let tokens = prop_oneof![4 => 1usize..6, 1 => 6usize..40];
    let types = (
        prop::sample::select(LOGITS.to_vec()),
        any::<bool>(),
        prop::sample::select(INTEGERS.to_vec()),
    );
    let paths = [None, Some(KernelPath::Cluster), Some(KernelPath::Block)];
    let call = (
        prop::sample::select(Mode::ALL.to_vec()),
        prop::sample::select(paths.to_vec()),
    );
    let given = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop_oneof![Just(0.0), 0.0..0.9],
    );
    let values = prop::sample::select(Values::ALL.to_vec());
    (
        tokens,
        vocab,
        types,
        (layout(), layout()),
        options(),
        call,
        (values, given),
        any::<u64>(),
    )
        .prop_map(
            |(tokens, vocab, types, layouts, options, call, (values, given), seed)| Case {
                // Long rows are few.
                tokens: tokens.min(1 + 12_000 / vocab),
                vocab,
                dtype: types.0,
                gradient: if types.1 { types.0 } else { DType::F32 },
                layout: layouts.0,
                gradient_layout: layouts.1,
                options,
                mode: call.0,
                path: call.1,
                targets: types.2,
                values,
                token_weights: given.0,
                class_mask: given.1,
                upstream: given.2,
                ignored: given.3,
                seed,
            },
        )
}

/// What fails is made small before it is told.
pub(super) fn random_problems(subject: &Subject, effort: Effort) -> Result<Held, String> {
    drawn(
        subject,
        effort,
        &case(6000),
        |case| case.seed,
        |held, device, case| held.check(device, &case.problem()),
    )
}
