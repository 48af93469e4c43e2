//! The reference against what it does not share code with: closed forms, finite differences of the
//! plainly written operations, and properties.

mod closed_forms;
mod differences;
mod edges;
mod heads;
mod neighbours;
mod properties;
mod softmax;
mod spectral;

use super::rows::{self, Incoming, Outgoing, Residual};
use super::{Forward, WeightGradients, Weights};
use crate::Status;
use crate::norm::NormOptions;
use crate::reference::floats::{FloatRows, FloatRowsMut};

/// `count` numbers between -2 and 2 that differ from seed to seed and have no pattern.
pub(super) fn numbers(seed: u64, count: usize) -> Vec<f64> {
    (0..count as u64)
        .map(|i| {
            // The finalizer of SplitMix64.
            let mut bits = (seed << 32 | i)
                .wrapping_add(1)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15);
            bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            (bits ^ bits >> 31) as f64 / u64::MAX as f64 * 4.0 - 2.0
        })
        .collect()
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The largest magnitude.
pub(super) fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, v| v.abs().max(largest))
}

/// Rows of f64 that follow each other.
pub(super) fn matrix(data: &[f64], columns: usize) -> FloatRows<'_> {
    FloatRows::new(data, data.len() / columns, columns, columns).unwrap()
}

pub(super) fn matrix_mut(data: &mut [f64], columns: usize) -> FloatRowsMut<'_> {
    let rows = data.len() / columns;
    FloatRowsMut::new(data, rows, columns, columns).unwrap()
}

/// gamma and beta in f64.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnedWeights {
    pub(super) gamma: Option<Vec<f64>>,
    pub(super) beta: Option<Vec<f64>>,
}

impl OwnedWeights {
    pub(super) fn get(&self) -> Weights<'_> {
        Weights {
            gamma: self.gamma.as_ref().map(Into::into),
            beta: self.beta.as_ref().map(Into::into),
        }
    }
}

/// y of f64 rows.
pub(super) fn norm(
    options: &NormOptions,
    weights: &OwnedWeights,
    x: &[f64],
    columns: usize,
) -> (Vec<f64>, Forward) {
    let mut y = vec![f64::NAN; x.len()];
    let into = matrix_mut(&mut y, columns);
    let forward = rows::forward(options, &weights.get(), matrix(x, columns), None, into).unwrap();
    (y, forward)
}

/// s and y of f64 rows.
pub(super) fn residual_norm(
    options: &NormOptions,
    weights: &OwnedWeights,
    x: &[f64],
    residual: &[f64],
    columns: usize,
) -> (Vec<f64>, Vec<f64>) {
    let (mut s, mut y) = (vec![f64::NAN; x.len()], vec![f64::NAN; x.len()]);
    let added = Residual {
        residual: matrix(residual, columns),
        stream: matrix_mut(&mut s, columns),
    };
    let into = matrix_mut(&mut y, columns);
    rows::forward(
        options,
        &weights.get(),
        matrix(x, columns),
        Some(added),
        into,
    )
    .unwrap();
    (s, y)
}

/// All gradients in f64.
#[derive(Clone, Debug, Default)]
pub(super) struct Gradients {
    pub(super) x: Vec<f64>,
    pub(super) residual: Vec<f64>,
    pub(super) gamma: Vec<f64>,
    pub(super) beta: Vec<f64>,
    pub(super) status: Status,
}

pub(super) fn gradients(
    options: &NormOptions,
    weights: &OwnedWeights,
    x: &[f64],
    dy: &[f64],
    dstream: Option<&[f64]>,
    columns: usize,
) -> Gradients {
    let len = |weight: &Option<Vec<f64>>| weight.as_ref().map_or(0, Vec::len);
    let mut got = Gradients {
        x: vec![f64::NAN; x.len()],
        residual: vec![f64::NAN; x.len()],
        gamma: vec![f64::NAN; len(&weights.gamma)],
        beta: vec![f64::NAN; len(&weights.beta)],
        status: Status::empty(),
    };
    let incoming = Incoming {
        dy: matrix(dy, columns),
        dstream: dstream.map(|dstream| matrix(dstream, columns)),
    };
    let outgoing = Outgoing {
        dx: matrix_mut(&mut got.x, columns),
        dresidual: Some(matrix_mut(&mut got.residual, columns)),
        weights: WeightGradients {
            gamma: weights.gamma.is_some().then(|| (&mut got.gamma).into()),
            beta: weights.beta.is_some().then(|| (&mut got.beta).into()),
            accumulate: false,
        },
    };
    got.status = rows::backward(
        options,
        &weights.get(),
        matrix(x, columns),
        incoming,
        outgoing,
    )
    .unwrap();
    got
}

#[track_caller]
pub(super) fn assert_close(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    let size = largest(want);
    for (j, (&got, &want)) in got.iter().zip(want).enumerate() {
        let close = got == want
            || (got - want).abs() <= tolerance * size
            || (got.is_nan() && want.is_nan());
        assert!(close, "element {j}: got {got:e}, want {want:e}");
    }
}
