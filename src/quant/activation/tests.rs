//! The activations through their API, on the CPU; what other devices give, the property suite has.

use super::*;
use crate::quant::{
    Format, Fp8, OutputOptions, Quantize, QuantizeArguments, QuantizeOptions, QuantizeOutputs,
    Rounding,
};
use crate::reference::quant::activation::{Function, slope, value};
use crate::{Buffer, DType, Device, E4m3, E5m2, Error, Stream};

fn stream() -> Stream {
    Device::cpu().stream().unwrap()
}

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let next = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    let mut state = seed;
    (0..count).map(|_| next(&mut state)).collect()
}

/// `[tokens, 2 F]`, and gate and up of it.
fn packed(stream: &Stream, tokens: usize, channels: usize) -> (Buffer, Buffer, Buffer) {
    let data = numbers(tokens * 2 * channels, 1);
    let half = |from: usize| -> Vec<f32> {
        let rows = data.chunks(2 * channels);
        rows.flat_map(|row| row[from..from + channels].to_vec())
            .collect()
    };
    let part = |from: usize| stream.upload(&[tokens, channels], &half(from)).unwrap();
    let x = stream.upload(&[tokens, 2 * channels], &data).unwrap();
    (x, part(0), part(channels))
}

fn bytes(tensor: &crate::quant::QuantizedTensor) -> Vec<u8> {
    match tensor.data.dtype() {
        DType::E4m3 => {
            let codes = tensor.data.read::<E4m3>().unwrap();
            codes.into_iter().map(E4m3::to_bits).collect()
        }
        DType::E5m2 => {
            let codes = tensor.data.read::<E5m2>().unwrap();
            codes.into_iter().map(E5m2::to_bits).collect()
        }
        dtype => panic!("{dtype} is not compared here"),
    }
}

#[test]
fn one_matrix_or_two_are_the_same_activation() {
    let stream = stream();
    let (x, gate, up) = packed(&stream, 3, 5);
    let apart = GateUp::Apart {
        gate: gate.view(),
        up: up.view(),
    };
    let op = SwiGlu::new().prepare(&stream).unwrap();
    let y = op.forward(x.view().into()).unwrap();
    assert!(y.scales.is_none());
    let y = y.y.read::<f32>().unwrap();
    assert_eq!(y, op.forward(apart).unwrap().y.read::<f32>().unwrap());
    let (g, u) = (gate.read::<f32>().unwrap(), up.read::<f32>().unwrap());
    for ((y, g), u) in y.iter().zip(&g).zip(&u) {
        let want = value(Function::SwiGlu, f64::from(*g)) * f64::from(*u);
        assert_eq!(*y, want as f32);
    }

    let dy = stream.upload(&[3, 5], &numbers(15, 7)).unwrap();
    let dx = op.backward(x.view().into(), None, dy.view()).unwrap();
    assert_eq!(dx.shape(), [3, 10]);
    let mut halves = [
        stream.zeros(DType::F32, &[3, 5]).unwrap(),
        stream.zeros(DType::F32, &[3, 5]).unwrap(),
    ];
    let [dgate, dup] = &mut halves;
    let into = GateUpMut::Apart {
        gate: dgate.view_mut(),
        up: dup.view_mut(),
    };
    op.backward_into(apart, None, dy.view(), into).unwrap();
    let dx = dx.read::<f32>().unwrap();
    let [dgate, dup] = halves.map(|half| half.read::<f32>().unwrap());
    for (row, wide) in dx.chunks(10).enumerate() {
        assert_eq!(wide[..5], dgate[row * 5..][..5]);
        assert_eq!(wide[5..], dup[row * 5..][..5]);
    }
}

#[test]
fn gelu_is_its_formula() {
    let stream = stream();
    let values = numbers(12, 3);
    let x = stream.upload(&[2, 2, 3], &values).unwrap();
    let dy = stream.upload(&[2, 2, 3], &numbers(12, 4)).unwrap();
    for kind in GeluKind::ALL {
        let op = Gelu::new(kind).prepare(&stream).unwrap();
        let function = Function::Gelu(kind);
        let y = op.forward(x.view()).unwrap();
        assert_eq!(y.shape(), [2, 2, 3]);
        let dx = op.backward(x.view(), dy.view()).unwrap();
        let (y, dx) = (y.read::<f32>().unwrap(), dx.read::<f32>().unwrap());
        for (i, x) in values.iter().map(|&x| f64::from(x)).enumerate() {
            assert_eq!(y[i], value(function, x) as f32);
            let want = f64::from(numbers(12, 4)[i]) * slope(function, x);
            assert_eq!(dx[i], want as f32);
        }
    }
}

