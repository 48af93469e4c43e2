//! The low-bit formats: their problems and their comparison with the reference, bit for bit.

pub mod bits;
pub mod input;
pub mod operation;

pub use self::{input::Values, operation::Operation};
