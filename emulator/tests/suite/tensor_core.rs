//! ldmatrix, stmatrix and mma.sync, against plain loops.

use crate::harness::{Bench, SEEDS, caught, passes};
use evenkeel_emulator::{Architecture, FindingKind, Launch};

pub fn warp() -> Launch {
    Launch::default().block([32, 1, 1]).shared_bytes(1024)
}

/// A number of a small floating-point type as its bits; none of the values needs rounding.
pub fn encode(value: f64, exponent_bits: u32, mantissa_bits: u32) -> u32 {
    let sign = u32::from(value.is_sign_negative()) << (exponent_bits + mantissa_bits);
    if value == 0.0 {
        return sign;
    }
    let bias = (1 << (exponent_bits - 1)) - 1;
    let exponent = value.abs().log2().floor() as i32;
    let exponent = exponent.max(1 - bias);
    let steps = value.abs() * 2f64.powi(mantissa_bits as i32 - exponent);
    assert_eq!(steps.fract(), 0.0, "{value} has no exact code");
    let code = steps as u32 + (((exponent + bias - 1) as u32) << mantissa_bits);
    sign | code
}

/// Exponent bits, mantissa bits and bytes of an element type.
pub type Format = (u32, u32, usize);
pub const BF16: Format = (8, 7, 2);
pub const F16: Format = (5, 10, 2);
pub const E4M3: Format = (4, 3, 1);
pub const E5M2: Format = (5, 2, 1);

pub fn bytes(values: &[f64], (exponent, mantissa, size): Format) -> Vec<u8> {
    let code = |&v: &f64| encode(v, exponent, mantissa).to_le_bytes();
    values
        .iter()
        .flat_map(|v| code(v)[..size].to_vec())
        .collect()
}

/// Small integers, the same for the same numbers.
pub fn integers(count: usize, modulus: usize, shift: i32) -> Vec<f64> {
    (0..count)
        .map(|i| f64::from((i * 2_654_435_761 / 7 % modulus) as i32 - shift))
        .collect()
}

const TYPES: [(&str, Format, Format); 6] = [
    ("mma_bf16", BF16, BF16),
    ("mma_f16", F16, F16),
    ("mma_e4m3", E4M3, E4M3),
    ("mma_e4m3_e5m2", E4M3, E5M2),
    ("mma_e5m2_e4m3", E5M2, E4M3),
    ("mma_e5m2", E5M2, E5M2),
];

/// Runs one product on a warp: `c[16, 8] + times a[16, K] b[8, K]^T`.
fn product(bench: &Bench, name: &str, a: &[u8], b: &[u8], c: &[f32], times: i64) -> Vec<f32> {
    bench.input.write(0, a).unwrap();
    bench.input.write(512, b).unwrap();
    let c: Vec<u8> = c.iter().flat_map(|v| v.to_le_bytes()).collect();
    bench.words.write(0, &c).unwrap();
    let mut args = bench.args();
    args.n = times;
    for seed in SEEDS {
        let report = bench.run_with(name, &warp().seed(seed), &args);
        assert!(report.is_clean(), "{name}: {:#?}", report.findings);
        let k = 32 * a.len() as u64 / 512 / if name.contains('e') { 1 } else { 2 };
        assert_eq!(report.traffic.tensor_flops, 2 * 16 * 8 * k * times as u64);
    }
    bench.floats()
}

#[test]
fn products_of_integers_are_exact() {
    for (name, a_type, b_type) in TYPES {
        let k = 32 / a_type.2;
        let a = integers(16 * k, 5, 2);
        let b = integers(8 * k, 9, 4);
        let c: Vec<f32> = (0..128).map(|i| i as f32 - 64.0).collect();
        let bench = Bench::new(256);
        let out = product(&bench, name, &bytes(&a, a_type), &bytes(&b, b_type), &c, 3);
        for m in 0..16 {
            for n in 0..8 {
                let sum: f64 = (0..k).map(|i| a[m * k + i] * b[n * k + i]).sum();
                let expected = f64::from(c[8 * m + n]) + 3.0 * sum;
                assert_eq!(f64::from(out[8 * m + n]), expected, "{name} [{m}, {n}]");
            }
        }
    }
}

