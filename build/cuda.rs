//! Compiles each kernel file with nvcc for each of its targets and packs the results into one
//! fatbin a file.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::cache::{Cache, Entry, Ingredients};
use super::nvcc::{self, Nvcc};
use super::ptxas::{self, Resources};
use super::sources::{self, KernelFile};
use super::{context, pool};

/// The same for every file and target. Denormals, division and square roots stay exact (no
/// fast-math): the tolerances of the tests are derived from IEEE arithmetic.
const FLAGS: [&str; 7] = [
    "-std=c++20",
    "-O3",
    "--expt-relaxed-constexpr",
    "-Werror=cross-execution-space-call",
    "-Ikernels",
    "-Xptxas",
    "-v",
];

/// What else a file is compiled with. Quantisation is bit for bit the reference's: a product and a
/// sum contracted to one rounding would change bits.
fn family_flags(file: &KernelFile) -> &'static [&'static str] {
    if file.module.starts_with("quant_") {
        &["-fmad=false"]
    } else {
        &[]
    }
}

/// A compiler that has compiled the probe.
pub struct Toolkit {
    pub nvcc: Nvcc,
    host_compiler: Option<PathBuf>,
    host_banner: String,
    line_info: bool,
}

/// One kernel file, compiled.
pub struct Compiled {
    pub module: String,
    /// Empty where the file has none of the wanted targets.
    pub targets: Vec<&'static str>,
    pub fatbin: Option<PathBuf>,
    pub resources: Vec<(&'static str, Resources)>,
    pub warnings: Vec<String>,
}

impl Toolkit {
    /// Finds a compiler and makes it compile a kernel with the headers that kernels use. The error
    /// says why this machine builds no CUDA kernels; no kernel of the project was touched by then.
    pub fn find(cache: &Cache, out_dir: &Path) -> Result<Self, String> {
        let installed = nvcc::target_directory(out_dir).map(|target| target.join(nvcc::INSTALLED));
        let nvcc = nvcc::find(installed.as_deref())?;
        // nvcc reads NVCC_CCBIN itself; otherwise it gets the compiler that the cc crate would
        // take.
        let host = context::cxx();
        let host_compiler = match (env::var_os("NVCC_CCBIN"), &host) {
            (None, Ok(tool)) => Some(tool.path().to_path_buf()),
            _ => None,
        };
        let host_banner = host.map(|tool| context::banner(&tool)).unwrap_or_default();
        // Lets compute-sanitizer and the profilers name lines; it triples the size of the kernels.
        let line_info =
            context::variable("EVENKEEL_CUDA_LINEINFO").is_some_and(|value| value != "0");
        let toolkit = Self {
            nvcc,
            host_compiler,
            host_banner,
            line_info,
        };
        toolkit.probe(cache, out_dir)?;
        Ok(toolkit)
    }

