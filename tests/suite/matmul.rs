//! The properties of products, one test of each for each kind of device.

pub mod capture;

use evenkeel::{DeviceKind, Error};
use evenkeel_cli::compare::Checked;

use crate::golden::matmul::load;
use crate::properties::{properties, subject};

// In the order of the list of cli/src/suite/matmul/mod.rs.
properties!(
    Matmul:
    products_of_every_pair,
    product_shapes,
    product_values,
    integers_are_exact,
    product_epilogues,
    products_of_groups,
    groups_that_are_none,
    what_is_not_finite_stays,
    products_same_bits,
    random_products,
    products_on_other_architectures,
    layers_of_every_recipe,
    product_wrong_arguments,
);

/// Every golden case on a device, against the reference, which
/// `golden::matmul::the_reference_agrees_with_exact_fractions` holds to the file's numbers.
fn golden_vectors(kind: DeviceKind) {
    let Some(subject) = subject(kind) else { return };
    for (index, golden) in load().iter().enumerate() {
        let device = subject.device(index).unwrap();
        match golden.problem.check(device) {
            Ok(verdict) => assert!(verdict.is_right(), "{}", verdict.mismatches.join("\n")),
            // What a device has no kernels for is proved on the others.
            Err(Error::Unsupported { remedy, .. }) => eprintln!("skipped: {remedy}"),
            Err(error) => panic!("{error} in {}", golden.problem.name),
        }
    }
}
