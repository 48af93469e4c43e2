//! What the kernels are given: kernels/quant/params.h, field by field.

use bytemuck::{Pod, Zeroable};

use super::call::{OutputStore, Store};
use super::form::{QuantShape, QuantizedForm};
use super::{Format, Fp8, Hadamard, Rounding, ScaleLayout, ScaleRounding, Scaling};
use crate::reference::quant::hadamard;
use crate::rows::{float_type, integer_type};
use crate::{Stream, TensorMut, TensorRef};

/// `ScaleOf`.
pub(super) const fn scale_of(format: Format) -> u32 {
    match format {
        Format::Fp8Tensor(_) => 0,
        Format::Fp8Row(_) => 1,
        Format::Fp8Block128x128(_) => 2,
        Format::Fp8Block1x128(_) => 3,
        Format::MxFp8(_) | Format::MxFp4 => 4,
        Format::NvFp4 | Format::NvFp4Square => 5,
    }
}

/// `ScaleType`.
pub(super) const fn scale_type(format: Format) -> u32 {
    match format {
        Format::MxFp8(_) | Format::MxFp4 => 1,
        Format::NvFp4 | Format::NvFp4Square => 2,
        _ => 0,
    }
}

/// `ElementType`.
pub(super) const fn element(format: Format) -> u32 {
    match format.fp8() {
        Some(Fp8::E4m3) => 0,
        Some(Fp8::E5m2) => 1,
        None => 2,
    }
}

fn address(view: Option<&TensorMut<'_>>) -> u64 {
    view.map_or(0, TensorMut::address)
}

/// The signs of a rotation as `signs`, its size and its factor; zeros for none.
pub(super) fn rotation(rotation: Option<&Hadamard>) -> ([u32; 4], u32, f32) {
    rotation.map_or(([0; 4], 0, 0.0), |rotation| {
        let signs = hadamard::signs(rotation.seed);
        let words = [0, 32, 64, 96].map(|shift| (signs >> shift) as u32);
        (words, rotation.n as u32, rotation.factor())
    })
}

/// `QuantizeGrid`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct QuantizeGrid {
    offsets: u64,
    rows: u64,
    columns: u64,
    row_tiles: u32,
    column_tiles: u32,
    groups: u32,
    offset_type: u32,
}

impl QuantizeGrid {
    pub(super) fn new(shape: QuantShape, groups: Option<&TensorRef<'_>>) -> Self {
        // check.rs found them to be few enough.
        let [row_tiles, column_tiles] = shape.tiles().map(|tiles| tiles as u32);
        Self {
            offsets: groups.map_or(0, TensorRef::address),
            rows: shape.rows as u64,
            columns: shape.columns as u64,
            row_tiles,
            // Blocks find their tile by a division.
            column_tiles: column_tiles.max(1),
            groups: shape.groups.max(1) as u32,
            offset_type: groups.map_or(0, |groups| integer_type(groups.dtype())),
        }
    }

    /// Of blocks that each take a tile and its counterpart in the right half of the columns, which begins
    /// with a tile.
    pub(super) fn paired(self) -> Self {
        Self {
            column_tiles: (self.column_tiles / 2).max(1),
            ..self
        }
    }

    /// One for each tile, and at least as many as there are groups.
    pub(super) fn blocks(&self) -> u32 {
        (self.row_tiles * self.column_tiles).max(self.groups)
    }

    /// Whether there is an element.
    pub(super) fn has_tiles(&self) -> bool {
        self.row_tiles > 0 && self.columns > 0
    }
}

/// `QuantizeForm`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct QuantizeForm {
    element: u32,
    rule: u32,
    scale_of: u32,
    scale_type: u32,
    square: u32,
    power: u32,
    unused: [u32; 2],
    seed: u64,
    offset: u64,
    device_offset: u64,
    status: u64,
}

impl QuantizeForm {
    pub(super) fn new(stream: &Stream, store: &Store<'_>) -> Self {
        let options = store.quantize.options();
        let format = options.format;
        let mx = scale_type(format) == 1;
        // A given scale is what it is.
        let given = matches!(format, Format::Fp8Tensor(_)) && options.scaling == Scaling::Given;
        Self {
            element: element(format),
            rule: match (mx, options.scale_rounding) {
                (true, ScaleRounding::Floor) => 2,
                (true, ScaleRounding::Ceil) => 1,
                (false, _) => u32::from(options.power_of_two),
            },
            scale_of: scale_of(format),
            scale_type: scale_type(format),
            square: u32::from(format == Format::NvFp4Square),
            power: u32::from(mx || (options.power_of_two && !given)),
            unused: [0; 2],
            seed: match options.rounding {
                Rounding::Stochastic { seed } => seed,
                Rounding::Nearest => 0,
            },
            offset: store.offset,
            device_offset: store.device_offset.map_or(0, |offset| offset.address()),
            status: stream.status_address(),
        }
    }
}

/// `QuantizeOutput`; zeros for an absent one.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct QuantizeOutput {
    pub(super) data: u64,
    stride: i64,
    pub(super) scales: u64,
    scale_outer: i64,
    scale_block: i64,
    scale_blocks: u64,
    /// Of the words that `quant_amax` found.
    pub(super) amax: u64,
    given: u64,
    pub(super) tensor_scale: u64,
    pub(super) amax_out: u64,
    pub(super) counts: u64,
    rotation: u32,
    tiled: u32,
    signs: [u32; 4],
    aligned: u32,
    factor: f32,
}

