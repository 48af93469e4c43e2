//! Tests of the parts that xtask shares with the build script.

use std::fs;
use std::path::PathBuf;

use crate::build::ptxas::{self, Resources};
use crate::build::{nvcc, sha256, sources};
use crate::format::settle;

#[test]
fn sha256_of_the_standards_examples() {
    let cases: [(&[u8], &str); 3] = [
        (
            b"",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (
            b"abc",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
    ];
    for (data, digest) in cases {
        assert_eq!(sha256::hex(data), digest);
    }
    let million = vec![b'a'; 1_000_000];
    assert_eq!(
        sha256::hex(&million),
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    );
}

const LOG: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'softmax_two' for 'sm_90a'
ptxas info    : Function properties for softmax_two
    1024 bytes stack frame, 36 bytes spill stores, 40 bytes spill loads
ptxas info    : Function properties for helper
    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 1024 bytes cumulative stack size, 48 bytes smem
ptxas info    : Compile time = 13.089 ms
ptxas info    : Compiling entry function 'softmax_one' for 'sm_90a'
ptxas info    : Function properties for softmax_one
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
";

#[test]
fn resources_of_each_kernel_and_not_of_its_functions() {
    let resources = |kernel: &str, registers, shared, stack, spill_stores, spill_loads| Resources {
        kernel: kernel.into(),
        registers,
        shared,
        stack,
        spill_stores,
        spill_loads,
    };
    let expected = [
        resources("softmax_two", 255, 48, 1024, 36, 40),
        resources("softmax_one", 8, 0, 0, 0, 0),
    ];
    assert_eq!(ptxas::resources(LOG), expected);
}

#[test]
fn ignored_hopper_instructions_are_fatal_and_other_warnings_are_not() {
    assert_eq!(ptxas::warnings(LOG), (vec![], false));
    let mild = "k.cu(3): warning #177-D: variable \"x\" was declared but never referenced";
    assert_eq!(ptxas::warnings(mild), (vec![mild], false));
    for fatal in [
        "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to insufficient register resources",
        "ptxas info    : (C7507) Potential Performance Loss: 'setmaxnreg' ignored to maintain compatibility",
        "ptxas warning : setmaxnreg ignored; unable to determine register count at entry",
    ] {
        assert_eq!(ptxas::warnings(fatal), (vec![fatal], true));
    }
}

#[test]
fn versions_of_nvcc() {
    let banner = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88\nBuild x\n";
    assert_eq!(nvcc::parse_version(banner).as_deref(), Some("13.0.88"));
    assert_eq!(nvcc::parse_version("gcc 12"), None);
    assert!(nvcc::release("12.8.93") < nvcc::OLDEST);
    assert!(nvcc::release("12.9.41") >= nvcc::OLDEST);
    assert!(nvcc::release("13.0.88") > nvcc::OLDEST);
}

#[test]
fn targets_of_a_file_and_of_a_build() {
    assert_eq!(
        sources::file_targets("// A kernel.\n").unwrap(),
        sources::TARGETS
    );
    assert_eq!(
        sources::file_targets("// A kernel.\n// targets: 100f 90a\n").unwrap(),
        ["90a", "100f"]
    );
    assert_eq!(
        sources::parse_targets("sm_90a,compute_80").unwrap(),
        ["90a", "compute_80"]
    );
    assert!(sources::parse_targets("91").unwrap_err().contains("`91`"));
    assert!(sources::parse_targets(" ").is_err());
}

/// A repository of two families below the temporary directory.
fn repository(name: &str) -> PathBuf {
    let root = std::env::temp_dir().join(format!("evenkeel-xtask-{}-{name}", std::process::id()));
    let files = [
        (
            "kernels/loss/softmax.cu",
            "#include \"common/a.cuh\"\n#include <cstdint>\n// targets: 90a\nEVENKEEL_EXPORT(loss_softmax, K)\n",
        ),
        (
            "kernels/norm/rms.cu",
            "#  include \"rms.cuh\" // beside\nEVENKEEL_EXPORT(norm_rms, K)\n",
        ),
        (
            "kernels/norm/rms.cuh",
            "#include \"common/a.cuh\"\n#if 0\n#include \"absent.cuh\"\n#endif\n",
        ),
        ("kernels/common/a.cuh", "#pragma once\n"),
        ("src/loss/softmax.rs", "fn launch() {}\n"),
        ("src/device/launch.rs", "fn launch() {}\n"),
    ];
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

#[test]
fn kernel_files_and_what_they_include() {
    let root = repository("files");
    let files = sources::kernel_files(&root, |family| family == "loss").unwrap();
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].module, "loss_softmax");
    assert_eq!(files[0].targets, ["90a"]);

    let kernels = root.join("kernels");
    let closure = sources::include_closure(&kernels.join("norm/rms.cu"), &[&kernels]).unwrap();
    let names: Vec<_> = closure
        .keys()
        .map(|path| path.strip_prefix(&kernels).unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["common/a.cuh", "norm/rms.cu", "norm/rms.cuh"]);

    fs::write(
        kernels.join("norm/layer.cu"),
        "EVENKEEL_EXPORT(norm_rms, K)\n",
    )
    .unwrap();
    let unnamed = sources::kernel_files(&root, |_| true).unwrap_err();
    assert!(unnamed.contains("EVENKEEL_EXPORT(norm_layer,"), "{unnamed}");
    fs::remove_file(kernels.join("norm/layer.cu")).unwrap();

    fs::create_dir_all(kernels.join("other")).unwrap();
    fs::write(kernels.join("other/x.cu"), "").unwrap();
    assert!(
        sources::kernel_files(&root, |_| true)
            .unwrap_err()
            .contains("`other`")
    );
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn the_source_hash_follows_code_and_not_comments() {
    let root = repository("hash");
    let hashes = || -> Vec<String> {
        sources::source_hash(&root)
            .unwrap()
            .split(' ')
            .map(str::to_string)
            .collect()
    };
    let before = hashes();
    assert!(
        before[0].starts_with("loss=") && before[1].starts_with("norm="),
        "{before:?}"
    );

    fs::write(
        root.join("kernels/common/a.cuh"),
        "// Words.\n\n  #pragma once\n",
    )
    .unwrap();
    assert_eq!(hashes(), before);
    fs::write(
        root.join("src/loss/softmax.rs"),
        "fn launch(grid: u32) {}\n",
    )
    .unwrap();
    let after = hashes();
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1]);
    fs::write(root.join("kernels/common/a.cuh"), "int shared_by_both;\n").unwrap();
    assert!(hashes().iter().zip(&after).all(|(now, then)| now != then));
    fs::remove_dir_all(root).unwrap();
}

