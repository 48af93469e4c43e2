//! The properties of the row operations.

mod rows;

use evenkeel::Device;

use super::{Effort, Family, Held, Refusals, Workload, emulated, expect, properties, told};
use crate::choose::Op;

pub(super) const FAMILY: Family = Family {
    op: Op::Norm,
    properties: PROPERTIES,
    refusals,
    workloads,
};

properties!(
    rows::every_norm_in_every_form: "each normalization, form, type and set of weights against the reference",
    rows::every_type: "the type of each tensor, independent of the others'",
    rows::every_alignment: "every tensor at every alignment, with gaps between rows",
    rows::widths: "rows from 1 to 262144 elements, and each length of heads",
    rows::extremes: "offsets, constant and zero rows, huge and tiny ones, spikes",
    rows::an_offset_costs_no_digits: "LayerNorm of bf16 rows with an offset of 1e4",
    rows::rotary_embeddings: "both pairings, each width, positions in and out of the tables",
    rows::rows_that_are_not_finite: "NaN and infinities: NaN for their rows, their neighbours untouched",
    rows::accumulating_adds: "gradients of weights added to what is there",
    rows::in_place_equals_apart: "the same bits in place, apart and allocated",
    rows::random_norms: "problems drawn at random, made small when they fail",
    rows::no_rows: "nothing is written but gradients of weights, which are 0 or stay",
    rows::wrong_arguments: "each wrong argument and its error",
    rows::the_same_bits_every_time: "runs, schedules and device sizes give the same bits",
    rows::bytes_of_norms: "bytes moved by a forward, against the least there is",
    rows::norms_on_other_architectures: "each architecture, with its limits",
);

fn refusals(device: &Device) -> Refusals {
    rows::refusals(device)
}

fn workloads(quick: bool) -> Vec<Workload> {
    rows::workloads(quick)
}