#[test]
fn smoothing_scales_are_computed_or_given() {
    let stream = stream();
    let (x, _, up) = packed(&stream, 4, 6);
    let up = up.read::<f32>().unwrap();
    let dy = stream.upload(&[4, 6], &numbers(24, 9)).unwrap();
    let plain = SwiGlu::new().prepare(&stream).unwrap();
    let y = plain.forward(x.view().into()).unwrap().y;
    let dx = plain.backward(x.view().into(), None, dy.view()).unwrap();
    for smoothing in Smoothing::ALL {
        let op = SwiGlu::new().smoothing(smoothing).prepare(&stream).unwrap();
        let smooth = op.forward(x.view().into()).unwrap();
        let scales = smooth.scales.unwrap();
        let s = scales.read::<f32>().unwrap();
        assert_eq!(s.len(), smoothing.scales(4, 6));
        for (i, scale) in s.iter().enumerate() {
            let of = |at: usize| match smoothing {
                Smoothing::Channel => at % 6 == i,
                Smoothing::Token => at / 6 == i,
            };
            let members = (0..24).filter(|&at| of(at)).map(|at| up[at].abs());
            assert_eq!(*scale, members.fold(0.0, f32::max));
        }
        // Times its scale it is the plain one, to the rounding of both.
        let factor = |at: usize| match smoothing {
            Smoothing::Channel => s[at % 6],
            Smoothing::Token => s[at / 6],
        };
        let (smooth, whole) = (smooth.y.read::<f32>().unwrap(), y.read::<f32>().unwrap());
        for at in 0..24 {
            let back = smooth[at] * factor(at);
            assert!((back - whole[at]).abs() <= 2.0 * f32::EPSILON * whole[at].abs());
        }
        // Given ones do the same; the gradient of y s is what dy / s is to y.
        let mut given = stream.zeros(DType::F32, &[4, 6]).unwrap();
        let into = Some(SmoothingScales::Given(scales.view()));
        op.forward_into(x.view().into(), into, given.view_mut())
            .unwrap();
        assert_eq!(given.read::<f32>().unwrap(), smooth);
        let scaled: Vec<f32> = dy.read::<f32>().unwrap();
        let scaled: Vec<f32> = scaled
            .iter()
            .enumerate()
            .map(|(at, dy)| dy * factor(at))
            .collect();
        let scaled = stream.upload(&[4, 6], &scaled).unwrap();
        let got = op.backward(x.view().into(), Some(scales.view()), scaled.view());
        let (got, want) = (
            got.unwrap().read::<f32>().unwrap(),
            dx.read::<f32>().unwrap(),
        );
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() <= 3.0 * f32::EPSILON * want.abs() + 1e-30);
        }
    }
}

