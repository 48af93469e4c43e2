//! Other people's memory and streams.

pub(crate) mod access;
pub mod cudarc;
pub mod raw;
