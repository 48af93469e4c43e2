//! Registers, shared memory, stack and spills of every kernel on every target, as committed in
//! budget.txt. A change is seen in review as a changed line; `cargo xtask budget --accept` rewrites
//! the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::report::{self, Key, Report, Resources, announce};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compiled/budget.txt");

const HEADER: &str = "\
# What each kernel takes on each target: registers and stack bytes of a thread, static shared memory of a block, bytes
# spilled. Compared by `cargo xtask test`, rewritten by `cargo xtask budget --accept`.
";

const COLUMNS: [&str; 7] = [
    "kernel",
    "target",
    "registers",
    "shared",
    "stack",
    "stores",
    "loads",
];

/// A budget file.
#[derive(Debug, PartialEq, Eq, Default)]
struct Budget {
    compiler: String,
    kernels: BTreeMap<Key, Resources>,
}

fn parse(text: &str) -> Result<Budget, String> {
    let mut budget = Budget::default();
    let mut module = String::new();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] | ["#", ..] | ["kernel", ..] => {}
            ["compiler", version] => budget.compiler = version.to_string(),
            ["module", name] => module = name.to_string(),
            [kernel, target, ..] => {
                let key = Key {
                    module: module.clone(),
                    kernel: kernel.into(),
                    target: target.into(),
                };
                let resources = Resources::parse(&words[2..]);
                let resources = resources
                    .ok_or_else(|| format!("line {}: not five numbers: {line}", index + 1))?;
                if budget.kernels.insert(key, resources).is_some() {
                    return Err(format!("line {}: a second time: {line}", index + 1));
                }
            }
            _ => return Err(format!("line {}: not understood: {line}", index + 1)),
        }
    }
    Ok(budget)
}

fn render(budget: &Budget) -> String {
    let mut text = format!("{HEADER}\ncompiler {}\n", budget.compiler);
    let width = budget
        .kernels
        .keys()
        .map(|key| key.kernel.len())
        .max()
        .unwrap_or(0)
        .max(COLUMNS[0].len());
    let mut module = "";
    for (key, r) in &budget.kernels {
        if key.module != module {
            module = &key.module;
            let [kernel, target, registers, shared, stack, stores, loads] = COLUMNS;
            let _ = writeln!(text, "\nmodule {module}");
            let _ = writeln!(
                text,
                "{kernel:width$} {target:>6} {registers:>9} {shared:>6} {stack:>5} {stores:>6} {loads:>5}"
            );
        }
        let _ = writeln!(
            text,
            "{:width$} {:>6} {:>9} {:>6} {:>5} {:>6} {:>5}",
            key.kernel, key.target, r.registers, r.shared, r.stack, r.spill_stores, r.spill_loads
        );
    }
    text
}

/// Differences between the budget and what was built, one line each. Only modules and targets that
/// were built count. A different version of the compiler allocates registers differently: then only
/// spills and stack are compared.
fn differences(budget: &Budget, report: &Report) -> Vec<String> {
    let same_compiler = budget.compiler == report.compiler;
    let built = |key: &Key| {
        report
            .fatbins
            .get(&key.module)
            .is_some_and(|targets| targets.contains(&key.target))
    };
    let mut lines = Vec::new();
    for (key, now) in &report.resources {
        let name = format!("{} {} for {}", key.module, key.kernel, key.target);
        let Some(then) = budget.kernels.get(key) else {
            lines.push(format!("+ {name}: not in the budget, built with {now:?}"));
            continue;
        };
        let fields = [
            ("registers", then.registers, now.registers, same_compiler),
            ("shared", then.shared, now.shared, same_compiler),
            (
                "stack",
                then.stack,
                now.stack,
                same_compiler || now.stack > then.stack,
            ),
            (
                "spill stores",
                then.spill_stores,
                now.spill_stores,
                same_compiler || now.spill_stores > then.spill_stores,
            ),
            (
                "spill loads",
                then.spill_loads,
                now.spill_loads,
                same_compiler || now.spill_loads > then.spill_loads,
            ),
        ];
        for (field, then, now, counts) in fields {
            if counts && then != now {
                lines.push(format!("! {name}: {field} {then} -> {now}"));
            }
        }
    }
    for key in budget
        .kernels
        .keys()
        .filter(|key| built(key) && !report.resources.contains_key(key))
    {
        lines.push(format!(
            "- {} {} for {}: in the budget, no longer built",
            key.module, key.kernel, key.target
        ));
    }
    lines
}

