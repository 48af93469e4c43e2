//! What spec and documentation promise beside numbers.

use evenkeel::norm::{NormKind, NormOptions, Pairing, Rotary};
use evenkeel::{DType, Device, Status};

use super::{Effort, Held, OPERATIONS, checked, expect, operations, told, tried};
use crate::norm::Operation;
use crate::norm::rows::cases::FLOATS;
use crate::norm::rows::{Case, Form, Outcome, Problem, Types, run};
use crate::subject::Subject;

/// Checks a problem against the reference, and gives what was computed for a closer look.
fn computed(held: &mut Held, device: &Device, problem: &Problem) -> Result<Outcome, String> {
    held.check(device, problem)?;
    run(device, problem).map_err(|error| told(&error, problem))
}

/// A small problem of each operation, kind and type.
fn each(
    subject: &Subject,
    mut check: impl FnMut(&mut Held, &Device, Case) -> Result<(), String>,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for operation in operations(subject) {
        for kind in NormKind::ALL {
            for dtype in FLOATS {
                let mut case = Case::new(operation, 4, 43, dtype);
                if operation == Operation::HeadNorm {
                    case.heads = 2;
                }
                case.norm = Some(NormOptions::new(kind));
                case.beta = true;
                case.layout.gap = 3;
                case.seed = 8000 + index as u64;
                let device = subject.device(index).map_err(|error| error.to_string())?;
                check(&mut held, device, case)?;
                index += 1;
            }
        }
    }
    tried(held)
}

/// Both pairings at each kind of width, in every form, with a norm and alone; positions given or not.
pub(in super::super) fn rotary_embeddings(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut cases = Vec::new();
    for pairing in Pairing::ALL {
        for (columns, width) in [
            (64, 64),
            (64, 32),
            (128, 128),
            (80, 20),
            (10, 6),
            (2, 2),
            (67, 34),
        ] {
            for norm in [None, Some(NormOptions::rms()), Some(NormOptions::layer())] {
                for form in Form::ALL {
                    let index = cases.len();
                    let dtype = FLOATS[index % 3];
                    let mut case = Case::new(Operation::HeadNorm, 7, columns, dtype);
                    case.heads = 1 + index % 4;
                    case.rotary = Some(Rotary::new(pairing, width));
                    (case.norm, case.form) = (norm, form);
                    case.positions = index % 2 == 0;
                    case.packed = index % 3 == 0;
                    case.whole_weights = index % 5 < 2;
                    case.layout.gap = index % 4;
                    case.types = Types::from_digits(dtype, 7919 * index as u64);
                    case.seed = 6000 + index as u64;
                    cases.push(case);
                }
            }
        }
    }
    let mut held = checked(subject, cases)?;
    if !Operation::HeadNorm.is_on(subject.kind()) {
        return Ok(held);
    }
    // Positions that the tables do not have.
    for (index, norm) in [None, Some(NormOptions::rms())].into_iter().enumerate() {
        for bad in [-1, 100, i64::from(i32::MAX)] {
            let mut case = Case::new(Operation::HeadNorm, 4, 64, DType::Bf16);
            case.heads = 2;
            case.rotary = Some(Rotary::new(Pairing::Interleaved, 32));
            (case.norm, case.positions) = (norm, true);
            let mut problem = case.problem();
            if let Some((dtype, ids)) = problem.tables.as_mut().and_then(|t| t.positions.as_mut()) {
                (*dtype, ids[2]) = (DType::I64, bad);
            }
            problem.name = format!("{}, position {bad}", problem.name);
            let device = subject.device(index).map_err(|error| error.to_string())?;
            let outcome = computed(&mut held, device, &problem)?;
            let told = outcome.status == [Status::POSITION_OUT_OF_RANGE; 2];
            expect("POSITION_OUT_OF_RANGE", told, &problem)?;
            let nan = outcome.values("y")[2 * 128..3 * 128]
                .iter()
                .all(|y| y.is_nan());
            expect("NaN for the token without a position", nan, &problem)?;
        }
    }
    Ok(held)
}

