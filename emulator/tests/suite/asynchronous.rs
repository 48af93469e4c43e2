//! Asynchronous copies, mbarriers and proxy fences.

use crate::harness::{Bench, SEEDS, caught, passes};
use evenkeel_emulator::{FindingKind, Launch};

fn threads(n: u32) -> Launch {
    Launch::default().block([n, 1, 1]).shared_bytes(4096)
}

#[test]
fn missing_wait_on_cp_async() {
    caught(
        "cp_wait_wrong",
        &threads(64),
        256,
        FindingKind::Race,
        "cp-wait",
    );
    let out = passes("cp_wait_right", &threads(64), 256).floats();
    assert!((0..64).all(|t| out[t] == (4 * t + 1) as f32));
    caught(
        "cp_groups_wrong",
        &threads(64),
        128,
        FindingKind::Race,
        "cp-groups",
    );
    let out = passes("cp_groups_right", &threads(64), 128).floats();
    assert!((0..128).all(|i| out[i] == i as f32));
}

#[test]
fn missing_barrier_after_cp_async() {
    caught(
        "cp_shared_wrong",
        &threads(64),
        64,
        FindingKind::Race,
        "cp-shared",
    );
    passes("cp_shared_right", &threads(64), 64);
}

#[test]
fn cp_async_fills_with_zeros() {
    let out = passes("cp_zero_fill", &threads(32), 128).floats();
    assert_eq!(out[..5], [0.0, 1.0, 0.0, 0.0, 4.0]);
}

#[test]
fn cp_async_arrives_at_an_mbarrier() {
    caught(
        "cp_mbarrier_wrong",
        &threads(64),
        64,
        FindingKind::Race,
        "cp-mbarrier",
    );
    let out = passes("cp_mbarrier_right", &threads(64), 64).floats();
    assert!((0..64).all(|t| out[t] == (63 - t) as f32));
}

#[test]
fn missing_wait_on_a_bulk_copy() {
    caught(
        "bulk_wait_wrong",
        &threads(64),
        256,
        FindingKind::Race,
        "bulk-wait",
    );
    let out = passes("bulk_wait_right", &threads(64), 256).floats();
    assert!((0..64).all(|t| out[t] == t as f32));
}

#[test]
fn wrong_number_of_bytes() {
    caught(
        "bulk_bytes_wrong",
        &threads(64),
        256,
        FindingKind::Deadlock,
        "bulk-bytes",
    );
    passes("bulk_bytes_right", &threads(64), 256);
}

#[test]
fn sizes_and_alignment_of_bulk_copies() {
    caught(
        "bulk_size_wrong",
        &threads(32),
        64,
        FindingKind::AsyncMisuse,
        "bulk-size",
    );
    passes("bulk_size_right", &threads(32), 64);
    caught(
        "bulk_alignment_wrong",
        &threads(32),
        64,
        FindingKind::Misaligned,
        "bulk-alignment",
    );
    passes("bulk_alignment_right", &threads(32), 64);
}

#[test]
fn proxy_fences() {
    caught(
        "bulk_unfenced_wrong",
        &threads(64),
        256,
        FindingKind::ProxyFence,
        "bulk-unfenced",
    );
    passes("bulk_unfenced_right", &threads(64), 256);
    caught(
        "proxy_fence_wrong",
        &threads(64),
        64,
        FindingKind::ProxyFence,
        "proxy-fence",
    );
    let out = passes("proxy_fence_right", &threads(64), 64).floats();
    assert!((0..64).all(|t| out[t] == (2 * t) as f32));
}

#[test]
fn a_source_overwritten_too_early() {
    caught(
        "store_reuse_wrong",
        &threads(32),
        128,
        FindingKind::Race,
        "store-reuse",
    );
    let out = passes("store_reuse_right", &threads(32), 128).floats();
    assert!((0..128).all(|i| out[i] == i as f32));
}

#[test]
fn a_store_is_visible_after_its_wait() {
    caught(
        "store_visible_wrong",
        &threads(32),
        64,
        FindingKind::Race,
        "store-visible",
    );
    assert_eq!(
        passes("store_visible_right", &threads(32), 64).floats()[40],
        4.0
    );
}

#[test]
fn a_block_that_exits_under_its_copy() {
    caught(
        "store_exit_wrong",
        &threads(32),
        64,
        FindingKind::ExitedPeer,
        "store-exit",
    );
    passes("store_exit_right", &threads(32), 64);
}

#[test]
fn a_pipeline() {
    let out = passes("pipeline_right", &threads(96), 2048).floats();
    let sum = |t: usize| {
        (0..2048)
            .filter(|i| i % 64 == t)
            .map(|i| i as f32)
            .sum::<f32>()
    };
    assert!((0..64).all(|t| out[t] == sum(t)));
    for seed in SEEDS {
        let report = Bench::new(2048).run("pipeline_wrong", &threads(96).seed(seed));
        let hit = report.found(FindingKind::Race) || report.found(FindingKind::BarrierMisuse);
        assert!(hit, "seed {seed}: {:?}", report.findings);
    }
}

#[test]
fn mbarriers_are_initialised_once_and_counted() {
    let marker = "uninitialised-mbarrier";
    caught(
        "uninitialised_mbarrier_wrong",
        &threads(64),
        64,
        FindingKind::AsyncMisuse,
        marker,
    );
    passes("uninitialised_mbarrier_right", &threads(64), 64);
    caught(
        "over_arrival_wrong",
        &threads(64),
        64,
        FindingKind::BarrierMisuse,
        "over-arrival",
    );
    passes("over_arrival_right", &threads(64), 64);
    caught(
        "plain_access_wrong",
        &threads(64),
        64,
        FindingKind::AsyncMisuse,
        "plain-access",
    );
    passes("plain_access_right", &threads(64), 64);
    for seed in SEEDS {
        let report = Bench::new(64).run("init_race_wrong", &threads(64).seed(seed));
        let hit = report.found(FindingKind::Race) || report.found(FindingKind::AsyncMisuse);
        assert!(hit, "{:?}", report.findings);
    }
    passes("init_race_right", &threads(64), 64);
}

#[test]
fn mbarriers_order_memory() {
    caught(
        "mbarrier_orders_wrong",
        &threads(64),
        64,
        FindingKind::Race,
        "mbarrier-orders",
    );
    let out = passes("mbarrier_orders_right", &threads(64), 64).floats();
    assert!((0..64).all(|t| out[t] == (63 - t) as f32));
}
