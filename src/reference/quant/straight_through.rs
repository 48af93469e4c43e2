//! Gradients that pass a rounding as though it were not there, or nearly.
//!
//! ```text
//! saturation   dx = dy where |x / scale| <= largest, 0 elsewhere
//! ReSTE        dx = dy (1/o) |x|^((1-o)/o)     for interval < |x| <= threshold
//!                   dy interval^((1-o)/o)      for |x| <= interval
//!                   0                          for |x| > threshold
//! ```
//!
//! The quotient is the f32 that is rounded to an element. A gradient of 0 is 0 whatever dy is; a
//! NaN x passes the mask (the formats keep it) and makes ReSTE's slope NaN. ReSTE (arXiv 2308.06689)
//! stands for the derivative of sign(x) by that of sign(x) |x|^(1/o), which its authors cut off at a
//! threshold and, near 0 where it has no bound, replace by the slope of its chord.

use rayon::prelude::*;

use crate::Error;
use crate::reference::floats::{FloatRows, FloatRowsMut, FloatsMut};

/// What stands for the derivative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slope {
    /// 1 where nothing saturates.
    Saturation {
        /// Of the elements.
        largest: f32,
        /// Of the tensor.
        scale: f32,
    },
    /// Of a root.
    Reste {
        /// Its degree.
        o: f32,
        /// Where it ends.
        threshold: f32,
        /// Where its chord begins.
        interval: f32,
    },
}

impl Slope {
    /// dx.
    #[must_use]
    pub fn gradient(self, x: f32, dy: f64) -> f64 {
        match self {
            Self::Saturation { largest, scale } => {
                if (x / scale).abs() > largest {
                    0.0
                } else {
                    dy
                }
            }
            Self::Reste {
                o,
                threshold,
                interval,
            } => {
                let size = x.abs();
                if size.is_nan() {
                    // A power of 0 would make 1 of it.
                    return f64::NAN;
                }
                if size > threshold {
                    return 0.0;
                }
                let o = f64::from(o);
                let power = (1.0 - o) / o;
                if size <= interval {
                    dy * f64::from(interval).powf(power)
                } else {
                    dy * f64::from(size).powf(power) / o
                }
            }
        }
    }
}

/// dx of every element.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit.
pub fn backward(slope: Slope, x: FloatRows, dy: FloatRows, dx: FloatRowsMut) -> Result<(), Error> {
    same("dy", dy.shape(), x.shape())?;
    same("dx", dx.shape(), x.shape())?;
    each(slope, x, dx, |row, _| dy.row(row));
    Ok(())
}

/// As [`backward`], dx over dy.
///
/// # Errors
/// As [`backward`].
pub fn backward_in_place(slope: Slope, x: FloatRows, dy: FloatRowsMut) -> Result<(), Error> {
    same("dy", dy.shape(), x.shape())?;
    each(slope, x, dy, |_, dy| dy.to_f64());
    Ok(())
}

/// Each row of dx, of the row of dy that `gradient` gives.
fn each(
    slope: Slope,
    x: FloatRows,
    dx: FloatRowsMut,
    gradient: impl Fn(usize, &FloatsMut) -> Vec<f64> + Sync,
) {
    let row = |(row, mut dx): (usize, FloatsMut)| {
        let (x, dy) = (x.row(row), gradient(row, &dx));
        let gradients = x.iter().zip(&dy);
        let gradients = gradients.map(|(&x, &dy)| slope.gradient(x as f32, dy));
        dx.store(&gradients.collect::<Vec<f64>>());
    };
    dx.into_rows().into_par_iter().enumerate().for_each(row);
}

fn same(argument: &'static str, got: [usize; 3], expected: [usize; 3]) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    let text = |shape: [usize; 3]| format!("{shape:?}");
    let (expected, got) = (text(expected), text(got));
    Err(Error::argument("StraightThrough", argument, expected, got))
}
