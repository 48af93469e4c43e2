//! Products of scaled low-bit operands: the linear layers of a model, forward and backward.
//!
//! | | computes | gradients of |
//! |---|---|---|
//! | [`Matmul`] | A B^T of two operands, with scales, bias, C, an activation, groups | none of its own: they are products too |
//! | [`LinearFp8`] | a linear layer in FP8 by a [`Recipe`], its operands quantised as they come | the input, the weight |
//!
//! All products of a linear layer are one, A `[M, K]` times B `[N, K]` transposed, with the contraction
//! along memory in both operands:
//!
//! | | A | B |
//! |---|---|---|
//! | Y = X W^T | X | W |
//! | dX = dY W | dY | W transposed |
//! | dW = dY^T X | dY transposed | X transposed |
//!
//! [`Quantize`](crate::quant::Quantize) makes the transposes in the read that it needs anyway.
//!
//! # Which pairs there are
//!
//! | A | B | scales are applied |
//! |---|---|---|
//! | bf16 or f16 | the same | |
//! | `fp8-tensor`, `fp8-row` | either | to the sums |
//! | `fp8-1x128` | `fp8-128x128` (weights), `fp8-1x128` (gradients of weights) | every 128 of K |
//! | `mxfp8` | `mxfp8` | every 32 of K |
//!
//! Elements are E4M3 or E5M2, E5M2 in one operand at most. Others are
//! [`Error::Unsupported`](crate::Error::Unsupported), which names what to do instead.
//!
//! # How exact they are
//!
//! Elements are multiplied exactly and summed in fp32, FP8 on tensor cores that keep fewer bits until
//! their sums are promoted ([`Promotion`]); scales and each step of the epilogue round once, to fp32,
//! and the result once, to its type. The same inputs on the same device have the same bits; on 9.0
//! operands whose rows do not begin at multiples of 16 bytes are multiplied by other kernels, which sum in
//! another order. The CPU computes in f64.

mod arguments;
mod call;
mod check;
mod hopper_config;
mod hopper_params;
mod host;
mod kernels;
mod launch;
mod linear;
mod operand;
mod options;
mod params;
mod product;
mod recipe;
#[cfg(test)]
mod tests;

pub use arguments::{Addend, Groups, MatmulArguments, MatmulOutputs};
pub use linear::{LinearFp8, PreparedLinearFp8, SavedInput};
pub use operand::Operand;
pub use options::{Activation, OperandFormat, Promotion};
pub use product::{Matmul, PreparedMatmul};
pub use recipe::{Multipliers, Recipe};
