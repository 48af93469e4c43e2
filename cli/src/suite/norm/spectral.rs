//! The properties of the spectral norm.

mod arguments;
mod rejection;

use std::f64::consts::PI;

use evenkeel::norm::{SpectralNorm, SpectralSaved, SpectralVectors};
use evenkeel::{Buffer, DType, Status, Stream};
use proptest::prelude::*;

use super::super::random::drawn;
use super::super::{Effort, Held, Workload, emulated, expect};
use super::proofs::{
    Budget, FLOATS, computed, device, floats, is_long_for, layouts, other_architectures, same_bits,
    scattered, there, within,
};
use crate::memory::download;
use crate::norm::Operation;
use crate::norm::arithmetic::{Arithmetic, SINGLE};
use crate::norm::placed::Written;
use crate::norm::spectral::{Case, Problem, Values, bounds};
use crate::numbers::round_to;
use crate::subject::Subject;

pub(super) use self::{arguments::spectral_norm_wrong_arguments, rejection::REFUSED};

/// Shapes of weights: one element, a row, a column, tall, wide, no multiple of anything.
const SHAPES: [[usize; 2]; 8] = [
    [1, 1],
    [1, 37],
    [41, 1],
    [8, 16],
    [67, 33],
    [19, 130],
    [130, 19],
    [3, 1000],
];

