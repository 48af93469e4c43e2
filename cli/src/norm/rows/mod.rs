//! Normalizations of rows: Norm, `HeadNorm`, `GatedNorm` and Sdd, which one pair of kernels serves.

pub mod bounds;
pub mod cases;
pub mod compare;
pub mod exact;
mod gradients;
pub mod problem;
pub mod run;

use evenkeel::{Result, Stream};

pub use self::{
    cases::{Form, Types, Values},
    compare::compare,
    problem::{Case, Problem, Shape},
    run::{Outcome, run},
};
use crate::compare::{Checked, Verdict};

impl Checked for Problem {
    fn name(&self) -> &str {
        &self.name
    }

    fn check_on(&self, stream: &Stream) -> Result<Verdict> {
        compare(self, &run::run_on(stream, self)?)
    }
}
