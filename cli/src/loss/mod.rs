//! The loss over a softmax: its cases, its tolerance, and the comparison with the reference.

pub mod bounds;
pub mod cases;
pub mod compare;
pub mod gradient;
pub mod problem;
pub mod run;

use evenkeel::{Device, Result};

pub use self::{
    cases::{Mode, Values},
    compare::{Verdict, compare},
    problem::{Case, Layout, Problem},
    run::{Outcome, run},
};

/// Computes a problem on a device and compares everything with the reference.
///
/// # Errors
/// The library's; an emulator's findings among them.
pub fn check(device: &Device, problem: &Problem) -> Result<Verdict> {
    Ok(compare(problem, &run(device, problem)?))
}
