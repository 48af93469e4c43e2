//! A device's product against the reference.

use std::ops::Range;

use evenkeel::matmul::Activation;
use evenkeel::reference::Indices;
use evenkeel::reference::matmul::{Groups, group_ranges, values, written_rows};
use evenkeel::reference::quant::activation::Function;
use evenkeel::{DType, DeviceKind, Result, Status};

use super::bounds::{Sum, Summation};
use super::case::{Addend, Grouping};
use super::run::{Outcome, Problem, UNTOUCHED};
use crate::compare::Verdict;
use crate::norm::arithmetic::Arithmetic;
use crate::numbers::Interval;
use crate::quant::activation::bounds::Curve;

/// GELU and silu are nowhere steeper.
const STEEPEST: f64 = 1.13;

/// Compares all of `outcome`.
///
/// # Errors
/// The reference's.
pub fn compare(problem: &Problem, outcome: &Outcome, kind: DeviceKind) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let case = &problem.case;
    let [m, n, k] = case.shape;
    let length = match case.grouping {
        Grouping::Contraction(_) => k,
        Grouping::One | Grouping::Rows(_) => m,
    };
    let ranges = match case.grouping.offsets() {
        None => Some(Vec::new()),
        Some(offsets) => group_ranges(&Indices::I64(offsets), length),
    };
    let expected_status = match &ranges {
        Some(_) => Status::empty(),
        None => Status::BAD_GROUP_OFFSETS,
    };
    verdict.equal(|| "the status".into(), &outcome.status, &expected_status);
    let Some(ranges) = ranges else {
        untouched(problem, outcome, 0..0, &mut verdict);
        verdict.equal(|| "the amax".into(), &outcome.amax, &problem.amax_before);
        return Ok(verdict.of(&problem.name));
    };
    let groups = match case.grouping {
        Grouping::One => Groups::One,
        Grouping::Rows(_) => Groups::Rows(&ranges),
        Grouping::Contraction(_) => Groups::Contraction(&ranges),
    };
    let rows = written_rows(&groups, m);
    untouched(problem, outcome, rows.clone(), &mut verdict);
    let summation = Summation::new(kind, case.formats[0], case.promotion);
    let values = problem
        .a
        .exact(|a| problem.b.exact(|b| values(&a, &b, &groups)))?;
    let exact = case.is_exact();
    let sums = values.each(&groups, |a, b| summation.of(a, b));
    let without_error = |sum: &Sum| Sum {
        error: if exact { 0.0 } else { sum.error },
        ..*sum
    };
    let sums: Vec<Sum> = sums.iter().map(without_error).collect();
    let group_of = |row: usize| match &groups {
        Groups::Rows(ranges) => ranges.partition_point(|range| range.end <= row),
        Groups::One | Groups::Contraction(_) => 0,
    };
    let u = if exact { 0.0 } else { summation.unit() };
    let arithmetic = Arithmetic::new(kind, n);
    let (place, width) = (problem.place(), problem.output_shape()[1]);
    let mut amax = Interval::only(problem.amax_before.map_or(0.0, f64::from));
    for (row, sums) in rows.zip(sums.chunks_exact(n)) {
        let before: Vec<Sum> = (0..n)
            .map(|column| epilogue(problem, u, sums[column], row, column, group_of(row)))
            .collect();
        if let (Some(dtype), Some(pre)) = (case.pre, &outcome.pre) {
            let begin = place.phase + row * place.stride(n);
            for (column, sum) in before.iter().enumerate() {
                let interval = Interval::around(sum.value, sum.error).rounded(dtype);
                let got = pre[begin + column];
                verdict.number("pre", dtype, got, interval, || at(row, column));
            }
        }
        let begin = place.phase + row * place.stride(width);
        for column in 0..width {
            let sum = activated(case.activation, &before, column, &arithmetic);
            let interval = Interval::around(sum.value, sum.error);
            if interval.exact.is_finite() {
                let magnitude = interval.exact.abs();
                amax.exact = amax.exact.max(magnitude);
                amax.low = amax.low.max(magnitude - interval.error);
                amax.high = amax.high.max(magnitude + interval.error);
            }
            let interval =
                quotient(interval, problem.output_scale, summation.unit()).rounded(case.dtype);
            let got = outcome.out[begin + column];
            verdict.number("out", case.dtype, got, interval, || at(row, column));
        }
    }
    if let Some(got) = outcome.amax {
        amax.error = (amax.high - amax.exact).max(amax.exact - amax.low);
        let interval = amax.rounded(DType::F32);
        verdict.number("amax", DType::F32, got.into(), interval, String::new);
    }
    Ok(verdict.of(&problem.name))
}

