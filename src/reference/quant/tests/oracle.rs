//! Every element and scale again, one at a time, by f64 and search.

use std::collections::HashMap;

use super::{Numbers, plain, transpose, values};
use crate::quant::{Block, Format, Fp8, QuantizeOptions, ScaleRounding};
use crate::reference::quant::{Direction, Scales, element, scale};

/// RN to f32 of a quotient: f64 has more than twice f32's bits, so that rounding twice is rounding
/// once.
fn quotient(a: f32, b: f32) -> f32 {
    (f64::from(a) / f64::from(b)) as f32
}

/// The finite magnitudes of a format, by code.
struct Codes {
    values: Vec<f64>,
    sign: u8,
}

impl Codes {
    fn new(format: Format) -> Self {
        let sign = 1_u8 << (format.element_bits() - 1);
        let values = (0..sign).map(|code| element::decode(format, code).into());
        Self {
            values: values.filter(|value: &f64| value.is_finite()).collect(),
            sign,
        }
    }

    /// The code whose value is nearest to u, by trying all; ties to even.
    fn nearest(&self, u: f32) -> u8 {
        let u_abs = f64::from(u.abs());
        let mut best = 0;
        for (code, value) in self.values.iter().enumerate() {
            let [new, old] = [*value, self.values[best]].map(|value| (value - u_abs).abs());
            if new < old || (new == old && code % 2 == 0) {
                best = code;
            }
        }
        best as u8 | if u.is_sign_negative() { self.sign } else { 0 }
    }
}

/// A power of two by trying all: the smallest that the condition holds for.
fn smallest_power(holds: impl Fn(f64) -> bool) -> f32 {
    let power = (-127..=127)
        .map(|e| 2_f64.powi(e))
        .find(|power| holds(*power));
    power.unwrap_or(2_f64.powi(127)) as f32
}

struct Expected {
    stored: u32,
    divisor: f32,
}

fn block_scale(options: &QuantizeOptions, amax: f32, tensor_amax: f32) -> Expected {
    let format = options.format;
    let largest = format.largest();
    let wide = f64::from(amax);
    let of_power = |power: f32| Expected {
        stored: power.to_bits() >> 23,
        divisor: power,
    };
    match format {
        Format::MxFp8(_) | Format::MxFp4 if amax == 0.0 => of_power(1.0),
        Format::MxFp8(_) | Format::MxFp4 => of_power(match options.scale_rounding {
            ScaleRounding::Floor => {
                let emax = 2_f64.powi(format.largest_exponent());
                smallest_power(|power| 2.0 * power * emax > wide)
            }
            ScaleRounding::Ceil => smallest_power(|power| power * f64::from(largest) >= wide),
        }),
        Format::NvFp4 | Format::NvFp4Square => {
            let tensor = if tensor_amax == 0.0 {
                1.0
            } else {
                quotient(tensor_amax, 2688.0)
            };
            let e4m3 = Codes::new(Format::Fp8Row(Fp8::E4m3));
            let code = e4m3.nearest(quotient(quotient(amax, 6.0), tensor));
            let scale = element::decode(Format::Fp8Row(Fp8::E4m3), code);
            Expected {
                stored: code.into(),
                divisor: (f64::from(scale) * f64::from(tensor)) as f32,
            }
        }
        _ => {
            let amax = if let Format::Fp8Tensor(_) = format {
                tensor_amax
            } else {
                amax
            };
            let scale = match (amax == 0.0, options.power_of_two) {
                (true, _) => 1.0,
                (false, true) => {
                    smallest_power(|power| power * f64::from(largest) >= f64::from(amax))
                }
                (false, false) => quotient(amax, largest),
            };
            Expected {
                stored: scale.to_bits(),
                divisor: scale,
            }
        }
    }
}

