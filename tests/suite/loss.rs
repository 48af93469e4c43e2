//! The properties of the loss, one test of each for each kind of device, and golden vectors on all of
//! them.

use evenkeel::{DType, DeviceKind};
use evenkeel_cli::compare::Checked;
use evenkeel_cli::loss::{Mode, Problem};
use evenkeel_cli::memory::Layout;

use crate::golden;
use crate::properties::{properties, subject};

properties!(
    Loss:
    every_criterion_in_every_mode,
    every_option,
    every_reduction,
    every_alignment,
    vocabularies,
    extremes,
    a_common_offset_changes_nothing,
    gradients_sum_to_zero,
    random_problems,
    empty_batches,
    targets_that_are_no_class,
    rows_that_are_not_finite,
    masked_targets,
    saturation,
    bad_offsets,
    wrong_arguments,
    the_same_bits_every_time,
    rows_in_flight,
    traffic,
    other_architectures,
    past_two_to_the_32,
);

/// A golden case as a problem: its data, and the call whose gradient the file has.
fn problem(case: &golden::loss::Case, dtype: DType) -> Problem {
    let inputs = &*case.inputs;
    let given = |wanted: bool| wanted.then(|| inputs.upstream.clone());
    let of = case.gradient_of;
    let loss = match (of.loss, case.options.reduction) {
        (false, _) => None,
        (true, evenkeel::loss::Reduction::None) => given(true),
        (true, _) => Some(vec![1.0]),
    };
    Problem {
        name: format!("golden {}, {dtype}", case.name),
        options: case.options,
        mode: if of.lp || of.entropy || of.lse {
            Mode::Backward
        } else {
            Mode::ForwardBackward
        },
        path: None,
        dtype,
        gradient: DType::F32,
        target_type: DType::I64,
        layout: Layout::default(),
        gradient_layout: Layout::default(),
        tokens: inputs.tokens,
        vocab: inputs.vocab,
        logits: inputs.logits.clone(),
        targets: inputs.targets.clone(),
        weights: case.weighted.then(|| inputs.weights.clone()),
        class_mask: case.masked.then(|| inputs.class_mask.clone()),
        divisor: inputs.divisor,
        divisor_on_device: true,
        offsets: inputs.offsets.clone(),
        upstream_loss: loss,
        upstream_statistics: [given(of.lp), given(of.entropy), given(of.lse)],
    }
}

/// Every golden case on a device. `golden::the_reference_agrees` holds the reference to the file's
/// numbers within 1e-12, which is nothing beside the bounds that the device is held to here.
fn golden_vectors(kind: DeviceKind) {
    let Some(subject) = subject(kind) else {
        return;
    };
    let mut wrong = Vec::new();
    for (index, case) in golden::loss::load().iter().enumerate() {
        for dtype in [DType::Bf16, DType::F16, DType::F32] {
            if !case.inputs.types.iter().any(|name| name == dtype.name()) {
                continue;
            }
            let problem = problem(case, dtype);
            let device = subject.device(index).unwrap();
            match problem.check(device) {
                Ok(verdict) => wrong.extend(verdict.mismatches),
                Err(error) => wrong.push(format!("{error} in {}", problem.name)),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(8)].join("\n")
    );
}
