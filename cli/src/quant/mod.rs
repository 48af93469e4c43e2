//! The low-bit formats: their problems and their comparison with the reference, bit for bit.

pub mod activation;
pub mod bits;
pub mod cases;
pub mod compare;
pub mod decode;
pub mod delayed;
pub mod exact;
pub mod gauss;
pub mod input;
pub mod outcome;
pub mod places;
pub mod problem;
pub mod run;
pub mod straight_through;
pub mod values;

use evenkeel::{DeviceKind, Result, Stream};

pub use self::{
    decode::Decoded,
    input::Values,
    outcome::{Outcome, Stored},
    problem::{Case, Form, Given, Output, Problem, Wanted},
    values::{ValuesCase, ValuesOutcome, ValuesProblem},
};
use crate::compare::{Checked, Computed, Verdict};

impl Computed for Problem {
    type Outcome = Outcome;

    fn named(&self) -> &str {
        &self.name
    }

    fn outcome(&self, stream: &Stream) -> Result<Outcome> {
        run::run_on(stream, self)
    }

    fn verdict(&self, outcome: &Outcome, _: DeviceKind) -> Result<Verdict> {
        compare::compare(self, outcome)
    }

    fn same_bits(one: &Outcome, other: &Outcome) -> bool {
        one == other
    }
}

impl Checked for Problem {
    fn name(&self) -> &str {
        &self.name
    }

    fn check_on(&self, stream: &Stream) -> Result<Verdict> {
        compare::compare(self, &run::run_on(stream, self)?)
    }
}
