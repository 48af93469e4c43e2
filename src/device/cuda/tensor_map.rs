//! Tensor maps, encoded by the driver.

use std::{ffi::c_void, mem::MaybeUninit};

use cudarc::driver::sys;

use super::check;
use crate::{
    Result,
    device::tensor_map::{MapType, Swizzle, TensorTile},
};

/// The driver's 128 bytes for a tile that was checked.
pub(in crate::device) fn encode_tensor_map(
    tile: &TensorTile<'_>,
    kind: MapType,
) -> Result<[u64; 16]> {
    use sys::{
        CUtensorMapDataType as Type, CUtensorMapFloatOOBfill as Fill,
        CUtensorMapInterleave as Interleave, CUtensorMapL2promotion as Promotion,
        CUtensorMapSwizzle as DriverSwizzle,
    };
    let kind = match kind {
        MapType::U8 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        MapType::Bf16 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        MapType::F16 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        MapType::F32 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
    };
    let swizzle = match tile.swizzle {
        Swizzle::None => DriverSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        Swizzle::B32 => DriverSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        Swizzle::B64 => DriverSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        Swizzle::B128 => DriverSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    // The type is aligned as the driver asks.
    let mut map = MaybeUninit::<sys::CUtensorMap>::zeroed();
    let elements = [1u32; 5];
    // SAFETY: the arrays have the length of `dims`, as `TensorTile::check` found; the driver reads
    // them and writes the map, and only keeps the address.
    let result = unsafe {
        sys::cuTensorMapEncodeTiled(
            map.as_mut_ptr(),
            kind,
            tile.dims.len() as u32,
            tile.address as *mut c_void,
            tile.dims.as_ptr(),
            tile.strides.as_ptr(),
            tile.tile.as_ptr(),
            elements.as_ptr(),
            Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            // No measurement chose this: operands are read by blocks that are neighbours in time.
            Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            Fill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    check("cuTensorMapEncodeTiled", result.result())?;
    // SAFETY: zeroed, then written by the driver; any bits are a map's.
    Ok(unsafe { map.assume_init() }.opaque)
}
