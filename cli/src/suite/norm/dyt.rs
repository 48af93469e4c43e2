//! The properties of the dynamic tanh.

mod rejection;

use evenkeel::norm::{Dyt, GradientOutputs, Weights};
use evenkeel::{Buffer, DType, Status, Stream, TensorRef};
use proptest::prelude::*;

use super::super::random::drawn;
use super::super::{Effort, Held, Workload, emulated, expect};
use super::proofs::{
    Budget, FLOATS, LONG_WIDTHS, WIDTHS, computed, device, float, floats, is_long_for, layouts,
    names, other_architectures, same_bits, scattered, there, within,
};
use crate::memory::download;
use crate::norm::Operation;
use crate::norm::dyt::{Case, Problem, Values};
use crate::norm::pass::Pass;
use crate::norm::placed::{Matrix, Written};
use crate::subject::Subject;

pub(super) use self::rejection::REFUSED;

/// Each type, pass and way to draw, with gamma, beta, both or neither, adding to what is there or not.
pub(super) fn dyt_weights_and_passes(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Dyt) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for values in Values::ALL {
        for pass in Pass::ALL {
            for given in 0..4 {
                for dtype in FLOATS {
                    let mut case = Case::new(5, 37, dtype);
                    case.gamma = (given % 2 == 1).then_some(FLOATS[index % 3]);
                    case.beta = (given / 2 == 1).then_some(FLOATS[index / 2 % 3]);
                    case.values = values;
                    case.pass = pass;
                    case.alpha = [0.5, -1.3, 0.02][index % 3];
                    case.accumulate = index % 2 == 0;
                    case.layouts = scattered(index);
                    case.seed = 100 + index as u64;
                    held.check(device(subject, index)?, &case.problem())?;
                    index += 1;
                }
            }
        }
    }
    Ok(held)
}

/// Every width of the tables, few rows and more than a block's; long rows.
pub(super) fn dyt_lengths_of_rows(subject: &Subject, effort: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Dyt) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for columns in WIDTHS {
        for rows in [1, 3, 200] {
            if rows * columns > 50_000 {
                continue;
            }
            let mut case = Case::new(rows, columns, FLOATS[index % 3]);
            case.accumulate = index % 2 == 1;
            case.seed = 200 + index as u64;
            held.check(device(subject, index)?, &case.problem())?;
            index += 1;
        }
    }
    for columns in LONG_WIDTHS {
        if is_long_for(subject, effort, columns) {
            continue;
        }
        // Two rows where that is soon done: the emulator computes a million elements a second.
        let rows = if columns > 40_000 { 1 } else { 2 };
        let mut case = Case::new(rows, columns, [DType::Bf16, DType::F32][index % 2]);
        case.pass = [Pass::Backward, Pass::BackwardInPlace][index / 2 % 2];
        case.seed = 200 + index as u64;
        held.check(device(subject, index)?, &case.problem())?;
        index += 1;
    }
    Ok(held)
}

/// Where tanh is 1 to all digits, its slope keeps its own: 4 exp(-2 |a|), to 2^-15 of itself.
pub(super) fn dyt_slopes_keep_their_digits(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Dyt) {
        return skipped;
    }
    let mut held = Held::default();
    for (index, sign) in [1.0, -1.0].into_iter().enumerate() {
        let mut case = Case::new(3, 50, DType::F32);
        case.gamma = None;
        case.alpha = 1.0;
        case.seed = 300 + index as u64;
        let mut problem = case.problem();
        for (at, x) in problem.x.values.iter_mut().enumerate() {
            *x = sign * (9.0 + (at % 50) as f64 * 0.5);
        }
        problem.dy.values.fill(1.0);
        let outcome = computed(&mut held, device(subject, index)?, &problem)?;
        for row in 0..3 {
            let got = outcome.dx.as_ref().map(|dx| dx.row(row).to_vec());
            for (x, got) in problem.x.row(row).iter().zip(got.unwrap_or_default()) {
                let e = (-2.0 * x.abs()).exp();
                let slope = 4.0 * e / (1.0 + e).powi(2);
                let near = (got - slope).abs() <= (-15.0_f64).exp2() * slope;
                expect("a slope with its digits", near, &problem)?;
            }
        }
    }
    Ok(held)
}