    fn probe(&self, cache: &Cache, out_dir: &Path) -> Result<(), String> {
        const SOURCE: &str = "#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n#include <cstdint>\n\
            extern \"C\" __global__ void probe(__nv_bfloat16* to, const __half* from) {\n\
            to[threadIdx.x] = __float2bfloat16(__half2float(from[threadIdx.x]));\n}\n";
        let mut ingredients = self.ingredients("80");
        ingredients
            .add(self.nvcc.path.to_string_lossy().as_bytes())
            .add(SOURCE);
        let entry = cache.entry(&ingredients, "cubin");
        if entry.lookup().is_some() {
            return Ok(());
        }
        let source = out_dir.join("probe.cu");
        fs::write(&source, SOURCE)
            .map_err(|error| format!("cannot write {}: {error}", source.display()))?;
        let mut command = self.command();
        command
            .args(target_flags("80"))
            .arg(&source)
            .arg("-o")
            .arg(entry.scratch());
        let output = command
            .output()
            .map_err(|error| format!("{}: {error}", self.nvcc.path.display()))?;
        let text = log_of(&output);
        if output.status.success() {
            return entry
                .store(&text)
                .map_err(|error| format!("cannot keep the probe's object: {error}"));
        }
        let telling = text
            .lines()
            .find(|line| line.contains("error") || line.contains("not found"));
        let telling = telling
            .or(text.lines().next())
            .unwrap_or("no message")
            .trim();
        let host = self
            .host_compiler
            .as_deref()
            .unwrap_or(Path::new("the default C++ compiler"));
        let (nvcc, version) = (self.nvcc.path.display(), &self.nvcc.version);
        Err(format!(
            "{nvcc} ({version}) with {} cannot compile a test kernel: {telling} (NVCC_CCBIN or CXX names another compiler)",
            host.display()
        ))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.nvcc.path);
        // Flags from outside would not be part of the cache key.
        command
            .env_remove("NVCC_APPEND_FLAGS")
            .env_remove("NVCC_PREPEND_FLAGS")
            .args(FLAGS);
        if let Some(host_compiler) = &self.host_compiler {
            command.arg("-ccbin").arg(host_compiler);
        }
        if self.line_info {
            command.arg("-lineinfo");
        }
        command
    }

    /// What every object of this compiler for `target` depends on besides its sources.
    fn ingredients(&self, target: &str) -> Ingredients {
        let mut ingredients = Ingredients::default();
        ingredients
            .add(&self.nvcc.banner)
            .add(&self.host_banner)
            .add(FLAGS.join(" "))
            .add(target);
        ingredients.add([u8::from(self.line_info)]);
        ingredients
    }

