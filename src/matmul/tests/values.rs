//! What products are.

use super::*;
use crate::quant::Dequantize;
use crate::{E4m3, Status};

/// The product of dequantised operands, in f64.
fn expected(a: &[f32], b: &[f32], m: usize, n: usize, k: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for row in 0..m {
        for column in 0..n {
            let terms = (0..k).map(|i| f64::from(a[row * k + i]) * f64::from(b[column * k + i]));
            out.push(terms.sum());
        }
    }
    out
}

/// Each pair of formats against the values that [`Dequantize`] gives, which rounds each to f32.
#[test]
fn products_of_every_pair() {
    let stream = cpu();
    let (m, n, k) = (5, 7, 300);
    let (x, w) = (numbers(m * k, 1), numbers(n * k, 2));
    let pairs = [
        (Format::Fp8Tensor(FP8), Format::Fp8Tensor(FP8)),
        (Format::Fp8Tensor(Fp8::E5m2), Format::Fp8Row(FP8)),
        (Format::Fp8Row(FP8), Format::Fp8Row(Fp8::E5m2)),
        (Format::Fp8Block1x128(FP8), Format::Fp8Block128x128(FP8)),
        (Format::Fp8Block1x128(FP8), Format::Fp8Block1x128(FP8)),
        (Format::MxFp8(FP8), Format::MxFp8(FP8)),
    ];
    let dequantize = Dequantize::new().prepare(&stream).unwrap();
    for (left, right) in pairs {
        let a = quantized(Quantize::new(left), &x, m, k);
        let b = quantized(Quantize::new(right), &w, n, k);
        let [a, b] = [a.rowwise().unwrap(), b.rowwise().unwrap()];
        let values = |q| {
            let values = dequantize.dequantize(q, DType::F32).unwrap();
            values.read::<f32>().unwrap()
        };
        let op = Matmul::new(left, right).prepare(&stream).unwrap();
        let got = op
            .multiply(a, b, DType::F32, MatmulArguments::default())
            .unwrap()
            .read::<f32>()
            .unwrap();
        let expected = expected(&values(a), &values(b), m, n, k);
        let largest = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        for (got, expected) in got.into_iter().zip(expected) {
            let error = (f64::from(got) - expected).abs();
            // Each value and the result rounded to f32: terms cancel, so of the largest.
            assert!(
                error <= 1e-5 * largest,
                "{left} x {right}: {got} {expected}"
            );
        }
    }
}

#[test]
fn dense_products_with_everything() {
    let stream = cpu();
    let a = stream.upload(
        &[2, 3],
        &[1.0, 2.0, 3.0, -1.0, 0.5, 0.0].map(bf16::from_f32),
    );
    let b = stream.upload(&[2, 3], &[1.0, 0.0, 1.0, 2.0, 2.0, 2.0].map(bf16::from_f32));
    let (a, b) = (a.unwrap(), b.unwrap());
    let alpha = stream.upload(&[1], &[2.0_f32]).unwrap();
    let bias = stream.upload(&[2], &[0.5_f32, -0.5]).unwrap();
    let c = stream
        .upload(&[2, 2], &[10.0_f32, 20.0, 30.0, 40.0])
        .unwrap();
    let scale = stream.upload(&[1], &[0.5_f32]).unwrap();
    let mut out = stream.zeros(DType::E4m3, &[2, 2]).unwrap();
    let mut pre = stream.zeros(DType::F32, &[2, 2]).unwrap();
    let mut amax = stream.upload(&[1], &[3.0_f32]).unwrap();
    let op = Matmul::new(OperandFormat::Bf16, OperandFormat::Bf16);
    let op = op.prepare(&stream).unwrap();
    let arguments = MatmulArguments::default()
        .alpha(alpha.view())
        .bias(bias.view())
        .c(c.view(), 0.1)
        .output_scale(scale.view());
    let mut outputs = MatmulOutputs::new(out.view_mut())
        .pre_activation(pre.view_mut())
        .amax(amax.view_mut());
    op.multiply_into(a.view(), b.view(), arguments, &mut outputs)
        .unwrap();
    let beta = f64::from(0.1_f32);
    let values = [
        8.5 + beta * 10.0,
        23.5 + beta * 20.0,
        -1.5 + beta * 30.0,
        -2.5 + beta * 40.0,
    ];
    assert_eq!(pre.read::<f32>().unwrap(), values.map(|v| v as f32));
    let elements = values.map(|v| E4m3::from_f32(2.0 * v as f32));
    assert_eq!(out.read::<E4m3>().unwrap(), elements);
    assert_eq!(amax.read::<f32>().unwrap(), [values[1] as f32]);
}

