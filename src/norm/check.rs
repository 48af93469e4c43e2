//! The limits and the scratch of row operations.

/// The longest head that kernels turn: a row of it stays in registers between its norm and its
/// rotary embedding.
pub(super) const MAX_ROTARY_HEAD_DIM: usize = 4096;

/// Rows of partial sums that a backward writes at most, for weights of `width` elements: as many as
/// there are blocks at work on any GPU, within 16 MiB a weight, but enough for the clusters of long
/// rows. No measurement chose these numbers yet.
pub(super) fn partial_rows(rows: usize, width: usize) -> usize {
    const FLOATS: usize = 1 << 22;
    rows.min((FLOATS / width.max(1)).clamp(16, 512))
}

/// Bytes of a backward's workspace: for each of two weights of `width` elements, partial sums in f32
/// that a second stage adds up in order; and one row more, of sums that become one number.
pub(super) fn workspace_bytes(rows: usize, width: usize) -> usize {
    let partial = match partial_rows(rows, width) {
        0 => 0,
        partial => 2 * partial + 1,
    };
    let bytes = partial
        .saturating_mul(width)
        .saturating_mul(size_of::<f32>());
    bytes.checked_next_multiple_of(16).unwrap_or(usize::MAX)
}
