//! The properties of the low-bit formats: of quantisation and of what is fused with it.

mod activation;
mod arguments;
mod cache;
mod delayed;
mod gauss;
mod quantize;
mod straight_through;

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
properties!(
    quantize::every_format_and_option: "each format, output, rounding, rotation, layout and type, bit for bit",
    quantize::quantised_shapes: "1, primes, ragged edges of blocks and tiles, every alignment, gaps between rows",
    quantize::quantised_values: "every binade, subnormals, ties, zeros, NaN, infinities; given scales far off",
    quantize::every_bf16_value: "all 2^16 bf16 values in each format",
    quantize::random_quantisations: "problems drawn at random, made small when they fail",
    quantize::quantise_forms_agree: "the allocating call, and each output alone, give the same bits",
    quantize::within_half_a_step: "each element is within half a step of its value, or saturated",
    quantize::scales_fit_their_blocks: "each scale follows from the largest of its block",
    quantize::stochastic_rounding_is_unbiased: "mean error 0 in each stratum, words independent; false alarms 1e-9",
    quantize::representable_values_stay: "elements times powers of two become themselves, whatever the rounding",
    quantize::offsets_add_up: "random words follow the seed and the sum of both offsets",
    quantize::quantising_again_changes_nothing: "quantise(dequantise(q)) = q",
    quantize::transposes_are_consistent: "squares transpose byte for byte; else what X^T becomes row-wise",
    quantize::parts_are_as_the_whole: "rows and blocks by themselves have the bits of the whole",
    quantize::rotations_are_undone: "a rotation and its inverse are the identity, to within half a step",
    quantize::rotations_cancel_in_a_product: "rotated operands have the product of those that are not",
    quantize::one_element_spreads_evenly: "a rotated unit vector is a column of H / sqrt(n)",
    quantize::layouts_hold_the_same_scales: "each layout has each scale in its place, and 0 in its padding",
    quantize::zeros_stay_zeros: "zeros keep their signs, with scales of 1",
    quantize::what_is_not_finite_stays_apart: "NaN and infinities, in their elements or blocks alone",
    quantize::counts_and_amaxes: "saturated and underflowed elements counted again, amax never lowered",
    quantize::given_scales_are_kept: "scales that are given, copied or not",
    quantize::quantising_nothing: "no rows: amax and counts stay, scales are 1",
    quantize::groups_of_every_size: "empty groups, of one row, of several tiles",
    quantize::groups_do_not_touch: "what a group holds shows in no other",
    quantize::groups_that_do_not_fit: "rows outside of groups, offsets that descend, groups cut by bytes and rotations",
    quantize::dequantised_values: "all codes and any scales, in each format, direction, layout and type",
    quantize::values_are_exact: "each value is its element times its scale, rounded once",
    quantize::random_dequantisations: "codes drawn at random, made small when they fail",
    quantize::quantisation_same_bits: "runs, schedules and device sizes give the same bits",
    quantize::quantisation_traffic: "bytes of quantisations against the least there is, no bank conflict",
    quantize::rotations_cost_no_bytes: "a rotation moves nothing more",
    quantize::dequantisation_traffic: "bytes of dequantisations against the least there is",
    quantize::quantisation_on_other_architectures: "each architecture, with its limits",
    arguments::quantise_wrong_arguments: "each wrong argument is refused under its name",
    cache::weights_are_kept: "a version of a weight is quantised once, into the same memory",
    activation::activations_and_gradients: "each function, smoothing, type and way to draw, in one matrix or two",
    activation::activation_shapes: "1, primes, ragged edges of units and blocks, a type for each tensor",
    activation::activation_tails_keep_their_digits: "x e^x where 1 + e^x is 1",
    activation::activations_of_what_is_not_finite: "NaN and infinities, in their elements alone",
    activation::smoothing_of_nothing: "no linear branch has scales of 1",
    activation::activations_same_bits: "runs, schedules and device sizes give the same bits",
    activation::activation_traffic: "one read of each input, one write of each result",
    activation::activations_on_other_architectures: "GPUs with other limits",
    activation::random_activations: "problems drawn at random, made small when they fail",
    activation::quantised_activations_are_both_steps: "the bits of the f32 results, quantised, in each format",
    activation::quantised_activations_of_groups: "the same of groups of rows",
    activation::quantised_activation_traffic: "bytes of quantised activations, against the least there is",
    activation::quantised_activations_on_other_architectures: "quantised activations with the limits of other GPUs",
    gauss::gauss_values_and_types: "GaussWS of each kind of weights and each type, both passes",
    gauss::gauss_shapes: "GaussWS of 1, primes, edges of blocks, every alignment",
    gauss::gauss_extremes: "bits far off, infinite and NaN; weights and gradients not finite",
    gauss::gauss_noise_is_a_rounded_normal: "R is round(N(0, 1) / 2), uncorrelated; false alarms 1e-9",
    gauss::gauss_same_bits: "GaussWS has the same bits on every schedule, in every layout and type",
    gauss::gauss_random_problems: "GaussWS drawn at random, made small when it fails",
    gauss::gauss_wrong_arguments: "each wrong argument of GaussWS and its error",
    gauss::gauss_traffic: "bytes that GaussWS moves, against the least there is",
    gauss::gauss_on_other_architectures: "GaussWS with the limits of other GPUs",
    straight_through::straight_through_values_and_types: "masks and ReSTE of each kind of values and each type",
    straight_through::straight_through_shapes: "straight-through gradients of 1, primes, long rows, every alignment",
    straight_through::straight_through_edges: "the mask ends where the quotient rounds past the largest element",
    straight_through::straight_through_same_bits: "straight-through gradients have the same bits on every schedule",
    straight_through::straight_through_random_problems: "straight-through gradients drawn at random",
    straight_through::straight_through_wrong_arguments: "each wrong argument of a straight-through gradient and its error",
    straight_through::straight_through_traffic: "bytes that straight-through gradients move, against the least",
    straight_through::straight_through_on_other_architectures: "straight-through gradients with the limits of other GPUs",
    delayed::delayed_scales: "scales from histories: each rule, margin, length and number of tensors",
    delayed::delayed_same_bits: "delayed scaling has the same bits on every schedule",
    delayed::delayed_wrong_arguments: "each wrong argument of delayed scaling and its error",
    delayed::delayed_traffic: "bytes that an update moves, against the least there is",
    delayed::delayed_on_other_architectures: "delayed scaling with the limits of other GPUs",
);

/// Results made wrong on purpose, of each operation.
const REFUSALS: &[fn(&Device, &mut Refusals)] = &[
    quantize::refusals,
    activation::refusals,
    gauss::refusals,
    straight_through::refusals,
    delayed::refusals,
];

/// Problems that execute every synchronisation, of each operation; fewer where it is to be quick.
const WORKLOADS: &[fn(bool) -> Vec<Workload>] = &[
    quantize::workloads,
    activation::workloads,
    gauss::workloads,
    straight_through::workloads,
    delayed::workloads,
    // The rows of norms share their store with rows of Fp8Row.
    super::norm::quantized_workloads,
];

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
