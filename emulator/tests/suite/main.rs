//! Wrong kernels are caught where they are wrong; right ones pass; numbers are exact.

mod asynchronous;
mod block;
mod cluster;
mod grid;
mod harness;
mod launch;
mod memory;
mod pipeline;
mod registers;
mod tensor_core;
mod tensor_map;
mod warp;
mod wgmma;
