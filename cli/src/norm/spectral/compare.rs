//! Compares a spectral norm with the reference, weight by weight.

use evenkeel::norm::SpectralNormOptions;
use evenkeel::reference::norm::spectral::{self as reference, Saved, Vectors};
use evenkeel::reference::{FloatRows, FloatRowsMut};
use evenkeel::{DType, DeviceKind, Result, Status};

use super::bounds;
use super::problem::Problem;
use super::run::Outcome;
use crate::compare::Verdict;
use crate::norm::arithmetic::Arithmetic;
use crate::numbers::Interval;

fn weights(values: &[f64], [batch, m, n]: [usize; 3]) -> Result<FloatRows<'_>> {
    FloatRows::heads(values, [batch, m, n], [m * n, n])
}

/// Compares all of `outcome`, which a device of this kind computed.
///
/// # Errors
/// The reference's.
pub fn compare(problem: &Problem, outcome: &Outcome, kind: DeviceKind) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let [batch, m, n] = problem.shape();
    let on = Arithmetic::new(kind, n);
    let mut status = vectors(problem, outcome, &on, &mut verdict)?;
    let (all_u, all_v) = (outcome.u.values(), outcome.v.values());
    for weight in 0..batch {
        let u = &all_u[weight * n..(weight + 1) * n];
        let v = &all_v[weight * m..(weight + 1) * m];
        scales(
            problem,
            outcome,
            weight,
            bounds::sigma(problem.weight(weight), u, v, &on),
            &on,
            &mut verdict,
        );
    }
    if problem.dscaled.is_some() {
        status |= backward(problem, outcome, &on, &mut verdict)?;
    }
    verdict.equal(|| "the status".into(), &outcome.status, &status);
    for (what, written) in outcome.all() {
        written.check_gaps(what, &mut verdict);
    }
    Ok(verdict.of(&problem.name))
}

/// u and v against the reference's.
fn vectors(
    problem: &Problem,
    outcome: &Outcome,
    on: &Arithmetic,
    verdict: &mut Verdict,
) -> Result<Status> {
    let [batch, m, n] = problem.shape();
    let (mut u, mut v) = (problem.u.clone(), problem.v.clone());
    let vectors = Vectors {
        u: (&mut u).into(),
        v: (&mut v).into(),
    };
    let options = SpectralNormOptions::new(problem.steps);
    let w = weights(&problem.w.values, problem.shape())?;
    let found = reference::forward(&options, w, vectors, None, None)?;
    for weight in 0..batch {
        let [of_u, of_v] = bounds::vectors(
            problem.weight(weight),
            &problem.u[weight * n..(weight + 1) * n],
            &problem.v[weight * m..(weight + 1) * m],
            problem.steps,
            on,
        );
        let pairs = [
            ("u", &outcome.u, &u[weight * n..(weight + 1) * n], of_u),
            ("v", &outcome.v, &v[weight * m..(weight + 1) * m], of_v),
        ];
        for (name, got, exact, bounds) in pairs {
            let length = exact.len();
            let got = &got.row(0)[weight * length..(weight + 1) * length];
            for (at, (&got, &exact)) in got.iter().zip(exact).enumerate() {
                let interval = Interval::around(exact, bounds.error[at]).rounded(DType::F32);
                verdict.number(name, DType::F32, got, interval, || {
                    format!(" {at} of weight {weight}")
                });
            }
        }
    }
    Ok(found.status)
}

/// A quotient by sigma, 0 where sigma is.
fn divided(value: f64, sigma: f64) -> f64 {
    if sigma == 0.0 { 0.0 } else { value / sigma }
}