/// Each shape with 0, 1 and 3 steps, in each type, alone and in batches, with everything or less.
pub(super) fn spectral_norm_shapes_and_steps(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::SpectralNorm) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for [m, n] in SHAPES {
        for steps in [0, 1, 3] {
            for dtype in FLOATS {
                let mut case = Case::new(1, m, n, dtype);
                case.batch = [None, Some(1), Some(3)][index % 3];
                case.steps = steps;
                case.gamma = index % 2 == 0;
                case.scaled = index % 4 < 3;
                case.backward = index % 5 > 0;
                case.accumulate = index % 2 == 1;
                case.types[1] = [dtype, DType::F32][index / 2 % 2];
                case.layouts = scattered(index);
                case.seed = 100 + index as u64;
                held.check(device(subject, index)?, &case.problem())?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// Each way to draw weights, in each type; one weight of a layer's size.
pub(super) fn spectral_norm_extremes(subject: &Subject, effort: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::SpectralNorm) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for values in Values::ALL {
        for dtype in FLOATS {
            for steps in [1, 2] {
                let mut case = Case::new(2, 50, 70, dtype);
                (case.values, case.steps) = (values, steps);
                if dtype == DType::F16 && values == Values::Scaled {
                    // Thousandths of weights are subnormal there.
                    case.types[0] = DType::F32;
                }
                case.seed = 200 + index as u64;
                held.check(device(subject, index)?, &case.problem())?;
                index += 1;
            }
        }
    }
    // Products with W twice are of the weight's squared size, which single precision has no room for;
    // rows that grow fourfold each change what there is room for again and again.
    for (by, growth) in [(1e25, 1.0_f64), (1e-25, 1.0), (1e-12, 4.0), (1e12, 0.25)] {
        for columns in [70, 8195] {
            let mut case = Case::new(1, 40, columns, DType::F32);
            case.gamma = false;
            case.seed = 270 + index as u64;
            let mut problem = case.problem();
            for (at, w) in problem.w.values.iter_mut().enumerate() {
                let factor = by * growth.powi((at / columns) as i32);
                *w = round_to(DType::F32, *w * factor);
            }
            problem.name = format!("{}, times {by}, rows by {growth}", problem.name);
            held.check(device(subject, index)?, &problem)?;
            index += 1;
        }
    }
    if effort == Effort::Full {
        let mut case = Case::new(1, 700, 520, DType::Bf16);
        case.seed = 290;
        held.check(device(subject, index)?, &case.problem())?;
    }
    Ok(held)
}

/// Rows beyond the registers of a block, few and many; each in the types that share a kernel, and at
/// alignments that share none.
pub(super) fn spectral_norm_long_rows(subject: &Subject, effort: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::SpectralNorm) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for [batch, m, n] in [
        [1, 3, 8192],
        [2, 2, 8193],
        [1, 9, 8200],
        [1, 2, 16_388],
        [1, 2, 60_000],
    ] {
        if is_long_for(subject, effort, n) {
            continue;
        }
        for dtype in [DType::Bf16, DType::F32] {
            for steps in [0, 2] {
                let mut case = Case::new(batch, m, n, dtype);
                case.steps = steps;
                case.layouts[0].gap = [0, 8, 3][index % 3];
                case.seed = 700 + index as u64;
                held.check(device(subject, index)?, &case.problem())?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// Element `at` of the `k`-th vector of an orthonormal basis of so many dimensions: a cosine.
fn basis(k: usize, at: usize, length: usize) -> f64 {
    let size = if k == 0 { 1.0 } else { 2.0 } / length as f64;
    size.sqrt() * (PI * (at as f64 + 0.5) * k as f64 / length as f64).cos()
}

/// A weight of known singular values, 3, 1.5, 0.75 and so on: call after call, sigma becomes the first,
/// but for the rounding of the weight (at most u its Frobenius norm) and that of the arithmetic.
pub(super) fn spectral_norm_converges(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::SpectralNorm) {
        return skipped;
    }
    /// A step makes what is not the first direction 4 times smaller, sigma's error 16 times.
    const CALLS: usize = 16;
    let mut held = Held::default();
    for (index, [m, n]) in [[24, 17], [5, 90], [64, 64]].into_iter().enumerate() {
        let mut case = Case::new(1, m, n, DType::F32);
        (case.backward, case.scaled) = (false, false);
        case.seed = 300 + index as u64;
        let mut problem = case.problem();
        let values: Vec<f64> = (0..m.min(n))
            .map(|k| 3.0 * 0.5_f64.powi(k as i32))
            .collect();
        for (at, w) in problem.w.values.iter_mut().enumerate() {
            let (i, j) = (at / n, at % n);
            let terms = values.iter().enumerate();
            let sum: f64 = terms
                .map(|(k, s)| s * basis(k, i, m) * basis(k, j, n))
                .sum();
            *w = round_to(DType::F32, sum);
        }
        let on = device(subject, index)?;
        let mut sigma = 0.0;
        for _ in 0..CALLS {
            let outcome = computed(&mut held, on, &problem)?;
            (problem.u, problem.v) = (outcome.u.values(), outcome.v.values());
            sigma = outcome.sigma.row(0)[0];
        }
        let arithmetic = Arithmetic::new(subject.kind(), n);
        let (_, error) = bounds::sigma(problem.weight(0), &problem.u, &problem.v, &arithmetic);
        let frobenius: f64 = values.iter().map(|s| s * s).sum::<f64>().sqrt();
        let allowed = error + 2.0 * SINGLE * frobenius + 1e-9;
        let right = (sigma - values[0]).abs() <= allowed;
        expect(
            &format!("the first singular value: {sigma}"),
            right,
            &problem,
        )?;
    }
    Ok(held)
}

/// A weight of zeros has no scale: sigma, scale, scaled weight and gradients are 0, and the status
/// says so; one with NaN is NaN; the others of the batch are as they would be.
pub(super) fn spectral_norm_edges(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::SpectralNorm) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for dtype in FLOATS {
        for accumulate in [false, true] {
            let mut case = Case::new(3, 20, 30, dtype);
            case.accumulate = accumulate;
            case.seed = 400 + index as u64;
            let on = device(subject, index)?;
            let clean = case.problem();
            let alone = computed(&mut held, on, &clean)?;
            for (spoil, status) in [
                (0.0, Status::ZERO_SIGMA),
                (f64::NAN, Status::NON_FINITE_ROW),
            ] {
                let mut problem = clean.clone();
                problem.w.values[600..1200].fill(spoil);
                problem.name = format!("{}, weight 1 all {spoil}", problem.name);
                let outcome = computed(&mut held, on, &problem)?;
                expect("its status", outcome.status == status, &problem)?;
                for weight in [0, 2] {
                    let same = outcome.sigma.row(0)[weight] == alone.sigma.row(0)[weight];
                    expect("the same sigma of the others", same, &problem)?;
                }
            }
            // One NaN is enough.
            let mut problem = clean.clone();
            problem.w.values[600 + 77] = f64::NAN;
            problem.name = format!("{}, one NaN", problem.name);
            held.check(on, &problem)?;
            // No weights at all.
            let mut case = Case::new(0, 20, 30, dtype);
            case.accumulate = accumulate;
            held.check(on, &case.problem())?;
            index += 1;
        }
    }
    Ok(held)
}

/// The forms that allocate, with the scaled weight and without, give the same bits.
pub(super) fn spectral_norm_forms_agree(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::SpectralNorm) {
        return skipped;
    }
    let mut held = Held::default();
    for (index, dtype) in FLOATS.into_iter().enumerate() {
        let mut case = Case::new(2, 35, 51, dtype);
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
        let (sigma, scale) = (whole.sigma.values(), whole.scale.values());
        let wanted = [
            whole.u.values(),
            whole.v.values(),
            sigma.clone(),
            scale.clone(),
            values(&whole.scaled),
            values(&whole.dw),
            values(&whole.dgamma),
            sigma,
            scale,
        ];
        expect("the same of every form", other == wanted, &problem)?;
    }
    Ok(held)
}

/// u, v, sigma, scale, scaled weight and gradients of the forms that allocate; sigma and scale of the
/// one without a scaled weight.
fn allocating(stream: &Stream, problem: &Problem) -> evenkeel::Result<[Vec<f64>; 9]> {
    let [batch, m, n] = problem.shape();
    let op = SpectralNorm::new(problem.steps).prepare(stream)?;
    let single = |values: &[f64], shape: &[usize]| {
        let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
        stream.upload(shape, &values)
    };
    let w = problem.w.upload(stream)?;
    let w = problem.w.place.view(&w)?;
    let gamma = single(problem.gamma.as_deref().unwrap_or(&[]), &[batch])?;
    let gamma = Some(gamma.view());
    let fresh = || -> evenkeel::Result<[Buffer; 2]> {
        Ok([
            single(&problem.u, &[batch, n])?,
            single(&problem.v, &[batch, m])?,
        ])
    };
    let [mut u, mut v] = fresh()?;
    let mut vectors = SpectralVectors::new(u.view_mut(), v.view_mut());
    let whole = op.forward_scaled(w, &mut vectors, gamma)?;
    let dscaled = problem.dscaled.clone().unwrap_or_else(|| problem.w.clone());
    let of_scaled = dscaled.upload(stream)?;
    let of_scaled = dscaled.place.view(&of_scaled)?;
    let saved = SpectralSaved::new(u.view(), v.view(), whole.sigma.view());
    let gradients = op.backward(w, &saved, gamma, of_scaled)?;
    let [mut other_u, mut other_v] = fresh()?;
    let mut vectors = SpectralVectors::new(other_u.view_mut(), other_v.view_mut());
    let less = op.forward(w, &mut vectors, gamma)?;
    let dgamma = gradients.dgamma.as_ref().map(download).transpose()?;
    Ok([
        download(&u)?,
        download(&v)?,
        download(&whole.sigma)?,
        download(&whole.scale)?,
        download(&whole.scaled)?,
        download(&gradients.dw)?,
        dgamma.unwrap_or_default(),
        download(&less.sigma)?,
        download(&less.scale)?,
    ])
}

/// Runs, schedules and device sizes give the same bits.
pub(super) fn spectral_norm_same_bits(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::SpectralNorm) {
        return skipped;
    }
    let mut held = Held::default();
    for (index, [batch, m, n]) in [[1, 300, 50], [4, 33, 257]].into_iter().enumerate() {
        let mut case = Case::new(batch, m, n, FLOATS[index]);
        (case.steps, case.accumulate) = (2, true);
        case.seed = 500 + index as u64;
        same_bits(&mut held, subject, &case.problem())?;
    }
    Ok(held)
}

/// A step reads the weight once, the scaled weight costs one read more and a write; the backward reads
/// weight and gradient once for their product, and the gradient again for dw. What is between goes
/// through the workspace.
pub(super) fn spectral_norm_traffic(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::SpectralNorm) {
        return skipped;
    }
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    let on = device(subject, 0)?;
    for ([batch, m, n], dtype, steps) in [
        ([1, 512, 1024], DType::Bf16, 1),
        ([2, 256, 1000], DType::F32, 2),
    ] {
        let mut case = Case::new(batch, m, n, dtype);
        (case.steps, case.backward) = (steps, false);
        let workspaces = on.stream().and_then(|stream| {
            let op = SpectralNorm::new(steps).prepare(&stream)?;
            let backward = op.backward_workspace_bytes(batch, m, n);
            Ok([op.workspace_bytes(batch, m, n), backward])
        });
        let [forward, backward] = workspaces.map_err(|error| error.to_string())?;
        let bytes = batch * m * n * dtype.size();
        // u and v come and go with each step, v's elements for each row that they scale.
        let vectors = 4 * batch * (m + n);
        let mut budget = Budget {
            loads: (steps as usize + 1) * bytes,
            stores: bytes,
            more: 4096 + steps as usize * (2 * forward + 8 * vectors),
        };
        within(&mut held, on, &case.problem(), &budget)?;
        case.backward = true;
        budget.loads += 3 * bytes;
        budget.stores += bytes;
        // u, for each row of dw.
        budget.more += 4096 + 2 * backward + 8 * vectors + 4 * batch * m * n;
        within(&mut held, on, &case.problem(), &budget)?;
    }
    Ok(held)
}

