//! Without any one of their synchronisation calls the kernels are found out.

use super::*;
use std::collections::BTreeSet;

#[test]
fn every_synchronisation_is_needed() {
    use Format::{Fp8Block1x128, Fp8Block128x128};
    let blocks = [Fp8Block1x128(E4), Fp8Block128x128(E4)].map(quantized);
    let mut grouped = Case::new([BF16; 2], [40, 24, 400]);
    let offsets: Vec<i64> = (0..=260).map(|group| group / 7).collect();
    grouped.grouped = Grouped::Rows(offsets.clone());
    // Group 30 begins before 29: one thread sees it.
    let mut wrong = grouped.clone();
    let mut offsets = offsets;
    offsets[30] = 3;
    wrong.grouped = Grouped::Rows(offsets);
    let mut needed = BTreeSet::new();
    let mut all = BTreeSet::new();
    for case in [Case::new(blocks, [70, 40, 800]), grouped, wrong] {
        let (expected, reports) = case.outcome(&emulated(Architecture::sm_100(), 0));
        let sites: BTreeSet<_> = reports
            .into_iter()
            .flat_map(|report| report.sync_sites)
            .collect();
        for site in &sites {
            if needed.contains(site) {
                continue;
            }
            let noticed = (0..3).any(|seed| {
                let options = EmulatorOptions::new()
                    .architecture(Architecture::sm_100())
                    .seed(seed)
                    .disabled_sites(vec![site.clone()]);
                let stream = Device::emulated_with(options).unwrap().stream().unwrap();
                case.outcome(&stream).0 != expected
            });
            if noticed {
                needed.insert(site.clone());
            }
        }
        all.extend(sites);
    }
    assert!(all.len() >= 5, "{all:?}");
    let idle: Vec<_> = all.difference(&needed).map(ToString::to_string).collect();
    assert!(
        idle.is_empty(),
        "nothing tells that these are needed: {idle:?}"
    );
}
