//! Rows whose results are known.

use half::{bf16, f16};

use super::{OwnedWeights, gradients, matrix, matrix_mut, norm};
use crate::norm::NormOptions;
use crate::reference::floats::{FloatRows, FloatRowsMut};
use crate::reference::norm::rows::{self, Residual};
use crate::reference::norm::{Moments, Weights};
use crate::{Number, Status};

#[test]
fn a_row_of_3_and_4() {
    let options = NormOptions::rms().eps(0.0);
    let rms = 12.5_f64.sqrt();
    let (y, forward) = norm(&options, &OwnedWeights::default(), &[3.0, 4.0], 2);
    super::assert_close(&y, &[3.0 / rms, 4.0 / rms], 1e-15);
    assert_eq!(forward.moments[0].mean, 0.0);
    super::assert_close(&[forward.moments[0].rstd], &[1.0 / rms], 1e-15);

    let (y, forward) = norm(
        &NormOptions::layer().eps(0.0),
        &OwnedWeights::default(),
        &[3.0, 4.0],
        2,
    );
    assert_eq!(y, [-1.0, 1.0]);
    let want = Moments {
        mean: 3.5,
        rstd: 2.0,
    };
    assert_eq!(forward.moments, [want]);

    // rms: dx = r (dy - h c2) with dy = (1, 0): c2 = h_0 / 2.
    let got = gradients(
        &options,
        &OwnedWeights::default(),
        &[3.0, 4.0],
        &[1.0, 0.0],
        None,
        2,
    );
    let r = 1.0 / rms;
    let want = [r * (1.0 - 9.0 / 25.0), -r * 12.0 / 25.0];
    super::assert_close(&got.x, &want, 1e-15);
}

#[test]
fn zero_centred_gamma_of_0_changes_nothing() {
    let options = NormOptions::rms().zero_centred();
    let zeros = OwnedWeights {
        gamma: Some(vec![0.0; 4]),
        beta: None,
    };
    let x = [0.5, -1.0, 2.0, 0.25];
    assert_eq!(
        norm(&options, &zeros, &x, 4).0,
        norm(&options, &OwnedWeights::default(), &x, 4).0
    );
}

/// bf16 around 9984 comes in steps of 64: the mean of squares and the square of the mean agree in
/// 15 bits, which is all a one-pass variance in f32 would keep 9 of.
#[test]
fn an_offset_of_1e4_costs_no_digits() {
    let options = NormOptions::layer();
    let eps = f64::from(options.eps);
    let row: Vec<bf16> = (0..512)
        .map(|j| {
            bf16::from_f32(if j % 2 == 0 {
                9984.0 - 64.0
            } else {
                9984.0 + 64.0
            })
        })
        .collect();
    let mut y = vec![0.0_f64; 512];
    let forward = rows::forward(
        &options,
        &Weights::default(),
        FloatRows::new(&row, 1, 512, 512).unwrap(),
        None,
        matrix_mut(&mut y, 512),
    )
    .unwrap();
    let rstd = 1.0 / (4096.0 + eps).sqrt();
    assert_eq!(forward.moments[0].mean, 9984.0);
    super::assert_close(&[forward.moments[0].rstd], &[rstd], 3e-16);
    for (j, y) in y.into_iter().enumerate() {
        let want = if j % 2 == 0 { -64.0 } else { 64.0 } * rstd;
        assert!((y - want).abs() <= 3e-16, "{y} {want}");
    }

    // f32 rows with steps of 2^-10 there: the spread is 1e-7 of the offset.
    let row: Vec<f32> = (0..512)
        .map(|j| 1e4 + if j % 2 == 0 { -1.0 } else { 1.0 } / 1024.0)
        .collect();
    let rows_of = FloatRows::new(&row, 1, 512, 512).unwrap();
    let moments = Moments::new(&rows_of.row(0), &options.eps(0.0));
    assert_eq!((moments.mean, moments.rstd), (1e4, 1024.0));

    // In f64 too: the square of such an offset needs 68 bits.
    let (step, offset) = (2f64.powi(-20), 12_945_678_901.0 * 2f64.powi(-20));
    let moments = Moments::new(&[offset - step, offset + step], &options.eps(0.0));
    assert_eq!((moments.mean, moments.rstd), (offset, 1.0 / step));
}

#[test]
fn constant_rows_are_beta() {
    let row = vec![bf16::from_f32(1e4); 33];
    let beta = vec![0.75_f32; 33];
    let gamma = vec![3.0_f32; 33];
    let mut y = vec![0.0_f64; 33];
    let forward = rows::forward(
        &NormOptions::layer(),
        &Weights::gamma(&gamma).beta(&beta),
        FloatRows::new(&row, 1, 33, 33).unwrap(),
        None,
        matrix_mut(&mut y, 33),
    )
    .unwrap();
    assert!(forward.status.is_empty());
    assert_eq!(y, [0.75; 33]);
}

#[test]
fn the_stream_is_rounded_once_and_normalized_as_stored() {
    // 256 + 1 needs nine bits.
    let x = [256.0_f32, 3.0];
    let residual = [1.0_f32, 0.0];
    let mut stream = [bf16::ZERO; 2];
    let mut y = [0.0_f64; 2];
    let added = Residual {
        residual: FloatRows::new(&residual[..], 1, 2, 2).unwrap(),
        stream: FloatRowsMut::new(&mut stream[..], 1, 2, 2).unwrap(),
    };
    let options = NormOptions::layer();
    rows::forward(
        &options,
        &Weights::default(),
        FloatRows::new(&x[..], 1, 2, 2).unwrap(),
        Some(added),
        matrix_mut(&mut y, 2),
    )
    .unwrap();
    assert_eq!(stream, [256.0, 3.0].map(bf16::from_f32));
    let want = norm(&options, &OwnedWeights::default(), &[256.0, 3.0], 2).0;
    assert_eq!(y, want[..]);
}

