//! What holds for all inputs.

use super::{back, bits, plain, transpose, values};
use crate::quant::{Format, Fp8, Hadamard, OutputOptions, QuantizeOptions, Rounding, ScaleLayout};
use crate::reference::quant::{
    Call, Direction, Matrix, Quantized, Scales, dequantize, element, hadamard, quantize,
    scale_shape,
};

const SHAPE: [usize; 2] = [70, 150];

/// Nearest is within half a step, stochastic within one, of what neither saturates nor is without a
/// scale.
#[test]
fn errors_are_below_a_step() {
    let x = values(SHAPE[0] * SHAPE[1], 1);
    for format in Format::ALL {
        for rounding in [Rounding::Nearest, Rounding::Stochastic { seed: 1 }] {
            let options = QuantizeOptions::new(format).rounding(rounding);
            let got = plain(&options, Direction::RowWise, &x, SHAPE);
            // Scales alone, as the values of elements that are all 1.
            let mut ones = got.clone();
            ones.data.fill(match format.fp8() {
                Some(Fp8::E4m3) => 0x38,
                Some(Fp8::E5m2) => 0x3c,
                None => 0x22,
            });
            let scales = back(format, Direction::RowWise, &ones, SHAPE);
            let values = back(format, Direction::RowWise, &got, SHAPE);
            for ((x, value), scale) in x.iter().zip(&values).zip(&scales) {
                let u = f64::from(x / scale);
                if *scale == 0.0 || u.abs() >= f64::from(format.largest()) {
                    continue;
                }
                let (below, _) = format.grid().below(u as f32);
                let at = |code: u32| f64::from(element::decode(format, code as u8));
                let step = (at(below + 1) - at(below)) * f64::from(*scale);
                let error = (f64::from(*x) - f64::from(*value)).abs();
                let part = if rounding == Rounding::Nearest {
                    0.5
                } else {
                    1.0
                };
                // u and the product are each rounded by 2^-24.
                let allowed = part * step + f64::from(x.abs()) * 2_f64.powi(-22);
                assert!(error <= allowed, "{format} {rounding}: {x} became {value}");
            }
        }
    }
}

/// What was quantised once has the same elements again under the same scales; where the amax's
/// element is the largest, the scales are the same too.
#[test]
fn quantising_again_changes_nothing() {
    let x = values(SHAPE[0] * SHAPE[1], 2);
    for format in Format::ALL {
        for rounding in [Rounding::Nearest, Rounding::Stochastic { seed: 3 }] {
            let options = QuantizeOptions::new(format);
            let once = plain(&options, Direction::RowWise, &x, SHAPE);
            let values = back(format, Direction::RowWise, &once, SHAPE);
            let again = plain(
                &options.rounding(rounding),
                Direction::RowWise,
                &values,
                SHAPE,
            );
            let same = match format {
                // Powers of two make exact quotients.
                Format::MxFp8(_) | Format::MxFp4 => again.data == once.data,
                // The others to rounding of the quotient.
                _ => {
                    let again = back(format, Direction::RowWise, &again, SHAPE);
                    let mut pairs = values.iter().zip(&again);
                    rounding != Rounding::Nearest
                        || pairs.all(|(x, y)| (x - y).abs() <= 1e-6 * x.abs())
                }
            };
            assert!(same, "{format} {rounding}");
        }
    }
}

/// The transposed output is the row-wise one of the transposed input, and for square blocks the
/// transpose of the row-wise one.
#[test]
fn transposed_outputs_are_those_of_the_transpose() {
    let x = values(SHAPE[0] * SHAPE[1], 4);
    let turned = transpose(&x, SHAPE);
    let turned_shape = [SHAPE[1], SHAPE[0]];
    for format in Format::ALL {
        let options = QuantizeOptions::new(format);
        let transposed = plain(&options, Direction::Transposed, &x, SHAPE);
        let expected = plain(&options, Direction::RowWise, &turned, turned_shape);
        assert_eq!(transposed, expected, "{format}");
        if format.is_square() {
            let row_wise = plain(&options, Direction::RowWise, &x, SHAPE);
            let values = back(format, Direction::RowWise, &row_wise, SHAPE);
            let of_transposed = back(format, Direction::Transposed, &transposed, SHAPE);
            let same = bits(&transpose(&values, SHAPE)) == bits(&of_transposed);
            assert!(same, "{format}");
        }
    }
}

/// Both outputs draw the same word for an element.
#[test]
fn stochastic_outputs_agree() {
    let x = values(SHAPE[0] * SHAPE[1], 5);
    let options = QuantizeOptions::new(Format::Fp8Tensor(Fp8::E5m2));
    let options = options.rounding(Rounding::Stochastic { seed: 99 });
    let [a, b] = Direction::ALL.map(|direction| {
        let got = plain(&options, direction, &x, SHAPE);
        back(options.format, direction, &got, SHAPE)
    });
    assert_eq!(bits(&transpose(&a, SHAPE)), bits(&b));
    let x = Matrix::new(&x, SHAPE[0], SHAPE[1]).unwrap();
    let with = |offset| {
        let call = Call {
            offset,
            ..Call::default()
        };
        let output = OutputOptions::new();
        quantize(&options, &output, Direction::RowWise, x, &call)
            .unwrap()
            .data
    };
    assert_eq!(with(0), with(0));
    assert_ne!(with(0), with(1));
}

