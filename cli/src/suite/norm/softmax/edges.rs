//! What is promised for rows that are not as they should be.

use evenkeel::Status;
use evenkeel::norm::{Causal, SoftmaxKind};

use super::super::super::{Effort, Held, expect};
use super::proofs::{FLOATS, computed, device, there};
use crate::norm::Operation;
use crate::norm::pass::Pass;
use crate::norm::softmax::Case;
use crate::subject::Subject;

/// y where p = 0.
fn absent(kind: SoftmaxKind) -> f64 {
    match kind {
        SoftmaxKind::LogSoftmax => f64::NEG_INFINITY,
        _ => 0.0,
    }
}

/// No rows at all, in each dimension that can be 0.
pub(in super::super) fn softmax_of_nothing(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for kind in SoftmaxKind::ALL {
        for (blocks, queries) in [(0, 4), (3, 0), (0, 0)] {
            for pass in Pass::ALL {
                let mut case = Case::new(kind, queries, 19, FLOATS[index % 3]);
                case.blocks = blocks;
                case.pass = pass;
                held.check(device(subject, index)?, &case.problem())?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// Rows that see nothing, by their length, by the causal mask, by -inf: zeros (log: -inf), entropy 0,
/// gradient 0, and no word of it in the status.
pub(in super::super) fn softmax_of_rows_that_see_nothing(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for kind in SoftmaxKind::ALL {
        for dtype in FLOATS {
            for why in ["length", "causal", "-inf"] {
                for pass in Pass::ALL {
                    let mut case = Case::new(kind, 4, 43, dtype);
                    case.pass = pass;
                    case.seed = 7000 + index as u64;
                    if why == "causal" {
                        case.options.causal = Some(Causal::Offset(-2));
                    }
                    let mut problem = case.problem();
                    let blind = match why {
                        "length" => {
                            problem.lengths = Some(vec![0, 43, -5, 60]);
                            vec![0, 2]
                        }
                        "causal" => vec![0, 1],
                        _ => {
                            problem.x.values[2 * 43..3 * 43].fill(f64::NEG_INFINITY);
                            vec![2]
                        }
                    };
                    problem.name = format!("{}, rows {blind:?} blind by {why}", problem.name);
                    let outcome = computed(&mut held, device(subject, index)?, &problem)?;
                    expect("no status", outcome.status == Status::empty(), &problem)?;
                    for row in blind {
                        let gone = outcome.y.row(row).iter().all(|y| *y == absent(kind));
                        expect("nothing in y", gone, &problem)?;
                        let entropy = outcome.entropy.row(0)[row];
                        expect("an entropy of 0", entropy == 0.0, &problem)?;
                        let still = outcome
                            .dx
                            .as_ref()
                            .is_none_or(|dx| dx.row(row).iter().all(|dx| *dx == 0.0));
                        expect("a gradient of 0", still, &problem)?;
                    }
                    index += 1;
                }
            }
        }
    }
    Ok(held)
}

/// NaN and +inf among what a row sees: NaN for that row, the status, and its neighbours' bits as they
/// were. What it does not see may be anything.
pub(in super::super) fn softmax_of_rows_that_are_not_finite(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let poisons: [fn(&mut [f64]); 5] = [
        |row| row[11] = f64::NAN,
        |row| row[0] = f64::INFINITY,
        |row| row.fill(f64::NAN),
        |row| row[29] = -f64::NAN,
        |row| row.fill(f64::INFINITY),
    ];
    let mut held = Held::default();
    let mut index = 0;
    for kind in SoftmaxKind::ALL {
        for dtype in FLOATS {
            let mut case = Case::new(kind, 4, 43, dtype);
            case.pass = [Pass::Backward, Pass::BackwardInPlace][index % 2];
            case.seed = 8000 + index as u64;
            let on = device(subject, index)?;
            let mut clean = case.problem();
            // Row 1 sees 30 keys.
            clean.lengths = Some(vec![43, 30, 43, 43]);
            let alone = computed(&mut held, on, &clean)?;
            for (way, poison) in poisons.iter().enumerate() {
                let mut problem = clean.clone();
                poison(&mut problem.x.values[43..2 * 43]);
                problem.name = format!("{}, row 1 spoilt in way {way}", problem.name);
                let outcome = computed(&mut held, on, &problem)?;
                let told = outcome.status.contains(Status::NON_FINITE_ROW);
                expect("NON_FINITE_ROW", told, &problem)?;
                let nan = outcome.y.row(1)[..30].iter().all(|y| y.is_nan());
                let rest = outcome.y.row(1)[30..].iter().all(|y| *y == absent(kind));
                expect("NaN for what the row sees", nan && rest, &problem)?;
                for row in [0, 2, 3] {
                    let bits = |row: &[f64]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    let same = bits(outcome.y.row(row)) == bits(alone.y.row(row));
                    expect("the same bits of the neighbours", same, &problem)?;
                }
            }
            // A gradient that is not finite spoils its own row's.
            let mut problem = clean.clone();
            problem.dy.values[43 + 7] = f64::NAN;
            problem.name = format!("{}, dy of row 1 spoilt", problem.name);
            let outcome = computed(&mut held, on, &problem)?;
            let told = outcome.status.contains(Status::NON_FINITE_ROW);
            expect("NON_FINITE_ROW", told, &problem)?;
            // What is not seen may be anything.
            let mut problem = clean.clone();
            problem.x.values[43 + 30..2 * 43].fill(f64::INFINITY);
            problem.dy.values[43 + 30..2 * 43].fill(f64::INFINITY);
            problem.name = format!("{}, infinities unseen", problem.name);
            let outcome = computed(&mut held, on, &problem)?;
            expect("no status", outcome.status == Status::empty(), &problem)?;
            index += 1;
        }
    }
    Ok(held)
}