/// NaN stays where it is, infinities have the limits; either is told. No rows: nothing is done, and the
/// gradients of what rows share are 0, or stay.
pub(super) fn dyt_edges(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Dyt) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for dtype in FLOATS {
        for pass in [Pass::Backward, Pass::BackwardInPlace] {
            for accumulate in [false, true] {
                let mut case = Case::new(0, 21, dtype);
                (case.pass, case.accumulate) = (pass, accumulate);
                held.check(device(subject, index)?, &case.problem())?;

                let mut case = Case::new(4, 43, dtype);
                (case.pass, case.accumulate) = (pass, accumulate);
                case.seed = 400 + index as u64;
                let clean = case.problem();
                for (way, poison) in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY]
                    .into_iter()
                    .enumerate()
                {
                    let mut problem = clean.clone();
                    problem.x.values[43 + 17] = poison;
                    problem.name = format!("{}, x spoilt in way {way}", problem.name);
                    let outcome = computed(&mut held, device(subject, index)?, &problem)?;
                    let told = outcome.status.contains(Status::NON_FINITE_ROW);
                    expect("NON_FINITE_ROW", told, &problem)?;
                }
                let mut problem = clean.clone();
                problem.dy.values[2 * 43 + 5] = f64::NAN;
                problem.name = format!("{}, dy spoilt", problem.name);
                held.check(device(subject, index)?, &problem)?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// The forms that allocate, and a backward that is asked for less, give the same bits.
pub(super) fn dyt_forms_agree(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Dyt) {
        return skipped;
    }
    let mut held = Held::default();
    for (index, dtype) in FLOATS.into_iter().enumerate() {
        let mut case = Case::new(5, 77, dtype);
        case.seed = 700 + index as u64;
        let problem = case.problem();
        let on = device(subject, index)?;
        let whole = computed(&mut held, on, &problem)?;
        let other = on
            .stream()
            .and_then(|stream| allocating(&stream, &problem))
            .map_err(|error| error.to_string())?;
        let values = |written: &Option<Written>| -> Vec<f64> {
            written.as_ref().map(Written::values).unwrap_or_default()
        };
        let [dalpha, dgamma, dbeta] = whole.shared.each_ref().map(values);
        let dx = values(&whole.dx);
        let wanted = [whole.y.values(), dx.clone(), dalpha, dgamma, dbeta, dx];
        expect("the same of every form", other == wanted, &problem)?;
    }
    Ok(held)
}

fn view<'a>(
    matrix: Option<&Matrix>,
    buffer: Option<&'a Buffer>,
) -> evenkeel::Result<Option<TensorRef<'a>>> {
    let both = matrix.zip(buffer);
    both.map(|(matrix, buffer)| matrix.place.view(buffer))
        .transpose()
}

/// y and all gradients of the forms that allocate; dx where nothing else is asked for.
fn allocating(stream: &Stream, problem: &Problem) -> evenkeel::Result<[Vec<f64>; 6]> {
    let op = Dyt::new().prepare(stream)?;
    let upload = |matrix: &Option<Matrix>| matrix.as_ref().map(|matrix| matrix.upload(stream));
    let (gamma, beta) = (
        upload(&problem.gamma).transpose()?,
        upload(&problem.beta).transpose()?,
    );
    let weights = Weights {
        gamma: view(problem.gamma.as_ref(), gamma.as_ref())?,
        beta: view(problem.beta.as_ref(), beta.as_ref())?,
    };
    let alpha = stream.upload(&[1], &[problem.alpha])?;
    let (x, dy) = (problem.x.upload(stream)?, problem.dy.upload(stream)?);
    let (x, dy) = (problem.x.place.view(&x)?, problem.dy.place.view(&dy)?);
    let y = op.forward(x, alpha.view(), &weights)?;
    let gradients = op.backward(x, alpha.view(), &weights, dy)?;
    let mut alone = stream.zeros(problem.dx.dtype, &problem.dx.shape)?;
    let mut nothing = GradientOutputs::default();
    let into = alone.view_mut();
    op.backward_into(x, alpha.view(), &weights, dy, into, &mut nothing)?;
    let optional = |buffer: &Option<Buffer>| {
        let values = buffer.as_ref().map(download).transpose();
        values.map(Option::unwrap_or_default)
    };
    Ok([
        download(&y)?,
        download(&gradients.dx)?,
        download(&gradients.dalpha)?,
        optional(&gradients.dgamma)?,
        optional(&gradients.dbeta)?,
        download(&alone)?,
    ])
}

