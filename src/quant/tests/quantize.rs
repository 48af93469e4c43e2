//! Quantisation on the CPU.

use super::*;
use crate::Status;
use crate::quant::{
    Dequantize, Format, Fp8, Hadamard, OutputArguments, Quantize, QuantizeArguments,
    QuantizeOptions, QuantizeOutputs, QuantizedMut, Rounding, ScaleLayout, ScaleRounding, Scaling,
};

const DIRECTIONS: [Direction; 2] = [Direction::RowWise, Direction::Transposed];

/// Layouts that a format has.
fn layouts(format: Format) -> impl Iterator<Item = ScaleLayout> {
    ScaleLayout::ALL
        .into_iter()
        .filter(move |layout| layout.fits(format))
}

#[test]
fn every_format_and_type_is_the_reference() {
    let stream = cpu();
    let (rows, columns, gap) = (48, 160, 3);
    for (seed, dtype) in [DType::F32, DType::Bf16, DType::F16]
        .into_iter()
        .enumerate()
    {
        let drawn = numbers(rows * columns, seed as u64);
        let (values, buffer) = upload(&stream, dtype, [columns, gap], &drawn);
        let x = buffer.view().strided(&[rows, columns], columns + gap);
        let x = x.unwrap();
        for format in Format::ALL {
            for layout in layouts(format) {
                let options = QuantizeOptions::new(format);
                let plain = OutputOptions::new().layout(layout);
                let rotated = plain.rotation(Hadamard::new(16, 5));
                let op = Quantize::new(options).rowwise(plain).transposed(rotated);
                let op = op.prepare(&stream).unwrap();
                let q = op.quantize(x, QuantizeArguments::default()).unwrap();
                let outputs = [&q.rowwise, &q.transposed];
                let call = Call::default();
                let mut total = 0;
                for ((output, direction), output_options) in
                    outputs.into_iter().zip(DIRECTIONS).zip([plain, rotated])
                {
                    let x = (&values[..], [rows, columns]);
                    let expected = expected(&options, &output_options, direction, x, &call);
                    let output = output.as_ref().unwrap();
                    same_bits(output, &expected, &format!("{format} {dtype} {layout}"));
                    total += output.form().bytes();
                }
                assert_eq!(q.bytes(), total);
            }
        }
    }
}

#[test]
fn options_reach_the_elements() {
    let stream = cpu();
    let values = numbers(64 * 96, 9);
    let x = stream.upload(&[64, 96], &values).unwrap();
    let of = |format| QuantizeOptions::new(format);
    let fp8 = Fp8::E4m3;
    let rounding = Rounding::Stochastic { seed: 3 };
    let mut distinct = std::collections::HashSet::new();
    for options in [
        of(Format::Fp8Row(fp8)),
        of(Format::Fp8Row(fp8)).power_of_two(),
        of(Format::Fp8Row(fp8)).rounding(rounding),
        of(Format::MxFp8(fp8)),
        of(Format::MxFp8(fp8)).scale_rounding(ScaleRounding::Ceil),
    ] {
        let op = Quantize::new(options).prepare(&stream).unwrap();
        let q = op.quantize(x.view(), QuantizeArguments::default().offset(7));
        let call = Call {
            offset: 7,
            ..Call::default()
        };
        let output = OutputOptions::new();
        let x = (&values[..], [64, 96]);
        let expected = expected(&options, &output, Direction::RowWise, x, &call);
        same_bits(q.unwrap().rowwise.as_ref().unwrap(), &expected, "options");
        assert!(
            distinct.insert(expected.data),
            "{options:?} changed nothing"
        );
    }
}

