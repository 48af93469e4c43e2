//! The row operations: their problems, their tolerances, and the comparison with the reference.

pub mod arithmetic;
mod computed;
pub mod dyt;
pub mod operation;
pub mod pass;
pub mod placed;
pub mod quantized;
pub mod rows;
#[cfg(test)]
mod single;
pub mod softmax;
pub mod spectral;
pub mod tev;

pub use self::operation::Operation;
