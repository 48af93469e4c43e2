//! The verdict on results: what every operation's comparison with the reference fills in.

use std::collections::BTreeMap;

use evenkeel::{DType, Device, DeviceKind, Result, Stream};

use crate::numbers::{Interval, Worst};

/// Mismatches that are told; the rest is counted.
const TOLD: usize = 8;

/// What can be computed on a device and compared with the reference: the problems of all operations.
pub trait Checked {
    /// For messages.
    fn name(&self) -> &str;

    /// Computes it on a stream and compares everything with the reference.
    ///
    /// # Errors
    /// The library's; an emulator's findings among them.
    fn check_on(&self, stream: &Stream) -> Result<Verdict>;

    /// The same, on a stream of its own.
    ///
    /// # Errors
    /// As [`check_on`](Self::check_on).
    fn check(&self, device: &Device) -> Result<Verdict> {
        self.check_on(&device.stream()?)
    }
}

/// A problem and what a device makes of it.
pub trait Computed {
    /// Everything that a device computed.
    type Outcome;

    /// For messages.
    fn named(&self) -> &str;

    /// Computes it.
    ///
    /// # Errors
    /// The library's, but for what the status word holds: that is part of the outcome.
    fn outcome(&self, stream: &Stream) -> Result<Self::Outcome>;

    /// Compares an outcome of a device of this kind with the reference.
    ///
    /// # Errors
    /// The reference's.
    fn verdict(&self, outcome: &Self::Outcome, kind: DeviceKind) -> Result<Verdict>;

    /// Whether two outcomes are the same, bit for bit.
    fn same_bits(one: &Self::Outcome, other: &Self::Outcome) -> bool;
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The worst of each kind of result.
    pub worst: BTreeMap<&'static str, Worst>,
    /// What is wrong; the first few of it.
    pub mismatches: Vec<String>,
    /// How much is wrong.
    pub wrong: usize,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.wrong == 0
    }

    /// Takes in another verdict.
    pub fn merge(&mut self, other: Self) {
        for (name, worst) in &other.worst {
            self.worst.entry(name).or_default().merge(worst);
        }
        self.wrong += other.wrong;
        let room = TOLD.saturating_sub(self.mismatches.len());
        self.mismatches
            .extend(other.mismatches.into_iter().take(room));
    }

    /// One thing more is wrong.
    pub fn wrong(&mut self, message: impl FnOnce() -> String) {
        self.wrong += 1;
        if self.mismatches.len() < TOLD {
            self.mismatches.push(message());
        }
    }

    /// What has no tolerance.
    pub fn equal<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: impl FnOnce() -> String,
        got: &T,
        want: &T,
    ) {
        if got != want {
            self.wrong(|| format!("{} is {got:?}, expected {want:?}", what()));
        }
    }

    /// A number of `dtype` and the roundings it may be; `name` is its kind, `place` which of them.
    pub fn number(
        &mut self,
        name: &'static str,
        dtype: DType,
        got: f64,
        interval: Interval,
        place: impl FnOnce() -> String,
    ) {
        self.worst
            .entry(name)
            .or_default()
            .add(dtype, got, interval);
        if !interval.contains(got) {
            self.wrong(|| {
                format!(
                    "{name}{} is {got:e}, expected {:e} within [{:e}, {:e}]",
                    place(),
                    interval.exact,
                    interval.low,
                    interval.high
                )
            });
        }
    }

    /// Names the problem in every mismatch.
    #[must_use]
    pub fn of(mut self, problem: &str) -> Self {
        for mismatch in &mut self.mismatches {
            *mismatch = format!("{mismatch}\n    in {problem}");
        }
        self
    }
}