#[test]
fn scales_are_those_of_the_formulas() {
    let stream = cpu();
    // One block of 16 in two: amax 12 and 0.75; the rest is small.
    let mut values = [0.1_f32; 32];
    (values[3], values[20]) = (12.0, -0.75);
    let x = stream.upload(&[1, 32], &values).unwrap();
    let quantize = |format: Format| {
        let op = Quantize::new(format).prepare(&stream).unwrap();
        let q = op.quantize(x.view(), QuantizeArguments::default());
        q.unwrap().rowwise.unwrap()
    };
    let f32_scale = |tensor: &QuantizedTensor| {
        let scales = tensor.scales.as_ref().unwrap();
        scales.read::<f32>().unwrap()
    };
    let tensor_scale = |tensor: &QuantizedTensor| {
        let scale = tensor.tensor_scale.as_ref().unwrap();
        scale.read::<f32>().unwrap()
    };
    let fp8 = quantize(Format::Fp8Tensor(Fp8::E4m3));
    assert!(fp8.scales.is_none());
    assert_eq!(tensor_scale(&fp8), [12.0 / 448.0]);
    assert_eq!(fp8.data.read::<E4m3>().unwrap()[3].to_f32(), 448.0);
    assert_eq!(fp8.data.read::<E4m3>().unwrap()[20].to_f32(), -28.0);
    let fp8 = quantize(Format::Fp8Block128x128(Fp8::E5m2));
    assert_eq!(f32_scale(&fp8), [12.0 / 57344.0]);
    // MX: 12 = 1.5 x 2^3, of E2M1's largest 6 = 1.5 x 2^2.
    let mx = quantize(Format::MxFp4);
    let scales = mx.scales.as_ref().unwrap().read::<E8m0>().unwrap();
    assert_eq!(scales[0].to_f32(), 2.0);
    let elements = mx.data.read::<E2m1x2>().unwrap();
    assert_eq!(elements[1].to_f32(), [0.0, 6.0]); // elements 2 and 3: the odd one on top
    // NVFP4: the first block's amax is the tensor's, so its scale is E4M3's largest.
    let nv = quantize(Format::NvFp4);
    assert_eq!(tensor_scale(&nv), [12.0 / 2688.0]);
    let scales = nv.scales.as_ref().unwrap().read::<E4m3>().unwrap();
    assert_eq!(scales[0].to_f32(), 448.0);
    assert_eq!(scales[1].to_f32(), 28.0); // (0.75 / 6) / (12 / 2688)
    assert_eq!(nv.data.read::<E2m1x2>().unwrap()[10].to_f32()[0], -6.0);
}

#[test]
fn a_given_scale_is_used_and_copied() {
    let stream = cpu();
    let values = numbers(4 * 64, 1);
    let x = stream.upload(&[4, 64], &values).unwrap();
    let given = [0.03_f32];
    let scale = stream.upload(&[1], &given).unwrap();
    for format in [
        Format::Fp8Tensor(Fp8::E5m2),
        Format::NvFp4,
        Format::NvFp4Square,
    ] {
        let options = QuantizeOptions::new(format).scaling(Scaling::Given);
        let output = OutputOptions::new();
        let op = Quantize::new(options).rowwise(output).transposed(output);
        let op = op.prepare(&stream).unwrap();
        assert_eq!(op.workspace_bytes(4, 64, 0), 0);
        let arguments = || {
            let given = || OutputArguments::default().tensor_scale(scale.view());
            QuantizeArguments::default()
                .rowwise(given())
                .transposed(given())
        };
        let q = op.quantize(x.view(), arguments()).unwrap();
        let call = Call {
            tensor_scales: Some(&given),
            ..Call::default()
        };
        for (tensor, direction) in [&q.rowwise, &q.transposed].into_iter().zip(DIRECTIONS) {
            let x = (&values[..], [4, 64]);
            let expected = expected(&options, &output, direction, x, &call);
            same_bits(tensor.as_ref().unwrap(), &expected, "given");
        }
        // Without a place for the copy there is none.
        let mut into = op.allocate(4, 64, 0).unwrap();
        let mut outputs = into.outputs();
        outputs.rowwise.as_mut().unwrap().tensor_scale = None;
        op.quantize_into(x.view(), arguments(), &mut outputs)
            .unwrap();
        let (into, q) = (into.rowwise.unwrap(), q.rowwise.unwrap());
        assert_eq!(bytes(&into.data), bytes(&q.data));
    }
}

