//! Finding a CUDA compiler that works on this machine.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest release that knows the family targets `100f` and `120f`.
pub const OLDEST: (u32, u32) = (12, 9);

/// The folder below `target/` into which `cargo xtask toolchain` installs the pinned compiler.
pub const INSTALLED: &str = "cuda";

/// A CUDA compiler of a sufficient version.
#[derive(Debug, Clone)]
pub struct Nvcc {
    pub path: PathBuf,
    /// `13.0.88`.
    pub version: String,
    /// What the compiler says about itself; part of the cache key.
    pub banner: String,
}

impl Nvcc {
    /// The folder with the toolkit's other programs: fatbinary, cuobjdump, nvdisasm.
    pub fn bin(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}

/// The compiler that NVCC names; or else the first of a sufficient version below CUDA_HOME,
/// CUDA_PATH, on the PATH, in /usr/local/cuda and in `installed` (a `target/cuda`). The error lists
/// what was looked at.
pub fn find(installed: Option<&Path>) -> Result<Nvcc, String> {
    let mut rejected = Vec::new();
    if let Some(path) = env::var_os("NVCC").filter(|value| !value.is_empty()) {
        // An explicit wish is not quietly replaced by another compiler.
        return inspect(Path::new(&path)).map_err(|reason| format!("NVCC names {reason}"));
    }
    for (origin, path) in candidates(installed) {
        match inspect(&path) {
            Ok(nvcc) => return Ok(nvcc),
            Err(reason) => rejected.push(format!("{origin}: {reason}")),
        }
    }
    let (major, minor) = OLDEST;
    let looked = if rejected.is_empty() {
        String::new()
    } else {
        format!(" ({})", rejected.join("; "))
    };
    Err(format!(
        "no nvcc {major}.{minor} or newer in NVCC, CUDA_HOME, CUDA_PATH, PATH or target/cuda{looked}"
    ))
}

fn candidates(installed: Option<&Path>) -> Vec<(&'static str, PathBuf)> {
    let program = format!("nvcc{}", env::consts::EXE_SUFFIX);
    let mut paths = Vec::new();
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(home) = env::var_os(variable).filter(|value| !value.is_empty()) {
            paths.push((variable, PathBuf::from(home).join("bin").join(&program)));
        }
    }
    for directory in env::var_os("PATH").iter().flat_map(env::split_paths) {
        paths.push(("PATH", directory.join(&program)));
    }
    paths.push((
        "the usual place",
        Path::new("/usr/local/cuda/bin").join(&program),
    ));
    if let Some(installed) = installed {
        paths.extend(installed_nvcc(installed).map(|path| ("target/cuda", path)));
    }
    paths.retain(|(_, path)| path.is_file());
    paths
}

/// The compiler inside a folder that pip filled: `nvidia/cu13/bin/nvcc`, whatever the major
/// version.
pub fn installed_nvcc(installed: &Path) -> Option<PathBuf> {
    let program = format!("nvcc{}", env::consts::EXE_SUFFIX);
    let entries = fs::read_dir(installed.join("nvidia")).ok()?;
    let found = entries
        .flatten()
        .map(|entry| entry.path().join("bin").join(&program));
    found.filter(|path| path.is_file()).max()
}

fn inspect(path: &Path) -> Result<Nvcc, String> {
    let shown = path.display();
    let output = Command::new(path).arg("--version").output();
    let output = output.map_err(|error| format!("{shown}, which does not start: {error}"))?;
    let banner = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = parse_version(&banner)
        .ok_or_else(|| format!("{shown}, which does not tell its version"))?;
    if release(&version) < OLDEST {
        return Err(format!("{shown}, which is version {version}"));
    }
    Ok(Nvcc {
        path: path.to_path_buf(),
        version,
        banner,
    })
}

/// `13.0.88` from "Cuda compilation tools, release 13.0, V13.0.88".
pub fn parse_version(banner: &str) -> Option<String> {
    let (_, version) = banner.split_once(", V")?;
    let version = version.split_whitespace().next()?;
    version
        .split('.')
        .all(|part| part.parse::<u32>().is_ok())
        .then(|| version.to_string())
}

/// Major and minor number of a version like `13.0.88`.
pub fn release(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Cargo's target directory: the outermost folder above `out_dir` that cargo tagged as its own. The
/// outermost, so that `cargo package`, which builds below target/package, finds the same compiler
/// and the same cache. Cargo does not tag a folder that was there before it, such as a mounted
/// volume: then it is the folder around the profile's, which has the fingerprints.
pub fn target_directory(out_dir: &Path) -> Option<PathBuf> {
    let tagged = |directory: &&Path| {
        fs::read_to_string(directory.join("CACHEDIR.TAG"))
            .is_ok_and(|tag| tag.contains("created by cargo"))
    };
    let profile = |directory: &&Path| directory.join(".fingerprint").is_dir();
    let around = || out_dir.ancestors().filter(profile).last()?.parent();
    out_dir
        .ancestors()
        .filter(tagged)
        .last()
        .or_else(around)
        .map(Path::to_path_buf)
}
