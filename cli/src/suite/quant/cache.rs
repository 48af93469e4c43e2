//! Weights that are kept from one micro-batch to the next.

use evenkeel::quant::{
    Format, Fp8, OutputOptions, Quantize, QuantizeArguments, Quantized, QuantizedTensor,
    WeightCache,
};
use evenkeel::{Device, Error};

use super::super::proofs::device;
use super::super::{Effort, Held};
use crate::quant::bits::download;
use crate::random::Random;
use crate::subject::Subject;

/// A version of a weight is quantised by the first call that asks for it, and by no other: what is
/// held stays as it is and nothing is launched. Another version has the bits of a fresh call, where
/// the first had them.
pub(super) fn weights_are_kept(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let formats = [
        Format::Fp8Block128x128(Fp8::E4m3),
        Format::NvFp4Square,
        Format::Fp8Row(Fp8::E4m3),
    ];
    for (index, format) in formats.into_iter().enumerate() {
        let told = |error: Error| format!("{error}\n    in a cache of {format}");
        let kept = kept(device(subject, index)?, format).map_err(told)?;
        kept.map_err(|wrong| format!("{wrong} in a cache of {format}"))?;
        held.problems += 1;
    }
    Ok(held)
}

fn kept(device: &Device, format: Format) -> evenkeel::Result<Result<(), &'static str>> {
    const SHAPE: [usize; 2] = [130, 144];
    let stream = device.stream()?;
    let mut random = Random::new(7);
    let mut draw = || -> Vec<f32> {
        let values = 0..SHAPE[0] * SHAPE[1];
        values
            .map(|_| random.below(2001) as f32 / 1e3 - 1.0)
            .collect()
    };
    let mut weight = stream.upload(&SHAPE, &draw())?;
    let plain = OutputOptions::new();
    let op = Quantize::new(format).rowwise(plain).transposed(plain);
    let mut cache = WeightCache::new(op.prepare(&stream)?, SHAPE[0], SHAPE[1], 0)?;

    let first = bytes(cache.get(weight.view(), 1, QuantizeArguments::default())?)?;
    weight.write(&draw())?;
    let _ = crate::traffic::taken(&stream);
    let kept = bytes(cache.get(weight.view(), 1, QuantizeArguments::default())?)?;
    let moved = crate::traffic::taken(&stream);
    if moved.loads + moved.stores > 0 || kept != first {
        return Ok(Err("a version was quantised twice"));
    }
    let second = bytes(cache.get(weight.view(), 2, QuantizeArguments::default())?)?;
    let fresh = op.prepare(&stream)?;
    let fresh = bytes(&fresh.quantize(weight.view(), QuantizeArguments::default())?)?;
    let contents = |all: &[(u64, Vec<u8>)]| -> Vec<Vec<u8>> {
        all.iter().map(|(_, bytes)| bytes.clone()).collect()
    };
    let addresses =
        |all: &[(u64, Vec<u8>)]| -> Vec<u64> { all.iter().map(|(address, _)| *address).collect() };
    Ok(if contents(&second) != contents(&fresh) {
        Err("other bits than those of a fresh call")
    } else if addresses(&second) != addresses(&first) {
        Err("other memory than that of the first version")
    } else {
        Ok(())
    })
}

/// Every buffer of both outputs: where it is, and its bytes.
fn bytes(quantized: &Quantized) -> evenkeel::Result<Vec<(u64, Vec<u8>)>> {
    let outputs = [&quantized.rowwise, &quantized.transposed];
    let buffers = |tensor: &'_ QuantizedTensor| {
        let QuantizedTensor {
            data,
            scales,
            tensor_scale,
            ..
        } = tensor;
        let scales = scales.iter().chain(tensor_scale);
        std::iter::once(data)
            .chain(scales)
            .map(|buffer| Ok((buffer.view().address(), download(buffer)?)))
            .collect::<Vec<_>>()
    };
    outputs.into_iter().flatten().flat_map(buffers).collect()
}
