//! Quantised results: the bits of the plain results in f32, quantised by the reference.

use super::numbers;
use crate::norm::{
    Dyt, GatedNorm, HeadNorm, HeadNormOptions, Norm, NormOptions, Pairing, RotaryTables, Sdd,
    Weights,
};
use crate::quant::{
    Format, Fp8, Hadamard, OutputArguments, OutputOptions, Quantize, QuantizeArguments,
    QuantizeOptions, QuantizedTensor, Rounding, ScaleLayout, ScaleRounding, Scaling,
};
use crate::reference::quant::{Call, Direction, Matrix, Quantized, Scales, quantize};
use crate::{Buffer, DType, Device, E2m1x2, E4m3, E5m2, E8m0, Error, Status, Stream};

fn devices() -> Vec<Device> {
    vec![
        Device::cpu(),
        #[cfg(feature = "emulator")]
        Device::emulated().unwrap(),
    ]
}

const SCALE: f32 = 0.003;
const OFFSET: u64 = 11;

/// What a pass over rows can make, each with something else beside.
fn options() -> Vec<(QuantizeOptions, OutputOptions)> {
    let plain = OutputOptions::new();
    let stochastic = Rounding::Stochastic { seed: 5 };
    let of = QuantizeOptions::new;
    vec![
        (
            of(Format::Fp8Tensor(Fp8::E4m3)).scaling(Scaling::Given),
            plain,
        ),
        (of(Format::Fp8Row(Fp8::E4m3)), plain),
        (
            of(Format::Fp8Row(Fp8::E5m2))
                .power_of_two()
                .rounding(stochastic),
            plain,
        ),
        (
            of(Format::Fp8Block1x128(Fp8::E5m2)),
            plain.layout(ScaleLayout::ColumnMajor),
        ),
        (of(Format::Fp8Block1x128(Fp8::E4m3)).power_of_two(), plain),
        (
            of(Format::MxFp8(Fp8::E4m3)).rounding(stochastic),
            plain.layout(ScaleLayout::Tiled128x4),
        ),
        (of(Format::MxFp4).scale_rounding(ScaleRounding::Ceil), plain),
        (
            of(Format::MxFp4).rounding(stochastic),
            plain.layout(ScaleLayout::ColumnMajor),
        ),
        (
            of(Format::NvFp4)
                .scaling(Scaling::Given)
                .rounding(stochastic),
            plain.layout(ScaleLayout::Tiled128x4),
        ),
    ]
}

fn bytes(buffer: &Buffer) -> Vec<u8> {
    match buffer.dtype() {
        DType::E4m3 => buffer
            .read::<E4m3>()
            .unwrap()
            .iter()
            .map(|e| e.to_bits())
            .collect(),
        DType::E5m2 => buffer
            .read::<E5m2>()
            .unwrap()
            .iter()
            .map(|e| e.to_bits())
            .collect(),
        DType::E8m0 => buffer
            .read::<E8m0>()
            .unwrap()
            .iter()
            .map(|e| e.to_bits())
            .collect(),
        _ => buffer
            .read::<E2m1x2>()
            .unwrap()
            .iter()
            .map(|e| e.to_bits())
            .collect(),
    }
}

fn assert_same(got: &QuantizedTensor, expected: &Quantized, what: &str) {
    assert_eq!(bytes(&got.data), expected.data, "data of {what}");
    match (&got.scales, &expected.scales) {
        (Some(scales), Scales::F32(expected)) => {
            assert_eq!(scales.read::<f32>().unwrap(), *expected, "scales of {what}");
        }
        (Some(scales), Scales::Bytes(expected)) => {
            assert_eq!(bytes(scales), *expected, "scales of {what}");
        }
        (None, _) => {}
    }
}

/// One operation: its plain results in f32 and its quantised ones.
struct Run<'r> {
    plain: &'r dyn Fn(&Stream) -> Buffer,
    quantized: &'r dyn Fn(&Stream, Quantize, QuantizeArguments<'_>) -> QuantizedTensor,
}

