//! The random Hadamard rotation: that it can be undone, and that it cancels in a product.

use evenkeel::DType;
use evenkeel::quant::{Format, Fp8, Hadamard, OutputOptions, QuantizeOptions, ScaleRounding};
use evenkeel::reference::quant::Direction;

use super::super::super::proofs::device;
use super::super::super::{Effort, Held, expect, told};
use super::cases::{output, outputs};
use crate::norm::rows::cases::FLOATS;
use crate::quant::decode::step;
use crate::quant::run::dequantized;
use crate::quant::{Case, Decoded, Problem, Values};
use crate::subject::Subject;

/// The unit roundoff of single precision.
const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// Those in which nothing saturates.
fn options() -> [QuantizeOptions; 6] {
    [
        QuantizeOptions::new(Format::Fp8Tensor(Fp8::E4m3)),
        QuantizeOptions::new(Format::Fp8Row(Fp8::E5m2)),
        QuantizeOptions::new(Format::Fp8Block1x128(Fp8::E4m3)).power_of_two(),
        QuantizeOptions::new(Format::MxFp8(Fp8::E4m3)).scale_rounding(ScaleRounding::Ceil),
        QuantizeOptions::new(Format::MxFp4).scale_rounding(ScaleRounding::Ceil),
        QuantizeOptions::new(Format::NvFp4),
    ]
}

fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The 2-norm of what quantisation changes in some elements, at most: half a step of each. nvfp4's
/// scales are off by a sixteenth, so that the largest u is 6.4, within half a step of 6 too.
fn changed(format: Format, decoded: &Decoded, range: std::ops::Range<usize>) -> f64 {
    norm(range.map(|at| {
        let (e, s) = (decoded.elements[at], decoded.scales[at]);
        (step(format, e) / 2.0 + 2.0 * UNIT * e.abs()) * s
    }))
}

/// How far rounding takes a vector of a norm from its rotation: a step of additions keeps the norm
/// times sqrt(2), each rounding to 2^-24 of its sum; n elements take log2 n steps, and a multiplication
/// by a factor rounded once. The second order is lost in the 2 of 2 log2 n.
fn rotation_error(n: usize) -> f64 {
    (2.0 * (n as f64).log2() + 4.0) * UNIT
}

fn problems(
    mut check: impl FnMut(&mut Held, usize, Case, Hadamard) -> Result<(), String>,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for options in options() {
        for n in Hadamard::SIZES {
            for direction in Direction::ALL {
                index += 1;
                let rotation = Hadamard::new(n, 1000 + index as u64);
                let [rows, columns] = direction.orient([33, 256]);
                let mut case = Case::new(rows, columns, FLOATS[index % 3], options.format)
                    .only(direction, output(Some(rotation), Default::default()));
                case.options = options;
                case.values = [Values::Normal, Values::Spikes][index % 2];
                case.seed = 150_000 + index as u64;
                check(&mut held, index, case, rotation)?;
            }
        }
    }
    Ok(held)
}

/// Rotated, quantised, dequantised and rotated back, each block of a rotation is X again to within what
/// quantisation changed: the 2-norm of the difference is at most that of half a step of each element,
/// since a rotation keeps norms, and the rounding of both rotations.
pub(in super::super) fn rotations_are_undone(subject: &Subject, _: Effort) -> Result<Held, String> {
    problems(|held, index, case, rotation| {
        let direction = case
            .rowwise
            .map_or(Direction::Transposed, |_| Direction::RowWise);
        let format = case.options.format;
        let (problem, decoded) = outputs(held, subject, index, &case)?;
        let decoded = &decoded[0].1;
        let on = device(subject, index)?;
        let values = on
            .stream()
            .and_then(|stream| dequantized(&stream, &problem, direction))
            .map_err(|error| told(&error, &problem))?;
        let x = oriented(&problem, direction);
        for (block, x) in x.chunks(rotation.n).enumerate() {
            let range = block * rotation.n..(block + 1) * rotation.n;
            let got = norm(x.iter().zip(&values[range.clone()]).map(|(x, y)| x - y));
            let quantised = changed(format, decoded, range);
            let size = norm(x.iter().copied()) + quantised;
            let bound = quantised + 2.0 * rotation_error(rotation.n) * size;
            let undone = got <= bound;
            expect(
                &format!("undone in block {block}, {got:e} of {bound:e}"),
                undone,
                &problem,
            )?;
        }
        Ok(())
    })
}

/// X's values as an output has them.
fn oriented(problem: &Problem, direction: Direction) -> Vec<f64> {
    let (rows, columns) = (problem.case.rows, problem.case.columns);
    let [outer, inner] = direction.orient([rows, columns]);
    (0..outer * inner)
        .map(|at| {
            let [row, column] = direction.orient([at / inner, at % inner]);
            problem.x.values[row * columns + column]
        })
        .collect()
}

