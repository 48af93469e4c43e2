//! The properties of the normalizations.

mod arguments;
mod edges;
mod grids;
mod random;
mod rejection;
mod schedules;
mod traffic;
mod workloads;

pub(super) use self::{
    arguments::wrong_arguments,
    edges::{
        accumulating_adds, in_place_equals_apart, no_rows, rotary_embeddings,
        rows_that_are_not_finite,
    },
    grids::{
        an_offset_costs_no_digits, every_alignment, every_norm_in_every_form, every_type, extremes,
        widths,
    },
    random::random_norms,
    rejection::refusals,
    schedules::{norms_on_other_architectures, the_same_bits_every_time},
    traffic::{bytes_of_gradients, bytes_of_norms},
    workloads::workloads,
};
use super::{Effort, Held, emulated, expect, told};
use crate::norm::Operation;
use crate::norm::rows::Case;
use crate::subject::Subject;

/// The operations that these properties are about.
const OPERATIONS: [Operation; 4] = [
    Operation::Norm,
    Operation::HeadNorm,
    Operation::GatedNorm,
    Operation::Sdd,
];

/// Those that the devices have.
fn operations(subject: &Subject) -> Vec<Operation> {
    let kind = subject.kind();
    let here = OPERATIONS.into_iter();
    here.filter(|operation| operation.is_on(kind)).collect()
}

/// What was tried, unless the devices have none of the operations.
fn tried(held: Held) -> Result<Held, String> {
    if held.problems == 0 {
        return Held::skipped("the kernels are to come");
    }
    Ok(held)
}

/// Checks those of the cases whose operation the devices have, on one after the other of them.
fn checked(subject: &Subject, cases: impl IntoIterator<Item = Case>) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, case) in cases.into_iter().enumerate() {
        if !case.operation.is_on(subject.kind()) {
            continue;
        }
        let device = subject.device(index).map_err(|error| error.to_string())?;
        held.check(device, &case.problem())?;
    }
    tried(held)
}
