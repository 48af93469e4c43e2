//! What the tests of the operations share, and the tests.

mod cache;
mod dequantize;
#[cfg(feature = "emulator")]
mod emulated;
mod groups;
mod quantize;
#[cfg(feature = "serde")]
mod serde;
mod training;
mod wrong;

use half::{bf16, f16};

use crate::fixtures::{again, cpu, elsewhere, refused};
use crate::reference::quant::{self as reference, Call, Direction, Matrix, Scales};
use crate::{Buffer, DType, E2m1x2, E4m3, E5m2, E8m0, Error, Stream};
use crate::{TensorMut, TensorRef};

use super::{OutputOptions, QuantizeOptions, QuantizedTensor};

/// Numbers of several magnitudes without a pattern, the same for the same seed.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next() * (8.0 * next()).exp2()).collect()
}

/// `values` rounded to the type, and a buffer of them in which each row has `gap` elements of
/// padding after it.
fn upload(
    stream: &Stream,
    dtype: DType,
    [columns, gap]: [usize; 2],
    values: &[f32],
) -> (Vec<f32>, Buffer) {
    let padded: Vec<f32> = values
        .chunks(columns)
        .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(1e9, gap)))
        .collect();
    let shape = [padded.len()];
    match dtype {
        DType::Bf16 => {
            let of = |value: &f32| bf16::from_f32(*value);
            let memory: Vec<bf16> = padded.iter().map(of).collect();
            let rounded = values.iter().map(|value| of(value).to_f32()).collect();
            (rounded, stream.upload(&shape, &memory).unwrap())
        }
        DType::F16 => {
            let of = |value: &f32| f16::from_f32(*value);
            let memory: Vec<f16> = padded.iter().map(of).collect();
            let rounded = values.iter().map(|value| of(value).to_f32()).collect();
            (rounded, stream.upload(&shape, &memory).unwrap())
        }
        _ => (values.to_vec(), stream.upload(&shape, &padded).unwrap()),
    }
}

/// The bytes of a buffer of 8-bit elements.
fn bytes(buffer: &Buffer) -> Vec<u8> {
    fn typed<T: crate::Element>(buffer: &Buffer) -> Vec<u8> {
        bytemuck::cast_slice(&buffer.read::<T>().unwrap()).to_vec()
    }
    match buffer.dtype() {
        DType::E4m3 => typed::<E4m3>(buffer),
        DType::E5m2 => typed::<E5m2>(buffer),
        DType::E8m0 => typed::<E8m0>(buffer),
        DType::E2m1x2 => typed::<E2m1x2>(buffer),
        DType::F32 => typed::<f32>(buffer),
        dtype => panic!("{dtype} is nothing that quantisations write"),
    }
}

/// What the reference makes of an output.
fn expected(
    options: &QuantizeOptions,
    output: &OutputOptions,
    direction: Direction,
    (values, shape): (&[f32], [usize; 2]),
    call: &Call<'_>,
) -> reference::Quantized {
    let x = Matrix::new(values, shape[0], shape[1]).unwrap();
    reference::quantize(options, output, direction, x, call).unwrap()
}

/// That an output has the bits of the reference.
#[track_caller]
fn same_bits(output: &QuantizedTensor, expected: &reference::Quantized, what: &str) {
    assert_eq!(output.data.shape(), expected.data_shape, "{what}");
    let data = bytes(&output.data);
    let differs = (0..data.len()).find(|&at| data[at] != expected.data[at]);
    if let Some(at) = differs {
        let (got, expected) = (data[at], expected.data[at]);
        panic!("{what}: element byte {at} is {got:#04x}, not {expected:#04x}");
    }
    match (&output.scales, &expected.scales) {
        (None, scales) => {
            let none = matches!(scales, Scales::F32(scales) if scales.is_empty());
            assert!(none, "{what}");
        }
        (Some(scales), Scales::F32(values)) => {
            assert_eq!(scales.shape(), expected.scale_shape, "{what}");
            assert_eq!(
                bytes(scales),
                bytemuck::cast_slice::<_, u8>(values),
                "{what}"
            );
        }
        (Some(scales), Scales::Bytes(values)) => {
            assert_eq!(scales.shape(), expected.scale_shape, "{what}");
            assert_eq!(&bytes(scales), values, "{what}");
        }
    }
    let scale = output.tensor_scale.as_ref();
    let scale = scale.map_or(Vec::new(), |scale| scale.read::<f32>().unwrap());
    assert_eq!(scale, expected.tensor_scales, "{what}");
}
