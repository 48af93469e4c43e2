//! What products ask of their arguments beside what all operations do.

use super::arguments::{Addend, Groups, MatmulArguments, MatmulOutputs};
use super::call::{AddendView, Epilogue, Grouping, MatmulCall, MatmulShape};
use super::operand::{OperandView, ScaleKind};
use super::{Activation, Matmul, Operand, OperandFormat};
use crate::check::{Check, FLOATS, MAX_ROWS, Named, read, reborrow, shape_of, write};
use crate::quant::{Fp8, ScaleLayout};
use crate::{DType, Error, Result};

/// The types of the offsets of groups.
const GROUP_OFFSETS: [DType; 2] = [DType::I64, DType::I32];
/// The types of results.
pub(super) const OUTPUTS: [DType; 5] = [
    DType::Bf16,
    DType::F16,
    DType::F32,
    DType::E4m3,
    DType::E5m2,
];

/// That products have this pair of operands.
pub(super) fn pair(op: &'static str, a: OperandFormat, b: OperandFormat) -> Result<()> {
    let unsupported = |remedy: &str| Err(Error::unsupported(op, format!("{a} x {b}"), remedy));
    let (Some(left), Some(right)) = (ScaleKind::of(a), ScaleKind::of(b)) else {
        return unsupported("products of 4-bit operands are not there: quantise to an FP8 format");
    };
    let e5m2 = |format: OperandFormat| matches!(format, OperandFormat::Quantized(format) if format.fp8() == Some(Fp8::E5m2));
    use ScaleKind::{Block1x128, Block128x128, Dense, Mx, Row, Tensor};
    match (left, right) {
        (Dense, Dense) if a != b => {
            return unsupported("give both operands in one type, bf16 or f16");
        }
        (Dense, Dense)
        | (Tensor | Row, Tensor | Row)
        | (Block1x128, Block1x128 | Block128x128)
        | (Mx, Mx) => {}
        (Dense, _) | (_, Dense) => {
            return unsupported(
                "quantise both operands, or neither (quant::Dequantize gives bf16)",
            );
        }
        (Block128x128, _) => {
            return unsupported("a takes fp8-1x128; fp8-128x128 is for b, the weights");
        }
        (Block1x128, _) => {
            return unsupported("fp8-1x128 goes with fp8-1x128 or fp8-128x128");
        }
        (Tensor | Row, _) => {
            return unsupported("fp8-tensor and fp8-row go with each other");
        }
        (Mx, _) => {
            return unsupported("mxfp8 goes with mxfp8");
        }
    }
    if e5m2(a) && e5m2(b) {
        return unsupported(
            "tensor cores take one operand in e5m2 at most: quantise the other to e4m3",
        );
    }
    Ok(())
}

/// One operand against its configuration.
pub(super) fn operand<'a>(
    check: &Check,
    argument: &'static str,
    format: OperandFormat,
    operand: Operand<'a>,
) -> Result<OperandView<'a>> {
    if operand.format() != Some(format) {
        let got = match (operand.format(), operand) {
            (Some(format), _) => format.to_string(),
            (None, Operand::Dense(view)) => view.dtype().to_string(),
            (None, Operand::Quantized(tensor)) => tensor.format.to_string(),
        };
        return check.fail(argument, format!("{format}, as configured"), got);
    }
    let Some(kind) = ScaleKind::of(format) else {
        return check.fail(argument, "bf16, f16 or FP8", format.to_string());
    };
    match operand {
        Operand::Dense(data) => {
            check.typed(argument, &data, &[format.data_dtype()])?;
            check.row_count(argument, data.rows(), data.columns())?;
            Ok(OperandView {
                data,
                kind,
                scales: None,
                grid: [0, 0],
                layout: ScaleLayout::RowMajor,
                groups: 0,
            })
        }
        Operand::Quantized(tensor) => {
            let form = tensor.check(check)?;
            check.row_count(argument, form.outer, form.inner)?;
            if form.layout == ScaleLayout::Tiled128x4 {
                let expected = "with row-major or column-major scales";
                return check.fail(argument, expected, form.layout.to_string());
            }
            let tensor_scales = form.tensor_scales();
            Ok(OperandView {
                data: tensor.data,
                kind,
                scales: tensor.scales.or(tensor.tensor_scale),
                grid: form.scale_grid().unwrap_or([1, tensor_scales]),
                layout: form.layout,
                groups: form.groups,
            })
        }
    }
}

