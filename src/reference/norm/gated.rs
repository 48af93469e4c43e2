//! A gated normalization (Mamba 2, arXiv 2405.21060): the norm of x times the gate z's silu.
//!
//! ```text
//! y = n silu(z)     n = norm(x)     silu(z) = z sig(z)     sig(z) = 1 / (1 + exp(-z))
//!
//! dn = dy silu(z), from which dx, dgamma and dbeta follow as for n alone
//! dz = dy n sig(z) (1 + z sig(-z))
//! ```
//!
//! A row that holds NaN or an infinity in x or z is NaN, its statistics too, and the status has
//! `NON_FINITE_ROW`.

use rayon::prelude::*;

use super::pass::{Pass, all_finite};
use super::rows::{Incoming, Outgoing, backward_with};
use super::{Forward, Moments, Weights, row_status, same_shape};
use crate::norm::NormOptions;
use crate::reference::floats::{FloatRows, FloatRowsMut};
use crate::{Error, Status};

/// y = norm(x) silu(z).
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn forward(
    options: &NormOptions,
    weights: &Weights,
    x: FloatRows,
    z: FloatRows,
    y: FloatRowsMut,
) -> Result<Forward, Error> {
    let pass = checked(options, weights, &x, &z)?;
    same_shape("y", y.shape(), x.shape())?;
    let rows: Vec<(Moments, Status)> = y
        .into_rows()
        .into_par_iter()
        .enumerate()
        .map(|(row, mut y)| {
            let (mut moments, mut values, status) = pass.forward(row, &x.row(row));
            let z = z.row(row);
            for (y, z) in values.iter_mut().zip(&z) {
                *y *= z * sigmoid(*z);
            }
            let fine = all_finite(&z);
            if !fine {
                values.fill(f64::NAN);
                // A backward sees it from the statistics alone.
                (moments.mean, moments.rstd) = (f64::NAN, f64::NAN);
            }
            y.store(&values);
            (moments, status | row_status(fine))
        })
        .collect();
    Ok(Forward {
        status: rows.iter().fold(Status::empty(), |all, row| all | row.1),
        moments: rows.into_iter().map(|row| row.0).collect(),
    })
}

/// The gradients of a [`forward`]; `dy` stands for the gradient of y, and what comes in or goes out
/// beside belongs to x.
///
/// # Errors
/// [`Error::Argument`] for shapes or options that do not fit.
pub fn backward(
    options: &NormOptions,
    weights: &Weights,
    x: FloatRows,
    z: FloatRows,
    incoming: Incoming,
    outgoing: Outgoing,
    dz: FloatRowsMut,
) -> Result<Status, Error> {
    let pass = checked(options, weights, &x, &z)?;
    let dy = incoming.dy;
    same_shape("dy", dy.shape(), x.shape())?;
    same_shape("dz", dz.shape(), x.shape())?;
    let [tokens, heads, columns] = x.shape();
    let mut dn = vec![0.0; x.rows() * columns];
    dn.par_chunks_mut(columns)
        .zip(dz.into_rows())
        .enumerate()
        .for_each(|(row, (dn, mut dz))| {
            let (_, n, _) = pass.forward(row, &x.row(row));
            let (z, dy) = (z.row(row), dy.row(row));
            for ((dn, dy), z) in dn.iter_mut().zip(&dy).zip(&z) {
                *dn = dy * z * sigmoid(*z);
            }
            let values: Vec<f64> = n
                .iter()
                .zip(dy.iter().zip(&z))
                .map(|(n, (dy, z))| dy * n * sigmoid(*z) * (1.0 + z * sigmoid(-z)))
                .collect();
            let fine = all_finite(&values) && all_finite(&z) && all_finite(&dy);
            if fine {
                dz.store(&values);
            } else {
                dn.fill(f64::NAN);
                dz.store(&vec![f64::NAN; columns]);
            }
        });
    let strides = [heads * columns, columns];
    let dy = FloatRows::heads(&dn, [tokens, heads, columns], strides)?;
    backward_with(&pass, x, Incoming { dy, ..incoming }, outgoing)
}

fn checked<'a>(
    options: &NormOptions,
    weights: &Weights<'a>,
    x: &FloatRows,
    z: &FloatRows,
) -> Result<Pass<'a>, Error> {
    options.validate()?;
    same_shape("z", z.shape(), x.shape())?;
    Pass::new(Some(*options), *weights, None, x.shape())
}

fn sigmoid(z: f64) -> f64 {
    (1.0 + (-z).exp()).recip()
}
