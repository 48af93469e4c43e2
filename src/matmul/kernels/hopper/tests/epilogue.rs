//! Ways for results to leave.

use super::*;

#[test]
fn every_type_leaves_by_tiles_or_by_elements() {
    for dtype in [
        DType::Bf16,
        DType::F16,
        DType::F32,
        DType::E4m3,
        DType::E5m2,
    ] {
        for full in [false, true] {
            let written = Case {
                dtype,
                full,
                padding: usize::from(full),
                ..case([ROW; 2], 200, 150, 100)
            };
            check(&written, 0, 1, 1);
            let dense = Case {
                formats: [BF16; 2],
                ..written
            };
            check(&dense, 0, 1, 2);
        }
    }
}

#[test]
fn results_are_added_to_what_is_there() {
    for beta in [1.0, 0.5] {
        let added = Case {
            dtype: DType::F32,
            accumulate: Some(beta),
            ..case([BLOCK; 2], 200, 150, 300)
        };
        check(&added, 0, 2, 1);
    }
}

#[test]
fn swiglu_halves_the_columns() {
    let case = Case {
        activation: Activation::SwiGlu,
        full: true,
        dtype: DType::F32,
        ..case([TENSOR; 2], 150, 140, 64)
    };
    let _forced = Forced::new(0, 1);
    let (expected, _) = run(&cpu(), &case).unwrap();
    let (found, _) = run(&emulated(1), &case).unwrap();
    for (a, b) in expected.iter().zip(&found) {
        let (a, b) = (f32::from_bits(*a), f32::from_bits(*b));
        // Pre-activations are exact; silu in fp32 loses a few last bits.
        assert!(
            a == b || (a - b).abs() <= 1e-5 * a.abs().max(1.0),
            "{a} {b}"
        );
    }
}
