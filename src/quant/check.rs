//! What quantisations ask of their arguments beside what all operations do.

use super::form::{QuantShape, QuantizedForm, TILE};
use crate::check::{Check, shape_of};
use crate::{DType, Result, TensorRef};

/// The types of the offsets of groups.
pub(super) const GROUP_OFFSETS: [DType; 2] = [DType::I64, DType::I32];

/// `[rows, columns]` of a tensor of floats, which has a column.
pub(super) fn float_shape(
    check: &Check,
    argument: &'static str,
    x: &TensorRef<'_>,
) -> Result<[usize; 2]> {
    check.float(argument, x)?;
    check.row_count(argument, x.rows(), x.columns())?;
    Ok([x.rows(), x.columns()])
}

/// The shape of an input and its groups.
pub(crate) fn input(
    check: &Check,
    argument: &'static str,
    x: &TensorRef<'_>,
    groups: Option<&TensorRef<'_>>,
) -> Result<QuantShape> {
    let [rows, columns] = float_shape(check, argument, x)?;
    let shape = QuantShape {
        rows,
        columns,
        groups: group_count(check, groups)?,
    };
    tiles(check, argument, shape)?;
    Ok(shape)
}

/// That a launch has a block for each tile, and for each group.
pub(in crate::quant) fn tiles(
    check: &Check,
    argument: &'static str,
    shape: QuantShape,
) -> Result<()> {
    let [down, across] = shape.tiles();
    blocks(check, argument, down.saturating_mul(across.max(1)), || {
        let QuantShape {
            rows,
            columns,
            groups,
        } = shape;
        format!("[{rows}, {columns}] in {groups} groups")
    })
}

/// That an output's elements are few enough for a launch: a block has 16 times 128 of them.
pub(super) fn elements(check: &Check, argument: &'static str, form: &QuantizedForm) -> Result<()> {
    let QuantizedForm {
        outer,
        inner,
        groups,
        ..
    } = *form;
    // A block of the largest rotation more for each group.
    let parts = inner.div_ceil(TILE).saturating_add(groups);
    blocks(
        check,
        argument,
        outer.saturating_mul(parts).div_ceil(16),
        || format!("[{outer}, {inner}] in {groups} groups"),
    )
}

fn blocks(
    check: &Check,
    argument: &'static str,
    blocks: usize,
    got: impl Fn() -> String,
) -> Result<()> {
    if check.kernels && blocks > i32::MAX as usize {
        let expected = "fewer than 2^31 tiles, of 128 x 128 elements, on this device";
        return check.fail(argument, expected, got());
    }
    Ok(())
}

/// How many groups there are; 0 for none.
pub(crate) fn group_count(check: &Check, groups: Option<&TensorRef<'_>>) -> Result<usize> {
    let Some(groups) = groups else {
        return Ok(0);
    };
    let offsets = groups.elements();
    if offsets < 2 {
        let expected = "[groups + 1] offsets, of one group at least";
        return check.fail("groups", expected, shape_of(groups));
    }
    check.tensor("groups", groups, &GROUP_OFFSETS, &[offsets])?;
    Ok(offsets - 1)
}

