//! Heads and their rotary embedding.

use super::differences::FIFTH_ROOT;
use super::{OwnedWeights, dot, norm, numbers};
use crate::norm::{HeadNormOptions, NormKind, NormOptions, Pairing, Rotary};
use crate::reference::Indices;
use crate::reference::differences::assert_gradient;
use crate::reference::floats::{FloatRows, FloatRowsMut};
use crate::reference::norm::heads::{RotaryTables, backward, forward};
use crate::reference::norm::{Forward, WeightGradients};
use crate::{Error, Status};

const TOKENS: usize = 3;
const HEADS: usize = 2;
const DIM: usize = 6;
const SHAPE: [usize; 3] = [TOKENS, HEADS, DIM];
const CONTIGUOUS: [usize; 2] = [HEADS * DIM, DIM];
const POSITIONS: [i64; TOKENS] = [4, 0, 2];

/// Angles that a table of 5 positions has for this width.
fn tables(width: usize) -> (Vec<f64>, Vec<f64>) {
    let angle = |i: usize| {
        let pairs = width / 2;
        (i / pairs) as f64 * 100f64.powf(-((i % pairs) as f64) / pairs as f64)
    };
    let angles = || (0..5 * width / 2).map(angle);
    (
        angles().map(f64::cos).collect(),
        angles().map(f64::sin).collect(),
    )
}

fn with_tables<T>(rotary: Option<Rotary>, call: impl FnOnce(Option<&RotaryTables>) -> T) -> T {
    let (cos, sin) = tables(rotary.map_or(2, |rotary| rotary.width));
    let tables = RotaryTables {
        cos: (&cos).into(),
        sin: (&sin).into(),
        positions: Some(Indices::I64(&POSITIONS)),
    };
    call(rotary.map(|_| &tables))
}

fn run(options: &HeadNormOptions, weights: &OwnedWeights, x: &[f64]) -> (Vec<f64>, Forward) {
    let mut y = vec![f64::NAN; x.len()];
    let forward = with_tables(options.rotary, |tables| {
        let x = FloatRows::heads(x, SHAPE, CONTIGUOUS).unwrap();
        let y = FloatRowsMut::heads(&mut y, SHAPE, CONTIGUOUS).unwrap();
        forward(options, &weights.get(), tables, x, y).unwrap()
    });
    (y, forward)
}

/// dx, dgamma and dbeta.
fn run_backward(
    options: &HeadNormOptions,
    weights: &OwnedWeights,
    x: &[f64],
    dy: &[f64],
) -> [Vec<f64>; 3] {
    let len = |weight: &Option<Vec<f64>>| weight.as_ref().map_or(0, Vec::len);
    let mut dx = vec![f64::NAN; x.len()];
    let mut dgamma = vec![f64::NAN; len(&weights.gamma)];
    let mut dbeta = vec![f64::NAN; len(&weights.beta)];
    with_tables(options.rotary, |tables| {
        let x = FloatRows::heads(x, SHAPE, CONTIGUOUS).unwrap();
        let dy = FloatRows::heads(dy, SHAPE, CONTIGUOUS).unwrap();
        let dx = FloatRowsMut::heads(&mut dx, SHAPE, CONTIGUOUS).unwrap();
        let dweights = WeightGradients {
            gamma: weights.gamma.is_some().then(|| (&mut dgamma).into()),
            beta: weights.beta.is_some().then(|| (&mut dbeta).into()),
            accumulate: false,
        };
        let status = backward(options, &weights.get(), tables, x, dy, dx, dweights).unwrap();
        assert!(status.is_empty());
    });
    [dx, dgamma, dbeta]
}

fn rotaries() -> Vec<Option<Rotary>> {
    let mut all = vec![None];
    for pairing in Pairing::ALL {
        all.extend([2, 4, 6].map(|width| Some(Rotary::new(pairing, width))));
    }
    all
}

/// A head turned as complex numbers, which the reference does not use.
fn plainly_turned(rotary: Rotary, token: usize, head: &[f64]) -> Vec<f64> {
    let (cos, sin) = tables(rotary.width);
    let mut turned = head.to_vec();
    let pairs = rotary.width / 2;
    for i in 0..pairs {
        let at = POSITIONS[token] as usize * pairs + i;
        let angle = sin[at].atan2(cos[at]);
        let (first, second) = match rotary.pairing {
            Pairing::Interleaved => (2 * i, 2 * i + 1),
            Pairing::HalfSplit => (i, i + pairs),
        };
        let size = head[first].hypot(head[second]);
        let turn = head[second].atan2(head[first]) + angle;
        (turned[first], turned[second]) = (size * turn.cos(), size * turn.sin());
    }
    turned
}

