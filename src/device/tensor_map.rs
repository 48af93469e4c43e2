//! Tensor maps: what the copy engine of sm_90 and later is told of a tensor, encoded for the
//! device that a stream works on.

use bytemuck::{Pod, Zeroable};

use super::{Stream, cuda, stream::Inner};
use crate::{DType, Error, Result};

const OP: &str = "Stream::tensor_map";
/// The least alignment of the tensor and of every stride (CUDA driver API, cuTensorMapEncodeTiled,
/// as are the limits below).
const ALIGNMENT: u64 = 16;
const RANK: usize = 5;
const MOST_ELEMENTS: u64 = 1 << 32;
const STRIDE_LIMIT: u64 = 1 << 40;
const MOST_IN_BOX: u32 = 256;

/// An encoded map: a member of a kernel's parameters, where `ptx::TensorMap` stands.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct TensorMap {
    words: [u64; 16],
}

/// How 16-byte pieces of a box's rows are exchanged in shared memory; `ptx::Swizzle`, whole, though
/// kernels take the widest alone so far.
#[allow(dead_code)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swizzle {
    None,
    B32,
    B64,
    B128,
}

impl Swizzle {
    /// The most bytes of a box's row.
    fn span(self) -> Option<u64> {
        match self {
            Swizzle::None => None,
            Swizzle::B32 => Some(32),
            Swizzle::B64 => Some(64),
            Swizzle::B128 => Some(128),
        }
    }
}

/// A tensor and the boxes that are copied of it; dimension 0 is the innermost, whose elements are
/// contiguous. Elements of a box outside of the tensor read as zeros.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorTile<'a> {
    /// Of element 0, a multiple of 16.
    pub(crate) address: u64,
    pub(crate) dtype: DType,
    /// Elements along each of one to five dimensions.
    pub(crate) dims: &'a [u64],
    /// Bytes from one element to the next along all dimensions but the innermost, multiples of 16.
    pub(crate) strides: &'a [u64],
    /// Elements of a box along each dimension, up to 256; rows are multiples of 16 bytes, no longer
    /// than the swizzle's span.
    pub(crate) tile: &'a [u32],
    pub(crate) swizzle: Swizzle,
}

impl TensorTile<'_> {
    /// What the encoder would refuse without saying why.
    fn check(&self) -> Result<()> {
        let wrong = |argument, expected: &str, got: String| {
            Err(Error::argument(OP, argument, expected, got))
        };
        let rank = self.dims.len();
        if rank == 0 || rank > RANK {
            return wrong("dims", "one to five dimensions", rank.to_string());
        }
        if self.strides.len() + 1 != rank || self.tile.len() != rank {
            return wrong(
                "tile",
                "an extent for each dimension, a stride for each but the innermost",
                format!(
                    "{} extents and {} strides for {rank} dimensions",
                    self.tile.len(),
                    self.strides.len()
                ),
            );
        }
        if self.address == 0 || !self.address.is_multiple_of(ALIGNMENT) {
            let got = format!("{:#x}", self.address);
            return wrong("address", "a multiple of 16, not 0", got);
        }
        if let Some(n) = self.dims.iter().find(|&&n| n == 0 || n > MOST_ELEMENTS) {
            return wrong("dims", "1 to 2^32 elements", n.to_string());
        }
        let bad = |s: u64| s == 0 || s >= STRIDE_LIMIT || !s.is_multiple_of(ALIGNMENT);
        if let Some(stride) = self.strides.iter().find(|&&stride| bad(stride)) {
            let expected = "multiples of 16 bytes, between 0 and 2^40";
            return wrong("strides", expected, stride.to_string());
        }
        if let Some(n) = self.tile.iter().find(|&&n| n == 0 || n > MOST_IN_BOX) {
            return wrong("tile", "1 to 256 elements along a dimension", n.to_string());
        }
        let row = u64::from(self.tile[0]) * self.dtype.size() as u64;
        if !row.is_multiple_of(ALIGNMENT) || self.swizzle.span().is_some_and(|most| row > most) {
            return wrong(
                "tile",
                "rows of a multiple of 16 bytes, no longer than the swizzle's span",
                format!("rows of {row} bytes with {:?}", self.swizzle),
            );
        }
        Ok(())
    }
}

/// Types as the copy engine tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MapType {
    U8,
    Bf16,
    F16,
    F32,
}

