//! Compiles the shim that holds the instrumentation hooks, and hands the header folder and the
//! flags for kernels to dependents (DEP_EVENKEEL_EMULATOR_INCLUDE, DEP_EVENKEEL_EMULATOR_FLAGS).

// Cargo sets the variables that are expected here.
#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::{env, fs};

/// How host kernels are compiled; each flag with its reason.
const FLAGS: &[&str] = &[
    "-std=c++20",
    "-O2",
    "-g1",
    "-fPIC",
    // Every load and store calls a hook; volatile ones another, so that spinning can yield.
    "-fsanitize=thread",
    "--param=tsan-distinguish-volatile=1",
    // A call in every basic block bounds the steps of a thread: an endless loop is a finding.
    "-fsanitize-coverage=trace-pc",
    // A loop that never ends stays one.
    "-fno-finite-loops",
    // Abandoned threads are not unwound, and g++ would otherwise contract a*b+c.
    "-fno-exceptions",
    "-fno-rtti",
    "-ffp-contract=off",
    // One access in the source is one access in the object code, with its own line: no splitting
    // of 16-byte copies, no vectors or library calls made from loops, no merged tails.
    "-fno-tree-sra",
    "-fno-ipa-sra",
    "-fno-tree-vectorize",
    "-fno-tree-loop-distribute-patterns",
    "-fno-optimize-sibling-calls",
    "-fno-crossjumping",
    "-fno-tree-tail-merge",
    "-fno-code-hoisting",
    "-fno-ipa-icf",
    "-fno-strict-aliasing",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-changed=include");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    println!("cargo::metadata=include={}", root.join("include").display());
    println!("cargo::metadata=flags={}", FLAGS.join(" "));

    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .opt_level(2)
        .pic(true)
        .warnings(true)
        .flag_if_supported("-fno-exceptions")
        .flag_if_supported("-fno-rtti")
        // Unwinding passes through these frames when a launch panics inside a hook.
        .flag_if_supported("-fasynchronous-unwind-tables")
        .file("shim/hooks.cc")
        .file("shim/primitives.cc")
        .cargo_metadata(true)
        // libstdc++ is not used; kernels link what they need.
        .cpp_link_stdlib(None)
        .compile("evenkeel_emulator_shim");

    if env::var_os("CARGO_FEATURE_TEST_KERNELS").is_some() {
        compile_test_kernels(&root);
    }
}

/// The kernels of the tests and examples, compiled as a user's build script would.
fn compile_test_kernels(root: &Path) {
    for (folder, kind) in [("tests/kernels", "tests"), ("examples", "examples")] {
        let folder = root.join(folder);
        println!("cargo::rerun-if-changed={}", folder.display());
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "cc"))
            .collect();
        files.sort();
        if files.is_empty() {
            continue;
        }
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .cargo_metadata(false)
            .no_default_flags(true)
            .include(root.join("include"))
            .files(files);
        for flag in FLAGS {
            build.flag(flag);
        }
        let name = format!("evenkeel_emulator_kernels_{kind}");
        build.warnings(true).compile(&name);
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
        println!(
            "cargo::rustc-link-arg-{kind}={}",
            out.join(format!("lib{name}.a")).display()
        );
    }
}
