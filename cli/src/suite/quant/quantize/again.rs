//! What is quantised again, and the transpose of what is quantised.

use evenkeel::DType;
use evenkeel::quant::{Format, Rounding, ScaleRounding, Scaling};
use evenkeel::reference::quant::Direction;

use super::super::super::proofs::{computed, device};
use super::super::super::{Effort, Held, expect};
use super::cases::{layouts, output, outputs, rotations, scalings};
use crate::norm::placed::{Matrix, Place};
use crate::norm::rows::cases::FLOATS;
use crate::quant::{Case, Decoded, Given, Output, Problem, Values};
use crate::subject::Subject;

/// quantise(dequantise(q)) = q: the same values everywhere, and the same codes and scales but where
/// powers of two are rounded up.
///
/// An element e of scale s becomes x = RN(e s), and u = x / s' is e again to a few units of 2^-24 where
/// s' is s to as many; e is the nearest element to that. s' is s exactly where it is given, and for
/// blocks of MX, whose amax keeps its binade; to four units of the last place where it is amax' /
/// largest, amax' = RN(largest s). A power of two that was rounded up may become the half of it where
/// the largest element lost bits to just half of the range: the elements double, and no value changes.
/// The largest element of a block of nvfp4 whose scale is a normal number of E4M3 is 6, since the scale
/// is off by a sixteenth at most and 6 / (1 + 1/16) > 5; so its scale is found again. Blocks with a
/// subnormal scale, of an element near 0, are left out.
pub(in super::super) fn quantising_again_changes_nothing(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for format in Format::ALL {
        for options in scalings(format) {
            for direction in Direction::ALL {
                for values in [Values::Normal, Values::Spikes, Values::Ties] {
                    index += 1;
                    let mut case = Case::new(48, 150, FLOATS[index % 3], format)
                        .only(direction, output(None, layouts(format)[0]));
                    case.options = options;
                    case.values = values;
                    case.given = Given::Fixed(0.003);
                    case.seed = 120_000 + index as u64;
                    let (first, before) = outputs(&mut held, subject, index, &case)?;
                    let before = &before[0].1;
                    // To single precision, as dequantisation rounds them.
                    let values = before.values();
                    let [rows, columns] = [case.rows, case.columns];
                    let x = (0..first.values.len()).map(|at| {
                        let (row, column) = (at / columns, at % columns);
                        f64::from(values[before.at(direction, row, column)] as f32)
                    });
                    let place = Place::new(DType::F32, &[rows, columns]);
                    case.dtype = DType::F32;
                    let second = Problem::new(case, Matrix::new(place, x));
                    let outcome = computed(&mut held, device(subject, index)?, &second)?;
                    let after = Decoded::new(&second, &second.wanted[0], &outcome.stored[0]);
                    same_again(&second, before, &after)?;
                }
            }
        }
    }
    Ok(held)
}

fn same_again(problem: &Problem, before: &Decoded, after: &Decoded) -> Result<(), String> {
    let options = problem.case.options;
    let format = options.format;
    let rounded_up = options.power_of_two || options.scale_rounding == ScaleRounding::Ceil;
    let exact = options.scaling == Scaling::Given || !format.has_f32_scales();
    for at in 0..before.codes.len() {
        let scales = [before.scales[at], after.scales[at]];
        if format.has_tensor_scale() && before.block_scales[at] < 2.0_f64.powi(-6) {
            continue;
        }
        let near = if exact && !format.has_tensor_scale() {
            scales[0] == scales[1]
        } else {
            (scales[0] - scales[1]).abs() <= 4.0 * scales[0] * 2.0_f64.powi(-23)
        };
        let same = if rounded_up {
            before.elements[at] * scales[0] == after.elements[at] * scales[1]
        } else {
            before.codes[at] == after.codes[at] && near
        };
        if !same {
            let what = format!(
                "element {at} was {} x {:e} and is {} x {:e}",
                before.elements[at], scales[0], after.elements[at], scales[1]
            );
            return expect(&format!("the same again: {what}"), false, problem);
        }
    }
    Ok(())
}