#[test]
fn quantised_results_are_those_of_the_f32_results() {
    let stream = stream();
    let (x, _, _) = packed(&stream, 6, 40);
    let dy = stream.upload(&[6, 40], &numbers(240, 5)).unwrap();
    let offsets = stream.upload(&[3], &[0_i64, 2, 6]).unwrap();
    let rounding = Rounding::Stochastic { seed: 11 };
    let output = Quantize::new(Format::MxFp8(Fp8::E4m3))
        .rowwise(OutputOptions::new())
        .transposed(OutputOptions::new());
    let options = QuantizeOptions::new(Format::Fp8Tensor(Fp8::E5m2)).rounding(rounding);
    let gradient = Quantize::new(options);
    let op = SwiGlu::new()
        .smoothing(Smoothing::Token)
        .quantize_output(output)
        .quantize_gradient(gradient)
        .prepare(&stream)
        .unwrap();
    let grouped = || {
        QuantizeArguments::default()
            .groups(offsets.view())
            .offset(5)
    };
    let got = op.forward_quantized(x.view().into(), grouped()).unwrap();
    let scales = got.scales.unwrap();

    let mut y = stream.zeros(DType::F32, &[6, 40]).unwrap();
    let given = Some(SmoothingScales::Given(scales.view()));
    op.forward_into(x.view().into(), given, y.view_mut())
        .unwrap();
    let want = output.prepare(&stream).unwrap();
    let want = want.quantize(y.view(), grouped()).unwrap();
    for (got, want) in [
        (&got.y.rowwise, &want.rowwise),
        (&got.y.transposed, &want.transposed),
    ] {
        let (got, want) = (got.as_ref().unwrap(), want.as_ref().unwrap());
        assert_eq!(bytes(got), bytes(want));
        assert_eq!(got.form(), want.form());
    }

    let got = op
        .backward_quantized(x.view().into(), Some(scales.view()), dy.view(), grouped())
        .unwrap();
    let dx = op
        .backward(x.view().into(), Some(scales.view()), dy.view())
        .unwrap();
    let want = gradient.prepare(&stream).unwrap();
    let want = want.quantize(dx.view(), grouped()).unwrap();
    let (got, want) = (got.rowwise.unwrap(), want.rowwise.unwrap());
    assert_eq!(bytes(&got), bytes(&want));
    assert_eq!(got.form().data_shape(), [6, 80]);
    let scale = |tensor: &crate::quant::QuantizedTensor| {
        let scale = tensor.tensor_scale.as_ref().unwrap();
        scale.read::<f32>().unwrap()
    };
    assert_eq!(scale(&got), scale(&want));
    assert!(bytes(&got).iter().any(|&code| code != 0));
}

#[test]
fn gelu_is_quantised_too() {
    let stream = stream();
    let x = stream.upload(&[4, 8], &numbers(32, 5)).unwrap();
    let dy = stream.upload(&[4, 8], &numbers(32, 6)).unwrap();
    let quantize = Quantize::new(Format::Fp8Row(Fp8::E4m3));
    let op = Gelu::new(GeluKind::Tanh)
        .quantize_output(quantize)
        .quantize_gradient(quantize)
        .prepare(&stream)
        .unwrap();
    let arguments = QuantizeArguments::default;
    let plain = quantize.prepare(&stream).unwrap();
    let y = op.forward(x.view()).unwrap();
    let dx = op.backward(x.view(), dy.view()).unwrap();
    let pairs = [
        (op.forward_quantized(x.view(), arguments()), y),
        (op.backward_quantized(x.view(), dy.view(), arguments()), dx),
    ];
    for (got, values) in pairs {
        let want = plain.quantize(values.view(), arguments()).unwrap();
        let (got, want) = (got.unwrap().rowwise.unwrap(), want.rowwise.unwrap());
        assert_eq!(bytes(&got), bytes(&want));
    }
}

