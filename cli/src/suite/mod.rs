//! The property suites, one for each family of operations; each property a function of the devices it
//! is to hold on.
//!
//! The tests make one test of each for each kind of device; `evenkeel verify` runs them all.

mod loss;
mod matmul;
mod norm;
mod proofs;
mod quant;
mod random;

use evenkeel::{Device, DeviceKind, Error};

pub(crate) use self::matmul::pairs as matmul_pairs;
use crate::choose::Op;
use crate::compare::{Checked, Verdict};
use crate::subject::Subject;

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// What takes a minute on the emulator.
    Quick,
    /// Everything.
    Full,
}

/// What a property that holds tells.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Problems that were computed.
    pub problems: usize,
    /// How close they came to their bounds.
    pub verdict: Verdict,
    /// Why nothing was tried here.
    pub skipped: Option<String>,
}

impl Held {
    fn skipped(reason: impl Into<String>) -> Result<Self, String> {
        Ok(Self {
            skipped: Some(reason.into()),
            ..Self::default()
        })
    }

    /// Computes a problem and takes its verdict in.
    fn check(&mut self, device: &Device, problem: &dyn Checked) -> Result<(), String> {
        let verdict = problem
            .check(device)
            .map_err(|error| told(&error, problem))?;
        self.take(device, verdict)
    }

    /// Takes the verdict on a problem in.
    fn take(&mut self, device: &Device, verdict: Verdict) -> Result<(), String> {
        self.problems += 1;
        if !verdict.is_right() {
            let more = verdict.wrong - verdict.mismatches.len();
            let more = if more > 0 {
                format!("\nand {more} more")
            } else {
                String::new()
            };
            return Err(format!(
                "on {device}: {}{more}",
                verdict.mismatches.join("\n")
            ));
        }
        self.verdict.merge(verdict);
        Ok(())
    }
}

/// An error, and what it was about.
fn told(error: &Error, problem: &dyn Checked) -> String {
    format!("{error}\n    in {}", problem.name())
}

/// That something holds of a problem.
fn expect(what: &str, holds: bool, problem: &dyn Checked) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(format!("not {what}: {}", problem.name()))
    }
}

/// That a call is refused, with [`Error::Argument`] of this name.
fn names<T>(what: &str, result: evenkeel::Result<T>, argument: &str) -> Result<(), String> {
    match result {
        Err(Error::Argument {
            argument: named, ..
        }) if named == argument => Ok(()),
        Err(other) => Err(format!(
            "{what}: the error is {other}, not one of `{argument}`"
        )),
        Ok(_) => Err(format!("{what} was accepted")),
    }
}

/// A property of a family's operations.
#[derive(Clone, Copy)]
pub struct Property {
    /// Its name: that of its test.
    pub name: &'static str,
    /// What it says.
    pub about: &'static str,
    /// Whether it holds.
    pub check: fn(&Subject, Effort) -> Result<Held, String>,
}

/// A list of properties, named as their functions are.
macro_rules! properties {
    ($($module:ident :: $name:ident: $about:literal),* $(,)?) => {
        /// Every property, in the order in which `verify` runs them.
        pub(super) const PROPERTIES: &[crate::suite::Property] = &[
            $(crate::suite::Property {
                name: stringify!($name),
                about: $about,
                check: $module::$name,
            },)*
        ];
    };
}
use properties;

/// Results that were made wrong on purpose.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// How many.
    pub tried: usize,
    /// What the comparison took for right, or refused before it was made wrong.
    pub failures: Vec<String>,
}

/// A problem whose synchronisations are switched off, and the multiprocessors that make its kernel go
/// round.
pub struct Workload {
    /// What is computed.
    pub problem: Box<dyn Checked>,
    /// Of the emulated device.
    pub multiprocessors: u32,
}

/// What proves a family of operations.
#[derive(Clone, Copy)]
pub struct Family {
    /// Which.
    pub op: Op,
    /// What holds.
    pub properties: &'static [Property],
    /// Whether the comparison refuses what is wrong, in the ways kernels go wrong.
    pub refusals: fn(&Device) -> Refusals,
    /// Problems that execute every synchronisation of the kernels; fewer where it is to be quick.
    pub workloads: fn(bool) -> Vec<Workload>,
}

/// Every family.
pub const FAMILIES: &[Family] = &[loss::FAMILY, norm::FAMILY, quant::FAMILY, matmul::FAMILY];

/// The family of these operations.
#[must_use]
pub fn family(op: Op) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.op == op)
}

/// Whether the devices are emulated.
fn emulated(subject: &Subject) -> bool {
    subject.kind() == DeviceKind::Emulated
}
