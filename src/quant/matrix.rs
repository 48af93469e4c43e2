//! Matrices of element-wise operations: their shape, and their memory on the host.

use crate::check::Check;
use crate::host::floats_mut;
use crate::reference::FloatRowsMut;
use crate::{Result, TensorMut, TensorRef};

/// `[rows, columns]` of a tensor of floats, which has a column.
pub(super) fn shape_of(
    check: &Check,
    argument: &'static str,
    view: &TensorRef<'_>,
) -> Result<[usize; 2]> {
    check.float(argument, view)?;
    check.row_count(argument, view.rows(), view.columns())?;
    Ok([view.rows(), view.columns()])
}

/// A checked view of floats on the CPU, to be written.
pub(super) fn rows_mut<'v>(view: &'v mut TensorMut<'_>) -> Result<FloatRowsMut<'v>> {
    let (rows, columns, stride) = (view.rows(), view.columns(), view.row_stride());
    FloatRowsMut::new(floats_mut(view)?, rows, columns, stride)
}