    /// Compiles `files`, each for those of its targets that are `wanted`. The error holds the
    /// messages of every compiler that failed, not only the first.
    pub fn compile(
        &self,
        cache: &Cache,
        files: &[KernelFile],
        wanted: &[&'static str],
        out_dir: &Path,
    ) -> Result<Vec<Compiled>, String> {
        let mut jobs = Vec::new();
        for file in files {
            let closure = sources::include_closure(&file.path, &[Path::new("kernels")])?;
            for &target in file.targets.iter().filter(|target| wanted.contains(target)) {
                let mut ingredients = self.ingredients(target);
                for flag in family_flags(file) {
                    ingredients.add(flag);
                }
                for (path, contents) in &closure {
                    ingredients
                        .add(path.to_string_lossy().as_bytes())
                        .add(contents);
                }
                let extension = if target.starts_with("compute_") {
                    "ptx"
                } else {
                    "cubin"
                };
                let entry = cache.entry(&ingredients, extension);
                jobs.push(move || self.compile_one(file, target, &entry));
            }
        }
        // One mistake in a source shows up once a target; it is told once, with the list of
        // targets.
        let mut errors: Vec<(CompileError, Vec<&str>)> = Vec::new();
        let mut objects = Vec::new();
        for result in pool::run(jobs) {
            match result {
                Ok(object) => objects.push(object),
                Err((target, error)) => {
                    match errors.iter_mut().find(|(other, _)| *other == error) {
                        Some((_, targets)) => targets.push(target),
                        None => errors.push((error, vec![target])),
                    }
                }
            }
        }
        if !errors.is_empty() {
            let told = errors.iter().map(|(error, targets)| {
                format!(
                    "{} for {}:\n{}",
                    error.file.display(),
                    targets.join(" "),
                    error.message
                )
            });
            return Err(told.collect::<Vec<_>>().join("\n"));
        }
        files
            .iter()
            .map(|file| self.pack(file, &objects, out_dir))
            .collect()
    }

    fn compile_one<'a>(
        &self,
        file: &'a KernelFile,
        target: &'static str,
        entry: &Entry,
    ) -> Result<Object<'a>, (&'static str, CompileError)> {
        let failed = |message: String| {
            (
                target,
                CompileError {
                    file: file.path.clone(),
                    message,
                },
            )
        };
        let log = match entry.lookup() {
            Some(log) => log,
            None => {
                let mut command = self.command();
                command
                    .args(family_flags(file))
                    .args(target_flags(target))
                    .arg(&file.path)
                    .arg("-o")
                    .arg(entry.scratch());
                let output = command
                    .output()
                    .map_err(|error| failed(error.to_string()))?;
                let log = log_of(&output);
                let (_, fatal) = ptxas::warnings(&log);
                if !output.status.success() || fatal {
                    let _ = fs::remove_file(entry.scratch());
                    return Err(failed(without_reports(&log)));
                }
                let stored = entry.store(&log);
                stored.map_err(|error| failed(format!("cannot keep the object: {error}")))?;
                log
            }
        };
        Ok(Object {
            file,
            target,
            object: entry.object.clone(),
            log,
        })
    }

    fn pack(
        &self,
        file: &KernelFile,
        objects: &[Object<'_>],
        out_dir: &Path,
    ) -> Result<Compiled, String> {
        let own: Vec<&Object<'_>> = objects
            .iter()
            .filter(|object| object.file.path == file.path)
            .collect();
        let mut compiled = Compiled {
            module: file.module.clone(),
            targets: own.iter().map(|object| object.target).collect(),
            fatbin: None,
            resources: Vec::new(),
            warnings: Vec::new(),
        };
        for object in &own {
            compiled.resources.extend(
                ptxas::resources(&object.log)
                    .into_iter()
                    .map(|found| (object.target, found)),
            );
            compiled.warnings.extend(
                ptxas::warnings(&object.log)
                    .0
                    .into_iter()
                    .map(str::to_string),
            );
        }
        compiled.warnings.dedup();
        if own.is_empty() {
            return Ok(compiled);
        }
        let fatbin = out_dir.join(format!("{}.fatbin", file.module));
        let mut command = Command::new(
            self.nvcc
                .bin()
                .join(format!("fatbinary{}", env::consts::EXE_SUFFIX)),
        );
        command
            .arg(format!("--create={}", fatbin.display()))
            .args(["-64", "--compress-mode=size"]);
        for object in own {
            let (kind, number) = match object.target.strip_prefix("compute_") {
                Some(number) => ("ptx", number),
                None => ("elf", object.target),
            };
            command.arg(format!(
                "--image3=kind={kind},sm={number},file={}",
                object.object.display()
            ));
        }
        let output = command
            .output()
            .map_err(|error| format!("fatbinary: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "fatbinary for {}:\n{}",
                file.path.display(),
                log_of(&output)
            ));
        }
        compiled.fatbin = Some(fatbin);
        Ok(compiled)
    }
}

#[derive(PartialEq, Eq)]
struct CompileError {
    file: PathBuf,
    message: String,
}

struct Object<'a> {
    file: &'a KernelFile,
    target: &'static str,
    object: PathBuf,
    log: String,
}

fn target_flags(target: &str) -> Vec<String> {
    match target.strip_prefix("compute_") {
        Some(number) => vec!["-ptx".into(), format!("-arch=compute_{number}")],
        None => vec![
            "-cubin".into(),
            format!("-gencode=arch=compute_{target},code=sm_{target}"),
        ],
    }
}

fn log_of(output: &Output) -> String {
    let mut log = String::from_utf8_lossy(&output.stdout).into_owned();
    log.push_str(&String::from_utf8_lossy(&output.stderr));
    log
}

/// What a person wants to read of a failed compilation: ptxas -v reports, which may precede the
/// message, are left out.
fn without_reports(log: &str) -> String {
    let report = |line: &&str| {
        let potential = line.contains("Potential Performance Loss") || line.contains("setmaxnreg");
        (line.starts_with("ptxas info") && !potential) || line.contains("bytes stack frame")
    };
    log.lines()
        .filter(|line| !report(line))
        .collect::<Vec<_>>()
        .join("\n")
}
