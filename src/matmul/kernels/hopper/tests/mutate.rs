//! Each barrier, wait and fence of the kernels, switched off: its absence must show.

use std::collections::BTreeMap;

use super::*;

/// The only site whose absence nothing here can show: after the one thread that asks for copies, the
/// warp meets again because hardware's barrier of the cluster wants it whole; the emulator's fibers do
/// not diverge.
const REDUNDANT: [&str; 2] = ["kernels/matmul/hopper.cuh", "Syncwarp"];

const ROWS: [i64; 4] = [0, 70, 70, 300];
const CONTRACTION: [i32; 4] = [0, 100, 350, 500];

fn workloads() -> Vec<(Case<'static>, usize, u32)> {
    let grouped = |formats| Case {
        ranges: Ranges::Contraction(&CONTRACTION),
        dtype: DType::F32,
        accumulate: Some(1.0),
        ..case(formats, 300, 130, 500)
    };
    let full = Case {
        full: true,
        ..case([ROW; 2], 300, 300, 200)
    };
    let rows = Case {
        ranges: Ranges::Rows(&ROWS),
        ..case([BLOCK; 2], 300, 200, 700)
    };
    vec![
        (case([BLOCK, SQUARE], 520, 260, 900), 0, 2),
        (case([BF16; 2], 520, 520, 450), 0, 2),
        (case([BF16; 2], 300, 520, 450), 0, 1),
        (full, 0, 1),
        (rows, 0, 2),
        (grouped([BLOCK; 2]), 0, 2),
        (grouped([BF16; 2]), 0, 1),
    ]
}

fn right(expected: &[u32], found: Outcome) -> bool {
    found.is_ok_and(|(bits, status)| bits == expected && status.is_none())
}

#[test]
#[ignore = "takes a minute; run by hand after changes to the kernels' synchronisation"]
fn the_absence_of_each_synchronisation_shows() {
    let workloads = workloads();
    let mut expected = Vec::new();
    let mut sites: BTreeMap<SyncSite, Vec<usize>> = BTreeMap::new();
    for (index, (case, tile, cluster)) in workloads.iter().enumerate() {
        let _forced = Forced::new(*tile, *cluster);
        expected.push(run(&cpu(), case).unwrap().0);
        let stream = emulated(0);
        assert!(right(&expected[index], run(&stream, case)), "{case:?}");
        for report in stream.take_reports() {
            for site in report.sync_sites {
                let at = sites.entry(site).or_default();
                if at.last() != Some(&index) {
                    at.push(index);
                }
            }
        }
    }
    let mut unseen = Vec::new();
    for (site, at) in &sites {
        let shows = (0..4).any(|seed| {
            at.iter().any(|&index| {
                let (case, tile, cluster) = &workloads[index];
                let _forced = Forced::new(*tile, *cluster);
                !right(
                    &expected[index],
                    run(&without(seed, vec![site.clone()]), case),
                )
            })
        });
        let text = site.to_string();
        if !shows && !REDUNDANT.iter().all(|part| text.contains(part)) {
            unseen.push(text);
        }
    }
    assert!(unseen.is_empty(), "{}", unseen.join("\n"));
}