#[test]
fn layouts_hold_the_same_scales() {
    let x = values(SHAPE[0] * SHAPE[1], 6);
    let x = Matrix::new(&x, SHAPE[0], SHAPE[1]).unwrap();
    for format in Format::ALL {
        for direction in Direction::ALL {
            let options = QuantizeOptions::new(format);
            let make = |layout| {
                let output = OutputOptions::new().layout(layout);
                (
                    output,
                    quantize(&options, &output, direction, x, &Call::default()).unwrap(),
                )
            };
            let scales = |of: &Quantized, at: usize| match &of.scales {
                Scales::F32(scales) => scales[at].to_bits(),
                Scales::Bytes(scales) => scales[at].into(),
            };
            let (_, plain) = make(ScaleLayout::RowMajor);
            let layouts = ScaleLayout::ALL
                .into_iter()
                .filter(|layout| layout.fits(format));
            for layout in layouts {
                let (output, got) = make(layout);
                assert_eq!(got.data, plain.data);
                let shape = scale_shape(format, direction, SHAPE, None);
                let mut sum = 0;
                for row in 0..shape[0] {
                    for block in 0..shape[1] {
                        let want = scales(&plain, row * shape[1] + block);
                        assert_eq!(scales(&got, layout.offset(shape, row, block)), want);
                        sum += u64::from(want);
                    }
                }
                let all = got.scale_shape[0] * got.scale_shape[1];
                let stored: u64 = (0..all).map(|at| u64::from(scales(&got, at))).sum();
                assert_eq!(stored, sum, "padding is 0");
                let values = dequantize(format, &output, direction, got.view(), SHAPE, None);
                let want = back(format, direction, &plain, SHAPE);
                assert_eq!(bits(&values.unwrap()), bits(&want));
            }
        }
    }
}

#[test]
fn rotations_turn_back_and_cancel_in_products() {
    for n in Hadamard::SIZES {
        let rotation = Hadamard::new(n, 17);
        let (x, y) = (values(2 * n, 8), values(2 * n, 9));
        let rotated = |v: &[f32]| {
            let mut v = v.to_vec();
            hadamard::rotate(&rotation, &mut v);
            v
        };
        let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let dot = |a: &[f32], b: &[f32]| {
            a.iter()
                .zip(b)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum::<f64>()
        };
        let [rx, ry] = [&x, &y].map(|v| rotated(v));
        assert!((norm(&rx) / norm(&x) - 1.0).abs() < 1e-6);
        // log2(n) additions and one product, each rounded by 2^-24 of at most the norm.
        let allowed = 9.0 * 2_f64.powi(-24) * norm(&x) * norm(&y);
        assert!((dot(&rx, &ry) - dot(&x, &y)).abs() <= allowed, "n {n}");
        let mut turned = rx.clone();
        hadamard::unrotate(&rotation, &mut turned);
        for (a, b) in x.iter().zip(&turned) {
            assert!(
                f64::from((a - b).abs()) <= 18.0 * 2_f64.powi(-24) * norm(&x),
                "n {n}"
            );
        }
    }
}

/// A rotated output is the plain one of the rotated input, along each output's inner dimension.
#[test]
fn outputs_are_rotated_before_all_else() {
    let shape = [64, 256];
    let x = values(shape[0] * shape[1], 10);
    for (direction, n) in [(Direction::RowWise, 128), (Direction::Transposed, 32)] {
        let rotation = Hadamard::new(n, 23);
        let output = OutputOptions::new().rotation(rotation);
        let mut turned = match direction {
            Direction::RowWise => x.clone(),
            Direction::Transposed => transpose(&x, shape),
        };
        hadamard::rotate(&rotation, &mut turned);
        let [outer, inner] = direction.orient(shape);
        for format in Format::ALL {
            let options = QuantizeOptions::new(format);
            let m = Matrix::new(&x, shape[0], shape[1]).unwrap();
            let got = quantize(&options, &output, direction, m, &Call::default()).unwrap();
            let want = plain(&options, Direction::RowWise, &turned, [outer, inner]);
            assert_eq!(got, want, "{format} {direction:?}");

            let values = dequantize(format, &output, direction, got.view(), shape, None).unwrap();
            let mut expected = back(format, Direction::RowWise, &want, [outer, inner]);
            hadamard::unrotate(&rotation, &mut expected);
            assert_eq!(bits(&values), bits(&expected));
        }
    }
}
