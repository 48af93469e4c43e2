//! Compares what a device computed with the reference, result by result.

use evenkeel::norm::NormKind;
use evenkeel::{DType, Result};

use super::bounds::{
    Arithmetic, Near, OverRows, RowNear, SECOND_ORDER, StatisticsError, gamma_term,
};
use super::exact::{Exact, exact};
use super::problem::{Backward, Problem};
use super::run::Outcome;
use crate::compare::Verdict;
use crate::norm::Operation;
use crate::numbers::Interval;

/// Compares all of `outcome`.
///
/// # Errors
/// The reference's, for problems that are none.
pub fn compare(problem: &Problem, outcome: &Outcome) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for (name, output) in &outcome.outputs {
        output.check_gaps(name, &mut verdict);
    }
    if outcome.past_workspace {
        verdict.wrong(|| "the bytes after the workspace were written".into());
    }
    let on = Arithmetic::new(outcome.kernels, problem.shape.columns);
    let normalized = stream(problem, outcome, &on, &mut verdict);
    let exact = exact(problem, &normalized)?;
    verdict.equal(
        || "the status of the forward and of the backward".into(),
        &outcome.status,
        &exact.status,
    );
    let columns = problem.shape.columns;
    let rows: Vec<Row> = normalized
        .chunks(columns.max(1))
        .zip(&exact.moments)
        .enumerate()
        .map(|(row, (x, moments))| {
            let (forward, saved) = match problem.norm {
                Some(norm) if moments.rstd.is_finite() => {
                    let layer = norm.kind == NormKind::Layer;
                    let forward = StatisticsError::new(x, layer, moments, &on);
                    (
                        forward,
                        forward.saved(x, layer, moments, !problem.statistics, &on),
                    )
                }
                _ => <(StatisticsError, StatisticsError)>::default(),
            };
            let near = |statistics| RowNear::new(problem, &on, row, x, *moments, statistics);
            Row {
                index: row,
                statistics: forward,
                forward: near(forward),
                backward: near(saved),
            }
        })
        .collect();
    compare_forward(problem, outcome, &exact, &rows, &mut verdict);
    if let Some(asked) = &problem.backward {
        compare_backward(problem, asked, outcome, &exact, &rows, &mut verdict);
        compare_weights(problem, asked, outcome, &exact, &rows, &on, &mut verdict);
    }
    Ok(verdict.of(&problem.name))
}

/// What is known of one row.
struct Row<'a> {
    index: usize,
    statistics: StatisticsError,
    forward: RowNear<'a>,
    backward: RowNear<'a>,
}

/// The rows that are normalized: x, or the stream that the device stored, which is compared first. A
/// backward sees the same.
fn stream(
    problem: &Problem,
    outcome: &Outcome,
    on: &Arithmetic,
    verdict: &mut Verdict,
) -> Vec<f64> {
    let (Some(residual), Some(stored)) = (&problem.residual, outcome.outputs.get("stream")) else {
        return problem.x.values.clone();
    };
    let got = stored.values();
    let terms = problem.x.values.iter().zip(&residual.values);
    for (index, (&got, (x, residual))) in got.iter().zip(terms).enumerate() {
        let sum = x + residual;
        let interval = Interval::around(sum, on.unit * sum.abs()).rounded(stored.place.dtype);
        verdict.number("stream", stored.place.dtype, got, interval, || {
            place(problem, index)
        });
    }
    got
}

fn place(problem: &Problem, index: usize) -> String {
    let columns = problem.shape.columns;
    format!(" of row {}, column {}", index / columns, index % columns)
}

fn interval(exact: f64, near: Near, dtype: DType) -> Interval {
    Interval::around(exact, SECOND_ORDER * near.error).rounded(dtype)
}

/// Compares a matrix row by row.
fn matrix(
    problem: &Problem,
    outcome: &Outcome,
    name: &'static str,
    exact: &[f64],
    rows: &[Row],
    verdict: &mut Verdict,
    near: impl Fn(&Row) -> Vec<Near>,
) {
    let Some(output) = outcome.outputs.get(name) else {
        return;
    };
    let got = output.values();
    verdict.equal(
        || format!("the elements of {name}"),
        &got.len(),
        &exact.len(),
    );
    let columns = problem.shape.columns;
    for row in rows {
        let begin = row.index * columns;
        for (column, near) in near(row).into_iter().enumerate() {
            let index = begin + column;
            let interval = interval(exact[index], near, output.place.dtype);
            verdict.number(name, output.place.dtype, got[index], interval, || {
                place(problem, index)
            });
        }
    }
}

