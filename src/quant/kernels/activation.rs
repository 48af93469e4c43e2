//! Activations on a device.

use bytemuck::{Pod, Zeroable};

use super::activation_store::{Operands, Pass, StoreKernels};
use crate::device::launch::{Kernel, LaunchConfig};
use crate::quant::Quantize;
use crate::quant::activation::{
    BackwardCall, ForwardCall, GeluKind, Inputs, Output, Shape, Smoothing, SmoothingScales,
};
use crate::reference::quant::activation::Function;
use crate::rows::float_type;
use crate::{Error, Result, Stream, TensorMut, TensorRef};

const MODULE: &str = "quant_activation";

/// Columns of a unit: `kUnit` of kernels/common/units.cuh.
const UNIT: usize = 8;
/// Threads of a block, and the rows that each of them has: `kForwardRows`, `kBackwardRows`.
const THREADS: u32 = 256;
const FORWARD_ROWS: u64 = 4;
const BACKWARD_ROWS: u64 = 2;
/// Of a block of channels' scales: its threads, its columns, and `sizeof(ChannelShared)`.
const CHANNEL_THREADS: u32 = 512;
const CHANNEL_COLUMNS: usize = 32;
const CHANNEL_SHARED_BYTES: u32 = 2048;
/// Of a block of tokens' scales: a warp a row.
const TOKEN_ROWS: usize = 8;

/// `UnitTensor` of kernels/common/units.cuh; zeros for an absent one.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct UnitTensor {
    data: u64,
    float_type: u32,
    aligned: u32,
    stride: u64,
}

impl UnitTensor {
    pub(super) fn new(view: &TensorRef<'_>) -> Self {
        Self::part(view, 0, view.columns())
    }

    /// `columns` columns from `first` on.
    fn part(view: &TensorRef<'_>, first: usize, columns: usize) -> Self {
        let data = view.address() + (first * view.dtype().size()) as u64;
        let unit = UNIT * view.dtype().size();
        let stride = view.row_stride();
        // A unit of f32 is two vectors.
        let rows = view.rows() <= 1 || (stride * view.dtype().size()).is_multiple_of(16);
        let aligned =
            data.is_multiple_of(unit.min(16) as u64) && rows && columns.is_multiple_of(UNIT);
        Self {
            data,
            float_type: float_type(view.dtype()),
            aligned: u32::from(aligned),
            stride: stride as u64,
        }
    }
}

/// `ActivationParams` of kernels/quant/activation.cu.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct ActivationParams {
    x: UnitTensor,
    up: UnitTensor,
    dy: UnitTensor,
    out: UnitTensor,
    out_up: UnitTensor,
    scales: u64,
    rows: u32,
    columns: u32,
    per_token: u32,
    threads_log2: u32,
}

/// `ActivationScalesParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ActivationScalesParams {
    up: UnitTensor,
    scales: u64,
    rows: u32,
    columns: u32,
}

const _: () = {
    assert!(size_of::<ActivationParams>() == 144);
    assert!(size_of::<ActivationScalesParams>() == 40);
};

/// The loaded kernels of a prepared activation.
#[derive(Debug)]
pub(in crate::quant) struct ActivationKernels {
    forward: Kernel,
    backward: Kernel,
    channel_scales: Kernel,
    token_scales: Kernel,
    /// Of what is quantised.
    output: Option<StoreKernels>,
    gradient: Option<StoreKernels>,
}

impl ActivationKernels {
    /// `formats`: of the output and of the gradients, where these are quantised.
    pub(in crate::quant) fn load(
        stream: &Stream,
        function: Function,
        formats: [Option<&Quantize>; 2],
    ) -> Result<Self> {
        let [output, gradient] = formats;
        let store = |pass: Pass, quantize: Option<&Quantize>| {
            let load = |quantize| StoreKernels::load(stream, function, pass, quantize);
            quantize.map(load).transpose()
        };
        let stem = match function {
            Function::SwiGlu => "activation_swiglu",
            Function::Gelu(GeluKind::Exact) => "activation_gelu_exact",
            Function::Gelu(GeluKind::Tanh) => "activation_gelu_tanh",
        };
        Ok(Self {
            forward: stream.kernel(MODULE, &format!("{stem}_forward"))?,
            backward: stream.kernel(MODULE, &format!("{stem}_backward"))?,
            channel_scales: stream.kernel(MODULE, "activation_channel_scales")?,
            token_scales: stream.kernel(MODULE, "activation_token_scales")?,
            output: store(Pass::Forward, output)?,
            gradient: store(Pass::Backward, gradient)?,
        })
    }

    pub(in crate::quant) fn forward(
        &self,
        stream: &Stream,
        call: ForwardCall<'_, '_, '_>,
    ) -> Result<()> {
        let ForwardCall {
            shape,
            inputs,
            mut scales,
            y,
        } = call;
        if let (Some((smoothing, SmoothingScales::Computed(into))), Some(up)) =
            (&mut scales, inputs.up)
        {
            self.scales(stream, *smoothing, &up, into.reborrow())?;
        }
        let scales = scales.as_ref().map(|(smoothing, scales)| {
            let view = match scales {
                SmoothingScales::Computed(view) => view.as_ref(),
                SmoothingScales::Given(view) => *view,
            };
            (*smoothing, view)
        });
        match y {
            Output::Plain(mut y) => {
                let out = [UnitTensor::new(&y.as_ref()), UnitTensor::default()];
                let call = Plain::new(shape, inputs, scales, None, out);
                call.launch(stream, &self.forward, FORWARD_ROWS, &mut [y.reborrow()])
            }
            Output::Quantized(store) => {
                let operands = Operands {
                    shape,
                    inputs,
                    scales,
                    dy: None,
                };
                chosen(self.output.as_ref())?.run(stream, operands, *store)
            }
            // The gradients of a backward alone.
            Output::Apart(..) => Ok(()),
        }
    }

