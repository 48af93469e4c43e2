//! Grids of problems against the reference.
//!
//! The grids are products where the product is small and samples where it is not; `random` fills
//! what lies between. Sizes are chosen for the emulator, which computes a few million elements a second.

use evenkeel::DType;
use evenkeel::norm::{NormKind, NormOptions, Pairing, Rotary};

use super::{Effort, Held, OPERATIONS, checked};
use crate::memory::Layout;
use crate::norm::Operation;
use crate::norm::rows::cases::{FLOATS, HEAD_WIDTHS, LONG_WIDTHS, WIDTHS};
use crate::norm::rows::{Case, Form, Types, Values};
use crate::subject::Subject;

/// gamma, beta, zero-centred.
const WEIGHTS: [(bool, bool, bool); 5] = [
    (false, false, false),
    (true, false, false),
    (true, true, false),
    (true, true, true),
    (false, true, false),
];

/// A small case of an operation: rows of 100 elements, a few vectors and a ragged end; 5 of them, or 5
/// tokens of 3 heads.
fn small(operation: Operation, dtype: DType) -> Case {
    let mut case = Case::new(operation, 5, 100, dtype);
    if operation == Operation::HeadNorm {
        case.heads = 3;
    }
    case
}

/// Each operation with each kind, form, type and set of weights, the stream's tensors and the
/// statistics in turn.
pub(in super::super) fn every_norm_in_every_form(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut cases = Vec::new();
    for operation in OPERATIONS {
        for kind in NormKind::ALL {
            for (gamma, beta, zero_centred) in WEIGHTS {
                for form in Form::ALL {
                    for dtype in FLOATS {
                        for residual in [false, true] {
                            let index = cases.len();
                            let mut case = small(operation, dtype);
                            let mut norm = NormOptions::new(kind);
                            norm.zero_centred = zero_centred;
                            case.norm = Some(norm);
                            (case.gamma, case.beta, case.form) = (gamma, beta, form);
                            case.residual = residual;
                            case.stream_gradients = index % 3 != 0;
                            case.whole_weights = index % 2 == 0;
                            case.packed = index % 4 < 2;
                            case.statistics = index % 5 != 0;
                            case.weight_gradients = index % 7 != 0;
                            if index % 3 != 0 {
                                case.rotary = Some(Rotary::new(Pairing::ALL[index % 2], 100));
                            }
                            case.seed = 100 + index as u64;
                            cases.push(case);
                        }
                    }
                }
            }
        }
    }
    checked(subject, cases)
}

/// The types of all tensors, drawn independently.
pub(in super::super) fn every_type(subject: &Subject, effort: Effort) -> Result<Held, String> {
    let rounds = if effort == Effort::Full { 60 } else { 15 };
    let cases = (0..rounds).flat_map(|round| {
        OPERATIONS.map(|operation| {
            // 3^13 combinations: an odd stride through them.
            let digits = (round * 98_765 + 4321) % 1_594_323;
            let mut case = small(operation, DType::F32).typed(digits);
            case.norm = Some(NormOptions::new(NormKind::ALL[round as usize % 2]));
            (case.beta, case.residual, case.stream_gradients) = (true, true, true);
            case.rotary = Some(Rotary::new(Pairing::HalfSplit, 40));
            case.positions = round % 2 == 0;
            case.seed = 1000 + round;
            case
        })
    });
    checked(subject, cases)
}

/// Each tensor at each of the places of a 16-byte vector and with each gap, the others elsewhere; rows
/// that fill vectors and rows that do not.
pub(in super::super) fn every_alignment(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut cases = Vec::new();
    for operation in OPERATIONS {
        for dtype in [DType::Bf16, DType::F32] {
            for phase in 0..9 {
                for columns in [5, 64, 67] {
                    let index = cases.len();
                    let mut case = Case::new(operation, 3, columns, dtype);
                    let place = |phase: usize, gap: usize| Layout {
                        phase,
                        padding: gap % 3,
                        gap,
                    };
                    (case.layout, case.out_layout, case.side_layout) = match index % 4 {
                        0 => (place(phase, 0), place(0, 0), place(0, 0)),
                        1 => (place(0, 0), place(phase, 8), place(8, 0)),
                        2 => (place(8, 0), place(0, 8), place(phase, 1)),
                        _ => (
                            place(phase, 1 + index % 5),
                            place(3 * phase % 8, index % 2),
                            place(5 * phase % 8, 7),
                        ),
                    };
                    if operation == Operation::HeadNorm {
                        case.heads = 2;
                        case.packed = index % 2 == 0;
                    }
                    case.form = [Form::Apart, Form::InPlace][index / 4 % 2];
                    case.norm = Some(NormOptions::new(NormKind::ALL[index / 8 % 2]));
                    case.beta = index % 3 == 0;
                    case.residual = index % 2 == 0;
                    case.stream_gradients = index % 5 < 3;
                    case.seed = 2000 + index as u64;
                    cases.push(case);
                }
            }
        }
    }
    checked(subject, cases)
}

