//! The properties of the low-bit formats: of quantisation and of what is fused with it.

use evenkeel::Device;

use super::{Family, Refusals, Workload, properties};
use crate::choose::Op;

pub(super) const FAMILY: Family = Family {
    op: Op::Quant,
    properties: PROPERTIES,
    refusals,
    workloads,
};

// Each operation has a module with its properties, and its results made wrong on purpose and its
// workloads in the lists below.
properties!();

/// Results made wrong on purpose, of each operation.
const REFUSALS: &[fn(&Device, &mut Refusals)] = &[];

/// Problems that execute every synchronisation, of each operation; fewer where it is to be quick.
const WORKLOADS: &[fn(bool) -> Vec<Workload>] = &[];

fn refusals(device: &Device) -> Refusals {
    let mut all = Refusals::default();
    for refuse in REFUSALS {
        refuse(device, &mut all);
    }
    all
}

fn workloads(quick: bool) -> Vec<Workload> {
    WORKLOADS.iter().flat_map(|of| of(quick)).collect()
}
