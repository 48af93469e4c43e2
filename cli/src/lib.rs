//! What verifies and measures evenkeel's kernels: cases, tolerances, the one property suite that
//! `evenkeel verify`, the tests and the benchmarks call, and the program itself.

#![warn(missing_docs)]

pub mod bench;
pub mod choose;
pub mod compare;
pub mod info;
pub mod loss;
pub mod matmul;
pub mod memory;
pub mod norm;
pub mod numbers;
pub mod program;
pub mod quant;
pub mod random;
pub mod subject;
pub mod suite;
pub mod traffic;
pub mod verify;
