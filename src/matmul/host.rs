//! The CPU device: checked calls, run by the reference.

use super::call::{AddendView, Epilogue, Grouping, MatmulCall};
use super::operand::{OperandView, ScaleKind};
use crate::host::{floats, indices, matrix};
use crate::quant::Block;
use crate::reference::matmul::{
    self as reference, Elements, Groups, Operand, Product, Scales, Scaling, group_ranges,
};
use crate::{DType, E4m3, E5m2, Number, Result, Status, TensorMut};

/// Runs a checked product. Gives what was found wrong with the data.
pub(super) fn run(call: MatmulCall<'_>) -> Result<Status> {
    let MatmulCall {
        shape,
        a,
        b,
        offsets,
        mut epilogue,
        ..
    } = call;
    let length = match shape.grouping {
        Grouping::Contraction(_) => shape.k,
        Grouping::One | Grouping::Rows(_) => shape.m,
    };
    let ranges = match &offsets {
        None => Vec::new(),
        Some(offsets) => match group_ranges(&indices(offsets)?, length) {
            Some(ranges) => ranges,
            None => return Ok(Status::BAD_GROUP_OFFSETS),
        },
    };
    let groups = match shape.grouping {
        Grouping::One => Groups::One,
        Grouping::Rows(_) => Groups::Rows(&ranges),
        Grouping::Contraction(_) => Groups::Contraction(&ranges),
    };
    let product = multiply(&a, &b, &groups, &epilogue)?;
    store(&product, &mut epilogue)?;
    Ok(Status::empty())
}

fn multiply(
    a: &OperandView<'_>,
    b: &OperandView<'_>,
    groups: &Groups<'_>,
    epilogue: &Epilogue<'_>,
) -> Result<Product> {
    let out = epilogue.out.as_ref();
    let c = match epilogue.c {
        None => None,
        Some(AddendView::View(c)) => Some(matrix(&c)?),
        Some(AddendView::Output) => Some(matrix(&out)?),
    };
    let alpha = match &epilogue.alpha {
        Some(alpha) => alpha.host_slice::<f32>()?.first().copied().unwrap_or(1.0),
        None => 1.0,
    };
    let epilogue = reference::Epilogue {
        alpha: alpha.into(),
        bias: epilogue.bias.as_ref().map(floats).transpose()?,
        c: c.map(|c| (c, epilogue.beta.into())),
        activation: epilogue.activation,
    };
    reference::multiply(&operand(a)?, &operand(b)?, groups, &epilogue)
}

fn operand<'a>(view: &OperandView<'a>) -> Result<Operand<'a>> {
    let data = &view.data;
    let elements = match data.dtype() {
        DType::E4m3 => Elements::E4m3(data.host_slice()?),
        DType::E5m2 => Elements::E5m2(data.host_slice()?),
        _ => Elements::Floats(floats(data)?),
    };
    let operand = Operand::new(elements, [data.rows(), data.columns()], data.row_stride())?;
    let Some(scales) = &view.scales else {
        return Ok(operand);
    };
    let [rows, columns] = match view.kind {
        ScaleKind::Dense | ScaleKind::Tensor => [Block::WHOLE, Block::WHOLE],
        ScaleKind::Row => [1, Block::WHOLE],
        ScaleKind::Block1x128 => [1, 128],
        ScaleKind::Block128x128 => [128, 128],
        ScaleKind::Mx => [1, 32],
    };
    operand.scaled(Scaling {
        scales: match scales.dtype() {
            DType::E8m0 => Scales::E8m0(scales.host_slice()?),
            _ => Scales::F32(scales.host_slice()?),
        },
        block: Block { rows, columns },
        grid: view.grid,
        layout: view.layout,
        groups: view.groups,
    })
}

/// Rounds the values of a product to where they go.
fn store(product: &Product, epilogue: &mut Epilogue<'_>) -> Result<()> {
    if let Some(amax) = &mut epilogue.amax {
        for slot in amax.host_slice_mut::<f32>()? {
            *slot = slot.max(product.amax as f32);
        }
    }
    let first = product.rows.start;
    if let Some(pre) = &mut epilogue.pre_activation {
        write(pre, first, &product.pre)?;
    }
    let scale = match &epilogue.output_scale {
        Some(scale) => scale.host_slice::<f32>()?.first().copied().unwrap_or(1.0),
        None => return write(&mut epilogue.out, first, &product.out),
    };
    let scaled: Vec<f64> = product.out.iter().map(|v| v / f64::from(scale)).collect();
    write(&mut epilogue.out, first, &scaled)
}

/// Rounds values into the rows of a view from `first` on.
fn write(view: &mut TensorMut<'_>, first: usize, values: &[f64]) -> Result<()> {
    fn round<T: Number>(view: &mut TensorMut<'_>, first: usize, values: &[f64]) -> Result<()> {
        let (columns, stride) = (view.columns().max(1), view.row_stride().max(1));
        let rows = view.host_slice_mut::<T>()?.chunks_mut(stride).skip(first);
        for (row, values) in rows.zip(values.chunks_exact(columns)) {
            for (slot, value) in row.iter_mut().zip(values) {
                *slot = T::from_f64(*value);
            }
        }
        Ok(())
    }
    match view.dtype() {
        DType::Bf16 => round::<half::bf16>(view, first, values),
        DType::F16 => round::<half::f16>(view, first, values),
        DType::E4m3 => round::<E4m3>(view, first, values),
        DType::E5m2 => round::<E5m2>(view, first, values),
        _ => round::<f32>(view, first, values),
    }
}
