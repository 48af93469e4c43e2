//! Wrong kernels are caught where they are wrong; right ones pass; numbers are exact.

mod block;
mod harness;
