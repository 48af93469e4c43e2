//! Limits of architectures, traffic in exact numbers, and mutation.

use crate::harness::{Bench, kernel, passes};
use evenkeel_emulator::{Architecture, FindingKind, Launch, SyncOperation};

fn launch(threads: u32) -> Launch {
    Launch::default().block([threads, 1, 1])
}

fn refused(architecture: Architecture, launch: &Launch, name: &str) -> Option<FindingKind> {
    let bench = Bench::on(architecture, 64);
    let report = bench.run(name, launch);
    assert_eq!(
        bench.emulator.max_active_clusters(&kernel(name).0, launch) == 0,
        report.found(FindingKind::LaunchLimits) || report.found(FindingKind::SharedTooLarge)
    );
    report.findings.first().map(|finding| finding.kind)
}

#[test]
fn limits_are_enforced() {
    let sm_80 = Architecture::sm_80;
    let sm_90 = Architecture::sm_90;
    let shared = |bytes| launch(32).shared_bytes(bytes);
    assert_eq!(refused(sm_80(), &shared(163 * 1024), "coalesced"), None);
    let too_large = Some(FindingKind::SharedTooLarge);
    assert_eq!(
        refused(sm_80(), &shared(163 * 1024 + 1), "coalesced"),
        too_large
    );
    assert_eq!(
        refused(Architecture::sm_86(), &shared(100 * 1024), "coalesced"),
        too_large
    );
    assert_eq!(refused(sm_90(), &shared(227 * 1024), "coalesced"), None);
    let limits = Some(FindingKind::LaunchLimits);
    let clusters = |n| launch(32).grid([2 * n, 1, 1]).cluster([n, 1, 1]);
    assert_eq!(refused(sm_80(), &clusters(2), "strided"), limits);
    assert_eq!(refused(sm_90(), &clusters(16), "strided"), limits);
    let large = clusters(16).non_portable_cluster(true);
    assert_ne!(refused(sm_90(), &large, "reducing"), limits);
    assert_eq!(refused(sm_90(), &launch(1025), "coalesced"), limits);
    assert_eq!(refused(sm_90(), &launch(129), "limited"), limits);
    assert_eq!(refused(sm_90(), &launch(0), "coalesced"), limits);
    let uneven = launch(32).grid([3, 1, 1]).cluster([2, 1, 1]);
    assert_eq!(refused(sm_90(), &uneven, "coalesced"), limits);
}

#[test]
fn clusters_resident() {
    let bench = Bench::new(64);
    let most = |launch: &Launch| {
        bench
            .emulator
            .max_active_clusters(&kernel("coalesced").0, launch)
    };
    let full = launch(1024).shared_bytes(227 * 1024);
    assert_eq!(most(&full), 132);
    // As measured on an H100: 15 clusters of 8 full multiprocessors.
    assert_eq!(most(&full.clone().grid([8, 1, 1]).cluster([8, 1, 1])), 15);
    assert_eq!(most(&launch(1024)), 264);
    assert_eq!(most(&launch(32)), 132 * 32);
}

#[test]
fn bytes_and_sectors() {
    let grid = launch(64).grid([2, 1, 1]);
    for seed in 0..4 {
        let bench = Bench::new(512);
        let run = |name: &str, launch: &Launch| bench.run(name, &launch.clone().seed(seed)).traffic;
        let t = run("coalesced", &grid);
        assert_eq!((t.global_load_bytes, t.global_store_bytes), (512, 512));
        assert_eq!((t.global_load_sectors, t.global_store_sectors), (16, 16));
        let t = run("vectors", &grid);
        assert_eq!((t.global_load_bytes, t.global_load_sectors), (2048, 64));
        assert_eq!((t.global_store_bytes, t.global_store_sectors), (2048, 64));
        let t = run("strided", &launch(32));
        assert_eq!((t.global_load_bytes, t.global_load_sectors), (128, 32));
        let t = run("looped", &launch(32));
        assert_eq!((t.global_load_bytes, t.global_load_sectors), (1024, 32));
        assert_eq!(t.global_store_sectors, 4);
        let t = run("atomics", &launch(32));
        assert!(t.atomics >= 16 * 32);
    }
}

