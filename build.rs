//! Compiles `kernels/` with nvcc into one fatbin a file, and for the emulator with the C++
//! compiler, and writes `OUT_DIR/kernels.rs`, the table that the library includes.
//!
//! A machine without a CUDA compiler builds the library without CUDA kernels;
//! EVENKEEL_REQUIRE_CUDA=1 makes that an error. Where a compiler works, an error in a kernel is a
//! build error. Nothing here touches the network: `cargo xtask toolchain` installs a compiler into
//! target/cuda.
//!
//! EVENKEEL_CUDA_ARCHS=90a limits the targets, EVENKEEL_CUDA_LINEINFO=1 keeps line numbers for
//! profilers and sanitizers.
//!
//! The modules are in `build/`; xtask uses some of them too.

mod build {
    pub mod cache;
    pub mod context;
    pub mod cuda;
    pub mod emit;
    pub mod host;
    pub mod nvcc;
    pub mod pool;
    pub mod ptxas;
    pub mod sha256;
    pub mod sources;
}

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use build::cache::Cache;
use build::context;
use build::cuda::Toolkit;
use build::emit::Outcome;
use build::sources::{self, FAMILIES, TARGETS};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let out_dir = env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .ok_or("OUT_DIR is not set: run by cargo only")?;
    let root = Path::new("");
    let families = FAMILIES.map(|family| format!("src/{family}"));
    let fixed = [
        "build.rs",
        "build",
        "kernels",
        "src/device/launch.rs",
        sources::ROWS,
    ];
    for path in fixed.into_iter().chain(families.iter().map(String::as_str)) {
        // An absent path would make cargo run this script every time.
        if Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "NVCC_CCBIN"] {
        context::variable(variable);
    }
    let wanted = match context::variable("EVENKEEL_CUDA_ARCHS") {
        Some(list) => sources::parse_targets(&list)
            .map_err(|error| format!("EVENKEEL_CUDA_ARCHS: {error}"))?,
        None => TARGETS.to_vec(),
    };
    let required = context::variable("EVENKEEL_REQUIRE_CUDA").is_some_and(|value| value != "0");
    let documentation = env::var_os("DOCS_RS").is_some();

    let files = sources::kernel_files(root, context::feature)?;
    let source_hash =
        sources::source_hash(root).map_err(|error| format!("cannot hash the sources: {error}"))?;
    let cache =
        Cache::open(&out_dir).map_err(|error| format!("cannot make the kernel cache: {error}"))?;

    let toolkit = match documentation {
        true => Err("this build is for documentation only".to_string()),
        false => Toolkit::find(&cache, &out_dir),
    };
    let cuda = match &toolkit {
        Ok(toolkit) => Ok((toolkit, toolkit.compile(&cache, &files, &wanted, &out_dir)?)),
        Err(reason) if required => {
            return Err(format!(
                "EVENKEEL_REQUIRE_CUDA is set, but there are no CUDA kernels: {reason}"
            ));
        }
        Err(reason) => {
            // A compiler that appears on the PATH is noticed. With a compiler, the PATH is not
            // watched: it differs between shells and editors, and each change would compile the
            // crate again.
            context::variable("PATH");
            if !documentation {
                println!(
                    "cargo:warning=no CUDA kernels: {}",
                    reason.replace('\n', " ")
                );
            }
            Err(reason.clone())
        }
    };
    if let Ok((toolkit, compiled)) = &cuda {
        println!("cargo:rerun-if-changed={}", toolkit.nvcc.path.display());
        for warning in compiled.iter().flat_map(|one| &one.warnings) {
            println!("cargo:warning={warning}");
        }
    }
    let host = context::feature("emulator");
    if host && !documentation {
        build::host::compile(&cache, &files)?;
    }

    let outcome = Outcome {
        files: &files,
        cuda,
        host,
        targets: &wanted,
        source_hash: &source_hash,
    };
    let write = |result: std::io::Result<()>| {
        result.map_err(|error| format!("cannot write to OUT_DIR: {error}"))
    };
    write(outcome.write_kernels(&out_dir))?;
    write(outcome.write_report(&out_dir))?;
    cache.prune();
    Ok(())
}
