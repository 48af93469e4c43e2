//! The table of errors of the loss: every criterion and every option, on every type.

use evenkeel::DType;
use evenkeel::loss::{KernelPath, Objective, Reduction};

use super::{progress, shown};
use crate::compare::{Checked, Verdict};
use crate::loss::cases::{LOGITS, VARIANTS, criteria};
use crate::loss::{Case, Mode};
use crate::subject::Subject;

/// One line: what is computed, and on which type of logits.
struct Line {
    label: String,
    dtype: DType,
    cases: Vec<Case>,
}

/// Rows of 515 classes at every alignment: several vectors a thread of the smallest group, and ragged
/// ends. Each on both kernels and in every mode.
fn base(dtype: DType, index: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, mode) in Mode::ALL.into_iter().enumerate() {
        for path in [KernelPath::Cluster, KernelPath::Block] {
            let mut case = Case::new(4, 515, dtype);
            case.mode = mode;
            case.path = Some(path);
            case.layout.gap = 1;
            case.ignored = 0.15;
            case.upstream = true;
            case.seed = (10_000 + 100 * index + number) as u64;
            cases.push(case);
        }
    }
    cases
}

fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for criterion in criteria() {
        for dtype in LOGITS {
            let mut cases = base(dtype, lines.len());
            cases
                .iter_mut()
                .for_each(|case| case.options.criterion = criterion);
            let label = match criterion.threshold {
                None => criterion.to_string(),
                // The threshold is put between the batch's probabilities.
                Some(_) => criterion.to_string().replace(":0.1:", ":tau:"),
            };
            lines.push(Line {
                label,
                dtype,
                cases,
            });
        }
    }
    for variant in &VARIANTS[1..] {
        for dtype in LOGITS {
            let mut cases = base(dtype, lines.len());
            for case in &mut cases {
                case.options.criterion = Objective::Power(0.5).into();
                (variant.set)(&mut case.options);
                case.class_mask = variant.class_mask;
                case.token_weights = variant.token_weights;
            }
            lines.push(Line {
                label: format!("+ {}", variant.name),
                dtype,
                cases,
            });
        }
    }
    for reduction in Reduction::ALL {
        let mut cases = base(DType::Bf16, lines.len());
        cases
            .iter_mut()
            .for_each(|case| case.options.reduction = reduction);
        lines.push(Line {
            label: format!("reduction {reduction}"),
            dtype: DType::Bf16,
            cases,
        });
    }
    lines
}

/// Prints the table; true when every line is right.
pub(super) fn run(subject: &Subject) -> bool {
    println!(
        "\n  Errors in units of the last place of each result's type, where they come nearest to their bound.\n\
         \n  {:<34} {:<5} {:>20} {:>20} {:>20} {:>20}",
        "loss", "type", "gradient", "reduced loss", "lp", "entropy"
    );
    let lines = lines();
    let bar = progress(lines.len() as u64);
    let mut right = true;
    for (index, line) in lines.iter().enumerate() {
        bar.set_message(line.label.clone());
        let mut total = Verdict::default();
        let mut errors = Vec::new();
        for (number, case) in line.cases.iter().enumerate() {
            let problem = case.problem();
            let verdict = subject
                .device(index + number)
                .and_then(|device| problem.check(device));
            match verdict {
                Ok(verdict) => total.merge(verdict),
                Err(error) => errors.push(error.to_string()),
            }
        }
        let columns =
            ["gradient", "reduced loss", "lp", "entropy"].map(|name| shown(total.worst.get(name)));
        bar.suspend(|| {
            println!(
                "  {:<34} {:<5} {:>20} {:>20} {:>20} {:>20}",
                line.label, line.dtype, columns[0], columns[1], columns[2], columns[3]
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
