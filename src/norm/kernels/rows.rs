//! `RmsNorm` and `LayerNorm` on a device, with what comes along: residual, gate, rotary embedding.

use std::fmt;

use super::columns::ColumnKernels;
use crate::norm::call::{ForwardCall, Pair};
use crate::norm::params::{NormForwardParams, RotaryParams};
use crate::norm::{NormKind, NormOptions};
use crate::rows::RowShape;
use crate::rows::{Alignment, Layout, RowLaunch};
use crate::rows::{ColumnVector, RowTensor};
use crate::rows::{Plan, RowKernels, Source};
use crate::{Result, Stream, TensorMut, TensorRef};

/// What a kernel does beside normalizing: `Extra` of kernels/norm/forward.cuh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    None,
    Rotary,
    Gate,
}

impl Extra {
    pub(super) const ALL: [Self; 3] = [Self::None, Self::Rotary, Self::Gate];

    pub(super) fn of(call: &ForwardCall<'_>) -> Self {
        match (&call.rotary, &call.gate) {
            (Some(_), _) => Self::Rotary,
            (None, Some(_)) => Self::Gate,
            (None, None) => Self::None,
        }
    }

    /// In a kernel's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Rotary => "_rotary",
            Self::Gate => "_gate",
        }
    }
}

/// Those that kernels/norm/rows_block.cu lists.
fn forward_layouts(extra: Extra) -> &'static [Layout] {
    match extra {
        Extra::None => &[
            Layout::C8U2,
            Layout::C8U4,
            Layout::C8U8,
            Layout::C4U4,
            Layout::C4U8,
            Layout::S4U4,
        ],
        Extra::Rotary => &[Layout::C8U2, Layout::C4U4, Layout::S4U4],
        Extra::Gate => &[Layout::C8U4, Layout::C4U4, Layout::S4U4],
    }
}

/// Those that kernels/norm/rows_cluster.cu lists.
const CLUSTER_LAYOUTS: [Layout; 4] = [Layout::C8U4, Layout::C8U8, Layout::C4U8, Layout::S4U4];

pub(super) fn kind_name(kind: NormKind) -> &'static str {
    match kind {
        NormKind::Rms => "rms",
        NormKind::Layer => "layer",
    }
}

/// The loaded kernels of a prepared normalization, of one kind.
pub(in crate::norm) struct NormKernels {
    pub(super) forward: [RowKernels; 3],
    pub(super) backward: [RowKernels; 3],
    pub(super) columns: ColumnKernels,
    /// Of quantised results, where they were asked for.
    #[cfg(feature = "quant")]
    pub(super) quantized: Option<super::quantized::QuantizedKernels>,
}

impl NormKernels {
    /// Loads what a normalization of this kind may need. A rotary embedding alone runs on the
    /// kernels of `RmsNorm`.
    pub(in crate::norm) fn load(stream: &Stream, kind: NormKind) -> Result<Self> {
        let forward = |extra: Extra| {
            let name = kind_name(kind);
            let block = Source {
                module: "norm_rows_block",
                stem: &format!("norm_forward_{name}{}", extra.name()),
                layouts: forward_layouts(extra),
            };
            let stem = format!("norm_forward_cluster_{name}");
            let cluster = Source {
                module: "norm_rows_cluster",
                stem: &stem,
                layouts: &CLUSTER_LAYOUTS,
            };
            RowKernels::load(stream, block, (extra == Extra::None).then_some(cluster))
        };
        let backward = |extra: Extra| super::backward::load(stream, kind, extra);
        let [plain, rotary, gate] = Extra::ALL;
        Ok(Self {
            forward: [forward(plain)?, forward(rotary)?, forward(gate)?],
            backward: [backward(plain)?, backward(rotary)?, backward(gate)?],
            columns: ColumnKernels::load(stream)?,
            #[cfg(feature = "quant")]
            quantized: None,
        })
    }

    pub(in crate::norm) fn forward(&self, stream: &Stream, call: ForwardCall<'_>) -> Result<()> {
        let shape = call.shape;
        if shape.rows() == 0 {
            return Ok(());
        }
        let extra = Extra::of(&call);
        let alignment = forward_alignment(&call);
        let shared = |launch: &RowLaunch| match extra {
            Extra::Rotary => rotary_bytes(launch, shape.columns),
            Extra::None | Extra::Gate => 0,
        };
        let plan = self.forward[extra as usize].plan(shape, &alignment, shared)?;
        launch_forward(stream, &plan, call)
    }
}