#[test]
fn accumulation_in_place() {
    let stream = cpu();
    let ones = stream.upload(&[2, 4], &[bf16::ONE; 8]).unwrap();
    let mut out = stream.upload(&[2, 2], &[1.0_f32, 2.0, 3.0, 4.0]).unwrap();
    let op = Matmul::new(OperandFormat::Bf16, OperandFormat::Bf16);
    let op = op.prepare(&stream).unwrap();
    for _ in 0..2 {
        let arguments = MatmulArguments::default().accumulate(1.0);
        let mut outputs = MatmulOutputs::new(out.view_mut());
        op.multiply_into(ones.view(), ones.view(), arguments, &mut outputs)
            .unwrap();
    }
    assert_eq!(out.read::<f32>().unwrap(), [9.0, 10.0, 11.0, 12.0]);
}

#[test]
fn swiglu_halves_the_columns() {
    let stream = cpu();
    let a = stream.upload(&[1, 2], &[bf16::ONE; 2]).unwrap();
    let b = [1.0, 1.0, 2.0, 1.0, -1.0, 0.0, 4.0, 4.0].map(bf16::from_f32);
    let b = stream.upload(&[4, 2], &b).unwrap();
    let op = Matmul::new(OperandFormat::Bf16, OperandFormat::Bf16);
    let op = op.activation(Activation::SwiGlu).prepare(&stream).unwrap();
    let out = op
        .multiply(a.view(), b.view(), DType::F32, MatmulArguments::default())
        .unwrap();
    assert_eq!(out.shape(), [1, 2]);
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let expected = [silu(2.0) * 3.0, silu(-1.0) * 8.0].map(|v| v as f32);
    assert_eq!(out.read::<f32>().unwrap(), expected);
}

/// The formats that a trainer has in its hands: experts forward, and their gradients.
#[test]
fn groups_as_quantisation_leaves_them() {
    let stream = cpu();
    let (tokens, n, k, experts) = (20, 3, 40, 3);
    let offsets = [2_i64, 9, 9, 17];
    let groups = stream.upload(&[experts + 1], &offsets).unwrap();
    let x = numbers(tokens * k, 3);
    let dy = numbers(tokens * n, 4);
    let upload =
        |values: &[f32], columns: usize| stream.upload(&[tokens, columns], values).unwrap();
    let (x_buffer, dy_buffer) = (upload(&x, k), upload(&dy, n));
    for format in [
        Format::Fp8Tensor(FP8),
        Format::Fp8Row(FP8),
        Format::Fp8Block1x128(FP8),
        Format::MxFp8(FP8),
    ] {
        let quantize = Quantize::new(format)
            .rowwise(OutputOptions::new())
            .transposed(OutputOptions::new())
            .prepare(&stream)
            .unwrap();
        let run = |buffer: &Buffer| {
            let arguments = QuantizeArguments::default().groups(groups.view());
            quantize.quantize(buffer.view(), arguments).unwrap()
        };
        let (x, dy) = (run(&x_buffer), run(&dy_buffer));
        let w = quantized(
            Quantize::new(format),
            &numbers(experts * n * k, 5),
            experts * n,
            k,
        );
        let dequantize = Dequantize::new().prepare(&stream).unwrap();
        let values = |q| {
            let values = dequantize.dequantize(q, DType::F32).unwrap();
            values.read::<f32>().unwrap()
        };
        let op = Matmul::new(format, format).prepare(&stream).unwrap();

        // Forward: each expert's rows with its weight.
        let x_rows = x.rowwise().unwrap().groups(groups.view());
        let arguments = MatmulArguments::default().groups(Groups::Rows(groups.view()));
        let y = op
            .multiply(x_rows, w.rowwise().unwrap(), DType::F32, arguments)
            .unwrap()
            .read::<f32>()
            .unwrap();
        let (left, right) = (values(x_rows), values(w.rowwise().unwrap()));
        let mut written = vec![0.0_f64; tokens * n];
        for expert in 0..experts {
            for row in offsets[expert] as usize..offsets[expert + 1] as usize {
                let a = &left[row * k..][..k];
                let b = &right[expert * n * k..][..n * k];
                written[row * n..][..n].copy_from_slice(&expected(a, b, 1, n, k));
            }
        }
        close(&y, &written, format);

        // Gradients of the weights: a product for each expert's rows.
        let dy = dy.transposed().unwrap().groups(groups.view());
        let x = x.transposed().unwrap().groups(groups.view());
        let arguments = MatmulArguments::default().groups(Groups::Contraction(groups.view()));
        let dw = op
            .multiply(dy, x, DType::F32, arguments)
            .unwrap()
            .read::<f32>()
            .unwrap();
        let (left, right) = (values(dy), values(x));
        let mut gradients = Vec::new();
        for expert in 0..experts {
            let range = offsets[expert] as usize..offsets[expert + 1] as usize;
            let part = |values: &[f32]| -> Vec<f32> {
                let rows = values.chunks(tokens);
                rows.flat_map(|row| row[range.clone()].to_vec()).collect()
            };
            gradients.extend(expected(&part(&left), &part(&right), n, k, range.len()));
        }
        close(&dw, &gradients, format);
    }
    stream.check().unwrap();
}

