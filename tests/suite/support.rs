//! One test for each device.

use std::{
    collections::BTreeSet,
    io::Write,
    sync::{Mutex, PoisonError},
};

use evenkeel::{Device, DeviceKind};

/// Makes a test of each function (of a `&Device`) for each device.
macro_rules! on_every_device {
    ($($(#[$attribute:meta])* $test:ident),* $(,)?) => {
        mod cpu {
            $($(#[$attribute])* #[test] fn $test() {
                crate::support::run(evenkeel::DeviceKind::Cpu, super::$test);
            })*
        }
        #[cfg(feature = "emulator")]
        mod emulated {
            $($(#[$attribute])* #[test] fn $test() {
                crate::support::run(evenkeel::DeviceKind::Emulated, super::$test);
            })*
        }
        mod cuda {
            $($(#[$attribute])* #[test] fn $test() {
                crate::support::run(evenkeel::DeviceKind::Cuda, super::$test);
            })*
        }
    };
}
pub(crate) use on_every_device;

/// Runs a test on the device, if it is to be tested here.
pub fn run(kind: DeviceKind, test: impl FnOnce(&Device)) {
    if let Some(device) = device(kind) {
        test(&device);
    }
}

/// A device of this kind; `None`, with the reason on the terminal, where it is not to be tested
/// here.
pub fn device(kind: DeviceKind) -> Option<Device> {
    let wanted = std::env::var("EVENKEEL_TEST_DEVICE").ok();
    if let Some(wanted) = &wanted
        && *wanted != kind.to_string()
    {
        skip(kind, &format!("EVENKEEL_TEST_DEVICE is {wanted}"));
        return None;
    }
    let device = match kind {
        DeviceKind::Cpu => Ok(Device::cpu()),
        #[cfg(feature = "emulator")]
        DeviceKind::Emulated => Device::emulated(),
        _ => Device::cuda(0),
    };
    match device {
        Ok(device) => Some(device),
        Err(error) if wanted.is_some() => panic!("{kind} is to be tested, but: {error}"),
        Err(error) => {
            skip(kind, &error.to_string());
            None
        }
    }
}

/// Says once for each device that its tests do nothing. The handle is written to because the test
/// harness keeps back what passing tests print.
pub fn skip(kind: DeviceKind, reason: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.insert(kind.to_string()) {
        let _ = writeln!(std::io::stderr(), "\ntests on {kind} are skipped: {reason}");
    }
}
