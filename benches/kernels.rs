//! `cargo bench`: the program's benchmark, with its arguments. `cargo bench --bench kernels -- --help`
//! lists them.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Cargo adds `--bench` to what the user gave.
    let given = std::env::args_os()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let command = ["evenkeel", "bench"].map(OsString::from);
    evenkeel_cli::program::run(command.into_iter().chain(given))
}
