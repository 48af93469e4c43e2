//! What cargo and the cc crate tell the build.

use std::env;
use std::process::Command;

/// The C++ compiler that the cc crate would take: CXX and its target-specific forms, or the
/// platform's usual one.
pub fn cxx() -> Result<cc::Tool, String> {
    let tool = cc::Build::new()
        .cpp(true)
        .no_default_flags(true)
        .warnings(false)
        .try_get_compiler();
    tool.map_err(|error| format!("no C++ compiler: {error}"))
}

/// The compiler's own description of its version, for cache keys.
pub fn banner(tool: &cc::Tool) -> String {
    let output = Command::new(tool.path()).arg("--version").output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

/// The value of an environment variable, read again whenever it changes. Empty counts as unset.
pub fn variable(name: &str) -> Option<String> {
    println!("cargo:rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a Cargo feature of this package is on.
pub fn feature(name: &str) -> bool {
    env::var_os(format!(
        "CARGO_FEATURE_{}",
        name.to_uppercase().replace('-', "_")
    ))
    .is_some()
}
