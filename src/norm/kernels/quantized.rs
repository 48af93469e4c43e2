//! Normalizations with quantised results on a device.

use std::fmt;

use super::rows::{Extra, NormKernels, forward_alignment, forward_params, kind_name, rotary_bytes};
use crate::norm::NormKind;
use crate::norm::call::ForwardCall;
use crate::norm::params::NormForwardQuantizedParams;
use crate::quant::Store;
use crate::rows::{
    Layout, QUANTIZED, QuantizedRows, RowKernels, RowLaunch, RowTensor, Source, touch_store,
};
use crate::{Error, Result, Stream};

/// Those that kernels/norm/forward_quantized.cuh lists.
fn layouts(extra: Extra) -> &'static [Layout] {
    match extra {
        Extra::None => &[Layout::C8U4, Layout::C4U4, Layout::C4U8, Layout::S4U4],
        Extra::Rotary => &[Layout::C8U2, Layout::C4U4, Layout::S4U4],
        Extra::Gate => &[Layout::C8U4, Layout::C4U4, Layout::C4U8, Layout::S4U4],
    }
}

/// Those that kernels/norm/quantized_*_cluster.cu list.
pub(super) const CLUSTER_LAYOUTS: [Layout; 3] = [Layout::C8U4, Layout::C4U8, Layout::S4U4];

/// For each [`Extra`].
pub(in crate::norm) struct QuantizedKernels([RowKernels; 3]);

impl NormKernels {
    /// Loads the kernels of quantised results.
    pub(in crate::norm) fn load_quantized(
        &mut self,
        stream: &Stream,
        kind: NormKind,
    ) -> Result<()> {
        let load = |extra: Extra| {
            let modules = match kind {
                NormKind::Rms => ["norm_quantized_rms", "norm_quantized_rms_cluster"],
                NormKind::Layer => ["norm_quantized_layer", "norm_quantized_layer_cluster"],
            };
            let name = format!("{}{}", kind_name(kind), extra.name());
            let block = Source {
                module: modules[0],
                stem: &format!("norm_quantized_{name}"),
                layouts: layouts(extra),
            };
            let stem = format!("norm_quantized_cluster_{name}");
            let cluster = Source {
                module: modules[1],
                stem: &stem,
                layouts: &CLUSTER_LAYOUTS,
            };
            // Heads that are turned are of one block.
            let cluster = (extra != Extra::Rotary).then_some(cluster);
            Ok(RowKernels::load(stream, block, cluster)?.on(&QUANTIZED))
        };
        let [plain, rotary, gate] = Extra::ALL;
        self.quantized = Some(QuantizedKernels([load(plain)?, load(rotary)?, load(gate)?]));
        Ok(())
    }

    pub(in crate::norm) fn forward_quantized<'a>(
        &self,
        stream: &Stream,
        call: ForwardCall<'a>,
        mut store: Store<'a>,
    ) -> Result<()> {
        let (Some(kernels), Some(output)) = (&self.quantized, store.rowwise.take()) else {
            // not reached: prepare loaded them, and asked for this output
            return Err(Error::unsupported(
                "forward_quantized",
                "an operation that was not prepared for it",
                "prepare it with `quantized`",
            ));
        };
        let shape = call.shape;
        let extra = Extra::of(&call);
        let format = output.form.format;
        let mut alignment = forward_alignment(&call);
        alignment.add_quantized(&output, shape);
        let shared = |launch: &RowLaunch| {
            let heads = match extra {
                Extra::Rotary => rotary_bytes(launch, shape.columns),
                Extra::None | Extra::Gate => 0,
            };
            let columns = launch.rung.layout.columns();
            heads + launch.teams * QuantizedRows::team_bytes(format, launch.threads, columns)
        };
        let mut plan = kernels.0[extra as usize].plan(shape, &alignment, shared)?;
        if shape.rows() == 0 && output.tensor_scale.is_none() {
            return Ok(());
        }
        // Without rows the copy of the given scale remains to be written.
        plan.config.grid = plan.config.grid.max(plan.config.cluster);
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        let mut params = NormForwardQuantizedParams {
            y: QuantizedRows::new(&store, &output, shape),
            norm: forward_params(stream, &plan, call, &mut reads, &mut writes),
        };
        params.norm.y = RowTensor::quantized(&output, shape);
        touch_store(store, output, &mut reads, &mut writes);
        // SAFETY: as of `launch_forward`; instead of y the kernel writes the elements and the scales of
        // the store's output, whose shapes quant/call.rs found to be those of its form: of these rows, by
        // the store that norm/quantized/ made.
        unsafe { stream.launch(plan.kernel, plan.config, &params, &reads, &mut writes) }
    }
}

impl fmt::Debug for QuantizedKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}
