//! The kernel files: where they are, what they are compiled for, and what each one includes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::sha256;

/// The folders of `kernels/` that hold operations; each is also the Cargo feature that gates it.
pub const FAMILIES: [&str; 4] = ["loss", "norm", "quant", "matmul"];

/// The launch code of kernels over rows, and the families that have some.
pub const ROWS: &str = "src/rows";
const OVER_ROWS: [&str; 2] = ["norm", "quant"];

/// What a kernel file is compiled for, in the order of the fatbin. The plain numbers are real
/// architectures, `f` is a family (any later member runs it), and `compute_80` is PTX that a driver
/// translates for GPUs that none of the others fits.
pub const TARGETS: [&str; 7] = ["80", "86", "89", "90a", "100f", "120f", "compute_80"];

/// One `kernels/<family>/<operation>.cu`.
#[derive(Debug, Clone)]
pub struct KernelFile {
    /// Relative to the package root, so that compiler messages and debug information are.
    pub path: PathBuf,
    /// `<family>_<operation>`.
    pub module: String,
    /// A subset of [`TARGETS`], in that order.
    pub targets: Vec<&'static str>,
}

/// Every kernel file of the families that `enabled` accepts, sorted by path.
pub fn kernel_files(
    root: &Path,
    enabled: impl Fn(&str) -> bool,
) -> Result<Vec<KernelFile>, String> {
    let mut found = Vec::new();
    let kernels = root.join("kernels");
    if !kernels.is_dir() {
        return Ok(found);
    }
    for path in
        walk(&kernels).map_err(|error| format!("cannot list {}: {error}", kernels.display()))?
    {
        if path.extension().is_none_or(|extension| extension != "cu") {
            continue;
        }
        let relative = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
        let parts: Vec<&str> = relative.iter().filter_map(|part| part.to_str()).collect();
        let ["kernels", family, file] = parts[..] else {
            return Err(format!(
                "{}: a kernel file is kernels/<family>/<operation>.cu",
                relative.display()
            ));
        };
        if !FAMILIES.contains(&family) {
            return Err(format!(
                "{}: `{family}` is not one of the families {FAMILIES:?}",
                relative.display()
            ));
        }
        if !enabled(family) {
            continue;
        }
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", relative.display()))?;
        if !file_needs(&text).all(&enabled) {
            continue;
        }
        let targets =
            file_targets(&text).map_err(|error| format!("{}: {error}", relative.display()))?;
        let module = format!("{family}_{}", file.trim_end_matches(".cu"));
        // The exported table's name would otherwise be missed by the linker, far from here.
        if !text.contains(&format!("EVENKEEL_EXPORT({module},")) {
            let path = relative.display();
            return Err(format!(
                "{path}: must end with EVENKEEL_EXPORT({module}, ITS_TABLE)"
            ));
        }
        found.push(KernelFile {
            path: relative,
            module,
            targets,
        });
    }
    Ok(found)
}

/// The `// needs: quant` line of a kernel file: the features that gate it beside its own family's.
fn file_needs(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines();
    lines
        .filter_map(|line| line.strip_prefix("// needs:"))
        .flat_map(str::split_whitespace)
}

/// The `// targets: 90a 100f` line of a kernel file; every target without one.
pub fn file_targets(text: &str) -> Result<Vec<&'static str>, String> {
    match text
        .lines()
        .find_map(|line| line.strip_prefix("// targets:"))
    {
        Some(list) => parse_targets(list),
        None => Ok(TARGETS.to_vec()),
    }
}

/// A list of targets separated by spaces or commas, in the order of [`TARGETS`].
pub fn parse_targets(list: &str) -> Result<Vec<&'static str>, String> {
    let mut wanted = BTreeSet::new();
    for name in list
        .split([' ', ',', ';', '\t'])
        .filter(|name| !name.is_empty())
    {
        let name = name.strip_prefix("sm_").unwrap_or(name);
        match TARGETS.iter().position(|target| *target == name) {
            Some(index) => wanted.insert(index),
            None => {
                return Err(format!(
                    "`{name}` is not a target; the targets are {TARGETS:?}"
                ));
            }
        };
    }
    if wanted.is_empty() {
        return Err(format!(
            "an empty list of targets; the targets are {TARGETS:?}"
        ));
    }
    Ok(wanted.into_iter().map(|index| TARGETS[index]).collect())
}

/// `file` and everything it includes by `#include "..."`, directly or not, with contents.
/// Conditional includes count whatever their condition, so the closure may be too large but never
/// too small; headers in angle brackets belong to the compilers, whose versions are part of the
/// cache key. A name that no directory has is left to the compiler to complain about.
pub fn include_closure(
    file: &Path,
    directories: &[&Path],
) -> Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    let mut closure = BTreeMap::new();
    let mut pending = vec![file.to_path_buf()];
    while let Some(path) = pending.pop() {
        if closure.contains_key(&path) {
            continue;
        }
        let contents =
            fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        for name in quoted_includes(&String::from_utf8_lossy(&contents)) {
            let beside = path.parent().map(|parent| parent.join(name));
            let searched = directories.iter().map(|directory| directory.join(name));
            pending.extend(
                beside
                    .into_iter()
                    .chain(searched)
                    .find(|candidate| candidate.is_file()),
            );
        }
        closure.insert(path, contents);
    }
    Ok(closure)
}

fn quoted_includes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line
            .trim_start()
            .strip_prefix('#')?
            .trim_start()
            .strip_prefix("include")?;
        let (name, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
        Some(name)
    })
}

/// `family=hash` for every family with kernels, separated by spaces: what a recorded measurement of
/// that family depends on, namely its kernels, the headers all kernels share, its safe API and the
/// launch path. Comments and blank lines do not count, so that better words do not make
/// measurements stale.
pub fn source_hash(root: &Path) -> io::Result<String> {
    let mut hashes = Vec::new();
    for family in FAMILIES {
        let kernels = root.join("kernels").join(family);
        if !kernels.is_dir() {
            continue;
        }
        let kernel_headers =
            ["platform", "ptx", "common"].map(|shared| root.join("kernels").join(shared));
        let launch = [
            root.join("src").join(family),
            root.join("src/device/launch.rs"),
        ];
        let rows = OVER_ROWS.contains(&family).then(|| root.join(ROWS));
        let parts = [kernels].into_iter().chain(kernel_headers);
        let mut text = String::new();
        for part in parts.chain(launch).chain(rows) {
            let files = if part.is_file() {
                vec![part]
            } else {
                walk(&part)?
            };
            for file in files {
                let name = file.strip_prefix(root).unwrap_or(&file);
                text.push_str(&format!(
                    "== {}\n",
                    name.to_string_lossy().replace('\\', "/")
                ));
                for line in fs::read_to_string(&file)?.lines().map(str::trim) {
                    if !line.is_empty()
                        && (!line.starts_with("//")
                            || ["// targets:", "// needs:"]
                                .iter()
                                .any(|said| line.starts_with(said)))
                    {
                        text.push_str(line);
                        text.push('\n');
                    }
                }
            }
        }
        hashes.push(format!("{family}={}", &sha256::hex(text.as_bytes())[..16]));
    }
    Ok(hashes.join(" "))
}

/// The files under `directory`, sorted; none where it does not exist. Hidden files are editors' and
/// left out.
pub fn walk(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(next) = pending.pop() {
        if !next.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            let hidden = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'));
            match (hidden, path.is_dir()) {
                (true, _) => {}
                (false, true) => pending.push(path),
                (false, false) => files.push(path),
            }
        }
    }
    files.sort();
    Ok(files)
}
