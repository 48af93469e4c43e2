//! The row operations: their problems, their tolerances, and the comparison with the reference.

pub mod operation;
pub mod rows;

pub use self::operation::Operation;
