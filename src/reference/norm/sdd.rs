//! Scale-Distribution Decoupling: y = alpha rmsnorm(x) over the output features x = W z of a linear
//! layer (arXiv 2502.15499), the normalization after the product.
//!
//! It is `RmsNorm` with gamma = alpha and eps = [`SDD_EPS`]; alpha is one number, or one for each
//! feature. Its gradient then is the sum over the features, or dgamma.

use super::rows::{self, Incoming, Outgoing};
use super::{Forward, WeightGradients, Weights, expect};
use crate::norm::{NormOptions, SDD_EPS};
use crate::reference::floats::{FloatRows, FloatRowsMut, Floats, FloatsMut};
use crate::reference::sum::Sum;
use crate::{Error, Status};

/// The normalization's options.
#[must_use]
pub fn options() -> NormOptions {
    NormOptions::rms().eps(SDD_EPS)
}

/// y = alpha rmsnorm(x); alpha is `[1]` or `[D]`.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit.
pub fn forward(alpha: Floats, x: FloatRows, y: FloatRowsMut) -> Result<Forward, Error> {
    let gamma = for_each_feature(alpha, x.columns())?;
    rows::forward(&options(), &Weights::gamma(&gamma), x, None, y)
}

/// The gradients of x and alpha; `dalpha` is as long as alpha, and added to what is there if
/// `accumulate`.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit.
pub fn backward(
    alpha: Floats,
    x: FloatRows,
    dy: FloatRows,
    dx: FloatRowsMut,
    mut dalpha: FloatsMut,
    accumulate: bool,
) -> Result<Status, Error> {
    let gamma = for_each_feature(alpha, x.columns())?;
    let len = dalpha.len();
    expect("dalpha", len == alpha.len(), "as long as alpha", len)?;
    let mut dgamma = vec![0.0; gamma.len()];
    let outgoing = Outgoing {
        dx,
        dresidual: None,
        weights: WeightGradients {
            gamma: Some((&mut dgamma).into()),
            ..WeightGradients::default()
        },
    };
    let incoming = Incoming { dy, dstream: None };
    let status = rows::backward(&options(), &Weights::gamma(&gamma), x, incoming, outgoing)?;
    if len == dgamma.len() {
        dalpha.store_or_add(&dgamma, accumulate);
    } else {
        let sum: Sum = dgamma.into_iter().collect();
        dalpha.store_or_add(&[sum.value()], accumulate);
    }
    Ok(status)
}

fn for_each_feature(alpha: Floats, columns: usize) -> Result<Vec<f64>, Error> {
    match alpha.len() {
        len if len == columns => Ok(alpha.to_f64()),
        1 => Ok(vec![alpha.at(0); columns]),
        len => Err(Error::argument(
            "reference::norm",
            "alpha",
            format!("one, or one for each of {columns} features"),
            len.to_string(),
        )),
    }
}