fn check(name: &str, [rows, columns]: [usize; 2], skip: impl Fn(Format) -> bool, run: Run<'_>) {
    for device in devices() {
        for (options, output) in options() {
            if skip(options.format) {
                continue;
            }
            let stream = device.stream().unwrap();
            let y = (run.plain)(&stream).read::<f32>().unwrap();
            let given = options.scaling == Scaling::Given;
            let call = Call {
                offset: OFFSET,
                tensor_scales: given.then_some(&[SCALE]),
                groups: None,
            };
            let x = Matrix::new(&y, rows, columns).unwrap();
            let expected = quantize(&options, &output, Direction::RowWise, x, &call).unwrap();

            let mut amax = stream.upload(&[1], &[0.25_f32]).unwrap();
            let mut counts = stream.upload(&[2], &[3_u32, 4]).unwrap();
            let scale = stream.upload(&[1], &[SCALE]).unwrap();
            let mut wanted = OutputArguments::default()
                .amax(amax.view_mut())
                .counts(counts.view_mut());
            if given {
                wanted = wanted.tensor_scale(scale.view());
            }
            let shift = stream.upload(&[1], &[4_i64]).unwrap();
            let arguments = QuantizeArguments::default()
                .rowwise(wanted)
                .offset(OFFSET - 4)
                .device_offset(shift.view());
            let quantize = Quantize::new(options).rowwise(output);
            let result = (run.quantized)(&stream, quantize, arguments);
            let what = format!("{name} [{rows}, {columns}] {options:?} {output:?} on {device}");
            assert_same(&result, &expected, &what);
            assert_eq!(
                amax.read::<f32>().unwrap(),
                [expected.amaxes[0].max(0.25)],
                "{what}"
            );
            let counted = [
                3 + expected.saturated as u32,
                4 + expected.underflowed as u32,
            ];
            assert_eq!(counts.read::<u32>().unwrap(), counted, "{what}");
            if let Some(copy) = &result.tensor_scale {
                assert_eq!(copy.read::<f32>().unwrap(), [SCALE], "{what}");
            }
        }
    }
}

fn f32s(stream: &Stream, values: &[f64], shape: &[usize]) -> Buffer {
    let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    stream.upload(shape, &values).unwrap()
}

fn check_norm(options: NormOptions, [rows, columns]: [usize; 2], values: &[f64]) {
    let gamma = numbers(90 + columns, columns);
    let shape = [rows, columns];
    check(
        "Norm",
        shape,
        |_| false,
        Run {
            plain: &|stream| {
                let op = Norm::new(options).prepare(stream).unwrap();
                let x = f32s(stream, values, &shape);
                let gamma = f32s(stream, &gamma, &[columns]);
                let weights = Weights::gamma(gamma.view());
                op.forward(x.view(), &weights).unwrap().y
            },
            quantized: &|stream, quantize, arguments| {
                let op = Norm::new(options).quantized(quantize);
                let op = op.prepare(stream).unwrap();
                let x = f32s(stream, values, &shape);
                let gamma = f32s(stream, &gamma, &[columns]);
                let weights = Weights::gamma(gamma.view());
                op.forward_quantized(x.view(), &weights, arguments)
                    .unwrap()
                    .y
            },
        },
    );
}

#[test]
fn results_have_the_bits_of_their_quantisation() {
    let shapes = [
        [3, 128],
        [130, 64],
        [5, 640],
        [2, 1000],
        [7, 100],
        [2, 33],
        [3, 5],
        [1, 1],
        [2, 515],
        [2, 4100],
        [2, 8192],
    ];
    for (index, shape) in shapes.into_iter().enumerate() {
        let options = [NormOptions::rms(), NormOptions::layer()][index % 2];
        let mut values = numbers(index, shape[0] * shape[1]);
        values.iter_mut().step_by(17).for_each(|x| *x *= 1e-5);
        check_norm(options, shape, &values);
    }
}

/// The rows of a cluster, whose lengths the plain kernels with a gate take otherwise: sums of these
/// squares are exact in any order.
#[test]
fn longer_rows_than_a_block_holds_have_them_too() {
    for columns in [8195, 16_640] {
        let values = numbers(7, 2 * columns)
            .iter()
            .map(|x| x.round())
            .collect::<Vec<_>>();
        check_norm(NormOptions::rms(), [2, columns], &values);
        check_gated(&values, [2, columns]);
    }
    let values: Vec<f64> = numbers(8, 6000).iter().map(|x| x.round()).collect();
    check_gated(&values, [1, 6000]);
}

fn check_gated(values: &[f64], shape: [usize; 2]) {
    let gate = numbers(3, shape[0] * shape[1]);
    let gated = GatedNorm::new(NormOptions::rms());
    check(
        "GatedNorm",
        shape,
        |_| false,
        Run {
            plain: &|stream| {
                let (x, z) = (f32s(stream, values, &shape), f32s(stream, &gate, &shape));
                let op = gated.prepare(stream).unwrap();
                op.forward(x.view(), z.view(), &Weights::default())
                    .unwrap()
                    .y
            },
            quantized: &|stream, quantize, arguments| {
                let (x, z) = (f32s(stream, values, &shape), f32s(stream, &gate, &shape));
                let op = gated.quantized(quantize).prepare(stream).unwrap();
                op.forward_quantized(x.view(), z.view(), &Weights::default(), arguments)
                    .unwrap()
                    .y
            },
        },
    );
}

