//! Barriers of a block, and races on its shared memory.

use crate::harness::{Bench, SEEDS, caught, kernel, passes};
use evenkeel_emulator::{FindingKind, Launch};

fn threads(n: u32) -> Launch {
    Launch::default().block([n, 1, 1]).shared_bytes(n * 4)
}

#[test]
fn missing_syncthreads() {
    let launch = threads(96).grid([3, 1, 1]);
    caught(
        "neighbour_wrong",
        &launch,
        288,
        FindingKind::Race,
        "neighbour-race",
    );
    let out = passes("neighbour_right", &launch, 288).floats();
    assert!((0..288).all(|i| out[i] == (i / 96 * 96 + (i % 96 + 1) % 96) as f32));
}

#[test]
fn missing_syncthreads_before_reuse() {
    caught(
        "reuse_wrong",
        &threads(128),
        128,
        FindingKind::Race,
        "reuse-race",
    );
    let out = passes("reuse_right", &threads(128), 128).floats();
    assert!((0..128).all(|i| out[i] == ((i + 2) % 128) as f32));
}

#[test]
fn a_shuffle_orders_no_memory() {
    caught(
        "lanes_wrong",
        &threads(32),
        32,
        FindingKind::Race,
        "lanes-race",
    );
    passes("lanes_right", &threads(32), 32);
}

#[test]
fn a_race_names_both_threads_and_lines() {
    let bench = Bench::new(64);
    let report = bench.run("neighbour_wrong", &threads(64));
    let race = report.findings.iter().find(|f| f.kind == FindingKind::Race);
    let text = race.unwrap().to_string();
    assert!(
        text.contains("thread (") && text.contains("of block (0, 0, 0)"),
        "{text}"
    );
    assert_eq!(text.matches("block.cc:").count(), 2, "{text}");
}

#[test]
fn threads_that_leave_before_a_barrier() {
    caught(
        "leaves_wrong",
        &threads(64),
        64,
        FindingKind::Divergence,
        "leaves-divergence",
    );
    passes("leaves_right", &threads(64), 64);
}

#[test]
fn barriers_in_two_branches() {
    for seed in SEEDS {
        let report = Bench::new(64).run("branches_wrong", &threads(64).seed(seed));
        assert!(
            report.found(FindingKind::Divergence),
            "{:?}",
            report.findings
        );
    }
    passes("branches_right", &threads(64), 64);
}

#[test]
fn deadlock_names_who_waits_where() {
    caught(
        "named_deadlock_wrong",
        &threads(64),
        64,
        FindingKind::Deadlock,
        "named-deadlock",
    );
    passes("named_deadlock_right", &threads(64), 64);
    let report = Bench::new(64).run("named_deadlock_wrong", &threads(64));
    let text = report.findings[0].to_string();
    assert!(text.contains("threads 0-31: wait at barrier 3"), "{text}");
    assert!(text.contains("32 threads have exited"), "{text}");
}

#[test]
fn named_barriers_hand_over() {
    for seed in SEEDS {
        let report = Bench::new(128).run("hand_over_wrong", &threads(64).seed(seed));
        assert!(report.found(FindingKind::Race), "{:?}", report.findings);
    }
    let out = passes("hand_over_right", &threads(64), 128).floats();
    assert!((0..128).all(|i| out[i] == (i / 32 * 32 + 31 - i % 32) as f32));
}

#[test]
fn barrier_counts_are_checked() {
    caught(
        "odd_count_wrong",
        &threads(64),
        64,
        FindingKind::BarrierMisuse,
        "odd-count",
    );
    passes("odd_count_right", &threads(64), 64);
    for seed in SEEDS {
        let report = Bench::new(96).run("counts_differ_wrong", &threads(96).seed(seed));
        // Two warps may meet without the third, which then waits forever.
        let hit = report.found(FindingKind::BarrierMisuse) || report.found(FindingKind::Deadlock);
        assert!(hit, "{:?}", report.findings);
    }
    passes("counts_differ_right", &threads(96), 96);
}

#[test]
fn uninitialised_shared_memory() {
    caught(
        "unwritten_wrong",
        &threads(64),
        64,
        FindingKind::Uninitialised,
        "unwritten-read",
    );
    passes("unwritten_right", &threads(64), 64);
}

#[test]
fn barriers_that_reduce() {
    let words = passes("reducing", &threads(64), 64).words();
    // 22 multiples of 3 below 64; and; or; and; or.
    assert!(words.iter().all(|&w| w == 221_001), "{words:?}");
}

#[test]
fn an_endless_loop_is_bounded() {
    let launch = threads(32).max_steps(1_000_000);
    caught(
        "endless_wrong",
        &launch,
        32,
        FindingKind::Livelock,
        "endless",
    );
    passes("endless_right", &launch, 32);
}

#[test]
fn traps_are_findings() {
    caught("traps_wrong", &threads(32), 32, FindingKind::Trap, "traps");
    passes("traps_right", &threads(32), 32);
}

#[test]
fn stacks_are_bounded() {
    caught(
        "recursion_wrong",
        &threads(32),
        32,
        FindingKind::StackOverflow,
        "recursion",
    );
    passes("recursion_right", &threads(32), 32);
}

#[test]
fn a_launch_after_an_abandoned_one_is_whole() {
    let bench = Bench::new(96);
    let _ = bench.run("named_deadlock_wrong", &threads(64));
    assert!(bench.run("neighbour_right", &threads(96)).is_clean());
    assert_eq!(kernel("neighbour_right").0.params_bytes(), 32);
}
