//! Blocks.

use crate::harness::{caught, passes};
use evenkeel_emulator::{FindingKind, Launch};

#[test]
fn missing_syncthreads() {
    let launch = Launch::default()
        .grid([3, 1, 1])
        .block([96, 1, 1])
        .shared_bytes(384);
    caught(
        "neighbour_wrong",
        &launch,
        288,
        FindingKind::Race,
        "neighbour-race",
    );
    let bench = passes("neighbour_right", &launch, 288);
    let out = bench.floats();
    assert!((0..288).all(|i| out[i] == (i / 96 * 96 + (i % 96 + 1) % 96) as f32));
}
