//! The softmaxes.

use proptest::prelude::*;

use super::differences::FIFTH_ROOT;
use super::{dot, largest, matrix, matrix_mut, numbers};
use crate::norm::{Causal, SoftmaxKind, SoftmaxOptions};
use crate::reference::Indices;
use crate::reference::differences::assert_gradient;
use crate::reference::norm::softmax::{Blocks, Forward, Incoming, backward, forward};
use crate::{Error, Status};

const KEYS: usize = 5;
const QUERIES: usize = 3;
/// Two batches of two heads.
const ROWS: usize = 4 * QUERIES;

fn run(options: &SoftmaxOptions, blocks: &Blocks, x: &[f64], keys: usize) -> (Vec<f64>, Forward) {
    let mut y = vec![f64::INFINITY; x.len()];
    let found = forward(options, blocks, matrix(x, keys), matrix_mut(&mut y, keys)).unwrap();
    (y, found)
}

fn gradient(
    options: &SoftmaxOptions,
    blocks: &Blocks,
    (y, found): &(Vec<f64>, Forward),
    dy: &[f64],
    dentropy: Option<&[f64]>,
    keys: usize,
) -> (Vec<f64>, Status) {
    let mut dx = vec![f64::INFINITY; y.len()];
    let incoming = Incoming {
        dy: matrix(dy, keys),
        dentropy: dentropy.map(Into::into),
        normalizers: Some((&found.normalizers).into()),
    };
    let into = matrix_mut(&mut dx, keys);
    let status = backward(options, blocks, matrix(y, keys), incoming, into).unwrap();
    (dx, status)
}

/// Which keys a row sees, written as a mask.
fn sees(options: &SoftmaxOptions, lengths: Option<&[i64]>, row: usize, key: usize) -> bool {
    let query = (row % QUERIES) as i64;
    let causal = match options.causal {
        None => true,
        Some(Causal::Offset(offset)) => key as i64 <= query + offset,
        Some(Causal::End) => key as i64 <= query + KEYS as i64 - QUERIES as i64,
    };
    causal && lengths.is_none_or(|lengths| (key as i64) < lengths[row / (2 * QUERIES)])
}

/// y and the entropy of a row, written plainly; masked keys stay 0.
fn plain(options: &SoftmaxOptions, x: &[f64], seen: &[bool]) -> (Vec<f64>, f64) {
    let scale = f64::from(options.scale);
    let weight = |x: f64| match options.kind {
        SoftmaxKind::StableMax if scale * x >= 0.0 => scale * x + 1.0,
        SoftmaxKind::StableMax => 1.0 / (1.0 - scale * x),
        _ => (scale * x).exp(),
    };
    let live = || {
        x.iter()
            .zip(seen)
            .map(|(&x, &seen)| if seen { weight(x) } else { 0.0 })
    };
    let sum: f64 = live().sum();
    let entropy = live()
        .filter(|&w| w > 0.0)
        .map(|w| -w / sum * (w / sum).ln())
        .sum();
    let y = live().map(|w| match options.kind {
        _ if w == 0.0 => 0.0,
        SoftmaxKind::LogSoftmax => (w / sum).ln(),
        _ => w / sum,
    });
    (y.collect(), entropy)
}

