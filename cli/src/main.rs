//! `evenkeel`: what is here, whether it is right, how fast it is.

use std::process::ExitCode;

fn main() -> ExitCode {
    evenkeel_cli::program::run(std::env::args_os())
}
