//! `cargo xtask results`: the recorded runs in benches/results, which of their rows no longer
//! describe the code, and the README's table of them.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use crate::build::sources;
use crate::workspace::root;

const BEGIN: &str = "<!-- results:begin -->";
const END: &str = "<!-- results:end -->";
const NONE_RECORDED: &str = "No hardware run is recorded yet.";

/// Reports stale rows and writes the table into the README; with `only_check`, an outdated table is
/// an error.
pub fn run(only_check: bool) -> Result<(), String> {
    let current = sources::source_hash(&root())
        .map_err(|error| format!("cannot hash the sources: {error}"))?;
    let runs = newest_of_each_device(recorded()?);
    for run in &runs {
        let stale: Vec<&Value> = rows(run)
            .iter()
            .filter(|row| is_stale(run, row, &current))
            .collect();
        println!(
            "{}: {} rows, {} stale",
            title(run),
            rows(run).len(),
            stale.len()
        );
        for row in stale {
            println!("  stale: {}", label(row));
        }
    }
    if runs.is_empty() {
        println!("{NONE_RECORDED}");
    }

    let path = root().join("README.md");
    let readme =
        fs::read_to_string(&path).map_err(|error| format!("cannot read README.md: {error}"))?;
    let updated = replace_table(&readme, &table(&runs, &current))?;
    if updated == readme {
        println!("the README's table is current");
        Ok(())
    } else if only_check {
        Err(
            "the README's table is not what the recorded runs say: run `cargo xtask results`"
                .into(),
        )
    } else {
        fs::write(&path, updated).map_err(|error| format!("cannot write README.md: {error}"))?;
        println!("wrote the README's table");
        Ok(())
    }
}

fn recorded() -> Result<Vec<Value>, String> {
    let directory = root().join("benches/results");
    let files = sources::walk(&directory)
        .map_err(|error| format!("cannot list {}: {error}", directory.display()))?;
    let json = files
        .iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    json.map(|path| {
        let text = fs::read_to_string(path).map_err(|error| error.to_string());
        let value =
            text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
        value.map_err(|error| format!("{}: {error}", path.display()))
    })
    .collect()
}

/// The newest rows of each device and family: a run of one family leaves the others' to older runs.
fn newest_of_each_device(mut runs: Vec<Value>) -> Vec<Value> {
    // ISO dates sort as text.
    runs.sort_by(|a, b| text(b, "/date").cmp(text(a, "/date")));
    let mut newest: Vec<Value> = Vec::new();
    for mut run in runs {
        let of_device: Vec<&Value> = newest
            .iter()
            .filter(|other| text(other, "/device/name") == text(&run, "/device/name"))
            .collect();
        if !of_device.is_empty() {
            let newer = of_device.iter().flat_map(|other| rows(other));
            let kept: Vec<Value> = rows(&run)
                .iter()
                .filter(|row| {
                    newer
                        .clone()
                        .all(|other| text(other, "/op") != text(row, "/op"))
                })
                .cloned()
                .collect();
            if kept.is_empty() {
                continue;
            }
            run["rows"] = kept.into();
        }
        newest.push(run);
    }
    newest
}

/// Whether the code that a row measured has changed since. The hash has a part for each family of
/// kernels; an operation that is not a family by itself may use any of them.
fn is_stale(run: &Value, row: &Value, current: &str) -> bool {
    let recorded = text(run, "/source_hash");
    let op = text(row, "/op");
    if !sources::FAMILIES.contains(&op) {
        return recorded != current;
    }
    let part = |hash: &str| {
        let mut parts = hash.split(' ').filter_map(|part| part.split_once('='));
        parts
            .find(|(family, _)| *family == op)
            .map(|(_, hash)| hash.to_string())
    };
    part(recorded).is_none() || part(recorded) != part(current)
}

fn table(runs: &[Value], current: &str) -> String {
    if runs.is_empty() {
        return format!("{NONE_RECORDED}\n");
    }
    let mut out = String::new();
    for run in runs {
        let _ = write!(out, "{}", title(run));
        if let Some(copy) = number(run, "/ceilings/copy_gbs") {
            let _ = write!(out, ", device copy {copy:.0} GB/s");
        }
        out.push_str(
            "\n\n| operation | shape | dtype | µs (p10-p90) | rate | of ceiling | peers |\n",
        );
        out.push_str("|---|---|---|---:|---:|---:|---|\n");
        let mut any_stale = false;
        for row in rows(run) {
            let stale = is_stale(run, row, current);
            any_stale |= stale;
            let us = |path: &str| number(row, path).map_or("?".into(), significant);
            let rate = match (number(row, "/tflops"), number(row, "/gbs")) {
                (Some(tflops), _) if tflops > 0.0 => format!("{} TFLOP/s", significant(tflops)),
                (_, Some(gbs)) => format!("{} GB/s", significant(gbs)),
                _ => String::new(),
            };
            let ceiling = number(row, "/of_ceiling")
                .map_or(String::new(), |part| format!("{:.0}%", part * 100.0));
            let _ = writeln!(
                out,
                "| {} {}{} | {} | {} | {} ({}-{}) | {rate} | {ceiling} | {} |",
                text(row, "/op"),
                text(row, "/variant"),
                if stale { " †" } else { "" },
                shape(row),
                text(row, "/dtype"),
                us("/us/median"),
                us("/us/p10"),
                us("/us/p90"),
                peers(row)
            );
        }
        if any_stale {
            out.push_str("\n† measured before the latest change of the kernel or of the code that launches it\n");
        }
        out.push('\n');
    }
    out
}

