//! The table of errors of the row operations: each with each of its options, on every type.

mod neighbours;

use evenkeel::norm::{NormOptions, Pairing, Rotary};

use super::errors::{self, Line};
use crate::compare::Checked;
use crate::norm::Operation;
use crate::norm::rows::cases::FLOATS;
use crate::norm::rows::{Case, Form, Values};
use crate::subject::Subject;

/// Something that a case has.
type Set = fn(&mut Case);

/// A normalization, and what it is called.
type Variant = (&'static str, Operation, Set);

const VARIANTS: [Variant; 17] = [
    ("rms", Operation::Norm, |_| {}),
    ("rms, no weights", Operation::Norm, |case| {
        case.gamma = false
    }),
    ("rms, zero-centred", Operation::Norm, |case| {
        case.norm = Some(NormOptions::rms().zero_centred());
    }),
    ("rms + residual", Operation::Norm, residual),
    ("rms, huge rows", Operation::Norm, |case| {
        case.values = Values::Huge;
    }),
    ("rms, tiny rows", Operation::Norm, |case| {
        case.values = Values::Tiny;
    }),
    ("layer", Operation::Norm, layer),
    ("layer, no weights", Operation::Norm, |case| {
        layer(case);
        (case.gamma, case.beta) = (false, false);
    }),
    ("layer + residual", Operation::Norm, |case| {
        layer(case);
        residual(case);
    }),
    ("layer, offset 1e4", Operation::Norm, |case| {
        layer(case);
        case.values = Values::Offset;
    }),
    ("heads rms", Operation::HeadNorm, |_| {}),
    ("heads rms + rotary", Operation::HeadNorm, rotary),
    ("heads layer + rotary", Operation::HeadNorm, |case| {
        layer(case);
        rotary(case);
    }),
    ("rotary alone", Operation::HeadNorm, |case| {
        rotary(case);
        case.norm = None;
    }),
    ("gated rms", Operation::GatedNorm, |_| {}),
    ("sdd", Operation::Sdd, |_| {}),
    ("sdd, one alpha", Operation::Sdd, |case| {
        case.whole_weights = false;
    }),
];

fn layer(case: &mut Case) {
    (case.norm, case.beta) = (Some(NormOptions::layer()), true);
}

fn residual(case: &mut Case) {
    (case.residual, case.stream_gradients) = (true, true);
}

fn rotary(case: &mut Case) {
    case.rotary = Some(Rotary::new(Pairing::ALL[case.seed as usize % 2], 48));
    case.positions = true;
}

/// Rows of 515 elements at every alignment, and of 4096, in every form; heads of 64 and 128.
fn lines(subject: &Subject) -> Vec<Line> {
    let mut lines = Vec::new();
    for (label, operation, set) in VARIANTS {
        for dtype in FLOATS {
            let mut problems: Vec<Box<dyn Checked>> = Vec::new();
            for columns in if operation == Operation::HeadNorm {
                [64, 128]
            } else {
                [515, 4096]
            } {
                for form in Form::ALL {
                    let mut case = Case::new(operation, 4, columns, dtype);
                    if operation == Operation::HeadNorm {
                        case.heads = 4;
                    }
                    case.form = form;
                    case.layout.gap = 1;
                    case.seed = (20_000 + 100 * lines.len() + problems.len()) as u64;
                    set(&mut case);
                    problems.push(Box::new(case.problem()));
                }
            }
            if operation.is_on(subject.kind()) {
                lines.push(Line {
                    label: label.into(),
                    dtype,
                    problems,
                    columns: ["y", "rstd", "dx", "dgamma"],
                });
            }
        }
    }
    lines
}

/// Prints the table; true when every line is right.
pub(super) fn run(subject: &Subject) -> bool {
    let mut lines = lines(subject);
    lines.extend(neighbours::lines(subject));
    if lines.is_empty() {
        println!("\n  norm: the kernels are to come");
        return true;
    }
    errors::print(subject, &lines)
}
