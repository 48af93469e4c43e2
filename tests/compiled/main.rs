//! What nvcc made of the kernels: their resources against a committed budget, and their
//! instructions against what each was written to become. Needs no GPU; without a CUDA compiler the
//! tests say that they looked at nothing.

mod budget;
mod code;
mod expectations;
mod report;
mod sass;
