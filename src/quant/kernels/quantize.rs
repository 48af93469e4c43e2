//! Quantisation on a device: which kernels are loaded, and what they are launched with.

use super::rows::RowsKernels;
use crate::device::launch::Kernel;
use crate::quant::call::{OutputStore, QuantizeCall, Store};
use crate::quant::launch::{TilePlan, is_wide, takes_rows};
use crate::quant::params::{AmaxParams, DenseInput, QuantizeOutputs, QuantizeParams};
use crate::quant::{Format, Quantize, Rounding};
use crate::{Result, Stream, TensorMut, TensorRef};

const AMAX: &str = "quant_amax";

/// Of values in 16 bits, and in fp32.
#[derive(Debug)]
pub(in crate::quant) struct Widths {
    narrow: Kernel,
    wide: Kernel,
}

impl Widths {
    fn load(stream: &Stream, module: &'static str, stem: &str) -> Result<Self> {
        Ok(Self {
            narrow: stream.kernel(module, &format!("{stem}_narrow"))?,
            wide: stream.kernel(module, &format!("{stem}_wide"))?,
        })
    }

    fn of(&self, wide: bool) -> &Kernel {
        if wide { &self.wide } else { &self.narrow }
    }
}

/// The kernels of [`Quantize`].
#[derive(Debug)]
pub(in crate::quant) struct QuantizeKernels {
    quantize: Widths,
    amax: Widths,
    clear: ClearKernels,
    /// Of formats with a scale a row.
    rows: Option<RowsKernels>,
}

impl QuantizeKernels {
    /// Loads all of them: loading lazily within a graph capture may fail.
    pub(in crate::quant) fn load(stream: &Stream, quantize: &Quantize) -> Result<Self> {
        let options = quantize.options();
        let module = match options.rounding {
            Rounding::Nearest => "quant_quantize",
            Rounding::Stochastic { .. } => "quant_stochastic",
        };
        let stem = format!("{module}_b{}", options.format.element_bits());
        Ok(Self {
            quantize: Widths::load(stream, module, &stem)?,
            amax: Widths::load(stream, AMAX, AMAX)?,
            clear: ClearKernels::load(stream)?,
            rows: matches!(options.format, Format::Fp8Row(_))
                .then(|| RowsKernels::load(stream))
                .transpose()?,
        })
    }

    pub(in crate::quant) fn quantize(&self, stream: &Stream, call: QuantizeCall<'_>) -> Result<()> {
        if let Some(rows) = &self.rows
            && takes_rows(&call.store.quantize, call.store.shape)
        {
            return rows.quantize(stream, call);
        }
        let QuantizeCall { x, mut store } = call;
        let plan = TilePlan::new(stream, &store);
        let input = DenseInput::new(&x);
        let wide = is_wide(x.dtype(), &plan);
        let config = plan.config(x.dtype());
        self.clear.run(stream, &plan, &mut store)?;
        if plan.finds_amax() {
            let params = AmaxParams {
                grid: plan.grid,
                outputs: plan.amax,
                input,
                status: stream.status_address(),
            };
            let reads: Vec<TensorRef<'_>> = [Some(x), store.groups].into_iter().flatten().collect();
            let mut writes: Vec<TensorMut<'_>> = store
                .workspace
                .iter_mut()
                .map(TensorMut::reborrow)
                .collect();
            // SAFETY: the parameters are the kernel's, made of these views: it reads x's elements and
            // the groups' offsets, and raises the words of the workspace, whose size call.rs checked.
            unsafe { stream.launch(self.amax.of(wide), config, &params, &reads, &mut writes)? };
        }
        let params = QuantizeParams {
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
        let mut reads = vec![x];
        let mut writes = Vec::new();
        split(store, &mut reads, &mut writes);
        // SAFETY: as above; what it writes are the elements and scales of the outputs, whose shapes
        // call.rs found to be those of their forms, and one number for each group or output.
        unsafe { stream.launch(self.quantize.of(wide), config, &params, &reads, &mut writes) }
    }
}

/// What comes before a pass over tiles: zeroes.
#[derive(Debug)]
pub(in crate::quant) struct ClearKernels {
    clear: Kernel,
    outside: Kernel,
}

impl ClearKernels {
    pub(in crate::quant) fn load(stream: &Stream) -> Result<Self> {
        Ok(Self {
            clear: stream.kernel(AMAX, "quant_clear")?,
            outside: stream.kernel(AMAX, "quant_outside")?,
        })
    }

    /// Zeroes the words of amaxes, and with groups the scales of which some belong to no block, and
    /// elements of no group.
    pub(in crate::quant) fn run(
        &self,
        stream: &Stream,
        plan: &TilePlan,
        store: &mut Store<'_>,
    ) -> Result<()> {
        let (mut cleared, mut data) = (Vec::new(), Vec::new());
        cleared.extend(store.workspace.iter_mut().map(TensorMut::reborrow));
        for output in [&mut store.rowwise, &mut store.transposed] {
            let Some(output) = output else {
                continue;
            };
            data.push(output.data.reborrow());
            cleared.extend(output.scales.iter_mut().map(TensorMut::reborrow));
        }
        if plan.clears() {
            let config = plan.clear_config();
            // SAFETY: the parameters are the kernel's; its ranges are these views.
            unsafe { stream.launch(&self.clear, config, &plan.clear, &[], &mut cleared)? };
        }
        let Some(groups) = store.groups else {
            return Ok(());
        };
        let params = plan.outside();
        // SAFETY: the parameters are the kernel's; it reads the groups' offsets, and writes bytes of
        // the outputs' rows, whose shapes call.rs checked.
        unsafe {
            stream.launch(
                &self.outside,
                plan.outside_config(),
                &params,
                &[groups],
                &mut data,
            )
        }
    }
}

/// What the kernel that quantises reads and writes of a store.
pub(in crate::quant) fn split<'a>(
    store: Store<'a>,
    reads: &mut Vec<TensorRef<'a>>,
    writes: &mut Vec<TensorMut<'a>>,
) {
    let Store {
        groups,
        device_offset,
        rowwise,
        transposed,
        workspace,
        ..
    } = store;
    reads.extend([groups, device_offset].into_iter().flatten());
    // Read here, but written by the launch before.
    writes.extend(workspace);
    for output in [rowwise, transposed].into_iter().flatten() {
        let OutputStore {
            data,
            scales,
            given,
            tensor_scale,
            amax,
            counts,
            ..
        } = output;
        reads.extend(given);
        writes.push(data);
        writes.extend([scales, tensor_scale, amax, counts].into_iter().flatten());
    }
}
