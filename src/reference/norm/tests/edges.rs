//! Rows at the edges, and arguments that do not fit.

use super::{OwnedWeights, gradients, matrix, matrix_mut, norm, numbers};
use crate::norm::{NormKind, NormOptions};
use crate::reference::floats::{FloatRows, FloatRowsMut};
use crate::reference::norm::rows::{self, Incoming, Outgoing};
use crate::reference::norm::{WeightGradients, Weights};
use crate::{Error, Status};

#[test]
fn rows_of_zeros_are_divided_by_eps() {
    for kind in NormKind::ALL {
        let options = NormOptions::new(kind).eps(1e-4);
        let weights = OwnedWeights {
            gamma: Some(numbers(1, 4)),
            beta: Some(numbers(2, 4)),
        };
        let (y, forward) = norm(&options, &weights, &[0.0; 4], 4);
        assert_eq!(y, weights.beta.clone().unwrap());
        assert!(forward.status.is_empty());
        super::assert_close(&[forward.moments[0].rstd], &[100.0], 1e-6);
        // h = 0: dx = r (a - c1).
        let dy = numbers(3, 4);
        let a: Vec<f64> = weights
            .gamma
            .as_ref()
            .unwrap()
            .iter()
            .zip(&dy)
            .map(|(g, dy)| g * dy)
            .collect();
        let c1 = match kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => a.iter().sum::<f64>() / 4.0,
        };
        let want: Vec<f64> = a
            .iter()
            .map(|a| forward.moments[0].rstd * (a - c1))
            .collect();
        let got = gradients(&options, &weights, &[0.0; 4], &dy, None, 4);
        super::assert_close(&got.x, &want, 1e-14);
        assert_eq!(got.gamma, [0.0; 4]);
    }
}

#[test]
fn a_row_without_spread_or_eps_has_no_result() {
    for (kind, row) in [(NormKind::Rms, [0.0; 3]), (NormKind::Layer, [7.0; 3])] {
        let options = NormOptions::new(kind).eps(0.0);
        let (y, forward) = norm(&options, &OwnedWeights::default(), &row, 3);
        assert!(y.iter().all(|y| y.is_nan()));
        assert_eq!(forward.status, Status::NON_FINITE_ROW);
    }
}

#[test]
fn a_faulty_row_is_alone() {
    for kind in NormKind::ALL {
        for fault in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let options = NormOptions::new(kind);
            let weights = OwnedWeights {
                gamma: Some(numbers(1, 4)),
                beta: Some(numbers(2, 4)),
            };
            let sound = numbers(3, 12);
            let mut x = sound.clone();
            x[5] = fault;
            let (y, forward) = norm(&options, &weights, &x, 4);
            let (want, _) = norm(&options, &weights, &sound, 4);
            assert_eq!(forward.status, Status::NON_FINITE_ROW);
            assert!(y[4..8].iter().all(|y| y.is_nan()));
            assert!(forward.moments[1].rstd.is_nan() && forward.moments[1].mean.is_nan());
            assert_eq!((&y[..4], &y[8..]), (&want[..4], &want[8..]));

            // In the backward a fault of x, and one of dy.
            let dy = numbers(4, 12);
            let want = gradients(&options, &weights, &sound, &dy, None, 4);
            let mut faulty_dy = dy.clone();
            faulty_dy[6] = fault;
            for (x, dy) in [(&x, &dy), (&sound, &faulty_dy)] {
                let got = gradients(&options, &weights, x, dy, None, 4);
                assert_eq!(got.status, Status::NON_FINITE_ROW);
                assert!(got.x[4..8].iter().all(|dx| dx.is_nan()));
                assert_eq!((&got.x[..4], &got.x[8..]), (&want.x[..4], &want.x[8..]));
                assert!(got.gamma.iter().any(|dgamma| !dgamma.is_finite()));
            }
        }
    }
}

#[test]
fn one_column() {
    let weights = OwnedWeights {
        gamma: Some(vec![3.0]),
        beta: Some(vec![0.5]),
    };
    let (y, _) = norm(&NormOptions::layer(), &weights, &[-4.0, 9.0], 1);
    assert_eq!(y, [0.5, 0.5]);
    let (y, _) = norm(&NormOptions::rms().eps(0.0), &weights, &[-4.0, 9.0], 1);
    assert_eq!(y, [-2.5, 3.5]);
}

#[test]
fn no_rows() {
    let weights = OwnedWeights {
        gamma: Some(numbers(1, 4)),
        beta: Some(numbers(2, 4)),
    };
    let (y, forward) = norm(&NormOptions::rms(), &weights, &[], 4);
    assert!(y.is_empty() && forward.moments.is_empty() && forward.status.is_empty());
    let got = gradients(&NormOptions::rms(), &weights, &[], &[], None, 4);
    assert_eq!((got.gamma, got.beta), (vec![0.0; 4], vec![0.0; 4]));
}

#[test]
fn values_whose_squares_leave_f32_are_still_normalized() {
    let options = NormOptions::rms().eps(0.0);
    let x = [3e38_f32, -3e38];
    let rows_of = FloatRows::new(&x[..], 1, 2, 2).unwrap();
    let mut y = [0.0_f64; 2];
    let into = FloatRowsMut::new(&mut y[..], 1, 2, 2).unwrap();
    let forward = rows::forward(&options, &Weights::default(), rows_of, None, into).unwrap();
    assert!(forward.status.is_empty());
    super::assert_close(&y, &[1.0, -1.0], 1e-15);
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = numbers(1, 12);
    let mut y = vec![0.0; 12];
    let refused = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Argument { .. })), "{result:?}");
    };
    let options = NormOptions::rms();
    let mut forward = |options: &NormOptions, weights: Weights, columns: usize| {
        let into = matrix_mut(&mut y, columns);
        rows::forward(options, &weights, matrix(&x, 4), None, into).map(drop)
    };
    assert!(forward(&options, Weights::default(), 4).is_ok());
    refused(forward(&options, Weights::default(), 3));
    refused(forward(&options, Weights::gamma(&x[..5]), 4));
    refused(forward(&options, Weights::default().beta(&x[..3]), 4));
    refused(forward(&options.eps(f32::NAN), Weights::default(), 4));

    let mut dgamma = [0.0; 4];
    let incoming = Incoming {
        dy: matrix(&x, 4),
        dstream: None,
    };
    let outgoing = Outgoing {
        dx: matrix_mut(&mut y, 4),
        dresidual: None,
        weights: WeightGradients {
            gamma: Some((&mut dgamma[..]).into()),
            ..WeightGradients::default()
        },
    };
    // A gradient of a gamma that is not there.
    let weights = Weights::default();
    refused(rows::backward(&options, &weights, matrix(&x, 4), incoming, outgoing).map(drop));
}
