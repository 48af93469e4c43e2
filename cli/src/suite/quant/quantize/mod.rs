//! The properties of quantisation and of its inverse.

mod again;
mod cases;
mod edges;
mod grids;
mod groups;
mod layouts;
mod random;
mod rejection;
mod rotations;
mod schedules;
mod steps;
mod stochastic;
mod traffic;
mod values;

pub(super) use self::{
    again::{parts_are_as_the_whole, quantising_again_changes_nothing, transposes_are_consistent},
    edges::{
        counts_and_amaxes, given_scales_are_kept, quantising_nothing,
        what_is_not_finite_stays_apart, zeros_stay_zeros,
    },
    grids::{
        every_bf16_value, every_format_and_option, quantise_forms_agree, quantised_shapes,
        quantised_values,
    },
    groups::{groups_do_not_touch, groups_of_every_size, groups_that_do_not_fit},
    layouts::layouts_hold_the_same_scales,
    random::random_quantisations,
    rejection::refusals,
    rotations::{one_element_spreads_evenly, rotations_are_undone, rotations_cancel_in_a_product},
    schedules::{quantisation_on_other_architectures, quantisation_same_bits, workloads},
    steps::{scales_fit_their_blocks, within_half_a_step},
    stochastic::{offsets_add_up, representable_values_stay, stochastic_rounding_is_unbiased},
    traffic::{dequantisation_traffic, quantisation_traffic, rotations_cost_no_bytes},
    values::{dequantised_values, random_dequantisations, values_are_exact},
};
