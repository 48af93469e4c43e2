//! Products of scaled operands: their cases, tolerances and comparison with the reference.

pub mod bounds;
mod case;
mod compare;
mod operand;
mod run;

pub use case::{Addend, Case, Grouping, Values};
pub use compare::compare;
pub use operand::OperandData;
pub use run::{Outcome, Problem, run_on};