#[test]
fn heads_gates_and_alphas_have_them_too() {
    let (tokens, heads, head_dim) = (5, 3, 64);
    let width = heads * head_dim;
    let values = numbers(1, tokens * width);
    let angles = numbers(2, tokens * 16);
    let head_norm = |norm: bool| {
        let options = HeadNormOptions {
            norm: norm.then(NormOptions::layer),
            ..HeadNormOptions::default()
        };
        HeadNorm::new(options, heads).rotary(Pairing::HalfSplit, 32)
    };
    let no_blocks_of_heads =
        |format| matches!(format, Format::Fp8Row(_) | Format::Fp8Block1x128(_));
    for norm in [true, false] {
        check(
            "HeadNorm",
            [tokens, width],
            no_blocks_of_heads,
            Run {
                plain: &|stream| {
                    let op = head_norm(norm).prepare(stream).unwrap();
                    let x = f32s(stream, &values, &[tokens, width]);
                    let table = f32s(stream, &angles, &[tokens, 16]);
                    let tables = RotaryTables::new(table.view(), table.view());
                    op.forward(x.view(), &Weights::default(), Some(&tables))
                        .unwrap()
                        .y
                },
                quantized: &|stream, quantize, arguments| {
                    let op = head_norm(norm).quantized(quantize).prepare(stream).unwrap();
                    let x = f32s(stream, &values, &[tokens, width]);
                    let table = f32s(stream, &angles, &[tokens, 16]);
                    let tables = RotaryTables::new(table.view(), table.view());
                    let weights = Weights::default();
                    op.forward_quantized(x.view(), &weights, Some(&tables), arguments)
                        .unwrap()
                        .y
                },
            },
        );
    }
    let shape = [tokens, width];
    check_gated(&values, shape);
    check(
        "Sdd",
        shape,
        |_| false,
        Run {
            plain: &|stream| {
                let (x, alpha) = (f32s(stream, &values, &shape), f32s(stream, &[3.0], &[1]));
                let op = Sdd::new().prepare(stream).unwrap();
                op.forward(x.view(), alpha.view()).unwrap().y
            },
            quantized: &|stream, quantize, arguments| {
                let (x, alpha) = (f32s(stream, &values, &shape), f32s(stream, &[3.0], &[1]));
                let op = Sdd::new().quantized(quantize).prepare(stream).unwrap();
                op.forward_quantized(x.view(), alpha.view(), arguments)
                    .unwrap()
                    .y
            },
        },
    );
}

#[test]
fn dynamic_tanh_has_them_too() {
    let shapes = [
        [5, 640],
        [130, 64],
        [2, 33],
        [1, 1],
        [2, 515],
        [2, 4100],
        [2, 8201],
        [2, 16_640],
    ];
    for shape in shapes {
        let [rows, columns] = shape;
        let mut values = numbers(columns, rows * columns);
        values.iter_mut().step_by(17).for_each(|x| *x *= 1e-5);
        let (gamma, beta) = (numbers(5, columns), numbers(6, columns));
        check(
            "Dyt",
            shape,
            |_| false,
            Run {
                plain: &|stream| {
                    let (x, alpha) = (f32s(stream, &values, &shape), f32s(stream, &[0.7], &[1]));
                    let gamma = f32s(stream, &gamma, &[columns]);
                    let beta = f32s(stream, &beta, &[columns]);
                    let weights = Weights::gamma(gamma.view()).beta(beta.view());
                    let op = Dyt::new().prepare(stream).unwrap();
                    op.forward(x.view(), alpha.view(), &weights).unwrap()
                },
                quantized: &|stream, quantize, arguments| {
                    let (x, alpha) = (f32s(stream, &values, &shape), f32s(stream, &[0.7], &[1]));
                    let gamma = f32s(stream, &gamma, &[columns]);
                    let beta = f32s(stream, &beta, &[columns]);
                    let weights = Weights::gamma(gamma.view()).beta(beta.view());
                    let op = Dyt::new().quantized(quantize).prepare(stream).unwrap();
                    op.forward_quantized(x.view(), alpha.view(), &weights, arguments)
                        .unwrap()
                },
            },
        );
    }
}