#[test]
fn amax_is_raised_and_counts_are_added() {
    let stream = cpu();
    let x = stream
        .upload(&[1, 4], &[3.0_f32, -5.0, 1e-9, f32::NAN])
        .unwrap();
    let options = QuantizeOptions::new(Format::Fp8Tensor(Fp8::E4m3)).scaling(Scaling::Given);
    let op = Quantize::new(options).prepare(&stream).unwrap();
    let scale = stream.upload(&[1], &[0.01_f32]).unwrap(); // 3 and 5 are beyond 4.48
    let mut amax = stream.upload(&[1], &[0.0_f32]).unwrap();
    let mut counts = stream.upload(&[2], &[10_u32, 20]).unwrap();
    let run = |amax: &mut Buffer, counts: &mut Buffer| {
        let output = OutputArguments::default().tensor_scale(scale.view());
        let output = output.amax(amax.view_mut()).counts(counts.view_mut());
        op.quantize(x.view(), QuantizeArguments::default().rowwise(output))
            .unwrap();
    };
    run(&mut amax, &mut counts);
    assert_eq!(amax.read::<f32>().unwrap(), [5.0]);
    assert_eq!(counts.read::<u32>().unwrap(), [11, 21]);
    amax.write(&[7.5_f32]).unwrap();
    run(&mut amax, &mut counts);
    assert_eq!(amax.read::<f32>().unwrap(), [7.5]);
    assert_eq!(counts.read::<u32>().unwrap(), [12, 22]);
    stream.check().unwrap();
}

#[test]
fn each_output_has_an_amax_of_its_own() {
    let stream = cpu();
    let values = numbers(32 * 16, 4);
    let x = stream.upload(&[32, 16], &values).unwrap();
    let rotated = OutputOptions::new().rotation(Hadamard::new(32, 1));
    let op = Quantize::new(Format::MxFp8(Fp8::E4m3))
        .rowwise(OutputOptions::new())
        .transposed(rotated);
    let op = op.prepare(&stream).unwrap();
    let mut amax = [0, 1].map(|_| stream.zeros(DType::F32, &[1]).unwrap());
    let [first, second] = &mut amax;
    let arguments = QuantizeArguments::default()
        .rowwise(OutputArguments::default().amax(first.view_mut()))
        .transposed(OutputArguments::default().amax(second.view_mut()));
    op.quantize(x.view(), arguments).unwrap();
    let [first, second] = amax.map(|amax| amax.read::<f32>().unwrap()[0]);
    let largest = values
        .iter()
        .fold(0.0_f32, |max, value| max.max(value.abs()));
    assert_eq!(first, largest);
    let options = *op.configuration().options();
    let x = (&values[..], [32, 16]);
    let turned = expected(
        &options,
        &rotated,
        Direction::Transposed,
        x,
        &Call::default(),
    );
    assert_eq!(second, turned.amaxes[0]);
    assert_ne!(first, second);
}

#[test]
fn an_offset_on_the_device_is_added() {
    let stream = cpu();
    let values = numbers(8 * 32, 2);
    let x = stream.upload(&[8, 32], &values).unwrap();
    let rounding = Rounding::Stochastic { seed: 11 };
    let options = QuantizeOptions::new(Format::MxFp4).rounding(rounding);
    let op = Quantize::new(options).prepare(&stream).unwrap();
    let data = |arguments: QuantizeArguments<'_>| {
        let q = op.quantize(x.view(), arguments).unwrap();
        bytes(&q.rowwise.unwrap().data)
    };
    let step = stream.upload(&[1], &[-2_i64]).unwrap();
    let arguments = || QuantizeArguments::default().offset(5);
    assert_eq!(
        data(arguments().device_offset(step.view())),
        data(QuantizeArguments::default().offset(3))
    );
    assert_ne!(data(arguments()), data(QuantizeArguments::default()));
}

