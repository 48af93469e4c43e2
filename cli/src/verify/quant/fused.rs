//! The lines of what is quantised as it is computed, and of the activations before that.

use evenkeel::DType;
use evenkeel::norm::{NormOptions, Pairing, Rotary};
use evenkeel::quant::{Format, OutputOptions, Quantize, Smoothing};

use super::super::errors;
use super::Line;
use crate::compare::Checked;
use crate::memory::Layout;
use crate::norm::rows::cases::FLOATS;
use crate::norm::{Operation, dyt, quantized, rows};
use crate::quant::activation::problem::FUNCTIONS;
use crate::quant::activation::{Case, Fused, Values};

/// Rows at every alignment.
const APART: Layout = Layout {
    phase: 0,
    padding: 0,
    gap: 1,
};

/// Each function with each smoothing, near zero and far from it, where exponentials are flushed: errors
/// of y and of the gradients.
pub(super) fn activations() -> Vec<errors::Line> {
    let (near, far): (Vec<_>, Vec<_>) = Values::ALL
        .into_iter()
        .partition(|values| matches!(values, Values::Normal | Values::Small));
    let smoothings = [None, Some(Smoothing::Channel), Some(Smoothing::Token)];
    let mut lines = Vec::new();
    for function in FUNCTIONS {
        for smoothing in smoothings {
            if smoothing.is_some() && function != FUNCTIONS[0] {
                continue;
            }
            let with = smoothing.map_or(String::new(), |by| format!(", smooth by {by}"));
            for (label, drawn) in [("", &near[..]), (", tails", &far[..])] {
                for dtype in FLOATS {
                    let mut problems: Vec<Box<dyn Checked>> = Vec::new();
                    for (index, &values) in drawn.iter().enumerate() {
                        for columns in [515, 1024] {
                            let mut case = Case::new(function, 16, columns, dtype);
                            (case.smoothing, case.values) = (smoothing, values);
                            case.layouts = [APART; 4];
                            case.packed = columns == 515;
                            case.seed = (720_000 + 10 * lines.len() + index) as u64;
                            problems.push(Box::new(case.problem()));
                        }
                    }
                    lines.push(errors::Line {
                        label: format!("{function:?}{with}{label}"),
                        dtype,
                        problems,
                        columns: ["y", "dgate", "dup", "scale"],
                    });
                }
            }
        }
    }
    lines
}

/// Each function in each format, both ways, forward and backward: bits beside those of the f32 results,
/// quantised.
pub(super) fn quantised_activations() -> Vec<Line> {
    let plain = OutputOptions::new();
    let mut lines = Vec::new();
    for function in FUNCTIONS {
        for format in Format::ALL {
            let quantize = Quantize::new(format).rowwise(plain).transposed(plain);
            let dtype = FLOATS[lines.len() % 3];
            let problems = [false, true].map(|backward| -> Box<dyn Checked> {
                let mut case = Case::new(function, 37, 136, dtype);
                case.seed = (730_000 + lines.len()) as u64;
                Box::new(Fused::new(&case, quantize, backward))
            });
            lines.push(Line {
                label: format!("{function:?} in {format}, and its gradient"),
                dtype: dtype.name(),
                problems: problems.into(),
            });
        }
    }
    lines
}

/// Each normalization in each format of rows: bits beside those of its f32 results, quantised.
pub(super) fn quantised_norms() -> Vec<Line> {
    let mut lines = Vec::new();
    for (label, operation) in [
        ("rms + residual", Operation::Norm),
        ("layer", Operation::Norm),
        ("heads rms + rotary", Operation::HeadNorm),
        ("gated rms", Operation::GatedNorm),
        ("sdd", Operation::Sdd),
    ] {
        for format in Format::ALL
            .into_iter()
            .filter(|f| quantized::is_of_rows(*f))
        {
            let heads = operation == Operation::HeadNorm;
            // A row of all heads has no scale.
            if heads && matches!(format, Format::Fp8Row(_)) {
                continue;
            }
            let dtype = FLOATS[lines.len() % 3];
            let widths = if heads { [128, 256] } else { [515, 1024] };
            let problems = widths.map(|columns| -> Box<dyn Checked> {
                let mut case = rows::Case::new(operation, 5, columns, dtype);
                if heads {
                    case.heads = 4;
                    case.rotary = Some(Rotary::new(Pairing::HalfSplit, 64));
                }
                if label == "layer" {
                    (case.norm, case.beta) = (Some(NormOptions::layer()), true);
                }
                case.residual = label == "rms + residual";
                case.seed = (740_000 + lines.len()) as u64;
                Box::new(quantized::Case::new(case, format).problem())
            });
            lines.push(line(format!("{label} in {format}"), dtype, problems));
        }
    }
    for format in Format::ALL
        .into_iter()
        .filter(|f| quantized::is_of_rows(*f))
    {
        let dtype = FLOATS[lines.len() % 3];
        let problems = [515, 1024].map(|columns| -> Box<dyn Checked> {
            let case = dyt::Case::new(5, columns, dtype);
            Box::new(quantized::dyt::Case::new(case, format).problem())
        });
        lines.push(line(format!("dynamic tanh in {format}"), dtype, problems));
    }
    lines
}

fn line(label: String, dtype: DType, problems: [Box<dyn Checked>; 2]) -> Line {
    Line {
        label,
        dtype: dtype.name(),
        problems: problems.into(),
    }
}