#[test]
fn arguments_of_a_quantised_dynamic_tanh() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let x = f32s(&stream, &[1.0, f64::NAN, 2.0, 3.0], &[2, 2]);
        let alpha = f32s(&stream, &[0.5], &[1]);
        let none = Weights::default();
        let arguments = QuantizeArguments::default;
        let plain = Dyt::new().prepare(&stream).unwrap();
        let error = plain.forward_quantized(x.view(), alpha.view(), &none, arguments());
        let error = error.unwrap_err();
        assert!(error.to_string().contains("`quantized`"), "{error}");

        let transposed = Quantize::new(Format::MxFp4).transposed(OutputOptions::new());
        let error = Dyt::new().quantized(transposed).prepare(&stream);
        assert!(matches!(error, Err(Error::Unsupported { .. })));

        let op = Dyt::new().quantized(Quantize::new(Format::MxFp4));
        let op = op.prepare(&stream).unwrap();
        let error = op.forward_quantized(x.view(), x.view(), &none, arguments());
        assert!(error.unwrap_err().to_string().contains("`alpha`"));
        let low = op.forward_quantized(x.view(), alpha.view(), &none, arguments());
        let both = Status::NON_FINITE_ROW | Status::NON_FINITE_BLOCK;
        assert_eq!(stream.check(), Err(Error::Data(both)), "{device}");
        let scales = bytes(low.unwrap().scales.as_ref().unwrap());
        assert!(scales[0] == 0xff && scales[1] != 0xff, "{device}");

        let no_rows = stream.zeros(DType::F32, &[0, 64]).unwrap();
        let scale = stream.upload(&[1], &[SCALE]).unwrap();
        let options = QuantizeOptions::new(Format::NvFp4).scaling(Scaling::Given);
        let op = Dyt::new().quantized(Quantize::new(options));
        let given = OutputArguments::default().tensor_scale(scale.view());
        let arguments = arguments().rowwise(given);
        let op = op.prepare(&stream).unwrap();
        let low = op.forward_quantized(no_rows.view(), alpha.view(), &none, arguments);
        let copy = low.unwrap().tensor_scale.unwrap().read::<f32>().unwrap();
        assert_eq!(copy, [SCALE], "{device}");
    }
}

