use super::*;
use crate::Device;
use crate::quant::Fp8;

const E4M3: Format = Format::Fp8Tensor(Fp8::E4m3);
const E5M2: Format = Format::Fp8Tensor(Fp8::E5m2);

fn devices() -> Vec<Device> {
    vec![
        Device::cpu(),
        #[cfg(feature = "emulator")]
        Device::emulated().unwrap(),
    ]
}

fn step(scales: &mut DelayedScales, amax: &[f32]) -> Vec<f32> {
    scales.amax.write(amax).unwrap();
    scales.update().unwrap();
    assert_eq!(scales.amax.read::<f32>().unwrap(), vec![0.0; amax.len()]);
    scales.scales.read().unwrap()
}

#[test]
fn each_tensor_has_the_range_of_its_format() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let formats = [E4M3, E5M2, Format::NvFp4, Format::NvFp4Square];
        let mut scales = DelayedScaling::new().prepare(&stream, &formats).unwrap();
        assert_eq!(scales.scales.read::<f32>().unwrap(), [1.0; 4]);
        let found = step(&mut scales, &[448.0, 448.0, 448.0, 5376.0]);
        assert_eq!(found, [1.0, 448.0 / 57344.0, 448.0 / 2688.0, 2.0]);
    }
}

#[test]
fn margins_and_powers_of_two_leave_room() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let options = DelayedScaling::new().margin(2);
        let mut scales = options.prepare(&stream, &[E4M3]).unwrap();
        assert_eq!(step(&mut scales, &[44.8]), [44.8 / 112.0]);
        let mut scales = options.power_of_two().prepare(&stream, &[E4M3]).unwrap();
        assert_eq!(step(&mut scales, &[44.8]), [0.5]);
    }
}

#[test]
fn a_history_forgets() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let options = DelayedScaling::new().length(40);
        let mut scales = options.prepare(&stream, &[E4M3; 9]).unwrap();
        step(&mut scales, &[896.0; 9]);
        for _ in 1..40 {
            assert_eq!(step(&mut scales, &[448.0; 9]), [2.0; 9]);
        }
        assert_eq!(step(&mut scales, &[448.0; 9]), [1.0; 9]);
        let recent = options.history(AmaxHistory::MostRecent);
        let mut scales = recent.prepare(&stream, &[E4M3; 2]).unwrap();
        assert_eq!(step(&mut scales, &[896.0, 0.0]), [2.0, 1.0]);
        assert_eq!(step(&mut scales, &[448.0, 896.0]), [1.0, 2.0]);
    }
}

#[test]
fn a_saved_state_goes_on_as_though_nothing_had_been() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let options = DelayedScaling::new().length(5);
        let mut scales = options.prepare(&stream, &[E4M3, E5M2]).unwrap();
        for at in 1..8 {
            step(&mut scales, &[at as f32, 100.0 / at as f32]);
        }
        let saved = scales.save().unwrap();
        assert_eq!(saved.cursors, [2, 2]);
        let mut resumed = options.prepare(&stream, &[E4M3, E5M2]).unwrap();
        resumed.restore(&saved).unwrap();
        for at in 1..8 {
            let amax = [3.0 / at as f32, at as f32];
            assert_eq!(step(&mut resumed, &amax), step(&mut scales, &amax));
        }
        assert_eq!(resumed.save().unwrap(), scales.save().unwrap());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let stream = Device::cpu().stream().unwrap();
    let named = |result: Result<()>, name: &str| match result {
        Err(Error::Argument { argument, .. }) => assert_eq!(argument, name),
        other => panic!("{other:?}"),
    };
    let prepare =
        |options: DelayedScaling, formats: &[Format]| options.prepare(&stream, formats).map(|_| ());
    let options = DelayedScaling::new();
    named(prepare(options.length(0), &[E4M3]), "length");
    named(prepare(options.margin(33), &[E4M3]), "margin");
    named(prepare(options, &[E4M3, Format::MxFp4]), "formats");
    let small = options.length(4);
    let mut scales = small.prepare(&stream, &[E4M3; 3]).unwrap();
    assert!(scales.tensor(2).is_ok());
    assert!(scales.tensor(3).is_err());
    assert!(scales.tensor(usize::MAX).is_err());
    assert_eq!(scales.group(1..3).unwrap().scales.shape(), [2]);
    let saved = scales.save().unwrap();
    let other = small.prepare(&stream, &[E4M3; 2]).unwrap().save().unwrap();
    named(scales.restore(&other), "state");
    let other = options.length(3).prepare(&stream, &[E4M3; 3]).unwrap();
    named(scales.restore(&other.save().unwrap()), "state");
    let mut outside = saved.clone();
    outside.cursors[1] = 4;
    named(scales.restore(&outside), "state");
    scales.restore(&saved).unwrap();
    // No tensors, nothing to do.
    small.prepare(&stream, &[]).unwrap().update().unwrap();
}

#[test]
fn text_forms_round_trip() {
    for history in AmaxHistory::ALL {
        assert_eq!(history.to_string().parse::<AmaxHistory>().unwrap(), history);
    }
    assert!("mean".parse::<AmaxHistory>().is_err());
}