fn compare_forward(
    problem: &Problem,
    outcome: &Outcome,
    exact: &Exact,
    rows: &[Row],
    verdict: &mut Verdict,
) {
    matrix(problem, outcome, "y", &exact.y, rows, verdict, |row| {
        row.forward.y()
    });
    for name in ["rstd", "mean"] {
        let Some(output) = outcome.outputs.get(name) else {
            continue;
        };
        let got = output.values();
        verdict.equal(
            || format!("the elements of {name}"),
            &got.len(),
            &rows.len(),
        );
        for (row, &got) in rows.iter().zip(&got) {
            let moments = &exact.moments[row.index];
            let (value, error) = match name {
                "rstd" => (moments.rstd, row.statistics.rstd),
                _ => (moments.mean, row.statistics.mean),
            };
            let interval = Interval::around(value, SECOND_ORDER * error).rounded(DType::F32);
            verdict.number(name, DType::F32, got, interval, || {
                format!(" of row {}", row.index)
            });
        }
    }
}

/// A row of a matrix.
fn of_row<'v>(problem: &Problem, values: &'v [f64], row: usize) -> &'v [f64] {
    let columns = problem.shape.columns;
    &values[row * columns..(row + 1) * columns]
}

fn compare_backward(
    problem: &Problem,
    asked: &Backward,
    outcome: &Outcome,
    exact: &Exact,
    rows: &[Row],
    verdict: &mut Verdict,
) {
    let dx = |row: &Row| -> Vec<Near> {
        let dy = of_row(problem, &asked.dy.values, row.index);
        let mut dx = row.backward.dx(&row.backward.dn(dy));
        if let Some(dstream) = &asked.dstream {
            let dstream = of_row(problem, &dstream.values, row.index);
            for (dx, &dstream) in dx.iter_mut().zip(dstream) {
                *dx = row.backward.with_stream(*dx, dstream);
            }
        }
        dx
    };
    // The residual's gradient is the same number, rounded to its own type.
    for name in ["dx", "dresidual"] {
        matrix(problem, outcome, name, &exact.dx, rows, verdict, dx);
    }
    matrix(problem, outcome, "dz", &exact.dz, rows, verdict, |row| {
        row.backward
            .dz(of_row(problem, &asked.dy.values, row.index))
    });
}

fn compare_weights(
    problem: &Problem,
    asked: &Backward,
    outcome: &Outcome,
    exact: &Exact,
    rows: &[Row],
    on: &Arithmetic,
    verdict: &mut Verdict,
) {
    let (columns, shape) = (problem.shape.columns, problem.shape);
    for (which, name) in ["dgamma", "dbeta"].into_iter().enumerate() {
        let Some(output) = outcome.outputs.get(name) else {
            continue;
        };
        let got = output.values();
        let exact = [&exact.dgamma, &exact.dbeta][which];
        verdict.equal(
            || format!("the elements of {name}"),
            &got.len(),
            &exact.len(),
        );
        let mut sums = OverRows::new(exact.len());
        for row in rows {
            let near = &row.backward;
            let dn = near.dn(of_row(problem, &asked.dy.values, row.index));
            for (column, &dn) in dn.iter().enumerate() {
                let term = if which == 0 {
                    gamma_term(dn, near.h(column), on)
                } else {
                    dn
                };
                sums.add(near.weight_index(exact.len(), column), term);
            }
        }
        let additions = match exact.len() {
            length if length == shape.heads * columns && length != columns => shape.tokens as f64,
            1 if problem.operation == Operation::Sdd => shape.rows() as f64 + on.adds(),
            _ => shape.rows() as f64,
        };
        for (index, (&got, &exact)) in got.iter().zip(exact).enumerate() {
            let before = asked
                .before
                .as_ref()
                .map_or(0.0, |before| before[which][index]);
            let total = exact + before;
            let error = sums.error(index, additions, total, on);
            let interval = Interval::around(total, error).rounded(DType::F32);
            verdict.number(name, DType::F32, got, interval, || {
                format!(", element {index}")
            });
        }
    }
}
