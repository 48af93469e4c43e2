//! Grids of problems, each compared with the reference bit for bit.

use evenkeel::DType;
use evenkeel::quant::{Format, Rounding, Scaling};
use evenkeel::reference::quant::Direction;

use super::super::super::proofs::{device, scattered};
use super::super::super::{Effort, Held, emulated};
use super::cases::{layouts, output, rotations, roundings, scalings};
use crate::norm::placed::{Matrix, Place};
use crate::norm::rows::cases::FLOATS;
use crate::quant::{Case, Form, Given, Problem, Values};
use crate::subject::Subject;

/// Row-wise, transposed, both.
const OUTPUTS: [[bool; 2]; 3] = [[true, false], [false, true], [true, true]];

/// Every format x output x rounding x rotation x layout x type of input. How scales are made, groups
/// and places change from one to the next.
pub(in super::super) fn every_format_and_option(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0_usize;
    for format in Format::ALL {
        let scalings = scalings(format);
        for outputs in OUTPUTS {
            for rounding in roundings(11) {
                for rotation in rotations(3) {
                    for layout in layouts(format) {
                        for dtype in FLOATS {
                            index += 1;
                            let quick = effort == Effort::Quick && emulated(subject);
                            if quick && !index.is_multiple_of(5) {
                                continue;
                            }
                            // Ragged, but for what a rotation divides.
                            let (rows, columns) = match rotation {
                                None => (37 + index % 4, 45 + index % 9),
                                Some(rotation) => match outputs {
                                    [true, false] => (19, rotation.n),
                                    [false, true] => (rotation.n, 21),
                                    _ => (rotation.n, rotation.n),
                                },
                            };
                            let mut case = Case::new(rows, columns, dtype, format);
                            case.options = scalings[index % scalings.len()].rounding(rounding);
                            let made = output(rotation, layout);
                            case.rowwise = outputs[0].then_some(made);
                            case.transposed = outputs[1].then_some(made);
                            case.values = Values::FINITE[index % Values::FINITE.len()];
                            case.layout = scattered(index)[index % 4];
                            case.seed = 1000 + index as u64;
                            held.check(device(subject, index)?, &case.problem())?;
                        }
                    }
                }
            }
        }
    }
    Ok(held)
}

/// Shapes of one element, of primes, around the edges of blocks and tiles, of several tiles; every
/// element at any alignment, rows with gaps.
pub(in super::super) fn quantised_shapes(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let sizes: &[usize] = if effort == Effort::Quick && emulated(subject) {
        &[1, 31, 128, 257]
    } else {
        &[1, 2, 15, 16, 31, 33, 127, 128, 129, 257]
    };
    let mut index = 0;
    for &rows in sizes {
        for &columns in sizes {
            for (at, format) in Format::ALL.into_iter().enumerate() {
                index += 1;
                // Large ones of every fourth format; it is another with each shape.
                if rows * columns > 2000 && (at + index) % 4 != 0 && emulated(subject) {
                    continue;
                }
                let scalings = scalings(format);
                let mut case = Case::new(rows, columns, FLOATS[index % 3], format);
                case.options = scalings[index % scalings.len()].rounding(roundings(7)[index % 2]);
                let layouts = layouts(format);
                let places = scattered(index);
                let mut made = output(None, layouts[index % layouts.len()]);
                made.layout = places[0];
                case.rowwise = (index % 4 != 1).then_some(made);
                made.layout = places[1];
                case.transposed = (index % 4 != 2).then_some(made);
                case.layout = places[2];
                case.form = [Form::Into, Form::Into, Form::Allocated][index % 3];
                case.seed = 40_000 + index as u64;
                held.check(device(subject, index)?, &case.problem())?;
            }
        }
    }
    Ok(held)
}

