//! Tensor maps: what the copy engine knows of a tensor. The words are the emulator's own, not
//! hardware's.

use std::fmt;

/// The most dimensions of a map.
pub(crate) const RANK: usize = 5;
/// The most elements of a box along one dimension.
const BOX: u32 = 256;
/// Marks words that [`TensorMap::encode`] wrote.
const MAGIC: u64 = u64::from_le_bytes(*b"tile map");

/// The type of a tensor's elements, as the copy engine tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorMapElement {
    /// One byte; 8-bit floating-point numbers too.
    U8,
    /// bf16.
    Bf16,
    /// f16.
    F16,
    /// f32, the only type whose boxes can be added up.
    F32,
}

impl TensorMapElement {
    const ALL: [TensorMapElement; 4] = [
        TensorMapElement::U8,
        TensorMapElement::Bf16,
        TensorMapElement::F16,
        TensorMapElement::F32,
    ];

    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            TensorMapElement::U8 => 1,
            TensorMapElement::Bf16 | TensorMapElement::F16 => 2,
            TensorMapElement::F32 => 4,
        }
    }
}

/// The bytes of a row within which 16-byte pieces are exchanged in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorMapSwizzle {
    /// Rows one after the other.
    None,
    /// Within 32 bytes.
    B32,
    /// Within 64 bytes.
    B64,
    /// Within 128 bytes.
    B128,
}

impl TensorMapSwizzle {
    const ALL: [TensorMapSwizzle; 4] = [
        TensorMapSwizzle::None,
        TensorMapSwizzle::B32,
        TensorMapSwizzle::B64,
        TensorMapSwizzle::B128,
    ];

    /// Where the byte at an offset of shared memory is put: bits 4 to 6 of the address, as far as
    /// the span reaches, are XORed with bits 7 to 9.
    pub(crate) fn place(self, offset: usize) -> usize {
        let bits = match self {
            TensorMapSwizzle::None => 0x00,
            TensorMapSwizzle::B32 => 0x10,
            TensorMapSwizzle::B64 => 0x30,
            TensorMapSwizzle::B128 => 0x70,
        };
        offset ^ (offset >> 3 & bits)
    }

    /// The most bytes of a box's row.
    fn span(self) -> usize {
        match self {
            TensorMapSwizzle::None => usize::MAX,
            TensorMapSwizzle::B32 => 32,
            TensorMapSwizzle::B64 => 64,
            TensorMapSwizzle::B128 => 128,
        }
    }
}

/// A tensor in global memory and the boxes it is copied in; dimension 0 is the innermost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorTile {
    /// The address of element 0, a multiple of 16.
    pub address: u64,
    /// The elements' type.
    pub element: TensorMapElement,
    /// Elements along each of one to five dimensions.
    pub dims: Vec<u64>,
    /// Bytes from one element to the next along every dimension but the innermost, multiples of
    /// 16.
    pub strides: Vec<u64>,
    /// Elements of a box along each dimension, at most 256; its rows are multiples of 16 bytes.
    pub tile: Vec<u32>,
    /// How a box's rows lie in shared memory; they are no longer than its span.
    pub swizzle: TensorMapSwizzle,
}

impl TensorTile {
    /// Bytes of a box, which a load completes on its mbarrier.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let elements: usize = self.tile.iter().map(|&n| n as usize).product();
        elements * self.element.bytes()
    }
}

/// What a tensor map cannot describe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMapError(String);

impl fmt::Display for TensorMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a tensor map {}", self.0)
    }
}

impl std::error::Error for TensorMapError {}

/// A tensor map as kernels of the emulator take it: a member of their parameters, in the place of
/// CUDA's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct TensorMap {
    words: [u64; 16],
}