#[track_caller]
fn close(got: &[f32], expected: &[f64], format: Format) {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    assert!(largest > 0.0);
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - expected).abs();
        assert!(
            error <= 1e-5 * largest,
            "{format} {index}: {got} {expected}"
        );
    }
}

/// Squares of a weight whose experts have rows that 128 does not divide.
#[test]
fn squares_of_experts() {
    let stream = cpu();
    let (n, k) = (130, 128);
    let offsets = stream.upload(&[3], &[0_i64, 1, 2]).unwrap();
    let of_weight = stream.upload(&[3], &[0_i64, 130, 260]).unwrap();
    // Powers of two, so that nothing is rounded; the scale tells the slot.
    let w: Vec<f32> = (0..2 * n * k)
        .map(|i| ((i / k / 65) as f32).exp2())
        .collect();
    let square = Format::Fp8Block128x128(FP8);
    let w_buffer = stream.upload(&[2 * n, k], &w).unwrap();
    let arguments = QuantizeArguments::default().groups(of_weight.view());
    let op = Quantize::new(square).prepare(&stream).unwrap();
    let grouped = op.quantize(w_buffer.view(), arguments).unwrap();
    let x = quantized(Quantize::new(Format::Fp8Block1x128(FP8)), &[1.0; 256], 2, k);
    let op = Matmul::new(Format::Fp8Block1x128(FP8), square);
    let op = op.prepare(&stream).unwrap();
    let arguments = MatmulArguments::default().groups(Groups::Rows(offsets.view()));
    let b = grouped.rowwise().unwrap().groups(of_weight.view());
    let y = op
        .multiply(x.rowwise().unwrap(), b, DType::F32, arguments)
        .unwrap()
        .read::<f32>()
        .unwrap();
    for (index, value) in y.iter().enumerate() {
        let exact = 128.0 * ((index / 65) as f32).exp2();
        // Scales, and their product with elements, are f32.
        assert!((value - exact).abs() <= 1e-6 * exact, "{index}: {value}");
    }
    let whole = quantized(Quantize::new(square), &w, 2 * n, k);
    let result = op.multiply(
        x.rowwise().unwrap(),
        whole.rowwise().unwrap(),
        DType::F32,
        arguments,
    );
    assert_eq!(refused(result), "b");
}

#[test]
fn bad_offsets_touch_nothing() {
    let stream = cpu();
    let a = stream.upload(&[4, 2], &[bf16::ONE; 8]).unwrap();
    let op = Matmul::new(OperandFormat::Bf16, OperandFormat::Bf16);
    let op = op.prepare(&stream).unwrap();
    for bad in [[0_i32, 3, 2], [0, 2, 5], [-1, 2, 3]] {
        let offsets = stream.upload(&[3], &bad).unwrap();
        let mut out = stream.upload(&[4, 2], &[7.0_f32; 8]).unwrap();
        let arguments = MatmulArguments::default().groups(Groups::Rows(offsets.view()));
        let mut outputs = MatmulOutputs::new(out.view_mut());
        op.multiply_into(a.view(), a.view(), arguments, &mut outputs)
            .unwrap();
        assert_eq!(stream.check(), Err(Error::Data(Status::BAD_GROUP_OFFSETS)));
        assert_eq!(out.read::<f32>().unwrap(), [7.0; 8]);
    }
}