#[test]
fn nothing_is_written_beside_the_outputs() {
    let stream = cpu();
    let values = numbers(5 * 33, 8);
    let x = stream.upload(&[5, 33], &values).unwrap();
    let op = Quantize::new(Format::MxFp4).transposed(OutputOptions::new());
    let op = op.prepare(&stream).unwrap();
    let form = op.transposed_form(5, 33, 0).unwrap();
    assert_eq!(form.data_shape(), [33, 3]);
    let guard = E2m1x2::from_codes([9, 9]);
    let mut data = stream.upload(&[33 * 7 + 2], &[guard; 33 * 7 + 2]).unwrap();
    let mut scales = stream.zeros(DType::E8m0, &[33]).unwrap();
    let rows = data.view_mut().slice_rows(1..33 * 7 + 1).unwrap();
    let memory = QuantizedMut::new(rows.strided(&[33, 3], 7).unwrap()).scales(scales.view_mut());
    let mut outputs = QuantizeOutputs::default().transposed(memory);
    op.quantize_into(x.view(), QuantizeArguments::default(), &mut outputs)
        .unwrap();
    let x = (&values[..], [5, 33]);
    let options = op.configuration().options();
    let output = OutputOptions::new();
    let expected = expected(options, &output, Direction::Transposed, x, &Call::default());
    let memory = data.read::<E2m1x2>().unwrap();
    for (row, wanted) in memory[1..].chunks(7).zip(expected.data.chunks(3)) {
        let written: Vec<u8> = row[..3].iter().map(|pair| pair.to_bits()).collect();
        assert_eq!(written, wanted);
        assert!(row[3..].iter().all(|&beside| beside == guard));
    }
    assert_eq!(memory[0], guard);
}

#[test]
fn what_is_not_finite_is_told() {
    let stream = cpu();
    let mut values = [1.0_f32; 64];
    values[40] = f32::INFINITY;
    let x = stream.upload(&[1, 64], &values).unwrap();
    let values_of = |format: Format| {
        let op = Quantize::new(format).prepare(&stream).unwrap();
        let q = op.quantize(x.view(), QuantizeArguments::default()).unwrap();
        let values = Dequantize::new().prepare(&stream).unwrap();
        let values = values.dequantize(q.rowwise().unwrap(), DType::F32).unwrap();
        values.read::<f32>().unwrap()
    };
    let fp8 = values_of(Format::MxFp8(Fp8::E4m3));
    stream.check().unwrap();
    assert_eq!(fp8[0], 1.0);
    assert_eq!(fp8[40], 448.0 * (1.0 / 256.0)); // the largest element of the others' scale
    let fp4 = values_of(Format::MxFp4);
    assert_eq!(stream.check(), Err(Error::Data(Status::NON_FINITE_BLOCK)));
    assert!(fp4[..32].iter().all(|&value| value == 1.0));
    assert!(fp4[32..].iter().all(|value| value.is_nan()));
}

#[test]
fn nothing_is_quantised_into_nothing() {
    let stream = cpu();
    let x = stream.zeros(DType::F32, &[0, 32]).unwrap();
    for format in Format::ALL {
        let output = OutputOptions::new();
        let op = Quantize::new(format).rowwise(output).transposed(output);
        let op = op.prepare(&stream).unwrap();
        let q = op.quantize(x.view(), QuantizeArguments::default()).unwrap();
        assert_eq!(q.rowwise.as_ref().unwrap().data.elements(), 0, "{format}");
        let values = Dequantize::new().prepare(&stream).unwrap();
        let values = values.dequantize(q.transposed().unwrap(), DType::F16);
        assert_eq!(values.unwrap().shape(), [32, 0]);
    }
}

#[test]
fn outputs_that_were_not_asked_for_are_refused() {
    let stream = cpu();
    let x = stream.zeros(DType::F32, &[2, 32]).unwrap();
    let op = Quantize::new(Format::MxFp4).prepare(&stream).unwrap();
    let q = op.quantize(x.view(), QuantizeArguments::default()).unwrap();
    assert!(q.rowwise().is_ok());
    let error = q.transposed().unwrap_err().to_string();
    assert!(error.contains("Quantize::transposed"), "{error}");
    assert!(op.transposed_form(2, 32, 0).is_none());
}
