//! The properties of products of scaled operands.

mod arguments;
mod layer;
mod product;
mod refused;

use evenkeel::Device;

pub(crate) use self::product::pairs;

use super::{Family, Refusals, Workload, properties};
use crate::choose::Op;

pub(super) const FAMILY: Family = Family {
    op: Op::Matmul,
    properties: PROPERTIES,
    refusals,
    workloads,
};

properties!(
    product::products_of_every_pair: "each pair of formats, kind of values and type of output, within the derived bound",
    product::product_shapes: "1, primes, every remainder of tiles and blocks, every alignment, gaps between rows",
    product::product_values: "values that cancel, outliers, any codes, in every pair of formats",
    product::integers_are_exact: "sums that nothing rounds have every bit, with scales, groups and what follows",
    product::product_epilogues: "alpha, bias, beta C, in place and apart, activations, FP8 outputs, amax",
    product::products_of_groups: "experts of every size, forward and for gradients of weights; nothing else is touched",
    product::groups_that_are_none: "offsets that descend or leave the dimension touch nothing",
    product::what_is_not_finite_stays: "a NaN is in its row, and in no other",
    product::products_same_bits: "runs, schedules and device sizes give the same bits",
    product::random_products: "problems drawn at random, made small when they fail",
    product::products_on_other_architectures: "each architecture, with its limits",
    layer::layers_of_every_recipe: "a linear layer's result and gradients, within what rounding its operands allows",
    arguments::product_wrong_arguments: "each wrong argument is refused under its name",
);

fn refusals(device: &Device) -> Refusals {
    let mut all = Refusals::default();
    refused::refusals(device, &mut all);
    all
}

fn workloads(quick: bool) -> Vec<Workload> {
    product::workloads(quick)
}
