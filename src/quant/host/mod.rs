//! The CPU device: checked calls, run by the reference.

use half::{bf16, f16};

use super::call::{DequantizeCall, OutputStore, QuantizeCall, Store};
use super::form::QuantizedForm;
use crate::host::indices;
use crate::reference::quant::{
    self as reference, Call, Direction, Matrix, Scales, ScalesRef, View,
};
use crate::{DType, E2m1x2, E4m3, E5m2, E8m0, Result, Status, TensorMut, TensorRef};

/// Runs a checked quantisation. Gives what was found wrong with the data.
pub(super) fn quantize(call: QuantizeCall<'_>) -> Result<Status> {
    let QuantizeCall { x, store: target } = call;
    store(&values(&x)?, target)
}

/// Quantises values of the store's shape `[rows, columns]` that lie side by side.
pub(crate) fn store(values: &[f32], store: Store<'_>) -> Result<Status> {
    let Store {
        quantize,
        shape,
        groups,
        offset,
        device_offset,
        rowwise,
        transposed,
        ..
    } = store;
    let added = match &device_offset {
        Some(offset) => offset.host_slice::<i64>()?.first().copied().unwrap_or(0),
        None => 0,
    };
    let x = Matrix::new(values, shape.rows, shape.columns)?;
    let mut status = Status::empty();
    for output in [rowwise, transposed].into_iter().flatten() {
        let given = output.given.map(|given| given.host_slice::<f32>());
        let call = Call {
            offset: offset.wrapping_add(added as u64),
            tensor_scales: given.transpose()?,
            groups: groups.as_ref().map(indices).transpose()?,
        };
        let direction = direction(&output.form);
        let options = output.form.output();
        let result = reference::quantize(quantize.options(), &options, direction, x, &call)?;
        status |= result.status;
        write(&result, output)?;
    }
    Ok(status)
}

/// Copies a result to where it goes.
fn write(result: &reference::Quantized, output: OutputStore<'_>) -> Result<()> {
    let OutputStore {
        mut data,
        scales,
        tensor_scale,
        amax,
        counts,
        ..
    } = output;
    write_rows(&mut data, &result.data)?;
    if let Some(mut scales) = scales {
        match &result.scales {
            Scales::F32(values) => scales.host_slice_mut::<f32>()?.copy_from_slice(values),
            Scales::Bytes(values) => write_rows(&mut scales, values)?,
        }
    }
    if let Some(mut scale) = tensor_scale {
        let slots = scale.host_slice_mut::<f32>()?;
        slots.copy_from_slice(&result.tensor_scales);
    }
    if let Some(mut amax) = amax {
        for (slot, amax) in amax.host_slice_mut::<f32>()?.iter_mut().zip(&result.amaxes) {
            *slot = slot.max(*amax);
        }
    }
    if let Some(mut counts) = counts {
        let found = [result.saturated, result.underflowed];
        for (slot, found) in counts.host_slice_mut::<u32>()?.iter_mut().zip(found) {
            *slot = slot.wrapping_add(found as u32);
        }
    }
    Ok(())
}

/// Runs a checked dequantisation. Gives what was found wrong with the data.
pub(super) fn dequantize(call: DequantizeCall<'_>) -> Result<Status> {
    let DequantizeCall {
        q,
        form,
        unrotate,
        mut y,
    } = call;
    let data = bytes(&q.data)?;
    let scale_bytes;
    let scales = match q.scales {
        Some(scales) if scales.dtype() == DType::F32 => ScalesRef::F32(scales.host_slice()?),
        Some(scales) => {
            scale_bytes = bytes(&scales)?;
            ScalesRef::Bytes(&scale_bytes)
        }
        None => ScalesRef::F32(&[]),
    };
    let view = View {
        data: &data,
        scales,
        tensor_scales: match q.tensor_scale {
            Some(scale) => scale.host_slice()?,
            None => &[],
        },
    };
    let mut output = form.output();
    if !unrotate {
        output.rotation = None;
    }
    let direction = direction(&form);
    let shape = match direction {
        Direction::RowWise => [form.outer, form.inner],
        Direction::Transposed => [form.inner, form.outer],
    };
    let groups = q.groups.as_ref().map(indices).transpose()?;
    let values = reference::dequantize(form.format, &output, direction, view, shape, groups)?;
    write_values(&mut y, &values)?;
    Ok(Status::empty())
}

