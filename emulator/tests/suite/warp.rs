//! Warp primitives and atomics: exact results.

use crate::harness::{Bench, SEEDS, caught, passes};
use evenkeel_emulator::{FindingKind, Launch};

fn warp() -> Launch {
    Launch::default().block([32, 1, 1])
}

#[test]
fn shuffles() {
    let words = passes("shuffles", &warp(), 512).words();
    for lane in 0..32u32 {
        let row = &words[lane as usize * 12..][..12];
        let segment = lane / 8 * 8;
        let expected = [
            50,
            if lane < 3 { lane } else { lane - 3 },
            if lane + 3 > 31 { lane } else { lane + 3 },
            lane ^ 9,
            segment + 1,
            if lane % 8 < 2 { lane } else { lane - 2 },
            if lane % 8 > 5 { lane } else { lane + 2 },
            // A later segment is out of reach, an earlier one is not.
            if (lane ^ 12) < segment + 8 {
                lane ^ 12
            } else {
                lane
            },
            7,
            6,
            lane ^ 1,
            31,
        ];
        assert_eq!(row, expected, "lane {lane}");
    }
}

#[test]
fn votes_matches_and_reductions() {
    let words = passes("votes", &warp(), 512).words();
    for lane in 0..32usize {
        let expected = [
            0x4924_9249,
            2,
            2,
            0xff << (lane / 8 * 8),
            u32::MAX,
            1,
            0,
            0,
            496,
            3,
            34,
            -16i32 as u32,
            15,
            0x80,
            u32::MAX,
            0,
        ];
        assert_eq!(&words[lane * 16..][..16], expected, "lane {lane}");
    }
}

#[test]
fn partial_masks() {
    let words = passes("halves", &warp(), 32).words();
    assert!(words[..12].iter().all(|&w| w == 66));
    assert!(
        words[12..]
            .iter()
            .all(|&w| w == (12..32).sum::<u32>() * 100)
    );
}

#[test]
fn activemask_and_elect() {
    let words = passes("active", &warp(), 64).words();
    for lane in 0..32 {
        assert_eq!(
            words[lane],
            if lane % 2 == 0 { 0x5555_5555 } else { u32::MAX }
        );
        assert_eq!(words[32 + lane], u32::from(lane == 0));
    }
}

#[test]
fn masks_are_checked() {
    caught(
        "lacks_caller_wrong",
        &warp(),
        32,
        FindingKind::WarpMisuse,
        "lacks-caller",
    );
    passes("lacks_caller_right", &warp(), 32);
    caught(
        "inactive_lane_wrong",
        &warp(),
        32,
        FindingKind::WarpMisuse,
        "inactive-lane",
    );
    passes("inactive_lane_right", &warp(), 32);
    for seed in SEEDS {
        let launch = warp().seed(seed);
        let report = Bench::new(32).run("never_arrives_wrong", &launch);
        let hit = report.found(FindingKind::Divergence) || report.found(FindingKind::WarpMisuse);
        assert!(hit, "{:?}", report.findings);
        let report = Bench::new(32).run("masks_clash_wrong", &launch);
        assert!(
            report.found(FindingKind::Divergence),
            "{:?}",
            report.findings
        );
    }
    passes("never_arrives_right", &warp(), 32);
    passes("masks_clash_right", &warp(), 32);
}

#[test]
fn atomics() {
    let launch = Launch::default().grid([3, 1, 1]).block([32, 1, 1]);
    let mut words = passes("atomics", &launch, 256).words();
    let n = 96u32;
    assert_eq!(words[0], n);
    assert_eq!(words[1], n.wrapping_neg());
    assert_eq!(words[2], n - 1 - 50);
    assert_eq!(words[3] as i32, -(n as i32 - 1));
    assert_eq!((words[4], words[5]), (u32::MAX, 0));
    assert_eq!(words[6], (0..n).fold(0, |a, b| a ^ b));
    assert_eq!(words[7], n % 5);
    // Counts down from 0: to 6, 5, ..., 0, 6, ...
    assert_eq!(words[8], (7 - n % 7) % 7);
    assert_eq!(f32::from_bits(words[9]), n as f32 * 0.5);
    let wide = |i: usize, w: &[u32]| u64::from(w[i]) | u64::from(w[i + 1]) << 32;
    assert_eq!(f64::from_bits(wide(10, &words)), f64::from(n) * 0.25);
    assert_eq!(wide(12, &words), u64::from(n) << 33);
    assert_eq!(
        words[14],
        (0..n).fold(0u32, |a, _| a.wrapping_mul(3).wrapping_add(1))
    );
    assert_eq!((words[15], words[16], words[17]), (77, n - 1, n));
    assert!(words.drain(32..32 + 96).all(|w| w == 1));
}

#[test]
fn atomics_of_the_language() {
    let words = passes("standard_atomics", &warp(), 32).words();
    assert_eq!((words[0], words[1]), (64, u32::MAX));
}