#[track_caller]
fn refused(result: crate::Result<()>, argument: &str, words: &str) {
    match result.unwrap_err() {
        Error::Argument {
            argument: got,
            expected,
            ..
        } => {
            assert_eq!(got, argument);
            assert!(expected.contains(words), "{expected:?}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn wrong_arguments_are_named() {
    let stream = stream();
    let floats = |shape: &[usize]| stream.zeros(DType::F32, shape).unwrap();
    let (x, odd, up, tall) = (
        floats(&[4, 6]),
        floats(&[4, 5]),
        floats(&[4, 4]),
        floats(&[5, 3]),
    );
    let integers = stream.zeros(DType::I32, &[4, 6]).unwrap();
    let (mut y, mut narrow) = (floats(&[4, 3]), floats(&[4, 2]));
    let (mut three, mut four) = (floats(&[3]), floats(&[4]));
    let op = SwiGlu::new().prepare(&stream).unwrap();
    let forward = |x: GateUp<'_>| op.forward(x).map(drop);
    refused(forward(odd.view().into()), "x", "[tokens, 2 F]");
    refused(forward(floats(&[4, 0]).view().into()), "x", "[tokens, 2 F]");
    refused(forward(integers.view().into()), "x", "bf16");
    let apart = |gate, up| GateUp::Apart { gate, up };
    refused(forward(apart(x.view(), up.view())), "up", "[4, 6]");
    refused(forward(apart(x.view(), integers.view())), "up", "bf16");
    refused(forward(apart(integers.view(), x.view())), "gate", "bf16");
    let x_view = || GateUp::from(x.view());
    refused(
        op.forward_into(x_view(), None, narrow.view_mut()),
        "y",
        "[4, 3]",
    );
    let given = Some(SmoothingScales::Given(three.view()));
    refused(
        op.forward_into(x_view(), given, y.view_mut()),
        "scales",
        "no smoothing",
    );
    let dy = floats(&[4, 3]);
    refused(
        op.backward(x_view(), Some(three.view()), dy.view())
            .map(drop),
        "scales",
        "no smoothing",
    );
    refused(
        op.backward(x_view(), None, tall.view()).map(drop),
        "dy",
        "[4, 3]",
    );
    let gradients = GateUpMut::from(y.view_mut());
    refused(
        op.backward_into(x_view(), None, dy.view(), gradients),
        "dx",
        "[4, 6]",
    );
    let gradients = GateUpMut::Apart {
        gate: y.view_mut(),
        up: narrow.view_mut(),
    };
    refused(
        op.backward_into(x_view(), None, dy.view(), gradients),
        "gradients.up",
        "[4, 3]",
    );

    let smooth = SwiGlu::new().smoothing(Smoothing::Channel);
    let smooth = smooth.prepare(&stream).unwrap();
    refused(
        smooth.forward_into(x_view(), None, y.view_mut()),
        "scales",
        "[3]",
    );
    let four_scales = Some(SmoothingScales::Computed(four.view_mut()));
    refused(
        smooth.forward_into(x_view(), four_scales, y.view_mut()),
        "scales",
        "[3]",
    );
    let scales = Some(SmoothingScales::Computed(three.view_mut()));
    smooth.forward_into(x_view(), scales, y.view_mut()).unwrap();
    refused(
        smooth.backward(x_view(), None, dy.view()).map(drop),
        "scales",
        "[3]",
    );
    let gelu = Gelu::new(GeluKind::Exact).prepare(&stream).unwrap();
    refused(gelu.forward_into(x.view(), y.view_mut()), "y", "[4, 6]");
    refused(gelu.forward(integers.view()).map(drop), "x", "bf16");
    refused(gelu.backward(x.view(), y.view()).map(drop), "dy", "[4, 6]");
    refused(
        gelu.backward_into(x.view(), x.view(), y.view_mut()),
        "dx",
        "[4, 6]",
    );
}

#[test]
fn what_is_not_chosen_before_is_not_quantised() {
    let stream = stream();
    let x = stream.zeros(DType::F32, &[4, 6]).unwrap();
    let dy = stream.zeros(DType::F32, &[4, 3]).unwrap();
    let op = SwiGlu::new().prepare(&stream).unwrap();
    let arguments = QuantizeArguments::default;
    let forward = op.forward_quantized(x.view().into(), arguments());
    let backward = op.backward_quantized(x.view().into(), None, dy.view(), arguments());
    for error in [
        forward.map(drop).unwrap_err(),
        backward.map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("before prepare"), "{error}");
    }
    assert_eq!(op.output_workspace_bytes(4, 3, 0), 0);
    // Options that do not fit are refused at once, and outputs that are not there at the call.
    let wrong = QuantizeOptions::new(Format::MxFp4).power_of_two();
    let wrong = SwiGlu::new().quantize_output(Quantize::new(wrong));
    assert!(matches!(
        wrong.prepare(&stream),
        Err(Error::Argument { .. })
    ));
    let op = SwiGlu::new().quantize_output(Quantize::new(Format::Fp8Block1x128(Fp8::E4m3)));
    let op = op.prepare(&stream).unwrap();
    let outputs = &mut QuantizeOutputs::default();
    refused(
        op.forward_quantized_into(x.view().into(), None, arguments(), outputs),
        "outputs.rowwise",
        "given",
    );
    let none = stream.zeros(DType::F32, &[0, 6]).unwrap();
    let empty = op
        .forward_quantized(none.view().into(), arguments())
        .unwrap();
    assert_eq!(empty.y.rowwise.unwrap().data.elements(), 0);
}
