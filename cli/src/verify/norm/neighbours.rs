//! The lines of softmax, dynamic tanh, spectral norm and the variability of tables.

use evenkeel::norm::{Causal, SoftmaxKind};

use super::super::errors::Line;
use crate::compare::Checked;
use crate::memory::Layout;
use crate::norm::pass::Pass;
use crate::norm::rows::cases::FLOATS;
use crate::norm::{Operation, dyt, softmax, spectral, tev};
use crate::subject::Subject;

/// Rows at every alignment.
const APART: Layout = Layout {
    phase: 0,
    padding: 0,
    gap: 1,
};

pub(super) fn lines(subject: &Subject) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |operation: Operation, more: fn(&mut Vec<Line>)| {
        if operation.is_on(subject.kind()) {
            more(&mut lines);
        }
    };
    add(Operation::Softmax, softmaxes);
    add(Operation::Dyt, dyts);
    add(Operation::SpectralNorm, spectral_norms);
    add(Operation::Tev, tables);
    lines
}

/// Something that a softmax has, and what it is called.
type Variant = (&'static str, fn(&mut softmax::Case));

/// Each kind plain, masked, peaked and spread wide, in every pass.
fn softmaxes(lines: &mut Vec<Line>) {
    use softmax::{Case, Values};
    let variants: [Variant; 4] = [
        ("", |_| {}),
        (", masked and scaled", |case| {
            case.options.causal = Some(Causal::End);
            case.options.scale = 0.35;
            case.batches = Some(2);
        }),
        (", peaked", |case| case.values = Values::Peaked),
        (", wide", |case| case.values = Values::Wide),
    ];
    for kind in SoftmaxKind::ALL {
        for (label, set) in variants {
            for dtype in FLOATS {
                let mut problems: Vec<Box<dyn Checked>> = Vec::new();
                for keys in [515, 4096] {
                    for pass in Pass::ALL {
                        let mut case = Case::new(kind, 4, keys, dtype);
                        case.layouts = [APART; 4];
                        case.pass = pass;
                        case.seed = (30_000 + 100 * lines.len() + problems.len()) as u64;
                        set(&mut case);
                        problems.push(Box::new(case.problem()));
                    }
                }
                lines.push(Line {
                    label: format!("{kind}{label}"),
                    dtype,
                    problems,
                    columns: ["y", "entropy", "normalizer", "dx"],
                });
            }
        }
    }
}

fn dyts(lines: &mut Vec<Line>) {
    use dyt::{Case, Values};
    for (label, values) in [
        ("dynamic tanh", Values::Normal),
        ("dynamic tanh, saturated", Values::Saturated),
    ] {
        for dtype in FLOATS {
            let mut problems: Vec<Box<dyn Checked>> = Vec::new();
            for columns in [515, 4096] {
                for pass in Pass::ALL {
                    let mut case = Case::new(4, columns, dtype);
                    case.layouts = [APART; 4];
                    (case.pass, case.values) = (pass, values);
                    case.seed = (31_000 + 100 * lines.len() + problems.len()) as u64;
                    problems.push(Box::new(case.problem()));
                }
            }
            lines.push(Line {
                label: label.into(),
                dtype,
                problems,
                columns: ["y", "dx", "dalpha", "dgamma"],
            });
        }
    }
}

fn spectral_norms(lines: &mut Vec<Line>) {
    use spectral::Case;
    for steps in [0, 1, 3] {
        for dtype in FLOATS {
            let mut problems: Vec<Box<dyn Checked>> = Vec::new();
            for [m, n] in [[96, 160], [131, 67]] {
                let mut case = Case::new(2, m, n, dtype);
                case.layouts = [APART; 4];
                case.steps = steps;
                case.seed = (32_000 + 100 * lines.len() + problems.len()) as u64;
                problems.push(Box::new(case.problem()));
            }
            lines.push(Line {
                label: format!("spectral norm, steps {steps}"),
                dtype,
                problems,
                columns: ["u", "sigma", "scaled weight", "dw"],
            });
        }
    }
}

fn tables(lines: &mut Vec<Line>) {
    use tev::Case;
    for (label, offset) in [("TEV", 0.0), ("TEV, offset 1e4", 1e4)] {
        for dtype in FLOATS {
            let mut problems: Vec<Box<dyn Checked>> = Vec::new();
            for columns in [515, 4096] {
                let mut case = Case::new(4, columns, dtype);
                (case.layout, case.offset) = (APART, offset);
                case.spread = if offset == 0.0 { 0.02 } else { 100.0 };
                case.seed = (33_000 + 100 * lines.len() + problems.len()) as u64;
                problems.push(Box::new(case.problem()));
            }
            lines.push(Line {
                label: label.into(),
                dtype,
                problems,
                columns: ["deviation", "TEV", "", ""],
            });
        }
    }
}
