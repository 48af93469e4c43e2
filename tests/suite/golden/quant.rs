//! The vectors of the low-bit formats.
//!
//! [`load`] reads the cases, [`Case::mismatches`] compares what any device computed with them, to
//! the bit; [`conversions`] reads those of single values.

use std::sync::Arc;

use evenkeel::quant::{
    Block, Format, Fp8, Hadamard, OutputOptions, QuantizeOptions, Rounding, ScaleLayout, Scaling,
};
use evenkeel::reference::quant::{Call, Direction, Matrix, Quantized, Scales, quantize};
use evenkeel::{E2m1x2, E4m3, E5m2, E8m0};

use super::{Block as Lines, blocks, numbers};

const FILE: &str = "quant.txt";

/// A matrix that cases share.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Its name in the file.
    pub name: String,
    /// The element types that hold it exactly, by name.
    pub types: Vec<String>,
    /// `[rows, columns]`.
    pub shape: [usize; 2],
    /// Row by row; NaN and infinities may be among them.
    pub x: Vec<f32>,
}

/// One output of one matrix.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its place in the file and its options, for messages.
    pub name: String,
    pub inputs: Arc<Inputs>,
    pub options: QuantizeOptions,
    pub output: OutputOptions,
    pub direction: Direction,
    /// The upper half of the random numbers' counter.
    pub offset: u64,
    /// The tensor's scale, where it is given.
    pub given: Option<f32>,
    /// Rows of each group; none where the matrix is one.
    pub groups: Vec<usize>,
    /// Scales lie as the output has them.
    pub expected: Results,
}

/// What was computed, or should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Stored elements, row by row.
    pub data: Vec<u8>,
    /// Scales of rows and blocks: bits of f32, or bytes.
    pub scales: Vec<u32>,
    /// The bits of the tensor's scale, or of each group's, if the format has one.
    pub tensor_scale: Vec<u32>,
    /// The bits of the largest finite magnitude, or of each group's.
    pub amax: Vec<u32>,
    /// Saturated and underflowed elements.
    pub counts: [u64; 2],
}

impl Case {
    /// What of `got` is not as expected, to the bit.
    pub fn mismatches(&self, got: &Results) -> Vec<String> {
        let want = &self.expected;
        let mut found = Vec::new();
        let mut compare = |what: &str, got: &[u64], want: &[u64]| {
            if got.len() != want.len() {
                let (got, want) = (got.len(), want.len());
                found.push(format!("{}: {want} {what}, got {got}", self.name));
            }
            let differ = got.iter().zip(want).enumerate();
            for (i, (got, want)) in differ.filter(|(_, (got, want))| got != want) {
                found.push(format!(
                    "{}: {what} {i} is {got:#x}, expected {want:#x}",
                    self.name
                ));
            }
        };
        let bytes = |data: &[u8]| data.iter().copied().map(u64::from).collect::<Vec<_>>();
        let words = |data: &[u32]| data.iter().copied().map(u64::from).collect::<Vec<_>>();
        compare("bytes", &bytes(&got.data), &bytes(&want.data));
        compare("scales", &words(&got.scales), &words(&want.scales));
        compare(
            "tensor scale",
            &words(&got.tensor_scale),
            &words(&want.tensor_scale),
        );
        compare("amax", &words(&got.amax), &words(&want.amax));
        compare("counts", &got.counts, &want.counts);
        found
    }
}

/// The cases of `quant.txt`.
pub fn load() -> Vec<Case> {
    let mut inputs = Arc::new(Inputs::default());
    let mut cases = Vec::new();
    for block in blocks(FILE) {
        match &block.kind[..] {
            "inputs" => inputs = Arc::new(read_inputs(&block)),
            _ => cases.push(read_case(&block, inputs.clone(), cases.len())),
        }
    }
    cases
}

/// The inputs of single values have other keys, which are left here.
fn read_inputs(block: &Lines) -> Inputs {
    let mut inputs = Inputs {
        name: block.name.clone(),
        ..Inputs::default()
    };
    for (key, values) in block.lines() {
        match key {
            "types" => inputs.types = numbers(values),
            "shape" => inputs.shape = numbers(values).try_into().unwrap(),
            "x" => inputs.x = numbers(values),
            _ => {}
        }
    }
    inputs
}