fn at(row: usize, column: usize) -> String {
    format!(" of ({row}, {column})")
}

/// That what lies around the rows that are written is as it was.
fn untouched(problem: &Problem, outcome: &Outcome, rows: Range<usize>, verdict: &mut Verdict) {
    let (place, [height, width]) = (problem.place(), problem.output_shape());
    let n = problem.case.shape[1];
    let memories = [
        ("out", Some(&outcome.out), width),
        ("pre", outcome.pre.as_ref(), n),
    ];
    for (name, memory, width) in memories {
        let Some(memory) = memory else { continue };
        place.check_gaps(
            name,
            memory,
            width,
            place.stride(width),
            |x| x == UNTOUCHED,
            verdict,
        );
        let before = match (&problem.c, problem.case.c) {
            (Some(c), Addend::Output) if name == "out" => Some(c),
            _ => None,
        };
        for row in (0..height).filter(|row| !rows.contains(row)) {
            let begin = place.phase + row * place.stride(width);
            for (column, x) in memory[begin..begin + width].iter().enumerate() {
                let was = before.map_or(UNTOUCHED, |c| c[row * width + column]);
                let place = || format!("{name}{}, of no group,", at(row, column));
                verdict.equal(place, x, &was);
            }
        }
    }
}

/// alpha, bias and C, a rounding each; C has two.
fn epilogue(problem: &Problem, u: f64, sum: Sum, row: usize, column: usize, group: usize) -> Sum {
    let case = &problem.case;
    let n = case.shape[1];
    let Sum {
        mut value,
        mut error,
    } = sum;
    let round = |value: f64, error: &mut f64, sizes: f64| {
        *error += u * (sizes + *error);
        value
    };
    if let Some(alpha) = case.alpha {
        let alpha = f64::from(alpha);
        value *= alpha;
        error *= alpha.abs();
        value = round(value, &mut error, value.abs());
    }
    if let Some(bias) = &problem.bias {
        value += bias[group * n + column];
        value = round(value, &mut error, value.abs());
    }
    if let Some(c) = &problem.c {
        let term = f64::from(case.beta) * c[row * n + column];
        value += term;
        value = round(value, &mut error, value.abs() + term.abs());
    }
    Sum { value, error }
}

/// The activation of a row's values.
fn activated(activation: Activation, values: &[Sum], column: usize, on: &Arithmetic) -> Sum {
    match activation {
        Activation::SwiGlu => {
            let (gate, up) = (values[2 * column], values[2 * column + 1]);
            if !(gate.value.is_finite() && up.value.is_finite()) {
                let exact = Curve::at(Function::SwiGlu, gate.value, on).value;
                return Sum {
                    value: exact * up.value,
                    error: 0.0,
                };
            }
            let curve = Curve::at(Function::SwiGlu, gate.value, on);
            let silu_error = curve.value_error + STEEPEST * gate.error;
            let sizes = (curve.value * up.value).abs();
            Sum {
                value: curve.value * up.value,
                error: silu_error * (up.value.abs() + up.error)
                    + curve.value.abs() * up.error
                    + 2.0 * on.unit * sizes
                    + on.tiny,
            }
        }
        Activation::Gelu(kind) => {
            let sum = values[column];
            let curve = Curve::at(Function::Gelu(kind), sum.value, on);
            Sum {
                value: curve.value,
                error: curve.value_error + STEEPEST * sum.error,
            }
        }
        _ => values[column],
    }
}

/// v / s, rounded once, before it is an element of 8 bits.
fn quotient(interval: Interval, scale: Option<f32>, u: f64) -> Interval {
    let Some(scale) = scale.map(f64::from) else {
        return interval;
    };
    let exact = interval.exact / scale;
    let error = interval.error / scale;
    Interval::around(exact, error + 2.0 * u * (exact.abs() + error))
}
