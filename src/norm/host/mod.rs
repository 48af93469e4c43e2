//! The row operations on the CPU: the reference over host slices, each result rounded once.

pub(super) mod dyt;
pub(super) mod rows;
pub(super) mod softmax;
pub(super) mod spectral;
pub(super) mod tev;
