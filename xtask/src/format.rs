//! `cargo xtask format`: one style for Rust, one for C++ and CUDA.

use std::path::PathBuf;
use std::process::Command;

use crate::build::sources;
use crate::workspace::{cargo, check, root};

/// The clang-format whose output is the style (Debian 12's): versions disagree about details.
const CLANG_FORMAT: &str = "14.";

/// Formats the repository, or with `only_check` says what is not formatted.
pub fn run(only_check: bool) -> Result<(), String> {
    let mut rust = cargo();
    rust.args(["fmt", "--all"]);
    if only_check {
        rust.arg("--check");
    }
    check(&mut rust)?;

    let output = Command::new("clang-format").arg("--version").output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    let version = version.unwrap_or_else(|_| "there is none here".to_string());
    if !version.contains(&format!("version {CLANG_FORMAT}")) {
        println!(
            "C++ and CUDA sources were not looked at: that needs clang-format {CLANG_FORMAT}x ({version})"
        );
        return Ok(());
    }
    let mut command = Command::new("clang-format");
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
