//! `cargo xtask test`, `bench` and `budget`.

use std::path::Path;

use crate::toolchain;
use crate::workspace::{cargo, check};

/// Both features that bring in the emulator, spelled out because the workspace has crates with
/// neither.
const EMULATOR: &str = "evenkeel/emulator,evenkeel-cli/emulator";

/// Every test of the workspace. In release mode: the f64 reference and the emulated kernels take
/// many times as long in a debug build, it is the code that users run, and `bench` shares the
/// objects.
pub fn test(arguments: &[String]) -> Result<(), String> {
    toolchain::try_install();
    check(
        cargo()
            .args([
                "test",
                "--workspace",
                "--release",
                "--locked",
                "--features",
                EMULATOR,
            ])
            .args(arguments),
    )
}

/// The program's benchmark.
pub fn bench(arguments: &[String]) -> Result<(), String> {
    if driver_present() {
        toolchain::try_install();
    } else {
        println!("no CUDA driver on this machine: measuring on the CPU");
    }
    let mut command = cargo();
    command.args([
        "run",
        "--release",
        "--locked",
        "--package",
        "evenkeel-cli",
        "--bin",
        "evenkeel",
    ]);
    if arguments
        .iter()
        .any(|argument| argument.contains("emulated"))
    {
        command.args(["--features", EMULATOR]);
    }
    check(command.args(["--", "bench"]).args(arguments))
}

/// The test of the budget, which knows how to rewrite it.
pub fn budget(accept: bool) -> Result<(), String> {
    toolchain::install_or_find()?;
    let mut command = cargo();
    command.args(["test", "--release", "--locked"]);
    command.args([
        "--package",
        "evenkeel",
        "--test",
        "compiled",
        "--",
        "budget",
        "--nocapture",
    ]);
    command
        .env("EVENKEEL_REQUIRE_CUDA", "1")
        .env_remove("EVENKEEL_CUDA_ARCHS");
    if accept {
        command.env("EVENKEEL_ACCEPT_BUDGET", "1");
    }
    check(&mut command)
}

/// Whether a CUDA driver is loaded: its device files exist (on WSL, the one for all of its GPUs).
fn driver_present() -> bool {
    ["/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg"]
        .iter()
        .any(|path| Path::new(path).exists())
        || cfg!(windows) && Path::new("C:\\Windows\\System32\\nvcuda.dll").exists()
}
