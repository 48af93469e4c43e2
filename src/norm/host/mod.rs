//! The row operations on the CPU: the reference over host slices, each result rounded once.

pub(super) mod floats;
pub(super) mod rows;
