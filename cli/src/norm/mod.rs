//! The row operations: their problems, their tolerances, and the comparison with the reference.

pub mod operation;

pub use self::operation::Operation;