/// On GPUs without large clusters, with their limits.
pub(super) fn spectral_norm_on_other_architectures(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::SpectralNorm) {
        return skipped;
    }
    if !emulated(subject) {
        return Held::skipped("architectures are the emulator's to choose");
    }
    let mut held = Held::default();
    for (index, device) in other_architectures()?.into_iter().enumerate() {
        // The last: sums of a row that no shared memory has room for.
        for [m, n] in [[70, 90], [9, 5000], [2, 41_800]] {
            let mut case = Case::new(2, m, n, FLOATS[index]);
            case.seed = 600 + index as u64;
            held.check(&device, &case.problem())?;
        }
    }
    Ok(held)
}

fn case() -> impl Strategy<Value = Case> {
    let size = || prop_oneof![2 => 1usize..30, 1 => 30usize..120];
    let given = any::<[bool; 4]>();
    (
        (
            prop_oneof![Just(None), (1usize..4).prop_map(Some)],
            size(),
            size(),
        ),
        floats(),
        layouts(),
        0u32..4,
        given,
        prop::sample::select(vec![Values::Normal, Values::Spiked, Values::Zero]),
        any::<u64>(),
    )
        .prop_map(
            |((batch, m, n), types, layouts, steps, given, values, seed)| Case {
                batch,
                m,
                n,
                types,
                layouts,
                steps,
                gamma: given[0],
                scaled: given[1],
                backward: given[2],
                accumulate: given[3],
                values,
                seed,
            },
        )
}

/// What fails is made small before it is told.
pub(super) fn spectral_norm_random_problems(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::SpectralNorm) {
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

/// Weights of several blocks' rows, so that the sums over rows have a second stage.
pub(super) fn workloads(quick: bool) -> Vec<Workload> {
    let mut shapes = vec![([2, 90, 70], DType::Bf16, 2), ([1, 20, 600], DType::F32, 2)];
    if !quick {
        shapes.push(([1, 400, 1000], DType::Bf16, 4));
    }
    shapes
        .into_iter()
        .map(|([batch, m, n], dtype, multiprocessors)| {
            let mut case = Case::new(batch, m, n, dtype);
            case.seed = 31 + n as u64;
            case.steps = 2;
            Workload {
                problem: Box::new(case.problem()),
                multiprocessors,
            }
        })
        .collect()
}
