//! Golden vectors of `GaussWS`, straight-through gradients and delayed scaling on a device.

use evenkeel::{DType, DeviceKind, Stream};
use evenkeel_cli::norm::placed::{Matrix, Place};
use evenkeel_cli::quant::{delayed, gauss, straight_through};

use crate::golden::{Block, Tolerance, blocks, numbers};
use crate::properties::subject;

const FILE: &str = "elementwise.txt";

/// f32 arithmetic of a few steps, against f64.
const SINGLE: Tolerance = Tolerance {
    relative: 1e-6,
    absolute: 1e-12,
};

/// Types that hold the inputs exactly.
const TYPES: [DType; 3] = [DType::Bf16, DType::F16, DType::F32];

fn text<'b>(block: &'b Block, key: &str) -> Option<&'b str> {
    block
        .lines()
        .find(|(name, _)| *name == key)
        .map(|(_, text)| text)
}

fn given<'b>(block: &'b Block, key: &str) -> &'b str {
    text(block, key).unwrap_or_else(|| panic!("{}: no {key}", block.name))
}

fn floats(block: &Block, key: &str) -> Vec<f64> {
    numbers(given(block, key))
}

fn words(text: &str) -> Vec<f32> {
    let word = |word: &str| f32::from_bits(u32::from_str_radix(word, 16).unwrap());
    text.split(' ').map(word).collect()
}

/// That numbers are near the expected ones, in relation to the largest of them.
fn near(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let size = want.iter().map(|x| x.abs()).fold(0.0, f64::max);
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        if let Some(mismatch) = SINGLE.mismatch(*got, *want, size) {
            panic!("{what} {at} {mismatch}");
        }
    }
}

fn gauss(block: &Block, stream: &Stream) {
    let shape: Vec<usize> = numbers(given(block, "shape"));
    for dtype in TYPES {
        let matrix = |key| Matrix::new(Place::new(dtype, &shape), floats(block, key));
        let bits = floats(block, "bits").iter().map(|&b| b as f32).collect();
        let problem = gauss::Problem {
            name: format!("golden {shape:?} {dtype}"),
            w: matrix("w"),
            noisy: Place::new(DType::F32, &shape),
            dnoisy: matrix("dweights"),
            dw: None,
            bits,
            before: None,
            offsets: (given(block, "offset").parse().unwrap(), None),
            seed: given(block, "seed").parse().unwrap(),
        };
        let outcome = gauss::run_on(stream, &problem).unwrap();
        assert_eq!(outcome.amax.values(), floats(block, "amax"));
        near("w^", &outcome.noisy.values(), &floats(block, "weights"));
        near("db", &outcome.dbits.values(), &floats(block, "dbits"));
        for (at, r) in floats(block, "noise").into_iter().enumerate() {
            assert_eq!(f64::from(problem.noise().at(at as u64)), r, "R of {at}");
        }
    }
}

fn straight_through(block: &Block, stream: &Stream) {
    let (x, dy) = (floats(block, "x"), floats(block, "dy"));
    let place = Place::new(DType::F32, &[1, x.len()]);
    for dy_type in TYPES {
        let problem = straight_through::Problem {
            name: given(block, "estimator").to_owned(),
            estimator: given(block, "estimator").parse().unwrap(),
            scale: text(block, "scale").map(|scale| words(scale)[0]),
            x: Matrix::new(place.clone(), x.clone()),
            dy: Matrix::new(Place::new(dy_type, &[1, x.len()]), dy.clone()),
            dx: Some(place.clone()),
        };
        let outcome = straight_through::run_on(stream, &problem).unwrap();
        let (got, want) = (outcome.dx.values(), floats(block, "dx"));
        if text(block, "scale").is_some() {
            assert_eq!(got, want, "{}", problem.name);
        } else {
            near(&problem.name, &got, &want);
        }
    }
}

fn delayed(block: &Block, stream: &Stream) {
    let steps = words(given(block, "amax"));
    let mut problem = delayed::Problem::new(3, 1, 1, 0);
    problem.length = given(block, "length").parse().unwrap();
    problem.history = given(block, "history").parse().unwrap();
    problem.margin = given(block, "margin").parse().unwrap();
    problem.power_of_two = given(block, "power_of_two") == "1";
    problem.steps = steps.chunks(3).map(<[f32]>::to_vec).collect();
    problem.rename();
    let outcome = delayed::run_on(stream, &problem).unwrap();
    let scales = words(given(block, "scales"));
    assert_eq!(outcome.steps.len(), scales.len() / 3);
    for (step, ([got, ..], want)) in outcome.steps.iter().zip(scales.chunks(3)).enumerate() {
        let want: Vec<u8> = want.iter().flat_map(|x| x.to_ne_bytes()).collect();
        assert_eq!(got, &want, "{}: step {step}", problem.name);
    }
}

/// Every golden case on a device.
pub fn golden_vectors(kind: DeviceKind) {
    let Some(subject) = subject(kind) else {
        return;
    };
    let blocks = blocks(FILE);
    assert_eq!(blocks.len(), 12);
    for (index, block) in blocks.iter().enumerate() {
        let stream = subject.device(index).unwrap().stream().unwrap();
        match &block.name[..] {
            "gauss" => gauss(block, &stream),
            "straight_through" => straight_through(block, &stream),
            "delayed" => delayed(block, &stream),
            other => panic!("inputs {other:?}"),
        }
    }
}
