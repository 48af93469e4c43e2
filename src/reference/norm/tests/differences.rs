//! Gradients of the normalizations against finite differences of their plain formulas.
//!
//! A coordinate enters a row's result through 1 / sqrt(V + eps), which is analytic within
//! R = sqrt(D (V + eps)) of it (V the variance or mean square). On half that radius V + eps stays
//! above a quarter of its value, so that y is within 2 (|h| + sqrt(D)) of gamma; by Cauchy's bound
//! the fifth derivative is at most 5! of that over (R/2)^5, and `rate` is 120^(1/5) / (R/2).

use super::{OwnedWeights, dot, gradients, largest, norm, numbers, residual_norm};
use crate::norm::{NormKind, NormOptions};
use crate::reference::differences::assert_gradient;

/// 120^(1/5), rounded up.
pub(super) const FIFTH_ROOT: f64 = 2.61;

/// Rows of D = 1 too, where nothing but eps divides.
const WIDTHS: [usize; 4] = [1, 2, 7, 16];
const ROWS: usize = 3;

/// A row's result, written plainly.
fn plain(options: &NormOptions, weights: &OwnedWeights, x: &[f64]) -> Vec<f64> {
    let d = x.len();
    let mean = match options.kind {
        NormKind::Rms => 0.0,
        NormKind::Layer => x.iter().sum::<f64>() / d as f64,
    };
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64;
    let root = (variance + f64::from(options.eps)).sqrt();
    (0..d)
        .map(|j| {
            let gamma = weights.gamma.as_ref().map_or(1.0, |gamma| {
                gamma[j] + if options.zero_centred { 1.0 } else { 0.0 }
            });
            let beta = weights.beta.as_ref().map_or(0.0, |beta| beta[j]);
            (x[j] - mean) / root * gamma + beta
        })
        .collect()
}

fn all_rows(options: &NormOptions, weights: &OwnedWeights, x: &[f64], columns: usize) -> Vec<f64> {
    x.chunks(columns)
        .flat_map(|row| plain(options, weights, row))
        .collect()
}

#[test]
fn every_option() {
    let mut cases = 0;
    for kind in NormKind::ALL {
        for zero_centred in [false, true] {
            for eps in [0.3, 1e-3] {
                for columns in WIDTHS {
                    for gamma in [false, true] {
                        for beta in [false, true] {
                            let mut options = NormOptions::new(kind).eps(eps);
                            options.zero_centred = zero_centred;
                            let weights = OwnedWeights {
                                gamma: gamma.then(|| numbers(1, columns)),
                                beta: beta.then(|| numbers(2, columns)),
                            };
                            for dstream in [false, true] {
                                check(&options, &weights, columns, dstream);
                                cases += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cases, 2 * 2 * 2 * 4 * 4 * 2);
}

fn check(options: &NormOptions, weights: &OwnedWeights, columns: usize, with_stream: bool) {
    let x = numbers(3, ROWS * columns);
    let dy = numbers(4, x.len());
    let dstream = numbers(5, x.len());
    let given = with_stream.then_some(&dstream[..]);
    let got = gradients(options, weights, &x, &dy, given, columns);
    assert!(got.status.is_empty());
    // The residual's gradient is the same, whatever stands beside.
    assert_eq!(got.residual, got.x);

    let loss = |weights: &OwnedWeights, x: &[f64]| {
        let of_stream = if with_stream { dot(&dstream, x) } else { 0.0 };
        dot(&dy, &all_rows(options, weights, x, columns)) + of_stream
    };
    let (y, _) = norm(options, weights, &x, columns);
    super::assert_close(&y, &all_rows(options, weights, &x, columns), 1e-14);

    // The rows' own radius is the smallest of them.
    let root = |row: &[f64]| {
        let unweighted = OwnedWeights::default();
        let h = plain(options, &unweighted, row);
        let mean = match options.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => row.iter().sum::<f64>() / columns as f64,
        };
        // Where h is 0 the row has no spread: eps is what divides.
        let j = (0..columns).find(|&j| h[j] != 0.0);
        j.map_or(f64::from(options.eps).sqrt(), |j| (row[j] - mean) / h[j])
    };
    let d_root = (columns as f64).sqrt();
    let smallest = x.chunks(columns).map(root).fold(f64::INFINITY, f64::min);
    let rate = FIFTH_ROOT / (0.5 * d_root * smallest);
    let weight = weights.gamma.as_deref().map_or(1.0, largest) + 1.0;
    let bound = |dy: f64| dy.abs() * (weight * 4.0 * d_root + 2.0);
    let size = dy.iter().map(|&dy| bound(dy)).sum::<f64>() + 2.0 * dot(&dstream, &dstream);

    assert_gradient(&got.x, &x, size, rate, |x| loss(weights, x));
    if let Some(gamma) = &weights.gamma {
        assert_gradient(&got.gamma, gamma, size, 1.0, |gamma| {
            let mut moved = weights.clone();
            moved.gamma = Some(gamma.to_vec());
            loss(&moved, &x)
        });
    }
    if let Some(beta) = &weights.beta {
        assert_gradient(&got.beta, beta, size, 1.0, |beta| {
            let mut moved = weights.clone();
            moved.beta = Some(beta.to_vec());
            loss(&moved, &x)
        });
    }
}

#[test]
fn the_residual_moves_both_results() {
    for kind in NormKind::ALL {
        let options = NormOptions::new(kind).eps(0.1);
        let weights = OwnedWeights {
            gamma: Some(numbers(1, 5)),
            beta: None,
        };
        let (x, residual) = (numbers(6, 15), numbers(7, 15));
        let (dy, dstream) = (numbers(8, 15), numbers(9, 15));
        let (s, y) = residual_norm(&options, &weights, &x, &residual, 5);
        let sum: Vec<f64> = x.iter().zip(&residual).map(|(x, r)| x + r).collect();
        assert_eq!(s, sum);
        assert_eq!(y, norm(&options, &weights, &s, 5).0);
        let got = gradients(&options, &weights, &s, &dy, Some(&dstream), 5);
        let loss = |x: &[f64]| {
            let (s, y) = residual_norm(&options, &weights, x, &residual, 5);
            dot(&dy, &y) + dot(&dstream, &s)
        };
        // R/2 of at least sqrt(5 eps) / 2.
        assert_gradient(&got.x, &x, 1000.0, FIFTH_ROOT / 0.35, loss);
    }
}
