//! Every argument that does not fit, and the name that the error has for it.

use super::*;
use crate::quant::{
    Dequantize, Format, Fp8, Hadamard, OutputArguments, PreparedQuantize, Quantize,
    QuantizeArguments, QuantizeOutputs, QuantizedMut, QuantizedRef, ScaleLayout, ScaleRounding,
    Scaling,
};

const FP8: Fp8 = Fp8::E4m3;

fn prepare(quantize: Quantize) -> PreparedQuantize {
    quantize.prepare(&cpu()).unwrap()
}

fn zeros(dtype: DType, shape: &[usize]) -> Buffer {
    cpu().zeros(dtype, shape).unwrap()
}

#[test]
fn options() {
    let refused = |quantize: Quantize| refused(quantize.prepare(&cpu()));
    let of = |format| QuantizeOptions::new(format);
    let row = Format::Fp8Row(FP8);
    assert_eq!(
        refused(Quantize::new(of(row).scaling(Scaling::Given))),
        "scaling"
    );
    let mx = of(Format::MxFp4);
    assert_eq!(refused(Quantize::new(mx.power_of_two())), "power_of_two");
    let ceil = of(row).scale_rounding(ScaleRounding::Ceil);
    assert_eq!(refused(Quantize::new(ceil)), "scale_rounding");
    let tiled = OutputOptions::new().layout(ScaleLayout::Tiled128x4);
    assert_eq!(refused(Quantize::new(row).transposed(tiled)), "layout");
    let rotated = OutputOptions::new().rotation(Hadamard::new(64, 0));
    assert_eq!(refused(Quantize::new(row).rowwise(rotated)), "rotation");
}

#[test]
fn inputs() {
    let op = prepare(Quantize::new(Format::MxFp4));
    let arguments = QuantizeArguments::default;
    let refused = |x: TensorRef<'_>| refused(op.quantize(x, arguments()));
    assert_eq!(refused(zeros(DType::I32, &[2, 32]).view()), "x");
    assert_eq!(refused(zeros(DType::F64, &[2, 32]).view()), "x");
    assert_eq!(refused(elsewhere(DType::F32, &[2, 32])), "x");
    assert_eq!(refused(zeros(DType::F32, &[2, 0]).view()), "x");
    let rotation = OutputOptions::new().rotation(Hadamard::new(16, 0));
    let x = zeros(DType::F32, &[40, 48]);
    let along_columns = prepare(Quantize::new(Format::MxFp4).rowwise(rotation));
    assert!(along_columns.quantize(x.view(), arguments()).is_ok());
    let along_rows = prepare(Quantize::new(Format::MxFp4).transposed(rotation));
    let result = along_rows.quantize(x.view(), arguments());
    assert_eq!(super::refused(result), "transposed.rotation");
    let short = x.view().slice_columns(0..40).unwrap();
    let result = along_columns.quantize(short, arguments());
    assert_eq!(super::refused(result), "rowwise.rotation");
}

#[test]
fn groups_and_offsets() {
    let op = prepare(Quantize::new(Format::Fp8Tensor(FP8)));
    let x = zeros(DType::F32, &[4, 32]);
    let run = |arguments: QuantizeArguments<'_>| op.quantize(x.view(), arguments);
    let groups = |view: TensorRef<'_>| refused(run(QuantizeArguments::default().groups(view)));
    assert_eq!(groups(zeros(DType::U32, &[3]).view()), "groups");
    assert_eq!(groups(zeros(DType::I64, &[1]).view()), "groups");
    assert_eq!(groups(elsewhere(DType::I64, &[3])), "groups");
    let spread = zeros(DType::I64, &[3, 2]);
    assert_eq!(groups(spread.view().slice_columns(0..1).unwrap()), "groups");
    let offset = |view: TensorRef<'_>| {
        let arguments = QuantizeArguments::default().device_offset(view);
        refused(run(arguments))
    };
    assert_eq!(offset(zeros(DType::U32, &[1]).view()), "device_offset");
    assert_eq!(offset(zeros(DType::I64, &[2]).view()), "device_offset");
    assert_eq!(offset(elsewhere(DType::I64, &[1])), "device_offset");
    // One number for each group.
    let three = zeros(DType::I64, &[4]);
    let mut amax = zeros(DType::F32, &[1]);
    let arguments = QuantizeArguments::default()
        .groups(three.view())
        .rowwise(OutputArguments::default().amax(amax.view_mut()));
    assert_eq!(refused(run(arguments)), "rowwise.amax");
}