/// Runs, schedules and device sizes give the same bits.
pub(super) fn dyt_same_bits(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Dyt) {
        return skipped;
    }
    let mut held = Held::default();
    for (index, (rows, columns)) in [(300, 20), (40, 997), (3, 20_001)].into_iter().enumerate() {
        let mut case = Case::new(rows, columns, FLOATS[index]);
        case.accumulate = true;
        case.seed = 500 + index as u64;
        same_bits(&mut held, subject, &case.problem())?;
    }
    Ok(held)
}

/// The forward reads x once and writes y once, the backward x, dy and dx.
pub(super) fn dyt_traffic(subject: &Subject, effort: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Dyt) {
        return skipped;
    }
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    for (rows, columns, dtype) in [
        (16, 1024, DType::Bf16),
        (8, 4096, DType::F32),
        (2, 65_536, DType::Bf16),
    ] {
        if is_long_for(subject, effort, columns) {
            continue;
        }
        let mut case = Case::new(rows, columns, dtype);
        (case.gamma, case.beta, case.pass) = (None, None, Pass::Forward);
        let on = device(subject, 0)?;
        let bytes = rows * columns * dtype.size();
        let mut budget = Budget {
            loads: bytes,
            stores: bytes,
            // alpha, for each warp that wants it.
            more: 1024 + 64 * rows,
        };
        within(&mut held, on, &case.problem(), &budget)?;
        // The backward reads x and dy once each, and writes dx once; partial sums go to the workspace
        // and come back.
        case.pass = Pass::Backward;
        budget.loads += 2 * bytes;
        budget.stores += bytes;
        let workspace = on.stream().and_then(|stream| {
            let op = Dyt::new().prepare(&stream)?;
            Ok(op.backward_workspace_bytes(rows, columns))
        });
        let workspace = workspace.map_err(|error| error.to_string())?;
        budget.more = 2 * budget.more + workspace;
        within(&mut held, on, &case.problem(), &budget)?;
    }
    Ok(held)
}

/// On GPUs without large clusters, with their limits.
pub(super) fn dyt_on_other_architectures(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Dyt) {
        return skipped;
    }
    if !emulated(subject) {
        return Held::skipped("architectures are the emulator's to choose");
    }
    let mut held = Held::default();
    for (index, device) in other_architectures()?.into_iter().enumerate() {
        for (rows, columns) in [(7, 1000), (2, 33_000)] {
            let mut case = Case::new(rows, columns, FLOATS[index]);
            case.seed = 600 + index as u64;
            held.check(&device, &case.problem())?;
        }
    }
    Ok(held)
}

fn case() -> impl Strategy<Value = Case> {
    let columns = prop_oneof![2 => 1usize..40, 2 => 40usize..600, 1 => 600usize..4000];
    let rows = prop_oneof![4 => 1usize..6, 1 => 6usize..60];
    let weight = || prop_oneof![Just(None), float().prop_map(Some)];
    let alpha = prop_oneof![Just(0.5_f32), -3.0_f32..3.0];
    (
        (rows, columns, alpha),
        floats(),
        layouts(),
        (weight(), weight()),
        prop::sample::select(Pass::ALL.to_vec()),
        prop::sample::select(Values::ALL.to_vec()),
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(
            |(
                (rows, columns, alpha),
                types,
                layouts,
                (gamma, beta),
                pass,
                values,
                accumulate,
                seed,
            )| Case {
                rows: rows.min(1 + 12_000 / columns),
                columns,
                types,
                layouts,
                alpha,
                gamma,
                beta,
                pass,
                values,
                accumulate,
                seed,
            },
        )
}

/// What fails is made small before it is told.
pub(super) fn dyt_random_problems(subject: &Subject, effort: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Dyt) {
        return skipped;
    }
    drawn(
        subject,
        effort,
        &case(),
        |case| case.seed,
        |held, device, case| held.check(device, &case.problem()),
    )
}

