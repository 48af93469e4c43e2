//! Boxes that the copy engine lays out, multiplied by wgmma: the two agree on the swizzle, and none
//! of the calls that order them may be left out.

use crate::harness::{SEEDS, caught_by, kernel};
use crate::tensor_core::{E4M3, bytes, integers};
use evenkeel_emulator::{
    Architecture, Emulator, FindingKind, Launch, Report, TensorMap, TensorMapElement,
    TensorMapSwizzle, TensorTile,
};

/// Rows, columns and K, none of which fills its boxes.
const M: usize = 100;
const N: usize = 80;
const K: usize = 400;

fn expected() -> Vec<f32> {
    let (a, b) = (integers(M * K, 5, 2), integers(N * K, 7, 3));
    let at = |m: usize, n: usize| -> f64 { (0..K).map(|k| a[m * K + k] * b[n * K + k]).sum() };
    (0..M * N).map(|i| at(i / N, i % N) as f32).collect()
}

fn run(launch: Launch, early: bool) -> (Report, Vec<f32>) {
    let emulator = Emulator::new(Architecture::sm_90());
    let upload = |values: &[f64]| {
        let memory = emulator.alloc(values.len()).unwrap();
        memory.write(0, &bytes(values, E4M3)).unwrap();
        memory
    };
    let a = upload(&integers(M * K, 5, 2));
    let b = upload(&integers(N * K, 7, 3));
    let out = emulator.alloc(M * N * 4).unwrap();
    let operand = |address, rows: usize| TensorTile {
        address,
        element: TensorMapElement::U8,
        dims: vec![K as u64, rows as u64],
        strides: vec![K as u64],
        tile: vec![128, 64],
        swizzle: TensorMapSwizzle::B128,
    };
    let result = TensorTile {
        address: out.addr(),
        element: TensorMapElement::F32,
        dims: vec![N as u64, M as u64],
        strides: vec![4 * N as u64],
        tile: vec![32, 64],
        swizzle: TensorMapSwizzle::None,
    };
    let mut params = Vec::new();
    for tile in [operand(a.addr(), M), operand(b.addr(), N), result] {
        let map = TensorMap::encode(&tile).unwrap();
        params.extend(map.words().iter().flat_map(|word| word.to_le_bytes()));
    }
    params.extend((K.div_ceil(128) as u32).to_le_bytes());
    params.extend(u32::from(early).to_le_bytes());
    params.resize(params.len().next_multiple_of(64), 0);
    let launch = launch
        .grid([M.div_ceil(64) as u32, N.div_ceil(64) as u32, 1])
        .block([160, 1, 1])
        .shared_bytes(49 * 1024 + 1024);
    let report = emulator.launch(&kernel("tensor_pipeline").0, &launch, &params);
    let mut bytes = vec![0; out.len()];
    out.read(0, &mut bytes).unwrap();
    let floats = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    (report, floats.collect())
}

#[test]
fn boxes_are_multiplied() {
    for seed in SEEDS {
        let (report, out) = run(Launch::default().seed(seed), false);
        assert!(report.is_clean(), "{:#?}", report.findings);
        assert_eq!(out, expected(), "seed {seed}");
        // Every block reads its rows of both operands once, and writes its results once.
        let traffic = &report.traffic;
        assert_eq!(traffic.global_load_bytes, (2 * M + 2 * N) as u64 * K as u64);
        assert_eq!(traffic.global_store_bytes, (4 * M * N) as u64);
        let boxes = 4 * K.div_ceil(128) as u64;
        assert_eq!(traffic.tensor_flops, boxes * 2 * 64 * 64 * 128);
    }
}

/// A stage that is given back before its products are done: the next box overwrites what they read.
#[test]
fn a_stage_that_is_given_back_too_early() {
    for seed in SEEDS {
        let (report, _) = run(Launch::default().seed(seed), true);
        caught_by(&report, "tensor_pipeline", FindingKind::Race, "load-a");
    }
}

#[test]
fn every_call_of_the_pipeline_counts() {
    let (report, _) = run(Launch::default(), false);
    let expected = expected();
    assert!(report.sync_sites.len() >= 12, "{:?}", report.sync_sites);
    for site in report.sync_sites {
        let noticed = SEEDS.into_iter().any(|seed| {
            let launch = Launch::default().seed(seed).max_steps(50_000_000);
            let (report, out) = run(launch.disabled_sites(vec![site.clone()]), false);
            !report.is_clean() || out != expected
        });
        assert!(noticed, "{site} may be left out");
    }
}
