//! The CUDA programming model on the CPU.
