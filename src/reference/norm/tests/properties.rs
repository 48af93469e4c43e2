//! What holds for every row.

use proptest::prelude::*;

use super::{OwnedWeights, dot, gradients, largest, norm};
use crate::norm::{NormKind, NormOptions};

/// Numbers on a grid of 2^-8, so that sums with other such numbers are exact.
fn grid_row() -> impl Strategy<Value = Vec<f64>> {
    let value = (-30_000i32..30_000).prop_map(|steps| f64::from(steps) / 256.0);
    prop::collection::vec(value, 2..80)
}

fn kinds() -> impl Strategy<Value = NormKind> {
    prop::sample::select(NormKind::ALL.to_vec())
}

fn spread(x: &[f64]) -> bool {
    x.iter().any(|&value| value != x[0])
}

proptest! {
    #[test]
    fn without_eps_scale_does_not_matter(x in grid_row(), kind in kinds(), exponent in -40..40) {
        prop_assume!(spread(&x));
        let options = NormOptions::new(kind).eps(0.0);
        let scaled: Vec<f64> = x.iter().map(|x| x * 2f64.powi(exponent)).collect();
        let plain = OwnedWeights::default();
        // Powers of 2 change no digit.
        let y = norm(&options, &plain, &x, x.len()).0;
        prop_assert_eq!(norm(&options, &plain, &scaled, x.len()).0, y);
    }

    #[test]
    fn layers_do_not_see_an_offset(x in grid_row(), offset in -10_000i32..10_000) {
        prop_assume!(spread(&x));
        let options = NormOptions::layer();
        let plain = OwnedWeights::default();
        let shifted: Vec<f64> = x.iter().map(|x| x + f64::from(offset)).collect();
        let y = norm(&options, &plain, &x, x.len()).0;
        let got = norm(&options, &plain, &shifted, x.len()).0;
        // Each mean is rounded to 2^-52 of values up to 10_200; a spread is at least 2^-8 / 80.
        let tolerance = 2.0 * 10_200.0 * f64::EPSILON * 80.0 * 256.0;
        for (got, y) in got.iter().zip(&y) {
            prop_assert!((got - y).abs() <= tolerance);
        }
    }

    #[test]
    fn y_has_unit_spread(x in grid_row(), kind in kinds()) {
        prop_assume!(spread(&x));
        let options = NormOptions::new(kind).eps(0.0);
        let y = norm(&options, &OwnedWeights::default(), &x, x.len()).0;
        let d = x.len() as f64;
        prop_assert!((dot(&y, &y) / d - 1.0).abs() <= 1e-13);
        if kind == NormKind::Layer {
            prop_assert!((y.iter().sum::<f64>() / d).abs() <= 1e-9);
        }
    }

    #[test]
    fn gradients_leave_out_what_does_not_matter(
        (x, dy) in grid_row().prop_flat_map(|x| {
            let dy = prop::collection::vec(-3f64..3.0, x.len());
            (Just(x), dy)
        }),
        kind in kinds(),
    ) {
        prop_assume!(spread(&x));
        let options = NormOptions::new(kind).eps(0.0);
        let plain = OwnedWeights::default();
        let got = gradients(&options, &plain, &x, &dy, None, x.len()).x;
        let (h, forward) = norm(&options, &plain, &x, x.len());
        // r (a - c1 - h c2), each term within r (3 + 3 + 3 |h| sqrt(D)), rounded a few times.
        let d = x.len() as f64;
        let term = forward.moments[0].rstd * (6.0 + 3.0 * largest(&h) * d.sqrt());
        let tolerance = 16.0 * f64::EPSILON * d * term;
        prop_assert!(dot(&got, &h).abs() <= tolerance * largest(&h));
        if kind == NormKind::Layer {
            prop_assert!(got.iter().sum::<f64>().abs() <= tolerance * largest(&h));
        }
    }

    #[test]
    fn rows_do_not_see_each_other(x in prop::collection::vec(grid_row(), 1..4), kind in kinds()) {
        let columns = x.iter().map(Vec::len).min().unwrap();
        let rows: Vec<f64> = x.iter().flat_map(|row| row[..columns].to_vec()).collect();
        let options = NormOptions::new(kind);
        let plain = OwnedWeights::default();
        let together = norm(&options, &plain, &rows, columns).0;
        let apart: Vec<f64> = rows
            .chunks(columns)
            .flat_map(|row| norm(&options, &plain, row, columns).0)
            .collect();
        prop_assert_eq!(together, apart);
    }
}