/// Every kind of value: all of a type's range, subnormals, ties, zeros, NaN and infinities; with scales
/// that are given and far from what the values ask for.
pub(in super::super) fn quantised_values(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for format in Format::ALL {
        for options in scalings(format) {
            for values in Values::ALL {
                for dtype in FLOATS {
                    index += 1;
                    let mut case = Case::new(34, 70, dtype, format);
                    case.options = options.rounding(roundings(5)[index % 2]);
                    case.values = values;
                    // The largest elements saturate, or most of them vanish.
                    case.given = Given::Times([1.0, 0.2, 9.0, 3000.0][index % 4]);
                    case.seed = 50_000 + index as u64;
                    held.check(device(subject, index)?, &case.problem())?;
                }
            }
            if options.scaling != Scaling::Given {
                continue;
            }
            for scale in [
                f32::from_bits(1),
                f32::from_bits(0x0030_0001),
                f32::MIN_POSITIVE,
                1.0,
                1.0 / 3.0,
                1.7e38,
                f32::MAX,
            ] {
                for values in [Values::Wide, Values::Special, Values::Tiny] {
                    index += 1;
                    let mut case = Case::new(20, 40, FLOATS[index % 3], format);
                    case.options = options.rounding(roundings(6)[index % 2]);
                    case.values = values;
                    case.given = Given::Fixed(scale);
                    case.seed = 50_000 + index as u64;
                    held.check(device(subject, index)?, &case.problem())?;
                }
            }
        }
    }
    Ok(held)
}

/// All 2^16 bf16 values, NaN and infinities among them: by given scales one by one, in the other
/// formats among neighbours of near sizes and of far.
pub(in super::super) fn every_bf16_value(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let value = |bits: usize| half::bf16::from_bits(bits as u16).to_f64();
    // In order, so that neighbours are of one size; and with strides, so that they are of all.
    let orders: [fn(usize) -> usize; 2] = [|at| at, |at| at * 40_503 % 65_536];
    let mut index = 0;
    for format in Format::ALL {
        for options in scalings(format) {
            for (order, of) in orders.into_iter().enumerate() {
                index += 1;
                let quick = effort == Effort::Quick && emulated(subject);
                if quick && index % 8 != 0 {
                    continue;
                }
                let mut case = Case::new(256, 256, DType::Bf16, format);
                case.options = options.rounding(roundings(8)[(index + order) % 2]);
                case.given = Given::Fixed([1.0, 0.01, 3e20][index % 3]);
                case.seed = 60_000 + index as u64;
                let place = Place::new(DType::Bf16, &[256, 256]);
                let all = (0..65_536).map(|at| value(of(at)));
                let mut problem = Problem::new(case.clone(), Matrix::new(place.clone(), all));
                held.check(device(subject, index)?, &problem)?;
                // Without what is not finite, whose blocks of 4 bits have nothing else.
                let all = (0..65_536).map(|at| value(of(at)));
                let finite = all.map(|x| if x.is_finite() { x } else { 1.0 });
                problem = Problem::new(case, Matrix::new(place, finite));
                held.check(device(subject, index)?, &problem)?;
            }
        }
    }
    Ok(held)
}

/// The allocating call and a call for less give the same bits: each output alone, with and without
/// what can be asked for.
pub(in super::super) fn quantise_forms_agree(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, format) in Format::ALL.into_iter().enumerate() {
        let mut case = Case::new(50, 90, FLOATS[index % 3], format);
        case.options = case.options.rounding(Rounding::Stochastic { seed: 3 });
        case.seed = 70_000 + index as u64;
        let both = case.problem();
        let on = device(subject, index)?;
        let all = super::super::super::proofs::computed(&mut held, on, &both)?;
        for (at, direction) in Direction::ALL.into_iter().enumerate() {
            for form in [Form::Into, Form::Allocated] {
                let mut alone = case.clone().only(direction, crate::quant::Output::PLAIN);
                alone.form = form;
                let problem = alone.problem();
                let outcome = super::super::super::proofs::computed(&mut held, on, &problem)?;
                let (one, other) = (&outcome.stored[0], &all.stored[at]);
                let same = one.data.bytes == other.data.bytes
                    && one.scales.as_ref().map(|x| &x.bytes)
                        == other.scales.as_ref().map(|x| &x.bytes)
                    && one.tensor_scale.as_ref().map(|x| &x.bytes)
                        == other.tensor_scale.as_ref().map(|x| &x.bytes);
                super::super::super::expect("the same bits alone", same, &problem)?;
            }
        }
    }
    Ok(held)
}
