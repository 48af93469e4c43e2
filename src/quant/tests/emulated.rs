//! The kernels give the bits of the reference, without findings and without bank conflicts.

use super::*;
use crate::Device;
use crate::quant::{
    Dequantize, Format, Hadamard, OutputArguments, Quantize, QuantizeArguments, Rounding,
    ScaleLayout, ScaleRounding, Scaling,
};
use crate::reference::Indices;

/// One call of an operation.
struct Case<'a> {
    quantize: Quantize,
    dtype: DType,
    shape: [usize; 2],
    values: &'a [f32],
    /// Padding after each row of the input.
    gap: usize,
    groups: Option<&'a [i64]>,
    given: Option<f32>,
    offset: u64,
}

impl Case<'_> {
    #[track_caller]
    fn check(&self, stream: &Stream, conflicts: bool) {
        let [rows, columns] = self.shape;
        let what = format!(
            "{:?} {} {:?} gap {} groups {:?}",
            self.quantize, self.dtype, self.shape, self.gap, self.groups
        );
        let (rounded, memory) = upload(stream, self.dtype, [columns, self.gap], self.values);
        let x = memory
            .view()
            .strided(&[rows, columns], columns + self.gap)
            .unwrap();
        let groups = self
            .groups
            .map(|offsets| stream.upload(&[offsets.len()], offsets).unwrap());
        let count = self.groups.map_or(1, |offsets| offsets.len() - 1);
        let given = self
            .given
            .map(|given| stream.upload(&[count], &vec![given; count]).unwrap());
        let outputs = self.quantize.outputs();
        let mut amax = [(); 2].map(|()| stream.zeros(DType::F32, &[count]).unwrap());
        let mut counts = [(); 2].map(|()| stream.zeros(DType::U32, &[2]).unwrap());
        let result = {
            let [row_amax, column_amax] = &mut amax;
            let [row_counts, column_counts] = &mut counts;
            let mut arguments = QuantizeArguments::default().offset(self.offset);
            arguments.groups = groups.as_ref().map(Buffer::view);
            for (output, arguments, amax, counts) in [
                (outputs[0], &mut arguments.rowwise, row_amax, row_counts),
                (
                    outputs[1],
                    &mut arguments.transposed,
                    column_amax,
                    column_counts,
                ),
            ] {
                if output.is_none() {
                    continue;
                }
                *arguments = OutputArguments::default()
                    .amax(amax.view_mut())
                    .counts(counts.view_mut());
                arguments.tensor_scale = given.as_ref().map(Buffer::view);
            }
            let op = self.quantize.prepare(stream).unwrap();
            op.quantize(x, arguments).unwrap()
        };
        stream.synchronize().unwrap();
        for report in stream.take_reports() {
            assert!(report.is_clean(), "{what}: {:?}", report.findings);
            if conflicts {
                let sites = &report.traffic.bank_conflict_sites;
                assert_eq!(report.traffic.bank_conflicts, 0, "{what}: {sites:?}");
            }
        }
        let scales = vec![self.given.unwrap_or_default(); count];
        let mut status = crate::Status::empty();
        for (index, direction) in Direction::ALL.into_iter().enumerate() {
            let Some(output) = outputs[index] else {
                continue;
            };
            let call = Call {
                offset: self.offset,
                tensor_scales: self.given.map(|_| scales.as_slice()),
                groups: self.groups.map(Indices::I64),
            };
            let expected = expected(
                self.quantize.options(),
                &output,
                direction,
                (&rounded, self.shape),
                &call,
            );
            let got = [&result.rowwise, &result.transposed][index]
                .as_ref()
                .unwrap();
            let what = format!("{direction:?} {what}");
            same_bits(got, &expected, &what);
            self.check_values(stream, got, groups.as_ref(), &what);
            assert_eq!(
                amax[index].read::<f32>().unwrap(),
                expected.amaxes,
                "{what}"
            );
            let found = [expected.saturated as u32, expected.underflowed as u32];
            assert_eq!(counts[index].read::<u32>().unwrap(), found, "{what}");
            status |= expected.status;
        }
        match stream.check() {
            Ok(()) => assert_eq!(status, crate::Status::empty(), "{what}"),
            Err(Error::Data(found)) => assert_eq!(found, status, "{what}"),
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

impl Case<'_> {
    /// That an output is dequantised to the bits that the CPU device gives.
    #[track_caller]
    fn check_values(
        &self,
        stream: &Stream,
        output: &QuantizedTensor,
        groups: Option<&Buffer>,
        what: &str,
    ) {
        let dtype = if self.offset.is_multiple_of(2) {
            DType::F32
        } else {
            self.dtype
        };
        let mut q = output.view();
        q.groups = groups.map(Buffer::view);
        let op = Dequantize::new().prepare(stream).unwrap();
        let got = op.dequantize(q, dtype).unwrap();
        for report in stream.take_reports() {
            assert!(report.is_clean(), "{what}: {:?}", report.findings);
        }
        let cpu = Device::cpu().stream().unwrap();
        let copy = |buffer: &Buffer| -> Buffer {
            fn typed<T: crate::Element>(cpu: &Stream, buffer: &Buffer) -> Buffer {
                cpu.upload(buffer.shape(), &buffer.read::<T>().unwrap())
                    .unwrap()
            }
            match buffer.dtype() {
                DType::E4m3 => typed::<E4m3>(&cpu, buffer),
                DType::E5m2 => typed::<E5m2>(&cpu, buffer),
                DType::E8m0 => typed::<E8m0>(&cpu, buffer),
                DType::E2m1x2 => typed::<E2m1x2>(&cpu, buffer),
                DType::I64 => typed::<i64>(&cpu, buffer),
                _ => typed::<f32>(&cpu, buffer),
            }
        };
        let data = copy(&output.data);
        let scales = output.scales.as_ref().map(copy);
        let tensor_scale = output.tensor_scale.as_ref().map(copy);
        let groups = groups.map(copy);
        let mut q = output.view();
        q.data = data.view();
        q.scales = scales.as_ref().map(Buffer::view);
        q.tensor_scale = tensor_scale.as_ref().map(Buffer::view);
        q.groups = groups.as_ref().map(Buffer::view);
        let op = Dequantize::new().prepare(&cpu).unwrap();
        let expected = op.dequantize(q, dtype).unwrap();
        fn bits(buffer: &Buffer) -> Vec<u32> {
            let of = |value: f32| {
                if value.is_nan() {
                    0x7fc0_0000
                } else {
                    value.to_bits()
                }
            };
            match buffer.dtype() {
                DType::Bf16 => {
                    let values = buffer.read::<bf16>().unwrap();
                    values.into_iter().map(|value| of(value.to_f32())).collect()
                }
                DType::F16 => {
                    let values = buffer.read::<f16>().unwrap();
                    values.into_iter().map(|value| of(value.to_f32())).collect()
                }
                _ => buffer.read::<f32>().unwrap().into_iter().map(of).collect(),
            }
        }
        let (got, expected) = (bits(&got), bits(&expected));
        let differs = (0..got.len()).find(|&at| got[at] != expected[at]);
        if let Some(at) = differs {
            let (got, expected) = (got[at], expected[at]);
            panic!("{what}: value {at} is {got:#010x}, not {expected:#010x}");
        }
    }
}

fn emulated(seed: u64) -> Stream {
    let options = crate::EmulatorOptions::new().seed(seed);
    Device::emulated_with(options).unwrap().stream().unwrap()
}

fn both(options: QuantizeOptions) -> Quantize {
    Quantize::new(options)
        .rowwise(OutputOptions::new())
        .transposed(OutputOptions::new())
}

/// A case of both outputs of bf16 values, to be changed.
fn case(quantize: Quantize, shape: [usize; 2], values: &[f32]) -> Case<'_> {
    Case {
        quantize,
        dtype: DType::Bf16,
        shape,
        values,
        gap: 0,
        groups: None,
        given: None,
        offset: 5,
    }
}

