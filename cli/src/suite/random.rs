//! Problems drawn at random, made small when they fail.

use evenkeel::{Device, DeviceKind};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::{Effort, Held};
use crate::subject::Subject;

/// How many problems a kind of device can compute in some seconds.
fn problems(kind: DeviceKind, effort: Effort) -> u32 {
    let full = match kind {
        DeviceKind::Cpu => 400,
        DeviceKind::Emulated => 600,
        _ => 1000,
    };
    if effort == Effort::Quick {
        full / 4
    } else {
        full
    }
}

/// Draws cases, a device for each from its seed, and checks them. What fails is made small before it
/// is told.
pub(super) fn drawn<C: std::fmt::Debug>(
    subject: &Subject,
    effort: Effort,
    cases: &impl Strategy<Value = C>,
    seed_of: impl Fn(&C) -> u64,
    check: impl Fn(&mut Held, &Device, &C) -> Result<(), String>,
) -> Result<Held, String> {
    let config = Config {
        cases: problems(subject.kind(), effort),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[17; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let held = std::cell::RefCell::new(Held::default());
    let outcome = runner.run(cases, |case| {
        let index = (seed_of(&case) % subject.devices().len() as u64) as usize;
        let device = subject
            .device(index)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        check(&mut held.borrow_mut(), device, &case).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => Ok(held.into_inner()),
        Err(TestError::Fail(reason, case)) => {
            Err(format!("{reason}\nthe smallest such case: {case:#?}"))
        }
        Err(TestError::Abort(reason)) => Err(format!("gave up: {reason}")),
    }
}
