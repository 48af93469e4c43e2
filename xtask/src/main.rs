//! Developer commands: `cargo xtask` lists them.

mod bundle;
mod format;
mod results;
mod run;
mod toolchain;
mod workspace;

/// The parts of the build script that commands need too; their tests are here because build scripts
/// have none.
#[allow(dead_code)]
#[path = "../../build"]
mod build {
    pub mod nvcc;
    pub mod ptxas;
    pub mod sha256;
    pub mod sources;
}

#[cfg(test)]
mod tests;

use std::env;
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  test [ARGS]          make sure of the CUDA compiler, then run every test; ARGS go to cargo test
  bench [ARGS]         run the benchmark on the best device there is; ARGS go to `evenkeel bench`
  toolchain            make sure of the CUDA compiler: one that is installed, or a pinned one in target/cuda
  budget [--accept]    compare the kernels' registers, shared memory, spills and stack with the committed budget;
                       --accept rewrites the budget
  results [--check]    say which recorded measurements are stale and write the README's table of them; --check
                       only says whether the table is current
  gpu-bundle           write target/gpu-bundle: tests and benchmark for a GPU machine without Rust
  format [--check]     rustfmt, and clang-format 14 where it is installed
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some((command, rest)) = arguments.split_first() else {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    let result = match command.as_str() {
        "test" => run::test(rest),
        "bench" => run::bench(rest),
        "toolchain" => nothing_after(rest).and_then(|()| toolchain::install_or_find().map(|_| ())),
        "budget" => flag(rest, "--accept").and_then(run::budget),
        "results" => flag(rest, "--check").and_then(results::run),
        "gpu-bundle" => nothing_after(rest).and_then(|()| bundle::write()),
        "format" => flag(rest, "--check").and_then(format::run),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(format!("there is no command `{other}`\n\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn nothing_after(arguments: &[String]) -> Result<(), String> {
    match arguments {
        [] => Ok(()),
        [first, ..] => Err(format!("unexpected argument `{first}`\n\n{USAGE}")),
    }
}

fn flag(arguments: &[String], name: &str) -> Result<bool, String> {
    match arguments {
        [] => Ok(false),
        [only] if only == name => Ok(true),
        [first, ..] => Err(format!("unexpected argument `{first}`\n\n{USAGE}")),
    }
}
