//! How far a spectral norm computed in fp32 may be from the exact one.
//!
//! With the arithmetic of [`Arithmetic`], |.| of a vector its
//! 2-norm and of its elements their sizes, a kernel's steps and their errors are
//!
//! | step | error |
//! |---|---|
//! | t = W u | u's products and a sum over a row: (`elements` + `tree` + 1) u \|W\| \|u\|; and what u errs by, carried on: at most \|w_i\| \|du\| in row i, \|W\| \|du\| in all |
//! | s = W^T t over \|t\| | in any order over m rows: (m + 1) u \|W\|^T \|v\|; and what t errs by, carried on in the same way |
//! | v = t / \|t\|, u = s / \|s\| | the norm errs by the vector's error, half of its sum's (length + 1) u and the root's u; 2 u for the quotient. The norm's error is a common factor, which the next norm takes off: only 3 u is carried on |
//!
//! This gives bounds of u and v after the last step; |W| as a norm is that of 300 exact steps. sigma is
//! compared with v^T W u of the u and v that the device stored: sigma = |s| / |t| differs from that by
//! the error of s alone, (m + 1) u |v|^T |W| |u|, two norms and a quotient, and by 3 u |v|^T |W| |u| for
//! the rounding of u and v. Where the device forms v^T (W u) instead, by the sum over a row of W u. The
//! scale is one quotient more, the scaled weight one product.
//!
//! The backward starts from stored numbers. <G, W> is a sum over rows of sums over a row: (`elements` +
//! 2 `tree` + m + 1) u sum |g w|; its quotient u; dw = scale (G - ratio v u^T) is u for each
//! operation, and u for what is added to what is there.

use crate::norm::arithmetic::Arithmetic;

/// Steps whose result stands for the exact norm.
const SETTLED: usize = 300;

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// A product with the rows of a weight.
fn product(w: &[f64], u: &[f64], term: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    w.chunks(u.len())
        .map(|row| row.iter().zip(u).map(|(&w, &u)| term(w, u)).sum())
        .collect()
}

/// A product with its columns.
fn transposed(w: &[f64], v: &[f64], n: usize, term: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; n];
    for (row, &v) in w.chunks(n).zip(v) {
        for (sum, &w) in sums.iter_mut().zip(row) {
            *sum += term(w, v);
        }
    }
    sums
}

/// A vector with the errors of its elements, and the norm of these.
#[derive(Clone, Debug)]
pub struct Vector {
    /// The exact one.
    pub exact: Vec<f64>,
    /// How far each element may be off.
    pub error: Vec<f64>,
    /// How far all may be off together, but for a common factor: that is gone with the next norm.
    whole: f64,
}

impl Vector {
    fn given(exact: &[f64]) -> Self {
        Self {
            exact: exact.to_vec(),
            error: vec![0.0; exact.len()],
            whole: 0.0,
        }
    }

    /// A product of norm `length` with errors of its own, and those that it carries on, divided by that norm.
    fn normalized(
        product: &[f64],
        own: &[f64],
        carried: &[f64],
        carried_whole: f64,
        unit: f64,
    ) -> Self {
        let length = norm(product);
        if length == 0.0 {
            return Self::given(product);
        }
        let whole = (norm(own) + carried_whole) / length;
        let relative = whole + (0.5 * product.len() as f64 + 4.0) * unit;
        let exact: Vec<f64> = product.iter().map(|x| x / length).collect();
        let error = exact
            .iter()
            .zip(own.iter().zip(carried))
            .map(|(x, (own, carried))| (own + carried) / length + x.abs() * relative)
            .collect();
        Self {
            exact,
            error,
            whole: whole + 3.0 * unit,
        }
    }
}

/// u and v of one weight after `steps` steps.
#[must_use]
pub fn vectors(w: &[f64], u: &[f64], v: &[f64], steps: u32, on: &Arithmetic) -> [Vector; 2] {
    let (n, m) = (u.len(), v.len());
    let (mut u, mut v) = (Vector::given(u), Vector::given(v));
    if steps == 0 {
        return [u, v];
    }
    let by_row: Vec<f64> = w.chunks(n).map(norm).collect();
    let by_column: Vec<f64> = transposed(w, &vec![1.0; m], n, |w, _| w * w)
        .into_iter()
        .map(f64::sqrt)
        .collect();
    let strength = largest(w, &u.exact);
    let scaled = |sizes: &[f64], by: f64| -> Vec<f64> { sizes.iter().map(|x| x * by).collect() };
    for _ in 0..steps {
        let t = product(w, &u.exact, |w, u| w * u);
        let own = product(w, &u.exact, |w, u| (w * u).abs());
        let own = scaled(&own, on.row_sum() + on.unit);
        let carried = scaled(&by_row, u.whole);
        v = Vector::normalized(&t, &own, &carried, strength * u.whole, on.unit);
        let s = transposed(w, &v.exact, n, |w, v| w * v);
        let own = transposed(w, &v.exact, n, |w, v| (w * v).abs());
        let own = scaled(&own, (m as f64 + 1.0) * on.unit);
        let carried = scaled(&by_column, v.whole);
        u = Vector::normalized(&s, &own, &carried, strength * v.whole, on.unit);
    }
    [u, v]
}

/// The largest singular value, nearly.
fn largest(w: &[f64], u: &[f64]) -> f64 {
    let mut u = u.to_vec();
    let mut sigma = 0.0;
    for _ in 0..SETTLED {
        let t = product(w, &u, |w, u| w * u);
        u = transposed(w, &t, u.len(), |w, t| w * t);
        let length = norm(&u);
        if length == 0.0 {
            return 0.0;
        }
        sigma = length / norm(&t);
        u.iter_mut().for_each(|x| *x /= length);
    }
    sigma
}

/// v^T W u and how far a device's may be off.
#[must_use]
pub fn sigma(w: &[f64], u: &[f64], v: &[f64], on: &Arithmetic) -> (f64, f64) {
    let along = |term: fn(f64, f64) -> f64| -> f64 {
        let rows = product(w, u, term);
        rows.into_iter().zip(v).map(|(t, &v)| term(t, v)).sum()
    };
    let exact = along(|a, b| a * b);
    let size = along(|a, b| (a * b).abs());
    let m = v.len() as f64;
    let sums = on.row_sum() + (m + 9.0) * on.unit;
    let norms = (u.len() as f64 + m + 6.0) * on.unit;
    (exact, sums * size + norms * exact.abs())
}

/// Relative error of <G, W>, in units of sum |g w|.
#[must_use]
pub fn inner_product(m: usize, on: &Arithmetic) -> f64 {
    on.row_sum() + (on.tree + m as f64 + 1.0) * on.unit
}