#[test]
fn kernels_keep_to_their_budget() {
    let Some(report) = report::read() else { return };
    if std::env::var_os("EVENKEEL_ACCEPT_BUDGET").is_some() {
        let budget = Budget {
            compiler: report.compiler,
            kernels: report.resources,
        };
        fs::write(PATH, render(&budget)).expect("the budget can be written");
        announce(&format!("wrote {PATH}: {} lines", budget.kernels.len()));
        return;
    }
    let text = if Path::new(PATH).exists() {
        fs::read_to_string(PATH).expect("the budget can be read")
    } else {
        String::new()
    };
    let budget = parse(&text).expect("the budget is well formed");
    if budget.compiler != report.compiler {
        let (then, now) = (&budget.compiler, &report.compiler);
        announce(&format!(
            "the budget is of nvcc {then}, this is {now}: only spills and stack are compared"
        ));
    }
    let lines = differences(&budget, &report);
    assert!(
        lines.is_empty(),
        "{} differences from {PATH}:\n{}\nIf they are meant: cargo xtask budget --accept",
        lines.len(),
        lines.join("\n")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Budget, Report) {
        let key = |kernel: &str, target: &str| Key {
            module: "loss_a".into(),
            kernel: kernel.into(),
            target: target.into(),
        };
        let resources = Resources {
            registers: 40,
            shared: 0,
            stack: 0,
            spill_stores: 0,
            spill_loads: 0,
        };
        let kernels: BTreeMap<_, _> = [
            (key("one", "80"), resources),
            (key("one", "90a"), resources),
        ]
        .into();
        let report = Report {
            compiler: "13.0.88".into(),
            fatbins: [("loss_a".into(), vec!["80".into(), "90a".into()])].into(),
            resources: kernels.clone(),
            ..Report::default()
        };
        (
            Budget {
                compiler: "13.0.88".into(),
                kernels,
            },
            report,
        )
    }

    #[test]
    fn a_rendered_budget_reads_back() {
        let (budget, _) = sample();
        assert_eq!(parse(&render(&budget)), Ok(budget));
        assert!(parse("module m\nk 80 1 2").unwrap_err().contains("line 2"));
    }

    #[test]
    fn each_kind_of_difference_is_told() {
        let (budget, mut report) = sample();
        assert_eq!(differences(&budget, &report), [""; 0]);

        let mut keys: Vec<Key> = report.resources.keys().cloned().collect();
        report.resources.get_mut(&keys[0]).unwrap().registers = 41;
        let removed = report.resources.remove(&keys[1]).unwrap();
        keys[1].kernel = "two".into();
        report.resources.insert(keys[1].clone(), removed);
        let lines = differences(&budget, &report);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], "! loss_a one for 80: registers 40 -> 41");
        assert!(lines[1].starts_with("+ loss_a two for 90a"));
        assert!(lines[2].starts_with("- loss_a one for 90a"));
    }

    #[test]
    fn another_compiler_may_use_other_registers_but_not_spill_more() {
        let (budget, mut report) = sample();
        report.compiler = "13.1.0".into();
        let key = report.resources.keys().next().unwrap().clone();
        report.resources.get_mut(&key).unwrap().registers = 48;
        assert_eq!(differences(&budget, &report), [""; 0]);
        report.resources.get_mut(&key).unwrap().spill_loads = 4;
        assert_eq!(
            differences(&budget, &report),
            ["! loss_a one for 80: spill loads 0 -> 4"]
        );
    }

    #[test]
    fn targets_that_were_not_built_do_not_count() {
        let (budget, mut report) = sample();
        report.fatbins.insert("loss_a".into(), vec!["80".into()]);
        report.resources.retain(|key, _| key.target == "80");
        assert_eq!(differences(&budget, &report), [""; 0]);
    }
}
