//! The gradient of one row from its saved state.

use super::{Row, RowOptions, RowState, Target, times};
use crate::Status;

/// The gradients that come from above: of the token's loss, and of its statistics where a caller
/// builds a loss of their own from them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowUpstream {
    /// dL/d(loss of the token).
    pub loss: f64,
    /// dL/d(lp).
    pub lp: f64,
    /// dL/d(H).
    pub entropy: f64,
    /// dL/d(lse).
    pub lse: f64,
}

impl RowUpstream {
    /// The gradient of the token's loss alone.
    #[must_use]
    pub fn loss(loss: f64) -> Self {
        Self {
            loss,
            ..Self::default()
        }
    }
}

/// The scalars of one row's gradient: `dz_j = a p_j - b [j = y] - c p_j (log p_j + H) - d` for the
/// transformed logits, and `e x_j` added to the gradient of the raw ones.
///
/// With u the upstream gradient of the loss (0 for a token that is not kept) and w the weight:
/// b = u w (1 - epsilon) g - `u_lp`, a = b + u (w epsilon + 2 `lambda_z` lse) + `u_lse`,
/// c = `u_H` - u eta, d = u w epsilon / V', e = u `lambda_s`. Where u w g leaves the range of f32,
/// b and a are held at its ends, as they are on the devices that compute in f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// a - b: what is left of a at the target, where b (p - 1) is formed from 1 - p.
    pub a_minus_b: f64,
    /// The objective's share, and minus the upstream gradient of lp.
    pub b: f64,
    /// The entropy's share.
    pub c: f64,
    /// Label smoothing's uniform share.
    pub d: f64,
    /// Spectral decoupling's share.
    pub e: f64,
}

impl Coefficients {
    /// The coefficients of a row that is finite and whose target is valid.
    #[must_use]
    pub fn new(
        state: &RowState,
        weight: f64,
        options: &RowOptions,
        upstream: &RowUpstream,
    ) -> Self {
        let u = if state.kept { upstream.loss } else { 0.0 };
        let epsilon = options.label_smoothing;
        let g = state.objective(options.criterion).g;
        Self {
            a_minus_b: u * (weight * epsilon + 2.0 * options.z_loss * state.lse()) + upstream.lse,
            b: in_f32_range(u * weight * (1.0 - epsilon) * g) - upstream.lp,
            c: upstream.entropy - u * options.entropy,
            // A device that was not asked for V' saves 0.
            d: times(u * weight * epsilon, state.unmasked_count.recip()),
            e: u * options.spectral_decoupling,
        }
    }

    /// a.
    #[must_use]
    pub fn a(&self) -> f64 {
        in_f32_range(self.a_minus_b + self.b)
    }
}

fn in_f32_range(value: f64) -> f64 {
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX))
}

/// The gradient of one row's raw logits, written to `gradient[..vocab]`.
///
/// `state` is the one that [`forward`](super::forward) gave for the same row. A row that takes no part gets
/// zeros; a row that is not finite gets NaN, with zeros where the class mask has its bits. Returns
/// what is wrong with the row, as [`RowResult::status`](super::RowResult::status).
pub fn gradient(
    row: &Row,
    options: &RowOptions,
    state: &RowState,
    upstream: &RowUpstream,
    gradient: &mut [f64],
) -> Status {
    let Target::Valid(target) = row.checked_target() else {
        gradient.fill(0.0);
        return row.checked_target().status();
    };
    let coefficients = Coefficients::new(state, row.weight, options, upstream);
    let a = coefficients.a();
    let Coefficients {
        a_minus_b,
        b,
        c,
        d,
        e,
    } = coefficients;
    let non_finite = state.max.is_nan();
    let transformed = row.transformed(options);
    for (j, (dx, &z)) in gradient.iter_mut().zip(transformed.iter()).enumerate() {
        *dx = if row.masked_by_bit(j) {
            0.0
        } else if non_finite {
            f64::NAN
        } else if z == f64::NEG_INFINITY {
            0.0
        } else {
            let log_p = (z - state.max) - state.log_sum;
            let p = log_p.exp();
            let of_p = if j == target {
                a_minus_b * p - b * state.one_minus_p
            } else {
                a * p
            };
            let dz = of_p - c * p * (log_p + state.entropy) - d;
            dz * transform_slope(row.logits[j], options) + e * row.logits[j]
        };
    }
    state.status(options)
}

/// dz/dx of softcap and temperature. 1 - tanh^2 is formed from the exponential: the subtraction
/// has no digits left where the cap saturates.
fn transform_slope(x: f64, options: &RowOptions) -> f64 {
    let cap_slope = options.softcap.map_or(1.0, |c| {
        let decay = (-2.0 * (x / c).abs()).exp();
        4.0 * decay / (1.0 + decay).powi(2)
    });
    cap_slope / options.temperature
}
