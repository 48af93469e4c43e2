//! What the softmax kernels are given: kernels/norm/softmax_params.h, field by field.

use bytemuck::{Pod, Zeroable};

use crate::norm::softmax::Blocks;
use crate::norm::{SoftmaxKind, SoftmaxOptions};
use crate::rows::{Divisor, RowGrid, RowTensor, integer_type};

/// Beyond any offset that makes a difference to rows and keys below 2^32, and far from overflow.
const UNMASKED: i64 = 1 << 62;

/// `SoftmaxKind`.
pub(super) fn kind(kind: SoftmaxKind) -> u32 {
    match kind {
        SoftmaxKind::Softmax => 0,
        SoftmaxKind::LogSoftmax => 1,
        SoftmaxKind::StableMax => 2,
    }
}

/// `RowMask`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct RowMask {
    lengths: u64,
    causal_offset: i64,
    by_queries: Divisor,
    by_batch_rows: Divisor,
    queries: u32,
    length_type: u32,
}

impl RowMask {
    /// Of blocks that have rows.
    pub(super) fn new(options: &SoftmaxOptions, blocks: &Blocks<'_>) -> Self {
        let offset = options.causal.map_or(UNMASKED, |causal| {
            causal.offset(blocks.queries, blocks.keys)
        });
        let lengths = blocks.lengths;
        let batches = lengths.map_or(1, |lengths| lengths.elements());
        Self {
            lengths: lengths.map_or(0, |lengths| lengths.address()),
            causal_offset: offset.clamp(-UNMASKED, UNMASKED),
            by_queries: Divisor::new(blocks.queries as u32),
            by_batch_rows: Divisor::new((blocks.rows / batches) as u32),
            queries: blocks.queries as u32,
            length_type: lengths.map_or(0, |lengths| integer_type(lengths.dtype())),
        }
    }
}

/// `SoftmaxForwardParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct SoftmaxForwardParams {
    pub(super) grid: RowGrid,
    pub(super) x: RowTensor,
    pub(super) y: RowTensor,
    pub(super) mask: RowMask,
    pub(super) entropy: u64,
    pub(super) normalizer: u64,
    pub(super) status: u64,
    pub(super) scale: f32,
    pub(super) kind: u32,
}

/// `SoftmaxBackwardParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct SoftmaxBackwardParams {
    pub(super) grid: RowGrid,
    pub(super) y: RowTensor,
    pub(super) dy: RowTensor,
    pub(super) dx: RowTensor,
    pub(super) mask: RowMask,
    pub(super) dentropy: u64,
    pub(super) normalizer: u64,
    pub(super) status: u64,
    pub(super) scale: f32,
    pub(super) kind: u32,
}

const _: () = {
    assert!(size_of::<RowMask>() == 40);
    assert!(size_of::<SoftmaxForwardParams>() == 168);
    assert!(size_of::<SoftmaxBackwardParams>() == 200);
};