#[test]
fn gradients_of_weights_accumulate_and_are_rounded_once() {
    use crate::reference::norm::WeightGradients;
    use crate::reference::norm::rows::{Incoming, Outgoing};

    // h = dy = ones: dgamma = dbeta = the number of rows, 5000, over several chunks.
    let x = vec![1.0; 5000];
    let mut dx = vec![0.0; 5000];
    let mut dgamma = [0.5_f32];
    let mut dbeta = [-1.0_f32];
    let (gamma, beta) = ([2.0], [0.0]);
    let incoming = Incoming {
        dy: matrix(&x, 1),
        dstream: None,
    };
    let outgoing = Outgoing {
        dx: matrix_mut(&mut dx, 1),
        dresidual: None,
        weights: WeightGradients {
            gamma: Some((&mut dgamma[..]).into()),
            beta: Some((&mut dbeta[..]).into()),
            accumulate: true,
        },
    };
    let weights = Weights::gamma(&gamma[..]).beta(&beta[..]);
    let options = NormOptions::rms().eps(0.0);
    let status = rows::backward(&options, &weights, matrix(&x, 1), incoming, outgoing).unwrap();
    assert_eq!(status, Status::empty());
    assert_eq!((dgamma, dbeta), ([5000.5], [4999.0]));
    assert_eq!(dx, vec![0.0; 5000]);
    assert_eq!(<f32 as Number>::from_f64(5000.5), dgamma[0]);
}

/// Every tensor of its own type: what is computed in f64 from the widened values, rounded once.
#[test]
fn types_are_independent() {
    use crate::reference::norm::WeightGradients;
    use crate::reference::norm::rows::{Incoming, Outgoing};

    let widths = [3, 5];
    let numbers = |seed: u64| super::numbers(seed, widths[0] * widths[1]);
    fn rounded<T: Number>(values: &[f64]) -> Vec<T> {
        values.iter().map(|&value| T::from_f64(value)).collect()
    }
    fn wide<T: Number>(values: &[T]) -> Vec<f64> {
        values.iter().map(|value| value.to_f64()).collect()
    }
    fn rows_of<T: Number>(values: &[T]) -> FloatRows<'_>
    where
        for<'a> crate::reference::Floats<'a>: From<&'a [T]>,
    {
        FloatRows::new(values, 3, 5, 5).unwrap()
    }
    let x: Vec<bf16> = rounded(&numbers(1));
    let residual: Vec<f32> = rounded(&numbers(2));
    let dy: Vec<f16> = rounded(&numbers(3));
    let dstream: Vec<bf16> = rounded(&numbers(4));
    let gamma: Vec<f16> = rounded(&numbers(5)[..5]);
    let beta: Vec<bf16> = rounded(&numbers(6)[..5]);
    let options = NormOptions::layer();
    let weights = Weights::gamma(&gamma).beta(&beta);

    let (mut stream, mut y) = (vec![f16::ZERO; 15], vec![bf16::ZERO; 15]);
    let added = Residual {
        residual: rows_of(&residual),
        stream: FloatRowsMut::new(&mut stream, 3, 5, 5).unwrap(),
    };
    let into = FloatRowsMut::new(&mut y, 3, 5, 5).unwrap();
    rows::forward(&options, &weights, rows_of(&x), Some(added), into).unwrap();

    let sum = wide(&x).into_iter().zip(wide(&residual));
    let sum: Vec<f64> = sum.map(|(x, residual)| x + residual).collect();
    assert_eq!(stream, rounded::<f16>(&sum));
    let owned = OwnedWeights {
        gamma: Some(wide(&gamma)),
        beta: Some(wide(&beta)),
    };
    assert_eq!(
        y,
        rounded::<bf16>(&norm(&options, &owned, &wide(&stream), 5).0)
    );

    let (mut dx, mut dresidual) = (vec![bf16::ZERO; 15], vec![0.0_f32; 15]);
    let mut dgamma = vec![0.0_f32; 5];
    let incoming = Incoming {
        dy: rows_of(&dy),
        dstream: Some(rows_of(&dstream)),
    };
    let outgoing = Outgoing {
        dx: FloatRowsMut::new(&mut dx, 3, 5, 5).unwrap(),
        dresidual: Some(FloatRowsMut::new(&mut dresidual, 3, 5, 5).unwrap()),
        weights: WeightGradients {
            gamma: Some((&mut dgamma).into()),
            ..WeightGradients::default()
        },
    };
    rows::backward(&options, &weights, rows_of(&stream), incoming, outgoing).unwrap();
    let want = gradients(
        &options,
        &owned,
        &wide(&stream),
        &wide(&dy),
        Some(&wide(&dstream)),
        5,
    );
    assert_eq!(dx, rounded::<bf16>(&want.x));
    assert_eq!(dresidual, rounded::<f32>(&want.x));
    assert_eq!(dgamma, rounded::<f32>(&want.gamma));
}
