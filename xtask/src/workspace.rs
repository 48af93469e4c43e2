//! Where things are, and how other programs are run.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::nvcc;

/// The root of the repository. xtask is only ever run where it was built.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Cargo's target directory, found the way the build script finds it.
pub fn target() -> Result<PathBuf, String> {
    let program =
        env::current_exe().map_err(|error| format!("cannot tell where xtask is: {error}"))?;
    nvcc::target_directory(&program)
        .ok_or_else(|| format!("{} is not in a target directory", program.display()))
}

/// The cargo that runs xtask, in the root of the repository.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs `command` to its end; anything but success is an error that shows it.
pub fn check(command: &mut Command) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|error| format!("cannot run {}: {error}", shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} failed ({status})", shown(command)))
    }
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
