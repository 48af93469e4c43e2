//! Writes what the crate includes (`kernels.rs`) and what the tests of the compiled code read
//! (`report.txt`).

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::cuda::{Compiled, Toolkit};
use super::nvcc;
use super::sources::KernelFile;

/// Everything the build found out.
pub struct Outcome<'a> {
    pub files: &'a [KernelFile],
    pub cuda: Result<(&'a Toolkit, Vec<Compiled>), String>,
    /// Whether the kernels were compiled for the emulator.
    pub host: bool,
    pub targets: &'a [&'static str],
    pub source_hash: &'a str,
}

impl Outcome<'_> {
    /// The table of kernels as Rust source. Without kernels it is the same items with nothing in
    /// them.
    pub fn write_kernels(&self, out_dir: &Path) -> io::Result<()> {
        let mut text = String::from("// Written by build.rs.\n\n");
        let mut modules = String::new();
        for file in self.files {
            let name = &file.module;
            let compiled = match &self.cuda {
                Ok((_, compiled)) => compiled.iter().find(|compiled| compiled.module == *name),
                Err(_) => None,
            };
            let fatbin = match compiled.and_then(|compiled| compiled.fatbin.as_ref()) {
                Some(_) => format!("Some(aligned!(\"/{name}.fatbin\"))"),
                None => "None".to_string(),
            };
            let host = match self.host {
                true => format!("\n        host: Some(evenkeel_kernels_{name}),"),
                false => String::new(),
            };
            let _ = write!(
                modules,
                "    Module {{\n        name: {name:?},\n        fatbin: {fatbin},{host}\n    }},\n"
            );
        }
        let (not_built, version) = match &self.cuda {
            Ok((toolkit, _)) => ("None".to_string(), toolkit.nvcc.version.as_str()),
            Err(reason) => (format!("Some({reason:?})"), ""),
        };
        let targets = if self.cuda.is_ok() { self.targets } else { &[] };
        let release = nvcc::release(version);

        if modules.contains("aligned!(") {
            text.push_str(ALIGNED);
        }
        text.push_str(MODULE);
        if self.host {
            text.push_str(HOST_FIELD);
        }
        text.push_str("}\n\n");
        if self.host && !self.files.is_empty() {
            text.push_str("unsafe extern \"C\" {\n");
            for file in self.files {
                let _ = writeln!(
                    text,
                    "    fn evenkeel_kernels_{}(count: *mut usize) -> *const evenkeel_emulator::CudaEmulatorKernel;",
                    file.module
                );
            }
            text.push_str("}\n\n");
        }
        let _ = write!(
            text,
            "/// One entry for each kernel file of the enabled families.\n\
             pub(crate) static MODULES: &[Module] = &[\n{modules}];\n\n\
             /// Why there are no CUDA kernels, where there are none.\n\
             #[allow(dead_code)]\npub(crate) const NOT_BUILT: Option<&str> = {not_built};\n\n\
             /// What the kernels were compiled for: `90a` is sm_90a, `compute_80` is PTX.\n\
             #[allow(dead_code)]\npub(crate) const TARGETS: &[&str] = &{targets:?};\n\n\
             /// The version of the CUDA compiler; empty without kernels.\n\
             #[allow(dead_code)]\npub(crate) const CUDA_VERSION: &str = {version:?};\n\n\
             /// Its major and minor number; zeros without kernels.\n\
             #[allow(dead_code)]\npub(crate) const CUDA_RELEASE: (u32, u32) = {release:?};\n\n\
             /// `family=hash` of the kernels and the code that launches them.\n\
             #[allow(dead_code)]\npub(crate) const SOURCE_HASH: &str = {:?};\n",
            self.source_hash
        );
        write_if_changed(&out_dir.join("kernels.rs"), &text)
    }

    /// One line a fact: `compiler`, `bin`, `not-built`, `fatbin module targets`, and
    /// `kernel module name target registers shared stack spill_stores spill_loads`.
    pub fn write_report(&self, out_dir: &Path) -> io::Result<()> {
        let mut text = String::new();
        match &self.cuda {
            Err(reason) => {
                let _ = writeln!(text, "not-built {}", reason.replace('\n', " "));
            }
            Ok((toolkit, compiled)) => {
                let _ = writeln!(text, "compiler {}", toolkit.nvcc.version);
                let _ = writeln!(text, "bin {}", toolkit.nvcc.bin().display());
                for one in compiled {
                    let _ = writeln!(text, "fatbin {} {}", one.module, one.targets.join(" "));
                    for (target, r) in &one.resources {
                        let _ = writeln!(
                            text,
                            "kernel {} {} {target} {} {} {} {} {}",
                            one.module,
                            r.kernel,
                            r.registers,
                            r.shared,
                            r.stack,
                            r.spill_stores,
                            r.spill_loads
                        );
                    }
                }
            }
        }
        write_if_changed(&out_dir.join("report.txt"), &text)
    }
}

const ALIGNED: &str = "\
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

/// The bytes of a file, where the driver can read them without a copy.
macro_rules! aligned {
    ($file:literal) => {{
        static BYTES: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!(\"OUT_DIR\"), $file)));
        &BYTES.0
    }};
}

";

const MODULE: &str = "\
/// A kernel file.
#[allow(dead_code)]
pub(crate) struct Module {
    /// `<family>_<operation>`.
    pub(crate) name: &'static str,
    /// Every target in one; aligned to 16 bytes. None where the file has none of the targets that
    /// were built.
    pub(crate) fatbin: Option<&'static [u8]>,
";

const HOST_FIELD: &str = "    \
    /// The table of the file's kernels, compiled for the emulator.
    pub(crate) host: Option<unsafe extern \"C\" fn(*mut usize) -> *const evenkeel_emulator::CudaEmulatorKernel>,
";

/// Leaves the file's time alone where nothing changed, so that nothing is compiled again because of
/// it.
fn write_if_changed(path: &Path, text: &str) -> io::Result<()> {
    match fs::read_to_string(path) {
        Ok(old) if old == text => Ok(()),
        _ => fs::write(path, text),
    }
}
