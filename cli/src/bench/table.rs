//! A run as a table, closed by geometric means.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::record::{Row, Run};

/// Three digits, or all of the whole part.
fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        x if x >= 100.0 => 0,
        x if x >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// A share; with a decimal where it is small.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 10.0 {
        format!("{percent:.1}%")
    } else {
        format!("{percent:.0}%")
    }
}

/// The table.
#[must_use]
pub fn text(run: &Run) -> String {
    let mut out = String::new();
    let device = &run.device;
    let arch = if device.name.contains(&device.arch) {
        ""
    } else {
        &device.arch
    };
    let _ = writeln!(out, "{} {arch}  {}", device.name, run.date);
    for conditions in &device.conditions {
        let of = |value: Option<f64>, unit: &str| {
            value.map_or("?".into(), |value| format!("{value:.0} {unit}"))
        };
        let _ = writeln!(
            out,
            "at {}: {} of {}, SM {}, memory {}, {}",
            conditions.at,
            of(conditions.power_w, "W"),
            of(conditions.power_limit_w, "W"),
            of(conditions.sm_mhz, "MHz"),
            of(conditions.memory_mhz, "MHz"),
            of(conditions.celsius, "C"),
        );
    }
    if let (Some(copy), Some(read)) = (run.ceilings.copy_gbs, run.ceilings.read_gbs) {
        let _ = writeln!(
            out,
            "ceilings of the largest shape: copy {} GB/s, read {} GB/s",
            digits(copy),
            digits(read)
        );
    }
    for note in &run.notes {
        let _ = writeln!(out, "note: {note}");
    }
    let mut families: Vec<&str> = Vec::new();
    for row in &run.rows {
        if !families.contains(&row.op.as_str()) {
            families.push(&row.op);
        }
    }
    for family in families {
        let rows: Vec<&Row> = run.rows.iter().filter(|row| row.op == family).collect();
        if rows.iter().any(|row| row.us.is_some()) {
            timed(&mut out, family, &rows);
        }
        if rows.iter().any(|row| row.predicted_us.is_some()) {
            predicted(&mut out, family, &rows);
        }
    }
    out
}

fn label(row: &Row) -> String {
    format!("  {:<40} {:<14} {:<5}", row.variant, row.shape, row.dtype)
}

fn timed(out: &mut String, family: &str, rows: &[&Row]) {
    let products = rows.iter().any(|row| row.tflops.is_some());
    let rate = if products { "TFLOP/s" } else { "GB/s" };
    let _ = writeln!(
        out,
        "\n  {:<40} {:<14} {:<5} {:>10} {:>19} {:>8} {:>8}  peers: us, and how many times ours",
        family, "shape", "type", "us", "p10 - p90", rate, "ceiling"
    );
    for row in rows {
        let Some(us) = row.us else { continue };
        let spread = format!("{} - {}", digits(us.p10), digits(us.p90));
        let _ = write!(
            out,
            "{} {:>10} {spread:>19} {:>8} {:>8} ",
            label(row),
            digits(us.median),
            row.tflops.or(row.gbs).map_or(String::new(), digits),
            row.of_ceiling.map_or(String::new(), percent),
        );
        for peer in &row.peers {
            let _ = write!(
                out,
                " {} {} ({:.2}x)",
                peer.name,
                digits(peer.us.median),
                peer.us.median / us.median
            );
        }
        out.push('\n');
    }
    let _ = writeln!(out, "\n  geometric means{}", means(rows));
}

/// Of the share of the ceiling, and of each peer's time over ours.
fn means(rows: &[&Row]) -> String {
    let mut logs: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in rows {
        if let Some(share) = row.of_ceiling {
            logs.entry(String::new()).or_default().push(share.ln());
        }
        for (peer, us) in row.peers.iter().filter_map(|peer| Some((peer, row.us?))) {
            logs.entry(peer.name.clone())
                .or_default()
                .push((peer.us.median / us.median).ln());
        }
    }
    logs.iter().fold(String::new(), |mut text, (name, logs)| {
        let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
        let _ = match name.as_str() {
            "" => write!(text, ": {} of the ceiling", percent(mean)),
            name => write!(text, "; {name} takes {mean:.2}x as long"),
        };
        text
    })
}

fn predicted(out: &mut String, family: &str, rows: &[&Row]) {
    let _ = writeln!(
        out,
        "\n  {:<40} {:<14} {:<5} {:>14} {:>10} {:>16}",
        format!("{family} (bytes emulated, nothing timed)"),
        "shape",
        "type",
        "bytes",
        "of least",
        "PREDICTED us"
    );
    for row in rows {
        let (Some(us), Some(of_least)) = (row.predicted_us, row.bytes_of_least) else {
            continue;
        };
        let _ = writeln!(
            out,
            "{} {:>14} {of_least:>10.4} {:>16}",
            label(row),
            row.bytes,
            digits(us)
        );
    }
    let logs: Vec<f64> = rows
        .iter()
        .filter_map(|row| row.bytes_of_least)
        .map(f64::ln)
        .collect();
    let mean = (logs.iter().sum::<f64>() / logs.len().max(1) as f64).exp();
    let _ = writeln!(out, "\n  geometric mean: {mean:.4} of the least bytes");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::{Heads, Logits, Peer, Rows, ShapeOf, Times};

    fn row(op: &str, variant: &str, shape: ShapeOf) -> Row {
        let us = |median| Times {
            median,
            ..Times::default()
        };
        Row {
            op: op.into(),
            variant: variant.into(),
            shape,
            us: Some(us(10.0)),
            of_ceiling: Some(0.9),
            peers: vec![Peer {
                name: "torch eager".into(),
                us: us(25.0),
                ..Peer::default()
            }],
            ..Row::default()
        }
    }

    #[test]
    fn each_family_has_its_table_and_means() {
        let (tokens, width) = (4096, 8192);
        let head = Heads {
            tokens,
            heads: 32,
            head_dim: 128,
        };
        let run = Run {
            rows: vec![
                row("loss", "nll", ShapeOf::Logits(Logits { tokens, vocab: 7 })),
                row("norm", "rms", ShapeOf::Rows(Rows { tokens, width })),
                row("norm", "qk-norm", ShapeOf::Heads(head)),
            ],
            ..Run::default()
        };
        let table = text(&run);
        for (text, count) in [
            ("\n  loss ", 1),
            ("\n  norm ", 1),
            (" 4096x7 ", 1),
            (" 4096x8192 ", 1),
            (" 4096x32x128 ", 1),
            ("torch eager 25.0 (2.50x)", 3),
            (
                "geometric means: 90% of the ceiling; torch eager takes 2.50x as long",
                2,
            ),
        ] {
            assert_eq!(table.matches(text).count(), count, "{text} in {table}");
        }
    }

    #[test]
    fn emulated_rows_have_no_times() {
        let mut emulated = row("norm", "rms", ShapeOf::default());
        (emulated.us, emulated.peers) = (None, vec![]);
        (emulated.predicted_us, emulated.bytes_of_least) = (Some(31.0), Some(1.0));
        let run = Run {
            rows: vec![emulated],
            ..Run::default()
        };
        let table = text(&run);
        assert!(
            table.contains("norm (bytes emulated, nothing timed)"),
            "{table}"
        );
        assert!(!table.contains("geometric means"), "{table}");
    }
}
