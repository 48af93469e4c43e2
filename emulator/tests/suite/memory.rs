//! Accesses to global memory.

use crate::harness::{Args, Bench, SEEDS, caught, passes};
use evenkeel_emulator::{Architecture, Emulator, FindingKind, Launch, MemoryError};

fn launch() -> Launch {
    Launch::default().grid([4, 1, 1]).block([64, 1, 1])
}

fn one() -> Launch {
    Launch::default().block([32, 1, 1])
}

#[test]
fn reads_out_of_bounds() {
    caught(
        "reads_past_wrong",
        &launch(),
        190,
        FindingKind::OutOfBounds,
        "reads-past",
    );
    passes("reads_past_right", &launch(), 190);
}

#[test]
fn writes_out_of_bounds() {
    caught(
        "writes_past_wrong",
        &launch(),
        250,
        FindingKind::OutOfBounds,
        "writes-past",
    );
    passes("writes_past_right", &launch(), 250);
    caught("wild_wrong", &one(), 32, FindingKind::OutOfBounds, "wild");
    passes("wild_right", &one(), 32);
    caught(
        "writes_params_wrong",
        &one(),
        32,
        FindingKind::OutOfBounds,
        "writes-params",
    );
    passes("writes_params_right", &one(), 32);
    caught(
        "library_copy_wrong",
        &one(),
        32,
        FindingKind::OutOfBounds,
        "library-copy",
    );
    passes("library_copy_right", &one(), 32);
}

#[test]
fn the_distance_to_the_buffer_is_told() {
    let report = Bench::new(250).run("writes_past_wrong", &launch());
    let text = report.findings[0].to_string();
    assert!(
        text.contains("past the end of a buffer of 1000 bytes"),
        "{text}"
    );
}

#[test]
fn use_after_free() {
    for seed in SEEDS {
        let bench = Bench::new(64);
        let gone = bench.emulator.alloc(256).unwrap();
        let args = Args {
            output: gone.addr(),
            ..bench.args()
        };
        let launch = launch().grid([1, 1, 1]).seed(seed);
        assert!(
            bench
                .run_with("writes_past_right", &launch, &args)
                .is_clean()
        );
        drop(gone);
        let report = bench.run_with("writes_past_right", &launch, &args);
        let finding = &report.findings[0];
        assert_eq!(finding.kind, FindingKind::UseAfterFree, "{finding}");
        assert!(
            finding.thread.is_some() && finding.location.is_some(),
            "{finding}"
        );
    }
}

#[test]
fn misaligned_vectors() {
    caught(
        "misaligned_wrong",
        &one(),
        64,
        FindingKind::Misaligned,
        "misaligned",
    );
    passes("misaligned_right", &one(), 64);
}

#[test]
fn uninitialised_global_memory() {
    caught(
        "accumulates_wrong",
        &one(),
        32,
        FindingKind::Uninitialised,
        "accumulates",
    );
    passes("accumulates_right", &one(), 32);
}

#[test]
fn races_between_blocks() {
    for workers in [1, 4] {
        let launch = launch().workers(workers);
        caught(
            "blocks_collide_wrong",
            &launch,
            256,
            FindingKind::Race,
            "blocks-collide",
        );
        passes("blocks_collide_right", &launch, 256);
    }
}

#[test]
fn bytes_of_one_word_are_apart() {
    passes("bytes", &one(), 32);
}

#[test]
fn stack_and_constants_are_free() {
    let bench = passes("locals", &one(), 32);
    let first: f32 = (0..8).map(|i| (i * (i + 1)) as f32).sum::<f32>() + 36.0;
    assert_eq!(bench.floats()[0], first);
}

#[test]
fn fresh_memory_is_not_a_number_and_sparse() {
    let emulator = Emulator::new(Architecture::sm_90());
    let bytes = 16385 * 262_144 * 2;
    let huge = emulator.alloc(bytes).unwrap();
    let mut data = [0u8; 4];
    huge.read(bytes - 4, &mut data).unwrap();
    assert!(f32::from_le_bytes(data).is_nan());
    assert_eq!(huge.first_uninitialised(bytes - 8, 8), Ok(Some(bytes - 8)));
    huge.write(bytes - 8, &[1; 4]).unwrap();
    assert_eq!(huge.first_uninitialised(bytes - 8, 8), Ok(Some(bytes - 4)));
    let outside = huge.write(bytes - 2, &[0; 4]);
    assert!(matches!(outside, Err(MemoryError::OutOfBounds { .. })));
}

#[test]
fn addresses_are_never_reused() {
    let emulator = Emulator::new(Architecture::sm_90());
    let mut last = 0;
    for _ in 0..100 {
        let memory = emulator.alloc(100).unwrap();
        assert!(memory.addr() > last && memory.addr().is_multiple_of(256));
        last = memory.addr();
    }
}