/// Where blocks are squares, and where a tensor has one scale, the transposed output has the elements of
/// the row-wise one, byte for byte, and their scales; whatever the rounding. In every format it is what
/// the transpose of X becomes row-wise.
pub(in super::super) fn transposes_are_consistent(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for format in Format::ALL {
        for options in scalings(format) {
            for (rows, columns) in [(1, 7), (130, 260), (97, 64)] {
                index += 1;
                let mut case = Case::new(rows, columns, FLOATS[index % 3], format);
                case.options = options;
                if format.is_square() && index % 2 == 0 {
                    case.options = options.rounding(Rounding::Stochastic { seed: 77 });
                }
                case.values = [Values::Normal, Values::Wide, Values::Special][index % 3];
                case.seed = 130_000 + index as u64;
                let (problem, both) = outputs(&mut held, subject, index, &case)?;
                if format.is_square() {
                    square(&problem, &both)?;
                }
            }
            for rotation in rotations(9) {
                index += 1;
                let mut case = Case::new(128, 96, FLOATS[index % 3], format);
                let layouts = layouts(format);
                let made = Output {
                    amax: true,
                    counts: true,
                    ..output(rotation, layouts[index % layouts.len()])
                };
                case.options = options;
                case.seed = 130_000 + index as u64;
                case = case.only(Direction::Transposed, made);
                let on = device(subject, index)?;
                let problem = case.problem();
                let transposed = computed(&mut held, on, &problem)?;
                // X^T, in memory.
                let x = &problem.x.values;
                let turned = (0..96 * 128).map(|at| x[at % 128 * 96 + at / 128]);
                (case.rows, case.columns) = (96, 128);
                case = case.only(Direction::RowWise, made);
                let place = Place::new(case.dtype, &[96, 128]);
                let turned = Problem::new(case, Matrix::new(place, turned));
                let rowwise = computed(&mut held, on, &turned)?;
                let same = rowwise.stored == transposed.stored;
                expect("what the transpose of X becomes row-wise", same, &problem)?;
            }
        }
    }
    Ok(held)
}

/// That both outputs have the same codes and scales.
fn square(problem: &Problem, both: &[(Direction, Decoded)]) -> Result<(), String> {
    let [(_, rowwise), (_, transposed)] = both else {
        return expect("both outputs", false, problem);
    };
    let columns = problem.case.columns;
    let same = (0..rowwise.codes.len()).all(|at| {
        let other = transposed.at(Direction::Transposed, at / columns, at % columns);
        let (one, other_scale) = (rowwise.scales[at], transposed.scales[other]);
        rowwise.codes[at] == transposed.codes[other]
            && (one == other_scale || one.is_nan() && other_scale.is_nan())
    });
    expect("an exact transpose", same, problem)
}

/// Rows by themselves, and columns cut at the edges of blocks, give the same bits as the whole does:
/// in formats whose scales reach no further, and where the tensor's is given.
pub(in super::super) fn parts_are_as_the_whole(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    let [rows, columns] = [150, 300];
    for format in Format::ALL {
        for options in scalings(format) {
            if format.needs_tensor_amax() && options.scaling == Scaling::Current {
                continue;
            }
            index += 1;
            let on = device(subject, index)?;
            let mut case = Case::new(rows, columns, FLOATS[index % 3], format)
                .only(Direction::RowWise, Output::PLAIN);
            case.options = options;
            case.given = Given::Fixed(0.01);
            case.seed = 140_000 + index as u64;
            let whole = case.problem();
            let of_whole = computed(&mut held, on, &whole)?;
            let of_whole = Decoded::new(&whole, &whole.wanted[0], &of_whole.stored[0]);
            // Rows cut where squares end, columns where blocks do; a row's scale is of all of it.
            let cut = if format.is_square() { 128 } else { 61 };
            let mut parts = vec![([0, 0], [cut, columns]), ([cut, 0], [rows, columns])];
            if !matches!(format, Format::Fp8Row(_)) {
                parts.push(([0, 0], [rows, 128]));
                parts.push(([0, 128], [rows, columns]));
            }
            for (from, to) in parts {
                let size = [to[0] - from[0], to[1] - from[1]];
                let place = Place::new(case.dtype, &size);
                let x = (0..size[0] * size[1]).map(|at| {
                    let (row, column) = (from[0] + at / size[1], from[1] + at % size[1]);
                    whole.x.values[row * columns + column]
                });
                let mut part = case.clone();
                [part.rows, part.columns] = size;
                let part = Problem::new(part, Matrix::new(place, x));
                let outcome = computed(&mut held, on, &part)?;
                let of_part = Decoded::new(&part, &part.wanted[0], &outcome.stored[0]);
                let same = (0..size[0] * size[1]).all(|at| {
                    let (row, column) = (from[0] + at / size[1], from[1] + at % size[1]);
                    let there = row * columns + column;
                    of_part.codes[at] == of_whole.codes[there]
                        && of_part.scales[at] == of_whole.scales[there]
                });
                expect("what it is as part of the whole", same, &part)?;
            }
        }
    }
    Ok(held)
}
