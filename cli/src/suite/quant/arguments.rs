//! Wrong arguments of a quantisation and of its inverse, and the errors that name them.

use evenkeel::quant::{
    Dequantize, Format, Fp8, Hadamard, OutputArguments, OutputOptions, Quantize, QuantizeArguments,
    QuantizeOptions, QuantizedRef, ScaleLayout, ScaleRounding, Scaling,
};
use evenkeel::{DType, Stream};

use super::super::proofs::device;
use super::super::{Effort, Held, names};
use crate::subject::Subject;

/// Each argument that does not fit is refused under its name, before anything is launched.
pub(super) fn quantise_wrong_arguments(subject: &Subject, _: Effort) -> Result<Held, String> {
    let told = |error: evenkeel::Error| error.to_string();
    let stream = device(subject, 0)?.stream().map_err(told)?;
    options(&stream)?;
    quantise(&stream).map_err(told)??;
    dequantise(&stream).map_err(told)??;
    Ok(Held {
        problems: 1,
        ..Held::default()
    })
}

/// An error of the calls that are right, or what was accepted.
type Checked = evenkeel::Result<Result<(), String>>;

fn options(stream: &Stream) -> Result<(), String> {
    let row = QuantizeOptions::new(Format::Fp8Row(Fp8::E4m3));
    let mx = QuantizeOptions::new(Format::MxFp4);
    let output = OutputOptions::new();
    let tiled = output.layout(ScaleLayout::Tiled128x4);
    let rotated = output.rotation(Hadamard::new(24, 0));
    for (what, quantize, argument) in [
        (
            "a given scale of rows",
            Quantize::new(row.scaling(Scaling::Given)),
            "scaling",
        ),
        (
            "MX scales rounded up, of rows",
            Quantize::new(row.scale_rounding(ScaleRounding::Ceil)),
            "scale_rounding",
        ),
        (
            "MX scales as f32 powers of two",
            Quantize::new(mx.power_of_two()),
            "power_of_two",
        ),
        (
            "tiles of f32 scales",
            Quantize::new(row).transposed(tiled),
            "layout",
        ),
        (
            "a rotation of 24",
            Quantize::new(mx).rowwise(rotated),
            "rotation",
        ),
    ] {
        names(what, quantize.prepare(stream), argument)?;
    }
    Ok(())
}

fn quantise(stream: &Stream) -> Checked {
    let output = OutputOptions::new();
    let rotated = output.rotation(Hadamard::new(16, 0));
    let current = Quantize::new(Format::NvFp4).rowwise(output);
    let current = current.transposed(rotated).prepare(stream)?;
    let given = QuantizeOptions::new(Format::NvFp4).scaling(Scaling::Given);
    let given = Quantize::new(given).prepare(stream)?;
    let x = stream.zeros(DType::F32, &[48, 32])?;
    let integers = stream.zeros(DType::I64, &[48, 32])?;
    let floats = stream.zeros(DType::F32, &[3])?;
    let one = stream.zeros(DType::I64, &[1])?;
    let mut amax = stream.zeros(DType::F32, &[2])?;
    let mut counts = stream.zeros(DType::F32, &[2])?;
    let scale = stream.upload(&[1], &[0.5_f32])?;
    let arguments = QuantizeArguments::default;
    let rowwise = OutputArguments::default;
    let quantise = |view, arguments| current.quantize(view, arguments).map(|_| ());
    let checks = [
        ("integers", quantise(integers.view(), arguments()), "x"),
        (
            "no columns",
            quantise(x.view().slice_columns(0..0)?, arguments()),
            "x",
        ),
        (
            "rows that a rotation does not divide",
            quantise(x.view().slice_rows(0..40)?, arguments()),
            "transposed.rotation",
        ),
        (
            "float groups",
            quantise(x.view(), arguments().groups(floats.view())),
            "groups",
        ),
        (
            "no group",
            quantise(x.view(), arguments().groups(one.view())),
            "groups",
        ),
        (
            "a float offset",
            quantise(x.view(), arguments().device_offset(scale.view())),
            "device_offset",
        ),
        (
            "two amax of one tensor",
            quantise(
                x.view(),
                arguments().rowwise(rowwise().amax(amax.view_mut())),
            ),
            "rowwise.amax",
        ),
        (
            "float counts",
            quantise(
                x.view(),
                arguments().transposed(rowwise().counts(counts.view_mut())),
            ),
            "transposed.counts",
        ),
        (
            "a scale that is not asked for",
            quantise(
                x.view(),
                arguments().rowwise(rowwise().tensor_scale(scale.view())),
            ),
            "rowwise.tensor_scale",
        ),
        (
            "no given scale",
            given.quantize(x.view(), arguments()).map(|_| ()),
            "rowwise.tensor_scale",
        ),
    ];
    for (what, result, argument) in checks {
        if let Err(wrong) = names(what, result, argument) {
            return Ok(Err(wrong));
        }
    }
    // These are right, so that a check that refuses everything would show.
    current.quantize(x.view(), arguments())?;
    given.quantize(
        x.view(),
        arguments().rowwise(rowwise().tensor_scale(scale.view())),
    )?;
    let bytes = current.workspace_bytes(48, 32, 0);
    let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
    let mut q = current.allocate(48, 32, 0)?;
    let mut outputs = q.outputs();
    let lacking = current.quantize_into(x.view(), arguments(), &mut outputs);
    if let Err(wrong) = names("no workspace", lacking, "workspace") {
        return Ok(Err(wrong));
    }
    outputs.workspace = Some(workspace.view_mut());
    outputs.transposed = None;
    let lacking = current.quantize_into(x.view(), arguments(), &mut outputs);
    Ok(names("no transposed output", lacking, "outputs.transposed"))
}

fn dequantise(stream: &Stream) -> Checked {
    let op = Dequantize::new().prepare(stream)?;
    let data = stream.zeros(DType::E4m3, &[4, 48])?;
    let scales = stream.zeros(DType::F32, &[4])?;
    let other = stream.zeros(DType::E5m2, &[4, 48])?;
    let q = QuantizedRef::new(Format::Fp8Row(Fp8::E4m3), 4, 48, data.view());
    let fits = q.scales(scales.view(), ScaleLayout::RowMajor);
    let dequantise = |q: QuantizedRef<'_>| op.dequantize(q, DType::Bf16).map(|_| ());
    let mut mixed = fits;
    mixed.data = other.view();
    let short = fits.scales(scales.view().slice_rows(0..3)?, ScaleLayout::RowMajor);
    let mut narrow = stream.zeros(DType::F32, &[4, 47])?;
    let checks = [
        ("other elements", dequantise(mixed), "data"),
        ("no scales", dequantise(q), "scales"),
        ("three scales", dequantise(short), "scales"),
        (
            "a scale of the tensor",
            dequantise(fits.tensor_scale(scales.view())),
            "tensor_scale",
        ),
        (
            "a rotation of 32 in 48",
            dequantise(fits.rotation(Hadamard::new(32, 0))),
            "rotation",
        ),
        (
            "integer values",
            op.dequantize(fits, DType::I32).map(|_| ()),
            "dtype",
        ),
        (
            "a narrow y",
            op.dequantize_into(fits, narrow.view_mut()),
            "y",
        ),
    ];
    for (what, result, argument) in checks {
        if let Err(wrong) = names(what, result, argument) {
            return Ok(Err(wrong));
        }
    }
    dequantise(fits)?;
    Ok(Ok(()))
}