fn read_case(block: &Lines, inputs: Arc<Inputs>, index: usize) -> Case {
    assert_eq!(block.name, inputs.name);
    let format: Format = block
        .lines()
        .find_map(|(key, value)| (key == "format").then(|| value.parse().unwrap()))
        .unwrap();
    let mut case = Case {
        name: format!("{FILE} case {index} ({}", block.name),
        inputs,
        options: QuantizeOptions::new(format),
        output: OutputOptions::new(),
        direction: Direction::RowWise,
        offset: 0,
        given: None,
        groups: Vec::new(),
        expected: Results::default(),
    };
    for (key, values) in block.lines() {
        let expected = &mut case.expected;
        match key {
            "data" => expected.data = hexadecimal(values),
            "scales" if format.has_f32_scales() => expected.scales = words(values),
            "scales" => {
                let bytes = hexadecimal(values);
                expected.scales = bytes.into_iter().map(u32::from).collect();
            }
            "tensor_scale" => expected.tensor_scale = words(values),
            "amax" => expected.amax = words(values),
            "counts" => expected.counts = numbers(values).try_into().unwrap(),
            _ => {
                case.name = format!("{}, {key} {values}", case.name);
                option(&mut case, key, values);
            }
        }
    }
    case.name.push(')');
    case
}

fn option(case: &mut Case, key: &str, value: &str) {
    let options = case.options;
    match (key, value) {
        ("format", _) => {}
        ("direction", "transposed") => case.direction = Direction::Transposed,
        ("power_of_two", "yes") => case.options = options.power_of_two(),
        ("scale_rounding", rounding) => {
            case.options = options.scale_rounding(rounding.parse().unwrap());
        }
        ("rounding", rounding) => case.options = options.rounding(rounding.parse().unwrap()),
        ("offset", offset) => case.offset = offset.parse().unwrap(),
        ("rotation", rotation) => {
            let rotation: Hadamard = rotation.parse().unwrap();
            case.output = case.output.rotation(rotation);
        }
        ("layout", layout) => {
            case.output = case.output.layout(layout.parse().unwrap());
        }
        ("groups", sizes) => case.groups = numbers(sizes),
        ("given", given) => {
            case.options = options.scaling(Scaling::Given);
            case.given = Some(f32::from_bits(words(given)[0]));
        }
        _ => panic!("{key:?} of a case"),
    }
}

