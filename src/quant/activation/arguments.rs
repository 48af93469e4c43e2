//! What SwiGLU is called with.

use crate::check::{Check, shape_of};
use crate::{Result, TensorMut, TensorRef};

/// Gate and up: the two halves of one matrix, as one linear layer makes them, or two matrices.
#[derive(Clone, Copy, Debug)]
pub enum GateUp<'a> {
    /// `[tokens, 2 F]`: the F columns of gate, then the F of up.
    Packed(TensorRef<'a>),
    /// `[tokens, F]` each.
    Apart {
        /// What silu is applied to.
        gate: TensorRef<'a>,
        /// The linear branch.
        up: TensorRef<'a>,
    },
}

impl<'a> From<TensorRef<'a>> for GateUp<'a> {
    fn from(packed: TensorRef<'a>) -> Self {
        Self::Packed(packed)
    }
}

/// As [`GateUp`], to be written: the gradients of gate and up.
#[derive(Debug)]
pub enum GateUpMut<'a> {
    /// `[tokens, 2 F]`: the F columns of gate's, then the F of up's.
    Packed(TensorMut<'a>),
    /// `[tokens, F]` each.
    Apart {
        /// Of gate.
        gate: TensorMut<'a>,
        /// Of up.
        up: TensorMut<'a>,
    },
}

impl<'a> From<TensorMut<'a>> for GateUpMut<'a> {
    fn from(packed: TensorMut<'a>) -> Self {
        Self::Packed(packed)
    }
}

/// The smoothing scales of a forward, f32: `[F]` of channels, `[tokens]` of tokens.
#[derive(Debug)]
pub enum SmoothingScales<'a> {
    /// Those of this input, which are written here.
    Computed(TensorMut<'a>),
    /// Those that the caller has, as of an earlier step: one read of up less.
    Given(TensorRef<'a>),
}

impl<'a> GateUp<'a> {
    /// gate and up, of one shape.
    pub(super) fn views(&self, check: &Check) -> Result<[TensorRef<'a>; 2]> {
        match *self {
            Self::Packed(packed) => {
                check.float("x", &packed)?;
                let wide = packed.columns();
                if wide % 2 != 0 || wide == 0 {
                    return check.fail("x", "[tokens, 2 F]", shape_of(&packed));
                }
                let gate = packed.slice_columns(0..wide / 2)?;
                Ok([gate, packed.slice_columns(wide / 2..wide)?])
            }
            Self::Apart { gate, up } => {
                check.float("gate", &gate)?;
                check.rows("up", &up, gate.rows(), gate.columns())?;
                Ok([gate, up])
            }
        }
    }
}
