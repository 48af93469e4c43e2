//! The loss over a softmax: its cases, its tolerance, and the comparison with the reference.

pub mod bounds;
pub mod cases;
pub mod compare;
pub mod gradient;
pub mod problem;
pub mod run;

use evenkeel::{Result, Stream};

pub use self::{
    cases::{Mode, Values},
    compare::compare,
    problem::{Case, Problem},
    run::{Outcome, run},
};
use crate::compare::{Checked, Verdict};

impl Checked for Problem {
    fn name(&self) -> &str {
        &self.name
    }

    fn check_on(&self, stream: &Stream) -> Result<Verdict> {
        Ok(compare(self, &run::run_on(stream, self)?))
    }
}