/// Bytes of two digits each, undivided.
fn hexadecimal(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

/// Words of eight digits each, divided by spaces.
fn words(text: &str) -> Vec<u32> {
    let word = |word| u32::from_str_radix(word, 16).unwrap();
    text.split(' ').map(word).collect()
}

/// Values of one type, and their codes.
#[derive(Clone, Debug, Default)]
pub struct Conversion {
    /// `e4m3`, `e5m2`, `e2m1` or `e8m0`.
    pub element: String,
    /// Around each value, each tie and the ends: never negative.
    pub values: Vec<f32>,
    /// Theirs.
    pub codes: Vec<u8>,
    /// The value of each code, in order.
    pub decoded: Vec<f64>,
    /// For `bf16` and `f16`: [`fnv1a`] of the codes of all their 2^16 values, in order of bits.
    pub of_all: Vec<(String, u64)>,
}

/// The conversions of `quant.txt`.
pub fn conversions() -> Vec<Conversion> {
    let of_values = |block: &Lines| block.lines().any(|(key, _)| key == "codes");
    let read = |block: Lines| {
        let mut read = Conversion {
            element: block.name.clone(),
            ..Conversion::default()
        };
        for (key, values) in block.lines() {
            match key {
                "values" => read.values = words(values).into_iter().map(f32::from_bits).collect(),
                "codes" => read.codes = hexadecimal(values),
                "decoded" => read.decoded = numbers(values),
                name => {
                    let sum = u64::from_str_radix(values, 16).unwrap();
                    read.of_all.push((name.to_owned(), sum));
                }
            }
        }
        read
    };
    blocks(FILE)
        .into_iter()
        .filter(of_values)
        .map(read)
        .collect()
}

/// FNV-1a of 64 bits.
pub fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn of_reference(case: &Case) -> Results {
    let [rows, columns] = case.inputs.shape;
    let x = Matrix::new(&case.inputs.x, rows, columns).unwrap();
    let given = case.given.map(|scale| [scale]);
    let offsets = case.groups.iter().scan(0, |end, size| {
        *end += *size as i64;
        Some(*end)
    });
    let offsets: Vec<i64> = std::iter::once(0).chain(offsets).collect();
    let call = Call {
        offset: case.offset,
        tensor_scales: given.as_ref().map(|scale| &scale[..]),
        groups: (!case.groups.is_empty()).then_some(evenkeel::reference::Indices::I64(&offsets)),
    };
    let got: Quantized = quantize(&case.options, &case.output, case.direction, x, &call).unwrap();
    Results {
        data: got.data,
        scales: match got.scales {
            Scales::F32(scales) => scales.into_iter().map(f32::to_bits).collect(),
            Scales::Bytes(scales) => scales.into_iter().map(u32::from).collect(),
        },
        tensor_scale: got
            .tensor_scales
            .iter()
            .map(|scale| scale.to_bits())
            .collect(),
        amax: got.amaxes.iter().map(|amax| amax.to_bits()).collect(),
        counts: [got.saturated, got.underflowed],
    }
}

#[test]
fn the_reference_has_every_bit() {
    let cases = load();
    let found: Vec<String> = cases
        .iter()
        .flat_map(|case| case.mismatches(&of_reference(case)))
        .collect();
    let (some, count) = (found.iter().take(20), found.len());
    assert!(
        count == 0,
        "{count} in {}:\n{}",
        FILE,
        some.cloned().collect::<Vec<_>>().join("\n")
    );

    // What the file is for.
    for format in Format::ALL {
        let of = || cases.iter().filter(|case| case.options.format == format);
        let transposed = of().any(|case| case.direction == Direction::Transposed);
        let stochastic = of().any(|case| case.options.rounding != Rounding::Nearest);
        assert!(transposed && stochastic, "{format}");
        if format.fp8() != Some(Fp8::E5m2) {
            assert!(of().any(|case| case.groups.len() > 1), "groups of {format}");
            for layout in ScaleLayout::ALL
                .into_iter()
                .filter(|layout| layout.fits(format))
            {
                let block = format.block();
                let has_blocks = block.columns != Block::WHOLE;
                assert!(
                    !has_blocks || of().any(|case| case.output.layout == layout),
                    "{layout} of {format}"
                );
            }
        }
        if format.has_tensor_scale() {
            assert!(of().any(|case| case.output.rotation.is_some()), "{format}");
        }
    }
    assert!(cases.iter().any(|case| case.output.rotation.is_some()));
    assert!(
        cases
            .iter()
            .any(|case| case.inputs.x.iter().any(|x| x.is_nan()))
    );
}

/// To a code and back.
type Conversions = (fn(f32) -> u8, fn(u8) -> f32);

#[test]
fn every_conversion_has_every_bit() {
    let conversions = conversions();
    assert_eq!(conversions.len(), 4);
    for conversion in conversions {
        let (to, from): Conversions = match &conversion.element[..] {
            "e4m3" => (
                |x| E4m3::from_f32(x).to_bits(),
                |c| E4m3::from_bits(c).to_f32(),
            ),
            "e5m2" => (
                |x| E5m2::from_f32(x).to_bits(),
                |c| E5m2::from_bits(c).to_f32(),
            ),
            "e8m0" => (
                |x| E8m0::from_f32(x).to_bits(),
                |c| E8m0::from_bits(c).to_f32(),
            ),
            _ => (
                |x| E2m1x2::from_f32([x, 0.0]).codes()[0],
                |code| E2m1x2::from_codes([code, 0]).to_f32()[0],
            ),
        };
        let name = &conversion.element;
        assert!(conversion.values.len() >= 8 && conversion.values.len() == conversion.codes.len());
        for (x, code) in conversion.values.iter().zip(&conversion.codes) {
            assert_eq!(to(*x), *code, "{name} of {x:e}");
        }
        for (code, value) in (0..=u8::MAX).zip(&conversion.decoded) {
            let got = f64::from(from(code));
            let same = got.to_bits() == value.to_bits() || (got.is_nan() && value.is_nan());
            assert!(same, "{name} {code:#x} is {got}, expected {value}");
        }
        for (source, sum) in &conversion.of_all {
            let wide: fn(u16) -> f32 = match &source[..] {
                "bf16" => |bits| half::bf16::from_bits(bits).to_f32(),
                _ => |bits| half::f16::from_bits(bits).to_f32(),
            };
            let codes = (0..=u16::MAX).map(|bits| to(wide(bits)));
            assert_eq!(fnv1a(codes), *sum, "{name} of all {source}");
        }
    }
}