/// Every width: the small ones in each type, the long ones in one row or two.
pub(in super::super) fn widths(subject: &Subject, effort: Effort) -> Result<Held, String> {
    let mut cases = Vec::new();
    for operation in OPERATIONS {
        let all: &[usize] = match operation {
            Operation::HeadNorm => &HEAD_WIDTHS,
            _ => &WIDTHS,
        };
        for &columns in all {
            for dtype in FLOATS {
                let index = cases.len();
                let rows = 1 + (20_000 / columns).min(3);
                let mut case = Case::new(operation, rows, columns, dtype);
                if operation == Operation::HeadNorm {
                    case.heads = 2 + index % 4;
                    case.whole_weights = index % 2 == 0;
                    let pairing = Pairing::ALL[index % 2];
                    case.rotary = Some(Rotary::new(
                        pairing,
                        columns / 4 * 2 + 2 * (columns % 4 / 2),
                    ))
                    .filter(|rotary| rotary.width >= 2);
                }
                case.norm = Some(NormOptions::new(NormKind::ALL[index / 3 % 2]));
                case.beta = true;
                case.residual = index % 2 == 0;
                case.stream_gradients = index % 2 == 0;
                case.seed = 3000 + index as u64;
                cases.push(case);
            }
        }
    }
    let long = if effort == Effort::Full {
        &LONG_WIDTHS[..]
    } else {
        &LONG_WIDTHS[..2]
    };
    for &columns in long {
        for (operation, kind, dtype) in [
            (Operation::Norm, NormKind::Rms, DType::Bf16),
            (Operation::Norm, NormKind::Layer, DType::F32),
            (Operation::GatedNorm, NormKind::Rms, DType::F16),
            (Operation::Sdd, NormKind::Rms, DType::Bf16),
        ] {
            let rows = 1 + 20_000 / columns;
            let mut case = Case::new(operation, rows, columns, dtype);
            case.norm = Some(NormOptions::new(kind));
            case.form = [Form::Apart, Form::InPlace][columns % 2];
            case.residual = columns % 2 == 0;
            case.seed = 3500 + cases.len() as u64;
            cases.push(case);
        }
    }
    checked(subject, cases)
}

/// Each way to draw rows, where digits are lost by formulas less careful than these.
pub(in super::super) fn extremes(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut cases = Vec::new();
    for values in Values::ALL {
        for operation in OPERATIONS {
            for kind in NormKind::ALL {
                for dtype in FLOATS {
                    // 131 elements are few vectors; 1100 are several to a thread.
                    for columns in [131, 1100] {
                        let index = cases.len();
                        let mut case = Case::new(operation, 3, columns, dtype);
                        if operation == Operation::HeadNorm {
                            case.heads = 2;
                        }
                        case.values = values;
                        case.norm = Some(NormOptions::new(kind));
                        case.beta = index % 2 == 0;
                        case.types = Types {
                            y: DType::F32,
                            ..case.types
                        };
                        case.residual = index % 3 == 0 && values != Values::Constant;
                        case.stream_gradients = index % 6 == 0;
                        case.seed = 4000 + index as u64;
                        cases.push(case);
                    }
                }
            }
        }
    }
    checked(subject, cases)
}

/// `LayerNorm` of bf16 rows of 1e4 and a spread of a few units of the last place, 64: E[x^2] - E[x]^2 in
/// fp32 has no digits of such a variance, and y is of f32, which shows it.
pub(in super::super) fn an_offset_costs_no_digits(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let cases = [64, 100, 768, 1000, 4096, 5003]
        .into_iter()
        .flat_map(|columns| {
            OPERATIONS
                .into_iter()
                .enumerate()
                .map(move |(index, operation)| {
                    let mut case = Case::new(operation, 4, columns, DType::Bf16);
                    case.norm = Some(NormOptions::layer());
                    case.values = Values::Offset;
                    (case.types.y, case.types.dx) = (DType::F32, DType::F32);
                    case.beta = true;
                    case.seed = 5000 + (columns + index) as u64;
                    case
                })
        });
    checked(subject, cases)
}
