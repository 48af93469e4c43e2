//! The variability of a table on a device.

use bytemuck::{Pod, Zeroable};

use crate::device::launch::{Kernel, LaunchConfig};
use crate::norm::tev::Call;
use crate::rows::RowShape;
use crate::rows::{Alignment, Layout};
use crate::rows::{RowGrid, RowTensor};
use crate::rows::{RowKernels, Source};
use crate::{Result, Stream};

const MODULE: &str = "norm_tev";

/// Those that kernels/norm/tev.cu lists.
const LAYOUTS: [Layout; 3] = [Layout::C8U4, Layout::C4U4, Layout::S4U4];

/// Of the block that adds up the deviations.
const MEAN: LaunchConfig = LaunchConfig {
    grid: 1,
    block: 1024,
    cluster: 1,
    shared_bytes: 32 * size_of::<f64>() as u32,
};

/// `TevParams` of kernels/norm/tev.cu.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct TevParams {
    grid: RowGrid,
    table: RowTensor,
    deviations: u64,
    status: u64,
}

/// `TevMeanParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct TevMeanParams {
    deviations: u64,
    tev: u64,
    rows: u32,
    unused: u32,
}

const _: () = {
    assert!(size_of::<TevParams>() == 80);
    assert!(size_of::<TevMeanParams>() == 24);
};

/// The loaded kernels of a prepared measurement.
#[derive(Debug)]
pub(in crate::norm) struct TevKernels {
    rows: RowKernels,
    mean: Kernel,
}

impl TevKernels {
    pub(in crate::norm) fn load(stream: &Stream) -> Result<Self> {
        let rows = Source {
            module: MODULE,
            stem: "norm_tev",
            layouts: &LAYOUTS,
        };
        Ok(Self {
            rows: RowKernels::load(stream, rows, None)?,
            mean: stream.kernel(MODULE, "norm_tev_mean")?,
        })
    }

    pub(in crate::norm) fn measure(&self, stream: &Stream, mut call: Call<'_>) -> Result<()> {
        let shape = RowShape {
            tokens: call.table.rows(),
            heads: 1,
            columns: call.table.columns(),
        };
        let mut alignment = Alignment::default();
        alignment.add_rows(&call.table, shape);
        let plan = self.rows.plan(shape, &alignment, |_| 0)?;
        let params = TevParams {
            grid: plan.grid,
            table: RowTensor::new(&call.table, shape),
            deviations: call.deviations.address(),
            status: stream.status_address(),
        };
        let mut writes = [call.deviations.reborrow()];
        // SAFETY: the parameters are the kernel's, made of these views, whose shapes tev.rs found to
        // fit: it reads the columns of the rows, and writes one deviation a row.
        unsafe {
            stream.launch(
                plan.kernel,
                plan.config,
                &params,
                &[call.table],
                &mut writes,
            )?
        };
        let params = TevMeanParams {
            deviations: call.deviations.address(),
            tev: call.tev.address(),
            rows: plan.grid.rows,
            unused: 0,
        };
        let reads = [call.deviations.as_ref()];
        // SAFETY: as above: it reads one deviation a row, and writes one number.
        unsafe { stream.launch(&self.mean, MEAN, &params, &reads, &mut [call.tev]) }
    }
}
