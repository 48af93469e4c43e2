//! `cargo xtask format`: one style for Rust, one for C++ and CUDA.

use std::path::PathBuf;
use std::process::Command;

use crate::build::sources;
use crate::workspace::{cargo, check, root};

/// The clang-format whose output is the style (Debian 12's): versions disagree about details.
const CLANG_FORMAT: &str = "14.";
/// Its names: by itself, and where another version is the system's own.
const PROGRAMS: [&str; 2] = ["clang-format-14", "clang-format"];

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
    let mut command = Command::new(program);
    command.current_dir(root()).arg("--style=file");
    command.args(if only_check {
        &["--dry-run", "--Werror"][..]
    } else {
        &["-i"]
    });
    let files = cpp_files()?;
    if files.is_empty() {
        return Ok(());
    }
    // Not the command itself, which names every file.
    let wrong = "C++ or CUDA sources are not formatted: run `cargo xtask format`";
    check(command.args(files)).map_err(|_| wrong.to_string())
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