fn direction(form: &QuantizedForm) -> Direction {
    if form.transposed {
        Direction::Transposed
    } else {
        Direction::RowWise
    }
}

/// The elements of a view of floats in f32, which holds each exactly, without padding.
fn values(x: &TensorRef<'_>) -> Result<Vec<f32>> {
    fn widen<T: Copy>(x: &TensorRef<'_>, values: &[T], to_f32: fn(T) -> f32) -> Vec<f32> {
        let rows = values.chunks(x.row_stride().max(1));
        let kept = rows.flat_map(|row| &row[..x.columns()]);
        kept.map(|value| to_f32(*value)).collect()
    }
    Ok(match x.dtype() {
        DType::Bf16 => widen::<bf16>(x, x.host_slice()?, bf16::to_f32),
        DType::F16 => widen::<f16>(x, x.host_slice()?, f16::to_f32),
        _ => widen::<f32>(x, x.host_slice()?, |value| value),
    })
}

/// Rounds values to the type of a view.
fn write_values(y: &mut TensorMut<'_>, values: &[f32]) -> Result<()> {
    fn narrow<T>(slots: &mut [T], [columns, stride]: [usize; 2], v: &[f32], of: fn(f32) -> T) {
        let rows = slots.chunks_mut(stride.max(1));
        for (row, values) in rows.zip(v.chunks_exact(columns.max(1))) {
            for (slot, value) in row.iter_mut().zip(values) {
                *slot = of(*value);
            }
        }
    }
    let shape = [y.columns(), y.row_stride()];
    match y.dtype() {
        DType::Bf16 => narrow::<bf16>(y.host_slice_mut()?, shape, values, bf16::from_f32),
        DType::F16 => narrow::<f16>(y.host_slice_mut()?, shape, values, f16::from_f32),
        _ => narrow::<f32>(y.host_slice_mut()?, shape, values, |value| value),
    }
    Ok(())
}

/// The bytes of a view of 8-bit elements, without padding.
fn bytes(view: &TensorRef<'_>) -> Result<Vec<u8>> {
    let memory: &[u8] = match view.dtype() {
        DType::E4m3 => bytemuck::cast_slice(view.host_slice::<E4m3>()?),
        DType::E5m2 => bytemuck::cast_slice(view.host_slice::<E5m2>()?),
        DType::E8m0 => bytemuck::cast_slice(view.host_slice::<E8m0>()?),
        _ => bytemuck::cast_slice(view.host_slice::<E2m1x2>()?),
    };
    let rows = memory.chunks(view.row_stride().max(1));
    Ok(rows
        .flat_map(|row| &row[..view.columns()])
        .copied()
        .collect())
}

/// Copies bytes into the rows of a view of 8-bit elements.
fn write_rows(view: &mut TensorMut<'_>, bytes: &[u8]) -> Result<()> {
    let (columns, stride) = (view.columns(), view.row_stride());
    let memory: &mut [u8] = match view.dtype() {
        DType::E4m3 => bytemuck::cast_slice_mut(view.host_slice_mut::<E4m3>()?),
        DType::E5m2 => bytemuck::cast_slice_mut(view.host_slice_mut::<E5m2>()?),
        DType::E8m0 => bytemuck::cast_slice_mut(view.host_slice_mut::<E8m0>()?),
        _ => bytemuck::cast_slice_mut(view.host_slice_mut::<E2m1x2>()?),
    };
    let rows = memory.chunks_mut(stride.max(1));
    for (row, bytes) in rows.zip(bytes.chunks_exact(columns.max(1))) {
        row[..columns].copy_from_slice(bytes);
    }
    Ok(())
}