impl TensorMap {
    /// Encodes a tensor and its boxes.
    ///
    /// ```
    /// use evenkeel_emulator::{TensorMap, TensorMapElement, TensorMapSwizzle, TensorTile};
    /// let map = TensorMap::encode(&TensorTile {
    ///     address: 4096,
    ///     element: TensorMapElement::Bf16,
    ///     dims: vec![512, 100],
    ///     strides: vec![1024],
    ///     tile: vec![64, 128],
    ///     swizzle: TensorMapSwizzle::B128,
    /// })?;
    /// assert_eq!(map.words().len(), 16);
    /// # Ok::<(), evenkeel_emulator::TensorMapError>(())
    /// ```
    ///
    /// # Errors
    /// Whatever CUDA's encoder refuses: rank, alignment, box and stride limits.
    pub fn encode(tile: &TensorTile) -> Result<TensorMap, TensorMapError> {
        let rank = tile.dims.len();
        let refuse = |text: String| Err(TensorMapError(text));
        if rank == 0 || rank > RANK || tile.tile.len() != rank || tile.strides.len() + 1 != rank {
            return refuse(format!(
                "of {rank} dimensions, {} strides and {} extents of a box: 1 to {RANK} dimensions, \
                 a stride for each but the innermost",
                tile.strides.len(),
                tile.tile.len()
            ));
        }
        if tile.address == 0 || !tile.address.is_multiple_of(16) {
            return refuse(format!("at address {:#x}: a multiple of 16", tile.address));
        }
        if let Some(dim) = tile.dims.iter().find(|&&n| n == 0 || n > 1 << 32) {
            return refuse(format!("with a dimension of {dim}: 1 to 2^32"));
        }
        if let Some(n) = tile.tile.iter().find(|&&n| n == 0 || n > BOX) {
            return refuse(format!("with a box of {n} along a dimension: 1 to {BOX}"));
        }
        let bad = |&&s: &&u64| !s.is_multiple_of(16) || s == 0 || s >= 1 << 40;
        if let Some(stride) = tile.strides.iter().find(bad) {
            return refuse(format!(
                "with a stride of {stride} bytes: a multiple of 16 below 2^40"
            ));
        }
        let row = tile.tile[0] as usize * tile.element.bytes();
        if !row.is_multiple_of(16) || row > tile.swizzle.span() {
            return refuse(format!(
                "with {row} bytes in a row of its box and swizzle {:?}: a multiple of 16 no longer \
                 than the swizzle's span",
                tile.swizzle
            ));
        }
        let mut words = [0; 16];
        words[0] = MAGIC;
        words[1] = tile.address;
        words[2] = rank as u64 | (tile.element as u64) << 8 | (tile.swizzle as u64) << 16;
        words[3..3 + rank].copy_from_slice(&tile.dims);
        words[8..7 + rank].copy_from_slice(&tile.strides);
        for (i, &n) in tile.tile.iter().enumerate() {
            words[12 + i / 4] |= u64::from(n) << (16 * (i % 4));
        }
        Ok(TensorMap { words })
    }

    /// The 128 bytes, for a parameter struct of the caller's.
    #[must_use]
    pub fn words(&self) -> [u64; 16] {
        self.words
    }

    /// What [`TensorMap::encode`] was given, if these are its words.
    pub(crate) fn decode(words: &[u64; 16]) -> Option<TensorTile> {
        if words[0] != MAGIC {
            return None;
        }
        let rank = (words[2] & 0xff) as usize;
        let element = TensorMapElement::ALL.get((words[2] >> 8 & 0xff) as usize)?;
        let swizzle = TensorMapSwizzle::ALL.get((words[2] >> 16 & 0xff) as usize)?;
        if rank == 0 || rank > RANK {
            return None;
        }
        Some(TensorTile {
            address: words[1],
            element: *element,
            dims: words[3..3 + rank].to_vec(),
            strides: words[8..7 + rank].to_vec(),
            tile: (0..rank)
                .map(|i| (words[12 + i / 4] >> (16 * (i % 4)) & 0xffff) as u32)
                .collect(),
            swizzle: *swizzle,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile() -> TensorTile {
        TensorTile {
            address: 1 << 20,
            element: TensorMapElement::F32,
            dims: vec![100, 7, 3, 2, 9],
            strides: vec![400, 2800, 8400, 16800],
            tile: vec![32, 7, 3, 2, 256],
            swizzle: TensorMapSwizzle::B128,
        }
    }

    #[test]
    fn a_map_says_what_was_encoded() {
        let map = TensorMap::encode(&tile()).map(|m| TensorMap::decode(&m.words));
        assert_eq!(map, Ok(Some(tile())));
        assert_eq!(tile().bytes(), 32 * 7 * 3 * 2 * 256 * 4);
        assert_eq!(TensorMap::decode(&[0; 16]), None);
    }

    #[test]
    fn what_a_map_cannot_describe() {
        let wrong: [fn(&mut TensorTile); 9] = [
            |t| t.address += 8,
            |t| t.address = 0,
            |t| t.dims[1] = 0,
            |t| t.dims.push(1),
            |t| t.strides[2] += 8,
            |t| t.strides[0] = 1 << 40,
            |t| t.tile[4] = 257,
            |t| t.tile[0] = 33,
            |t| t.tile[0] = 36,
        ];
        for (i, change) in wrong.iter().enumerate() {
            let mut tile = tile();
            change(&mut tile);
            assert!(TensorMap::encode(&tile).is_err(), "case {i}");
        }
    }

    #[test]
    fn pieces_are_exchanged_within_the_span() {
        use TensorMapSwizzle::{B32, B64, B128, None};
        assert_eq!(None.place(0x3f5), 0x3f5);
        assert_eq!(B128.place(0x085), 0x095);
        assert_eq!(B128.place(0x385), 0x3f5);
        assert_eq!(B64.place(0x385), 0x3b5);
        assert_eq!(B32.place(0x385), 0x395);
    }
}
