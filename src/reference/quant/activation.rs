//! Activations between the two linear layers of a feed-forward block, forward and backward:
//!
//! ```text
//! swiglu     y = silu(g) u              silu(g) = g sigma(g)      sigma(g) = 1 / (1 + e^-g)
//!            dg = dy u (sigma + silu(g) (1 - sigma))              du = dy silu(g)
//! gelu       y = x Phi(x)               Phi(x) = erfc(-x / sqrt 2) / 2
//!            dx = dy (Phi + x e^(-x^2 / 2) / sqrt(2 pi))
//! gelu-tanh  y = x sigma(2 a)           a = sqrt(2 / pi) (x + 0.044715 x^3)
//!            dx = dy (sigma + x sigma (1 - sigma) 2 a')
//! ```
//!
//! x sigma(2 a) is x (1 + tanh a) / 2. Smooth-SwiGLU divides u by a scale first:
//!
//! ```text
//! y = silu(g) (u / s)                   s_j = max over tokens t of |u_tj|, a channel's
//! dg = (dy / s) u (..)                  s_t = max over channels j of |u_tj|, a token's
//! du = (dy / s) silu(g)
//! ```
//!
//! The maximum is of the finite elements, and 1 where that is 0. What follows multiplies with s: the
//! next layer's weight, channel by channel, or its result, token by token. Its gradient through s and
//! that of u / s cancel, so s is a constant here.
//!
//! sigma and 1 - sigma are formed from e^-|g|, which leaves each all its digits. Elements are on their
//! own: infinities and NaN have the values that the formulas have, as -inf sigma(-inf) = NaN.

use rayon::prelude::*;

use super::expect;
use crate::Error;
use crate::quant::{GeluKind, Smoothing};
use crate::reference::floats::{FloatRows, FloatRowsMut};

/// What is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// silu(gate) up.
    SwiGlu,
    /// GELU of one input.
    Gelu(GeluKind),
}

/// What an activation reads: x, or gate and up of one shape.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// x, or the gate.
    pub x: FloatRows<'a>,
    /// Of `SwiGlu`.
    pub up: Option<FloatRows<'a>>,
}

/// What the linear branch is divided by.
#[derive(Clone, Copy, Debug, Default)]
pub enum Scales<'a> {
    /// Nothing.
    #[default]
    None,
    /// One for each channel.
    Channel(&'a [f32]),
    /// One for each token.
    Token(&'a [f32]),
}

impl Scales<'_> {
    fn at(&self, token: usize, channel: usize) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Channel(scales) => f64::from(scales[channel]),
            Self::Token(scales) => f64::from(scales[token]),
        }
    }

    fn check(&self, [tokens, _, channels]: [usize; 3]) -> Result<(), Error> {
        let (len, expected) = match self {
            Self::None => return Ok(()),
            Self::Channel(scales) => (scales.len(), channels),
            Self::Token(scales) => (scales.len(), tokens),
        };
        expect("scales", len == expected, &format!("[{expected}]"), len)
    }
}

/// Where a backward writes: dx; or dgate and dup, in one matrix of twice the columns or in two.
#[derive(Debug)]
pub enum Gradients<'a> {
    /// dx, or gate's columns and then up's.
    One(FloatRowsMut<'a>),
    /// dgate and dup.
    Two(FloatRowsMut<'a>, FloatRowsMut<'a>),
}

