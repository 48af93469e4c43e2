//! The table of what was measured, and what can be read off it.

use std::fmt;

use crate::train::Score;

/// Scores on clean held-out text.
pub struct Table {
    pub corrupted: f64,
    pub held_out: usize,
    /// From scratch and from the warm start, before training.
    pub before: [Score; 2],
    /// For each objective: from scratch with clean and corrupted targets, then from the warm start.
    pub rows: Vec<(String, [Score; 4])>,
}

impl Table {
    fn columns(&self) -> [String; 4] {
        let corrupted = format!("{:.0}% wrong", 100.0 * self.corrupted);
        ["clean", &corrupted, "clean", &corrupted].map(String::from)
    }

    /// The row whose score in a column is best.
    fn best(&self, column: usize, badness: impl Fn(Score) -> f64) -> Option<usize> {
        let badness = |row: usize| badness(self.rows[row].1[column]);
        (0..self.rows.len()).min_by(|&a, &b| badness(a).total_cmp(&badness(b)))
    }

    fn name(&self, row: Option<usize>) -> &str {
        row.map_or("", |row| self.rows[row].0.as_str())
    }

    /// Writes a line of the table; `row` tells a training run from other lines.
    fn write_row(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        row: Option<usize>,
        scores: [Score; 4],
    ) -> fmt::Result {
        write!(f, "{name:24}")?;
        for (column, score) in scores.into_iter().enumerate() {
            let mark = |best: Option<usize>| {
                if row.is_some() && row == best {
                    '*'
                } else {
                    ' '
                }
            };
            write!(
                f,
                "  {:5.1}%{} {:5.2}{}",
                100.0 * score.accuracy,
                mark(self.best(column, inaccuracy)),
                score.cross_entropy,
                mark(self.best(column, cross_entropy))
            )?;
        }
        writeln!(f)
    }

    /// What one column says.
    fn write_reading(&self, f: &mut fmt::Formatter<'_>, column: usize) -> fmt::Result {
        let accuracy = |row: usize| self.rows[row].1[column].accuracy;
        let most_accurate = self.best(column, inaccuracy);
        write!(f, "  most accurate {}", self.name(most_accurate))?;
        let nll = self.rows.iter().position(|(name, _)| name == "nll");
        if let (Some(best), Some(nll)) = (most_accurate, nll)
            && best != nll
        {
            let above = 100.0 * (accuracy(best) - accuracy(nll));
            write!(f, " ({above:.1} points above nll)")?;
        }
        let lowest = self.best(column, cross_entropy);
        writeln!(f, "; lowest cross entropy {}", self.name(lowest))?;

        // From scratch any training is better than none.
        if column / 2 == 0 {
            return Ok(());
        }
        let before = self.before[1].accuracy;
        let better = (0..self.rows.len()).filter(|&row| accuracy(row) > before);
        let better: Vec<&str> = better.map(|row| self.name(Some(row))).collect();
        let better = match better.len() {
            0 => "none".into(),
            all if all == self.rows.len() => "all".into(),
            _ => better.join(", "),
        };
        writeln!(f, "  more accurate than before training: {better}")
    }
}

fn inaccuracy(score: Score) -> f64 {
    -score.accuracy
}

fn cross_entropy(score: Score) -> f64 {
    score.cross_entropy
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns();
        writeln!(
            f,
            "\nAccuracy and cross entropy (nats a character) on clean held-out text; * best of its column\n"
        )?;
        writeln!(f, "{:24}  from scratch                    warm start", "")?;
        write!(f, "{:24}", "trained with")?;
        let [titles @ .., last] = &columns;
        for title in titles {
            write!(f, "  {title:14}")?;
        }
        writeln!(f, "  {last}")?;
        let [fresh, warm] = self.before;
        let before = [fresh, fresh, warm, warm];
        self.write_row(f, "(before training)", None, before)?;
        for (row, (name, scores)) in self.rows.iter().enumerate() {
            self.write_row(f, name, Some(row), *scores)?;
        }
        for (column, targets) in columns.iter().enumerate() {
            let start = ["from scratch", "warm start"][column / 2];
            writeln!(f, "\n{start}, targets {targets}:")?;
            self.write_reading(f, column)?;
        }
        // Two standard deviations of the difference of two shares near one half.
        let chance = 200.0 * (0.5 / self.held_out as f64).sqrt();
        writeln!(
            f,
            "\nWhich {} characters are held out moves a difference of accuracies by up to {chance:.1} points.",
            self.held_out
        )
    }
}