#[test]
fn copies_count_as_loads_and_stores() {
    let launch = launch(64).shared_bytes(1024);
    let bench = Bench::new(256);
    let report = bench.run("copies", &launch);
    assert!(report.is_clean(), "{:?}", report.findings);
    let t = report.traffic;
    assert_eq!((t.global_load_bytes, t.global_store_bytes), (512, 512));
    assert_eq!((t.global_load_sectors, t.global_store_sectors), (16, 16));
    assert_eq!((t.shared_load_bytes, t.shared_store_bytes), (512, 512));
}

#[test]
fn bank_conflicts() {
    let bench = Bench::new(64);
    let conflicts = |name| bench.run(name, &launch(32).shared_bytes(33 * 128)).traffic;
    let bad = conflicts("column_32");
    assert_eq!(
        (
            bad.bank_conflicts,
            bad.shared_load_bytes,
            bad.shared_store_bytes
        ),
        (62, 128, 128)
    );
    assert_eq!(bad.bank_conflict_sites.len(), 2);
    assert!(
        bad.bank_conflict_sites
            .iter()
            .all(|(l, n)| *n == 31 && l.file.ends_with("traffic.cc"))
    );
    assert_eq!(conflicts("column_33").bank_conflicts, 0);
}

#[test]
fn distributed_bytes() {
    let launch = launch(64)
        .grid([4, 1, 1])
        .cluster([4, 1, 1])
        .shared_bytes(2048);
    let t = Bench::new(512).run("cluster_race_right", &launch).traffic;
    assert_eq!(
        (t.distributed_load_bytes, t.shared_store_bytes),
        (1024, 1024)
    );
    assert_eq!(t.distributed_store_bytes, 0);
    let t = Bench::new(512).run("send_right", &launch).traffic;
    assert_eq!(t.distributed_store_bytes, 1024);
}

#[test]
fn every_synchronisation_is_needed() {
    let launch = launch(64).shared_bytes(1024);
    let bench = passes("mutated", &launch, 64);
    let expected = bench.floats();
    let sites = bench.run("mutated", &launch).sync_sites;
    let operations: Vec<_> = sites.iter().map(|site| site.operation).collect();
    assert_eq!(
        operations,
        [
            SyncOperation::FenceMbarrierInit,
            SyncOperation::Syncthreads,
            SyncOperation::MbarrierArrive,
            SyncOperation::MbarrierWait,
            SyncOperation::BarSync,
            SyncOperation::Syncwarp,
            SyncOperation::FenceProxyAsync,
            SyncOperation::Syncthreads,
            SyncOperation::CommitGroup,
            SyncOperation::WaitGroup,
        ]
    );
    for site in sites {
        for seed in 0..4 {
            let bench = Bench::new(64);
            let launch = launch.clone().seed(seed).disabled_sites(vec![site.clone()]);
            let report = bench.run("mutated", &launch);
            assert!(
                !report.is_clean() || bench.floats() != expected,
                "{site} is switched off, seed {seed}, and nothing shows"
            );
            assert!(report.sync_sites.contains(&site));
        }
    }
}

#[test]
fn parameters_are_checked_for_their_size() {
    let bench = Bench::new(64);
    let report = bench
        .emulator
        .launch(&kernel("coalesced").0, &launch(32), &[0; 8]);
    assert!(report.found(FindingKind::LaunchLimits));
}

#[test]
fn emulators_are_shared_between_threads() {
    fn sent<T: Send + Sync>(_: &T) {}
    let bench = Bench::new(288);
    sent(&bench.emulator);
    sent(&bench.input);
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let bench = &bench;
            scope.spawn(move || {
                let launch = launch(96).grid([3, 1, 1]).shared_bytes(384).seed(seed);
                assert!(bench.run("neighbour_right", &launch).is_clean());
            });
        }
    });
    let out = bench.floats();
    assert!((0..288).all(|i| out[i] == (i / 96 * 96 + (i % 96 + 1) % 96) as f32));
}