#[test]
fn what_an_output_is_given() {
    let x = zeros(DType::F32, &[4, 32]);
    let given = QuantizeOptions::new(Format::NvFp4).scaling(Scaling::Given);
    let current = prepare(Quantize::new(Format::NvFp4));
    let given = prepare(Quantize::new(given).transposed(OutputOptions::new()));
    let rowwise = |output| QuantizeArguments::default().rowwise(output);
    let transposed = |output| QuantizeArguments::default().transposed(output);
    let output = OutputArguments::default;
    let scale = zeros(DType::F32, &[1]);
    let run = |op: &PreparedQuantize, arguments: QuantizeArguments<'_>| {
        refused(op.quantize(x.view(), arguments))
    };
    let fits = || output().tensor_scale(scale.view());
    assert_eq!(run(&current, rowwise(fits())), "rowwise.tensor_scale");
    assert_eq!(run(&current, transposed(fits())), "transposed.tensor_scale");
    assert_eq!(run(&given, transposed(output())), "transposed.tensor_scale");
    let two = zeros(DType::F32, &[2]);
    let short = transposed(output().tensor_scale(two.view()));
    assert_eq!(run(&given, short), "transposed.tensor_scale");
    let bytes = zeros(DType::U8, &[1]);
    let integers = transposed(output().tensor_scale(bytes.view()));
    assert_eq!(run(&given, integers), "transposed.tensor_scale");
    let far = transposed(output().tensor_scale(elsewhere(DType::F32, &[1])));
    assert_eq!(run(&given, far), "transposed.tensor_scale");
    let row = prepare(Quantize::new(Format::Fp8Row(FP8)));
    assert_eq!(run(&row, rowwise(fits())), "rowwise.tensor_scale");

    for (dtype, shape) in [(DType::F32, [2]), (DType::U32, [1])] {
        let wrong = zeros(dtype, &shape);
        let arguments = rowwise(output().amax(again(&wrong)));
        assert_eq!(run(&row, arguments), "rowwise.amax");
    }
    for (dtype, shape) in [(DType::F32, [2]), (DType::U32, [1])] {
        let wrong = zeros(dtype, &shape);
        let arguments = rowwise(output().counts(again(&wrong)));
        assert_eq!(run(&row, arguments), "rowwise.counts");
    }
    let amax = transposed(output().amax(again(&scale)));
    assert_eq!(run(&row, amax), "transposed.amax");
    let counts = zeros(DType::U32, &[2]);
    let counts = transposed(output().counts(again(&counts)));
    assert_eq!(run(&row, counts), "transposed.counts");
}

#[test]
fn where_it_writes() {
    let x = zeros(DType::F32, &[4, 32]);
    let op = prepare(Quantize::new(Format::NvFp4));
    let run = |outputs: &mut QuantizeOutputs<'_>| {
        op.quantize_into(x.view(), QuantizeArguments::default(), outputs)
    };
    let data = zeros(DType::E2m1x2, &[4, 16]);
    let scales = zeros(DType::E4m3, &[4, 2]);
    let scale = zeros(DType::F32, &[1]);
    let memory = zeros(DType::U8, &[op.workspace_bytes(4, 32, 0)]);
    let fits = || QuantizedMut {
        data: again(&data),
        scales: Some(again(&scales)),
        tensor_scale: Some(again(&scale)),
    };
    let outputs = |rowwise| {
        QuantizeOutputs::default()
            .rowwise(rowwise)
            .workspace(again(&memory))
    };
    run(&mut outputs(fits())).unwrap();
    assert_eq!(
        refused(run(
            &mut QuantizeOutputs::default().workspace(again(&memory))
        )),
        "outputs.rowwise"
    );
    let both = &mut outputs(fits()).transposed(fits());
    assert_eq!(refused(run(both)), "outputs.transposed");
    let refused = |output| refused(run(&mut outputs(output)));

    for wrong in [
        zeros(DType::E4m3, &[4, 16]),
        zeros(DType::E2m1x2, &[4, 17]),
        zeros(DType::E2m1x2, &[16, 4]),
    ] {
        let output = QuantizedMut {
            data: again(&wrong),
            ..fits()
        };
        assert_eq!(refused(output), "outputs.rowwise.data");
    }
    for wrong in [
        zeros(DType::E8m0, &[4, 2]),
        zeros(DType::E4m3, &[4, 4]),
        zeros(DType::E4m3, &[7]),
    ] {
        let output = QuantizedMut {
            scales: Some(again(&wrong)),
            ..fits()
        };
        assert_eq!(refused(output), "outputs.rowwise.scales");
    }
    let spread = zeros(DType::E4m3, &[4, 3]);
    let output = QuantizedMut {
        scales: Some(again(&spread).slice_columns(0..2).unwrap()),
        ..fits()
    };
    assert_eq!(refused(output), "outputs.rowwise.scales");
    let output = QuantizedMut {
        scales: None,
        ..fits()
    };
    assert_eq!(refused(output), "outputs.rowwise.scales");
    for wrong in [zeros(DType::F32, &[2]), zeros(DType::U32, &[1])] {
        let output = QuantizedMut {
            tensor_scale: Some(again(&wrong)),
            ..fits()
        };
        assert_eq!(refused(output), "outputs.rowwise.tensor_scale");
    }
    let output = QuantizedMut {
        tensor_scale: None,
        ..fits()
    };
    assert_eq!(refused(output), "outputs.rowwise.tensor_scale");
}