/// That an output's rotation divides its inner dimension, and that its format has its layout.
pub(super) fn options(
    check: &Check,
    form: &QuantizedForm,
    [rotation, layout]: [&'static str; 2],
) -> Result<()> {
    if let Some(Err(error)) = form.rotation.map(|rotation| rotation.validate()) {
        return Err(error);
    }
    // Where groups lie along the inner dimension, each is to be divided: a matter of the status.
    let each_group = form.transposed && form.groups > 0;
    if let Some(blocks) = form.rotation
        && !each_group
        && !form.inner.is_multiple_of(blocks.n)
    {
        let inner = form.inner;
        let expected = format!("of blocks that divide the inner dimension, {inner}");
        return check.fail(rotation, expected, format!("of blocks of {}", blocks.n));
    }
    if !form.layout.fits(form.format) {
        let expected = format!(
            "row-major or column-major: scales of {} are f32",
            form.format
        );
        return check.fail(layout, expected, form.layout.to_string());
    }
    Ok(())
}

/// The elements of an output.
pub(super) fn data(
    check: &Check,
    form: &QuantizedForm,
    argument: &'static str,
    data: &TensorRef<'_>,
) -> Result<()> {
    check.typed(argument, data, &[form.data_dtype()])?;
    let [rows, columns] = form.data_shape();
    if data.rows() != rows || data.columns() != columns {
        let (outer, inner) = (form.outer, form.inner);
        let expected = format!("[{rows}, {columns}], the elements of [{outer}, {inner}]");
        return check.fail(argument, expected, shape_of(data));
    }
    Ok(())
}

/// The scales of rows or blocks, there exactly where the format has such.
pub(super) fn scales(
    check: &Check,
    form: &QuantizedForm,
    argument: &'static str,
    scales: Option<&TensorRef<'_>>,
) -> Result<()> {
    let Some(([rows, columns], dtype)) = form.scale_shape().zip(form.scale_dtype()) else {
        let why = format!("{} has one scale, tensor_scale", form.format);
        return check.absent(argument, scales.is_some(), &why);
    };
    let Some(scales) = scales else {
        return check.fail(
            argument,
            format!("given, [{rows}, {columns}] {dtype}"),
            "absent",
        );
    };
    check.typed(argument, scales, &[dtype])?;
    if scales.elements() != rows * columns || !scales.is_contiguous() {
        let expected = format!("contiguous, of shape [{rows}, {columns}] ({})", form.layout);
        return check.fail(argument, expected, shape_of(scales));
    }
    Ok(())
}

/// The scale of the tensor or of each group, there exactly where the format has such.
pub(super) fn tensor_scale(
    check: &Check,
    form: &QuantizedForm,
    argument: &'static str,
    scale: Option<&TensorRef<'_>>,
) -> Result<()> {
    let scales = form.tensor_scales();
    if scales == 0 {
        let why = format!("{} has scales of rows or blocks alone", form.format);
        return check.absent(argument, scale.is_some(), &why);
    }
    match scale {
        Some(scale) => check.tensor(argument, scale, &[DType::F32], &[scales]),
        None => check.fail(argument, format!("given, [{scales}] f32"), "absent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{Format, OutputOptions};
    use crate::{Device, Error};

    fn kernels() -> Check {
        Check {
            op: "test",
            device: Device::cpu().id(),
            kernels: true,
        }
    }

    fn shape(rows: usize, columns: usize, groups: usize) -> QuantShape {
        QuantShape {
            rows,
            columns,
            groups,
        }
    }

    /// Shapes alone: nothing has this memory.
    #[test]
    fn tiles_are_counted() {
        let most = i32::MAX as usize;
        for (shape, fits) in [
            (shape(128, 128 * most, 0), true),
            (shape(128, 128 * most + 1, 0), false),
            (shape(129, 128 * most, 0), false),
            (shape(most, 128 * 127, 0), true),
            (shape(most, 128 * 128, 0), false),
            // A group has a row of tiles of its own.
            (shape(128, 128 * (most / 3), 2), true),
            (shape(128, 128 * (most / 3 + 1), 2), false),
            (shape(0, usize::MAX, 3), false),
            (shape(usize::MAX, usize::MAX, usize::MAX), false),
        ] {
            let result = tiles(&kernels(), "x", shape);
            assert_eq!(result.is_ok(), fits, "{shape:?}");
            if let Err(error) = result {
                assert!(
                    matches!(error, Error::Argument { argument: "x", .. }),
                    "{error}"
                );
            }
            // The formulas have no such limit.
            let formulas = Check {
                kernels: false,
                ..kernels()
            };
            assert!(tiles(&formulas, "x", shape).is_ok());
        }
    }

    #[test]
    fn elements_are_counted() {
        let most = i32::MAX as usize;
        for (rows, columns, groups, fits) in [
            (16, 128 * most, 0, true),
            (17, 128 * most, 0, false),
            (most, 16 * 128, 0, true),
            (most, 17 * 128, 0, false),
            (16, 128 * (most - 4), 4, true),
            (16, 128 * most, 1, false),
        ] {
            let output = OutputOptions::new();
            let shape = shape(rows, columns, groups);
            let form = QuantizedForm::new(Format::MxFp4, output, false, shape);
            let result = elements(&kernels(), "q", &form);
            assert_eq!(result.is_ok(), fits, "{shape:?}");
        }
    }
}
