//! Grids of softmaxes against the reference, and what holds of every softmax.

use evenkeel::DType;
use evenkeel::norm::{Causal, SoftmaxKind};

use super::super::super::{Effort, Held, expect};
use super::proofs::{
    FLOATS, INTEGERS, LONG_WIDTHS, WIDTHS, computed, device, is_long_for, scattered, there,
};
use crate::memory::Layout;
use crate::norm::Operation;
use crate::norm::pass::Pass;
use crate::norm::softmax::{Case, Values};
use crate::subject::Subject;

/// Causal masks: none, square, shifted to either side, ending with the last key.
const MASKS: [Option<Causal>; 5] = [
    None,
    Some(Causal::Offset(0)),
    Some(Causal::Offset(-2)),
    Some(Causal::Offset(3)),
    Some(Causal::End),
];

/// Each kind with each mask, with lengths or without, scaled or not, in each type and pass; blocks of 5
/// queries, 4 of them in 2 batches.
pub(in super::super) fn softmax_kinds_and_masks(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for kind in SoftmaxKind::ALL {
        for causal in MASKS {
            for batches in [None, Some(2), Some(4)] {
                for scale in [1.0, 0.35] {
                    for dtype in FLOATS {
                        let mut case = Case::new(kind, 5, 27, dtype);
                        case.blocks = 4;
                        case.options.causal = causal;
                        case.options.scale = scale;
                        case.batches = batches;
                        case.lengths = INTEGERS[index % 3];
                        case.pass = Pass::ALL[index % 4];
                        case.dentropy = index % 3 > 0;
                        case.layouts = scattered(index);
                        case.seed = index as u64;
                        held.check(device(subject, index)?, &case.problem())?;
                        index += 1;
                    }
                }
            }
        }
    }
    Ok(held)
}

/// Every length of the tables, one query and more; long rows in two types, forward and backward.
pub(in super::super) fn softmax_lengths_of_rows(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for kind in SoftmaxKind::ALL {
        for keys in WIDTHS {
            for rows in [1, 3] {
                let mut case = Case::new(kind, rows, keys, FLOATS[index % 3]);
                case.pass = [Pass::Backward, Pass::BackwardInPlace][index % 2];
                case.seed = 1000 + index as u64;
                held.check(device(subject, index)?, &case.problem())?;
                index += 1;
            }
        }
        for keys in LONG_WIDTHS {
            if is_long_for(subject, effort, keys) {
                continue;
            }
            let mut case = Case::new(kind, 1, keys, [DType::Bf16, DType::F32][index % 2]);
            case.pass = [Pass::Backward, Pass::BackwardInPlace][index / 2 % 2];
            case.seed = 1000 + index as u64;
            held.check(device(subject, index)?, &case.problem())?;
            index += 1;
        }
    }
    Ok(held)
}

