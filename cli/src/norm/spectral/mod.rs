//! The spectral norm of weights: its cases, tolerance and comparison with the reference.

pub mod bounds;
pub mod compare;
pub mod problem;
pub mod run;
#[cfg(test)]
mod single;

pub use self::{
    compare::compare,
    problem::{Case, Problem, Values},
    run::{Outcome, run_on},
};
