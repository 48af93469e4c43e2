//! Zeros, what is not finite, nothing at all; and what is counted.

use evenkeel::quant::{Format, Scaling};
use evenkeel::reference::quant::Direction;
use evenkeel::{DType, Status};

use super::super::super::proofs::{computed, device};
use super::super::super::{Effort, Held, expect};
use super::cases::{output, scalings};
use crate::norm::placed::{Matrix, Place};
use crate::norm::rows::cases::FLOATS;
use crate::quant::{Case, Decoded, Given, Output, Problem, Values};
use crate::subject::Subject;

/// A matrix of zeros has elements 0, each with its sign, and scales 1: never NaN. A block of zeros among
/// others too, but that nvfp4's block scale may be 0.
pub(in super::super) fn zeros_stay_zeros(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for format in Format::ALL {
        for options in scalings(format) {
            index += 1;
            let mut case = Case::new(140, 150, FLOATS[index % 3], format);
            case.options = options;
            case.seed = 200_000 + index as u64;
            let place = Place::new(case.dtype, &[140, 150]);
            let zeros = (0..140 * 150).map(|at| if at % 3 == 0 { -0.0 } else { 0.0 });
            let problem = Problem::new(case, Matrix::new(place, zeros));
            let outcome = computed(&mut held, device(subject, index)?, &problem)?;
            let clean = outcome.status == Status::empty();
            expect("nothing to tell of zeros", clean, &problem)?;
            for (wanted, stored) in problem.wanted.iter().zip(&outcome.stored) {
                let decoded = Decoded::new(&problem, wanted, stored);
                let right = (0..decoded.codes.len()).all(|at| {
                    let [row, column] = wanted
                        .direction
                        .orient([at / decoded.inner, at % decoded.inner]);
                    let negative = problem.x.values[row * 150 + column].is_sign_negative();
                    let e = decoded.elements[at];
                    // A product of scales that is 0 leaves no sign: such elements are all +0.
                    e == 0.0 && (e.is_sign_negative() == negative || decoded.scales[at] == 0.0)
                });
                expect("zeros with their signs", right, &problem)?;
                let scales = decoded
                    .scales
                    .iter()
                    .all(|&s| s == 1.0 || format.has_tensor_scale() && s.is_finite());
                expect("scales of 1", scales, &problem)?;
                let counted = stored.counts.as_ref().map(|counts| counts.counts());
                let before = wanted.counts.map(|counts| counts.to_vec());
                expect("no zero counted", counted == before, &problem)?;
            }
        }
    }
    Ok(held)
}

/// FP8 keeps NaN and saturates infinities, and their blocks' other elements and scales are those of the
/// same matrix with zeros in their places; a block of 4-bit elements has a NaN scale and elements 0, and
/// the status tells; every other block is as before.
pub(in super::super) fn what_is_not_finite_stays_apart(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    let [rows, columns] = [60, 140];
    let poisons = [
        (3, 5, f64::NAN),
        (3, 77, f64::INFINITY),
        (40, 139, f64::NEG_INFINITY),
        (59, 0, -f64::NAN),
    ];
    for format in Format::ALL {
        for options in scalings(format) {
            index += 1;
            let on = device(subject, index)?;
            let mut case = Case::new(rows, columns, FLOATS[index % 3], format);
            case.options = options;
            case.given = Given::Fixed(0.01);
            case.seed = 210_000 + index as u64;
            let plain = case.problem();
            let with = |poison: bool| {
                let mut values = plain.x.values.clone();
                for (row, column, x) in poisons {
                    values[row * columns + column] = if poison { x } else { 0.0 };
                }
                Problem::new(case.clone(), Matrix::new(plain.x.place.clone(), values))
            };
            let (clean, poisoned) = (with(false), with(true));
            let before = computed(&mut held, on, &clean)?;
            let after = computed(&mut held, on, &poisoned)?;
            let fp4 = format.element_bits() == 4;
            let status = if fp4 {
                Status::NON_FINITE_BLOCK
            } else {
                Status::empty()
            };
            expect("the status", after.status == status, &poisoned)?;
            for (at, direction) in Direction::ALL.into_iter().enumerate() {
                let [one, two] =
                    [(&clean, &before), (&poisoned, &after)].map(|(problem, outcome)| {
                        Decoded::new(problem, &problem.wanted[at], &outcome.stored[at])
                    });
                apart(format, direction, &one, &two, &poisons)
                    .map_err(|wrong| format!("{wrong}, {direction:?}, in {}", poisoned.name))?;
                let amax = |stored: &crate::quant::Stored| {
                    stored.amax.as_ref().map(|amax| amax.bytes.clone())
                };
                let same = amax(&before.stored[at]) == amax(&after.stored[at]);
                expect("an amax of finite elements", same, &poisoned)?;
            }
        }
    }
    Ok(held)
}

