//! What the properties of every row operation are made of.

use evenkeel::{DType, Device, DeviceKind};
use proptest::prelude::*;

use super::super::{Effort, Held, Refusals, proofs};
use crate::compare::Computed;
use crate::memory::Layout;
use crate::norm::Operation;
use crate::subject::Subject;

pub(super) use super::super::names;
pub(super) use super::super::proofs::{
    Budget, Wrong, computed, device, layout, other_architectures, same_bits, scattered, within,
};
pub(super) use crate::norm::rows::cases::{FLOATS, INTEGERS, LONG_WIDTHS, WIDTHS};

/// `None` where devices of this kind do not have the operation yet.
pub(super) fn there(subject: &Subject, operation: Operation) -> Option<Result<Held, String>> {
    let kind = subject.kind();
    (!operation.is_on(kind))
        .then(|| Held::skipped(format!("{operation:?} has no kernels on {kind}")))
}

/// Whether a device finds a problem's workload worth its time: the emulator computes some million
/// elements a second.
pub(super) fn is_long_for(subject: &Subject, effort: Effort, length: usize) -> bool {
    length > 20_000 && (effort == Effort::Quick && subject.kind() == DeviceKind::Emulated)
}

/// Four of them.
pub(super) fn layouts() -> impl Strategy<Value = [Layout; 4]> {
    [layout(), layout(), layout(), layout()]
}

/// A float type.
pub(super) fn float() -> impl Strategy<Value = DType> {
    prop::sample::select(FLOATS.to_vec())
}

/// Four of them; all the same half of the time.
pub(super) fn floats() -> impl Strategy<Value = [DType; 4]> {
    prop_oneof![
        float().prop_map(|dtype| [dtype; 4]),
        [float(), float(), float(), float()]
    ]
}

/// Takes the right outcomes, and must refuse the spoilt ones, where the device has the operation.
pub(super) fn refuse<P: Computed>(
    operation: Operation,
    device: &Device,
    wrong: &[Wrong<P>],
    refusals: &mut Refusals,
) {
    if operation.is_on(device.kind()) {
        proofs::refuse(device, wrong, refusals);
    }
}
