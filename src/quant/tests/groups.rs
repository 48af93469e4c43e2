//! Groups of rows on the CPU.

use super::*;
use crate::Status;
use crate::quant::{
    Dequantize, Format, Fp8, Hadamard, OutputArguments, Quantize, QuantizeArguments,
};
use crate::reference::Indices;

const OFFSETS: [i32; 5] = [0, 32, 32, 132, 180];
const SHAPE: [usize; 2] = [180, 48];

#[test]
fn every_format_is_the_reference() {
    let stream = cpu();
    let values = numbers(SHAPE[0] * SHAPE[1], 21);
    let x = stream.upload(&SHAPE, &values).unwrap();
    let offsets = stream.upload(&[5], &OFFSETS).unwrap();
    for format in Format::ALL {
        let output = OutputOptions::new();
        let op = Quantize::new(format).rowwise(output).transposed(output);
        let op = op.prepare(&stream).unwrap();
        let mut amax = stream.zeros(DType::F32, &[4]).unwrap();
        let arguments = QuantizeArguments::default()
            .groups(offsets.view())
            .rowwise(OutputArguments::default().amax(amax.view_mut()));
        let q = op.quantize(x.view(), arguments).unwrap();
        let call = Call {
            groups: Some(Indices::I32(&OFFSETS)),
            ..Call::default()
        };
        let options = op.configuration().options();
        for (tensor, direction) in [
            (&q.rowwise, Direction::RowWise),
            (&q.transposed, Direction::Transposed),
        ] {
            let expected = expected(options, &output, direction, (&values, SHAPE), &call);
            let tensor = tensor.as_ref().unwrap();
            same_bits(tensor, &expected, &format!("{format} {direction:?}"));
            assert_eq!(amax.read::<f32>().unwrap(), expected.amaxes);
        }
        // Both directions decode to values near x; without its groups a transpose has other scales.
        let values_of = Dequantize::new().prepare(&stream).unwrap();
        let decoded = q.transposed().unwrap().groups(offsets.view());
        let decoded = values_of.dequantize(decoded, DType::F32).unwrap();
        let decoded = decoded.read::<f32>().unwrap();
        // MX scales that were rounded down lose an eighth or a quarter of the largest.
        let largest = values
            .iter()
            .fold(0.0_f32, |max, value| max.max(value.abs()));
        let bound = if format.fp8().is_some() { 0.13 } else { 0.26 } * largest;
        for (index, value) in values.iter().enumerate() {
            let (row, column) = (index / SHAPE[1], index % SHAPE[1]);
            let got = decoded[column * SHAPE[0] + row];
            assert!((got - value).abs() < bound, "{format}: {got} for {value}");
        }
    }
    stream.check().unwrap();
}

#[test]
fn bad_and_ragged_offsets_are_told() {
    let stream = cpu();
    let values = numbers(SHAPE[0] * SHAPE[1], 22);
    let x = stream.upload(&SHAPE, &values).unwrap();
    let run = |op: &Quantize, offsets: &[i64]| {
        let offsets = stream.upload(&[offsets.len()], offsets).unwrap();
        let op = op.prepare(&stream).unwrap();
        let arguments = QuantizeArguments::default().groups(offsets.view());
        op.quantize(x.view(), arguments).unwrap()
    };
    let plain = Quantize::new(Format::MxFp8(Fp8::E4m3));
    for offsets in [&[0, 100, 50, 180][..], &[0, 181], &[-1, 180]] {
        let q = run(&plain, offsets);
        let data = bytes(&q.rowwise.unwrap().data);
        assert!(data.iter().all(|&byte| byte == 0), "{offsets:?}");
        assert_eq!(stream.check(), Err(Error::Data(Status::BAD_GROUP_OFFSETS)));
    }
    let rotated = OutputOptions::new().rotation(Hadamard::new(32, 0));
    let rotated = plain.transposed(rotated);
    run(&rotated, &[0, 64, 96, 160]);
    stream.check().unwrap();
    run(&rotated, &[0, 65, 97, 161]);
    assert_eq!(stream.check(), Err(Error::Data(Status::RAGGED_GROUP)));
    let packed = Quantize::new(Format::MxFp4).transposed(OutputOptions::new());
    run(&packed, &[0, 65, 180]);
    assert_eq!(stream.check(), Err(Error::Data(Status::RAGGED_GROUP)));
}
