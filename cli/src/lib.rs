//! What verifies and measures evenkeel's kernels: cases, tolerances, the one property suite that
//! `evenkeel verify`, the tests and the benchmarks call, and the program itself.

#![warn(missing_docs)]

pub mod loss;
pub mod numbers;
pub mod random;
pub mod subject;
pub mod suite;
pub mod traffic;
