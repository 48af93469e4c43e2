//! Hopper's kernels on the emulator, against the reference on the CPU.
//!
//! Elements and scales are small integers and powers of two: every sum is exact, also with the 13
//! fraction bits that the tensor core keeps of FP8, and results are compared bit for bit.

use std::cell::Cell;

use half::{bf16, f16};

use crate::emulator::Architecture;
use crate::matmul::{
    Activation, Groups, Matmul, MatmulArguments, MatmulOutputs, Operand, OperandFormat, Promotion,
};
use crate::quant::{Format, Fp8, QuantizedRef, ScaleLayout};
use crate::{Buffer, DType, Device, E4m3, E5m2, EmulatorOptions, Error, Stream};

mod epilogue;
mod groups;
mod shapes;

thread_local! {
    /// The tile and the cluster that calls of this thread are launched with, whatever their shape.
    pub(in super::super) static FORCED: Cell<Option<(usize, u32)>> = const { Cell::new(None) };
}

/// Forces a tile (the larger is 0) and a cluster, until dropped.
struct Forced;

impl Forced {
    fn new(tile: usize, cluster: u32) -> Self {
        FORCED.set(Some((tile, cluster)));
        Self
    }
}

impl Drop for Forced {
    fn drop(&mut self) {
        FORCED.set(None);
    }
}

/// Of two multiprocessors, so that a block, and a pair, takes several tiles.
fn emulated(seed: u64) -> Stream {
    let options = EmulatorOptions::new()
        .architecture(Architecture::sm_90().with_multiprocessors(2))
        .seed(seed);
    Device::emulated_with(options).unwrap().stream().unwrap()
}

fn cpu() -> Stream {
    Device::cpu().stream().unwrap()
}

/// Numbers without structure.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Integers of -2 to 2.
    fn elements(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.bits() % 5) as f32 - 2.0).collect()
    }

    /// 0.5, 1 and 2.
    fn scales(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| [0.5, 1.0, 2.0][self.bits() as usize % 3])
            .collect()
    }
}

/// `[rows, columns]` in rows of `stride`; what lies between is infinite.
fn upload(stream: &Stream, dtype: DType, values: &[f32], columns: usize, stride: usize) -> Buffer {
    let rows = values.len() / columns.max(1);
    let mut all = vec![f32::INFINITY; rows * stride];
    for (row, values) in values.chunks(columns.max(1)).enumerate() {
        all[row * stride..][..columns].copy_from_slice(values);
    }
    let shape = [rows, stride];
    let all = all.iter();
    match dtype {
        DType::Bf16 => stream.upload(&shape, &all.map(|x| bf16::from_f32(*x)).collect::<Vec<_>>()),
        DType::F16 => stream.upload(&shape, &all.map(|x| f16::from_f32(*x)).collect::<Vec<_>>()),
        DType::E4m3 => {
            // E4M3 has no infinity: NaN.
            let all = all.map(|x| E4m3::from_f32(if x.is_finite() { *x } else { f32::NAN }));
            stream.upload(&shape, &all.collect::<Vec<_>>())
        }
        DType::E5m2 => {
            let all = all.map(|x| E5m2::from_f32(if x.is_finite() { *x } else { f32::NAN }));
            stream.upload(&shape, &all.collect::<Vec<_>>())
        }
        _ => stream.upload(&shape, &all.copied().collect::<Vec<_>>()),
    }
    .unwrap()
}

fn numbers(buffer: &Buffer) -> Vec<f32> {
    match buffer.view().dtype() {
        DType::Bf16 => {
            let all = buffer.read::<bf16>().unwrap();
            all.iter().map(|x| x.to_f32()).collect()
        }
        DType::F16 => {
            let all = buffer.read::<f16>().unwrap();
            all.iter().map(|x| x.to_f32()).collect()
        }
        DType::E4m3 => {
            let all = buffer.read::<E4m3>().unwrap();
            all.iter().map(|x| x.to_f32()).collect()
        }
        DType::E5m2 => {
            let all = buffer.read::<E5m2>().unwrap();
            all.iter().map(|x| x.to_f32()).collect()
        }
        _ => buffer.read::<f32>().unwrap(),
    }
}

/// What offsets divide, with the offsets.
#[derive(Clone, Copy, Debug)]
enum Ranges<'a> {
    One,
    Rows(&'a [i64]),
    Contraction(&'a [i32]),
}

/// One product.
#[derive(Clone, Copy, Debug)]
struct Case<'a> {
    formats: [OperandFormat; 2],
    m: usize,
    n: usize,
    k: usize,
    ranges: Ranges<'a>,
    dtype: DType,
    promotion: Promotion,
    activation: Activation,
    /// Elements between rows of operands and of the result, beyond a multiple of 16 bytes.
    padding: usize,
    /// Alpha, a bias, C, the pre-activation and the amax.
    full: bool,
    /// beta of what the output holds.
    accumulate: Option<f32>,
}