/// The scales of Smooth-SwiGLU: of each channel, or of each token.
#[must_use]
pub fn smoothing_scales(smoothing: Smoothing, up: FloatRows) -> Vec<f32> {
    let scale = |amax: f64| if amax > 0.0 { amax as f32 } else { 1.0 };
    let larger = |amax: f64, value: f64| {
        if value.is_finite() {
            amax.max(value.abs())
        } else {
            amax
        }
    };
    let rows = (0..up.rows()).into_par_iter();
    match smoothing {
        Smoothing::Token => rows
            .map(|row| scale(up.row(row).into_iter().fold(0.0, larger)))
            .collect(),
        Smoothing::Channel => {
            let none = || vec![0.0; up.columns()];
            let amax = rows.fold(none, |mut amax, row| {
                let values = up.row(row);
                amax.iter_mut()
                    .zip(values)
                    .for_each(|(a, v)| *a = larger(*a, v));
                amax
            });
            let amax = amax.reduce(none, |mut left, right| {
                left.iter_mut().zip(right).for_each(|(l, r)| *l = r.max(*l));
                left
            });
            amax.into_iter().map(scale).collect()
        }
    }
}

/// y, of x's shape.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit.
pub fn forward(
    function: Function,
    inputs: Inputs,
    scales: Scales,
    y: FloatRowsMut,
) -> Result<(), Error> {
    check(function, &inputs, &scales)?;
    same_shape("y", y.shape(), inputs.x.shape())?;
    y.into_rows()
        .into_par_iter()
        .enumerate()
        .for_each(|(row, mut y)| {
            let x = inputs.x.row(row);
            let values: Vec<f64> = match inputs.up {
                Some(up) => {
                    let pairs = x.iter().zip(up.row(row)).enumerate();
                    pairs
                        .map(|(j, (&g, u))| value(function, g) * (u / scales.at(row, j)))
                        .collect()
                }
                None => x.iter().map(|&x| value(function, x)).collect(),
            };
            y.store(&values);
        });
    Ok(())
}

/// The gradients of a [`forward`], given that of its y.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit.
pub fn backward(
    function: Function,
    inputs: Inputs,
    scales: Scales,
    dy: FloatRows,
    gradients: Gradients,
) -> Result<(), Error> {
    check(function, &inputs, &scales)?;
    let shape = inputs.x.shape();
    same_shape("dy", dy.shape(), shape)?;
    let row_of = |row: usize| -> [Vec<f64>; 2] {
        let (x, dy) = (inputs.x.row(row), dy.row(row));
        let Some(up) = inputs.up else {
            let pairs = x.iter().zip(dy);
            return [
                pairs.map(|(&x, dy)| dy * slope(function, x)).collect(),
                Vec::new(),
            ];
        };
        let up = up.row(row);
        let smooth: Vec<f64> = dy
            .iter()
            .enumerate()
            .map(|(j, dy)| dy / scales.at(row, j))
            .collect();
        let gate = (0..x.len()).map(|j| smooth[j] * up[j] * slope(function, x[j]));
        let linear = (0..x.len()).map(|j| smooth[j] * value(function, x[j]));
        [gate.collect(), linear.collect()]
    };
    match gradients {
        Gradients::One(dx) => {
            let mut expected = shape;
            expected[2] *= if inputs.up.is_some() { 2 } else { 1 };
            same_shape("dx", dx.shape(), expected)?;
            let rows = dx.into_rows().into_par_iter().enumerate();
            rows.for_each(|(row, mut dx)| dx.store(&row_of(row).concat()));
        }
        Gradients::Two(dgate, dup) => {
            let gated = inputs.up.is_some();
            expect("gradients", gated, "dx alone", "dgate and dup")?;
            same_shape("dgate", dgate.shape(), shape)?;
            same_shape("dup", dup.shape(), shape)?;
            let rows = dgate.into_rows().into_par_iter().zip(dup.into_rows());
            rows.enumerate().for_each(|(row, (mut dgate, mut dup))| {
                let [gate, linear] = row_of(row);
                dgate.store(&gate);
                dup.store(&linear);
            });
        }
    }
    Ok(())
}

/// silu, or GELU.
#[must_use]
pub fn value(function: Function, x: f64) -> f64 {
    match function {
        Function::SwiGlu => x * sigmoid(x),
        Function::Gelu(GeluKind::Exact) => x * normal(x),
        Function::Gelu(GeluKind::Tanh) => x * sigmoid(2.0 * tanh_argument(x).0),
    }
}