#[test]
fn every_option_against_the_norm_of_each_head() {
    let x = numbers(1, TOKENS * HEADS * DIM);
    for kind in NormKind::ALL {
        for shared in [true, false] {
            let weights = OwnedWeights {
                gamma: Some(numbers(2, if shared { DIM } else { HEADS * DIM })),
                beta: Some(numbers(3, DIM)),
            };
            for rotary in rotaries() {
                let options = HeadNormOptions {
                    norm: Some(NormOptions::new(kind).zero_centred()),
                    rotary,
                };
                let (y, found) = run(&options, &weights, &x);
                assert!(found.status.is_empty());
                for (row, head) in x.chunks(DIM).enumerate() {
                    let mut of_head = weights.clone();
                    if !shared {
                        let gamma = weights.gamma.as_ref().unwrap();
                        let first = row % HEADS * DIM;
                        of_head.gamma = Some(gamma[first..first + DIM].to_vec());
                    }
                    let mut want = norm(&options.norm.unwrap(), &of_head, head, DIM).0;
                    if let Some(rotary) = rotary {
                        want = plainly_turned(rotary, row / HEADS, &want);
                    }
                    super::assert_close(&y[row * DIM..(row + 1) * DIM], &want, 1e-14);
                }
            }
        }
    }
}

#[test]
fn gradients_against_differences() {
    let x = numbers(1, TOKENS * HEADS * DIM);
    let dy = numbers(4, x.len());
    for norm in [None, Some(NormKind::Rms), Some(NormKind::Layer)] {
        for shared in [true, false] {
            let len = if shared { DIM } else { HEADS * DIM };
            let weights = OwnedWeights {
                gamma: norm.is_some().then(|| numbers(2, len)),
                beta: norm.is_some().then(|| numbers(3, len)),
            };
            for rotary in rotaries() {
                let options = HeadNormOptions {
                    norm: norm.map(|kind| NormOptions::new(kind).eps(0.1)),
                    rotary,
                };
                if norm.is_none() && rotary.is_none() {
                    continue;
                }
                let [dx, dgamma, dbeta] = run_backward(&options, &weights, &x, &dy);
                let loss =
                    |weights: &OwnedWeights, x: &[f64]| dot(&dy, &run(&options, weights, x).0);
                // As at differences.rs: R/2 is at least sqrt(6 eps) / 2, and y within 2 (|h| + sqrt 6)
                // of gamma <= 2, and 2.
                assert_gradient(&dx, &x, 1000.0, FIFTH_ROOT / 0.38, |x| loss(&weights, x));
                if let (Some(gamma), Some(beta)) = (&weights.gamma, &weights.beta) {
                    assert_gradient(&dgamma, gamma, 1000.0, 1.0, |gamma| {
                        let mut moved = weights.clone();
                        moved.gamma = Some(gamma.to_vec());
                        loss(&moved, &x)
                    });
                    assert_gradient(&dbeta, beta, 1000.0, 1.0, |beta| {
                        let mut moved = weights.clone();
                        moved.beta = Some(beta.to_vec());
                        loss(&moved, &x)
                    });
                }
            }
        }
    }
}

#[test]
fn turning_keeps_lengths_and_turns_back() {
    let x = numbers(1, TOKENS * HEADS * DIM);
    for pairing in Pairing::ALL {
        let options = HeadNormOptions::rotary_only(Rotary::new(pairing, 4));
        let none = OwnedWeights::default();
        let (y, _) = run(&options, &none, &x);
        for (x, y) in x.chunks(DIM).zip(y.chunks(DIM)) {
            assert!((dot(x, x) - dot(y, y)).abs() <= 1e-14 * dot(x, x));
            assert_eq!(x[4..], y[4..]);
        }
        let [back, _, _] = run_backward(&options, &none, &x, &y);
        super::assert_close(&back, &x, 1e-15);
        // Token 1 is at position 0.
        assert_eq!(
            y[HEADS * DIM..2 * HEADS * DIM],
            x[HEADS * DIM..2 * HEADS * DIM]
        );
    }
}

