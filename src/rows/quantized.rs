//! What kernels are told of where rows go quantised: kernels/common/quantized_rows.h, field by field.

use bytemuck::{Pod, Zeroable};

use super::{Alignment, RowShape, RowTensor};
use crate::quant::{Block, Format, Fp8, OutputStore, Rounding, ScaleLayout, ScaleRounding, Store};
use crate::{DType, TensorMut, TensorRef};

/// `QuantizedRows`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct QuantizedRows {
    scales: u64,
    given: u64,
    tensor_scale: u64,
    amax: u64,
    counts: u64,
    device_offset: u64,
    seed: u64,
    offset: u64,
    outer: u32,
    blocks: u32,
    head_blocks: u32,
    block: u32,
    element: u32,
    scale_of: u32,
    scale_type: u32,
    rule: u32,
    place: u32,
    stochastic: u32,
}

const _: () = assert!(size_of::<QuantizedRows>() == 104);

impl QuantizedRows {
    /// Of the row-wise output of a store, whose rows are the heads of `shape` side by side.
    pub(crate) fn new(store: &Store<'_>, output: &OutputStore<'_>, shape: RowShape) -> Self {
        let options = store.quantize.options();
        let format = options.format;
        let address = |view: &Option<TensorMut<'_>>| view.as_ref().map_or(0, TensorMut::address);
        let input = |view: &Option<TensorRef<'_>>| view.as_ref().map_or(0, TensorRef::address);
        let block = format.block().columns;
        let (scale_of, block) = match format {
            Format::Fp8Tensor(_) => (0, 0),
            _ if block == Block::WHOLE => (1, 0),
            _ => (2, block),
        };
        let blocks = |columns: usize| match block {
            0 => 0,
            block => columns.div_ceil(block) as u32,
        };
        let (stochastic, seed) = match options.rounding {
            Rounding::Nearest => (0, 0),
            Rounding::Stochastic { seed } => (1, seed),
        };
        let mx = format.scale_dtype() == DType::E8m0;
        Self {
            scales: address(&output.scales),
            given: input(&output.given),
            tensor_scale: address(&output.tensor_scale),
            amax: address(&output.amax),
            counts: address(&output.counts),
            device_offset: input(&store.device_offset),
            seed,
            offset: store.offset,
            outer: shape.tokens as u32,
            blocks: blocks(shape.heads * shape.columns),
            head_blocks: blocks(shape.columns),
            block: block as u32,
            element: match format.fp8() {
                Some(Fp8::E4m3) => 0,
                Some(Fp8::E5m2) => 1,
                None => 2,
            },
            scale_of,
            scale_type: match format.scale_dtype() {
                DType::E8m0 => 1,
                DType::E4m3 => 2,
                _ => 0,
            },
            // kExact, kCeil, kFloor
            rule: match options.scale_rounding {
                ScaleRounding::Floor if mx => 2,
                ScaleRounding::Ceil if mx => 1,
                _ => u32::from(options.power_of_two),
            },
            place: match output.form.layout {
                ScaleLayout::RowMajor => 0,
                ScaleLayout::ColumnMajor => 1,
                ScaleLayout::Tiled128x4 => 2,
            },
            stochastic,
        }
    }

    /// Bytes of shared memory for each team of a block: a word for each block of columns that a
    /// thread of so many columns and its team may touch in a segment.
    pub(crate) fn team_bytes(format: Format, threads: usize, columns: usize) -> usize {
        match format.block().columns {
            Block::WHOLE => 0,
            block => (threads * columns).div_ceil(block) * size_of::<u32>(),
        }
    }
}

/// Elements of a byte.
fn packed(format: Format) -> usize {
    8 / format.element_bits()
}

impl RowTensor {
    /// The elements of a store's output; strides count elements, not bytes.
    pub(crate) fn quantized(output: &OutputStore<'_>, shape: RowShape) -> Self {
        let stride = output.data.row_stride() * packed(output.form.format);
        Self::at(output.data.address(), [stride, shape.columns])
    }
}

impl Alignment {
    /// Rows that are written quantised.
    pub(crate) fn add_quantized(&mut self, output: &OutputStore<'_>, shape: RowShape) {
        let format = output.form.format;
        let stride = match shape.tokens {
            0 | 1 => 0,
            _ => output.data.row_stride() * packed(format),
        };
        let head = if shape.heads > 1 { shape.columns } else { 0 };
        self.add_bits(output.data.address(), [stride, head], format.element_bits());
    }
}

/// All that a store's output reads and writes, for a launch.
pub(crate) fn touch_store<'a>(
    store: Store<'a>,
    output: OutputStore<'a>,
    reads: &mut Vec<TensorRef<'a>>,
    writes: &mut Vec<TensorMut<'a>>,
) {
    reads.extend([output.given, store.device_offset].into_iter().flatten());
    writes.push(output.data);
    let optional = [
        output.scales,
        output.tensor_scale,
        output.amax,
        output.counts,
    ];
    writes.extend(optional.into_iter().flatten());
}
