//! The properties of the low-bit formats: of quantisation and of what is fused with it.

mod quantize;

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
    quantize::quantise_forms_agree: "the allocating call, and each output alone, give the same bits",
    quantize::within_half_a_step: "each element is within half a step of its value, or saturated",
    quantize::scales_fit_their_blocks: "each scale follows from the largest of its block",
    quantize::stochastic_rounding_is_unbiased: "mean error 0 in each stratum, words independent; false alarms 1e-9",
    quantize::representable_values_stay: "elements times powers of two become themselves, whatever the rounding",
    quantize::offsets_add_up: "random words follow the seed and the sum of both offsets",
);

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
