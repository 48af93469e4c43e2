//! The properties of the loss, one test of each for each kind of device, and golden vectors on all of
//! them.

use evenkeel::{DType, DeviceKind, Error};
use evenkeel_cli::loss::{self, Layout, Mode, Problem};
use evenkeel_cli::subject::Subject;
use evenkeel_cli::suite::{Effort, PROPERTIES, WRONG_RESULTS};

use crate::{golden, support};

/// Schedules of the emulator; as many numbers of multiprocessors.
const SEEDS: u64 = 4;

/// What a kind of device is proved on, if it is to be tested here.
fn subject(kind: DeviceKind) -> Option<Subject> {
    support::device(kind)?;
    match Subject::of(kind, SEEDS) {
        Ok(subject) => Some(subject),
        // `--features emulator` alone gives it to the library and not to the program's suite.
        Err(Error::Unsupported { what, remedy, .. }) if kind == DeviceKind::Emulated => {
            support::skip(kind, &format!("{what} of evenkeel-cli: {remedy}"));
            None
        }
        Err(error) => panic!("{kind}: {error}"),
    }
}

/// EVENKEEL_TEST_EFFORT=quick tries less: for tools that multiply the time of everything.
fn effort() -> Effort {
    match std::env::var("EVENKEEL_TEST_EFFORT").as_deref() {
        Ok("quick") => Effort::Quick,
        _ => Effort::Full,
    }
}

fn holds(kind: DeviceKind, name: &str) {
    let Some(subject) = subject(kind) else {
        return;
    };
    let property = PROPERTIES
        .iter()
        .find(|property| property.name == name)
        .unwrap_or_else(|| panic!("the suite has no property {name}"));
    match (property.check)(&subject, effort()) {
        Ok(held) => {
            if let Some(reason) = held.skipped {
                eprintln!("{name} on {kind} is skipped: {reason}");
            } else {
                assert!(held.problems > 0, "{name} on {kind} tried nothing");
            }
        }
        Err(wrong) => panic!("{wrong}"),
    }
}

macro_rules! properties {
    ($($name:ident),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        properties!(@device cpu, Cpu, [$($name),*]);
        #[cfg(feature = "emulator")]
        properties!(@device emulated, Emulated, [$($name),*]);
        properties!(@device cuda, Cuda, [$($name),*]);
    };
    (@device $module:ident, $kind:ident, [$($name:ident),*]) => {
        mod $module {
            $(#[test] fn $name() {
                super::holds(evenkeel::DeviceKind::$kind, stringify!($name));
            })*

            #[test] fn golden_vectors() {
                super::golden_vectors(evenkeel::DeviceKind::$kind);
            }

            #[test] fn wrong_results_are_refused() {
                super::refuses_wrong_results(evenkeel::DeviceKind::$kind);
            }
        }
    };
}

properties!(
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

#[test]
fn every_property_is_a_test() {
    let all: Vec<&str> = PROPERTIES.iter().map(|property| property.name).collect();
    assert_eq!(NAMES, all);
}

/// Results that are wrong in the ways kernels go wrong are refused, with the bounds of each device.
fn refuses_wrong_results(kind: DeviceKind) {
    let Some(subject) = subject(kind) else {
        return;
    };
    let accepted: Vec<String> = WRONG_RESULTS
        .iter()
        .filter_map(|wrong| wrong.is_rejected(&subject.devices()[0]).err())
        .collect();
    assert!(accepted.is_empty(), "{}", accepted.join("\n"));
}

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
            match loss::check(device, &problem) {
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

/// Every synchronisation of the kernels, switched off, shows: `evenkeel verify --mutate`.
#[cfg(feature = "emulator")]
#[test]
fn every_synchronisation_is_needed_or_listed() {
    if subject(DeviceKind::Emulated).is_none() {
        return;
    }
    let options = evenkeel_cli::verify::Options {
        device: Some(DeviceKind::Emulated),
        seeds: SEEDS,
        mutate: true,
        quick: true,
    };
    assert_eq!(evenkeel_cli::verify::run(&options), Ok(true));
}
