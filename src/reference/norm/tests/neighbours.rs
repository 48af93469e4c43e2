//! Dynamic tanh, Scale-Distribution Decoupling and gated normalization.

use super::differences::FIFTH_ROOT;
use super::{OwnedWeights, dot, largest, matrix, matrix_mut, norm, numbers};
use crate::norm::{NormKind, NormOptions, SDD_EPS};
use crate::reference::differences::assert_gradient;
use crate::reference::norm::rows::{Incoming, Outgoing};
use crate::reference::norm::{WeightGradients, dyt, gated, sdd};
use crate::{Error, Status};

const COLUMNS: usize = 5;

fn tanh(alpha: f32, weights: &OwnedWeights, x: &[f64]) -> (Vec<f64>, Status) {
    let mut y = vec![f64::NAN; x.len()];
    let into = matrix_mut(&mut y, COLUMNS);
    let status = dyt::forward(alpha, &weights.get(), matrix(x, COLUMNS), into).unwrap();
    (y, status)
}

/// dx, dalpha, dgamma, dbeta.
fn tanh_gradients(
    alpha: f32,
    weights: &OwnedWeights,
    x: &[f64],
    dy: &[f64],
) -> ([Vec<f64>; 4], Status) {
    let mut dx = vec![f64::NAN; x.len()];
    let mut dalpha = vec![f64::NAN];
    let len = |weight: &Option<Vec<f64>>| weight.as_ref().map_or(0, Vec::len);
    let mut dgamma = vec![f64::NAN; len(&weights.gamma)];
    let mut dbeta = vec![f64::NAN; len(&weights.beta)];
    let dweights = WeightGradients {
        gamma: weights.gamma.is_some().then(|| (&mut dgamma).into()),
        beta: weights.beta.is_some().then(|| (&mut dbeta).into()),
        accumulate: false,
    };
    let status = dyt::backward(
        alpha,
        &weights.get(),
        matrix(x, COLUMNS),
        matrix(dy, COLUMNS),
        matrix_mut(&mut dx, COLUMNS),
        Some((&mut dalpha).into()),
        dweights,
    )
    .unwrap();
    ([dx, dalpha, dgamma, dbeta], status)
}

#[test]
fn gradients_of_dyt() {
    let (x, dy) = (numbers(1, 4 * COLUMNS), numbers(2, 4 * COLUMNS));
    for alpha in [0.5_f32, -2.0, 0.0] {
        for (gamma, beta) in [(false, false), (true, false), (true, true)] {
            let weights = OwnedWeights {
                gamma: gamma.then(|| numbers(3, COLUMNS)),
                beta: beta.then(|| numbers(4, COLUMNS)),
            };
            let plain = |alpha: f64, weights: &OwnedWeights, x: &[f64]| -> f64 {
                let y = x.iter().enumerate().map(|(i, x)| {
                    let j = i % COLUMNS;
                    let gamma = weights.gamma.as_ref().map_or(1.0, |gamma| gamma[j]);
                    gamma * (alpha * x).tanh() + weights.beta.as_ref().map_or(0.0, |beta| beta[j])
                });
                dot(&dy, &y.collect::<Vec<_>>())
            };
            let wide = f64::from(alpha);
            let (y, status) = tanh(alpha, &weights, &x);
            assert!(status.is_empty());
            let want = plain(wide, &weights, &x);
            assert!((dot(&dy, &y) - want).abs() <= 1e-13);

            let ([dx, dalpha, dgamma, dbeta], status) = tanh_gradients(alpha, &weights, &x, &dy);
            assert!(status.is_empty());
            // tanh is analytic within pi/2, and at most tan 1 < 1.6 within 1.
            let size = 20.0 * 2.0 * (2.0 * 1.6 + 2.0);
            let rate = FIFTH_ROOT * wide.abs().max(1.0);
            assert_gradient(&dx, &x, size, rate, |x| plain(wide, &weights, x));
            let rate = FIFTH_ROOT * largest(&x);
            assert_gradient(&dalpha, &[wide], size, rate, |alpha| {
                plain(alpha[0], &weights, &x)
            });
            if let Some(gamma) = &weights.gamma {
                assert_gradient(&dgamma, gamma, size, 1.0, |gamma| {
                    let mut moved = weights.clone();
                    moved.gamma = Some(gamma.to_vec());
                    plain(wide, &moved, &x)
                });
            }
            if let Some(beta) = &weights.beta {
                assert_gradient(&dbeta, beta, size, 1.0, |beta| {
                    let mut moved = weights.clone();
                    moved.beta = Some(beta.to_vec());
                    plain(wide, &moved, &x)
                });
            }
        }
    }
}