fn peers(row: &Value) -> String {
    let own = number(row, "/us/median");
    let list = row
        .get("peers")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let shown = list.iter().filter_map(|peer| {
        let median = number(peer, "/us/median")?;
        let ratio = own.map_or(String::new(), |own| format!(" ({:.2}x)", median / own));
        Some(format!(
            "{} {}{ratio}",
            text(peer, "/name"),
            significant(median)
        ))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn title(run: &Value) -> String {
    let device = ["/device/name", "/device/arch"]
        .map(|path| text(run, path))
        .join(" ");
    let versions = format!(
        "driver {}, CUDA {}",
        text(run, "/device/driver"),
        text(run, "/device/cuda")
    );
    format!("{}, {versions}, {}", device.trim(), text(run, "/date"))
}

fn label(row: &Value) -> String {
    format!(
        "{} {} {} {}",
        text(row, "/op"),
        text(row, "/variant"),
        shape(row),
        text(row, "/dtype")
    )
}

fn shape(row: &Value) -> String {
    let Some(shape) = row.get("shape").and_then(Value::as_object) else {
        return String::new();
    };
    // An object's order is lost; the outermost dimension comes first.
    let place = |name: &str| {
        ["tokens", "heads", "m", "n"]
            .iter()
            .position(|first| *first == name)
    };
    let mut sizes: Vec<_> = shape.iter().collect();
    sizes.sort_by_key(|(name, _)| place(name).unwrap_or(usize::MAX));
    sizes
        .into_iter()
        .map(|(name, size)| format!("{name} {size}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn rows(run: &Value) -> &[Value] {
    run.get("rows")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or("")
}

fn number(value: &Value, path: &str) -> Option<f64> {
    value.pointer(path).and_then(Value::as_f64)
}

/// Three significant digits, or all digits of the whole part.
fn significant(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

fn replace_table(readme: &str, table: &str) -> Result<String, String> {
    let missing = || {
        format!("README.md lacks the lines `{BEGIN}` and `{END}` around its table of measurements")
    };
    let (before, rest) = readme.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!(
        "{before}{BEGIN}\n{}\n{END}{after}",
        table.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Value {
        serde_json::json!({
            "date": "2026-01-02", "source_hash": "loss=aa norm=bb",
            "device": {"name": "H200", "arch": "sm_90", "driver": "580.1", "cuda": "13.0"},
            "ceilings": {"copy_gbs": 4000.4},
            "rows": [
                {"op": "loss", "variant": "nll", "shape": {"tokens": 8, "vocab": 32000}, "dtype": "bf16",
                 "us": {"median": 100.0, "p10": 99.0, "p90": 101.5}, "gbs": 3000.0, "of_ceiling": 0.75,
                 "peers": [{"name": "torch", "us": {"median": 250.0}}]},
                {"op": "linear-loss", "us": {"median": 5.0}},
                {"op": "norm", "variant": "qk-norm forward", "shape": {"tokens": 8, "heads": 32, "head_dim": 64}, "dtype": "bf16",
                 "us": {"median": 7.0, "p10": 6.0, "p90": 8.0}, "peers": []},
            ],
        })
    }

    #[test]
    fn a_row_is_stale_when_its_own_family_changed() {
        let run = run();
        let [loss, linear] = [&rows(&run)[0], &rows(&run)[1]];
        assert!(!is_stale(&run, loss, "loss=aa norm=cc"));
        assert!(is_stale(&run, loss, "loss=ab norm=bb"));
        assert!(is_stale(&run, loss, "norm=bb"));
        assert!(!is_stale(&run, linear, "loss=aa norm=bb"));
        assert!(is_stale(&run, linear, "loss=aa norm=cc"));
    }

    #[test]
    fn the_table_shows_each_row_and_marks_stale_ones() {
        let table = table(&[run()], "loss=ab norm=bb");
        let row = "| loss nll † | tokens 8, vocab 32000 | bf16 | 100 (99.0-102) | 3000 GB/s | 75% | torch 250 (2.50x) |";
        assert!(table.contains(row), "{table}");
        let heads =
            "| norm qk-norm forward | tokens 8, heads 32, head_dim 64 | bf16 | 7.00 (6.00-8.00) |";
        assert!(table.contains(heads), "{table}");
        assert!(
            table.starts_with(
                "H200 sm_90, driver 580.1, CUDA 13.0, 2026-01-02, device copy 4000 GB/s\n"
            ),
            "{table}"
        );
    }

    #[test]
    fn without_a_run_the_readme_says_so() {
        let readme = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let updated = replace_table(&readme, &table(&[], "")).unwrap();
        assert_eq!(updated, format!("a\n{BEGIN}\n{NONE_RECORDED}\n{END}\nb\n"));
        assert!(replace_table("no markers", "").is_err());
    }

    #[test]
    fn the_newest_run_of_a_device_counts() {
        let old = serde_json::json!({"date": "2025-12-31", "device": {"name": "H200"}});
        let other = serde_json::json!({"date": "2025-01-01", "device": {"name": "B200"}});
        let newest = newest_of_each_device(vec![old, run(), other]);
        assert_eq!(
            newest
                .iter()
                .map(|run| text(run, "/date"))
                .collect::<Vec<_>>(),
            ["2026-01-02", "2025-01-01"]
        );
    }

    #[test]
    fn a_newer_run_of_one_family_leaves_the_others_rows() {
        let newer = serde_json::json!({
            "date": "2026-02-01", "device": {"name": "H200"}, "rows": [{"op": "norm"}, {"op": "norm"}],
        });
        let shown: Vec<Vec<String>> = newest_of_each_device(vec![run(), newer])
            .iter()
            .map(|run| {
                rows(run)
                    .iter()
                    .map(|row| text(row, "/op").into())
                    .collect()
            })
            .collect();
        assert_eq!(shown, [vec!["norm", "norm"], vec!["loss", "linear-loss"]]);
    }
}