/// The two operands against each other and the groups.
pub(super) fn shape(
    check: &Check,
    operands: [Operand<'_>; 2],
    [a, b]: [&OperandView<'_>; 2],
    groups: Option<&Groups<'_>>,
) -> Result<MatmulShape> {
    let ([m, k], [b_rows, k_]) = (rows_of(a), rows_of(b));
    if k != k_ {
        let expected = format!("[.., {k}], as many columns as a");
        return check.fail("b", expected, shape_of(&b.data));
    }
    let rotation = |operand: &Operand<'_>| match operand {
        Operand::Dense(_) => None,
        Operand::Quantized(tensor) => tensor.rotation,
    };
    let [left, right] = operands.each_ref().map(rotation);
    if left != right {
        let named = |rotation: Option<_>| match rotation {
            Some(rotation) => format!("{rotation:?}"),
            None => "no rotation".to_string(),
        };
        let expected = format!("rotated as a, with {}", named(left));
        return check.fail("b", expected, named(right));
    }
    let grouping = match groups {
        None => Grouping::One,
        Some(groups) => {
            let offsets = groups.offsets();
            let count = offsets.elements();
            if count < 2 {
                let expected = "[groups + 1] offsets, of one group at least";
                return check.fail("groups", expected, shape_of(&offsets));
            }
            check.tensor("groups", &offsets, &GROUP_OFFSETS, &[count])?;
            match groups {
                Groups::Rows(_) => Grouping::Rows(count - 1),
                Groups::Contraction(_) => Grouping::Contraction(count - 1),
            }
        }
    };
    let n = match grouping {
        Grouping::Rows(groups) if !b_rows.is_multiple_of(groups) => {
            let expected = format!("[{groups} N, {k}], the rows of {groups} groups");
            return check.fail("b", expected, shape_of(&b.data));
        }
        Grouping::Rows(groups) => b_rows / groups,
        _ => b_rows,
    };
    if n == 0 {
        return check.fail("b", "at least one row", "none");
    }
    let shape = MatmulShape { m, n, k, grouping };
    if check.kernels && shape.output_rows() > MAX_ROWS {
        let got = shape.output_rows().to_string();
        return check.fail("out", "fewer than 2^31 rows on this device", got);
    }
    for (index, (name, view)) in [("a", a), ("b", b)].into_iter().enumerate() {
        let transposed = match operands[index] {
            Operand::Dense(_) => false,
            Operand::Quantized(tensor) => tensor.transposed,
        };
        quantised_groups(check, name, view, transposed, &shape)?;
    }
    Ok(shape)
}

fn rows_of(view: &OperandView<'_>) -> [usize; 2] {
    [view.data.rows(), view.data.columns()]
}

/// The groups that an operand was quantised in, against those of the product.
fn quantised_groups(
    check: &Check,
    argument: &'static str,
    view: &OperandView<'_>,
    transposed: bool,
    shape: &MatmulShape,
) -> Result<()> {
    let groups = view.groups;
    match shape.grouping {
        Grouping::One if groups > 0 => {
            let got = format!("quantised in {groups} groups");
            check.fail(argument, "without groups, as the product", got)
        }
        Grouping::One => Ok(()),
        Grouping::Rows(count) => {
            if groups > 0 && (groups != count || transposed) {
                let expected =
                    format!("quantised along its rows, in {count} groups of them or none");
                return check.fail(argument, expected, described(groups, transposed));
            }
            let squares = view.kind == ScaleKind::Block128x128 && groups == 0;
            if squares && !shape.n.is_multiple_of(128) {
                let expected = format!("quantised in {count} groups, as 128 does not divide N");
                return check.fail(argument, expected, described(groups, transposed));
            }
            Ok(())
        }
        Grouping::Contraction(count) => {
            let blocks = view.kind.block().is_some();
            let fits = if groups == 0 {
                !blocks
            } else {
                groups == count && transposed
            };
            if !fits {
                let or_none = if blocks { "" } else { " or none" };
                let expected = format!("a transposed output of {count} groups{or_none}");
                return check.fail(argument, expected, described(groups, transposed));
            }
            Ok(())
        }
    }
}

fn described(groups: usize, transposed: bool) -> String {
    let output = if transposed { "transposed" } else { "row-wise" };
    match groups {
        0 => format!("{output}, without groups"),
        groups => format!("{output}, of {groups} groups"),
    }
}

/// Everything of a call but that what is written overlaps nothing else; for that there is [`name`].
pub(super) fn call<'a>(
    check: &Check,
    matmul: &Matmul,
    operands: [OperandView<'a>; 2],
    shape: MatmulShape,
    arguments: &MatmulArguments<'a>,
    outputs: &'a mut MatmulOutputs<'_>,
    workspace_bytes: usize,
) -> Result<MatmulCall<'a>> {
    let MatmulShape { n, .. } = shape;
    let rows = shape.output_rows();
    let activation = matmul.activation_of();
    let columns = activation.output_columns(n);
    if activation == Activation::SwiGlu && !n.is_multiple_of(2) {
        return check.fail(
            "b",
            "an even number of rows, pairs of SwiGLU",
            n.to_string(),
        );
    }
    let out = outputs.out.as_ref();
    check.typed("outputs.out", &out, &OUTPUTS)?;
    if [out.rows(), out.columns()] != [rows, columns] {
        let expected = format!("[{rows}, {columns}]");
        return check.fail("outputs.out", expected, shape_of(&out));
    }
    let fp8 = !FLOATS.contains(&out.dtype());
    match (&arguments.output_scale, fp8) {
        (Some(scale), true) => check.tensor("output_scale", scale, &[DType::F32], &[1])?,
        (None, true) => return check.fail("output_scale", "given, [1] f32", "absent"),
        (given, false) => {
            check.absent("output_scale", given.is_some(), "the output is not FP8")?;
        }
    }
    if let Some(alpha) = &arguments.alpha {
        check.tensor("alpha", alpha, &[DType::F32], &[1])?;
    }
    if let Some(bias) = &arguments.bias {
        let elements = match shape.grouping {
            Grouping::Rows(groups) => groups * n,
            Grouping::One => n,
            Grouping::Contraction(_) => {
                return check.fail("bias", "absent: groups of the contraction", "given");
            }
        };
        check.tensor("bias", bias, &FLOATS, &[elements])?;
    }
    let c = match arguments.c {
        None => None,
        Some(Addend::View(c)) => {
            check.rows("c", &c, rows, n)?;
            Some(AddendView::View(c))
        }
        Some(Addend::Output) if fp8 || columns != n => {
            let expected = "a view, as the output is FP8 or has half the columns";
            return check.fail("c", expected, "the output");
        }
        Some(Addend::Output) => Some(AddendView::Output),
    };
    let beta = if c.is_some() { arguments.beta } else { 0.0 };
    if !beta.is_finite() {
        return check.fail("beta", "finite", beta.to_string());
    }
    if let Some(pre) = &outputs.pre_activation {
        check.rows("outputs.pre_activation", &pre.as_ref(), rows, n)?;
    }
    if let Some(amax) = &outputs.amax {
        check.tensor("outputs.amax", &amax.as_ref(), &[DType::F32], &[1])?;
    }
    check.workspace(outputs.workspace.as_ref(), workspace_bytes)?;
    let [a, b] = operands;
    Ok(MatmulCall {
        shape,
        a,
        b,
        offsets: arguments.groups.map(|groups| groups.offsets()),
        epilogue: Epilogue {
            alpha: arguments.alpha,
            bias: arguments.bias,
            c,
            beta,
            activation,
            pre_activation: reborrow(&mut outputs.pre_activation),
            out: outputs.out.reborrow(),
            output_scale: arguments.output_scale,
            amax: reborrow(&mut outputs.amax),
        },
        workspace: reborrow(&mut outputs.workspace),
    })
}

/// The views of a call with their names, for messages.
pub(super) fn name<'s>(call: &'s MatmulCall<'_>, reads: &mut Named<'s>, writes: &mut Named<'s>) {
    let MatmulCall {
        a,
        b,
        offsets,
        epilogue,
        workspace,
        ..
    } = call;
    let c = match epilogue.c {
        Some(AddendView::View(c)) => Some(c),
        Some(AddendView::Output) | None => None,
    };
    read(
        reads,
        [
            ("a", Some(a.data)),
            ("a.scales", a.scales),
            ("b", Some(b.data)),
            ("b.scales", b.scales),
            ("groups", *offsets),
            ("alpha", epilogue.alpha),
            ("bias", epilogue.bias),
            ("c", c),
            ("output_scale", epilogue.output_scale),
        ],
    );
    writes.push(("outputs.out", epilogue.out.as_ref()));
    write(
        writes,
        [
            ("outputs.pre_activation", &epilogue.pre_activation),
            ("outputs.amax", &epilogue.amax),
            ("outputs.workspace", workspace),
        ],
    );
}