/// Cargo tags a target directory that it makes, and not one that was there.
#[test]
fn the_target_directory_is_found_with_and_without_cargos_tag() {
    let root = std::env::temp_dir().join(format!("evenkeel-target-{}", std::process::id()));
    let out_dir = root.join("target/release/build/evenkeel-0/out");
    std::fs::create_dir_all(&out_dir).unwrap();
    assert_eq!(nvcc::target_directory(&out_dir), None);
    std::fs::create_dir(root.join("target/release/.fingerprint")).unwrap();
    assert_eq!(nvcc::target_directory(&out_dir), Some(root.join("target")));
    // A tag counts before the place of the fingerprints.
    std::fs::write(root.join("CACHEDIR.TAG"), "# created by cargo").unwrap();
    assert_eq!(nvcc::target_directory(&out_dir), Some(root.clone()));
    std::fs::remove_dir_all(&root).unwrap();
}

/// A formatter that wants several passes, as clang-format does now and then: each takes an `x` away.
#[test]
fn formatting_goes_on_until_nothing_changes() {
    let folder = std::env::temp_dir().join(format!("evenkeel-format-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let files = ["a.cu", "b.cuh"].map(|name| folder.join(name));
    let pass = |files: &[PathBuf]| {
        for file in files {
            let text = fs::read_to_string(file).unwrap();
            fs::write(file, text.strip_suffix('x').unwrap_or(&text)).unwrap();
        }
        Ok(())
    };
    let lengths = || files.each_ref().map(|file| fs::read(file).unwrap().len());
    fs::write(&files[0], "xxx").unwrap();
    fs::write(&files[1], "").unwrap();
    settle(&files, pass).unwrap();
    assert_eq!(lengths(), [0, 0]);

    fs::write(&files[1], "x".repeat(100)).unwrap();
    let error = settle(&files, pass).unwrap_err();
    assert!(error.contains("b.cuh"), "{error}");
    assert_eq!(settle(&files, |_| Err("no".into())), Err("no".into()));
    fs::remove_dir_all(folder).unwrap();
}
