//! setmaxnreg.

use crate::harness::{Bench, SEEDS, caught, passes};
use evenkeel_emulator::{Architecture, FindingKind, Launch};

fn warpgroups() -> Launch {
    Launch::default().block([384, 1, 1])
}

#[test]
fn registers_are_handed_over() {
    let words = passes("registers_right", &warpgroups(), 384).words();
    assert!(words.iter().all(|&word| word == 1));
}

#[test]
fn more_than_there_are() {
    for name in ["registers_too_many", "registers_never_given"] {
        caught(name, &warpgroups(), 384, FindingKind::Deadlock, "take");
    }
}

#[test]
fn wrong_numbers() {
    for (name, kind, marker) in [
        (
            "registers_no_multiple",
            FindingKind::LaunchLimits,
            "no-multiple",
        ),
        ("registers_too_few", FindingKind::LaunchLimits, "too-few"),
        ("registers_wrong_way", FindingKind::WarpMisuse, "wrong-way"),
    ] {
        caught(name, &warpgroups(), 384, kind, marker);
    }
    let report = Bench::on(Architecture::sm_89(), 384).run("registers_right", &warpgroups());
    assert!(
        report.found(FindingKind::LaunchLimits),
        "{:?}",
        report.findings
    );
}

#[test]
fn one_warp_of_a_warpgroup() {
    for seed in SEEDS {
        let report = Bench::new(384).run("registers_one_warp", &warpgroups().seed(seed));
        assert!(
            report.found(FindingKind::WarpMisuse),
            "{:?}",
            report.findings
        );
    }
}
