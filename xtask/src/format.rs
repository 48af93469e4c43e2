//! `cargo xtask format`: one style for Rust, one for C++ and CUDA.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::build::sources;
use crate::workspace::{cargo, check, root};

/// The clang-format whose output is the style (Debian 12's): versions disagree about details.
const CLANG_FORMAT: &str = "14.";
/// Its names: by itself, and where another version is the system's own.
const PROGRAMS: [&str; 2] = ["clang-format-14", "clang-format"];
/// Passes over a file: what it wrote (tables in macros, mostly) it may want to write another way.
const PASSES: usize = 8;

/// Formats the repository, or with `only_check` says what is not formatted.
pub fn run(only_check: bool) -> Result<(), String> {
    let mut rust = cargo();
    rust.args(["fmt", "--all"]);
    if only_check {
        rust.arg("--check");
    }
    check(&mut rust)?;

    let found = PROGRAMS.map(|program| (program, version(program)));
    let wanted = format!("version {CLANG_FORMAT}");
    let Some((program, _)) = found.iter().find(|(_, version)| version.contains(&wanted)) else {
        let version = &found[1].1;
        println!(
            "C++ and CUDA sources were not looked at: that needs clang-format {CLANG_FORMAT}x ({version})"
        );
        return Ok(());
    };
    let files = cpp_files()?;
    if files.is_empty() {
        return Ok(());
    }
    if !only_check {
        settle(&files, |files| {
            let mut command = Command::new(program);
            command.current_dir(root()).args(["--style=file", "-i"]);
            check(command.args(files)).map_err(|_| format!("{program} failed"))
        })?;
    }
    let mut command = Command::new(program);
    command.current_dir(root());
    command.args(["--style=file", "--dry-run", "--Werror"]);
    // Not the command itself, which names every file.
    let wrong = "C++ or CUDA sources are not formatted: run `cargo xtask format`";
    check(command.args(files)).map_err(|_| wrong.to_string())
}

/// Repeats a pass over the files that it still changes, until it changes none.
pub fn settle(
    files: &[PathBuf],
    mut pass: impl FnMut(&[PathBuf]) -> Result<(), String>,
) -> Result<(), String> {
    let mut left = files.to_vec();
    for _ in 0..PASSES {
        let before = contents(&left)?;
        pass(&left)?;
        let after = contents(&left)?;
        let mut changed = before.iter().zip(&after).map(|(old, new)| old != new);
        left.retain(|_| changed.next() == Some(true));
        if left.is_empty() {
            return Ok(());
        }
    }
    Err(format!(
        "formatting still changes {} after {PASSES} passes: write it another way",
        left[0].display()
    ))
}

fn contents(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    let read = |file: &PathBuf| {
        fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
    };
    files.iter().map(read).collect()
}

fn version(program: &str) -> String {
    match Command::new(program).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_string(),
        Err(_) => "there is none here".to_string(),
    }
}

fn cpp_files() -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for directory in ["kernels", "emulator", "tests", "examples"] {
        files.extend(
            sources::walk(&root().join(directory))
                .map_err(|error| format!("cannot list {directory}: {error}"))?,
        );
    }
    let endings = ["cu", "cuh", "h", "hpp", "cc", "cpp"];
    files.retain(|file| {
        file.extension()
            .is_some_and(|ending| endings.iter().any(|known| ending == *known))
    });
    Ok(files)
}
