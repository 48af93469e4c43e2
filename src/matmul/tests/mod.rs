//! Products on the CPU, and every argument that does not fit.

mod linear;
mod values;
mod wrong;

use half::bf16;

use crate::fixtures::{again, cpu, elsewhere, refused};
use crate::matmul::{
    Activation, Groups, Matmul, MatmulArguments, MatmulOutputs, OperandFormat, PreparedMatmul,
};
use crate::quant::{Format, Fp8, OutputOptions, Quantize, QuantizeArguments, Quantized};
use crate::{Buffer, DType, Error};

const FP8: Fp8 = Fp8::E4m3;

fn zeros(dtype: DType, shape: &[usize]) -> Buffer {
    cpu().zeros(dtype, shape).unwrap()
}

/// Numbers of several magnitudes without a pattern.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let of = |i: usize| (i as f32 * 0.7 + seed as f32).sin() * ((i % 13) as f32 - 6.0).exp2();
    (0..count).map(of).collect()
}

fn quantized(quantize: Quantize, values: &[f32], rows: usize, columns: usize) -> Quantized {
    let stream = cpu();
    let x = stream.upload(&[rows, columns], values).unwrap();
    let op = quantize.prepare(&stream).unwrap();
    op.quantize(x.view(), QuantizeArguments::default()).unwrap()
}
