//! What the kernels are given: kernels/matmul/params.h and tile.cuh, field by field.

use bytemuck::{Pod, Zeroable};

use super::Activation;
use super::call::{AddendView, Epilogue, Grouping, MatmulShape};
use super::operand::{OperandView, ScaleKind};
use crate::quant::{GeluKind, ScaleLayout};
use crate::rows::{float_type, integer_type};
use crate::{DType, TensorMut, TensorRef};

/// Neighbouring columns of a product that a kernel stores at once.
const UNIT: usize = 8;

/// `MatmulOperand`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct OperandParams {
    data: u64,
    /// In bytes.
    stride: i64,
    scales: u64,
    scale_row: i64,
    scale_block: i64,
    scale_group: i64,
    element: u32,
    scale: u32,
}

impl OperandParams {
    /// Of an operand in a product of this grouping.
    pub(super) fn new(operand: &OperandView<'_>, grouping: Grouping) -> Self {
        let dtype = operand.data.dtype();
        let [rows, blocks] = operand.grid;
        let [of_row, of_block] = match operand.layout {
            ScaleLayout::ColumnMajor => [1, rows as i64],
            _ => [blocks as i64, 1],
        };
        let several = |stride: i64| if blocks > 1 { stride } else { 0 };
        let in_groups = operand.groups > 0 && matches!(grouping, Grouping::Rows(_));
        let [scale_row, scale_block, scale_group] = match operand.kind {
            ScaleKind::Dense => [0; 3],
            ScaleKind::Tensor => [0, 0, several(1)],
            ScaleKind::Row => [of_row, 0, several(of_block)],
            ScaleKind::Block1x128 | ScaleKind::Mx => [of_row, of_block, 0],
            ScaleKind::Block128x128 => [of_row, of_block, if in_groups { of_row } else { 0 }],
        };
        Self {
            data: operand.data.address(),
            stride: (operand.data.row_stride() * dtype.size()) as i64,
            scales: operand.scales.map_or(0, |scales| scales.address()),
            scale_row,
            scale_block,
            scale_group,
            element: match dtype {
                DType::Bf16 => 0,
                DType::F16 => 1,
                DType::E4m3 => 2,
                _ => 3,
            },
            scale: match operand.kind {
                ScaleKind::Dense => 0,
                ScaleKind::Tensor => 1,
                ScaleKind::Row => 2,
                ScaleKind::Block1x128 => 3,
                ScaleKind::Block128x128 => 4,
                ScaleKind::Mx => 5,
            },
        }
    }
}

/// `MatmulShape`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ShapeParams {
    offsets: u64,
    m: u64,
    n: u64,
    k: u64,
    groups: u32,
    grouping: u32,
    offset_type: u32,
    unused: u32,
}

impl ShapeParams {
    pub(super) fn new(shape: &MatmulShape, offsets: Option<&TensorRef<'_>>) -> Self {
        Self {
            offsets: offsets.map_or(0, TensorRef::address),
            m: shape.m as u64,
            n: shape.n as u64,
            k: shape.k as u64,
            groups: shape.grouping.count() as u32,
            grouping: match shape.grouping {
                Grouping::One => 0,
                Grouping::Rows(_) => 1,
                Grouping::Contraction(_) => 2,
            },
            offset_type: offsets.map_or(0, |offsets| integer_type(offsets.dtype())),
            unused: 0,
        }
    }
}

/// `MatmulMatrix`; zeros for an absent one.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct MatrixParams {
    data: u64,
    stride: i64,
    output: u32,
    vectors: u32,
}

impl MatrixParams {
    /// Of a matrix of which a unit is so many columns.
    fn new(view: &TensorRef<'_>, unit: usize) -> Self {
        let stride = view.row_stride();
        Self {
            data: view.address(),
            stride: stride as i64,
            output: match view.dtype() {
                DType::E4m3 => 3,
                DType::E5m2 => 4,
                float => float_type(float),
            },
            vectors: vectors(view, stride, unit),
        }
    }
}

/// Whether every unit of rows of this stride begins at a multiple of its size or of 16 bytes.
fn vectors(view: &TensorRef<'_>, stride: usize, unit: usize) -> u32 {
    let size = view.dtype().size();
    let access = (unit * size).min(16);
    let strides = view.rows() <= 1 || (stride * size).is_multiple_of(access);
    u32::from(strides && view.address().is_multiple_of(access as u64))
}

/// `MatmulEpilogue`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct EpilogueParams {
    alpha: u64,
    out_scale: u64,
    amax: u64,
    bias: u64,
    out: MatrixParams,
    pre: MatrixParams,
    c: MatrixParams,
    beta: f32,
    bias_type: u32,
    activation: u32,
    bias_vectors: u32,
}

impl EpilogueParams {
    pub(super) fn new(epilogue: &Epilogue<'_>, shape: &MatmulShape) -> Self {
        let address = |view: &Option<TensorRef<'_>>| view.map_or(0, |view| view.address());
        let unit = match epilogue.activation {
            Activation::SwiGlu => UNIT / 2,
            Activation::None | Activation::Gelu(_) => UNIT,
        };
        let out = MatrixParams::new(&epilogue.out.as_ref(), unit);
        let bias = epilogue.bias.as_ref();
        let size = bias.map_or(0, |bias| bias.dtype().size());
        let of_groups = matches!(shape.grouping, Grouping::Rows(_));
        let bias_rows = !of_groups || (shape.n * size).is_multiple_of(16);
        Self {
            alpha: address(&epilogue.alpha),
            out_scale: address(&epilogue.output_scale),
            amax: epilogue.amax.as_ref().map_or(0, TensorMut::address),
            bias: address(&epilogue.bias),
            out,
            pre: epilogue
                .pre_activation
                .as_ref()
                .map_or_else(MatrixParams::default, |pre| {
                    MatrixParams::new(&pre.as_ref(), UNIT)
                }),
            c: match &epilogue.c {
                None => MatrixParams::default(),
                Some(AddendView::View(c)) => MatrixParams::new(c, UNIT),
                // Not with SwiGLU.
                Some(AddendView::Output) => out,
            },
            beta: epilogue.beta,
            bias_type: bias.map_or(0, |bias| float_type(bias.dtype())),
            activation: match epilogue.activation {
                Activation::None => 0,
                Activation::Gelu(GeluKind::Exact) => 1,
                Activation::Gelu(GeluKind::Tanh) => 2,
                Activation::SwiGlu => 3,
            },
            bias_vectors: bias.map_or(0, |bias| {
                u32::from(bias_rows && bias.address().is_multiple_of(16))
            }),
        }
    }
}

/// `PortableGrid`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct PortableGrid {
    pub(super) row_tiles: u32,
    pub(super) column_tiles: u32,
    pub(super) splits: u32,
    pub(super) split_stages: u32,
}

/// `PortableParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct PortableParams {
    pub(super) a: OperandParams,
    pub(super) b: OperandParams,
    pub(super) shape: ShapeParams,
    /// Zeros where K is split.
    pub(super) epilogue: EpilogueParams,
    pub(super) grid: PortableGrid,
    pub(super) partials: u64,
    pub(super) promotion: u32,
    pub(super) unused: u32,
    pub(super) status: u64,
}

/// `SplitParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct SplitParams {
    pub(super) epilogue: EpilogueParams,
    pub(super) partials: u64,
    pub(super) rows: u64,
    pub(super) columns: u64,
    pub(super) splits: u32,
    pub(super) unused: u32,
}
