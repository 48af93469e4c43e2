//! The reference against what is known of it otherwise.

mod edges;
mod groups;
mod known;
mod oracle;
mod properties;

use super::{Call, Direction, Matrix, Quantized, dequantize, quantize};
use crate::quant::{Format, Fp8, OutputOptions, QuantizeOptions};

/// Multiplies and shifts, for inputs that look random.
struct Numbers(u64);

impl Numbers {
    fn bits(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 32) as u32
    }

    /// Within (-1, 1).
    fn unit(&mut self) -> f32 {
        self.bits() as i32 as f32 / 2_147_483_648.0
    }
}

/// Values of many sizes, zeros among them.
fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut numbers = Numbers(seed);
    (0..count)
        .map(|_| match numbers.bits() >> 28 {
            0 => 0.0,
            size => numbers.unit() * 2_f32.powi(size as i32 - 11),
        })
        .collect()
}

fn transpose(x: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..rows * columns)
        .map(|i| x[i % rows * columns + i / rows])
        .collect()
}

fn plain(
    options: &QuantizeOptions,
    direction: Direction,
    x: &[f32],
    shape: [usize; 2],
) -> Quantized {
    let x = Matrix::new(x, shape[0], shape[1]).unwrap();
    quantize(
        options,
        &OutputOptions::new(),
        direction,
        x,
        &Call::default(),
    )
    .unwrap()
}

fn back(
    format: Format,
    direction: Direction,
    quantized: &Quantized,
    shape: [usize; 2],
) -> Vec<f32> {
    let output = OutputOptions::new();
    dequantize(format, &output, direction, quantized.view(), shape, None).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

const E4M3_ROW: Format = Format::Fp8Row(Fp8::E4m3);
