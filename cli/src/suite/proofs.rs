//! What the properties of several families are made of.

use evenkeel::{Device, DeviceKind, Error};
use proptest::prelude::*;

use super::{Held, Refusals};
use crate::compare::{Checked, Computed};
use crate::memory::Layout;
use crate::subject::Subject;

/// The device of the `index`-th piece of work.
pub(super) fn device(subject: &Subject, index: usize) -> Result<&Device, String> {
    subject.device(index).map_err(|error| error.to_string())
}

/// Checks a problem against the reference, and gives what was computed for a closer look.
pub(super) fn computed<P: Computed + Checked>(
    held: &mut Held,
    device: &Device,
    problem: &P,
) -> Result<P::Outcome, String> {
    let told = |error: Error| format!("{error}\n    in {}", problem.named());
    let stream = device.stream().map_err(told)?;
    let outcome = problem.outcome(&stream).map_err(told)?;
    let verdict = problem.verdict(&outcome, device.kind()).map_err(told)?;
    held.take(device, verdict)?;
    Ok(outcome)
}

/// Each problem twice on the first device and once on every other: the emulator's differ in schedule
/// and in the number of multiprocessors.
pub(super) fn same_bits<P: Computed + Checked>(
    held: &mut Held,
    subject: &Subject,
    problem: &P,
) -> Result<(), String> {
    let first = computed(held, device(subject, 0)?, problem)?;
    for (index, other) in subject.devices().iter().enumerate() {
        let again = computed(held, other, problem)?;
        if !P::same_bits(&first, &again) {
            return Err(format!("other bits on device {index}: {}", problem.named()));
        }
    }
    Ok(())
}

/// Bytes that a problem's kernels may move, and at least do.
pub(super) struct Budget {
    /// Read at least.
    pub loads: usize,
    /// Written at least.
    pub stores: usize,
    /// Beyond the least, in all: what comes with each row or call.
    pub more: usize,
}

/// Bytes against the least there is, and a hundredth of it.
pub(super) fn within(
    held: &mut Held,
    device: &Device,
    problem: &dyn Checked,
    budget: &Budget,
) -> Result<(), String> {
    let bytes = crate::traffic::of(device, problem)
        .map_err(|error| format!("{error}\n    in {}", problem.name()))?;
    held.problems += 1;
    for (what, got, least) in [
        ("read", bytes.loads, budget.loads),
        ("written", bytes.stores, budget.stores),
    ] {
        let most = least + least / 100 + budget.more;
        if !(least as u64..=most as u64).contains(&got) {
            return Err(format!(
                "{got} bytes {what}, expected {least} to {most}: {}",
                problem.name()
            ));
        }
    }
    Ok(())
}

/// Emulated devices of architectures other than the usual one: without clusters, with other limits.
#[cfg(feature = "emulator")]
pub(super) fn other_architectures() -> Result<Vec<Device>, String> {
    use evenkeel::EmulatorOptions;
    use evenkeel::emulator::Architecture;
    [Architecture::sm_80(), Architecture::sm_120()]
        .into_iter()
        .map(|architecture| {
            let options = EmulatorOptions::new().architecture(architecture).seed(5);
            Device::emulated_with(options).map_err(|error| error.to_string())
        })
        .collect()
}

/// None: this build has no emulator.
#[cfg(not(feature = "emulator"))]
pub(super) fn other_architectures() -> Result<Vec<Device>, String> {
    Ok(Vec::new())
}

/// A way to be wrong.
pub(super) struct Wrong<P: Computed> {
    /// What went wrong, in words.
    pub name: &'static str,
    /// The problem in which it shows.
    pub problem: fn() -> P,
    /// Makes a right outcome wrong.
    pub spoil: fn(&P, &mut P::Outcome),
}

/// Takes the right outcomes, and must refuse the spoilt ones.
pub(super) fn refuse<P: Computed>(device: &Device, wrong: &[Wrong<P>], refusals: &mut Refusals) {
    for wrong in wrong {
        refusals.tried += 1;
        if let Err(failure) = is_refused(device, wrong) {
            refusals.failures.push(failure);
        }
    }
}

fn is_refused<P: Computed>(device: &Device, wrong: &Wrong<P>) -> Result<(), String> {
    let problem = (wrong.problem)();
    let told = |error: Error| format!("{}: {error}", wrong.name);
    let stream = device.stream().map_err(told)?;
    let mut outcome = problem.outcome(&stream).map_err(told)?;
    // What the CPU computes is right by the bounds of kernels too, and what is wrong must be wrong.
    let kinds = [device.kind(), DeviceKind::Emulated];
    for kind in kinds {
        let before = problem.verdict(&outcome, kind).map_err(told)?;
        if !before.is_right() {
            return Err(format!(
                "{}: the right outcome is refused: {:?}",
                wrong.name, before.mismatches
            ));
        }
    }
    (wrong.spoil)(&problem, &mut outcome);
    for kind in kinds {
        if problem.verdict(&outcome, kind).map_err(told)?.is_right() {
            return Err(format!(
                "{} is accepted by the bounds of {kind}",
                wrong.name
            ));
        }
    }
    Ok(())
}

/// Layouts that put each tensor somewhere else, from the index of a case.
pub(super) fn scattered(index: usize) -> [Layout; 4] {
    std::array::from_fn(|at| Layout {
        phase: (index * (2 * at + 1) + at) % 9,
        padding: 0,
        gap: (index + 3 * at) % 4,
    })
}

/// Anywhere: at an element's alignment, with gaps between the rows or none.
pub(super) fn layout() -> impl Strategy<Value = Layout> {
    (0usize..9, prop_oneof![Just(0usize), 1usize..20]).prop_map(|(phase, gap)| Layout {
        phase,
        padding: 0,
        gap,
    })
}
