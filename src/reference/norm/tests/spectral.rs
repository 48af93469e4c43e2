//! The spectral norm and the variability of embedding tables.

use super::differences::FIFTH_ROOT;
use super::{dot, matrix, numbers};
use crate::norm::SpectralNormOptions;
use crate::reference::differences::assert_gradient;
use crate::reference::floats::{FloatRows, FloatRowsMut};
use crate::reference::norm::spectral::{Forward, Saved, Vectors, backward, forward};
use crate::reference::norm::tev::tev;
use crate::{Error, Status};

/// Two weights of 3 x 4.
const SHAPE: [usize; 3] = [2, 3, 4];
const STRIDES: [usize; 2] = [12, 4];

struct State {
    u: Vec<f64>,
    v: Vec<f64>,
    scaled: Vec<f64>,
}

fn run(steps: u32, w: &[f64], u: &[f64], v: &[f64], gamma: Option<&[f64]>) -> (State, Forward) {
    let mut state = State {
        u: u.to_vec(),
        v: v.to_vec(),
        scaled: vec![f64::NAN; w.len()],
    };
    let found = forward(
        &SpectralNormOptions::new(steps),
        FloatRows::heads(w, SHAPE, STRIDES).unwrap(),
        Vectors {
            u: (&mut state.u).into(),
            v: (&mut state.v).into(),
        },
        gamma.map(Into::into),
        Some(FloatRowsMut::heads(&mut state.scaled, SHAPE, STRIDES).unwrap()),
    )
    .unwrap();
    (state, found)
}

/// dW and dgamma.
fn run_backward(
    w: &[f64],
    (state, found): &(State, Forward),
    gamma: Option<&[f64]>,
    dscaled: &[f64],
) -> (Vec<f64>, Vec<f64>, Status) {
    let mut dw = vec![f64::NAN; w.len()];
    let mut dgamma = vec![f64::NAN; 2];
    let saved = Saved {
        u: (&state.u).into(),
        v: (&state.v).into(),
        sigmas: (&found.sigmas).into(),
    };
    let status = backward(
        FloatRows::heads(w, SHAPE, STRIDES).unwrap(),
        saved,
        gamma.map(Into::into),
        FloatRows::heads(dscaled, SHAPE, STRIDES).unwrap(),
        FloatRowsMut::heads(&mut dw, SHAPE, STRIDES).unwrap(),
        gamma.map(|_| (&mut dgamma).into()),
        false,
    )
    .unwrap();
    (dw, dgamma, status)
}

#[test]
fn sigma_of_known_weights() {
    // The second weight is 5 a b^T with units a and b: one step finds everything.
    let mut w = vec![0.0; 24];
    (w[0], w[5], w[10]) = (3.0, 2.0, 1.0);
    let (a, b) = ([0.6, 0.0, 0.8], [0.5; 4]);
    for i in 0..3 {
        for j in 0..4 {
            w[12 + i * 4 + j] = 5.0 * a[i] * b[j];
        }
    }
    let u = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0];
    let gamma = [1.5, 2.0];
    let (state, found) = run(1, &w, &u, &[9.0; 6], Some(&gamma));
    super::assert_close(&found.sigmas[1..], &[5.0], 1e-15);
    super::assert_close(&state.v[3..], &a, 1e-15);
    super::assert_close(&state.u[4..], &b, 1e-15);
    super::assert_close(&found.scales[1..], &[0.4], 1e-15);
    super::assert_close(&state.scaled[12..16], &[0.6; 4], 1e-15);
    // One step from (1, 1, 1) on diag(3, 2, 1): v ~ (3, 2, 1), u ~ (9, 4, 1), sigma = |W^T v|.
    super::assert_close(&found.sigmas[..1], &[(98.0_f64 / 14.0).sqrt()], 1e-15);

    // Each step only grows sigma, to 3.
    let mut last = found.sigmas[0];
    let mut vectors = (state.u, state.v);
    for _ in 0..60 {
        let (state, found) = run(1, &w, &vectors.0, &vectors.1, None);
        assert!(found.sigmas[0] >= last * (1.0 - 1e-15));
        last = found.sigmas[0];
        vectors = (state.u, state.v);
    }
    assert!((last - 3.0).abs() <= 1e-14);
    // No step leaves them as they are.
    let (state, found) = run(0, &w, &vectors.0, &vectors.1, None);
    assert_eq!((state.u, state.v), vectors);
    assert!((found.sigmas[0] - 3.0).abs() <= 1e-14);
}

#[test]
fn steps_of_one_call_are_steps_of_many() {
    let (w, u) = (numbers(1, 24), numbers(2, 8));
    let (many, found) = run(3, &w, &u, &[0.0; 6], None);
    let mut vectors = (u, vec![0.0; 6]);
    for _ in 0..3 {
        let (state, _) = run(1, &w, &vectors.0, &vectors.1, None);
        vectors = (state.u, state.v);
    }
    assert_eq!((many.u, many.v), vectors);
    assert!(found.status.is_empty());
}

