//! Quantisation, to the bit.
//!
//! What other devices are compared with is exact: every scale and element here is the one that they
//! have to give. The input is f32, as which bf16 and f16 values are exact, and each step is one
//! operation of f32 or of integers.
//!
//! - [`philox`] makes the random words of stochastic rounding and of rotations' signs.
//! - [`hadamard`] rotates, before anything else.
//! - [`scale`] makes scales of amax, the largest finite magnitude of what they are for.
//! - [`element`] makes elements of u = RN(x / scale); u = RN(x / RN(block scale x tensor scale)) in
//!   NVFP4, whose elements are 0 where that product is 0.
//! - [`quantize`] and [`dequantize`] lay them out.
//! - [`activation`] holds what is fused with it, in f64.
//!
//! Values that are not finite leave amax alone. An FP8 element keeps NaN and saturates at the
//! infinities. A block of E2M1 that holds any has a NaN scale and elements 0, and the status has
//! `NON_FINITE_BLOCK`.
//!
//! Rows of the input may be in groups. Blocks of several rows begin anew with each group and have the
//! slots of [`scale_shape`]; a tensor's scale and amax are then those of a group. Offsets that do not
//! ascend within the rows leave everything 0 (`BAD_GROUP_OFFSETS`). A transposed output has nothing of
//! a group that starts inside a byte of two elements, and 0 where a group ends inside a rotation's
//! block (`RAGGED_GROUP`).

pub mod activation;
mod blocks;
pub mod delayed;
mod dequantize;
pub mod element;
pub mod gauss;
pub mod hadamard;
mod oriented;
pub mod philox;
mod quantize;
pub mod scale;
pub mod straight_through;
#[cfg(test)]
mod tests;

pub use blocks::{Direction, scale_shape};
pub use dequantize::{ScalesRef, View, dequantize};
pub use quantize::{Call, Quantized, Scales, quantize};

use crate::Error;

/// An input `[rows, columns]`, row-major without padding.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
}

impl<'a> Matrix<'a> {
    /// A view of `values`.
    ///
    /// # Errors
    /// [`Error::Argument`] when `values` has not rows x columns elements.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Result<Self, Error> {
        let fits = rows.checked_mul(columns) == Some(values.len());
        let expected = format!("{rows} x {columns} elements");
        expect("x", fits, &expected, values.len())?;
        Ok(Self {
            values,
            rows,
            columns,
        })
    }

    /// `[rows, columns]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }
}

fn expect(
    argument: &'static str,
    valid: bool,
    expected: &str,
    got: impl std::fmt::Display,
) -> Result<(), Error> {
    if valid {
        return Ok(());
    }
    let got = got.to_string();
    Err(Error::argument("reference::quant", argument, expected, got))
}
