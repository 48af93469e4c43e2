//! `cargo xtask toolchain`: a CUDA compiler, without administrator rights and without a CUDA
//! installation.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::SystemTime;

use crate::build::nvcc;
use crate::workspace;

const REQUIREMENTS: &str = include_str!("../cuda-requirements.txt");

/// Finds a CUDA compiler of a sufficient version, or installs the pinned one into target/cuda. Says
/// what it found.
pub fn install_or_find() -> Result<PathBuf, String> {
    let directory = workspace::target()?.join(nvcc::INSTALLED);
    let current = fs::read_to_string(directory.join("requirements.txt"))
        .is_ok_and(|text| text == REQUIREMENTS);
    match nvcc::find(current.then_some(directory.as_path())) {
        Ok(found) => {
            println!(
                "CUDA compiler: {} ({})",
                found.path.display(),
                found.version
            );
            return Ok(found.path);
        }
        // A compiler that NVCC names is the user's choice, even if it does not work.
        Err(reason) if reason.starts_with("NVCC names") => return Err(reason),
        Err(_) => {}
    }
    if !cfg!(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )) {
        return Err("the pinned CUDA compiler exists for Linux on x86_64 and aarch64; install CUDA 12.9 or newer".into());
    }
    install(&directory)?;
    let found = nvcc::find(Some(&directory))?;
    touch_build_script();
    println!(
        "CUDA compiler: {} ({})",
        found.path.display(),
        found.version
    );
    Ok(found.path)
}

/// As [`install_or_find`], for commands that also work without CUDA kernels.
pub fn try_install() {
    if let Err(reason) = install_or_find() {
        eprintln!(
            "warning: going on without a CUDA compiler, so no CUDA kernels are built:\n{reason}"
        );
    }
}

fn install(directory: &Path) -> Result<(), String> {
    let scratch = directory.with_extension(format!("{}.tmp", process::id()));
    remove(&scratch)?;
    fs::create_dir_all(&scratch)
        .map_err(|error| format!("cannot create {}: {error}", scratch.display()))?;
    let requirements = scratch.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)
        .map_err(|error| format!("cannot write {}: {error}", requirements.display()))?;

    println!(
        "installing the pinned CUDA compiler into {} (about 105 MB to download)",
        directory.display()
    );
    let installed = run_installer(&requirements, &scratch).and_then(|()| {
        // Another xtask may have been faster; either result is the same. What is there without the
        // current list of requirements is an older pin.
        remove(directory)?;
        fs::rename(&scratch, directory)
            .map_err(|error| format!("cannot rename {}: {error}", scratch.display()))
    });
    if installed.is_err() {
        remove(&scratch)?;
    }
    installed
}

/// One run of one installer for all packages: a second `--target` run into the same folder copies
/// nothing.
fn run_installer(requirements: &Path, into: &Path) -> Result<(), String> {
    let pips: [&[&str]; 3] = [
        &["python3", "-m", "pip"],
        &["pip3"],
        &["python", "-m", "pip"],
    ];
    let mut tried = Vec::new();
    // The pips of one machine find the same packages, so only the first one gets to try.
    let first_pip = pips.into_iter().find(|words| answers(words));
    if first_pip.is_none() {
        tried.push("Python 3 with pip is not there".to_string());
    }
    for words in first_pip.into_iter().chain([&["uv", "pip"][..]]) {
        if !answers(words) {
            tried.push(format!("`{}` is not there", words.join(" ")));
            continue;
        }
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args([
            "install",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
        ]);
        // Settings of pip as variables: versions that lack one do not mind. A user's default of
        // `--user` would contradict `--target`, and without network the wait should be short.
        command
            .env("PIP_USER", "0")
            .env("PIP_RETRIES", "2")
            .env("PIP_ROOT_USER_ACTION", "ignore");
        command.env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        command
            .arg("--target")
            .arg(into)
            .arg("-r")
            .arg(requirements);
        match workspace::check(&mut command) {
            Ok(()) => return Ok(()),
            Err(error) => tried.push(error),
        }
    }
    Err(format!(
        "the packages could not be installed, for want of network or of Python 3 with pip:\n  {}",
        tried.join("\n  ")
    ))
}

fn answers(words: &[&str]) -> bool {
    let output = Command::new(words[0])
        .args(&words[1..])
        .arg("--help")
        .output();
    output.is_ok_and(|output| output.status.success())
}

/// The build script does not watch target/cuda, which may not exist; a newer build script runs
/// again.
fn touch_build_script() {
    let script = workspace::root().join("build.rs");
    let touched = File::options()
        .append(true)
        .open(&script)
        .and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        eprintln!(
            "warning: cannot touch {}: {error}; `cargo clean -p evenkeel` helps",
            script.display()
        );
    }
}

fn remove(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}