impl QuantizeOutput {
    pub(super) fn new(output: &OutputStore<'_>, amax: u64) -> Self {
        let form = &output.form;
        let (signs, size, factor) = rotation(form.rotation.as_ref());
        let ([scale_outer, scale_block], scale_blocks) = scale_strides(form);
        // One byte an element, or for two.
        let stride = output.data.row_stride();
        Self {
            data: output.data.address(),
            stride: stride as i64,
            scales: address(output.scales.as_ref()),
            scale_outer,
            scale_block,
            scale_blocks,
            amax,
            given: output.given.map_or(0, |given| given.address()),
            tensor_scale: address(output.tensor_scale.as_ref()),
            amax_out: address(output.amax.as_ref()),
            counts: address(output.counts.as_ref()),
            rotation: size,
            tiled: u32::from(form.layout == ScaleLayout::Tiled128x4),
            signs,
            aligned: u32::from(
                output.data.address().is_multiple_of(16) && stride.is_multiple_of(16),
            ),
            factor,
        }
    }
}

/// From an outer row and from a block to the next, counted in scales, and how many blocks there are.
pub(super) fn scale_strides(form: &QuantizedForm) -> ([i64; 2], u64) {
    let [rows, blocks] = form.scale_grid().unwrap_or_default();
    let strides = match form.layout {
        ScaleLayout::ColumnMajor => [1, rows as i64],
        _ => [blocks as i64, 1],
    };
    (strides, blocks as u64)
}

/// `QuantizeOutputs<1>`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct QuantizeOutputs {
    pub(super) rowwise: QuantizeOutput,
    pub(super) transposed: QuantizeOutput,
    pub(super) first_element: u64,
    pub(super) row_elements: u64,
}

/// `DenseInput`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct DenseInput {
    data: u64,
    stride: i64,
    float_type: u32,
    aligned: u32,
}

impl DenseInput {
    pub(super) fn new(x: &TensorRef<'_>) -> Self {
        let (stride, size) = (x.row_stride(), x.dtype().size());
        let rows = x.address().is_multiple_of(16) && (stride * size).is_multiple_of(16);
        Self {
            data: x.address(),
            stride: stride as i64,
            float_type: float_type(x.dtype()),
            aligned: u32::from(rows && x.columns().is_multiple_of(8)),
        }
    }
}

/// `QuantizeParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct QuantizeParams {
    pub(super) grid: QuantizeGrid,
    pub(super) form: QuantizeForm,
    pub(super) outputs: QuantizeOutputs,
    pub(super) input: DenseInput,
}

/// `AmaxOutput`; zeros where nothing is asked for.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct AmaxOutput {
    words: u64,
    pub(super) of: u32,
    rotation: u32,
    transposed: u32,
    pairs: u32,
    factor: f32,
    unused: u32,
    signs: [u32; 4],
}

impl AmaxOutput {
    /// The amax that an output's scales follow from, for the kernel to find.
    pub(super) fn new(form: &QuantizedForm, words: u64) -> Self {
        let (signs, size, factor) = rotation(form.rotation.as_ref());
        Self {
            words,
            of: match (form.format, form.transposed) {
                (Format::Fp8Row(_), false) => 2,
                (Format::Fp8Row(_), true) => 3,
                _ => 1,
            },
            rotation: size,
            transposed: u32::from(form.transposed),
            pairs: u32::from(form.transposed && form.format.element_bits() == 4),
            factor,
            unused: 0,
            signs,
        }
    }
}

/// `AmaxParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct AmaxParams {
    pub(super) grid: QuantizeGrid,
    pub(super) outputs: [AmaxOutput; 2],
    pub(super) input: DenseInput,
    pub(super) status: u64,
}

/// `ClearRange`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ClearRange {
    pub(super) data: u64,
    pub(super) bytes: u64,
}

/// `ClearParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ClearParams {
    pub(super) ranges: [ClearRange; 3],
}

/// `OutsideOutput`; zeros for an absent one.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct OutsideOutput {
    data: u64,
    stride: i64,
}

impl From<&QuantizeOutput> for OutsideOutput {
    fn from(output: &QuantizeOutput) -> Self {
        Self {
            data: output.data,
            stride: output.stride,
        }
    }
}

/// `OutsideParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct OutsideParams {
    pub(super) grid: QuantizeGrid,
    pub(super) rowwise: OutsideOutput,
    pub(super) transposed: OutsideOutput,
    pub(super) bits: u32,
    pub(super) unused: u32,
}

const _: () = {
    assert!(size_of::<OutsideParams>() == 80);
    assert!(size_of::<QuantizeGrid>() == 40);
    assert!(size_of::<QuantizeForm>() == 64);
    assert!(size_of::<QuantizeOutput>() == 120);
    assert!(size_of::<QuantizeOutputs>() == 256);
    assert!(size_of::<DenseInput>() == 24);
    assert!(size_of::<AmaxOutput>() == 48);
    assert!(size_of::<QuantizeParams>() == 384);
    assert!(size_of::<AmaxParams>() == 168);
    assert!(size_of::<ClearParams>() == 48);
};