/// Each tensor at each place of a 16-byte vector, strides that move every row to another, and each
/// tensor of another type.
pub(in super::super) fn softmax_alignments(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for first in 0..3 {
        for phase in 0..8 {
            for keys in [5, 67] {
                let mut case = Case::new(SoftmaxKind::ALL[index % 3], 3, keys, DType::F32);
                case.types = std::array::from_fn(|at| FLOATS[(first + at * (index % 3)) % 3]);
                case.layouts = std::array::from_fn(|at| Layout {
                    phase: (phase * (2 * at + 1)) % 8,
                    padding: index % 2,
                    gap: (index + at) % 5,
                });
                case.pass = Pass::ALL[index / 2 % 4];
                case.seed = 2000 + index as u64;
                held.check(device(subject, index)?, &case.problem())?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// Each way to draw scores, where digits are lost by formulas less careful than these.
pub(in super::super) fn softmax_extremes(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for values in Values::ALL {
        for kind in SoftmaxKind::ALL {
            for dtype in FLOATS {
                for keys in [19, 300] {
                    let mut case = Case::new(kind, 3, keys, dtype);
                    case.values = values;
                    case.options.scale = [1.0, 0.125, 1.7][index % 3];
                    case.types[1] = [DType::F32, dtype][index % 2];
                    case.types[3] = DType::F32;
                    case.pass = [Pass::Backward, Pass::BackwardInPlace][index / 3 % 2];
                    case.seed = 3000 + index as u64;
                    held.check(device(subject, index)?, &case.problem())?;
                    index += 1;
                }
            }
        }
    }
    Ok(held)
}

/// The shares of a row sum to 1: each is within its relative error, at most 2^-15 for these scores,
/// and the roundings of f32 besides.
pub(in super::super) fn softmax_rows_sum_to_one(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let mut held = Held::default();
    for (index, kind) in SoftmaxKind::ALL.into_iter().enumerate() {
        for keys in [3, 129, 5000] {
            let mut case = Case::new(kind, 4, keys, DType::F32);
            case.pass = Pass::Forward;
            case.options.causal = Some(Causal::End);
            case.seed = 4000 + index as u64;
            let problem = case.problem();
            let outcome = computed(&mut held, device(subject, index)?, &problem)?;
            for row in 0..4 {
                let visible = problem.visible(row);
                let share = |y: &f64| match kind {
                    SoftmaxKind::LogSoftmax => y.exp(),
                    _ => *y,
                };
                let sum: f64 = outcome.y.row(row).iter().map(share).sum();
                let wanted = if visible == 0 { 0.0 } else { 1.0 };
                expect(
                    &format!("a sum of {wanted} in row {row}: {sum}"),
                    (sum - wanted).abs() <= (-15.0_f64).exp2(),
                    &problem,
                )?;
            }
        }
    }
    Ok(held)
}

/// Scores that are multiples of 2^-6 below 8, and the same plus 4096: both exact in f32, so that every
/// difference to the maximum, and with it every bit of y, entropy and dx, is the same.
pub(in super::super) fn softmax_offsets_change_nothing(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for kind in [SoftmaxKind::Softmax, SoftmaxKind::LogSoftmax] {
        for keys in [33, 1000] {
            let mut case = Case::new(kind, 3, keys, DType::F32);
            case.seed = 5000 + index as u64;
            let mut problem = case.problem();
            for x in &mut problem.x.values {
                *x = (x.clamp(-8.0, 8.0) * 64.0).round() / 64.0;
            }
            let mut shifted = problem.clone();
            shifted.x.values.iter_mut().for_each(|x| *x += 4096.0);
            let on = device(subject, index)?;
            let one = computed(&mut held, on, &problem)?;
            let other = computed(&mut held, on, &shifted)?;
            let same = one.y.bits() == other.y.bits()
                && one.entropy.bits() == other.entropy.bits()
                && one.dx.map(|dx| dx.bits()) == other.dx.map(|dx| dx.bits());
            expect("the same bits with an offset", same, &problem)?;
            index += 1;
        }
    }
    Ok(held)
}

/// One key so far above the rest that p = 1 - 1e-9 and nearer: log p of it is log1p of the others' sum,
/// and the entropy as small, to 2^-15 of themselves. The bounds say the same; this says it in words.
pub(in super::super) fn softmax_peaks_keep_their_digits(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for kind in [SoftmaxKind::Softmax, SoftmaxKind::LogSoftmax] {
        for keys in [2, 40, 700] {
            let mut case = Case::new(kind, 3, keys, DType::F32);
            case.values = Values::Peaked;
            case.seed = 6000 + index as u64;
            let problem = case.problem();
            let outcome = computed(&mut held, device(subject, index)?, &problem)?;
            for row in 0..3 {
                let x = problem.x.row(row);
                let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let others = || x.iter().filter(|x| **x < top).map(|x| top - x);
                let log_sum = others().map(|d| (-d).exp()).sum::<f64>().ln_1p();
                let gap: f64 = others().map(|d| (-d).exp() * d).sum();
                let entropy = log_sum + gap / log_sum.exp();
                let near = |got: f64, wanted: f64| {
                    (got - wanted).abs() <= (-15.0_f64).exp2() * wanted.abs()
                };
                let got = outcome.entropy.row(0)[row];
                expect("an entropy with its digits", near(got, entropy), &problem)?;
                let at = x.iter().position(|x| *x == top).unwrap_or(0);
                let got = outcome.y.row(row)[at];
                let right = match kind {
                    SoftmaxKind::LogSoftmax => near(got, -log_sum),
                    _ => near(got, (-log_sum).exp()),
                };
                expect("log p with its digits", right, &problem)?;
            }
            index += 1;
        }
    }
    Ok(held)
}
