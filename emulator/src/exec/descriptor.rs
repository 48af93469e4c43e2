//! How wgmma finds its operands in shared memory.

use crate::tensor_map::TensorMapSwizzle;

/// Bytes of K in one product, and of a piece that no swizzle parts.
pub(super) const K_BYTES: usize = 32;
pub(super) const PIECE: usize = 16;

/// An operand in shared memory, as its descriptor says: 14-bit fields of 16 bytes each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    start: usize,
    leading: usize,
    stride: usize,
    pub(super) base_offset: u64,
    swizzle: TensorMapSwizzle,
    span: usize,
}

impl Descriptor {
    pub(super) fn decode(bits: u64) -> Descriptor {
        let field = |at: u32| ((bits >> at & 0x3fff) << 4) as usize;
        let (swizzle, span) = match bits >> 62 {
            0 => (TensorMapSwizzle::None, PIECE),
            1 => (TensorMapSwizzle::B128, 128),
            2 => (TensorMapSwizzle::B64, 64),
            _ => (TensorMapSwizzle::B32, 32),
        };
        Descriptor {
            start: field(0),
            leading: field(16),
            stride: field(32),
            base_offset: bits >> 49 & 7,
            swizzle,
            span,
        }
    }

    /// Where a piece lies in the block's shared memory: along K in row `row` (K-major), or along
    /// the rows at K index `row` (MN-major, `transposed`).
    fn piece(&self, row: usize, piece: usize, transposed: bool) -> usize {
        let unswizzled = self.span == PIECE;
        let eights = row / 8
            * if transposed && unswizzled {
                self.leading
            } else {
                self.stride
            };
        let along = if unswizzled {
            piece
                * if transposed {
                    self.stride
                } else {
                    self.leading
                }
        } else {
            let per_span = self.span / PIECE;
            // Along K an operand ends within its span.
            let spans = if transposed { piece / per_span } else { 0 };
            let within = if transposed { piece % per_span } else { piece };
            spans * self.leading + within * PIECE
        };
        let offset = self.start + eights + row % 8 * self.span + along;
        self.swizzle.place(offset & 0x3_ffff)
    }

    /// The pieces of rows `first..first + count`, row by row (or K by K) in the order of their
    /// elements.
    pub(super) fn pieces(
        &self,
        first: usize,
        count: usize,
        element: usize,
        transposed: bool,
    ) -> Vec<usize> {
        let mut pieces = Vec::new();
        if transposed {
            for k in 0..K_BYTES / element {
                for piece in first * element / PIECE..(first + count) * element / PIECE {
                    pieces.push(self.piece(k, piece, true));
                }
            }
        } else {
            for row in first..first + count {
                pieces.extend((0..K_BYTES / PIECE).map(|piece| self.piece(row, piece, false)));
            }
        }
        pieces
    }

    /// The operand's rows, 32 bytes of K each.
    ///
    /// # Safety
    /// The operand's pieces lie in shared memory from `base` on.
    pub(super) unsafe fn load(
        &self,
        base: usize,
        rows: usize,
        element: usize,
        transposed: bool,
    ) -> Vec<u8> {
        let pieces = self.pieces(0, rows, element, transposed);
        let mut bytes = Vec::with_capacity(rows * K_BYTES);
        for piece in pieces {
            // SAFETY: by the contract.
            bytes.extend_from_slice(unsafe { &*((base + piece) as *const [u8; PIECE]) });
        }
        if !transposed {
            return bytes;
        }
        let k = K_BYTES / element;
        let mut turned = vec![0; bytes.len()];
        for (at, value) in bytes.chunks_exact(element).enumerate() {
            let (k_index, row) = (at / rows, at % rows);
            turned[(row * k + k_index) * element..][..element].copy_from_slice(value);
        }
        turned
    }
}
