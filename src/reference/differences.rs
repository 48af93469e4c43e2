//! Gradients against finite differences, with a tolerance that follows from the step.

/// d/dx_j by the five-point central difference: its error is h^4/30 of the fifth derivative and
/// 3/2 of the loss' rounding error over h.
fn difference(loss: impl Fn(&[f64]) -> f64, x: &[f64], j: usize, h: f64) -> f64 {
    let at = |step: f64| {
        let mut moved = x.to_vec();
        moved[j] += step;
        loss(&moved)
    };
    (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
}

/// Compares, with a tolerance made of the two errors of [`difference`]: the losses here lie within
/// `size`, are rounded to within 8 units of it, and each derivative multiplies them by at most
/// `rate`.
#[track_caller]
pub(super) fn assert_gradient(
    got: &[f64],
    x: &[f64],
    size: f64,
    rate: f64,
    loss: impl Fn(&[f64]) -> f64,
) {
    let h = 1e-3 / rate;
    let truncation = h.powi(4) / 30.0 * rate.powi(5) * size;
    let rounding = 1.5 * 8.0 * f64::EPSILON * size / h;
    for (j, &got) in got.iter().enumerate() {
        let want = difference(&loss, x, j, h);
        assert!(
            (got - want).abs() <= truncation + rounding,
            "element {j}: got {got:e}, difference {want:e}, tolerance {truncation:e} + {rounding:e}"
        );
    }
}