#[test]
fn scales_that_a_format_has_not() {
    let x = zeros(DType::F32, &[4, 32]);
    let spare = zeros(DType::F32, &[4]);
    let data = zeros(DType::E4m3, &[4, 32]);
    let run = |format: Format, output: QuantizedMut<'_>| {
        let op = prepare(Quantize::new(format));
        let memory = zeros(DType::U8, &[op.workspace_bytes(4, 32, 0)]);
        let mut outputs = QuantizeOutputs::default().workspace(again(&memory));
        outputs.rowwise = Some(output);
        op.quantize_into(x.view(), QuantizeArguments::default(), &mut outputs)
    };
    let tensor = QuantizedMut::new(again(&data)).scales(again(&spare));
    let result = run(Format::Fp8Tensor(FP8), tensor);
    assert_eq!(refused(result), "outputs.rowwise.scales");
    let one = zeros(DType::F32, &[1]);
    let row = QuantizedMut::new(again(&data))
        .scales(again(&spare))
        .tensor_scale(again(&one));
    let result = run(Format::Fp8Row(FP8), row);
    assert_eq!(refused(result), "outputs.rowwise.tensor_scale");
}

#[test]
fn workspaces() {
    let x = zeros(DType::F32, &[4, 32]);
    let op = prepare(Quantize::new(Format::Fp8Row(FP8)).transposed(OutputOptions::new()));
    let bytes = op.workspace_bytes(4, 32, 0);
    assert!(bytes > 0);
    let run = |workspace: Option<&Buffer>| {
        let mut q = op.allocate(4, 32, 0).unwrap();
        let mut outputs = q.outputs();
        outputs.workspace = workspace.map(again);
        op.quantize_into(x.view(), QuantizeArguments::default(), &mut outputs)
    };
    run(Some(&zeros(DType::U8, &[bytes]))).unwrap();
    assert_eq!(refused(run(None)), "workspace");
    let short = zeros(DType::U8, &[bytes - 1]);
    assert_eq!(refused(run(Some(&short))), "workspace");
    let floats = zeros(DType::F32, &[bytes]);
    assert_eq!(refused(run(Some(&floats))), "workspace");
}

#[test]
fn what_overlaps() {
    let x = zeros(DType::F32, &[4, 32]);
    let op = prepare(Quantize::new(Format::Fp8Row(FP8)));
    let data = zeros(DType::E4m3, &[4, 32]);
    let scales = zeros(DType::F32, &[4]);
    let counts = zeros(DType::U32, &[2]);
    let run = |scales: TensorMut<'_>, output: OutputArguments<'_>| {
        let memory = QuantizedMut::new(again(&data)).scales(scales);
        let mut outputs = QuantizeOutputs::default().rowwise(memory);
        let arguments = QuantizeArguments::default().rowwise(output);
        op.quantize_into(x.view(), arguments, &mut outputs)
    };
    let output = OutputArguments::default;
    run(again(&scales), output().counts(again(&counts))).unwrap();
    let within = again(&x).reshape(&[128]).unwrap().slice_rows(5..9);
    let over_x = refused(run(within.unwrap(), output()));
    assert_eq!(over_x, "outputs.rowwise.scales");
    let one = again(&scales).slice_rows(1..2).unwrap();
    let over_scales = refused(run(again(&scales), output().amax(one)));
    assert_eq!(over_scales, "rowwise.amax");
}