#[test]
fn dyt_saturates_without_nan() {
    let none = OwnedWeights::default();
    let x = [f64::INFINITY, f64::NEG_INFINITY, 1e30, 25.0, 0.0];
    let (y, status) = tanh(0.5, &none, &x);
    assert_eq!(y, [1.0, -1.0, 1.0, 12.5_f64.tanh(), 0.0]);
    assert_eq!(status, Status::NON_FINITE_ROW);
    let ([dx, dalpha, ..], status) = tanh_gradients(0.5, &none, &x, &[1.0; COLUMNS]);
    assert_eq!(status, Status::NON_FINITE_ROW);
    // 1 - tanh^2(12.5) = 4 e^-25 to 11 digits, where the subtraction would have 5.
    let slope = 4.0 * (-25.0_f64).exp() / (1.0 + (-25.0_f64).exp()).powi(2);
    super::assert_close(&dx, &[0.0, 0.0, 0.0, 0.5 * slope, 0.5], 1e-15);
    assert!((dx[3] / (0.5 * slope) - 1.0).abs() < 1e-14);
    super::assert_close(&dalpha, &[25.0 * slope], 1e-14);

    // NaN stays where it is.
    let (y, status) = tanh(0.5, &none, &[f64::NAN, 1.0, 1.0, 1.0, 1.0]);
    assert!(y[0].is_nan() && y[1..].iter().all(|y| y.is_finite()));
    assert_eq!(status, Status::NON_FINITE_ROW);
}

#[test]
fn sdd_is_a_norm_with_one_factor_or_many() {
    let (x, dy) = (numbers(1, 15), numbers(2, 15));
    for alpha in [vec![1.5], numbers(3, COLUMNS)] {
        let mut y = vec![f64::NAN; 15];
        let into = matrix_mut(&mut y, COLUMNS);
        sdd::forward((&alpha).into(), matrix(&x, COLUMNS), into).unwrap();
        let loss = |alpha: &[f64], x: &[f64]| -> f64 {
            let y = x.chunks(COLUMNS).flat_map(|row| {
                let rms = (dot(row, row) / 5.0 + f64::from(SDD_EPS)).sqrt();
                row.iter()
                    .enumerate()
                    .map(move |(j, x)| alpha[j % alpha.len()] * x / rms)
            });
            dot(&dy, &y.collect::<Vec<_>>())
        };
        assert!((dot(&dy, &y) - loss(&alpha, &x)).abs() <= 1e-13);

        let mut dx = vec![f64::NAN; 15];
        let mut dalpha = vec![2.0; alpha.len()];
        sdd::backward(
            (&alpha).into(),
            matrix(&x, COLUMNS),
            matrix(&dy, COLUMNS),
            matrix_mut(&mut dx, COLUMNS),
            (&mut dalpha).into(),
            true,
        )
        .unwrap();
        let root = |row: &[f64]| (dot(row, row)).sqrt();
        let radius = 0.5 * x.chunks(COLUMNS).map(root).fold(f64::INFINITY, f64::min);
        assert_gradient(&dx, &x, 500.0, FIFTH_ROOT / radius, |x| loss(&alpha, x));
        dalpha.iter_mut().for_each(|dalpha| *dalpha -= 2.0);
        assert_gradient(&dalpha, &alpha, 500.0, 1.0, |alpha| loss(alpha, &x));
    }
    let mut y = vec![0.0; 15];
    let refused = sdd::forward(
        (&x[..2]).into(),
        matrix(&x, COLUMNS),
        matrix_mut(&mut y, COLUMNS),
    );
    assert!(matches!(refused, Err(Error::Argument { .. })));
    let unit = norm(&sdd::options(), &OwnedWeights::default(), &x, COLUMNS).0;
    sdd::forward(
        (&[1.0][..]).into(),
        matrix(&x, COLUMNS),
        matrix_mut(&mut y, COLUMNS),
    )
    .unwrap();
    assert_eq!(y, unit);
}

