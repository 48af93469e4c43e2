//! The table of the low-bit formats: each with each of its options, on every type.

use super::progress;
use crate::compare::{Checked, Verdict};
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
const LINES: &[fn(&Subject) -> Vec<Line>] = &[];

/// Prints the table; true when every line is right.
pub(super) fn run(subject: &Subject) -> bool {
    let lines: Vec<Line> = LINES.iter().flat_map(|of| of(subject)).collect();
    if lines.is_empty() {
        println!("\n  quant: the kernels are to come");
        return true;
    }
    println!(
        "\n  Bits that differ from the reference's: elements, scales and counts of each output.\n"
    );
    println!(
        "  {:<50} {:<5} {:>12} {:>12}",
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
                "  {:<50} {:<5} {compared:>12} {:>12}",
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
