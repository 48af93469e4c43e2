//! Activations that are quantised as they are computed.

use bytemuck::{Pod, Zeroable};

use super::activation::UnitTensor;
use super::activation_rows::ActivationRowsKernels;
use super::quantize::{ClearKernels, split};
use crate::device::launch::Kernel;
use crate::quant::activation::{Inputs, Shape, Smoothing};
use crate::quant::call::Store;
use crate::quant::form::TILE;
use crate::quant::launch::{TilePlan, takes_rows};
use crate::quant::params::{AmaxOutput, QuantizeForm, QuantizeGrid, QuantizeOutputs};
use crate::quant::{Format, GeluKind, Quantize, Rounding};
use crate::reference::quant::activation::Function;
use crate::{Result, Stream, TensorMut, TensorRef};

/// `ActivationInput` of kernels/quant/activation_source.cuh.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ActivationInput {
    x: UnitTensor,
    up: UnitTensor,
    dy: UnitTensor,
    scales: u64,
    per_token: u32,
    function: u32,
    channels: u32,
    paired: u32,
}

/// `ActivationQuantizeParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ActivationQuantizeParams {
    grid: QuantizeGrid,
    form: QuantizeForm,
    outputs: QuantizeOutputs,
    input: ActivationInput,
}

/// `ActivationAmaxParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ActivationAmaxParams {
    grid: QuantizeGrid,
    outputs: [AmaxOutput; 2],
    input: ActivationInput,
    status: u64,
}

const _: () = {
    assert!(size_of::<ActivationInput>() == 96);
    assert!(size_of::<ActivationQuantizeParams>() == 456);
    assert!(size_of::<ActivationAmaxParams>() == 240);
};

/// What is quantised: y, or the gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    Backward,
}

/// The kernels of one quantised result.
#[derive(Debug)]
pub(super) struct StoreKernels {
    quantize: Kernel,
    amax: Kernel,
    clear: ClearKernels,
    /// Of formats with a scale a row.
    rows: Option<ActivationRowsKernels>,
}

/// What a result is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands<'a> {
    pub(super) shape: Shape,
    pub(super) inputs: Inputs<'a>,
    pub(super) scales: Option<(Smoothing, TensorRef<'a>)>,
    /// Of a backward.
    pub(super) dy: Option<TensorRef<'a>>,
}

impl<'a> Operands<'a> {
    fn input(&self) -> ActivationInput {
        let tensor = |view: Option<&TensorRef<'_>>| view.map(UnitTensor::new).unwrap_or_default();
        ActivationInput {
            x: UnitTensor::new(&self.inputs.x),
            up: tensor(self.inputs.up.as_ref()),
            dy: tensor(self.dy.as_ref()),
            scales: self.scales.map_or(0, |(_, view)| view.address()),
            per_token: u32::from(matches!(self.scales, Some((Smoothing::Token, _)))),
            function: match self.shape.function {
                Function::SwiGlu => 0,
                Function::Gelu(GeluKind::Exact) => 1,
                Function::Gelu(GeluKind::Tanh) => 2,
            },
            channels: self.shape.channels as u32,
            paired: 0,
        }
    }

    pub(super) fn views(&self) -> Vec<TensorRef<'a>> {
        let scales = self.scales.map(|(_, view)| view);
        let views = [Some(self.inputs.x), self.inputs.up, self.dy, scales];
        views.into_iter().flatten().collect()
    }
}

impl StoreKernels {
    pub(super) fn load(
        stream: &Stream,
        function: Function,
        pass: Pass,
        quantize: &Quantize,
    ) -> Result<Self> {
        let source = match (pass, function) {
            (Pass::Backward, _) => "gradient",
            (Pass::Forward, Function::SwiGlu) => "swiglu",
            (Pass::Forward, Function::Gelu(_)) => "gelu",
        };
        let (module, rounding) = match quantize.options().rounding {
            Rounding::Nearest => ("quant_activation_quantize", "nearest"),
            Rounding::Stochastic { .. } => ("quant_activation_stochastic", "stochastic"),
        };
        let bits = quantize.options().format.element_bits();
        let name = format!("activation_quantize_{source}_b{bits}_{rounding}");
        let amax = format!("activation_amax_{source}");
        Ok(Self {
            quantize: stream.kernel(module, &name)?,
            amax: stream.kernel("quant_activation_amax", &amax)?,
            clear: ClearKernels::load(stream)?,
            rows: matches!(quantize.options().format, Format::Fp8Row(_))
                .then(|| ActivationRowsKernels::load(stream, function, pass))
                .transpose()?,
        })
    }

    pub(super) fn run(
        &self,
        stream: &Stream,
        operands: Operands<'_>,
        mut store: Store<'_>,
    ) -> Result<()> {
        if let Some(rows) = &self.rows
            && takes_rows(&store.quantize, store.shape)
        {
            return rows.run(stream, operands, store);
        }
        let mut plan = TilePlan::new(stream, &store);
        let mut input = operands.input();
        // Where [dgate | dup] has tiles of either alone. Values of both would have to wait for a second
        // rotation, which is more than shared memory holds.
        let halves = operands.dy.is_some() && operands.shape.function == Function::SwiGlu;
        if halves && operands.shape.channels.is_multiple_of(TILE) && plan.rotated < 2 {
            plan.grid = plan.grid.paired();
            input.paired = 1;
        }
        let config = plan.computed_config();
        self.clear.run(stream, &plan, &mut store)?;
        if plan.finds_amax() {
            let params = ActivationAmaxParams {
                grid: plan.grid,
                outputs: plan.amax,
                input,
                status: stream.status_address(),
            };
            let mut reads = operands.views();
            reads.extend(store.groups);
            let words = store.workspace.iter_mut();
            let mut writes: Vec<TensorMut<'_>> = words.map(TensorMut::reborrow).collect();
            // SAFETY: the parameters are the kernel's, made of these views, whose shapes
            // activation/call.rs found to fit: it reads the inputs' elements, the scales and the
            // groups' offsets, and raises the words of the workspace, whose size was checked.
            unsafe { stream.launch(&self.amax, config, &params, &reads, &mut writes)? };
        }
        let params = ActivationQuantizeParams {
            grid: plan.grid,
            form: plan.form,
            outputs: QuantizeOutputs {
                rowwise: plan.rowwise,
                transposed: plan.transposed,
                first_element: 0,
                row_elements: store.shape.columns as u64,
            },
            input,
        };
        let (mut stored, mut writes) = (Vec::new(), Vec::new());
        split(store, &mut stored, &mut writes);
        let mut reads = operands.views();
        reads.extend(stored);
        // SAFETY: as above; what it writes are the elements and scales of the outputs, whose shapes
        // quant/call.rs found to be those of their forms, and one number for each group or output.
        unsafe { stream.launch(&self.quantize, config, &params, &reads, &mut writes) }
    }
}