#[test]
fn every_format_has_the_references_bits() {
    for (index, format) in Format::ALL.into_iter().enumerate() {
        let stream = emulated(index as u64);
        for (dtype, shape, gap) in [
            (DType::Bf16, [132, 136], 0),
            (DType::F16, [33, 70], 3),
            (DType::F32, [40, 144], 0),
            (DType::F32, [9, 131], 1),
        ] {
            let values = numbers(shape[0] * shape[1], 7 + index as u64);
            for rounding in [Rounding::Nearest, Rounding::Stochastic { seed: 11 }] {
                let mut case = case(
                    both(QuantizeOptions::new(format).rounding(rounding)),
                    shape,
                    &values,
                );
                (case.dtype, case.gap) = (dtype, gap);
                case.check(&stream, true);
            }
        }
    }
}

#[test]
fn scales_of_other_rules_have_the_references_bits() {
    let stream = emulated(3);
    let shape = [48, 160];
    let mut values = numbers(shape[0] * shape[1], 5);
    // Blocks of zeros, of subnormal and of huge numbers.
    values[..1600].fill(0.0);
    for (index, value) in values[3200..].iter_mut().enumerate() {
        *value *= [1e-38, 1e37, 1e-42, 1.0][index / 160 % 4];
    }
    let mut all = Vec::new();
    for format in Format::ALL {
        if format.has_f32_scales() {
            all.push((QuantizeOptions::new(format).power_of_two(), None));
        }
        if matches!(format, Format::MxFp8(_) | Format::MxFp4) {
            all.push((
                QuantizeOptions::new(format).scale_rounding(ScaleRounding::Ceil),
                None,
            ));
        }
        if format.needs_tensor_amax() {
            for given in [0.01, 3e-20, 2e-39, 3e38] {
                let options = QuantizeOptions::new(format).scaling(Scaling::Given);
                all.push((options, Some(given)));
            }
        }
        all.push((QuantizeOptions::new(format), None));
    }
    for (options, given) in all {
        for dtype in [DType::Bf16, DType::F32] {
            let mut case = case(both(options), shape, &values);
            (case.dtype, case.given) = (dtype, given);
            case.check(&stream, true);
        }
    }
}

