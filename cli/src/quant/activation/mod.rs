//! Activations and their gradients: their problems, and their comparison with the reference.

pub mod bounds;
pub mod compare;
pub mod fused;
pub mod problem;
pub mod run;

use evenkeel::{DeviceKind, Result, Stream};

pub use self::{
    fused::Fused,
    problem::{Case, Problem, Values},
    run::Outcome,
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

    fn verdict(&self, outcome: &Outcome, kind: DeviceKind) -> Result<Verdict> {
        compare::compare(self, outcome, kind)
    }

    fn same_bits(one: &Outcome, other: &Outcome) -> bool {
        one.bits() == other.bits()
    }
}

impl Checked for Problem {
    fn name(&self) -> &str {
        &self.name
    }

    fn check_on(&self, stream: &Stream) -> Result<Verdict> {
        let outcome = run::run_on(stream, self)?;
        compare::compare(self, &outcome, stream.device().kind())
    }
}