/// Both operands of a product rotated by one rotation, their product is that of X and W to within what
/// quantisation changed: |x^ w^ - x w| <= |dx| |w| + |x| |dw| + |dx| |dw| for rows x and w, by
/// Cauchy and Schwarz. By another seed's rotation it is not.
pub(in super::super) fn rotations_cancel_in_a_product(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    problems(|held, index, case, rotation| {
        let direction = case
            .rowwise
            .map_or(Direction::Transposed, |_| Direction::RowWise);
        let format = case.options.format;
        let run = |held: &mut Held, seed: u64| -> Result<_, String> {
            let made = output(Some(Hadamard::new(rotation.n, seed)), Default::default());
            let case = case.clone().only(direction, made);
            let (problem, decoded) = outputs(held, subject, index, &case)?;
            Ok((problem, decoded.into_iter().next()))
        };
        let (problem, x) = run(held, rotation.seed)?;
        let (_, other) = run(held, rotation.seed + 1)?;
        let (Some((_, x)), Some((_, other))) = (x, other) else {
            return expect("an output", false, &problem);
        };
        // Each row of the output with the next: W is X, moved by a row.
        let exact = oriented(&problem, direction);
        let (values, turned) = (x.values(), other.values());
        let mut differs = false;
        for row in 0..x.outer {
            let next = (row + 1) % x.outer;
            let of = |row: usize| row * x.inner..(row + 1) * x.inner;
            let dot =
                |one: &[f64], two: &[f64]| one.iter().zip(two).map(|(x, y)| x * y).sum::<f64>();
            for partner in [row, next] {
                let (one, two) = (of(row), of(partner));
                let want = dot(&exact[one.clone()], &exact[two.clone()]);
                let got = dot(&values[one.clone()], &values[two.clone()]);
                let error = |range: &std::ops::Range<usize>| {
                    let size = norm(exact[range.clone()].iter().copied());
                    let changed = changed(format, &x, range.clone());
                    (
                        size,
                        changed + rotation_error(rotation.n) * (size + changed),
                    )
                };
                let ((x_size, dx), (w_size, dw)) = (error(&one), error(&two));
                let bound = (dx * w_size + x_size * dw + dx * dw) * (1.0 + 1e-9);
                let cancels = (got - want).abs() <= bound;
                expect(
                    &format!(
                        "cancelled in the product of rows {row} and {partner}: {got:e} for {want:e}"
                    ),
                    cancels,
                    &problem,
                )?;
                let got = dot(&values[one], &turned[two]);
                differs |= (got - want).abs() > bound;
            }
        }
        expect("another product by another rotation", differs, &problem)
    })
}

/// A rotation of one element alone spreads it evenly: |v_i| = |x| / sqrt(n) exactly, which every format
/// stores as its largest element.
pub(in super::super) fn one_element_spreads_evenly(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for n in Hadamard::SIZES {
        for at in [0, 1, n / 2, n - 1] {
            index += 1;
            let rotation = Hadamard::new(n, index as u64);
            let format = Format::Fp8Row(Fp8::E4m3);
            let mut case = Case::new(2, n, DType::F32, format);
            let options = OutputOptions::new().rotation(rotation);
            let made = crate::quant::Output {
                options,
                ..crate::quant::Output::FULL
            };
            case = case.only(Direction::RowWise, made);
            let place = crate::norm::placed::Place::new(DType::F32, &[2, n]);
            let x = (0..2 * n).map(|i| if i % n == at { 3.0 } else { 0.0 });
            let problem = Problem::new(case, crate::norm::placed::Matrix::new(place, x));
            let on = device(subject, index)?;
            let outcome = super::super::super::proofs::computed(&mut held, on, &problem)?;
            let decoded = Decoded::new(&problem, &problem.wanted[0], &outcome.stored[0]);
            let largest = decoded.elements.iter().all(|e| e.abs() == 448.0);
            expect("the largest element everywhere", largest, &problem)?;
            // A column of H: half of its signs differ, but for the first one's; signs turn all of it.
            let minus = |row: usize| {
                let row = &decoded.elements[row * n..(row + 1) * n];
                row.iter().filter(|e| **e < 0.0).count()
            };
            let halves = if at == 0 { [0, n] } else { [n / 2, n / 2] };
            expect("a column of H", halves.contains(&minus(0)), &problem)?;
            let amax = outcome.stored[0].amax.as_ref().map(|amax| amax.floats()[0]);
            let expected = (3.0 * rotation.factor())
                .max(problem.wanted[0].amax.as_ref().map_or(0.0, |a| a[0]));
            expect("an amax of 3 / sqrt(n)", amax == Some(expected), &problem)?;
        }
    }
    Ok(held)
}
