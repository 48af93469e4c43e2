//! The properties of quantisation and of its inverse.

mod cases;
mod grids;
mod steps;
mod stochastic;

pub(super) use self::{
    grids::{
        every_bf16_value, every_format_and_option, quantise_forms_agree, quantised_shapes,
        quantised_values,
    },
    steps::{scales_fit_their_blocks, within_half_a_step},
    stochastic::{offsets_add_up, representable_values_stay, stochastic_rounding_is_unbiased},
};
