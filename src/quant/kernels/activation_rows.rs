//! Activations and their gradients in FP8 with a scale for each row, from one read.

use bytemuck::{Pod, Zeroable};

use super::activation_store::{Operands, Pass};
use crate::quant::GeluKind;
use crate::quant::activation::Smoothing;
use crate::quant::call::Store;
use crate::reference::quant::activation::Function;
use crate::rows::{
    Alignment, Layout, QuantizedRows, RowGrid, RowKernels, RowShape, RowTensor, Source, touch_store,
};
use crate::{Error, Result, Stream};

/// Those that kernels/quant/activation_rows.cu lists.
const LAYOUTS: [Layout; 4] = [Layout::C8U4, Layout::C8U8, Layout::C4U8, Layout::S4U4];

/// `ActivationRowsParams` of kernels/quant/activation_rows.cu.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ActivationRowsParams {
    grid: RowGrid,
    inputs: [RowTensor; 3],
    y: RowTensor,
    to: QuantizedRows,
    scales: u64,
    per_token: u32,
    function: u32,
    status: u64,
}

const _: () = assert!(size_of::<ActivationRowsParams>() == 288);

/// The loaded kernels of a function or its gradient.
#[derive(Debug)]
pub(super) struct ActivationRowsKernels(RowKernels);

impl ActivationRowsKernels {
    pub(super) fn load(stream: &Stream, function: Function, pass: Pass) -> Result<Self> {
        let stem = match (function, pass) {
            (Function::SwiGlu, Pass::Forward) => "activation_rows_swiglu_forward",
            (Function::SwiGlu, Pass::Backward) => "activation_rows_swiglu_backward",
            (Function::Gelu(_), Pass::Forward) => "activation_rows_gelu_forward",
            (Function::Gelu(_), Pass::Backward) => "activation_rows_gelu_backward",
        };
        let source = Source {
            module: "quant_activation_rows",
            stem,
            layouts: &LAYOUTS,
        };
        Ok(Self(RowKernels::load(stream, source, None)?))
    }

    /// Runs a call of these: `fp8-row`, row-wise alone, without a rotation or groups.
    pub(super) fn run(
        &self,
        stream: &Stream,
        operands: Operands<'_>,
        mut store: Store<'_>,
    ) -> Result<()> {
        let Some(output) = store.rowwise.take() else {
            // not reached: activation_store.rs asks for it
            return Err(Error::unsupported(
                "activation",
                "rows without a row-wise output",
                "ask for one",
            ));
        };
        let shape = RowShape {
            tokens: operands.shape.tokens,
            heads: 1,
            columns: operands.shape.channels,
        };
        if shape.tokens == 0 {
            return Ok(());
        }
        // dgate and dup lie side by side.
        let halves = RowShape {
            heads: store.shape.columns / shape.columns.max(1),
            ..shape
        };
        let inputs = [Some(operands.inputs.x), operands.inputs.up, operands.dy];
        let mut alignment = Alignment::default();
        let mut rows = [RowTensor::default(); 3];
        for (row, view) in rows.iter_mut().zip(inputs.iter().flatten()) {
            alignment.add_rows(view, shape);
            *row = RowTensor::new(view, shape);
        }
        alignment.add_quantized(&output, halves);
        let plan = self.0.plan(shape, &alignment, |_| 0)?;
        let params = ActivationRowsParams {
            grid: plan.grid,
            inputs: rows,
            y: RowTensor::quantized(&output, halves),
            to: QuantizedRows::new(&store, &output, halves),
            scales: operands.scales.map_or(0, |(_, view)| view.address()),
            per_token: u32::from(matches!(operands.scales, Some((Smoothing::Token, _)))),
            function: match operands.shape.function {
                Function::SwiGlu => 0,
                Function::Gelu(GeluKind::Exact) => 1,
                Function::Gelu(GeluKind::Tanh) => 2,
            },
            status: stream.status_address(),
        };
        let (mut stored, mut writes) = (Vec::new(), Vec::new());
        touch_store(store, output, &mut stored, &mut writes);
        let mut reads = operands.views();
        reads.extend(stored);
        // SAFETY: the parameters are the kernel's, made of these views alone, whose shapes
        // activation/call.rs and quant/call.rs found to fit: it reads the inputs' rows and the scales of
        // the smoothing, and writes as many elements as there are results, a scale a row, and one amax
        // and two counts where they are asked for.
        unsafe { stream.launch(plan.kernel, plan.config, &params, &reads, &mut writes) }
    }
}