/// Products 13 bits below the largest are cut off in FP8, and are kept with more fraction bits; in
/// bf16 they are kept.
#[test]
fn small_products_are_cut_off() {
    let mut a = vec![0.0; 16 * 32];
    a[0] = 64.0;
    a[1..8].fill(1.0 / 64.0);
    let mut b = vec![0.0; 8 * 32];
    b[0] = 128.0;
    b[1..8].fill(48.0);
    // 2^13 + 7 * 0.75: each 0.75 lies below the last bit that 13 fraction bits keep.
    for (bits, expected) in [(13, 8192.0), (14, 8195.5), (15, 8197.25), (24, 8197.25)] {
        let architecture = Architecture::sm_90().with_fraction_bits(bits, 24);
        let bench = Bench::on(architecture, 256);
        let (a, b) = (bytes(&a, E4M3), bytes(&b, E4M3));
        let out = product(&bench, "mma_e4m3", &a, &b, &[0.0; 128], 1);
        assert_eq!(out[0], expected, "{bits} bits");
    }
    let pick = |v: &[f64], rows: usize| -> Vec<f64> {
        (0..rows)
            .flat_map(|r| v[32 * r..32 * r + 16].to_vec())
            .collect()
    };
    let (a, b) = (bytes(&pick(&a, 16), BF16), bytes(&pick(&b, 8), BF16));
    let out = product(&Bench::new(256), "mma_bf16", &a, &b, &[0.0; 128], 1);
    assert_eq!(out[0], 8197.25);
}

#[test]
fn all_lanes_are_needed() {
    caught(
        "whole_warp_wrong",
        &warp(),
        256,
        FindingKind::Divergence,
        "whole-warp",
    );
    passes("whole_warp_right", &warp(), 256);
    // Whichever part comes first, the other is told: seeds enough for one lane to be the last.
    for seed in 0..128 {
        let bench = Bench::new(256);
        let mut args = bench.args();
        args.n = 31;
        let report = bench.run_with("warp_halves_wrong", &warp().seed(seed), &args);
        let findings = &report.findings;
        assert!(
            report.found(FindingKind::Divergence),
            "seed {seed}: {findings:?}"
        );
    }
    passes("warp_halves_right", &warp(), 256);
    caught(
        "partial",
        &warp().block([48, 1, 1]),
        256,
        FindingKind::WarpMisuse,
        "partial",
    );
}

#[test]
fn rows_are_ordered_and_aligned() {
    caught(
        "matrix_order_wrong",
        &warp(),
        256,
        FindingKind::Race,
        "matrix-order",
    );
    passes("matrix_order_right", &warp(), 256);
    caught(
        "aligned_rows_wrong",
        &warp(),
        256,
        FindingKind::Misaligned,
        "aligned-rows",
    );
    passes("aligned_rows_right", &warp(), 256);
}

#[test]
fn matrices_are_transposed() {
    for (name, transposes) in [
        ("transpose_none", false),
        ("transpose_in", true),
        ("transpose_out", true),
        ("transpose_both", false),
    ] {
        let bench = Bench::new(256);
        let elements: Vec<u8> = (0..256u16).flat_map(u16::to_le_bytes).collect();
        bench.input.write(0, &elements).unwrap();
        let report = bench.run(name, &warp());
        assert!(report.is_clean(), "{name}: {:?}", report.findings);
        let mut out = vec![0; 512];
        bench.output.read(0, &mut out).unwrap();
        for (i, pair) in out.chunks_exact(2).enumerate() {
            let (matrix, row, column) = (i / 64, i / 8 % 8, i % 8);
            let from = match transposes {
                true => 64 * matrix + 8 * column + row,
                false => i,
            };
            let got = u16::from_le_bytes([pair[0], pair[1]]);
            assert_eq!(usize::from(got), from, "{name}, element {i}");
        }
    }
}

#[test]
fn architectures_without_the_instruction() {
    let bench = Bench::on(Architecture::sm_86(), 256);
    let report = bench.run("mma_e4m3", &warp());
    assert!(
        report.found(FindingKind::LaunchLimits),
        "{:?}",
        report.findings
    );
    let report = bench.run("transpose_none", &warp());
    assert!(
        report.found(FindingKind::LaunchLimits),
        "{:?}",
        report.findings
    );
}

#[test]
fn bank_conflicts_of_ldmatrix() {
    let none = Bench::new(256).run("conflicts_none", &warp());
    assert_eq!(none.traffic.bank_conflicts, 0);
    let double = Bench::new(256).run("conflicts_double", &warp());
    assert_eq!(double.traffic.bank_conflicts, 1);
}