pub(super) fn dyt_wrong_arguments(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Dyt) {
        return skipped;
    }
    let told = |error: evenkeel::Error| error.to_string();
    let stream = device(subject, 0)?.stream().map_err(told)?;
    arguments(&stream).map_err(told)??;
    Ok(Held {
        problems: 1,
        ..Held::default()
    })
}

fn arguments(stream: &Stream) -> evenkeel::Result<Result<(), String>> {
    let op = Dyt::new().prepare(stream)?;
    let x = stream.zeros(DType::F32, &[4, 10])?;
    let narrow = stream.zeros(DType::F32, &[4, 9])?;
    let integers = stream.zeros(DType::I32, &[4, 10])?;
    let one = stream.zeros(DType::F32, &[1])?;
    let half = stream.zeros(DType::Bf16, &[1])?;
    let (ten, nine) = (
        stream.zeros(DType::F16, &[10])?,
        stream.zeros(DType::F16, &[9])?,
    );
    let plain = Weights::default();
    let forward = |x: TensorRef<'_>, alpha: TensorRef<'_>, weights: &Weights<'_>| {
        op.forward(x, alpha, weights).map(|_| ())
    };
    let outputs = |bytes: usize, accumulate: bool, length: usize| -> evenkeel::Result<()> {
        let mut dx = stream.zeros(DType::F32, &[4, 10])?;
        let mut dgamma = stream.zeros(DType::F32, &[length])?;
        let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
        let mut outputs = GradientOutputs {
            dgamma: Some(dgamma.view_mut()),
            accumulate,
            workspace: Some(workspace.view_mut()),
            ..GradientOutputs::default()
        };
        let weights = Weights {
            gamma: Some(ten.view()),
            beta: None,
        };
        let (x, dx) = (x.view(), dx.view_mut());
        op.backward_into(x, one.view(), &weights, x, dx, &mut outputs)
    };
    let bytes = op.backward_workspace_bytes(4, 10);
    let gamma = |gamma| Weights {
        gamma: Some(gamma),
        beta: None,
    };
    let checks = [
        (
            "an integer x",
            forward(integers.view(), one.view(), &plain),
            "x",
        ),
        (
            "a bf16 alpha",
            forward(x.view(), half.view(), &plain),
            "alpha",
        ),
        ("ten alphas", forward(x.view(), x.view(), &plain), "alpha"),
        (
            "a short gamma",
            forward(x.view(), one.view(), &gamma(nine.view())),
            "gamma",
        ),
        (
            "a narrow dy",
            op.backward(x.view(), one.view(), &plain, narrow.view())
                .map(|_| ()),
            "dy",
        ),
        ("a short dgamma", outputs(bytes, false, 9), "dgamma"),
        (
            "a short workspace",
            outputs(bytes.saturating_sub(1), false, 10),
            "workspace",
        ),
    ];
    for (what, result, argument) in checks {
        if let Err(wrong) = names(what, result, argument) {
            return Ok(Err(wrong));
        }
    }
    forward(x.view(), one.view(), &gamma(ten.view()))?;
    outputs(bytes, true, 10)?;
    Ok(Ok(()))
}

/// Rows enough that each block takes several, so that sums over rows have a second stage.
pub(super) fn workloads(quick: bool) -> Vec<Workload> {
    let mut shapes = vec![(500, 40, DType::Bf16, 2), (60, 1001, DType::F32, 2)];
    if !quick {
        shapes.push((4, 70_000, DType::Bf16, 8));
    }
    shapes
        .into_iter()
        .map(|(rows, columns, dtype, multiprocessors)| {
            let mut case = Case::new(rows, columns, dtype);
            case.seed = 21 + columns as u64;
            Workload {
                problem: Box::new(case.problem()),
                multiprocessors,
            }
        })
        .collect()
}
