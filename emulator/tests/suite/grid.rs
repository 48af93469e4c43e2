//! Waits between blocks, and what the number of workers must not change.

use crate::harness::{Bench, SEEDS, caught, caught_on, passes, passes_on};
use evenkeel_emulator::{Architecture, FindingKind, Launch};

fn blocks(n: u32) -> Launch {
    Launch::default()
        .grid([n, 1, 1])
        .block([32, 1, 1])
        .shared_bytes(64)
}

#[test]
fn the_last_block_reduces() {
    caught(
        "last_block_wrong",
        &blocks(20),
        64,
        FindingKind::Race,
        "last-block",
    );
    for workers in [1, 3] {
        let out = passes("last_block_right", &blocks(20).workers(workers), 64).floats();
        assert_eq!(out[20], 210.0);
    }
}

#[test]
fn flags_hand_over() {
    caught("chain_wrong", &blocks(20), 64, FindingKind::Race, "chain");
    for workers in [1, 2, 5] {
        let out = passes("chain_right", &blocks(20).workers(workers), 64).floats();
        assert!((0..20).all(|i| out[i] == (i + 1) as f32));
    }
    let out = passes("volatile_chain", &blocks(12), 64).floats();
    assert!((0..12).all(|i| out[i] == (1u32 << i) as f32));
}

#[test]
fn locks() {
    caught("lock_wrong", &blocks(6), 64, FindingKind::Race, "lock");
    for workers in [1, 4] {
        assert_eq!(
            passes("lock_right", &blocks(6).workers(workers), 64).words()[1],
            18
        );
    }
}

#[test]
fn scopes_count() {
    caught("scope_wrong", &blocks(2), 64, FindingKind::Race, "scope");
    passes("scope_right", &blocks(2), 64);
}

#[test]
fn a_barrier_of_the_grid_needs_all_blocks_resident() {
    // One multiprocessor holds 32 blocks of one warp.
    let small = Architecture::sm_90().with_multiprocessors(1);
    for workers in [1, 2] {
        let out = passes_on(
            small.clone(),
            "grid_barrier",
            &blocks(32).workers(workers),
            2048,
        );
        assert!((0..1024).all(|i| out.floats()[1024 + i] == ((i / 32 + 1) % 32) as f32));
        for seed in SEEDS {
            let bench = Bench::on(small.clone(), 4096);
            let report = bench.run("grid_barrier", &blocks(33).workers(workers).seed(seed));
            assert!(
                report.found(FindingKind::NonResidentWait),
                "{:?}",
                report.findings
            );
        }
    }
}

#[test]
fn a_chain_in_the_order_of_blocks_is_not_safe() {
    // Blocks may start in any order: block 0 may come last.
    let small = Architecture::sm_90().with_multiprocessors(1);
    let found = (1..20).any(|seed| {
        let launch = blocks(40).seed(seed).workers(1);
        let report = Bench::on(small.clone(), 64).run("volatile_chain", &launch);
        report.found(FindingKind::NonResidentWait)
    });
    assert!(found);
}

#[test]
fn two_blocks_wait_for_each_other() {
    let hopper = Architecture::sm_90();
    caught_on(
        hopper,
        "embrace",
        &blocks(2),
        64,
        FindingKind::Deadlock,
        "embrace",
    );
}

#[test]
fn a_seed_is_one_schedule_whatever_the_workers() {
    for (name, length) in [("order", 30), ("tickets", 30 * 64)] {
        let mut orders = std::collections::HashSet::new();
        for seed in 0..8 {
            let mut results = Vec::new();
            for workers in [1, 1, 2, 7] {
                let bench = Bench::new(2048);
                let launch = blocks(30).seed(seed).workers(workers);
                let report = bench.run(name, &launch);
                assert!(report.is_clean(), "{:?}", report.findings);
                results.push((bench.floats()[..length].to_vec(), report.traffic));
            }
            assert!(
                results.windows(2).all(|pair| pair[0] == pair[1]),
                "{name}, seed {seed}"
            );
            orders.insert(format!("{:?}", results[0].0));
        }
        assert!(orders.len() > 4, "seeds draw different orders");
    }
}

#[test]
fn findings_repeat_with_their_seed() {
    for name in [
        "neighbour_wrong",
        "exits_early_wrong",
        "cp_shared_wrong",
        "hand_over_wrong",
    ] {
        let launch = Launch::default()
            .block([64, 1, 1])
            .shared_bytes(4096)
            .seed(5);
        let launch = if name == "exits_early_wrong" {
            launch.grid([4, 1, 1]).cluster([4, 1, 1])
        } else {
            launch
        };
        let run = || Bench::new(512).run(name, &launch).findings;
        let without_addresses = |findings: Vec<evenkeel_emulator::Finding>| -> Vec<_> {
            findings
                .into_iter()
                .map(|f| (f.kind, f.block, f.thread, f.location))
                .collect()
        };
        assert_eq!(without_addresses(run()), without_addresses(run()), "{name}");
    }
}

#[test]
fn many_blocks() {
    let bench = Bench::new(4097);
    let report = bench.run("last_block_right", &blocks(4096).seed(3));
    assert!(report.is_clean(), "{:?}", report.findings);
    let sum = bench.floats()[4096];
    assert_eq!(sum, (4096 * 4097 / 2) as f32);
    assert_eq!(report.traffic.atomics, 4096);
}
