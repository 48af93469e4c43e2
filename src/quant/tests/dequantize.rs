//! Dequantisation on the CPU.

use half::{bf16, f16};

use super::*;
use crate::quant::{
    Dequantize, Format, Fp8, Hadamard, Quantize, QuantizeArguments, QuantizedRef, ScaleLayout,
};

#[test]
fn values_are_rounded_once_to_every_type() {
    let stream = cpu();
    let scale = [0.1_f32, 3.0];
    let scales = stream.upload(&[2, 1], &scale).unwrap();
    let elements = [1.0_f32, -2.5, 448.0, 0.0].map(E4m3::from_f32);
    let rows = [elements, elements].concat();
    let data = stream.upload(&[2, 4], &rows).unwrap();
    let format = Format::Fp8Row(Fp8::E4m3);
    let q = QuantizedRef::new(format, 2, 4, data.view());
    let q = q.scales(scales.view(), ScaleLayout::RowMajor);
    let op = Dequantize::new().prepare(&stream).unwrap();
    let products: Vec<f32> = (0..8)
        .map(|index| rows[index].to_f32() * scale[index / 4])
        .collect();
    let f32s = op.dequantize(q, DType::F32).unwrap();
    assert_eq!(f32s.read::<f32>().unwrap(), products);
    let halves = op
        .dequantize(q, DType::Bf16)
        .unwrap()
        .read::<bf16>()
        .unwrap();
    let rounded: Vec<bf16> = products.iter().map(|v| bf16::from_f32(*v)).collect();
    assert_eq!(halves, rounded);
    let halves = op.dequantize(q, DType::F16).unwrap().read::<f16>().unwrap();
    let rounded: Vec<f16> = products.iter().map(|v| f16::from_f32(*v)).collect();
    assert_eq!(halves, rounded);
}

#[test]
fn strided_rows_in_and_out() {
    let stream = cpu();
    let memory: Vec<E5m2> = (0..30).map(|value| E5m2::from_f32(value as f32)).collect();
    let data = stream.upload(&[5, 6], &memory).unwrap();
    let scale = stream.upload(&[1], &[2.0_f32]).unwrap();
    let format = Format::Fp8Tensor(Fp8::E5m2);
    let view = data.view().slice_columns(1..4).unwrap();
    let q = QuantizedRef::new(format, 5, 3, view).tensor_scale(scale.view());
    let mut y = stream.upload(&[5, 5], &[-1.0_f32; 25]).unwrap();
    let op = Dequantize::new().prepare(&stream).unwrap();
    op.dequantize_into(q, y.view_mut().slice_columns(2..5).unwrap())
        .unwrap();
    let y = y.read::<f32>().unwrap();
    for (row, of) in y.chunks(5).zip(memory.chunks(6)) {
        let wanted: Vec<f32> = of[1..4].iter().map(|e| 2.0 * e.to_f32()).collect();
        assert_eq!((&row[..2], &row[2..]), (&[-1.0, -1.0][..], &wanted[..]));
    }
}

#[test]
fn a_rotation_is_undone_or_kept() {
    let stream = cpu();
    // Multiples of 1/4 up to 6 and a rotation of 16 by 1/4: every step is exact in f32, and each
    // block's rotated values fit MXFP8 only nearly.
    let values: Vec<f32> = (0..64)
        .map(|index| (index % 13) as f32 / 4.0 - 1.5)
        .collect();
    let x = stream.upload(&[2, 32], &values).unwrap();
    let rotation = Hadamard::new(16, 3);
    let op =
        Quantize::new(Format::MxFp8(Fp8::E4m3)).rowwise(OutputOptions::new().rotation(rotation));
    let op = op.prepare(&stream).unwrap();
    let q = op.quantize(x.view(), QuantizeArguments::default()).unwrap();
    let q = q.rowwise().unwrap();
    assert_eq!(q.rotation, Some(rotation));
    let read = |op: Dequantize| {
        let values = op.prepare(&stream).unwrap().dequantize(q, DType::F32);
        values.unwrap().read::<f32>().unwrap()
    };
    let (undone, kept) = (
        read(Dequantize::new()),
        read(Dequantize::new().keep_rotation()),
    );
    let mut turned = kept.clone();
    reference::hadamard::unrotate(&rotation, &mut turned);
    assert_eq!(undone, turned);
    for (got, value) in undone.iter().zip(&values) {
        assert!((got - value).abs() < 0.5, "{got} for {value}");
    }
    let apart = kept
        .iter()
        .zip(&values)
        .map(|(kept, value)| (kept - value).abs());
    assert!(apart.fold(0.0, f32::max) > 1.0);
}

#[test]
fn what_is_quantised_again_is_the_same() {
    let stream = cpu();
    let values = numbers(32 * 64, 6);
    let x = stream.upload(&[32, 64], &values).unwrap();
    for format in [
        Format::MxFp8(Fp8::E4m3),
        Format::MxFp8(Fp8::E5m2),
        Format::MxFp4,
    ] {
        let op = Quantize::new(format).prepare(&stream).unwrap();
        let quantize = |x: &Buffer| op.quantize(x.view(), QuantizeArguments::default()).unwrap();
        let once = quantize(&x);
        let values = Dequantize::new().prepare(&stream).unwrap();
        let values = values
            .dequantize(once.rowwise().unwrap(), DType::F32)
            .unwrap();
        let (once, twice) = (once.rowwise.unwrap(), quantize(&values).rowwise.unwrap());
        let again = Dequantize::new().prepare(&stream).unwrap();
        let again = again.dequantize(twice.view(), DType::F32).unwrap();
        assert_eq!(again.read::<f32>().unwrap(), values.read::<f32>().unwrap());
        assert_eq!(once.data.shape(), twice.data.shape());
    }
}