#[test]
fn gradients_against_differences() {
    let (w, u) = (numbers(1, 24), numbers(2, 8));
    let dscaled = numbers(3, 24);
    for gamma in [None, Some([0.7, -1.3])] {
        let gamma = gamma.as_ref().map(|gamma| &gamma[..]);
        let result = run(1, &w, &u, &[0.0; 6], gamma);
        let (dw, dgamma, status) = run_backward(&w, &result, gamma, &dscaled);
        assert!(status.is_empty());
        let (state, found) = &result;
        // u and v are held still.
        let loss = |w: &[f64], gamma: Option<&[f64]>| -> f64 {
            (0..2)
                .map(|k| {
                    let w = &w[12 * k..12 * (k + 1)];
                    let (u, v) = (&state.u[4 * k..4 * (k + 1)], &state.v[3 * k..3 * (k + 1)]);
                    let sigma: f64 = w.chunks(4).zip(v).map(|(row, v)| v * dot(row, u)).sum();
                    let gamma = gamma.map_or(1.0, |gamma| gamma[k]);
                    gamma / sigma * dot(&dscaled[12 * k..12 * (k + 1)], w)
                })
                .sum()
        };
        // sigma + t u_j v_i stays above half of sigma for |t| <= sigma / 2.
        let smallest = found.sigmas[0].min(found.sigmas[1]);
        let size = 2.0 * 1.3 / smallest * (2.0 * 12.0 * 4.0);
        assert_gradient(&dw, &w, size, FIFTH_ROOT / (0.5 * smallest), |w| {
            loss(w, gamma)
        });
        if let Some(gamma) = gamma {
            assert_gradient(&dgamma, gamma, size, 1.0, |gamma| loss(&w, Some(gamma)));
        }
    }
}

#[test]
fn converged_gradients_leave_out_the_scale_of_the_weight() {
    // W^ does not change with the size of W, so dW is at right angles to it: whatever u and v are.
    let (w, u) = (numbers(1, 24), numbers(2, 8));
    let dscaled = numbers(3, 24);
    let result = run(2, &w, &u, &[0.0; 6], None);
    let (dw, ..) = run_backward(&w, &result, None, &dscaled);
    for k in 0..2 {
        let at = 12 * k..12 * (k + 1);
        assert!(dot(&dw[at.clone()], &w[at]).abs() <= 1e-13);
    }
}

#[test]
fn zeros_and_faults() {
    let u = numbers(2, 8);
    let mut w = numbers(1, 24);
    w[..12].fill(0.0);
    let result = run(2, &w, &u, &[1.0; 6], None);
    let (state, found) = &result;
    assert_eq!(found.status, Status::ZERO_SIGMA);
    assert_eq!((found.sigmas[0], found.scales[0]), (0.0, 0.0));
    assert!(found.sigmas[1] > 0.0);
    assert_eq!(state.scaled[..12], [0.0; 12]);
    let (dw, _, status) = run_backward(&w, &result, None, &numbers(3, 24));
    assert_eq!(status, Status::ZERO_SIGMA);
    assert_eq!(dw[..12], [0.0; 12]);
    assert!(dw[12..].iter().all(|dw| dw.is_finite() && *dw != 0.0));

    w[3] = f64::NAN;
    let (state, found) = run(1, &w, &u, &[1.0; 6], None);
    assert_eq!(found.status, Status::NON_FINITE_ROW);
    assert!(found.sigmas[0].is_nan() && state.scaled[..12].iter().all(|w| w.is_nan()));
    assert!(state.scaled[12..].iter().all(|w| w.is_finite()));
}

#[test]
fn what_does_not_fit_is_refused() {
    let w = numbers(1, 24);
    let call = |u: usize, v: usize, gamma: usize| {
        let (mut u, mut v) = (numbers(2, u), numbers(3, v));
        let vectors = Vectors {
            u: (&mut u).into(),
            v: (&mut v).into(),
        };
        let gamma = numbers(4, gamma);
        let w = FloatRows::heads(&w, SHAPE, STRIDES).unwrap();
        forward(
            &SpectralNormOptions::default(),
            w,
            vectors,
            Some((&gamma).into()),
            None,
        )
    };
    assert!(call(8, 6, 2).is_ok());
    for (u, v, gamma) in [(7, 6, 2), (8, 8, 2), (8, 6, 1)] {
        assert!(matches!(call(u, v, gamma), Err(Error::Argument { .. })));
    }
}

#[test]
fn variability_of_known_tables() {
    let table = [1.0, 3.0, -5.0, 5.0, 7.0, 7.0, 1e4 - 0.5, 1e4 + 0.5];
    let found = tev(matrix(&table, 2));
    assert_eq!(found.deviations, [1.0, 5.0, 0.0, 0.5]);
    assert_eq!((found.mean, found.status), (6.5 / 4.0, Status::empty()));
    let empty = tev(matrix(&[], 2));
    assert_eq!((empty.mean, empty.status), (0.0, Status::empty()));
    for fault in [f64::NAN, f64::INFINITY] {
        let found = tev(matrix(&[1.0, 2.0, fault, 2.0], 2));
        assert!(found.mean.is_nan() && found.status == Status::NON_FINITE_ROW);
        assert_eq!(found.deviations[0], 0.5);
    }
}
