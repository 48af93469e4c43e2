//! How far a softmax computed in fp32 may be from the exact one.
//!
//! With the arithmetic of [`Arithmetic`], m the largest score of
//! a row, d = m - z_j >= 0 and e_j = exp(-d), the forward's steps and their errors are
//!
//! | step | error |
//! |---|---|
//! | z | u z for the scale's product, none where the scale is a power of two; tau_j is that of z_j plus that of m |
//! | e_j | the exponential's, u d more for a folded scale, and tau_j; exactly 1 where x_j is the largest x |
//! | sum of the e_j below 1 | element by element, (`elements` + `tree`) u; each of `links` changes of the maximum brings an exponential (4 u), a product and an add: 6 u. The parts of a change that grow with d add up to those of d, since maxima only rise |
//! | S = count + others | the count is exact: 2 u, and the error of the others over S |
//! | log S = log1p(S - 1) | the others' error over S, u (S - 1) / S, and `log1pf` 1 ulp: where one key has it all, log S keeps the digits of the others' sum |
//! | p_j | an exponential more (6 u), a division or product by 1 / S (3 u), and S: where e_j is 1, 3 u and S |
//! | log p_j = -d - log S | 2 u d, tau_j, log S and u |
//! | lse = m + log S | u, that of m and that of log S |
//! | T = sum e d | each term its e's error and those of sum and changes; H = log S + T / S |
//!
//! `StableMax`: s_j is z_j (u at most beside 1 + |z_j|), an add and for z_j < 0 a division, 3 u in all;
//! S its sum; p_j = s_j / S 2 u more; H = -sum p log p by a sum of its own with `logf` (1 ulp), to
//! which an error r of p brings p (1 + |log p|) r.
//!
//! The backward starts from y and the normalizer as they are stored, which are exact to it. A = sum
//! p g (log-softmax: sum g) and H = -sum p log p are two sums over the row; for log-softmax p =
//! exp(y) by ex2.approx. Then dz = p (g - A - v (log p + H)), each operation u, the slope of
//! `StableMax` 5 u more, and dx = scale dz.

use evenkeel::norm::{SoftmaxKind, SoftmaxOptions};

use crate::norm::arithmetic::Arithmetic;
use crate::numbers::Interval;

/// The allowed results of a row's forward: of the keys it sees, the entropy and the normalizer.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Errors of y, absolute.
    pub y: Vec<f64>,
    /// That of the entropy.
    pub entropy: f64,
    /// That of the normalizer.
    pub normalizer: f64,
}

/// The exact results of a row.
#[derive(Clone, Copy, Debug)]
pub struct Exact<'a> {
    /// y of the keys that the row sees.
    pub y: &'a [f64],
    /// H.
    pub entropy: f64,
    /// lse or S.
    pub normalizer: f64,
}

/// Relative error of the scale's product.
fn transform(options: &SoftmaxOptions, on: &Arithmetic) -> f64 {
    let mantissa_bits = options.scale.to_bits() & 0x007f_ffff;
    if mantissa_bits == 0 { 0.0 } else { on.unit }
}

impl Forward {
    /// Of a row that sees the scores `x`, finite or -inf. What sees nothing else is exact.
    #[must_use]
    pub fn new(options: &SoftmaxOptions, x: &[f64], exact: Exact<'_>, on: &Arithmetic) -> Self {
        if x.iter().all(|x| *x == f64::NEG_INFINITY) {
            return Self {
                y: vec![0.0; x.len()],
                entropy: 0.0,
                normalizer: 0.0,
            };
        }
        if options.kind == SoftmaxKind::StableMax {
            stable(x, exact, on)
        } else {
            exponential(options, x, exact, on)
        }
    }
}

fn exponential(options: &SoftmaxOptions, x: &[f64], exact: Exact<'_>, on: &Arithmetic) -> Forward {
    let unit = on.unit;
    let scale = f64::from(options.scale);
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let max = scale * top;
    let transform = transform(options, on);
    let tau_max = transform * max.abs();
    let chain = on.row_sum() + 6.0 * on.links * unit;
    // Of one exponential, relatively.
    let single = |z: f64| {
        let distance = max - z;
        on.exponential(distance) + distance * unit + transform * z.abs() + tau_max
    };
    let live = || x.iter().filter(|x| **x > f64::NEG_INFINITY);

    let (mut others, mut error, mut gaps, mut gap_error) = (0.0, 0.0, 0.0, 0.0);
    let count = live().filter(|x| **x == top).count() as f64;
    for z in live().filter(|x| **x != top).map(|x| scale * x) {
        let (distance, tau) = (max - z, transform * z.abs() + tau_max);
        let e = (-distance).exp();
        let share = (single(z) + chain).exp_m1();
        others += e;
        error += e * share + on.flush;
        gaps += e * distance;
        let further = (on.elements + 3.0 * on.links + 4.0) * unit;
        gap_error += e * distance * (share + further) + e * tau + on.flush * distance.min(1e4);
    }
    let total = count + others;
    let sum = error / total + 2.0 * unit;
    let log_sum = ((count - 1.0) + others).ln_1p();
    let log_sum_error =
        error / total + unit * (total - 1.0) / total + 2.0 * unit * log_sum + on.tiny;
    let y = x
        .iter()
        .zip(exact.y)
        .map(|(&x, &y)| {
            let z = scale * x;
            let distance = max - z;
            match options.kind {
                _ if x == f64::NEG_INFINITY => 0.0,
                SoftmaxKind::LogSoftmax => {
                    let tau = if x == top {
                        0.0
                    } else {
                        transform * z.abs() + tau_max
                    };
                    2.0 * unit * distance + tau + log_sum_error + unit * y.abs()
                }
                _ if x == top => y * (sum + 3.0 * unit).exp_m1(),
                _ => y * (single(z) + 9.0 * unit + sum).exp_m1() + on.flush,
            }
        })
        .collect();
    Forward {
        y,
        entropy: log_sum_error
            + gap_error / total
            + gaps / total * (sum + 3.0 * unit)
            + unit * exact.entropy.abs(),
        normalizer: log_sum_error + tau_max + unit * exact.normalizer.abs(),
    }
}