/// What a product wrote, the pre-activation and the amax too.
type Outcome = Result<(Vec<u32>, Option<Error>), Error>;

const BF16: OperandFormat = OperandFormat::Bf16;
const F16: OperandFormat = OperandFormat::F16;
const TENSOR: OperandFormat = OperandFormat::Quantized(Format::Fp8Tensor(Fp8::E4m3));
const ROW: OperandFormat = OperandFormat::Quantized(Format::Fp8Row(Fp8::E4m3));
const BLOCK: OperandFormat = OperandFormat::Quantized(Format::Fp8Block1x128(Fp8::E4m3));
const SQUARE: OperandFormat = OperandFormat::Quantized(Format::Fp8Block128x128(Fp8::E4m3));

fn case(formats: [OperandFormat; 2], m: usize, n: usize, k: usize) -> Case<'static> {
    Case {
        formats,
        m,
        n,
        k,
        ranges: Ranges::One,
        dtype: DType::Bf16,
        promotion: Promotion::Every128,
        activation: Activation::None,
        padding: 0,
        full: false,
        accumulate: None,
    }
}

/// An operand's elements and scales.
struct Uploaded {
    format: OperandFormat,
    rows: usize,
    k: usize,
    data: Buffer,
    scales: Option<Buffer>,
    groups: Option<Buffer>,
}

impl Uploaded {
    fn new(stream: &Stream, random: &mut Random, case: &Case<'_>, index: usize) -> Self {
        let format = case.formats[index];
        let rows = match (index, case.ranges) {
            (0, _) => case.m,
            (_, Ranges::Rows(offsets)) => case.n * (offsets.len() - 1),
            _ => case.n,
        };
        let dtype = format.data_dtype();
        let unit = 16 / dtype.size();
        let stride = case.k.next_multiple_of(unit) + case.padding * unit;
        let data = upload(
            stream,
            dtype,
            &random.elements(rows * case.k),
            case.k,
            stride,
        );
        let blocks = match case.ranges {
            Ranges::Contraction(offsets) => case.k / 128 + offsets.len() - 1,
            _ => case.k.div_ceil(128),
        };
        let count = match format {
            OperandFormat::Quantized(Format::Fp8Tensor(_)) => Some([1, 1]),
            OperandFormat::Quantized(Format::Fp8Row(_)) => Some([rows, 1]),
            OperandFormat::Quantized(Format::Fp8Block1x128(_)) => Some([blocks, rows]),
            OperandFormat::Quantized(_) => Some([rows.div_ceil(128), blocks]),
            _ => None,
        };
        let scales = count.map(|[outer, inner]| {
            let values = random.scales(outer * inner);
            upload(stream, DType::F32, &values, inner, inner)
        });
        let groups = match (case.ranges, format) {
            (Ranges::Contraction(offsets), OperandFormat::Quantized(Format::Fp8Block1x128(_))) => {
                Some(stream.upload(&[offsets.len()], offsets).unwrap())
            }
            _ => None,
        };
        Self {
            format,
            rows,
            k: case.k,
            data,
            scales,
            groups,
        }
    }

    fn operand(&self) -> Operand<'_> {
        let data = self.data.view().slice_columns(0..self.k).unwrap();
        let OperandFormat::Quantized(format) = self.format else {
            return data.into();
        };
        let mut tensor = QuantizedRef::new(format, self.rows, self.k, data);
        let scales = self.scales.as_ref().unwrap().view();
        tensor = match format {
            Format::Fp8Tensor(_) => tensor.tensor_scale(scales.reshape(&[1]).unwrap()),
            Format::Fp8Block1x128(_) => tensor.scales(scales, ScaleLayout::ColumnMajor),
            _ => tensor.scales(scales, ScaleLayout::RowMajor),
        };
        if let Some(groups) = &self.groups {
            tensor = tensor.transposed().groups(groups.view());
        }
        tensor.into()
    }
}