#[test]
fn special_values_have_the_references_bits() {
    let stream = emulated(4);
    let shape = [40, 96];
    let mut values = numbers(shape[0] * shape[1], 6);
    for (at, value) in [
        (3, f32::NAN),
        (500, f32::INFINITY),
        (1700, f32::NEG_INFINITY),
        (2500, -0.0),
        (3000, f32::NAN),
    ] {
        values[at] = value;
    }
    for format in Format::ALL {
        for rounding in [Rounding::Nearest, Rounding::Stochastic { seed: 1 }] {
            let options = QuantizeOptions::new(format).rounding(rounding);
            case(both(options), shape, &values).check(&stream, true);
        }
    }
}

#[test]
fn layouts_and_single_outputs_have_the_references_bits() {
    let stream = emulated(5);
    let shape = [140, 100];
    let values = numbers(shape[0] * shape[1], 8);
    for format in Format::ALL {
        for layout in ScaleLayout::ALL {
            if !layout.fits(format) {
                continue;
            }
            let output = OutputOptions::new().layout(layout);
            if !matches!(format, Format::Fp8Row(_)) {
                case(Quantize::new(format).rowwise(output), shape, &values).check(&stream, true);
            }
            case(Quantize::new(format).transposed(output), shape, &values).check(&stream, true);
        }
    }
}

#[test]
fn rotations_have_the_references_bits() {
    let stream = emulated(6);
    let shape = [128, 256];
    let values = numbers(shape[0] * shape[1], 9);
    for (index, format) in Format::ALL.into_iter().enumerate() {
        let n = [16, 32, 128][index % 3];
        let rotated = OutputOptions::new().rotation(Hadamard::new(n, 40 + index as u64));
        let plain = OutputOptions::new();
        for [rowwise, transposed] in [[plain, rotated], [rotated, plain], [rotated, rotated]] {
            let quantize = Quantize::new(format)
                .rowwise(rowwise)
                .transposed(transposed);
            case(quantize, shape, &values).check(&stream, true);
        }
        let stochastic = QuantizeOptions::new(format).rounding(Rounding::Stochastic { seed: 3 });
        case(
            Quantize::new(stochastic).transposed(rotated),
            shape,
            &values,
        )
        .check(&stream, true);
    }
}

