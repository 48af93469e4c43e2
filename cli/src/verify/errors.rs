//! A table of errors against their bounds: a line each for what is computed, a column for each result.

use evenkeel::DType;

use super::{progress, shown};
use crate::compare::{Checked, Verdict};
use crate::subject::Subject;

/// One line: what is computed, of which type, and the results that the columns are of.
pub(super) struct Line {
    /// What, in words.
    pub label: String,
    /// The input's type.
    pub dtype: DType,
    /// What is computed.
    pub problems: Vec<Box<dyn Checked>>,
    /// Names of results; empty where there are fewer.
    pub columns: [&'static str; 4],
}

/// Prints the lines; true when every one is right.
pub(super) fn print(subject: &Subject, lines: &[Line]) -> bool {
    println!(
        "\n  Errors in units of the last place of each result's type, where they come nearest to their bound."
    );
    let bar = progress(lines.len() as u64);
    let (mut right, mut columns) = (true, None);
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
        let row = |cells: [String; 4], label: &str, dtype: &str| {
            println!(
                "  {label:<34} {dtype:<5} {:>20} {:>20} {:>20} {:>20}",
                cells[0], cells[1], cells[2], cells[3]
            );
        };
        bar.suspend(|| {
            if columns != Some(line.columns) {
                println!();
                row(line.columns.map(String::from), "operation", "type");
            }
            let cells = line.columns.map(|name| shown(total.worst.get(name)));
            row(cells, &line.label, line.dtype.name());
            for wrong in total.mismatches.iter().chain(&errors) {
                println!("    WRONG: {wrong}");
            }
        });
        columns = Some(line.columns);
        right &= total.is_right() && errors.is_empty();
        bar.inc(1);
    }
    bar.finish_and_clear();
    right
}