#[test]
fn quantised_tensors() {
    let stream = cpu();
    let op = Dequantize::new().prepare(&stream).unwrap();
    let refused = |q: QuantizedRef<'_>| refused(op.dequantize(q, DType::F32));
    let data = zeros(DType::E2m1x2, &[4, 16]);
    let scales = zeros(DType::E4m3, &[4, 2]);
    let scale = zeros(DType::F32, &[1]);
    let fits = QuantizedRef::new(Format::NvFp4, 4, 32, data.view())
        .scales(scales.view(), ScaleLayout::RowMajor)
        .tensor_scale(scale.view());
    op.dequantize(fits, DType::F32).unwrap();
    let wrong = [
        zeros(DType::E4m3, &[4, 16]),
        zeros(DType::E2m1x2, &[4, 15]),
        zeros(DType::E2m1x2, &[5, 16]),
    ];
    for wrong in &wrong {
        let q = QuantizedRef {
            data: wrong.view(),
            ..fits
        };
        assert_eq!(refused(q), "data");
    }
    let data = elsewhere(DType::E2m1x2, &[4, 16]);
    assert_eq!(refused(QuantizedRef { data, ..fits }), "data");
    assert_eq!(refused(QuantizedRef { inner: 34, ..fits }), "data");
    assert_eq!(refused(QuantizedRef { inner: 0, ..fits }), "data");
    let scales = None;
    assert_eq!(refused(QuantizedRef { scales, ..fits }), "scales");
    let wrong = [zeros(DType::E8m0, &[4, 2]), zeros(DType::E4m3, &[4, 3])];
    for wrong in &wrong {
        let q = fits.scales(wrong.view(), ScaleLayout::RowMajor);
        assert_eq!(refused(q), "scales");
    }
    let layout = ScaleLayout::Tiled128x4; // 128 x 4 of them
    assert_eq!(refused(QuantizedRef { layout, ..fits }), "scales");
    let tensor_scale = None;
    let q = QuantizedRef {
        tensor_scale,
        ..fits
    };
    assert_eq!(refused(q), "tensor_scale");
    let two = zeros(DType::F32, &[2]);
    assert_eq!(refused(fits.tensor_scale(two.view())), "tensor_scale");
    let offsets = zeros(DType::I32, &[1]);
    assert_eq!(refused(fits.groups(offsets.view())), "groups");
    let offsets = zeros(DType::I32, &[3]);
    assert_eq!(refused(fits.groups(offsets.view())), "tensor_scale");
    assert_eq!(refused(fits.rotation(Hadamard::new(128, 0))), "rotation");
    assert_eq!(refused(fits.rotation(Hadamard::new(8, 0))), "rotation");
    let row = QuantizedRef {
        format: Format::Fp8Row(FP8),
        layout,
        ..fits
    };
    assert_eq!(refused(row), "layout");
}

#[test]
fn values_of_quantised_tensors() {
    let op = Dequantize::new().prepare(&cpu()).unwrap();
    let data = zeros(DType::E5m2, &[4, 32]);
    let scale = zeros(DType::F32, &[1]);
    let q = QuantizedRef::new(Format::Fp8Tensor(Fp8::E5m2), 4, 32, data.view());
    let q = q.tensor_scale(scale.view());
    assert_eq!(refused(op.dequantize(q, DType::F64)), "dtype");
    for wrong in [
        zeros(DType::I32, &[4, 32]),
        zeros(DType::F32, &[32, 4]),
        zeros(DType::F32, &[4, 33]),
    ] {
        assert_eq!(refused(op.dequantize_into(q, again(&wrong))), "y");
    }
    let y = zeros(DType::F32, &[4, 32]);
    op.dequantize_into(q, again(&y)).unwrap();
    let first = y.view().reshape(&[128]).unwrap().slice_rows(0..1);
    let over = QuantizedRef {
        tensor_scale: Some(first.unwrap()),
        ..q
    };
    assert_eq!(refused(op.dequantize_into(over, again(&y))), "y");
}
