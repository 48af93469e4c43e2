//! A plain power iteration in single precision: what the bounds must hold, and not by far.

use evenkeel::{DType, DeviceKind, Status};

use super::problem::Problem;
use super::run::Outcome;
use super::{Case, Values, compare};
use crate::norm::single::{output, rounded, vector, worst_of};

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// t = W u, then s = W^T t as t is, and norms of both: sigma is their quotient.
fn step(w: &[f32], u: &mut [f32], v: &mut [f32]) -> f32 {
    let n = u.len();
    let t: Vec<f32> = w.chunks(n).map(|row| dot(row, u)).collect();
    let mut s = vec![0.0_f32; n];
    for (row, t) in w.chunks(n).zip(&t) {
        for (s, w) in s.iter_mut().zip(row) {
            *s += t * w;
        }
    }
    let (of_t, of_s) = (dot(&t, &t).sqrt(), dot(&s, &s).sqrt());
    if of_t == 0.0 {
        u.fill(0.0);
        v.fill(0.0);
        return 0.0;
    }
    v.iter_mut().zip(&t).for_each(|(v, t)| *v = t / of_t);
    u.iter_mut().zip(&s).for_each(|(u, s)| *u = s / of_s);
    of_s / of_t
}

fn outcome(problem: &Problem) -> Outcome {
    let [batch, m, n] = problem.shape();
    let (mut u, mut v) = (narrow(&problem.u), narrow(&problem.v));
    let (mut sigmas, mut scales) = (Vec::new(), Vec::new());
    let (mut scaled, mut dw, mut dgamma) = (Vec::new(), Vec::new(), Vec::new());
    let mut status = Status::empty();
    for weight in 0..batch {
        let w = narrow(problem.weight(weight));
        let u = &mut u[weight * n..(weight + 1) * n];
        let v = &mut v[weight * m..(weight + 1) * m];
        let mut sigma = 0.0;
        for _ in 0..problem.steps {
            sigma = step(&w, u, v);
        }
        if problem.steps == 0 {
            let t: Vec<f32> = w.chunks(n).map(|row| dot(row, u)).collect();
            sigma = dot(&t, v);
        }
        let gamma = problem.gamma.as_ref().map_or(1.0, |gamma| gamma[weight]) as f32;
        let divided = |x: f32| if sigma == 0.0 { 0.0 } else { x / sigma };
        if sigma == 0.0 {
            status |= Status::ZERO_SIGMA;
        }
        let scale = divided(gamma);
        sigmas.push(sigma);
        scales.push(scale);
        scaled.extend(w.iter().map(|w| scale * w));
        let Some(dscaled) = &problem.dscaled else {
            continue;
        };
        let g = narrow(&dscaled.values[weight * m * n..(weight + 1) * m * n]);
        let rows = g.chunks(n).zip(w.chunks(n));
        let ratio = divided(rows.map(|(g, w)| dot(g, w)).sum());
        dgamma.push(ratio);
        for (row, g) in g.chunks(n).enumerate() {
            let along = ratio * v[row];
            dw.extend(g.iter().zip(&*u).map(|(g, u)| scale * (g - along * u)));
        }
    }
    let added = |sums: Vec<f32>, at: usize| -> Vec<f32> {
        match &problem.before {
            Some(before) => {
                let pairs = sums.iter().zip(&before[at]);
                pairs.map(|(sum, &before)| before as f32 + sum).collect()
            }
            None => sums,
        }
    };
    let (dw, dgamma) = (added(dw, 0), added(dgamma, 1));
    let scaled = problem
        .scaled
        .as_ref()
        .map(|place| output(place, &rounded(place.dtype, &scaled)));
    Outcome {
        u: vector(&u),
        v: vector(&v),
        sigma: vector(&sigmas),
        scale: vector(&scales),
        scaled,
        dw: Some(output(&problem.dw, &rounded(problem.dw.dtype, &dw))),
        dgamma: problem.gamma.as_ref().map(|_| vector(&dgamma)),
        status,
    }
}

#[test]
fn plain_single_precision_is_within_the_bounds_and_not_by_far() {
    let verdicts = Values::ALL.into_iter().flat_map(|values| {
        [0, 1, 3].into_iter().flat_map(move |steps| {
            [[40, 60], [200, 64], [1, 64], [64, 1]]
                .into_iter()
                .map(move |[m, n]| {
                    let mut case = Case::new(2, m, n, DType::F32);
                    (case.values, case.steps) = (values, steps);
                    case.accumulate = steps == 1;
                    let problem = case.problem();
                    compare(&problem, &outcome(&problem), DeviceKind::Emulated)
                })
        })
    });
    // Any order of so many additions is allowed, and a thousandth of the worst is usual.
    let least = [("u", 0.002), ("v", 0.02), ("sigma", 0.02), ("dw", 0.1)];
    worst_of(verdicts, &least);
}
