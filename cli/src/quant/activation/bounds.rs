//! The errors of an activation in fp32.
//!
//! With the arithmetic of [`Arithmetic`], u half a unit of the last place, and what follows relative
//! unless it says otherwise:
//!
//! | step | error |
//! |---|---|
//! | e = exp(-abs(z)) by ex2.approx | (4 + 3 abs(z)) u, and what is flushed, absolutely |
//! | sigma, 1 - sigma | that of e, which 1 + e only lessens; u of the sum, 2 u of a reciprocal of 1 ulp, u of the product |
//! | silu = x sigma | u more |
//! | its slope, sigma + silu (1 - sigma) | those of both terms, u of the product, u of the sum: absolutely, as the terms cancel |
//! | Phi by `erfcf`, 4 ulp | 8 u; its argument by 2 u, which moves Phi by its slope times that |
//! | phi by ex2.approx | (4 + 3 x^2 / 2) u, its argument by u, 2 u for the constant |
//! | 2 a of the tanh form | 6 u, which moves sigma by its slope times that; 6 u for 2 a' |
//! | up / s, dy / s | u |
//! | y, dup, dgate, dx | u for each further product |

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

use evenkeel::quant::GeluKind;
use evenkeel::reference::quant::activation::{Function, slope, value};

use crate::norm::arithmetic::Arithmetic;

/// An activation's value and slope at one x, with their absolute errors.
#[derive(Clone, Copy, Debug)]
pub struct Curve {
    /// silu(x), or gelu(x).
    pub value: f64,
    /// What `value` may be off by.
    pub value_error: f64,
    /// The derivative.
    pub slope: f64,
    /// What `slope` may be off by.
    pub slope_error: f64,
}

fn sigmoid(z: f64) -> f64 {
    let e = (-z.abs()).exp();
    if z < 0.0 {
        e / (1.0 + e)
    } else {
        1.0 / (1.0 + e)
    }
}

/// Relative error of a sigmoid of an argument that is exact.
fn sigmoid_error(z: f64, on: &Arithmetic) -> f64 {
    // Beyond 150 the exponential is flushed whatever its argument's error.
    on.exponential(z.abs().min(150.0)) + 4.0 * on.unit
}

impl Curve {
    /// At x, which is finite, in this arithmetic.
    #[must_use]
    pub fn at(function: Function, x: f64, on: &Arithmetic) -> Self {
        let u = on.unit;
        // x times a sigmoid of z, z' its derivative: errors of z and z' relatively.
        let logistic = |z: f64, dz: f64, z_error: f64, dz_error: f64| -> [f64; 2] {
            let (s, rest) = (sigmoid(z), sigmoid(-z));
            let moved = s * rest * z.abs().min(150.0) * z_error;
            let relative = sigmoid_error(z, on);
            let [s_error, rest_error] = [s, rest].map(|of| of * relative + moved + on.flush);
            let term = (x * s * rest * dz).abs();
            let of_term = (x * dz).abs() * (s_error * rest + s * rest_error)
                + term * (dz_error + 4.0 * u)
                + (x * dz).abs() * s_error * rest_error;
            [
                x.abs() * s_error + u * (x * s).abs(),
                s_error + of_term + u * (s + term),
            ]
        };
        let [value_error, slope_error] = match function {
            Function::SwiGlu => logistic(x, 1.0, 0.0, 0.0),
            Function::Gelu(GeluKind::Tanh) => {
                // Beyond 16 the kernels' sigmoid is 0 or 1 as at 16, and so is this one.
                let c = x.clamp(-16.0, 16.0);
                let root = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
                let z = 2.0 * root * (c + 0.044_715 * c * c * c);
                let dz = 2.0 * root * (1.0 + 3.0 * 0.044_715 * c * c);
                logistic(z, dz, 6.0 * u, 6.0 * u)
            }
            Function::Gelu(_) => {
                let phi = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
                let at = value(function, x) / if x == 0.0 { 1.0 } else { x };
                let at = if x == 0.0 { 0.5 } else { at };
                let at_error = at * 8.0 * u + phi * x.abs() * 2.0 * u + on.flush;
                let square = (0.5 * x * x).min(150.0);
                let phi_error = phi * (on.exponential(square) + (square + 2.0) * u) + on.flush;
                [
                    x.abs() * at_error + u * (x * at).abs(),
                    at_error + x.abs() * phi_error + 2.0 * u * (x * phi).abs() + u * at,
                ]
            }
        };
        Self {
            value: value(function, x),
            value_error: value_error + on.tiny,
            slope: slope(function, x),
            slope_error: slope_error + on.tiny,
        }
    }

    /// What y = value (up / s) may be off by; 1 for both without up.
    #[must_use]
    pub fn y_error(&self, up: f64, scale: f64, on: &Arithmetic) -> f64 {
        let u = up / scale;
        u.abs() * self.value_error
            + 2.0 * on.unit * (u * self.value).abs()
            + on.tiny * (1.0 + self.value.abs())
    }

    /// What dup = (dy / s) value may be off by.
    #[must_use]
    pub fn up_error(&self, dy: f64, scale: f64, on: &Arithmetic) -> f64 {
        self.y_error(dy, scale, on)
    }

    /// What dgate = (dy / s) up slope, or dx = dy slope, may be off by.
    #[must_use]
    pub fn gate_error(&self, dy: f64, up: f64, scale: f64, on: &Arithmetic) -> f64 {
        let d = dy / scale;
        (d * up).abs() * self.slope_error
            + 3.0 * on.unit * (d * up * self.slope).abs()
            + on.tiny * (1.0 + (1.0 + up.abs()) * self.slope.abs())
    }
}
