//! Devices, streams, buffers and views.

use evenkeel::Device;

#[test]
fn no_driver() {
    match Device::cuda(0) {
        Ok(device) => println!("{device:?}"),
        Err(error) => println!("{error}"),
    }
}