fn stable(x: &[f64], exact: Exact<'_>, on: &Arithmetic) -> Forward {
    let unit = on.unit;
    let sum = 3.0 * unit + on.row_sum();
    let share = sum + 5.0 * unit;
    let mut entropy = 0.0;
    let y = x
        .iter()
        .zip(exact.y)
        .map(|(&x, &p)| {
            if x == f64::NEG_INFINITY {
                return 0.0;
            }
            let log = p.ln().abs();
            entropy += p * (1.0 + log) * share + p * log * (3.0 * unit + on.row_sum()) + on.tiny;
            p * share + on.tiny
        })
        .collect();
    Forward {
        y,
        entropy: entropy + unit * exact.entropy,
        normalizer: exact.normalizer * (sum + unit),
    }
}

/// What a row's backward is given: stored numbers, exact to it.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// y of the keys that the row sees.
    pub y: &'a [f64],
    /// The gradient of y.
    pub dy: &'a [f64],
    /// The gradient of the entropy, where there is one.
    pub dentropy: Option<f64>,
    /// S, for `StableMax`.
    pub normalizer: f64,
}

/// The allowed gradients of the keys that a row sees; y and dy are finite where p is not 0.
#[must_use]
pub fn backward(
    options: &SoftmaxOptions,
    given: Given<'_>,
    exact: &[f64],
    on: &Arithmetic,
) -> Vec<Interval> {
    let unit = on.unit;
    let log = options.kind == SoftmaxKind::LogSoftmax;
    let scale = f64::from(options.scale);
    let share = |y: f64| if log { (y.exp(), y) } else { (y, y.ln()) };
    let absent = |y: f64| {
        if log {
            y == f64::NEG_INFINITY
        } else {
            y == 0.0
        }
    };
    // Relative errors of p and log p.
    let p_error = |log_p: f64| {
        if log {
            on.exponential(log_p.abs())
        } else {
            0.0
        }
    };
    let log_error = if log { 0.0 } else { 2.0 * unit };

    let (mut mean, mut mean_size, mut entropy, mut entropy_error) = (0.0, 0.0, 0.0, 0.0);
    for (&y, &g) in given.y.iter().zip(given.dy) {
        if absent(y) {
            continue;
        }
        let (p, log_p) = share(y);
        let term = if log { g } else { p * g };
        mean += term;
        mean_size += term.abs();
        entropy -= p * log_p;
        let relative = p_error(log_p) + log_error + on.row_sum() + unit;
        entropy_error += p * log_p.abs() * relative + on.flush * log_p.abs();
    }
    let mean_error = (on.row_sum() + unit) * mean_size;
    let weight = given.dentropy.unwrap_or(0.0).abs();
    given
        .y
        .iter()
        .zip(given.dy)
        .zip(exact)
        .map(|((&y, &g), &exact)| {
            if absent(y) {
                return Interval::only(exact);
            }
            let (p, log_p) = share(y);
            let bracket = log_p.abs() + entropy;
            // v (log p + H)
            let of_entropy = weight * (entropy_error + (log_error + 3.0 * unit) * bracket);
            let (factor, factor_error) = match options.kind {
                SoftmaxKind::StableMax => {
                    let slope = (p * given.normalizer).min(1.0).powi(2) / given.normalizer;
                    (slope, 5.0 * unit)
                }
                _ => (p, p_error(log_p)),
            };
            let size = mean.abs() + weight * bracket;
            let error = if log {
                let of_p = factor * (mean_error + of_entropy)
                    + factor * factor_error * size
                    + on.flush * size;
                of_p + 4.0 * unit * (g.abs() + factor * size)
            } else {
                let inner = mean_error + of_entropy + 3.0 * unit * (g.abs() + size);
                factor * inner + exact.abs() / scale * (factor_error + 2.0 * unit)
            };
            Interval::around(
                exact,
                scale * error + 2.0 * unit * exact.abs() + on.tiny * (1.0 + scale),
            )
        })
        .collect()
}
