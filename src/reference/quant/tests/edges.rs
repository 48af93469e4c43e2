//! Zeros, what is not finite, scales that vanish, and arguments that do not fit.

use super::{E4M3_ROW, back, plain, values};
use crate::quant::{Format, Fp8, Hadamard, OutputOptions, QuantizeOptions, ScaleLayout, Scaling};
use crate::reference::quant::{
    Call, Direction, Matrix, Scales, ScalesRef, View, dequantize, element, quantize,
};
use crate::{Error, Status};

#[test]
fn zeros_have_scale_one() {
    for format in Format::ALL {
        let got = plain(
            &QuantizeOptions::new(format),
            Direction::RowWise,
            &[0.0; 64],
            [2, 32],
        );
        assert!(got.data.iter().all(|byte| *byte == 0));
        assert!(got.tensor_scales.iter().all(|scale| *scale == 1.0));
        match got.scales {
            Scales::F32(scales) => assert!(scales.iter().all(|scale| *scale == 1.0)),
            // NVFP4's are E4M3(0 / 6 / 1) = 0.
            Scales::Bytes(scales) => {
                let want = if format.has_tensor_scale() { 0 } else { 127 };
                assert!(scales.iter().all(|scale| *scale == want), "{format}");
            }
        }
        assert_eq!((got.saturated, got.underflowed), (0, 0));
        assert_eq!(got.amaxes, [0.0]);
    }
}

#[test]
fn nothing_is_a_result_too() {
    for format in Format::ALL {
        for direction in Direction::ALL {
            for shape in [[0, 5], [5, 0], [0, 0]] {
                let got = plain(&QuantizeOptions::new(format), direction, &[], shape);
                assert!(got.data.is_empty() && got.status.is_empty());
                assert_eq!(back(format, direction, &got, shape), Vec::<f32>::new());
            }
        }
    }
}

/// Signs of zeros, and of what becomes zero, are kept.
#[test]
fn minus_zero_stays() {
    let x = [448.0_f32, -0.0, -1e-6, 0.0];
    let got = plain(
        &QuantizeOptions::new(E4M3_ROW),
        Direction::RowWise,
        &x,
        [1, 4],
    );
    assert_eq!(got.data, [0x7e, 0x80, 0x80, 0]);
    assert_eq!((got.saturated, got.underflowed), (0, 1));
}

/// FP8 keeps NaN and saturates at the infinities; a block of E2M1 says it by its scale; other blocks
/// and the amax do not notice.
#[test]
fn what_is_not_finite_stays_in_its_block() {
    for fault in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for format in Format::ALL {
            let clean = values(40 * 160, 12);
            let mut x = clean.clone();
            let (row, column) = (18, 130);
            x[row * 160 + column] = fault;
            let options = QuantizeOptions::new(format);
            let got = plain(&options, Direction::RowWise, &x, [40, 160]);
            let mut without = clean.clone();
            without[row * 160 + column] = 0.0;
            let want = plain(&options, Direction::RowWise, &without, [40, 160]);
            assert_eq!(got.amaxes, want.amaxes);
            let at = row * got.data_shape[1] + column * format.element_bits() / 8;
            if format.fp8().is_some() {
                assert_eq!(got.scales, want.scales);
                assert_eq!(got.status, Status::empty());
                let mut data = want.data.clone();
                data[at] = element::encode(format, fault, None);
                assert_eq!(got.data, data);
                let value = element::decode(format, got.data[at]);
                match fault.is_nan() {
                    true => assert!(value.is_nan()),
                    false => assert_eq!(value, format.largest().copysign(fault)),
                }
                let saturated = u64::from(fault.is_infinite());
                assert_eq!(got.saturated, want.saturated + saturated);
                continue;
            }
            assert_eq!(got.status, Status::NON_FINITE_BLOCK);
            let block = format.block();
            let values = back(format, Direction::RowWise, &got, [40, 160]);
            let others = back(format, Direction::RowWise, &want, [40, 160]);
            for (i, (value, other)) in values.iter().zip(others).enumerate() {
                let same_block = i / 160 / block.rows == row / block.rows
                    && i % 160 / block.columns == column / block.columns;
                match same_block {
                    true => assert!(value.is_nan()),
                    false => assert_eq!(*value, other),
                }
            }
        }
    }
}