/// y, and the gradients of x, z, gamma.
fn gate(
    options: &NormOptions,
    weights: &OwnedWeights,
    x: &[f64],
    z: &[f64],
    dy: &[f64],
) -> ([Vec<f64>; 4], Status) {
    let blank = || vec![f64::NAN; x.len()];
    let (mut y, mut dx, mut dz) = (blank(), blank(), blank());
    let mut dgamma = vec![f64::NAN; COLUMNS];
    let rows = |data| matrix(data, COLUMNS);
    let into = matrix_mut(&mut y, COLUMNS);
    let found = gated::forward(options, &weights.get(), rows(x), rows(z), into).unwrap();
    let incoming = Incoming {
        dy: rows(dy),
        dstream: None,
    };
    let outgoing = Outgoing {
        dx: matrix_mut(&mut dx, COLUMNS),
        dresidual: None,
        weights: WeightGradients {
            gamma: Some((&mut dgamma).into()),
            ..WeightGradients::default()
        },
    };
    let into = matrix_mut(&mut dz, COLUMNS);
    let weights = weights.get();
    let status = gated::backward(
        options,
        &weights,
        rows(x),
        rows(z),
        incoming,
        outgoing,
        into,
    )
    .unwrap();
    assert_eq!(status, found.status);
    ([y, dx, dz, dgamma], status)
}

#[test]
fn gates_multiply() {
    let (x, z, dy) = (numbers(1, 15), numbers(2, 15), numbers(3, 15));
    for kind in NormKind::ALL {
        let options = NormOptions::new(kind).eps(0.1).zero_centred();
        let weights = OwnedWeights {
            gamma: Some(numbers(4, COLUMNS)),
            beta: Some(numbers(5, COLUMNS)),
        };
        let ([y, dx, dz, dgamma], status) = gate(&options, &weights, &x, &z, &dy);
        assert!(status.is_empty());
        let loss = |weights: &OwnedWeights, x: &[f64], z: &[f64]| -> f64 {
            let n = norm(&options, weights, x, COLUMNS).0;
            let y = n.iter().zip(z).map(|(n, z)| n * z / (1.0 + (-z).exp()));
            dot(&dy, &y.collect::<Vec<_>>())
        };
        assert!((dot(&dy, &y) - loss(&weights, &x, &z)).abs() <= 1e-13);
        // As at differences.rs: R/2 is at least sqrt(5 eps) / 2; silu is within 3, and analytic
        // within pi of the real axis, staying within 10 on half of that.
        assert_gradient(&dx, &x, 2000.0, FIFTH_ROOT / 0.35, |x| {
            loss(&weights, x, &z)
        });
        assert_gradient(&dz, &z, 2000.0, FIFTH_ROOT / 1.5, |z| loss(&weights, &x, z));
        let gamma = weights.gamma.as_ref().unwrap();
        assert_gradient(&dgamma, gamma, 2000.0, 1.0, |gamma| {
            let mut moved = weights.clone();
            moved.gamma = Some(gamma.to_vec());
            loss(&moved, &x, &z)
        });

        for fault in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut faulty = z.clone();
            faulty[7] = fault;
            let (got, status) = gate(&options, &weights, &x, &faulty, &dy);
            assert_eq!(status, Status::NON_FINITE_ROW);
            for (got, sound) in got[..3].iter().zip([&y, &dx, &dz]) {
                assert!(got[5..10].iter().all(|value| value.is_nan()));
                assert_eq!((&got[..5], &got[10..]), (&sound[..5], &sound[10..]));
            }
        }
    }
}
