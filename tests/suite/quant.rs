//! The properties of the low-bit formats, one test of each for each kind of device, and golden
//! vectors on all of them.

mod activation;
pub mod capture;
mod elementwise;
mod quantize;

use evenkeel::DeviceKind;

use crate::properties::properties;

// In the order of the lists of cli/src/suite/quant/mod.rs.
properties!(
    Quant:
    every_format_and_option,
    quantised_shapes,
    quantised_values,
    every_bf16_value,
    random_quantisations,
    quantise_forms_agree,
    within_half_a_step,
    scales_fit_their_blocks,
    stochastic_rounding_is_unbiased,
    representable_values_stay,
    offsets_add_up,
    quantising_again_changes_nothing,
    transposes_are_consistent,
    parts_are_as_the_whole,
    rotations_are_undone,
    rotations_cancel_in_a_product,
    one_element_spreads_evenly,
    layouts_hold_the_same_scales,
    zeros_stay_zeros,
    what_is_not_finite_stays_apart,
    counts_and_amaxes,
    given_scales_are_kept,
    quantising_nothing,
    groups_of_every_size,
    groups_do_not_touch,
    groups_that_do_not_fit,
    dequantised_values,
    values_are_exact,
    random_dequantisations,
    quantisation_same_bits,
    quantisation_traffic,
    rotations_cost_no_bytes,
    dequantisation_traffic,
    quantisation_on_other_architectures,
    quantise_wrong_arguments,
    weights_are_kept,
    activations_and_gradients,
    activation_shapes,
    activation_tails_keep_their_digits,
    activations_of_what_is_not_finite,
    smoothing_of_nothing,
    activations_same_bits,
    activation_traffic,
    activations_on_other_architectures,
    random_activations,
    quantised_activations_are_both_steps,
    quantised_activations_of_groups,
    quantised_activation_traffic,
    quantised_activations_on_other_architectures,
    gauss_values_and_types,
    gauss_shapes,
    gauss_extremes,
    gauss_noise_is_a_rounded_normal,
    gauss_same_bits,
    gauss_random_problems,
    gauss_wrong_arguments,
    gauss_traffic,
    gauss_on_other_architectures,
    straight_through_values_and_types,
    straight_through_shapes,
    straight_through_edges,
    straight_through_same_bits,
    straight_through_random_problems,
    straight_through_wrong_arguments,
    straight_through_traffic,
    straight_through_on_other_architectures,
    delayed_scales,
    delayed_same_bits,
    delayed_wrong_arguments,
    delayed_traffic,
    delayed_on_other_architectures,
);

/// The golden vectors of each operation on a device.
const GOLDEN: &[fn(DeviceKind)] = &[
    quantize::golden_vectors,
    activation::golden_vectors,
    elementwise::golden_vectors,
];

/// Every golden case on a device.
fn golden_vectors(kind: DeviceKind) {
    for check in GOLDEN {
        check(kind);
    }
}
