//! The properties of the loss, one test of each for each kind of device, and golden vectors on all of
//! them.

use evenkeel::DeviceKind;
use evenkeel_cli::subject::Subject;
use evenkeel_cli::suite::{Effort, PROPERTIES, WRONG_RESULTS};

use crate::support;

/// Schedules of the emulator; as many numbers of multiprocessors.
const SEEDS: u64 = 4;

/// What a kind of device is proved on, if it is to be tested here.
fn subject(kind: DeviceKind) -> Option<Subject> {
    support::device(kind)?;
    match Subject::of(kind, SEEDS) {
        Ok(subject) => Some(subject),
        Err(error) => panic!("{kind}: {error}"),
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
    match (property.check)(&subject, Effort::Full) {
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

#[test]
fn wrong_results_are_refused_on_the_cpu() {
    refuses_wrong_results(DeviceKind::Cpu);
}

#[cfg(feature = "emulator")]
#[test]
fn wrong_results_are_refused_on_the_emulator() {
    refuses_wrong_results(DeviceKind::Emulated);
}