fn apart(
    format: Format,
    direction: Direction,
    clean: &Decoded,
    poisoned: &Decoded,
    poisons: &[(usize, usize, f64)],
) -> Result<(), String> {
    let block = format.block();
    let of_block = |outer: usize, inner: usize| (outer / block.rows, inner / block.columns);
    for at in 0..clean.codes.len() {
        let (outer, inner) = (at / clean.inner, at % clean.inner);
        let place = |&(row, column, _): &(usize, usize, f64)| direction.orient([row, column]);
        let here = poisons
            .iter()
            .find(|poison| place(poison) == [outer, inner]);
        let (code, scale, e) = (
            poisoned.codes[at],
            poisoned.scales[at],
            poisoned.elements[at],
        );
        let right = match (format.fp8(), here) {
            // One NaN for all, as instructions make it.
            (Some(_), Some(&(_, _, x))) if x.is_nan() => code == 0x7f && e.is_nan(),
            (Some(_), Some(&(_, _, x))) => e == f64::from(format.largest()).copysign(x),
            (Some(_), None) => code == clean.codes[at] && scale == clean.scales[at],
            (None, _) => {
                let hit = poisons.iter().any(|poison| {
                    let [row, column] = place(poison);
                    of_block(row, column) == of_block(outer, inner)
                });
                if hit {
                    code == 0 && scale.is_nan()
                } else {
                    code == clean.codes[at] && scale == clean.scales[at]
                }
            }
        };
        if !right {
            return Err(format!("element {at} is {e} with the scale {scale:e}"));
        }
    }
    Ok(())
}

/// Saturated and underflowed elements, counted again here from what was stored; amax too, which is never
/// lowered. Both are added to what is there: a second call doubles the counts and leaves the amax.
pub(in super::super) fn counts_and_amaxes(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for format in Format::ALL {
        for options in scalings(format) {
            for values in [Values::Normal, Values::Spikes, Values::Wide, Values::Zeros] {
                index += 1;
                let mut case = Case::new(77, 90, FLOATS[index % 3], format);
                case.options = options;
                case.values = values;
                case.given = Given::Times([0.2, 1.0, 100.0, 5000.0][index % 4]);
                case.seed = 220_000 + index as u64;
                let problem = case.problem();
                let outcome = computed(&mut held, device(subject, index)?, &problem)?;
                for (wanted, stored) in problem.wanted.iter().zip(&outcome.stored) {
                    let decoded = Decoded::new(&problem, wanted, stored);
                    let mut counts = wanted.counts.unwrap_or_default();
                    for at in 0..decoded.codes.len() {
                        let place = [at / decoded.inner, at % decoded.inner];
                        let [row, column] = wanted.direction.orient(place);
                        let x = problem.values[row * case.columns + column];
                        let s = decoded.scales[at] as f32;
                        // Where a product of scales is 0 nothing saturates: elements are 0.
                        counts[0] += u32::from(s != 0.0 && (x / s).abs() > format.largest());
                        counts[1] += u32::from(x != 0.0 && decoded.elements[at] == 0.0);
                    }
                    let got = stored.counts.as_ref().map(|counts| counts.counts());
                    let right = got == Some(counts.to_vec());
                    expect(&format!("{counts:?} counted, not {got:?}"), right, &problem)?;
                    let finite = problem.values.iter().map(|x| x.abs());
                    let before = wanted.amax.as_ref().map_or(0.0, |amax| amax[0]);
                    let amax = finite.fold(before, f32::max);
                    let got = stored.amax.as_ref().map(|amax| amax.floats());
                    expect(
                        &format!("an amax of {amax}"),
                        got == Some(vec![amax]),
                        &problem,
                    )?;
                }
            }
        }
    }
    Ok(held)
}