/// The heads of a block's teams in fp32, on their way through a rotary embedding.
pub(super) fn rotary_bytes(launch: &RowLaunch, columns: usize) -> usize {
    launch.teams * columns.next_multiple_of(4) * 4
}

pub(super) fn forward_alignment(call: &ForwardCall<'_>) -> Alignment {
    let mut alignment = Alignment::default();
    let pairs = [Some(&call.rows), call.residual.as_ref()];
    for pair in pairs.into_iter().flatten() {
        alignment.add_rows(&pair.input(), call.shape);
        alignment.add_rows(&pair.output(), call.shape);
    }
    if let Some(gate) = &call.gate {
        alignment.add_rows(gate, call.shape);
    }
    for vector in [&call.gamma, &call.beta].into_iter().flatten() {
        alignment.add_vector(vector);
    }
    alignment
}

fn launch_forward(stream: &Stream, plan: &Plan<'_>, call: ForwardCall<'_>) -> Result<()> {
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    let params = forward_params(stream, plan, call, &mut reads, &mut writes);
    // SAFETY: the parameters are the kernel's, made of these views alone, whose shapes call.rs found to
    // fit: it reads and writes the columns of the rows, one value a row of the statistics, the weights
    // within their forms, and of the tables the rows of positions below their count.
    unsafe { stream.launch(plan.kernel, plan.config, &params, &reads, &mut writes) }
}

/// The parameters of a launch, with the views that they are made of.
pub(super) fn forward_params<'a>(
    stream: &Stream,
    plan: &Plan<'_>,
    call: ForwardCall<'a>,
    reads: &mut Vec<TensorRef<'a>>,
    writes: &mut Vec<TensorMut<'a>>,
) -> NormForwardParams {
    let ForwardCall {
        norm,
        shape,
        rows,
        residual,
        gate,
        form,
        gamma,
        beta,
        rotary,
        rstd,
        mean,
    } = call;
    let columns = shape.columns;
    let mut params = NormForwardParams {
        grid: plan.grid,
        gamma: ColumnVector::new(gamma.as_ref(), form, columns),
        beta: ColumnVector::new(beta.as_ref(), form, columns),
        status: stream.status_address(),
        eps: norm.map_or(0.0, |norm| norm.eps),
        gamma_offset: norm.as_ref().map_or(0.0, NormOptions::gamma_offset),
        normalize: u32::from(norm.is_some()),
        ..NormForwardParams::default()
    };
    reads.extend([gamma, beta, gate].into_iter().flatten());
    (params.x, params.y) = tensors(&rows, shape);
    (params.beside, params.stream) = match (&residual, &gate) {
        (Some(residual), _) => tensors(residual, shape),
        (None, gate) => (
            RowTensor::optional(gate.as_ref(), shape),
            RowTensor::default(),
        ),
    };
    if let Some((rotary, tables)) = &rotary {
        params.rotary = RotaryParams::new(rotary, tables, plan.launch.rung.layout.chunk);
        reads.extend([tables.cos, tables.sin]);
        reads.extend(tables.positions);
    }
    for pair in [Some(rows), residual].into_iter().flatten() {
        touch(pair, reads, writes);
    }
    for (slot, statistic) in [(&mut params.rstd, rstd), (&mut params.mean, mean)] {
        if let Some(statistic) = statistic {
            *slot = statistic.address();
            writes.push(statistic);
        }
    }
    params
}

/// What is read and what is written, for the parameters.
pub(super) fn tensors(pair: &Pair<'_>, shape: RowShape) -> (RowTensor, RowTensor) {
    (
        RowTensor::new(&pair.input(), shape),
        RowTensor::new(&pair.output(), shape),
    )
}

/// The same, for the launch.
pub(super) fn touch<'a>(
    pair: Pair<'a>,
    reads: &mut Vec<TensorRef<'a>>,
    writes: &mut Vec<TensorMut<'a>>,
) {
    match pair {
        Pair::Apart(input, output) => {
            reads.push(input);
            writes.push(output);
        }
        Pair::InPlace(both) => writes.push(both),
        Pair::Read(input) => reads.push(input),
    }
}

impl fmt::Debug for NormKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(&self.forward)
            .entries(&self.backward)
            .finish()
    }
}
