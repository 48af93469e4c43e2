//! Every synchronisation of the kernels, switched off, shows: `evenkeel verify --mutate`.

use evenkeel::DeviceKind;

use crate::properties::{SEEDS, subject};

#[test]
fn every_synchronisation_is_needed_or_listed() {
    if subject(DeviceKind::Emulated).is_none() {
        return;
    }
    let options = evenkeel_cli::verify::Options {
        device: Some(DeviceKind::Emulated),
        op: None,
        seeds: SEEDS,
        mutate: true,
        quick: true,
    };
    assert_eq!(evenkeel_cli::verify::run(&options), Ok(true));
}