/// A block far below its tensor has an E4M3 scale of 0 and elements 0, which count.
#[test]
fn nvfp4_scales_may_vanish() {
    let mut x = [1e-6_f32; 32];
    x[0] = 1.0;
    let options = QuantizeOptions::new(Format::NvFp4);
    let got = plain(&options, Direction::RowWise, &x, [1, 32]);
    assert_eq!(got.scales, Scales::Bytes(vec![0x7e, 0]));
    assert_eq!(got.underflowed, 31);
    assert_eq!(got.data[8..], [0; 8]);
    assert!(back(Format::NvFp4, Direction::RowWise, &got, [1, 32])[16..] == [0.0; 16]);
}

#[test]
fn a_scale_below_all_numbers_is_the_smallest() {
    let x = [f32::from_bits(3), 0.0];
    let got = plain(
        &QuantizeOptions::new(E4M3_ROW),
        Direction::RowWise,
        &x,
        [1, 2],
    );
    assert_eq!(got.scales, Scales::F32(vec![f32::from_bits(1)]));
    assert_eq!(back(E4M3_ROW, Direction::RowWise, &got, [1, 2]), x);
    let got = plain(
        &QuantizeOptions::new(Format::NvFp4),
        Direction::RowWise,
        &x,
        [1, 2],
    );
    assert_eq!(got.tensor_scales, [f32::from_bits(1)]);
}

#[test]
fn given_scales_are_used_as_they_are() {
    let x = [1000.0_f32, 1.0, 0.001, -2.0];
    let m = Matrix::new(&x, 1, 4).unwrap();
    let options = QuantizeOptions::new(Format::Fp8Tensor(Fp8::E4m3)).scaling(Scaling::Given);
    let with = |scales: Option<&[f32]>| {
        let call = Call {
            tensor_scales: scales,
            ..Call::default()
        };
        quantize(
            &options,
            &OutputOptions::new(),
            Direction::RowWise,
            m,
            &call,
        )
    };
    let got = with(Some(&[2.0])).unwrap();
    assert_eq!(got.tensor_scales, [2.0]);
    assert_eq!(got.amaxes, [1000.0]);
    assert_eq!((got.saturated, got.underflowed), (1, 1));
    let values = back(options.format, Direction::RowWise, &got, [1, 4]);
    assert_eq!(values, [896.0, 1.0, 0.0, -2.0]);
    let refused = |result: Result<_, Error>| {
        let message = result
            .map(|_: crate::reference::quant::Quantized| ())
            .unwrap_err();
        assert!(message.to_string().contains("tensor_scales"), "{message}");
    };
    refused(with(None));
    refused(with(Some(&[1.0, 1.0])));
    let current = QuantizeOptions::new(Format::Fp8Tensor(Fp8::E4m3));
    let call = Call {
        tensor_scales: Some(&[1.0]),
        ..Call::default()
    };
    refused(quantize(
        &current,
        &OutputOptions::new(),
        Direction::RowWise,
        m,
        &call,
    ));
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(Matrix::new(&[0.0; 5], 2, 3).is_err());
    assert!(Matrix::new(&[], usize::MAX, 2).is_err());
    let x = [0.0_f32; 40];
    let m = Matrix::new(&x, 2, 20).unwrap();
    let options = QuantizeOptions::new(Format::MxFp4);
    let run = |output: OutputOptions, options: &QuantizeOptions| {
        quantize(options, &output, Direction::RowWise, m, &Call::default())
    };
    let rotated = OutputOptions::new().rotation(Hadamard::new(16, 0));
    assert!(run(rotated, &options).is_err());
    let tiled = OutputOptions::new().layout(ScaleLayout::Tiled128x4);
    assert!(run(tiled, &options).is_ok());
    assert!(run(tiled, &QuantizeOptions::new(E4M3_ROW)).is_err());
    assert!(run(OutputOptions::new(), &options.power_of_two()).is_err());

    let got = run(OutputOptions::new(), &options).unwrap();
    let short = View {
        data: &got.data[1..],
        ..got.view()
    };
    let wrong = View {
        scales: ScalesRef::F32(&[1.0; 2]),
        ..got.view()
    };
    let extra = View {
        tensor_scales: &[1.0],
        ..got.view()
    };
    for view in [short, wrong, extra] {
        let output = OutputOptions::new();
        let format = options.format;
        assert!(dequantize(format, &output, Direction::RowWise, view, [2, 20], None).is_err());
    }
}
