//! Clusters and distributed shared memory.

use crate::harness::{caught, passes};
use evenkeel_emulator::{FindingKind, Launch};

fn launch() -> Launch {
    Launch::default()
        .grid([8, 1, 1])
        .cluster([4, 1, 1])
        .block([64, 1, 1])
        .shared_bytes(2048)
}

/// What each block of a cluster gets from the next.
fn from_next(out: &[f32]) -> bool {
    (0..512).all(|i| {
        let (block, t) = (i / 64, i % 64);
        let next = block / 4 * 4 + (block + 1) % 4;
        out[i] == (next * 64 + t) as f32
    })
}

#[test]
fn missing_cluster_wait() {
    caught(
        "cluster_race_wrong",
        &launch(),
        512,
        FindingKind::Race,
        "exchange",
    );
    assert!(from_next(
        &passes("cluster_race_right", &launch(), 512).floats()
    ));
    caught(
        "relaxed_arrival_wrong",
        &launch(),
        512,
        FindingKind::Race,
        "relaxed-arrival",
    );
    assert!(from_next(
        &passes("relaxed_arrival_right", &launch(), 512).floats()
    ));
}

#[test]
fn a_block_exits_while_a_peer_reads_its_memory() {
    caught(
        "exits_early_wrong",
        &launch(),
        512,
        FindingKind::ExitedPeer,
        "exits-early",
    );
    assert!(from_next(
        &passes("exits_early_right", &launch(), 512).floats()
    ));
}

#[test]
fn a_peer_that_may_not_have_started() {
    caught(
        "unstarted_wrong",
        &launch(),
        512,
        FindingKind::UnstartedPeer,
        "unstarted",
    );
    passes("unstarted_right", &launch(), 512);
}

#[test]
fn st_async() {
    caught("send_wrong", &launch(), 512, FindingKind::Race, "send");
    let out = passes("send_right", &launch(), 512).floats();
    assert!((0..512).all(|i| {
        let (block, t) = (i / 64, i % 64);
        out[i] == ((block / 4 * 4 + (block + 3) % 4) * 64 + t) as f32
    }));
}

#[test]
fn multicast() {
    caught(
        "multicast_wrong",
        &launch(),
        512,
        FindingKind::Race,
        "multicast",
    );
    let out = passes("multicast_right", &launch(), 512).floats();
    assert!((0..512).all(|i| out[i] == (i % 64) as f32));
}

#[test]
fn shared_to_shared() {
    caught(
        "push_wrong",
        &launch(),
        512,
        FindingKind::ProxyFence,
        "push",
    );
    passes("push_right", &launch(), 512);
}

#[test]
fn remote_arrivals() {
    caught("gather_wrong", &launch(), 512, FindingKind::Race, "gather");
    let out = passes("gather_right", &launch(), 512).floats();
    assert!(out[..128].iter().all(|&sum| sum == 10.0));
}

#[test]
fn a_block_skips_the_cluster_barrier() {
    caught(
        "leaves_cluster_wrong",
        &launch(),
        512,
        FindingKind::Divergence,
        "leaves-cluster",
    );
    passes("leaves_cluster_right", &launch(), 512);
}

#[test]
fn bounds_of_a_peers_memory() {
    caught(
        "beyond_peer_wrong",
        &launch(),
        512,
        FindingKind::OutOfBounds,
        "beyond-peer",
    );
}
