//! The second stage of the gradients of weights: partial sums, added up in their order.

use std::fmt;

use crate::device::launch::{Kernel, LaunchConfig};
use crate::norm::params::ColumnSumParams;
use crate::{Result, Stream, TensorMut, TensorRef};

/// Threads of a block.
const THREADS: u32 = 512;
/// `sizeof(ColumnShared)` of kernels/norm/columns.cu.
const SHARED_BYTES: u32 = 2048;
/// Columns of a block.
const COLUMNS: u32 = 32;

/// The loaded kernels.
pub(in crate::norm) struct ColumnKernels {
    columns: Kernel,
    vector: Kernel,
}

/// Rows of partial sums `[groups, slices, columns]` at an address within a workspace.
#[derive(Clone, Copy, Debug)]
pub(in crate::norm) struct Partial {
    pub(in crate::norm) address: u64,
    pub(in crate::norm) groups: u32,
    pub(in crate::norm) slices: u32,
    pub(in crate::norm) columns: u32,
}

impl ColumnKernels {
    pub(in crate::norm) fn load(stream: &Stream) -> Result<Self> {
        Ok(Self {
            columns: stream.kernel("norm_columns", "norm_column_sum")?,
            vector: stream.kernel("norm_columns", "norm_vector_sum")?,
        })
    }

    /// `out[group, column]` = sum over the slices, added to what is there if `accumulate`. The partial
    /// sums lie in `workspace`, whose caller wrote them.
    pub(in crate::norm) fn sum(
        &self,
        stream: &Stream,
        partial: Partial,
        workspace: TensorRef<'_>,
        out: TensorMut<'_>,
        accumulate: bool,
    ) -> Result<()> {
        let params = params(partial, out.address(), accumulate);
        // Fewer than 2^31 columns in all: a weight's are in memory 4 bytes each, several times over.
        let config = config(partial.groups * partial.columns.div_ceil(COLUMNS));
        // SAFETY: the parameters are the kernel's: it reads the partial sums, which the caller laid out
        // within the workspace, and writes one value a column of `out`.
        unsafe { stream.launch(&self.columns, config, &params, &[workspace], &mut [out]) }
    }

    /// Zeros: the sums of no rows.
    pub(in crate::norm) fn clear(&self, stream: &Stream, out: TensorMut<'_>) -> Result<()> {
        let nothing = Partial {
            address: 0,
            groups: 1,
            slices: 0,
            columns: out.elements() as u32,
        };
        let params = params(nothing, out.address(), false);
        let config = config(nothing.columns.div_ceil(COLUMNS));
        // SAFETY: without slices the kernel reads nothing, and it writes one value a column of `out`.
        unsafe { stream.launch(&self.columns, config, &params, &[], &mut [out]) }
    }

    /// `out[0]` = sum over slices and columns of one group, by way of a row of the workspace at
    /// `between`.
    pub(in crate::norm) fn sum_to_one(
        &self,
        stream: &Stream,
        partial: Partial,
        between: u64,
        mut workspace: TensorMut<'_>,
        out: TensorMut<'_>,
        accumulate: bool,
    ) -> Result<()> {
        let first = params(partial, between, false);
        let blocks = partial.columns.div_ceil(COLUMNS);
        let writes = &mut [workspace.reborrow()];
        // SAFETY: as in `sum`; the row at `between` is the workspace's too, and apart from the sums.
        unsafe { stream.launch(&self.columns, config(blocks), &first, &[], writes)? };
        let row = Partial {
            address: between,
            groups: 1,
            slices: 1,
            columns: partial.columns,
        };
        let second = params(row, out.address(), accumulate);
        let reads = &[workspace.as_ref()];
        // SAFETY: the kernel reads the row that the launch before wrote, and writes one value.
        unsafe { stream.launch(&self.vector, config(1), &second, reads, &mut [out]) }
    }
}

fn config(grid: u32) -> LaunchConfig {
    LaunchConfig {
        grid,
        block: THREADS,
        cluster: 1,
        shared_bytes: SHARED_BYTES,
    }
}

fn params(partial: Partial, out: u64, accumulate: bool) -> ColumnSumParams {
    ColumnSumParams {
        partial: partial.address,
        out,
        groups: partial.groups,
        slices: partial.slices,
        columns: partial.columns,
        accumulate: u32::from(accumulate),
    }
}

impl fmt::Debug for ColumnKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ColumnKernels")
    }
}
