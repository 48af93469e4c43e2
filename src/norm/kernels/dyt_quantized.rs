//! Dynamic tanh with quantised results on a device.

use bytemuck::{Pod, Zeroable};

use super::dyt::{DytKernels, inputs, weight_alignment};
use super::quantized::CLUSTER_LAYOUTS;
use crate::norm::quantized::DytQuantizedCall;
use crate::quant::Format;
use crate::rows::{
    ColumnVector, Layout, QUANTIZED, QuantizedRows, RowGrid, RowKernels, RowLaunch, RowTensor,
    Source, WeightForm, touch_store,
};
use crate::{Error, Result, Stream};

/// Those that kernels/norm/quantized_dyt.cu lists.
const LAYOUTS: [Layout; 4] = [Layout::C8U4, Layout::C4U4, Layout::C4U8, Layout::S4U4];

/// `DytQuantizedParams` of kernels/norm/dyt_quantized.cuh.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct DytQuantizedParams {
    grid: RowGrid,
    x: RowTensor,
    y: RowTensor,
    gamma: ColumnVector,
    beta: ColumnVector,
    alpha: u64,
    status: u64,
    to: QuantizedRows,
}

const _: () = assert!(size_of::<DytQuantizedParams>() == 264);

/// Where a scale is a row's, the row stays in registers until it is known; elsewhere nothing is, and
/// a block goes round as often as it takes.
#[derive(Debug)]
pub(super) struct QuantizedKernels {
    of_rows: RowKernels,
    of_blocks: RowKernels,
}

impl DytKernels {
    /// Loads the kernels of quantised results.
    pub(in crate::norm) fn load_quantized(&mut self, stream: &Stream) -> Result<()> {
        let block = Source {
            module: "norm_quantized_dyt",
            stem: "norm_quantized_dyt",
            layouts: &LAYOUTS,
        };
        let cluster = Source {
            module: "norm_quantized_dyt_cluster",
            stem: "norm_quantized_cluster_dyt",
            layouts: &CLUSTER_LAYOUTS,
        };
        let load = |cluster| Ok(RowKernels::load(stream, block, cluster)?.on(&QUANTIZED));
        self.quantized = Some(QuantizedKernels {
            of_rows: load(Some(cluster))?,
            of_blocks: load(None)?,
        });
        Ok(())
    }

    pub(in crate::norm) fn forward_quantized(
        &self,
        stream: &Stream,
        call: DytQuantizedCall<'_>,
    ) -> Result<()> {
        let DytQuantizedCall {
            shape,
            alpha,
            weights,
            x,
            mut store,
        } = call;
        let (Some(kernels), Some(output)) = (&self.quantized, store.rowwise.take()) else {
            // not reached: prepare loaded them, and asked for this output
            return Err(Error::unsupported(
                "Dyt::forward_quantized",
                "an operation that was not prepared for it",
                "prepare it with `quantized`",
            ));
        };
        let format = output.form.format;
        let mut alignment = weight_alignment(&weights);
        alignment.add_rows(&x, shape);
        alignment.add_quantized(&output, shape);
        let shared = |launch: &RowLaunch| {
            let columns = launch.rung.layout.columns();
            launch.teams * QuantizedRows::team_bytes(format, launch.threads, columns)
        };
        let kernels = match format {
            Format::Fp8Row(_) => &kernels.of_rows,
            _ => &kernels.of_blocks,
        };
        let mut plan = kernels.plan(shape, &alignment, shared)?;
        if shape.rows() == 0 && output.tensor_scale.is_none() {
            return Ok(());
        }
        // Without rows the copy of the given scale remains to be written.
        plan.config.grid = plan.config.grid.max(plan.config.cluster);
        let vector =
            |view: &Option<_>| ColumnVector::new(view.as_ref(), WeightForm::Row, shape.columns);
        let params = DytQuantizedParams {
            grid: plan.grid,
            x: RowTensor::new(&x, shape),
            y: RowTensor::quantized(&output, shape),
            gamma: vector(&weights.gamma),
            beta: vector(&weights.beta),
            alpha: alpha.address(),
            status: stream.status_address(),
            to: QuantizedRows::new(&store, &output, shape),
        };
        let (mut reads, mut writes) = (inputs(alpha, &weights), Vec::new());
        reads.push(x);
        touch_store(store, output, &mut reads, &mut writes);
        // SAFETY: the parameters are the kernel's, made of these views alone, whose shapes dyt.rs
        // found to fit: it reads the columns of x's rows, the weights and alpha, and writes the
        // elements and scales of the store's output, whose shapes quant/call.rs found to be those of
        // its form, of these rows.
        unsafe { stream.launch(plan.kernel, plan.config, &params, &reads, &mut writes) }
    }
}
