//! Dynamic tanh: its cases, tolerance and comparison with the reference.

pub mod compare;
pub mod problem;
pub mod run;

pub use self::{
    compare::compare,
    problem::{Case, Problem, Values},
    run::{Outcome, run_on},
};
