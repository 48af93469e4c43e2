//! Devices, streams, buffers and views.

use evenkeel::Device;

#[test]
fn round_trip() {
    let stream = Device::cpu().stream().unwrap();
    assert_eq!(
        stream
            .upload(&[2], &[1.0_f32, 2.0])
            .unwrap()
            .read::<f32>()
            .unwrap(),
        [1.0, 2.0]
    );
}
