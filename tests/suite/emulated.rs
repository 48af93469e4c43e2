//! What the emulated device adds: strict reads, and a report of every launch.

use evenkeel::{
    DType, Device, DeviceKind, EmulatorOptions, Error,
    emulator::Architecture,
    loss::{Objective, SoftmaxLoss},
};

use crate::{device::expect_error, support::run};

#[test]
fn what_nothing_wrote_cannot_be_read() {
    run(DeviceKind::Emulated, |device| {
        let stream = device.stream().unwrap();
        let mut buffer = stream.uninitialised(DType::Bf16, &[4]).unwrap();
        let result = buffer.read::<half::bf16>();
        assert!(matches!(result, Err(Error::Findings { .. })), "{result:?}");
        expect_error(result, &["Buffer::read", "element 0 was never written"]);
        buffer.write(&[half::bf16::ONE; 4]).unwrap();
        assert_eq!(buffer.read::<half::bf16>().unwrap(), [half::bf16::ONE; 4]);
        // Nothing is always initialised.
        assert!(
            stream
                .uninitialised(DType::F32, &[0])
                .unwrap()
                .read::<f32>()
                .unwrap()
                .is_empty()
        );
    });
}

#[test]
fn a_kernel_that_reads_what_nothing_wrote_is_an_error() {
    run(DeviceKind::Emulated, |device| {
        let stream = device.stream().unwrap();
        let op = SoftmaxLoss::new(Objective::Nll).prepare(&stream).unwrap();
        let logits = stream.uninitialised(DType::F32, &[2, 5]).unwrap();
        let targets = stream.upload(&[2], &[0_i64, 1]).unwrap();
        let result = op.forward(logits.view(), targets.view()).map(|_| ());
        expect_error(result, &["softmax_loss", "Uninitialised"]);
        assert!(
            stream
                .take_reports()
                .iter()
                .any(|report| !report.is_clean())
        );
    });
}

#[test]
fn every_launch_is_reported_once() {
    run(DeviceKind::Emulated, |device| {
        let stream = device.stream().unwrap();
        let op = SoftmaxLoss::new(Objective::Nll).prepare(&stream).unwrap();
        let logits = stream.upload(&[2, 5], &[0.5_f32; 10]).unwrap();
        let targets = stream.upload(&[2], &[0_i64, 1]).unwrap();
        let loss = op.forward(logits.view(), targets.view()).unwrap();
        assert!((loss.read().unwrap() - 5_f32.ln()).abs() < 1e-6);
        let reports = stream.take_reports();
        assert!(
            reports
                .iter()
                .any(|report| report.kernel.starts_with("softmax_loss"))
        );
        assert!(reports.iter().all(|report| report.is_clean()));
        assert!(
            reports
                .iter()
                .any(|report| report.traffic.global_load_bytes >= 40)
        );
        assert!(stream.take_reports().is_empty());
        assert!(Device::cpu().stream().unwrap().take_reports().is_empty());
    });
}

#[test]
fn emulators_are_devices_of_their_own() {
    run(DeviceKind::Emulated, |device| {
        let other = Device::emulated().unwrap();
        assert_ne!(other.id(), device.id());
        assert_eq!(device.clone().id(), device.id());
        let stream = device.stream().unwrap();
        let op = SoftmaxLoss::new(Objective::Nll).prepare(&stream).unwrap();
        let logits = other.stream().unwrap().zeros(DType::F32, &[2, 5]).unwrap();
        let targets = stream.upload(&[2], &[0_i64, 1]).unwrap();
        let words = [device.to_string(), other.to_string()];
        let words = words.each_ref().map(String::as_str);
        expect_error(
            op.forward(logits.view(), targets.view()).map(|_| ()),
            &words,
        );
        let event = other.stream().unwrap().record().unwrap();
        expect_error(stream.wait(&event), &words);
    });
}

#[test]
fn the_architecture_is_an_option() {
    run(DeviceKind::Emulated, |device| {
        assert_eq!(
            device.compute_capability(),
            Some((9, 0)),
            "an H100 unless told otherwise"
        );
        let options = EmulatorOptions::new()
            .architecture(Architecture::sm_86())
            .seed(3);
        let ampere = Device::emulated_with(options).unwrap();
        assert_eq!(ampere.compute_capability(), Some((8, 6)));
        assert_eq!(ampere.name(), "emulated sm_86");
    });
}
