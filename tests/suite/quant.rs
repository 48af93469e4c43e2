//! The properties of the low-bit formats, one test of each for each kind of device, and golden
//! vectors on all of them.

use evenkeel::DeviceKind;

use crate::properties::properties;

// In the order of the lists of cli/src/suite/quant/mod.rs.
properties!(
    Quant:
    every_format_and_option,
    quantised_shapes,
    quantised_values,
    every_bf16_value,
    quantise_forms_agree,
    within_half_a_step,
    scales_fit_their_blocks,
    stochastic_rounding_is_unbiased,
    representable_values_stay,
    offsets_add_up,
);

/// The golden vectors of each operation on a device.
const GOLDEN: &[fn(DeviceKind)] = &[];

/// Every golden case on a device.
fn golden_vectors(kind: DeviceKind) {
    for check in GOLDEN {
        check(kind);
    }
}