/// The derivative of [`value`].
#[must_use]
pub fn slope(function: Function, x: f64) -> f64 {
    match function {
        Function::SwiGlu => {
            let s = sigmoid(x);
            s + x * s * sigmoid(-x)
        }
        Function::Gelu(GeluKind::Exact) => {
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            normal(x) + x * density
        }
        Function::Gelu(GeluKind::Tanh) => {
            let (a, da) = tanh_argument(x);
            let s = sigmoid(2.0 * a);
            s + x * s * sigmoid(-2.0 * a) * 2.0 * da
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    let decay = (-x.abs()).exp();
    if x < 0.0 {
        decay / (1.0 + decay)
    } else {
        1.0 / (1.0 + decay)
    }
}

/// a and a'. Beyond 40, where the sigmoid of 2 a is 0 or 1, x^3 may overflow.
fn tanh_argument(x: f64) -> (f64, f64) {
    const CUBIC: f64 = 0.044715;
    let root = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    let x = x.clamp(-40.0, 40.0);
    (
        root * (x + CUBIC * x * x * x),
        root * (1.0 + 3.0 * CUBIC * x * x),
    )
}

/// The standard normal distribution function.
fn normal(x: f64) -> f64 {
    let z = x * std::f64::consts::FRAC_1_SQRT_2;
    if z.abs() < 0.5 {
        0.5 + 0.5 * erf_near_0(z)
    } else if z < 0.0 {
        0.5 * erfc(-z)
    } else {
        1.0 - 0.5 * erfc(z) // NaN too
    }
}

/// erf for |z| < 1/2 by its series, whose 14th term is below 2^-80 there.
fn erf_near_0(z: f64) -> f64 {
    let mut power = z;
    let mut sum = 0.0;
    for n in 0..14_u32 {
        sum += power / f64::from(2 * n + 1);
        power *= -z * z / f64::from(n + 1);
    }
    std::f64::consts::FRAC_2_SQRT_PI * sum
}

/// erfc for z >= 1/2 by the trapezoidal rule with step h = 1/2, whose error is e^(-pi^2 / h^2) = 2^-57
/// of it once the pole at i z is taken into account (Chiarella and Reichl, "On the evaluation of
/// integrals related to the error function", 1968).
fn erfc(z: f64) -> f64 {
    const STEP: f64 = 0.5;
    let square = z * z;
    let terms = (1..14_u32).map(|n| {
        let at = (f64::from(n) * STEP).powi(2);
        (-at).exp() / (at + square)
    });
    let sum = 1.0 / square + 2.0 * terms.sum::<f64>();
    let integral = STEP * z * (-square).exp() * sum / std::f64::consts::PI;
    // From 6 on the pole's share is below 2^-50 of it.
    let pole = if z < 6.0 {
        2.0 / (2.0 * std::f64::consts::PI * z / STEP).exp_m1()
    } else {
        0.0
    };
    // The largest z whose square overflows gives 0 and not 0 * inf.
    if square > 800.0 { 0.0 } else { integral - pole }
}

fn check(function: Function, inputs: &Inputs, scales: &Scales) -> Result<(), Error> {
    let gated = function == Function::SwiGlu;
    let given = if inputs.up.is_some() {
        "given"
    } else {
        "absent"
    };
    let expected = if gated { "given" } else { "absent" };
    expect("up", gated == inputs.up.is_some(), expected, given)?;
    if let Some(up) = inputs.up {
        same_shape("up", up.shape(), inputs.x.shape())?;
    }
    let smooth = !matches!(scales, Scales::None);
    expect("scales", gated || !smooth, "none", "some")?;
    scales.check(inputs.x.shape())
}

fn same_shape(argument: &'static str, got: [usize; 3], expected: [usize; 3]) -> Result<(), Error> {
    let fits = got == expected;
    expect(argument, fits, &format!("{expected:?}"), format!("{got:?}"))
}

#[cfg(test)]
mod tests;
