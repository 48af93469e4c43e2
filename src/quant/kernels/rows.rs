//! Rows in FP8 with a scale for each, from one read.

use bytemuck::{Pod, Zeroable};

use crate::quant::call::QuantizeCall;
use crate::rows::{
    Alignment, Layout, QuantizedRows, RowGrid, RowKernels, RowShape, RowTensor, Source, touch_store,
};
use crate::{Error, Result, Stream};

/// Those that kernels/quant/rows.cu lists.
const LAYOUTS: [Layout; 5] = [
    Layout::C8U4,
    Layout::C8U8,
    Layout::C4U4,
    Layout::C4U8,
    Layout::S4U4,
];

/// `QuantizeRowsParams` of kernels/quant/rows.cu.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct QuantizeRowsParams {
    grid: RowGrid,
    x: RowTensor,
    y: RowTensor,
    to: QuantizedRows,
    status: u64,
}

const _: () = assert!(size_of::<QuantizeRowsParams>() == 208);

/// The loaded kernels.
#[derive(Debug)]
pub(super) struct RowsKernels(RowKernels);

impl RowsKernels {
    pub(super) fn load(stream: &Stream) -> Result<Self> {
        let source = Source {
            module: "quant_rows",
            stem: "quant_rows",
            layouts: &LAYOUTS,
        };
        Ok(Self(RowKernels::load(stream, source, None)?))
    }

    /// Runs a call of these: `fp8-row`, row-wise alone, without a rotation or groups.
    pub(super) fn quantize(&self, stream: &Stream, call: QuantizeCall<'_>) -> Result<()> {
        let QuantizeCall { x, mut store } = call;
        let Some(output) = store.rowwise.take() else {
            // not reached: quantize.rs asks for it
            return Err(Error::unsupported(
                "Quantize",
                "rows without a row-wise output",
                "ask for one",
            ));
        };
        let shape = RowShape {
            tokens: store.shape.rows,
            heads: 1,
            columns: store.shape.columns,
        };
        if shape.tokens == 0 {
            return Ok(());
        }
        let mut alignment = Alignment::default();
        alignment.add_rows(&x, shape);
        alignment.add_quantized(&output, shape);
        let plan = self.0.plan(shape, &alignment, |_| 0)?;
        let params = QuantizeRowsParams {
            grid: plan.grid,
            x: RowTensor::new(&x, shape),
            y: RowTensor::quantized(&output, shape),
            to: QuantizedRows::new(&store, &output, shape),
            status: stream.status_address(),
        };
        let (mut reads, mut writes) = (vec![x], Vec::new());
        touch_store(store, output, &mut reads, &mut writes);
        // SAFETY: the parameters are the kernel's, made of these views alone, whose shapes call.rs found
        // to fit: it reads x, and writes as many elements, a scale a row, and one amax and two counts
        // where they are asked for.
        unsafe { stream.launch(plan.kernel, plan.config, &params, &reads, &mut writes) }
    }
}