/// Rows with NaN or infinities, in x, the gate, the residual or dy: NaN for them, their neighbours as if
/// alone; and rows without a spread where eps is 0.
pub(in super::super) fn rows_that_are_not_finite(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let poisons: [fn(&mut [f64]); 6] = [
        |row| row[11] = f64::NAN,
        |row| row[0] = f64::INFINITY,
        |row| row[42] = f64::NEG_INFINITY,
        |row| row.fill(f64::NAN),
        |row| (row[3], row[40]) = (f64::INFINITY, f64::NEG_INFINITY),
        |row| row.fill(f64::INFINITY),
    ];
    each(subject, |held, device, mut case| {
        // A NaN in any row is in the sums over rows too.
        case.weight_gradients = false;
        case.residual = case.seed % 2 == 0;
        let clean = case.problem();
        let columns = clean.shape.columns;
        let alone = computed(held, device, &clean)?;
        for (index, poison) in poisons.iter().enumerate() {
            for place in ["x", "residual", "z", "dy"] {
                let mut problem = clean.clone();
                let matrix = match place {
                    "x" => Some(&mut problem.x),
                    "residual" => problem.residual.as_mut(),
                    "z" => problem.z.as_mut(),
                    _ => problem.backward.as_mut().map(|backward| &mut backward.dy),
                };
                let Some(matrix) = matrix else { continue };
                poison(&mut matrix.values[columns..2 * columns]);
                problem.name = format!("{}, {place} of row 1 spoilt in way {index}", problem.name);
                let outcome = computed(held, device, &problem)?;
                let bad = Status::NON_FINITE_ROW;
                let forward = if place == "dy" { Status::empty() } else { bad };
                expect("NON_FINITE_ROW", outcome.status == [forward, bad], &problem)?;
                for (name, output) in &outcome.outputs {
                    if *name == "stream" {
                        continue;
                    }
                    let (got, want) = (output.values(), alone.values(name));
                    let each = got.len() / clean.shape.rows();
                    for (at, (got, want)) in got.iter().zip(&want).enumerate() {
                        let neighbour = at / each != 1;
                        let same = !neighbour || got.to_bits() == want.to_bits();
                        expect(
                            &format!("the same {name} of the neighbours"),
                            same,
                            &problem,
                        )?;
                    }
                }
                let dx = outcome.values("dx");
                let row = dx.iter().skip(columns).take(columns);
                let nan = row.copied().all(f64::is_nan);
                expect("NaN for dx of the row", nan, &problem)?;
            }
        }
        // Nothing to divide by.
        if case.operation == Operation::Sdd {
            return Ok(());
        }
        case.norm = case.norm.map(|norm| norm.eps(0.0));
        case.weight_gradients = true;
        case.residual = false;
        let mut problem = case.problem();
        problem.x.values[2 * columns..3 * columns].fill(0.0);
        problem.name = format!("{}, row 2 zero", problem.name);
        let outcome = computed(held, device, &problem)?;
        let told = outcome.status == [Status::NON_FINITE_ROW; 2];
        expect("NON_FINITE_ROW of a zero row", told, &problem)
    })
}

/// Gradients of weights, added to what is there: in every form that can.
pub(in super::super) fn accumulating_adds(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut cases = Vec::new();
    for operation in OPERATIONS {
        for form in [Form::Apart, Form::InPlace] {
            for (tokens, columns) in [(1, 9), (70, 33), (300, 257)] {
                for whole in [false, true] {
                    let index = cases.len();
                    let mut case = Case::new(operation, tokens, columns, FLOATS[index % 3]);
                    if operation == Operation::HeadNorm {
                        case.heads = 3;
                    }
                    case.norm = Some(NormOptions::new(NormKind::ALL[index / 2 % 2]));
                    (case.beta, case.accumulate, case.form) = (true, true, form);
                    case.whole_weights = whole;
                    case.seed = 7000 + index as u64;
                    cases.push(case);
                }
            }
        }
    }
    checked(subject, cases)
}

/// The same bits in memory apart, in place and allocated.
pub(in super::super) fn in_place_equals_apart(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for operation in operations(subject) {
        for dtype in FLOATS {
            for columns in [96, 1003] {
                for residual in [false, true] {
                    let mut case = Case::new(operation, 6, columns, dtype);
                    if operation == Operation::HeadNorm {
                        case.heads = 2;
                        case.rotary = Some(Rotary::new(Pairing::HalfSplit, 32));
                    }
                    case.norm = Some(NormOptions::new(NormKind::ALL[index / 2 % 2]));
                    (case.residual, case.beta) = (residual, true);
                    case.seed = 7500 + index as u64;
                    let device = subject.device(index).map_err(|error| error.to_string())?;
                    let mut outcomes = Vec::new();
                    for form in Form::ALL {
                        case.form = form;
                        outcomes.push(computed(&mut held, device, &case.problem())?);
                    }
                    for name in ["y", "stream", "rstd", "mean", "dx", "dz", "dgamma", "dbeta"] {
                        let want = bits(&outcomes[0], name);
                        for (outcome, form) in outcomes.iter().zip(Form::ALL) {
                            let what = format!("the same {name} in form {form:?}");
                            expect(&what, bits(outcome, name) == want, &case.problem())?;
                        }
                    }
                    index += 1;
                }
            }
        }
    }
    tried(held)
}

fn bits(outcome: &Outcome, name: &str) -> Vec<u64> {
    outcome.values(name).iter().map(|x| x.to_bits()).collect()
}

/// No tokens: statistics and rows have no elements, gradients of weights become 0 or stay.
pub(in super::super) fn no_rows(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut cases = Vec::new();
    for operation in OPERATIONS {
        for form in Form::ALL {
            for accumulate in [false, true] {
                let mut case = Case::new(operation, 0, 19, DType::Bf16);
                case.heads = 2;
                (case.form, case.accumulate, case.beta) = (form, accumulate, true);
                case.residual = accumulate;
                if operation == Operation::HeadNorm {
                    case.rotary = Some(Rotary::new(Pairing::Interleaved, 18));
                }
                cases.push(case);
            }
        }
    }
    checked(subject, cases)
}
