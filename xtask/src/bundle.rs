//! `cargo xtask gpu-bundle`: what a GPU machine needs to test and measure the kernels, and nothing
//! to install there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::build::sources;
use crate::toolchain;
use crate::workspace::{cargo, check, root, shown, target};

const LIMIT_MIB: u64 = 40;

/// Folders of data and scripts that the programs find relative to the bundle.
const CARRIED: [&str; 2] = ["tests/golden", "benches/peers"];

/// Writes target/gpu-bundle anew.
pub fn write() -> Result<(), String> {
    toolchain::install_or_find()?;
    let bundle = target()?.join("gpu-bundle");
    let io = |error: std::io::Error| format!("cannot write {}: {error}", bundle.display());
    if bundle.exists() {
        fs::remove_dir_all(&bundle).map_err(io)?;
    }
    fs::create_dir_all(bundle.join("bin")).map_err(io)?;

    // Without the emulator: its kernels are beside the point there, and its checks cost time.
    let mut tests = cargo();
    tests.args([
        "test",
        "--no-run",
        "--package",
        "evenkeel",
        "--lib",
        "--test",
        "suite",
    ]);
    let mut program = cargo();
    program.args(["build", "--package", "evenkeel-cli", "--bin", "evenkeel"]);
    for command in [&mut tests, &mut program] {
        for (name, built) in executables(command)? {
            let to = bundle.join("bin").join(name);
            fs::copy(&built, &to).map_err(io)?;
            check(Command::new("strip").arg("--strip-all").arg(&to))?;
        }
    }
    for folder in CARRIED {
        copy_folder(&root().join(folder), &bundle.join(folder)).map_err(io)?;
    }
    let script = bundle.join("run.sh");
    fs::write(&script, include_str!("run.sh")).map_err(io)?;
    make_executable(&script).map_err(io)?;

    let files = sources::walk(&bundle).map_err(io)?;
    let size: u64 = files
        .iter()
        .filter_map(|file| fs::metadata(file).ok())
        .map(|metadata| metadata.len())
        .sum();
    let mib = size.div_ceil(1 << 20);
    println!(
        "{}: {} files, {mib} MiB; on the GPU machine: ./run.sh OUT_DIR",
        bundle.display(),
        files.len()
    );
    if mib > LIMIT_MIB {
        Err(format!("the bundle is larger than {LIMIT_MIB} MiB"))
    } else {
        Ok(())
    }
}

/// Builds with `command` in release mode, with kernels or not at all, and returns name and path of
/// each executable.
fn executables(command: &mut Command) -> Result<Vec<(String, PathBuf)>, String> {
    command.args([
        "--release",
        "--locked",
        "--message-format=json-render-diagnostics",
    ]);
    command
        .env("EVENKEEL_REQUIRE_CUDA", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let output = command.spawn().and_then(|child| child.wait_with_output());
    let output = output.map_err(|error| format!("cannot run {}: {error}", shown(command)))?;
    if !output.status.success() {
        return Err(format!("{} failed ({})", shown(command), output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = messages.filter_map(|message| {
        let path = message.get("executable")?.as_str()?;
        let name = message.pointer("/target/name")?.as_str()?;
        Some((name.to_string(), PathBuf::from(path)))
    });
    Ok(found.collect())
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    for file in sources::walk(from)? {
        let target = to.join(file.strip_prefix(from).unwrap_or(&file));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(&file, &target)?;
    }
    Ok(())
}

#[cfg(unix)]
fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> std::io::Result<()> {
    Ok(())
}