/// sigma, the scale and the scaled weight, from u and v as the device stored them.
fn scales(
    problem: &Problem,
    outcome: &Outcome,
    weight: usize,
    (sigma, error): (f64, f64),
    on: &Arithmetic,
    verdict: &mut Verdict,
) {
    let place = || format!(" of weight {weight}");
    let interval = Interval::around(sigma, error).rounded(DType::F32);
    verdict.number(
        "sigma",
        DType::F32,
        outcome.sigma.row(0)[weight],
        interval,
        place,
    );
    let gamma = problem.gamma.as_ref().map_or(1.0, |gamma| gamma[weight]);
    let scale = divided(gamma, sigma);
    // 1 / (1 - r) - 1 of the relative error.
    let relative = divided(error, sigma.abs()).min(0.5);
    let relative = relative / (1.0 - relative) + 2.0 * on.unit;
    let interval = Interval::around(scale, scale.abs() * relative).rounded(DType::F32);
    verdict.number(
        "scale",
        DType::F32,
        outcome.scale.row(0)[weight],
        interval,
        place,
    );
    let Some(scaled) = &outcome.scaled else {
        return;
    };
    let [_, m, n] = problem.shape();
    let dtype = scaled.place.dtype;
    for row in weight * m..(weight + 1) * m {
        for (column, (&got, &w)) in scaled.row(row).iter().zip(problem.w.row(row)).enumerate() {
            let exact = scale * w;
            let error = exact.abs() * (relative + on.unit) + on.tiny;
            let interval = Interval::around(exact, error).rounded(dtype);
            verdict.number("scaled weight", dtype, got, interval, || {
                format!(" of row {row}, column {column} of {n}")
            });
        }
    }
}

/// The gradients from u, v and sigma as the device stored them.
fn backward(
    problem: &Problem,
    outcome: &Outcome,
    on: &Arithmetic,
    verdict: &mut Verdict,
) -> Result<Status> {
    let [batch, m, n] = problem.shape();
    let (Some(dscaled), Some(got)) = (&problem.dscaled, &outcome.dw) else {
        verdict.wrong(|| "there is no dw".into());
        return Ok(Status::empty());
    };
    let (u, v, sigma) = (
        outcome.u.values(),
        outcome.v.values(),
        outcome.sigma.values(),
    );
    let accumulate = problem.before.is_some();
    let before = problem
        .before
        .clone()
        .unwrap_or_else(|| [vec![0.0; batch * m * n], vec![0.0; batch]]);
    let [mut dw, mut dgamma] = before.clone();
    let gamma = problem.gamma.as_ref();
    let status = reference::backward(
        weights(&problem.w.values, problem.shape())?,
        Saved {
            u: (&u).into(),
            v: (&v).into(),
            sigmas: (&sigma).into(),
        },
        gamma.map(Into::into),
        weights(&dscaled.values, problem.shape())?,
        FloatRowsMut::heads(&mut dw[..], [batch, m, n], [m * n, n])?,
        gamma.map(|_| (&mut dgamma).into()),
        accumulate,
    )?;
    let unit = on.unit;
    let added = |before: f64, exact: f64| {
        if accumulate {
            unit * (exact - before).abs() + unit * exact.abs()
        } else {
            0.0
        }
    };
    let dtype = got.place.dtype;
    for weight in 0..batch {
        let inner: (f64, f64) = dscaled.values[weight * m * n..(weight + 1) * m * n]
            .iter()
            .zip(problem.weight(weight))
            .fold((0.0, 0.0), |(sum, size), (g, w)| {
                (sum + g * w, size + (g * w).abs())
            });
        let ratio = divided(inner.0, sigma[weight]);
        let ratio_error = divided(inner.1, sigma[weight].abs()) * bounds::inner_product(m, on)
            + unit * ratio.abs()
            + on.tiny;
        let scale = divided(gamma.map_or(1.0, |gamma| gamma[weight]), sigma[weight]).abs();
        for row in 0..m {
            let at = weight * m + row;
            for (column, &got) in got.row(at).iter().enumerate() {
                let place = at * n + column;
                let outer = (v[at] * u[weight * n + column]).abs();
                let along = ratio.abs() * outer;
                let g = dscaled.values[place].abs();
                let inner = ratio_error * outer + 4.0 * unit * along + unit * g;
                let exact = dw[place];
                let error = scale * inner
                    + 3.0 * unit * (exact - before[0][place]).abs()
                    + 3.0 * on.tiny
                    + added(before[0][place], exact);
                let interval = if scale == 0.0 {
                    Interval::only(exact)
                } else {
                    Interval::around(exact, error)
                };
                verdict.number("dw", dtype, got, interval.rounded(dtype), || {
                    format!(" of weight {weight}, row {row}, column {column}")
                });
            }
        }
        if let Some(got) = &outcome.dgamma {
            let exact = dgamma[weight];
            let error = ratio_error + added(before[1][weight], exact);
            let error = if scale == 0.0 { 0.0 } else { error };
            let interval = Interval::around(exact, error).rounded(DType::F32);
            verdict.number("dgamma", DType::F32, got.row(0)[weight], interval, || {
                format!(" of weight {weight}")
            });
        }
    }
    Ok(status)
}