/// Runs a case: the bits of all it wrote, the places between rows included.
fn run(stream: &Stream, case: &Case<'_>) -> Outcome {
    let mut random = Random(7);
    let [a, b] = [0, 1].map(|index| Uploaded::new(stream, &mut random, case, index));
    let rows = match case.ranges {
        Ranges::Contraction(offsets) => case.m * (offsets.len() - 1),
        _ => case.m,
    };
    let columns = case.activation.output_columns(case.n);
    let unit = 16 / case.dtype.size();
    let stride = columns.next_multiple_of(unit) + case.padding * unit;
    let held = random.elements(rows * columns);
    let mut out = upload(stream, case.dtype, &held, columns, stride);
    let bias_rows = match case.ranges {
        Ranges::Rows(offsets) => offsets.len() - 1,
        _ => 1,
    };
    let bias = upload(
        stream,
        DType::F32,
        &random.elements(bias_rows * case.n),
        case.n,
        case.n,
    );
    let c = upload(
        stream,
        DType::F32,
        &random.elements(rows * case.n),
        case.n,
        case.n,
    );
    let alpha = stream.upload(&[1], &[0.5_f32]).unwrap();
    let scale = stream.upload(&[1], &[2.0_f32]).unwrap();
    let mut pre = upload(
        stream,
        DType::F32,
        &held.repeat(case.n / columns),
        case.n,
        case.n,
    );
    let mut amax = stream.upload(&[1], &[0.0_f32]).unwrap();
    let offsets = match case.ranges {
        Ranges::One => None,
        Ranges::Rows(offsets) => Some(stream.upload(&[offsets.len()], offsets).unwrap()),
        Ranges::Contraction(offsets) => Some(stream.upload(&[offsets.len()], offsets).unwrap()),
    };
    let operation = Matmul::new(case.formats[0], case.formats[1])
        .promotion(case.promotion)
        .activation(case.activation)
        .prepare(stream)?;
    let mut arguments = MatmulArguments::default();
    if let Some(offsets) = &offsets {
        arguments = arguments.groups(match case.ranges {
            Ranges::Contraction(_) => Groups::Contraction(offsets.view()),
            _ => Groups::Rows(offsets.view()),
        });
    }
    if matches!(case.dtype, DType::E4m3 | DType::E5m2) {
        arguments = arguments.output_scale(scale.view());
    }
    if let Some(beta) = case.accumulate {
        arguments = arguments.accumulate(beta);
    }
    let view = out.view_mut().slice_columns(0..columns).unwrap();
    let mut outputs = MatmulOutputs::new(view);
    if case.full {
        arguments = arguments.alpha(alpha.view()).c(c.view(), 2.0);
        if !matches!(case.ranges, Ranges::Contraction(_)) {
            arguments = arguments.bias(bias.view().reshape(&[bias_rows * case.n]).unwrap());
        }
        outputs = outputs.pre_activation(pre.view_mut()).amax(amax.view_mut());
    }
    let groups = bias_rows * usize::from(matches!(case.ranges, Ranges::Rows(_)));
    let bytes = operation.workspace_bytes(case.m, case.n, case.k, groups);
    let mut workspace = stream.zeros(DType::U8, &[bytes]).unwrap();
    outputs = outputs.workspace(workspace.view_mut());
    operation.multiply_into(a.operand(), b.operand(), arguments, &mut outputs)?;
    let mut bits: Vec<u32> = Vec::new();
    for buffer in [&out, &pre, &amax] {
        bits.extend(numbers(buffer).iter().map(|x| (x + 0.0).to_bits()));
    }
    Ok((bits, stream.check().err()))
}

/// That a case with this tile and cluster gives what the reference gives.
fn check(case: &Case<'_>, tile: usize, cluster: u32, seed: u64) {
    let _forced = Forced::new(tile, cluster);
    let (expected, expected_status) = run(&cpu(), case).unwrap();
    let stream = emulated(seed);
    let (found, status) = match run(&stream, case) {
        Ok(found) => found,
        Err(error) => panic!("{case:?}, tile {tile}, cluster {cluster}, seed {seed}: {error}"),
    };
    assert_eq!(status, expected_status, "{case:?}");
    let reports = stream.take_reports();
    let kernel = reports.last().map_or("", |report| report.kernel.as_str());
    assert!(kernel.starts_with("matmul_hopper_"), "{case:?} by {kernel}");
    let wrong = expected.iter().zip(&found).filter(|(a, b)| a != b).count();
    if let Some(index) = (0..expected.len()).find(|&i| expected[i] != found[i]) {
        panic!(
            "{case:?}, tile {tile}, cluster {cluster}, seed {seed}: number {index} is {} and not {}; {wrong} of {} differ",
            f32::from_bits(found[index]),
            f32::from_bits(expected[index]),
            expected.len(),
        );
    }
}
