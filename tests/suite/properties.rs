//! One test of each property of a family of operations, for each kind of device.

use evenkeel::{DeviceKind, Error};
use evenkeel_cli::choose::Op;
use evenkeel_cli::subject::Subject;
use evenkeel_cli::suite::{self, Effort, Family};

use crate::support;

/// Schedules of the emulator; as many numbers of multiprocessors.
pub const SEEDS: u64 = 4;

/// What a kind of device is proved on, if it is to be tested here.
pub fn subject(kind: DeviceKind) -> Option<Subject> {
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

pub fn family(op: Op) -> &'static Family {
    suite::family(op).unwrap_or_else(|| panic!("the suite has no family {op}"))
}

/// EVENKEEL_TEST_EFFORT=quick tries less: for tools that multiply the time of everything.
fn effort() -> Effort {
    match std::env::var("EVENKEEL_TEST_EFFORT").as_deref() {
        Ok("quick") => Effort::Quick,
        _ => Effort::Full,
    }
}

/// The property `name` holds on a kind of device.
pub fn holds(op: Op, kind: DeviceKind, name: &str) {
    let Some(subject) = subject(kind) else {
        return;
    };
    let property = family(op)
        .properties
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

/// Results that are wrong in the ways kernels go wrong are refused, with the bounds of each device.
pub fn refuses_wrong_results(op: Op, kind: DeviceKind) {
    let Some(subject) = subject(kind) else {
        return;
    };
    let refusals = (family(op).refusals)(&subject.devices()[0]);
    assert!(
        refusals.failures.is_empty(),
        "{}",
        refusals.failures.join("\n")
    );
}

/// `mod cpu`, `mod emulated` and `mod cuda` with a test of each property, of what the family's
/// `golden_vectors` does, and of the results that must be refused.
macro_rules! properties {
    ($op:ident: $($name:ident),* $(,)?) => {
        crate::properties::properties!(@device $op, cpu, Cpu, [$($name),*]);
        #[cfg(feature = "emulator")]
        crate::properties::properties!(@device $op, emulated, Emulated, [$($name),*]);
        crate::properties::properties!(@device $op, cuda, Cuda, [$($name),*]);

        #[test]
        fn every_property_is_a_test() {
            let family = crate::properties::family(evenkeel_cli::choose::Op::$op);
            let all: Vec<&str> = family.properties.iter().map(|property| property.name).collect();
            let named: &[&str] = &[$(stringify!($name)),*];
            assert_eq!(named, all);
        }
    };
    (@device $op:ident, $module:ident, $kind:ident, [$($name:ident),*]) => {
        mod $module {
            use evenkeel::DeviceKind::$kind;
            use evenkeel_cli::choose::Op::$op;

            $(#[test] fn $name() {
                crate::properties::holds($op, $kind, stringify!($name));
            })*

            #[test] fn golden_vectors() {
                super::golden_vectors($kind);
            }

            #[test] fn wrong_results_are_refused() {
                crate::properties::refuses_wrong_results($op, $kind);
            }
        }
    };
}
pub(crate) use properties;
