//! What Hopper's kernels are given: kernels/matmul/hopper_params.h, field by field.

use bytemuck::{Pod, Zeroable};

use super::params::{EpilogueParams, OperandParams, ShapeParams};
use crate::device::tensor_map::TensorMap;

/// `HopperStore`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HopperStore {
    Elements,
    Tiles,
    TilesAdded,
}

impl HopperStore {
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Elements => 0,
            Self::Tiles => 1,
            Self::TilesAdded => 2,
        }
    }
}

/// `HopperParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct HopperParams {
    pub(super) a_map: TensorMap,
    pub(super) b_map: TensorMap,
    /// Zeros where results leave by elements.
    pub(super) out_map: TensorMap,
    pub(super) shape: ShapeParams,
    pub(super) a: OperandParams,
    pub(super) b: OperandParams,
    pub(super) epilogue: EpilogueParams,
    pub(super) status: u64,
    pub(super) store: u32,
    pub(super) raster: u32,
    /// To the alignment of the maps.
    pub(super) unused: [u64; 3],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_the_kernels_size() {
        assert_eq!(size_of::<HopperParams>(), 704);
        assert_eq!(align_of::<HopperParams>(), 64);
    }
}
