//! The tables of the low-bit formats: each with each of its options, on every type; and of what is
//! quantised as it is computed.

mod fused;

use evenkeel::quant::{Estimator, Format, QuantizeOptions, Rounding, ScaleRounding, Scaling};

use super::{errors, progress};
use crate::compare::{Checked, Verdict};
use crate::norm::rows::cases::FLOATS;
use crate::quant::cases::scalings;
use crate::quant::{Case, ValuesCase, delayed, gauss, straight_through};
use crate::subject::Subject;

/// One line: what is computed, of which type of input, and how often.
pub(super) struct Line {
    /// What, in words.
    pub label: String,
    /// The input's type.
    pub dtype: &'static str,
    /// What is computed.
    pub problems: Vec<Box<dyn Checked>>,
}

/// The lines of each operation.
const LINES: &[fn() -> Vec<Line>] = &[
    quantize,
    dequantize,
    fused::quantised_activations,
    fused::quantised_norms,
    elementwise,
];

/// What has no format: noisy weights, straight-through gradients, and the scales of many tensors.
fn elementwise() -> Vec<Line> {
    let estimators = [
        ("saturation mask", Estimator::Saturation { largest: 448.0 }),
        ("ReSTE (beyond its tolerance)", Estimator::reste(3.0)),
    ];
    let mut lines = Vec::new();
    for dtype in FLOATS {
        let shapes = [(37, 61), (128, 256)];
        let noisy = shapes.map(|(rows, columns)| -> Box<dyn Checked> {
            Box::new(gauss::Case::new(rows, columns, dtype).problem())
        });
        lines.push(Line {
            label: "GaussWS, forward and backward".to_owned(),
            dtype: dtype.name(),
            problems: noisy.into(),
        });
        for (label, estimator) in estimators {
            let problems = shapes.map(|(rows, columns)| -> Box<dyn Checked> {
                let mut case = straight_through::Case::new(rows, columns, dtype, estimator);
                let masks = matches!(estimator, Estimator::Saturation { .. });
                case.scale = masks.then_some(0.003);
                Box::new(case.problem())
            });
            lines.push(Line {
                label: format!("straight-through: {label}"),
                dtype: dtype.name(),
                problems: problems.into(),
            });
        }
    }
    lines.push(Line {
        label: "delayed scaling".to_owned(),
        dtype: "f32",
        problems: vec![Box::new(delayed::Problem::new(100, 70, 5, 3))],
    });
    lines
}

/// Each format by each way to make its scales and each rounding, in both directions, at any alignment.
fn quantize() -> Vec<Line> {
    let mut lines = Vec::new();
    for format in Format::ALL {
        for options in scalings(format) {
            for rounding in [Rounding::Nearest, Rounding::Stochastic { seed: 1 }] {
                for dtype in FLOATS {
                    let mut problems: Vec<Box<dyn Checked>> = Vec::new();
                    for (rows, columns) in [(37, 61), (128, 256)] {
                        let mut case = Case::new(rows, columns, dtype, format);
                        case.options = options.rounding(rounding);
                        case.layout.gap = 1;
                        case.seed = (700_000 + 10 * lines.len() + problems.len()) as u64;
                        problems.push(Box::new(case.problem()));
                    }
                    lines.push(Line {
                        label: label(&options.rounding(rounding)),
                        dtype: dtype.name(),
                        problems,
                    });
                }
            }
        }
    }
    lines
}

/// The options in words, without those that are usual.
fn label(options: &QuantizeOptions) -> String {
    let mut label = options.format.to_string();
    if options.scaling == Scaling::Given {
        label.push_str(", given");
    }
    if options.power_of_two {
        label.push_str(", powers of two");
    }
    if options.scale_rounding == ScaleRounding::Ceil {
        label.push_str(", scales up");
    }
    if options.rounding != Rounding::Nearest {
        label.push_str(", stochastic");
    }
    label
}

/// The values of each format, of all codes and any scales.
fn dequantize() -> Vec<Line> {
    let mut lines = Vec::new();
    for format in Format::ALL {
        for dtype in FLOATS {
            let problems = (0..2).map(|repeat| -> Box<dyn Checked> {
                let mut case = ValuesCase::new(37, 160, dtype, format);
                case.any_scale = repeat == 1;
                case.seed = (710_000 + lines.len()) as u64;
                Box::new(case.problem())
            });
            lines.push(Line {
                label: format!("values of {format}"),
                dtype: dtype.name(),
                problems: problems.collect(),
            });
        }
    }
    lines
}

/// Prints the table; true when every line is right.
pub(super) fn run(subject: &Subject) -> bool {
    let activations = errors::print(subject, &fused::activations());
    bits(subject) && activations
}

/// The lines of what has no tolerance.
fn bits(subject: &Subject) -> bool {
    let lines: Vec<Line> = LINES.iter().flat_map(|of| of()).collect();
    println!(
        "\n  Bits that differ from the reference's: elements, scales and counts of each output.\n"
    );
    println!(
        "  {:<52} {:<5} {:>12} {:>12}",
        "operation", "input", "compared", "differ"
    );
    let bar = progress(lines.len() as u64);
    let mut right = true;
    for (index, line) in lines.iter().enumerate() {
        bar.set_message(line.label.clone());
        let mut total = Verdict::default();
        let mut errors = Vec::new();
        for (number, problem) in line.problems.iter().enumerate() {
            let verdict = subject
                .device(index + number)
                .and_then(|device| problem.check(device));
            match verdict {
                Ok(verdict) => total.merge(verdict),
                Err(error) => errors.push(error.to_string()),
            }
        }
        let compared: u64 = total.worst.values().map(|worst| worst.compared).sum();
        bar.suspend(|| {
            println!(
                "  {:<52} {:<5} {compared:>12} {:>12}",
                line.label, line.dtype, total.wrong
            );
            for wrong in total.mismatches.iter().chain(&errors) {
                println!("    WRONG: {wrong}");
            }
        });
        right &= total.is_right() && errors.is_empty();
        bar.inc(1);
    }
    bar.finish_and_clear();
    right
}
