//! Groups of rows, as experts have them.

use evenkeel::quant::{Format, Hadamard, Rounding};
use evenkeel::reference::quant::Direction;
use evenkeel::{DType, Status};

use super::super::super::proofs::{computed, device};
use super::super::super::{Effort, Held, expect};
use super::cases::{layouts, output, scalings};
use crate::norm::placed::Matrix;
use crate::norm::rows::cases::FLOATS;
use crate::quant::{Case, Decoded, Problem, Values};
use crate::subject::Subject;

/// Sizes of groups: one, empty ones at both ends and in between, of one row and of several tiles. Even
/// where two elements share a byte, and whole blocks where a rotation has them.
fn sizes(index: usize, multiple: usize) -> Vec<usize> {
    let sizes: &[usize] = match index % 5 {
        0 => &[70],
        1 => &[0, 33, 0, 1, 129, 0],
        2 => &[1, 1, 1, 16, 17],
        3 => &[128, 128, 5],
        _ => &[0, 0, 40, 131],
    };
    let most = if multiple > 2 { 2 } else { 1000 };
    let whole = |size: usize| size.div_ceil(multiple).min(most) * multiple;
    sizes.iter().map(|&size| whole(size)).collect()
}

/// Every format, output and layout with groups of every size, against the reference.
pub(in super::super) fn groups_of_every_size(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for format in Format::ALL {
        for options in scalings(format) {
            for layout in layouts(format) {
                for repeat in 0..3 {
                    index += 1;
                    let rotation = (repeat == 2).then(|| Hadamard::new([16, 32][index % 2], 4));
                    let multiple = match rotation {
                        Some(rotation) => rotation.n,
                        None if format.element_bits() == 4 => 2,
                        None => 1,
                    };
                    let groups = sizes(index, multiple);
                    let rows = groups.iter().sum();
                    let columns = if rotation.is_some() { 64 } else { 150 };
                    let mut case = Case::new(rows, columns, FLOATS[index % 3], format);
                    case.groups = Some((groups, [DType::I32, DType::I64][index % 2]));
                    case.options = options;
                    if index % 3 == 0 {
                        case.options = options.rounding(Rounding::Stochastic { seed: 2 });
                    }
                    let made = output(rotation, layout);
                    case.rowwise = (index % 5 != 1).then_some(made);
                    case.transposed = (index % 5 != 2).then_some(made);
                    case.values = [Values::Normal, Values::Wide, Values::Zeros][index % 3];
                    case.seed = 160_000 + index as u64;
                    held.check(device(subject, index)?, &case.problem())?;
                }
            }
        }
    }
    Ok(held)
}

/// What one group holds does not show in the others: the middle one of three made 1000 times as large,
/// the elements and scales of both neighbours stay, in both outputs.
pub(in super::super) fn groups_do_not_touch(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, format) in Format::ALL.into_iter().enumerate() {
        for options in scalings(format) {
            let on = device(subject, index)?;
            let mut case = Case::new(90, 70, FLOATS[(index + 1) % 3], format);
            case.options = options;
            case.groups = Some((vec![38, 0, 12, 40], DType::I64));
            case.given = crate::quant::Given::Fixed(0.02);
            case.seed = 170_000 + index as u64;
            let problem = case.problem();
            let before = computed(&mut held, on, &problem)?;
            let larger = problem.x.values.iter().enumerate().map(|(at, &x)| {
                let row = at / 70;
                if (38..50).contains(&row) {
                    1000.0 * x
                } else {
                    x
                }
            });
            let larger = Problem::new(case, Matrix::new(problem.x.place.clone(), larger));
            let after = computed(&mut held, on, &larger)?;
            for (at, direction) in Direction::ALL.into_iter().enumerate() {
                let [one, two] =
                    [(&problem, &before), (&larger, &after)].map(|(problem, outcome)| {
                        Decoded::new(problem, &problem.wanted[at], &outcome.stored[at])
                    });
                let same = (0..one.codes.len()).all(|place| {
                    let around = [place / one.inner, place % one.inner];
                    let [row, _] = direction.orient(around);
                    (38..50).contains(&row)
                        || one.codes[place] == two.codes[place]
                            && one.scales[place] == two.scales[place]
                });
                expect("untouched neighbours", same, &problem)?;
            }
        }
    }
    Ok(held)
}

/// Offsets that leave rows before, between no groups and after; that descend, or leave the rows; groups
/// that a byte of two elements or a rotation cannot hold. All are told, and nothing else is touched.
pub(in super::super) fn groups_that_do_not_fit(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for format in Format::ALL {
        let bad = Status::BAD_GROUP_OFFSETS;
        let none = Status::empty();
        let odd = if format.element_bits() == 4 {
            Status::RAGGED_GROUP
        } else {
            none
        };
        for (offsets, rotated, status) in [
            (vec![4, 20, 30], false, none),
            (vec![0, 20, 18, 40], false, bad),
            (vec![0, 20, 41], false, bad),
            (vec![-1, 20, 40], false, bad),
            (vec![0, 15, 15, 40], false, odd),
            (vec![0, 16, 40], true, Status::RAGGED_GROUP),
        ] {
            index += 1;
            let rotation = rotated.then(|| Hadamard::new(16, 1));
            let mut case = Case::new(40, 48, FLOATS[index % 3], format);
            let layouts = layouts(format);
            let made = output(rotation, layouts[index % layouts.len()]);
            (case.rowwise, case.transposed) = (Some(made), Some(made));
            // As many groups, whose sizes do not matter: the offsets follow.
            case.groups = Some((
                vec![0; offsets.len() - 1],
                [DType::I32, DType::I64][index % 2],
            ));
            case.seed = 180_000 + index as u64;
            let mut problem = case.problem();
            problem.groups = Some(offsets);
            problem.name = format!("{}, offsets {:?}", problem.name, problem.groups);
            let outcome = computed(&mut held, device(subject, index)?, &problem)?;
            let told = outcome.status == status;
            expect(&format!("{status:?}"), told, &problem)?;
        }
    }
    Ok(held)
}
