//! Compiles the kernel files for the emulator: the same sources, with the C++ compiler.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{Cache, Entry, Ingredients};
use super::sources::{self, KernelFile};
use super::{context, pool};

/// Compiles `files` for the host and links them into the crate.
pub fn compile(cache: &Cache, files: &[KernelFile]) -> Result<(), String> {
    let include = handed_over("INCLUDE")?;
    let flags = handed_over("FLAGS")?;
    println!("cargo:rerun-if-changed={include}");
    let compiler = context::cxx()?;
    let banner = context::banner(&compiler);
    let directories = [Path::new("kernels"), Path::new(&include)];
    let mut jobs = Vec::new();
    for file in files {
        let mut ingredients = Ingredients::default();
        ingredients
            .add(compiler.path().to_string_lossy().as_bytes())
            .add(&banner)
            .add(&flags);
        for flag in compiler.args() {
            ingredients.add(flag.to_string_lossy().as_bytes());
        }
        for (path, contents) in &sources::include_closure(&file.path, &directories)? {
            // Wherever cargo unpacked the emulator's headers, only their contents count.
            let name = path.strip_prefix(&include).unwrap_or(path);
            ingredients
                .add(name.to_string_lossy().as_bytes())
                .add(contents);
        }
        let entry = cache.entry(&ingredients, "o");
        let mut command = compiler.to_command();
        command
            .args(flags.split_whitespace())
            .args(["-Ikernels", "-I", &include]);
        command
            .args(["-x", "c++", "-c"])
            .arg(&file.path)
            .arg("-o")
            .arg(entry.scratch());
        jobs.push(move || compile_one(file, command, &entry));
    }
    let mut errors = Vec::new();
    let mut archive = cc::Build::new();
    archive.cpp(true);
    for result in pool::run(jobs) {
        match result {
            Ok(object) => {
                archive.object(object);
            }
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    if !files.is_empty() {
        archive
            .try_compile("evenkeel_kernels_host")
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn compile_one(file: &KernelFile, mut command: Command, entry: &Entry) -> Result<PathBuf, String> {
    if entry.lookup().is_none() {
        let output = command
            .output()
            .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            let _ = fs::remove_file(entry.scratch());
            return Err(format!("{} for the emulator:\n{log}", file.path.display()));
        }
        entry
            .store(&log)
            .map_err(|error| format!("cannot store {}: {error}", entry.object.display()))?;
    }
    Ok(entry.object.clone())
}

/// What the build script of evenkeel-emulator says through its `links` metadata.
fn handed_over(name: &str) -> Result<String, String> {
    let variable = format!("DEP_EVENKEEL_EMULATOR_{name}");
    env::var(&variable)
        .map_err(|_| format!("{variable} is not set: evenkeel-emulator did not hand it over"))
}