fn map_type(dtype: DType) -> Result<MapType> {
    match dtype {
        DType::U8 | DType::E4m3 | DType::E5m2 | DType::E8m0 | DType::E2m1x2 => Ok(MapType::U8),
        DType::Bf16 => Ok(MapType::Bf16),
        DType::F16 => Ok(MapType::F16),
        DType::F32 => Ok(MapType::F32),
        other => Err(Error::unsupported(
            OP,
            format!("a tensor map of {other:?}"),
            "copy it as bytes or as one of the floating-point types",
        )),
    }
}

impl Stream {
    /// Encodes a map for kernels of this stream's device. It holds an address: who launches with it
    /// answers for the memory, as for any pointer in parameters.
    ///
    /// # Errors
    /// [`Error::Argument`] for what the copy engine cannot take, [`Error::Unsupported`] where there
    /// is no copy engine.
    pub(crate) fn tensor_map(&self, tile: &TensorTile<'_>) -> Result<TensorMap> {
        let kind = map_type(tile.dtype)?;
        tile.check()?;
        if self.device().compute_capability() < Some((9, 0)) {
            return Err(Error::unsupported(
                OP,
                format!("tensor maps on {}", self.device().name()),
                "they need compute capability 9.0",
            ));
        }
        let words = match &*self.inner {
            Inner::Cuda(_) => cuda::encode_tensor_map(tile, kind)?,
            #[cfg(feature = "emulator")]
            Inner::Emulated(_) => super::emulated::encode_tensor_map(tile, kind)?,
            // The CPU has no compute capability: refused above.
            Inner::Cpu(_) => [0; 16],
        };
        Ok(TensorMap { words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    const TILE: TensorTile<'_> = TensorTile {
        address: 1 << 20,
        dtype: DType::E4m3,
        dims: &[100, 7],
        strides: &[112],
        tile: &[128, 64],
        swizzle: Swizzle::B128,
    };

    #[test]
    fn wrong_maps_are_refused_with_the_argument_that_is_wrong() {
        let cases = [
            ("dims", TensorTile { dims: &[], ..TILE }),
            (
                "dims",
                TensorTile {
                    dims: &[1, 0],
                    ..TILE
                },
            ),
            (
                "dims",
                TensorTile {
                    dims: &[1 << 33, 1],
                    ..TILE
                },
            ),
            (
                "tile",
                TensorTile {
                    dims: &[1, 1, 1],
                    ..TILE
                },
            ),
            (
                "tile",
                TensorTile {
                    tile: &[128],
                    ..TILE
                },
            ),
            (
                "address",
                TensorTile {
                    address: (1 << 20) + 8,
                    ..TILE
                },
            ),
            (
                "strides",
                TensorTile {
                    strides: &[100],
                    ..TILE
                },
            ),
            (
                "strides",
                TensorTile {
                    strides: &[1 << 40],
                    ..TILE
                },
            ),
            (
                "tile",
                TensorTile {
                    tile: &[128, 257],
                    ..TILE
                },
            ),
            (
                "tile",
                TensorTile {
                    tile: &[144, 1],
                    ..TILE
                },
            ),
            (
                "tile",
                TensorTile {
                    tile: &[120, 1],
                    ..TILE
                },
            ),
            (
                "tile",
                TensorTile {
                    dtype: DType::Bf16,
                    ..TILE
                },
            ),
        ];
        for (argument, tile) in cases {
            let error = tile.check().unwrap_err().to_string();
            assert!(error.contains(argument), "{argument} is not in {error:?}");
        }
        TILE.check().unwrap();
        assert!(map_type(DType::I64).is_err());
    }

    #[test]
    fn the_cpu_has_no_copy_engine() {
        let stream = Device::cpu().stream().unwrap();
        assert!(matches!(
            stream.tensor_map(&TILE),
            Err(Error::Unsupported { .. })
        ));
    }

    #[cfg(feature = "emulator")]
    #[test]
    fn the_emulator_encodes_what_it_is_given() {
        use crate::{EmulatorOptions, emulator::Architecture};
        let stream = Device::emulated().unwrap().stream().unwrap();
        for dtype in [DType::E4m3, DType::U8, DType::Bf16, DType::F16, DType::F32] {
            let tile = [128 / dtype.size() as u32, 64];
            let encoded = stream.tensor_map(&TensorTile {
                dtype,
                tile: &tile,
                ..TILE
            });
            assert_eq!(encoded.unwrap().words[1], TILE.address);
        }
        let options = EmulatorOptions::new().architecture(Architecture::sm_89());
        let stream = Device::emulated_with(options).unwrap().stream().unwrap();
        assert!(matches!(
            stream.tensor_map(&TILE),
            Err(Error::Unsupported { .. })
        ));
    }
}
