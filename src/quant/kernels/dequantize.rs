//! Dequantisation on a device.

use bytemuck::{Pod, Zeroable};

use crate::device::launch::{Kernel, LaunchConfig};
use crate::quant::ScaleLayout;
use crate::quant::call::DequantizeCall;
use crate::quant::params::{element, rotation, scale_of, scale_strides, scale_type};
use crate::rows::{float_type, integer_type};
use crate::{Result, Stream, TensorRef};

const MODULE: &str = "quant_dequantize";
/// Threads of a block, and elements of each.
const THREADS: u64 = 256;
/// Threads of a row are whole multiples of this many: so many elements.
const PART: u64 = 128;

/// `DequantizeParams` of kernels/quant/dequantize.cu.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct DequantizeParams {
    data: u64,
    stride: i64,
    scales: u64,
    scale_outer: i64,
    scale_block: i64,
    scale_blocks: u64,
    tensor_scale: u64,
    offsets: u64,
    values: u64,
    value_stride: i64,
    outer: u64,
    inner: u64,
    rows: u64,
    float_type: u32,
    offset_type: u32,
    groups: u32,
    element: u32,
    scale_of: u32,
    scale_type: u32,
    transposed: u32,
    tiled: u32,
    rotation: u32,
    factor: f32,
    signs: [u32; 4],
    aligned: u32,
    value_aligned: u32,
    slots: u64,
}

const _: () = assert!(size_of::<DequantizeParams>() == 176);

/// The kernels of [`Dequantize`](crate::quant::Dequantize).
#[derive(Debug)]
pub(in crate::quant) struct DequantizeKernels {
    bytes: Kernel,
    pairs: Kernel,
}

impl DequantizeKernels {
    pub(in crate::quant) fn load(stream: &Stream) -> Result<Self> {
        Ok(Self {
            bytes: stream.kernel(MODULE, "quant_dequantize_b8")?,
            pairs: stream.kernel(MODULE, "quant_dequantize_b4")?,
        })
    }

    pub(in crate::quant) fn dequantize(
        &self,
        stream: &Stream,
        call: DequantizeCall<'_>,
    ) -> Result<()> {
        let DequantizeCall {
            q,
            form,
            unrotate,
            mut y,
        } = call;
        let format = form.format;
        let bits = format.element_bits();
        let kernel = if bits == 8 { &self.bytes } else { &self.pairs };
        let undone = form.rotation.filter(|_| unrotate);
        let (signs, size, factor) = rotation(undone.as_ref());
        let ([scale_outer, scale_block], scale_blocks) = scale_strides(&form);
        let (stride, value_stride) = (q.data.row_stride(), y.row_stride());
        let rows = if form.transposed {
            form.inner
        } else {
            form.outer
        };
        let mut params = DequantizeParams {
            data: q.data.address(),
            stride: stride as i64,
            scales: q.scales.map_or(0, |scales| scales.address()),
            scale_outer,
            scale_block,
            scale_blocks,
            tensor_scale: q.tensor_scale.map_or(0, |scale| scale.address()),
            offsets: q.groups.map_or(0, |groups| groups.address()),
            values: y.address(),
            value_stride: value_stride as i64,
            outer: form.outer as u64,
            inner: form.inner as u64,
            rows: rows as u64,
            float_type: float_type(y.dtype()),
            offset_type: q.groups.map_or(0, |groups| integer_type(groups.dtype())),
            groups: form.groups.max(1) as u32,
            element: element(format),
            scale_of: scale_of(format),
            scale_type: scale_type(format),
            transposed: u32::from(form.transposed),
            tiled: u32::from(form.layout == ScaleLayout::Tiled128x4),
            rotation: size,
            factor,
            signs,
            aligned: u32::from(
                q.data.address().is_multiple_of(bits as u64) && stride.is_multiple_of(bits),
            ),
            value_aligned: u32::from(
                y.address().is_multiple_of(16)
                    && (value_stride * y.dtype().size()).is_multiple_of(16),
            ),
            slots: 0,
        };
        let parts = [Some(q.data), q.scales, q.tensor_scale, q.groups];
        let reads: Vec<TensorRef<'_>> = parts.into_iter().flatten().collect();
        let mut launch = |params: &DequantizeParams| {
            let length = match params.slots {
                0 => params.inner,
                slots => slots * u64::from(params.rotation),
            };
            let threads = params.outer * length.div_ceil(PART) * (PART / 8);
            let config = LaunchConfig {
                grid: threads.div_ceil(THREADS) as u32,
                block: THREADS as u32,
                cluster: 1,
                shared_bytes: 0,
            };
            // SAFETY: the parameters are the kernel's, made of these views, whose shapes the form
            // has: it reads elements and scales at their places, and writes the values of y.
            unsafe { stream.launch(kernel, config, params, &reads, &mut [y.reborrow()]) }
        };
        if size == 0 || !form.transposed || q.groups.is_none() {
            return launch(&params);
        }
        // Blocks of the rotation begin where groups do: the values first, then those of whole blocks
        // again.
        params.rotation = 0;
        launch(&params)?;
        params.rotation = size;
        params.slots = (rows / size as usize + form.groups) as u64;
        launch(&params)
    }
}
