//! A linear layer's step, as a trainer takes it.

use super::*;
use crate::quant::{
    DelayedScaling, Dequantize, Format, Fp8, Hadamard, OutputArguments, Quantize,
    QuantizeArguments, QuantizedRef, Scaling, WeightCache,
};

const TOKENS: usize = 96;
const OUT: usize = 48;
const IN: usize = 64;

/// a b^T of `[m, k]` and `[n, k]`, as tensor cores multiply.
fn product(a: &[f32], b: &[f32], k: usize) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let rows = a.chunks(k);
    rows.flat_map(|a| b.chunks(k).map(move |b| dot(a, b)))
        .collect()
}

fn transpose(x: &[f32], columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|column| x.iter().skip(column).step_by(columns).copied())
        .collect()
}

/// The length of the difference, to that of what was wanted.
fn distance(got: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum();
    let apart: f64 = squares(&mut got.iter().zip(wanted).map(|(got, wanted)| got - wanted));
    let length: f64 = squares(&mut wanted.iter().copied());
    (apart / length).sqrt()
}

#[test]
fn the_three_products_of_a_layer() {
    let stream = cpu();
    let values = |q: QuantizedRef<'_>| {
        // As a product takes them: rotated.
        let op = Dequantize::new().keep_rotation().prepare(&stream).unwrap();
        let values = op.dequantize(q, DType::F32).unwrap();
        values.read::<f32>().unwrap()
    };
    let drawn = [TOKENS * IN, OUT * IN, TOKENS * OUT].map(|count| numbers(count, count as u64));
    let [x, w, dy] = &drawn;
    let [x_memory, w_memory, dy_memory] = [([TOKENS, IN], x), ([OUT, IN], w), ([TOKENS, OUT], dy)]
        .map(|(shape, values)| stream.upload(&shape, values).unwrap());
    let e4m3 = Fp8::E4m3;
    for (activations, weights, bound) in [
        (Format::Fp8Tensor(e4m3), Format::Fp8Tensor(e4m3), 0.05),
        (Format::Fp8Row(e4m3), Format::Fp8Row(e4m3), 0.05),
        (
            Format::Fp8Block1x128(e4m3),
            Format::Fp8Block128x128(e4m3),
            0.05,
        ),
        (Format::MxFp8(e4m3), Format::MxFp8(e4m3), 0.06),
        (Format::MxFp4, Format::MxFp4, 0.25),
        (Format::NvFp4, Format::NvFp4Square, 0.25),
    ] {
        let plain = OutputOptions::new();
        // Along the contraction of dW, the tokens, both operands are rotated alike.
        let rotated = plain.rotation(Hadamard::new(32, 7));
        let both = Quantize::new(activations)
            .rowwise(plain)
            .transposed(rotated);
        let both = both.prepare(&stream).unwrap();
        let [x_q, dy_q] = [&x_memory, &dy_memory].map(|tensor| {
            let q = both.quantize(tensor.view(), QuantizeArguments::default());
            q.unwrap()
        });
        let weight = Quantize::new(weights).rowwise(plain).transposed(plain);
        let mut cache = WeightCache::new(weight.prepare(&stream).unwrap(), OUT, IN, 0).unwrap();
        let w_q = cache.get(w_memory.view(), 0, QuantizeArguments::default());
        let w_q = w_q.unwrap();

        let y = product(
            &values(x_q.rowwise().unwrap()),
            &values(w_q.rowwise().unwrap()),
            IN,
        );
        let dx = product(
            &values(dy_q.rowwise().unwrap()),
            &values(w_q.transposed().unwrap()),
            OUT,
        );
        let dw = product(
            &values(dy_q.transposed().unwrap()),
            &values(x_q.transposed().unwrap()),
            TOKENS,
        );
        for (name, got, wanted) in [
            ("y", y, product(x, w, IN)),
            ("dx", dx, product(dy, &transpose(w, IN), OUT)),
            (
                "dw",
                dw,
                product(&transpose(dy, OUT), &transpose(x, IN), TOKENS),
            ),
        ] {
            let distance = distance(&got, &wanted);
            assert!(distance < bound, "{name} in {activations}: {distance}");
            assert!(distance > 0.001, "{name} in {activations}: {distance}");
        }
    }
}

#[test]
fn delayed_scales_follow_the_tensor() {
    let stream = cpu();
    let format = Format::Fp8Tensor(Fp8::E4m3);
    let scales = DelayedScaling::new().length(2);
    let mut scales = scales.prepare(&stream, &[format; 3]).unwrap();
    let options = QuantizeOptions::new(format).scaling(Scaling::Given);
    let output = OutputOptions::new();
    let op = Quantize::new(options).rowwise(output).transposed(output);
    let op = op.prepare(&stream).unwrap();
    for step in 0..3 {
        let mut kept = Vec::new();
        for micro_batch in 0..2 {
            let largest = (100 << step) as f32 / (1 + micro_batch) as f32;
            let x = stream.upload(&[2, 2], &[largest, 1.0, -2.0, 3.0]).unwrap();
            let tensor = scales.tensor(1).unwrap();
            let other = OutputArguments::default().tensor_scale(tensor.scales);
            let arguments = QuantizeArguments::default()
                .rowwise(tensor.into())
                .transposed(other);
            kept.push(op.quantize(x.view(), arguments).unwrap());
        }
        let used = if step == 0 {
            1.0
        } else {
            (50 << step) as f32 / 448.0
        };
        assert_eq!(
            scales.amax().host_slice::<f32>().unwrap()[1],
            (100 << step) as f32
        );
        scales.update().unwrap();
        // What was quantised keeps the scale that it was quantised with.
        for q in kept {
            let q = q.rowwise.unwrap().tensor_scale.unwrap();
            assert_eq!(q.read::<f32>().unwrap(), [used]);
        }
    }
    let scales = scales.scales().host_slice::<f32>().unwrap();
    assert_eq!(scales, [1.0, 400.0 / 448.0, 1.0]);
}