#[test]
fn every_option_against_masked_sums_and_differences() {
    let x = numbers(1, ROWS * KEYS);
    let dy = numbers(2, x.len());
    let dentropy = numbers(3, ROWS);
    let lengths = [4_i64, 1];
    let mut cases = 0;
    for kind in SoftmaxKind::ALL {
        for scale in [1.0, 0.35] {
            for causal in [
                None,
                Some(Causal::Offset(0)),
                Some(Causal::Offset(-1)),
                Some(Causal::Offset(1)),
                Some(Causal::End),
            ] {
                for lengths in [None, Some(&lengths[..])] {
                    for dentropy in [None, Some(&dentropy[..])] {
                        let mut options = SoftmaxOptions::new(kind).scale(scale);
                        options.causal = causal;
                        check(&options, lengths, &x, &dy, dentropy);
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, 3 * 2 * 5 * 2 * 2);
}

fn check(
    options: &SoftmaxOptions,
    lengths: Option<&[i64]>,
    x: &[f64],
    dy: &[f64],
    dentropy: Option<&[f64]>,
) {
    let blocks = Blocks {
        queries: QUERIES,
        lengths: lengths.map(Indices::I64),
    };
    let result = run(options, &blocks, x, KEYS);
    let (y, found) = &result;
    assert!(found.status.is_empty());
    let (dx, status) = gradient(options, &blocks, &result, dy, dentropy, KEYS);
    assert!(status.is_empty());
    let absent = if options.kind == SoftmaxKind::LogSoftmax {
        f64::NEG_INFINITY
    } else {
        0.0
    };
    for row in 0..ROWS {
        let at = row * KEYS..(row + 1) * KEYS;
        let (x, dy) = (&x[at.clone()], &dy[at.clone()]);
        let seen: Vec<bool> = (0..KEYS)
            .map(|key| sees(options, lengths, row, key))
            .collect();
        let u = dentropy.map_or(0.0, |dentropy| dentropy[row]);
        let (want, entropy) = plain(options, x, &seen);
        for key in 0..KEYS {
            if seen[key] {
                assert!((y[at.start + key] - want[key]).abs() <= 4e-15);
            } else {
                assert_eq!(y[at.start + key], absent);
                assert_eq!(dx[at.start + key], 0.0);
            }
        }
        assert!((found.entropies[row] - entropy).abs() <= 8e-15);
        let loss = |x: &[f64]| {
            let (y, entropy) = plain(options, x, &seen);
            dot(dy, &y) + u * entropy
        };
        // Within 0.5 / scale of a coordinate the sum of exponentials keeps a third of itself, s of
        // StableMax its branch (no score lies within 2 h of its knee): p stays within 5 and log p
        // within 2 of what it was.
        let scale = f64::from(options.scale);
        let rate = FIFTH_ROOT * scale / 0.5;
        let size = 10.0 * (5.0 + 7.0) * (largest(dy) + u.abs());
        assert!(x.iter().all(|x| (scale * x).abs() > 2e-3));
        assert_gradient(&dx[at], x, size, rate, loss);
    }
}

#[test]
fn known_rows() {
    let plain = SoftmaxOptions::default();
    let one_block = Blocks::new(1);
    let (y, found) = run(&plain, &one_block, &[0.0, 2f64.ln()], 2);
    super::assert_close(&y, &[1.0 / 3.0, 2.0 / 3.0], 1e-15);
    super::assert_close(&found.normalizers, &[3f64.ln()], 1e-15);
    let entropy = 3f64.ln() - 2.0 / 3.0 * 2f64.ln();
    super::assert_close(&found.entropies, &[entropy], 1e-15);

    // Equal scores, far out: exact shares, entropy log D.
    let (y, found) = run(&plain, &one_block, &[1e5; 8], 8);
    assert_eq!(y, [0.125; 8]);
    super::assert_close(&found.entropies, &[8f64.ln()], 1e-15);

    // One key: share 1, entropy 0, no gradient.
    for kind in SoftmaxKind::ALL {
        let options = SoftmaxOptions::new(kind);
        let result = run(&options, &one_block, &[-3.5], 1);
        let one = if kind == SoftmaxKind::LogSoftmax {
            0.0
        } else {
            1.0
        };
        assert_eq!((&result.0[..], result.1.entropies[0]), (&[one][..], 0.0));
        let (dx, _) = gradient(&options, &one_block, &result, &[2.0], Some(&[1.5]), 1);
        assert_eq!(dx, [0.0]);
    }

    // StableMax where the softmax underflows: s = 1001 and 1/1001.
    let options = SoftmaxOptions::new(SoftmaxKind::StableMax);
    let result = run(&options, &one_block, &[1000.0, -1000.0], 2);
    let sum = 1001.0 + 1.0 / 1001.0;
    super::assert_close(&result.0, &[1001.0 / sum, 1.0 / 1001.0 / sum], 1e-15);
    let (dx, _) = gradient(&options, &one_block, &result, &[0.0, 1.0], None, 2);
    let p = result.0[1];
    let slope = (1.0 / 1001.0_f64).powi(2) / sum;
    super::assert_close(&dx, &[-p / sum, slope * (1.0 - p)], 1e-14);
}

#[test]
fn rows_that_see_nothing_are_empty() {
    let x = numbers(1, 4 * KEYS);
    let lengths = [0, -3, 2, 99];
    let blocks = Blocks {
        queries: 1,
        lengths: Some(Indices::I64(&lengths)),
    };
    for kind in SoftmaxKind::ALL {
        let options = SoftmaxOptions::new(kind);
        let result = run(&options, &blocks, &x, KEYS);
        let (y, found) = &result;
        assert!(found.status.is_empty());
        let absent = if kind == SoftmaxKind::LogSoftmax {
            f64::NEG_INFINITY
        } else {
            0.0
        };
        assert!(y[..2 * KEYS].iter().all(|&y| y == absent));
        assert_eq!(found.entropies[..2], [0.0; 2]);
        assert!(y[2 * KEYS + 2..3 * KEYS].iter().all(|&y| y == absent));
        assert!(y[3 * KEYS..].iter().all(|&y| y != absent));
        let dy = vec![f64::NAN; x.len()];
        let (dx, _) = gradient(&options, &blocks, &result, &dy, None, KEYS);
        // What is not seen is not read.
        assert_eq!(dx[..2 * KEYS], [0.0; 2 * KEYS]);
    }
}

#[test]
fn infinities_and_nan() {
    let one = Blocks::new(1);
    for kind in SoftmaxKind::ALL {
        let options = SoftmaxOptions::new(kind);
        let absent = if kind == SoftmaxKind::LogSoftmax {
            f64::NEG_INFINITY
        } else {
            0.0
        };
        // -inf masks, in any number.
        let result = run(&options, &one, &[0.5, f64::NEG_INFINITY, 1.5], 3);
        let (without, _) = run(&options, &one, &[0.5, 1.5], 2);
        assert_eq!(result.0, [without[0], absent, without[1]]);
        assert!(result.1.status.is_empty());
        let dy = [0.3, f64::NAN, 0.7];
        let (dx, status) = gradient(&options, &one, &result, &dy, Some(&[1.0]), 3);
        assert!(status.is_empty() && dx[1] == 0.0 && dx.iter().all(|dx| dx.is_finite()));
        let all = run(&options, &one, &[f64::NEG_INFINITY; 3], 3);
        assert_eq!(all.0, [absent; 3]);
        assert!(all.1.status.is_empty());

        for fault in [f64::NAN, f64::INFINITY] {
            let x = [0.5, 1.0, fault, 2.0, 0.1, 0.2];
            let result = run(&options, &one, &x, 3);
            let (y, found) = &result;
            assert_eq!(found.status, Status::NON_FINITE_ROW);
            assert!(y[..3].iter().all(|y| y.is_nan()) && found.entropies[0].is_nan());
            assert_eq!(y[3..], run(&options, &one, &x[3..], 3).0);
            let (dx, status) = gradient(&options, &one, &result, &[1.0; 6], None, 3);
            assert_eq!(status, Status::NON_FINITE_ROW);
            assert!(
                dx[..3].iter().all(|dx| dx.is_nan()) && dx[3..].iter().all(|dx| dx.is_finite())
            );
            // Out of sight it disturbs nobody.
            let hidden = Blocks {
                queries: 1,
                lengths: Some(Indices::I64(&[2])),
            };
            let (y, found) = run(&options, &hidden, &x, 3);
            assert!(found.status.is_empty() && !y.iter().any(|y| y.is_nan()));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = numbers(1, 6 * KEYS);
    let mut y = vec![0.0; x.len()];
    let mut call = |options: &SoftmaxOptions, blocks: Blocks| {
        forward(options, &blocks, matrix(&x, KEYS), matrix_mut(&mut y, KEYS)).map(drop)
    };
    let plain = SoftmaxOptions::default();
    assert!(call(&plain, Blocks::new(6)).is_ok());
    let lengths = Some(Indices::I64(&[1, 2, 3, 4]));
    let empty = Some(Indices::I64(&[]));
    for result in [
        call(&plain, Blocks::new(0)),
        call(&plain, Blocks::new(4)),
        call(
            &plain,
            Blocks {
                queries: 3,
                lengths,
            },
        ),
        call(
            &plain,
            Blocks {
                queries: 3,
                lengths: empty,
            },
        ),
        call(&plain.scale(0.0), Blocks::new(6)),
    ] {
        assert!(matches!(result, Err(Error::Argument { .. })), "{result:?}");
    }
    let stable = SoftmaxOptions::new(SoftmaxKind::StableMax);
    let incoming = Incoming {
        dy: matrix(&x, KEYS),
        dentropy: None,
        normalizers: None,
    };
    let into = matrix_mut(&mut y, KEYS);
    let refused = backward(&stable, &Blocks::new(6), matrix(&x, KEYS), incoming, into);
    assert!(matches!(refused, Err(Error::Argument { .. })));
}

proptest! {
    #[test]
    fn offsets_do_not_matter(
        steps in prop::collection::vec(-3000i32..3000, 1..60),
        offset in -1_000_000i32..1_000_000,
        log in any::<bool>(),
    ) {
        let kind = if log { SoftmaxKind::LogSoftmax } else { SoftmaxKind::Softmax };
        let options = SoftmaxOptions::new(kind);
        // On a grid of 2^-6 both are exact.
        let x: Vec<f64> = steps.iter().map(|&steps| f64::from(steps) / 64.0).collect();
        let shifted: Vec<f64> = x.iter().map(|x| x + f64::from(offset)).collect();
        let (y, found) = run(&options, &Blocks::new(1), &x, x.len());
        let (got, found_shifted) = run(&options, &Blocks::new(1), &shifted, x.len());
        prop_assert_eq!(y, got);
        prop_assert_eq!(found.entropies, found_shifted.entropies);
    }

    #[test]
    fn shares_sum_to_one_and_gradients_to_zero(
        x in prop::collection::vec(-30f64..30.0, 1..60),
        dy in prop::collection::vec(-3f64..3.0, 60),
        dentropy in -3f64..3.0,
    ) {
        let keys = x.len();
        let dy = &dy[..keys];
        for kind in [SoftmaxKind::Softmax, SoftmaxKind::LogSoftmax] {
            let options = SoftmaxOptions::new(kind);
            let result = run(&options, &Blocks::new(1), &x, keys);
            let p = result.0.iter().map(|&y| match kind {
                SoftmaxKind::LogSoftmax => y.exp(),
                _ => y,
            });
            prop_assert!((p.sum::<f64>() - 1.0).abs() <= 1e-14);
            prop_assert!((0.0..=(keys as f64).ln() + 1e-14).contains(&result.1.entropies[0]));
            let (dx, _) = gradient(&options, &Blocks::new(1), &result, dy, Some(&[dentropy]), keys);
            prop_assert!(dx.iter().sum::<f64>().abs() <= 1e-12);
        }
    }
}