    pub(in crate::quant) fn backward(
        &self,
        stream: &Stream,
        call: BackwardCall<'_, '_>,
    ) -> Result<()> {
        let BackwardCall {
            shape,
            inputs,
            scales,
            dy,
            dx,
        } = call;
        let plain = |out| Plain::new(shape, inputs, scales, Some(dy), out);
        match dx {
            Output::Plain(mut dx) => {
                let view = dx.as_ref();
                let halves = if inputs.up.is_some() {
                    let half = |first| UnitTensor::part(&view, first, shape.channels);
                    [half(0), half(shape.channels)]
                } else {
                    [UnitTensor::new(&view), UnitTensor::default()]
                };
                let mut writes = [dx.reborrow()];
                plain(halves).launch(stream, &self.backward, BACKWARD_ROWS, &mut writes)
            }
            Output::Apart(mut gate, mut up) => {
                let out = [
                    UnitTensor::new(&gate.as_ref()),
                    UnitTensor::new(&up.as_ref()),
                ];
                let mut writes = [gate.reborrow(), up.reborrow()];
                plain(out).launch(stream, &self.backward, BACKWARD_ROWS, &mut writes)
            }
            Output::Quantized(store) => {
                let operands = Operands {
                    shape,
                    inputs,
                    scales,
                    dy: Some(dy),
                };
                chosen(self.gradient.as_ref())?.run(stream, operands, *store)
            }
        }
    }

    /// The scales of Smooth-SwiGLU.
    fn scales(
        &self,
        stream: &Stream,
        smoothing: Smoothing,
        up: &TensorRef<'_>,
        into: TensorMut<'_>,
    ) -> Result<()> {
        let params = ActivationScalesParams {
            up: UnitTensor::new(up),
            scales: into.address(),
            rows: up.rows() as u32,
            columns: up.columns() as u32,
        };
        let (kernel, grid, block, shared_bytes) = match smoothing {
            Smoothing::Channel => (
                &self.channel_scales,
                up.columns().div_ceil(CHANNEL_COLUMNS),
                CHANNEL_THREADS,
                CHANNEL_SHARED_BYTES,
            ),
            Smoothing::Token => (
                &self.token_scales,
                up.rows().div_ceil(TOKEN_ROWS),
                32 * TOKEN_ROWS as u32,
                0,
            ),
        };
        let config = LaunchConfig {
            grid: grid as u32,
            block,
            cluster: 1,
            shared_bytes,
        };
        // SAFETY: the parameters are the kernel's, made of these views, which activation/call.rs
        // found to fit: it reads `[rows, columns]`, and writes one scale of each column or row.
        unsafe { stream.launch(kernel, config, &params, &[*up], &mut [into]) }
    }
}

/// Those of a format, which activation/call.rs found to be chosen.
fn chosen(kernels: Option<&StoreKernels>) -> Result<&StoreKernels> {
    kernels
        .ok_or_else(|| Error::unsupported("activation", "no format", "choose one before prepare"))
}

/// A call whose results are not quantised.
struct Plain<'a> {
    params: ActivationParams,
    reads: Vec<TensorRef<'a>>,
}

impl<'a> Plain<'a> {
    fn new(
        shape: Shape,
        inputs: Inputs<'a>,
        scales: Option<(Smoothing, TensorRef<'a>)>,
        dy: Option<TensorRef<'a>>,
        [out, out_up]: [UnitTensor; 2],
    ) -> Self {
        let tensor = |view: Option<&TensorRef<'_>>| view.map(UnitTensor::new).unwrap_or_default();
        let views = [Some(inputs.x), inputs.up, dy, scales.map(|(_, view)| view)];
        let units = shape.channels.div_ceil(UNIT).max(1);
        let params = ActivationParams {
            x: UnitTensor::new(&inputs.x),
            up: tensor(inputs.up.as_ref()),
            dy: tensor(dy.as_ref()),
            out,
            out_up,
            scales: scales.map_or(0, |(_, view)| view.address()),
            rows: shape.tokens as u32,
            columns: shape.channels as u32,
            per_token: u32::from(matches!(scales, Some((Smoothing::Token, _)))),
            // As few as cover a row, so that narrow rows leave no thread idle.
            threads_log2: units.next_power_of_two().min(THREADS as usize).ilog2(),
        };
        Self {
            params,
            reads: views.into_iter().flatten().collect(),
        }
    }

    fn launch(
        &self,
        stream: &Stream,
        kernel: &Kernel,
        rows: u64,
        writes: &mut [TensorMut<'_>],
    ) -> Result<()> {
        let threads = 1_u64 << self.params.threads_log2;
        let across = u64::from(self.params.columns).div_ceil(threads * UNIT as u64);
        let down = u64::from(self.params.rows).div_ceil(u64::from(THREADS) / threads * rows);
        let blocks = across * down;
        let Ok(grid @ ..=MAX_GRID) = u32::try_from(blocks) else {
            let expected = "fewer than 2^31 blocks of 2048 columns of a few rows on this device";
            return Err(Error::argument(
                "activation",
                "x",
                expected,
                blocks.to_string(),
            ));
        };
        let config = LaunchConfig {
            grid,
            block: THREADS,
            cluster: 1,
            shared_bytes: 0,
        };
        // SAFETY: the parameters are the kernel's, made of these views, whose shapes
        // activation/call.rs found to fit: it reads and writes the columns of their rows, and reads
        // one scale of each row or column.
        unsafe { stream.launch(kernel, config, &self.params, &self.reads, writes) }
    }
}

/// Blocks of a launch.
const MAX_GRID: u32 = i32::MAX as u32;