#[test]
fn what_one_pass_cannot_make_is_refused() {
    let stream = Device::cpu().stream().unwrap();
    let prepare = |quantize: Quantize| Norm::rms().quantized(quantize).prepare(&stream);
    let plain = OutputOptions::new();
    let row = Quantize::new(Format::Fp8Row(Fp8::E4m3));
    for (quantize, expected) in [
        (row.transposed(plain), "transposed"),
        (row.rowwise(plain).transposed(plain), "transposed"),
        (
            row.rowwise(plain.rotation(Hadamard::new(16, 1))),
            "rotation",
        ),
        (
            Quantize::new(Format::Fp8Tensor(Fp8::E4m3)),
            "Scaling::Given",
        ),
        (Quantize::new(Format::NvFp4), "Scaling::Given"),
        (Quantize::new(Format::NvFp4Square), "several rows"),
        (
            Quantize::new(Format::Fp8Block128x128(Fp8::E5m2)),
            "several rows",
        ),
    ] {
        let error = prepare(quantize).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(prepare(row).is_ok());
    let wrong = QuantizeOptions::new(Format::MxFp4).scaling(Scaling::Given);
    assert!(matches!(
        prepare(Quantize::new(wrong)),
        Err(Error::Argument { .. })
    ));
}

#[test]
fn arguments_of_a_quantised_forward() {
    let stream = Device::cpu().stream().unwrap();
    let x = f32s(&stream, &[1.0; 8], &[2, 4]);
    let none = Weights::default();
    let arguments = QuantizeArguments::default;
    let plain = Norm::rms().prepare(&stream).unwrap();
    let error = plain
        .forward_quantized(x.view(), &none, arguments())
        .unwrap_err();
    assert!(error.to_string().contains("`quantized`"), "{error}");

    let row = Quantize::new(Format::Fp8Row(Fp8::E4m3));
    let op = Norm::rms().quantized(row).prepare(&stream).unwrap();
    let offsets = stream.upload(&[2], &[0_i64, 2]).unwrap();
    let grouped = arguments().groups(offsets.view());
    let error = op.forward_quantized(x.view(), &none, grouped).unwrap_err();
    assert!(error.to_string().contains("`groups`"), "{error}");
    let scale = stream.upload(&[1], &[1.0_f32]).unwrap();
    let given = arguments().rowwise(OutputArguments::default().tensor_scale(scale.view()));
    assert!(op.forward_quantized(x.view(), &none, given).is_err());

    // Two heads of 4 have no scale in common, and no block of 32.
    let mx = Quantize::new(Format::MxFp4);
    for quantize in [row, mx] {
        let heads = HeadNorm::new(HeadNormOptions::default(), 2).quantized(quantize);
        let heads = heads.prepare(&stream).unwrap();
        let x = f32s(&stream, &[1.0; 8], &[1, 8]);
        let error = heads
            .forward_quantized(x.view(), &none, None, arguments())
            .unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    // One head is a row.
    let head = HeadNorm::new(HeadNormOptions::default(), 1).quantized(row);
    let head = head.prepare(&stream).unwrap();
    assert!(
        head.forward_quantized(x.view(), &none, None, arguments())
            .is_ok()
    );
}

#[test]
fn a_residual_is_added_and_the_backward_is_the_plain_one() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let (x, residual) = (numbers(1, 3 * 96), numbers(2, 3 * 96));
        let shape = [3, 96];
        let (x, residual) = (f32s(&stream, &x, &shape), f32s(&stream, &residual, &shape));
        let dy = f32s(&stream, &numbers(3, 3 * 96), &shape);
        let none = Weights::default();
        let mx = Quantize::new(Format::MxFp8(Fp8::E4m3));
        let op = Norm::layer().quantized(mx).prepare(&stream).unwrap();
        let plain = op
            .forward_residual(x.view(), residual.view(), &none)
            .unwrap();
        let arguments = QuantizeArguments::default();
        let low = op.forward_residual_quantized(x.view(), residual.view(), &none, arguments);
        let low = low.unwrap();
        let floats = |buffer: Option<&Buffer>| buffer.unwrap().read::<f32>().unwrap();
        let [sum, same] = [plain.stream.as_ref(), low.stream.as_ref()];
        assert_eq!(floats(sum), floats(same));
        assert_eq!(plain.rstd.read::<f32>().unwrap(), floats(low.rstd.as_ref()));
        let y = plain.y.read::<f32>().unwrap();
        let y = Matrix::new(&y, 3, 96).unwrap();
        let options = QuantizeOptions::new(Format::MxFp8(Fp8::E4m3));
        let output = OutputOptions::new();
        let expected = quantize(&options, &output, Direction::RowWise, y, &Call::default());
        assert_same(&low.y, &expected.unwrap(), &device.name());
        let saved = low.saved().unwrap();
        let sum = sum.unwrap().view();
        let backward = op.backward(sum, &none, &saved, dy.view(), None).unwrap();
        let expected = op
            .backward(sum, &none, &plain.saved(), dy.view(), None)
            .unwrap();
        let [got, expected] = [&backward, &expected].map(|b| b.dx.read::<f32>().unwrap());
        assert_eq!(got, expected);
    }
}

#[test]
fn rows_that_are_not_finite_and_no_rows() {
    for device in devices() {
        let stream = device.stream().unwrap();
        let mut values = numbers(1, 4 * 64);
        values[70] = f64::NAN;
        let x = f32s(&stream, &values, &[4, 64]);
        for (format, not_finite) in [
            (
                Format::MxFp4,
                Status::NON_FINITE_ROW | Status::NON_FINITE_BLOCK,
            ),
            (Format::MxFp8(Fp8::E4m3), Status::NON_FINITE_ROW),
        ] {
            let op = Norm::rms()
                .quantized(Quantize::new(format))
                .prepare(&stream)
                .unwrap();
            let low = op.forward_quantized(x.view(), &Weights::default(), Default::default());
            assert_eq!(stream.check(), Err(Error::Data(not_finite)), "{device}");
            let scales = bytes(low.unwrap().y.scales.as_ref().unwrap());
            assert_eq!(scales[2] == 0xff, format == Format::MxFp4);
            assert!(scales[0] != 0xff && scales[4] != 0xff);
        }
        let none = stream.zeros(DType::F32, &[0, 64]).unwrap();
        let scale = stream.upload(&[1], &[SCALE]).unwrap();
        let options = QuantizeOptions::new(Format::NvFp4).scaling(Scaling::Given);
        let op = Norm::rms()
            .quantized(Quantize::new(options))
            .prepare(&stream)
            .unwrap();
        let given = OutputArguments::default().tensor_scale(scale.view());
        let arguments = QuantizeArguments::default().rowwise(given);
        let low = op
            .forward_quantized(none.view(), &Weights::default(), arguments)
            .unwrap();
        let copy = low.y.tensor_scale.as_ref().unwrap().read::<f32>().unwrap();
        assert_eq!(copy, [SCALE], "{device}");
    }
}
