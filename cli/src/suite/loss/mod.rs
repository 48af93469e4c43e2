//! The properties of the loss.

mod arguments;
mod edges;
mod properties;
mod random;
mod rejection;
mod schedules;
mod wide;
mod workloads;

use super::{Effort, Family, Held, emulated, expect, properties, told};
use crate::choose::Op;

pub(super) const FAMILY: Family = Family {
    op: Op::Loss,
    properties: PROPERTIES,
    refusals: rejection::refusals,
    workloads: workloads::workloads,
};

properties!(
    properties::every_criterion_in_every_mode: "each criterion, mode and type against the reference",
    properties::every_option: "each option, alone and with the others",
    properties::every_reduction: "each denominator, with ignored tokens and empty sequences",
    properties::every_alignment: "rows and gradients at every alignment, padded and strided",
    properties::vocabularies: "each vocabulary of the tables",
    properties::extremes: "probabilities near 0 and 1, offsets, masks by -inf, ascending rows",
    properties::a_common_offset_changes_nothing: "an exact offset of a row leaves every bit of its gradient",
    properties::gradients_sum_to_zero: "the softmax moves no mass",
    random::random_problems: "problems drawn at random, made small when they fail",
    edges::empty_batches: "no tokens, and no valid ones: loss 0, never NaN",
    edges::targets_that_are_no_class: "ignored, out of range, and ignore_index inside the vocabulary",
    edges::rows_that_are_not_finite: "NaN, +inf and all -inf rows, and their neighbours untouched",
    edges::masked_targets: "the formulas at p = 0",
    edges::saturation: "negative powers end at the largest f32",
    edges::bad_offsets: "offsets that do not ascend or leave the batch",
    arguments::wrong_arguments: "each wrong argument and its error",
    schedules::the_same_bits_every_time: "runs, schedules and device sizes give the same bits",
    schedules::rows_in_flight: "the cluster kernel's ring with late copies, 1 to 4 rows in flight",
    schedules::traffic: "bytes moved, against the least there is",
    schedules::other_architectures: "the portable kernel on each architecture",
    wide::past_two_to_the_32: "16385 x 262144 logits",
);
