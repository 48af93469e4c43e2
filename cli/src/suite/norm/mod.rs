//! The properties of the row operations.

use evenkeel::Device;

use super::{Family, Refusals, Workload, properties};
use crate::choose::Op;

pub(super) const FAMILY: Family = Family {
    op: Op::Norm,
    properties: PROPERTIES,
    refusals,
    workloads,
};

properties!();

fn refusals(_: &Device) -> Refusals {
    Refusals::default()
}

fn workloads(_: bool) -> Vec<Workload> {
    Vec::new()
}
