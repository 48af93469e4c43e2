//! Products of scaled low-bit operands: the linear layers of a model, forward and backward.

mod arguments;
// Kernels read what the formulas do not.
#[allow(dead_code)]
mod call;
mod check;
mod host;
mod kernels;
mod launch;
#[allow(dead_code)]
mod operand;
mod options;
mod params;
#[allow(dead_code)]
mod product;

pub use arguments::{Addend, Groups, MatmulArguments, MatmulOutputs};
pub use operand::Operand;
pub use options::{Activation, OperandFormat, Promotion};
pub use product::{Matmul, PreparedMatmul};
#[cfg(test)]
mod tests;
