//! The weight cache on the CPU.

use super::*;
use crate::quant::{
    Format, Fp8, Hadamard, OutputArguments, Quantize, QuantizeArguments, WeightCache,
};

const FORMAT: Format = Format::Fp8Block128x128(Fp8::E4m3);

fn none<'a>() -> QuantizeArguments<'a> {
    QuantizeArguments::default()
}

fn cache(stream: &Stream, format: Format, groups: usize) -> WeightCache {
    let output = OutputOptions::new();
    let op = Quantize::new(format).rowwise(output).transposed(output);
    WeightCache::new(op.prepare(stream).unwrap(), 4, 32, groups).unwrap()
}

/// The bytes of both outputs.
fn held(cache: &WeightCache) -> [Vec<u8>; 2] {
    let q = cache.quantized().unwrap();
    [&q.rowwise, &q.transposed].map(|output| bytes(&output.as_ref().unwrap().data))
}

#[test]
fn a_version_is_quantised_once() {
    let stream = cpu();
    let mut weight = stream.upload(&[4, 32], &numbers(128, 1)).unwrap();
    let mut cache = cache(&stream, FORMAT, 0);
    assert!(cache.version().is_none() && cache.quantized().is_none());
    cache.get(weight.view(), 1, none()).unwrap();
    let first = held(&cache);
    let address = cache.quantized().unwrap().rowwise().unwrap().data.address();
    // The weight changes and the version does not: nothing is read.
    weight.write(&numbers(128, 2)).unwrap();
    let mut amax = stream.zeros(DType::F32, &[1]).unwrap();
    let report = none().rowwise(OutputArguments::default().amax(amax.view_mut()));
    cache.get(weight.view(), 1, report).unwrap();
    assert_eq!(held(&cache), first);
    assert_eq!(amax.read::<f32>().unwrap(), [0.0]);

    let report = none().rowwise(OutputArguments::default().amax(amax.view_mut()));
    let q = cache.get(weight.view(), 2, report).unwrap();
    assert_eq!(q.rowwise().unwrap().data.address(), address);
    assert!(amax.read::<f32>().unwrap()[0] > 0.0);
    assert_eq!(cache.version(), Some(2));
    let second = held(&cache);
    let op = Quantize::new(FORMAT).transposed(OutputOptions::new());
    let fresh = op.prepare(&stream).unwrap().quantize(weight.view(), none());
    let fresh = fresh.unwrap().transposed.unwrap();
    assert!(second[0] != first[0] && second[1] == bytes(&fresh.data));

    weight.write(&numbers(128, 3)).unwrap();
    cache.invalidate();
    assert!(cache.quantized().is_none());
    cache.get(weight.view(), 2, none()).unwrap();
    assert_ne!(held(&cache), second);
}

#[test]
fn another_weight_is_another_version() {
    let stream = cpu();
    let [first, second] = [1, 2].map(|seed| {
        let values = numbers(128, seed);
        stream.upload(&[4, 32], &values).unwrap()
    });
    let mut cache = cache(&stream, FORMAT, 0);
    cache.get(first.view(), 1, none()).unwrap();
    let of_first = held(&cache);
    cache.get(second.view(), 1, none()).unwrap();
    assert_ne!(held(&cache), of_first);
}

#[test]
fn nothing_is_held_after_a_refusal() {
    let stream = cpu();
    let weight = stream.upload(&[4, 32], &numbers(128, 1)).unwrap();
    let mut cache = cache(&stream, FORMAT, 0);
    cache.get(weight.view(), 1, none()).unwrap();
    let wrong = stream.zeros(DType::F32, &[2]).unwrap();
    let arguments = none().rowwise(OutputArguments::default().amax(again(&wrong)));
    let result = cache.get(weight.view(), 2, arguments).map(|_| ());
    assert_eq!(refused(result), "rowwise.amax");
    assert_eq!(cache.version(), None);
}

#[test]
fn wrong_arguments() {
    let stream = cpu();
    let mut cache = cache(&stream, Format::NvFp4Square, 2);
    assert!(cache.bytes() > 2 * 64);
    let offsets = stream.upload(&[3], &[0_i64, 2, 4]).unwrap();
    let weight = stream.upload(&[4, 32], &numbers(128, 1)).unwrap();
    let groups = |view| none().groups(view);
    let held = cache.get(weight.view(), 1, groups(offsets.view()));
    assert!(held.is_ok());
    let mut refused = |weight: TensorRef<'_>, arguments| {
        let result = cache.get(weight, 2, arguments);
        refused(result.map(|_| ()))
    };
    assert_eq!(refused(weight.view(), none()), "groups");
    let three = stream.upload(&[4], &[0_i64, 1, 2, 4]).unwrap();
    assert_eq!(refused(weight.view(), groups(three.view())), "groups");
    let narrow = weight.view().slice_columns(0..31).unwrap();
    assert_eq!(refused(narrow, groups(offsets.view())), "weight");
    let integers = stream.zeros(DType::I32, &[4, 32]).unwrap();
    assert_eq!(refused(integers.view(), groups(offsets.view())), "weight");
    let far = elsewhere(DType::F32, &[4, 32]);
    assert_eq!(refused(far, groups(offsets.view())), "weight");

    let op = || Quantize::new(FORMAT).prepare(&stream).unwrap();
    assert_eq!(super::refused(WeightCache::new(op(), 4, 0, 0)), "columns");
    let rotation = OutputOptions::new().rotation(Hadamard::new(32, 0));
    let rotated = Quantize::new(FORMAT).rowwise(rotation).prepare(&stream);
    let cache = WeightCache::new(rotated.unwrap(), 4, 40, 0);
    assert_eq!(super::refused(cache), "rotation");
}