#[test]
fn groups_have_the_references_bits() {
    let stream = emulated(7);
    let shape = [300, 24];
    let values = numbers(shape[0] * shape[1], 10);
    for offsets in [
        &[0_i64, 34, 34, 170, 300][..],
        &[0, 300],
        &[4, 131, 200, 290],
        &[0, 200, 100, 300],
        &[-1, 300],
    ] {
        for format in Format::ALL {
            for layout in ScaleLayout::ALL {
                if !layout.fits(format) || (offsets.len() < 5 && layout != ScaleLayout::RowMajor) {
                    continue;
                }
                let output = OutputOptions::new().layout(layout);
                let quantize = Quantize::new(format).rowwise(output).transposed(output);
                let mut case = case(quantize, shape, &values);
                case.groups = Some(offsets);
                case.check(&stream, false);
            }
            let rotated = OutputOptions::new().rotation(Hadamard::new(32, 2));
            let quantize = Quantize::new(format).transposed(rotated);
            let mut case = case(quantize, shape, &values);
            case.groups = Some(offsets);
            case.check(&stream, false);
        }
    }
}

#[test]
fn scales_of_a_byte_lie_anywhere() {
    let stream = emulated(3);
    let [rows, columns] = [300, 72];
    let values = numbers(rows * columns, 11);
    let x = stream.upload(&[rows, columns], &values).unwrap();
    let offsets = stream.upload(&[3], &[0_i64, 34, 300]).unwrap();
    for layout in ScaleLayout::ALL {
        for groups in [0, 2] {
            let output = OutputOptions::new().layout(layout);
            let quantize = Quantize::new(Format::MxFp4)
                .rowwise(output)
                .transposed(output);
            let op = quantize.prepare(&stream).unwrap();
            let arguments = || QuantizeArguments {
                groups: (groups > 0).then(|| offsets.view()),
                ..QuantizeArguments::default()
            };
            let expected = op.quantize(x.view(), arguments()).unwrap();
            let mut whole = op.allocate(rows, columns, groups).unwrap();
            let [scales, transposed] = [&expected.rowwise, &expected.transposed].map(|output| {
                let scales = output.as_ref().unwrap().scales.as_ref().unwrap();
                scales.read::<crate::E8m0>().unwrap()
            });
            let mut shifted = [&scales, &transposed].map(|scales| {
                let around = vec![crate::E8m0::from_bits(9); scales.len() + 5];
                stream.upload(&[around.len()], &around).unwrap()
            });
            {
                let [first, second] = &mut shifted;
                let mut outputs = whole.outputs();
                let views = [
                    (&mut outputs.rowwise, first, scales.len()),
                    (&mut outputs.transposed, second, transposed.len()),
                ];
                for (output, memory, count) in views {
                    let shape = expected_shape(output.as_ref().unwrap());
                    let view = memory.view_mut().slice_rows(3..3 + count).unwrap();
                    output.as_mut().unwrap().scales = Some(view.reshape(&shape).unwrap());
                }
                op.quantize_into(x.view(), arguments(), &mut outputs)
                    .unwrap();
            }
            for (memory, expected) in shifted.iter().zip([&scales, &transposed]) {
                let got: Vec<crate::E8m0> = memory.read().unwrap();
                let (before, rest) = got.split_at(3);
                let (got, after) = rest.split_at(expected.len());
                assert_eq!(got, &expected[..], "{layout} {groups}");
                let around = before.iter().chain(after);
                assert!(around.into_iter().all(|scale| scale.to_bits() == 9));
            }
            for report in stream.take_reports() {
                assert!(report.is_clean(), "{layout}: {:?}", report.findings);
            }
        }
    }
}

/// The shape that an output's scales have.
fn expected_shape(output: &crate::quant::QuantizedMut<'_>) -> Vec<usize> {
    output.scales.as_ref().unwrap().shape().to_vec()
}
