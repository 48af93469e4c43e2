//! Compares what a device computed with the reference, row by row.

use evenkeel::norm::SoftmaxKind;
use evenkeel::reference::Indices;
use evenkeel::reference::norm::softmax::{self as reference, Blocks, Incoming};
use evenkeel::{DType, DeviceKind, Result, Status};

use super::bounds::{self, Exact, Forward, Given};
use super::problem::Problem;
use super::run::Outcome;
use crate::compare::Verdict;
use crate::norm::arithmetic::Arithmetic;
use crate::norm::placed::{exact, exact_mut};
use crate::numbers::Interval;

impl Problem {
    fn blocks(&self) -> Blocks<'_> {
        Blocks {
            queries: self.queries(),
            lengths: self.lengths.as_deref().map(Indices::I64),
        }
    }

    /// y where p = 0.
    fn absent(&self) -> f64 {
        match self.options.kind {
            SoftmaxKind::LogSoftmax => f64::NEG_INFINITY,
            _ => 0.0,
        }
    }
}

/// Compares all of `outcome`, which a device of this kind computed.
///
/// # Errors
/// The reference's.
pub fn compare(problem: &Problem, outcome: &Outcome, kind: DeviceKind) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let on = Arithmetic::new(kind, problem.keys());
    let mut status = forward(problem, outcome, &on, &mut verdict)?;
    if problem.pass.backward() {
        status |= backward(problem, outcome, &on, &mut verdict)?;
    }
    verdict.equal(|| "the status".into(), &outcome.status, &status);
    let statistics = [
        ("y", &outcome.y),
        ("the entropy", &outcome.entropy),
        ("the normalizer", &outcome.normalizer),
    ];
    for (what, written) in statistics {
        written.check_gaps(what, &mut verdict);
    }
    if let Some(dx) = &outcome.dx {
        dx.check_gaps("dx", &mut verdict);
    }
    Ok(verdict.of(&problem.name))
}

fn forward(
    problem: &Problem,
    outcome: &Outcome,
    on: &Arithmetic,
    verdict: &mut Verdict,
) -> Result<Status> {
    let keys = problem.keys();
    let mut y = vec![0.0; problem.x.values.len()];
    let into = exact_mut(&mut y, keys)?;
    let found = reference::forward(
        &problem.options,
        &problem.blocks(),
        problem.x.exact()?,
        into,
    )?;
    let dtype = problem.y.dtype;
    let entropies = outcome.entropy.row(0);
    let normalizers = outcome.normalizer.row(0);
    for row in 0..problem.rows() {
        let visible = problem.visible(row);
        let exact = Exact {
            y: &y[row * keys..row * keys + visible],
            entropy: found.entropies[row],
            normalizer: found.normalizers[row],
        };
        let x = &problem.x.row(row)[..visible];
        let bounds =
            (!exact.entropy.is_nan()).then(|| Forward::new(&problem.options, x, exact, on));
        let got = outcome.y.row(row);
        for (key, &got) in got.iter().enumerate() {
            let interval = match (&bounds, key < visible) {
                (_, false) => Interval::only(problem.absent()),
                (Some(bounds), true) => Interval::around(exact.y[key], bounds.y[key]),
                (None, true) => Interval::only(f64::NAN),
            };
            verdict.number("y", dtype, got, interval.rounded(dtype), || {
                format!(" of row {row}, key {key}")
            });
        }
        let error = |of: fn(&Forward) -> f64| bounds.as_ref().map_or(0.0, of);
        for (name, got, exact, error) in [
            (
                "entropy",
                entropies[row],
                exact.entropy,
                error(|bounds| bounds.entropy),
            ),
            (
                "normalizer",
                normalizers[row],
                exact.normalizer,
                error(|bounds| bounds.normalizer),
            ),
        ] {
            let interval = Interval::around(exact, error).rounded(DType::F32);
            verdict.number(name, DType::F32, got, interval, || format!(" of row {row}"));
        }
    }
    Ok(found.status)
}

/// From y and the normalizers that the device stored.
fn backward(
    problem: &Problem,
    outcome: &Outcome,
    on: &Arithmetic,
    verdict: &mut Verdict,
) -> Result<Status> {
    let keys = problem.keys();
    let Some(dx) = &outcome.dx else {
        verdict.wrong(|| "there is no dx".into());
        return Ok(Status::empty());
    };
    let y = outcome.y.values();
    let normalizers = outcome.normalizer.values();
    let mut wanted = vec![0.0; y.len()];
    let incoming = Incoming {
        dy: problem.dy.exact()?,
        dentropy: problem.dentropy.as_ref().map(Into::into),
        normalizers: Some((&normalizers).into()),
    };
    let status = reference::backward(
        &problem.options,
        &problem.blocks(),
        exact(&y, keys)?,
        incoming,
        exact_mut(&mut wanted, keys)?,
    )?;
    let dtype = problem.dx.dtype;
    for row in 0..problem.rows() {
        let visible = problem.visible(row);
        let given = Given {
            y: &y[row * keys..row * keys + visible],
            dy: &problem.dy.row(row)[..visible],
            dentropy: problem.dentropy.as_ref().map(|values| values[row]),
            normalizer: normalizers[row],
        };
        let wanted = &wanted[row * keys..(row + 1) * keys];
        let fine = !wanted.iter().any(|x| x.is_nan());
        let bounds =
            fine.then(|| bounds::backward(&problem.options, given, &wanted[..visible], on));
        for (key, &got) in dx.row(row).iter().enumerate() {
            let interval = match &bounds {
                Some(bounds) if key < visible => bounds[key],
                _ => Interval::only(wanted[key]),
            };
            verdict.number("dx", dtype, got, interval.rounded(dtype), || {
                format!(" of row {row}, key {key}")
            });
        }
    }
    Ok(status)
}