#[test]
fn strides_do_not_matter() {
    let x = numbers(1, TOKENS * HEADS * DIM);
    let weights = OwnedWeights {
        gamma: Some(numbers(2, HEADS * DIM)),
        beta: None,
    };
    let options = HeadNormOptions::default().rotary(Pairing::HalfSplit, 4);
    let (want, _) = run(&options, &weights, &x);
    // Padded heads within padded tokens, and tokens within heads.
    for strides in [[31, 9], [DIM + 1, TOKENS * (DIM + 1)]] {
        let place = |row: usize| row / HEADS * strides[0] + row % HEADS * strides[1];
        let mut padded = vec![f64::NAN; 100];
        for (row, head) in x.chunks(DIM).enumerate() {
            padded[place(row)..place(row) + DIM].copy_from_slice(head);
        }
        let mut y = vec![-9.0; 100];
        with_tables(options.rotary, |tables| {
            let x = FloatRows::heads(&padded, SHAPE, strides).unwrap();
            let y = FloatRowsMut::heads(&mut y, SHAPE, strides).unwrap();
            forward(&options, &weights.get(), tables, x, y).unwrap();
        });
        for (row, want) in want.chunks(DIM).enumerate() {
            assert_eq!(&y[place(row)..place(row) + DIM], want);
        }
        assert_eq!(y.iter().filter(|&&y| y == -9.0).count(), 100 - x.len());
    }
}

#[test]
fn a_position_without_angles_is_reported() {
    let x = numbers(1, TOKENS * HEADS * DIM);
    let (cos, sin) = tables(4);
    let options = HeadNormOptions::default().rotary(Pairing::Interleaved, 4);
    let weights = OwnedWeights::default();
    for positions in [[1, 5, 2], [1, -1, 2]] {
        let tables = RotaryTables {
            cos: (&cos).into(),
            sin: (&sin).into(),
            positions: Some(Indices::I64(&positions)),
        };
        let rows = || FloatRows::heads(&x, SHAPE, CONTIGUOUS).unwrap();
        let mut y = vec![0.0_f64; x.len()];
        let into = FloatRowsMut::heads(&mut y, SHAPE, CONTIGUOUS).unwrap();
        let found = forward(&options, &weights.get(), Some(&tables), rows(), into).unwrap();
        assert_eq!(found.status, Status::POSITION_OUT_OF_RANGE);
        let faulty = HEADS * DIM..2 * HEADS * DIM;
        for (j, y) in y.iter().enumerate() {
            assert_eq!(y.is_nan(), faulty.contains(&j), "element {j}");
        }
        let into = FloatRowsMut::heads(&mut y, SHAPE, CONTIGUOUS).unwrap();
        let none = WeightGradients::default();
        let status = backward(
            &options,
            &weights.get(),
            Some(&tables),
            rows(),
            rows(),
            into,
            none,
        );
        assert_eq!(status, Ok(Status::POSITION_OUT_OF_RANGE));
        for (j, dx) in y.iter().enumerate() {
            assert_eq!(dx.is_nan(), faulty.contains(&j), "element {j}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = numbers(1, TOKENS * HEADS * DIM);
    let (cos, sin) = tables(4);
    let tables = RotaryTables {
        cos: (&cos).into(),
        sin: (&sin).into(),
        positions: None,
    };
    let mut y = vec![0.0; x.len()];
    let mut call = |options: &HeadNormOptions, tables: Option<&RotaryTables>, gamma: usize| {
        let gamma = vec![1.0; gamma];
        let weights = OwnedWeights {
            gamma: Some(gamma),
            beta: None,
        };
        let x = FloatRows::heads(&x, SHAPE, CONTIGUOUS).unwrap();
        let y = FloatRowsMut::heads(&mut y, SHAPE, CONTIGUOUS).unwrap();
        forward(options, &weights.get(), tables, x, y)
    };
    let norm = HeadNormOptions::default();
    let turned = norm.rotary(Pairing::Interleaved, 4);
    assert!(call(&turned, Some(&tables), DIM).is_ok());
    let short = [0, 1];
    let wrong_positions = RotaryTables {
        positions: Some(Indices::I64(&short)),
        ..tables
    };
    let wrong_sin = RotaryTables {
        sin: (&sin[..8]).into(),
        ..tables
    };
    for result in [
        call(&turned, None, DIM),
        call(&norm, Some(&tables), DIM),
        call(&turned, Some(&wrong_positions), DIM),
        call(&turned, Some(&wrong_sin), DIM),
        call(&norm.rotary(Pairing::Interleaved, 8), Some(&tables), DIM),
        call(&norm, None, DIM + 1),
        call(
            &HeadNormOptions {
                norm: None,
                ..turned
            },
            Some(&tables),
            DIM,
        ),
    ] {
        assert!(matches!(result, Err(Error::Argument { .. })), "{result:?}");
    }
}