/// Compares with elements and scales found one by one.
fn check(options: &QuantizeOptions, direction: Direction, x: &[f32], shape: [usize; 2]) {
    let format = options.format;
    let what = || format!("{options:?} {direction:?} of {shape:?}");
    let got = plain(options, direction, x, shape);
    let [outer, inner] = direction.orient(shape);
    let turned;
    let y = match direction {
        Direction::RowWise => x,
        Direction::Transposed => {
            turned = transpose(x, shape);
            &turned
        }
    };
    let tensor_amax = x.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
    let block = format.block();
    let stretch = |at: usize, size: usize, extent: usize| {
        let size = if size == Block::WHOLE { extent } else { size };
        at / size * size..(at / size * size + size).min(extent)
    };
    let (mut saturated, mut underflowed) = (0, 0);
    let mut scales = HashMap::new();
    let codes = Codes::new(format);
    for row in 0..outer {
        for column in 0..inner {
            let rows = stretch(row, block.rows, outer);
            let columns = stretch(column, block.columns, inner);
            let expected = scales
                .entry((rows.start, columns.start))
                .or_insert_with(|| {
                    let row = |r: usize| &y[r * inner..][columns.clone()];
                    let amax = rows
                        .flat_map(row)
                        .fold(0.0_f32, |amax, x| amax.max(x.abs()));
                    block_scale(options, amax, tensor_amax)
                });

            let value = y[row * inner + column];
            let u = quotient(value, expected.divisor);
            let code = if expected.divisor == 0.0 {
                0
            } else {
                codes.nearest(u)
            };
            let [_, width] = got.data_shape;
            let stored = element::load(format, &got.data[row * width..], column);
            assert_eq!(stored, code, "{} at ({row}, {column}): {value:e}", what());
            saturated += u64::from(expected.divisor != 0.0 && u.abs() > format.largest());
            underflowed += u64::from(value != 0.0 && element::decode(format, code) == 0.0);

            let slot_row = match format {
                Format::Fp8Block128x128(_) => row / 128,
                _ => row,
            };
            let slot_column = column / block.columns;
            let at = slot_row * got.scale_shape[1] + slot_column;
            let stored = match (&got.scales, format) {
                (_, Format::Fp8Tensor(_)) => got.tensor_scales[0].to_bits(),
                (Scales::F32(scales), _) => scales[at].to_bits(),
                (Scales::Bytes(scales), _) => scales[at].into(),
            };
            assert_eq!(
                stored,
                expected.stored,
                "{} scale at ({row}, {column})",
                what()
            );
        }
    }
    assert_eq!(got.amaxes, [tensor_amax], "{}", what());
    assert_eq!(
        (got.saturated, got.underflowed),
        (saturated, underflowed),
        "{}",
        what()
    );
    assert!(got.status.is_empty());
}

/// Sizes at, above and below those of blocks, in both directions.
#[test]
fn elements_and_scales_are_those_found_one_by_one() {
    for shape in [[1, 1], [3, 5], [17, 33], [32, 128], [130, 140]] {
        let x = values(shape[0] * shape[1], 7);
        for format in Format::ALL {
            for direction in Direction::ALL {
                let options = QuantizeOptions::new(format);
                check(&options, direction, &x, shape);
                if format.has_f32_scales() {
                    check(&options.power_of_two(), direction, &x, shape);
                }
                if matches!(format, Format::MxFp8(_) | Format::MxFp4) {
                    let options = options.scale_rounding(ScaleRounding::Ceil);
                    check(&options, direction, &x, shape);
                }
            }
        }
    }
}

/// Values of one size at a time, from f32's denormals to its end.
#[test]
fn every_size_of_values_has_its_scale() {
    let mut numbers = Numbers(3);
    for exponent in (-149..=127).step_by(4) {
        let x: Vec<f32> = (0..64)
            .map(|_| (f64::from(numbers.unit()) * 2_f64.powi(exponent)) as f32)
            .collect();
        for format in Format::ALL {
            // An amax below all quotients has a scale of its own, tested beside.
            if format.needs_tensor_amax() && exponent < -130 {
                continue;
            }
            let options = QuantizeOptions::new(format);
            if format.has_f32_scales() {
                check(&options.power_of_two(), Direction::RowWise, &x, [1, 64]);
            }
            if !format.has_f32_scales() || exponent >= -130 {
                check(&options, Direction::RowWise, &x, [1, 64]);
            }
        }
    }
}

/// Around each power of two and each largest element's multiple of one, to the last bit.
#[test]
fn powers_of_two_are_the_smallest_that_saturate_nothing() {
    for largest in [448.0_f32, 57344.0, 6.0] {
        for exponent in -149..=127 {
            let center = (f64::from(largest) * 2_f64.powi(exponent - 20)) as f32;
            for amax in [center, 2_f64.powi(exponent) as f32] {
                for amax in [amax.next_down(), amax, amax.next_up()] {
                    if amax <= 0.0 || !amax.is_finite() {
                        continue;
                    }
                    let wide = f64::from(amax);
                    let want = smallest_power(|power| power * f64::from(largest) >= wide);
                    assert_eq!(
                        scale::power_of_two(amax, largest),
                        want,
                        "{amax:e} / {largest}"
                    );
                }
            }
        }
    }
}
