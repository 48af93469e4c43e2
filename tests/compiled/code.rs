//! The machine code of every kernel has the instructions it was written for.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::expectations::{EXPECTATIONS, Expectation, FORBIDDEN};
use crate::report::{self, announce};
use crate::sass;

#[test]
fn kernels_compile_to_the_instructions_they_were_written_for() {
    let Some(report) = report::read() else { return };
    let cuobjdump = report
        .bin
        .join(format!("cuobjdump{}", std::env::consts::EXE_SUFFIX));
    if !cuobjdump.is_file() {
        announce(&format!(
            "SKIPPED: {} is not there: no compiled code was looked at",
            cuobjdump.display()
        ));
        return;
    }
    let mut failures = Vec::new();
    let mut looked_at = 0;
    for (module, targets) in report
        .fatbins
        .iter()
        .filter(|(_, targets)| !targets.is_empty())
    {
        let listing = disassemble(&cuobjdump, &report.bin, module);
        for ((target, kernel), instructions) in &listing {
            looked_at += 1;
            let name = format!("{module} {kernel} for {target}");
            failures.extend(
                unmet(kernel, target, instructions)
                    .into_iter()
                    .map(|unmet| format!("{name}: {unmet}")),
            );
        }
        // The listing names all kernels of all targets, or it was not understood.
        for key in report.resources.keys().filter(|key| key.module == *module) {
            if !listing.contains_key(&(key.target.clone(), key.kernel.clone())) {
                failures.push(format!(
                    "{module} {} for {}: not in cuobjdump's listing",
                    key.kernel, key.target
                ));
            }
        }
        assert!(!listing.is_empty() || targets.iter().all(|target| target.starts_with("compute_")));
    }
    announce(&format!(
        "compiled code: {looked_at} kernels looked at, {} failures",
        failures.len()
    ));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn disassemble(cuobjdump: &Path, bin: &Path, module: &str) -> sass::Listing {
    let fatbin = report::directory().join(format!("{module}.fatbin"));
    // cuobjdump starts nvdisasm, which it looks for on the PATH.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(
        [bin.to_path_buf()]
            .into_iter()
            .chain(std::env::split_paths(&path)),
    );
    let output = Command::new(cuobjdump)
        .env("PATH", path.unwrap())
        .arg("-sass")
        .arg(&fatbin)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cuobjdump: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    sass::parse(&String::from_utf8_lossy(&output.stdout))
}

/// What a kernel lacks, or has and should not have.
fn unmet(kernel: &str, target: &str, instructions: &BTreeMap<String, usize>) -> Vec<String> {
    let count = |pattern: &str| -> usize {
        let fitting = instructions
            .iter()
            .filter(|(mnemonic, _)| sass::matches(pattern, mnemonic));
        fitting.map(|(_, count)| count).sum()
    };
    let mut failures = Vec::new();
    for (pattern, reason) in FORBIDDEN {
        if count(pattern) > 0 {
            failures.push(format!("{} {pattern}: {reason}", count(pattern)));
        }
    }
    let fits = |row: &&Expectation| fits(row.kernels, kernel);
    if !EXPECTATIONS.iter().any(|row| fits(&row)) {
        failures.push("no row in tests/compiled/expectations.rs".to_string());
    }
    let on_target = |row: &&Expectation| row.targets.is_empty() || row.targets.contains(&target);
    for row in EXPECTATIONS.iter().filter(fits).filter(on_target) {
        for pattern in row.present.iter().filter(|pattern| count(pattern) == 0) {
            failures.push(format!("no {pattern}: {}", row.reason));
        }
        for pattern in row.absent.iter().filter(|pattern| count(pattern) > 0) {
            failures.push(format!("{} {pattern}: {}", count(pattern), row.reason));
        }
    }
    failures
}

/// Whether `name` is `pattern`, whose `*` stand for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|&at| rest.is_char_boundary(at))
                .any(|at| fits(after, &rest[at..]))
        }),
    }
}

/// The mnemonics are nvcc 13.0's for `atomicAdd` on floats, with and without use of its result, and
/// for `atomicOr`.
#[test]
fn atomics_on_floats_are_refused_on_every_target() {
    let unmet = |mnemonic: &str| {
        let instructions = [("LDG.E", 1), (mnemonic, 1)].map(|(m, count)| (m.to_string(), count));
        unmet("softmax_loss_reduce", "90a", &instructions.into())
    };
    for mnemonic in [
        "RED.E.ADD.F32.FTZ.RN.STRONG.GPU",
        "RED.E.ADD.F64.RN.STRONG.GPU",
        "REDG.E.ADD.F32.FTZ.RN.STRONG.GPU",
        "REDG.E.ADD.F32x2.FTZ.RN.STRONG.GPU",
        "ATOMG.E.ADD.F32.FTZ.RN.STRONG.GPU",
        "ATOM.E.ADD.BF16x2.RN.STRONG.GPU",
    ] {
        assert_eq!(unmet(mnemonic).len(), 1, "{mnemonic}");
    }
    for mnemonic in ["RED.E.OR.STRONG.GPU", "REDG.E.OR.STRONG.GPU"] {
        assert_eq!(unmet(mnemonic), [""; 0]);
    }
}

#[test]
fn stars_stand_for_any_characters() {
    assert!(fits("softmax_*_bf16*", "softmax_loss_cluster_bf16_f32"));
    assert!(fits("exact", "exact"));
    assert!(fits("*", ""));
    assert!(!fits("softmax_*_bf16", "softmax_loss_f32"));
    assert!(!fits("exact", "exactly"));
}
