//! The properties of the softmaxes.

mod arguments;
mod edges;
mod forms;
mod properties;
mod random;
mod rejection;
mod schedules;

pub(super) use self::arguments::softmax_wrong_arguments;
pub(super) use self::edges::{
    softmax_of_nothing, softmax_of_rows_that_are_not_finite, softmax_of_rows_that_see_nothing,
};
pub(super) use self::forms::{softmax_forms_agree, softmax_ranks};
pub(super) use self::properties::{
    softmax_alignments, softmax_extremes, softmax_kinds_and_masks, softmax_lengths_of_rows,
    softmax_offsets_change_nothing, softmax_peaks_keep_their_digits, softmax_rows_sum_to_one,
};
pub(super) use self::random::softmax_random_problems;
pub(super) use self::rejection::REFUSED;
pub(super) use self::schedules::{
    softmax_on_other_architectures, softmax_past_two_to_the_32, softmax_same_bits, softmax_traffic,
    workloads,
};

use super::proofs;