/// No rows: nothing is written but the scale of a tensor, which is 1 or as given; amax and counts stay.
pub(in super::super) fn quantising_nothing(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for format in Format::ALL {
        for options in scalings(format) {
            for columns in [1, 40] {
                for groups in [None, Some(vec![0]), Some(vec![0, 0, 0])] {
                    index += 1;
                    let mut case = Case::new(0, columns, FLOATS[index % 3], format);
                    case.options = options;
                    case.groups = groups.map(|groups| (groups, DType::I64));
                    case.given = Given::Fixed(0.5);
                    case.seed = 230_000 + index as u64;
                    let problem = case.problem();
                    let outcome = computed(&mut held, device(subject, index)?, &problem)?;
                    for (wanted, stored) in problem.wanted.iter().zip(&outcome.stored) {
                        let amax = stored.amax.as_ref().map(|amax| amax.floats());
                        let counts = stored.counts.as_ref().map(|counts| counts.counts());
                        let stay =
                            amax == wanted.amax && counts == wanted.counts.map(|c| c.to_vec());
                        expect("amax and counts as before", stay, &problem)?;
                        let scale = if options.scaling == Scaling::Given {
                            0.5
                        } else {
                            1.0
                        };
                        let scales = stored.tensor_scale.as_ref().map(|scale| scale.floats());
                        let right = scales.is_none_or(|all| all.iter().all(|&s| s == scale));
                        expect("the scale of nothing", right, &problem)?;
                    }
                }
            }
        }
    }
    Ok(held)
}

/// A given scale is stored as it is given, or nowhere when that is not asked for; elements are the same.
pub(in super::super) fn given_scales_are_kept(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for format in Format::ALL
        .into_iter()
        .filter(|format| format.needs_tensor_amax())
    {
        for groups in [None, Some(vec![20, 0, 44])] {
            for times in [0.25, 1.0, 40.0] {
                index += 1;
                let mut case = Case::new(64, 96, FLOATS[index % 3], format);
                case.options = case.options.scaling(Scaling::Given);
                case.groups = groups.clone().map(|groups| (groups, DType::I32));
                case.given = Given::Times(times);
                case.seed = 240_000 + index as u64;
                let problem = case.problem();
                let on = device(subject, index)?;
                let kept = computed(&mut held, on, &problem)?;
                for (wanted, stored) in problem.wanted.iter().zip(&kept.stored) {
                    let scales = stored.tensor_scale.as_ref().map(|scale| scale.floats());
                    expect("the given scale", scales == wanted.given, &problem)?;
                }
                let without = Output {
                    keep_scale: false,
                    ..output(None, Default::default())
                };
                (case.rowwise, case.transposed) = (Some(without), Some(without));
                let problem = case.problem();
                let left_out = computed(&mut held, on, &problem)?;
                for (one, other) in kept.stored.iter().zip(&left_out.stored) {
                    let same = one.data == other.data && one.scales == other.scales;
                    expect("the same elements", same, &problem)?;
                    expect(
                        "no scale where none is wanted",
                        other.tensor_scale.is_none(),
                        &problem,
                    )?;
                }
            }
        }
    }
    Ok(held)
}
