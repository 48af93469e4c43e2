//! `evenkeel verify --mutate`: every synchronisation of the kernels, switched off one at a time.
//!
//! A kernel without one of its barriers, waits or fences must show it: by a finding of the emulator or
//! by a wrong result. What does not is either redundant, and listed with its reason in
//! `redundant_sites.txt`, or a hole in the tests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use evenkeel::emulator::{Architecture, SyncSite};
use evenkeel::{Device, EmulatorOptions, Error, Result};

use super::progress;
use crate::choose::Op;
use crate::suite::{FAMILIES, Family, Workload};

/// `file | operation | comment above and text of the line | reason`, one a line.
const REDUNDANT: &str = include_str!("redundant_sites.txt");

fn device(workload: &Workload, seed: u64, disabled: Vec<SyncSite>) -> Result<Device> {
    let architecture = Architecture::sm_90().with_multiprocessors(workload.multiprocessors);
    let options = EmulatorOptions::new()
        .architecture(architecture)
        .seed(seed)
        .disabled_sites(disabled);
    Device::emulated_with(options)
}

/// The sites that each workload executes.
fn sites(workloads: &[Workload]) -> Result<BTreeMap<SyncSite, Vec<usize>>> {
    let mut sites: BTreeMap<SyncSite, Vec<usize>> = BTreeMap::new();
    for (index, workload) in workloads.iter().enumerate() {
        let stream = device(workload, 0, Vec::new())?.stream()?;
        workload.problem.check_on(&stream)?;
        for report in stream.take_reports() {
            for site in report.sync_sites {
                let at = sites.entry(site).or_default();
                if at.last() != Some(&index) {
                    at.push(index);
                }
            }
        }
    }
    Ok(sites)
}

/// How the absence of a site showed, if it did.
fn noticed(site: &SyncSite, workloads: &[&Workload], seeds: u64) -> Result<Option<String>> {
    for seed in 0..seeds {
        for workload in workloads {
            let device = device(workload, seed, vec![site.clone()])?;
            match workload.problem.check(&device) {
                Err(Error::Findings { findings, .. }) => {
                    let first = findings.first().cloned().unwrap_or_default();
                    return Ok(Some(
                        first.split([' ', ':']).next().unwrap_or("").to_string(),
                    ));
                }
                Err(other) => return Err(other),
                Ok(verdict) if !verdict.is_right() => return Ok(Some("a wrong result".into())),
                Ok(_) => {}
            }
        }
    }
    Ok(None)
}

/// The site's file from kernels/ on: what debug information says before that is where it was built.
fn file(site: &SyncSite) -> &str {
    let file = site.location.file.as_str();
    file.rfind("kernels/").map_or(file, |at| &file[at..])
}

fn shown(site: &SyncSite) -> String {
    format!("{}:{} {:?}", file(site), site.location.line, site.operation)
}

/// The text of a site's line and of a comment above it, where the sources are at hand.
fn source_line(site: &SyncSite) -> Option<String> {
    let root = std::env::var_os("EVENKEEL_ROOT").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(root.join(file(site))).ok()?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let at = (site.location.line as usize).checked_sub(1)?;
    let line = *lines.get(at)?;
    // A call of which there are several is told apart by what is said of it.
    match at.checked_sub(1).and_then(|before| lines.get(before)) {
        Some(comment) if comment.starts_with("//") => Some(format!("{comment} {line}")),
        _ => Some(line.to_string()),
    }
}

/// The lines of the list that speak of a site.
fn entries() -> impl Iterator<Item = &'static str> {
    REDUNDANT.lines().filter(|entry| !entry.starts_with('#'))
}

/// Why the site, whose line is this, may be absent, if the entry is about it.
fn reason_of(entry: &'static str, site: &SyncSite, line: Option<&str>) -> Option<&'static str> {
    let parts: Vec<&str> = entry.split(" | ").map(str::trim).collect();
    let [path, operation, text, reason] = parts[..] else {
        return None;
    };
    let same = file(site) == path
        && operation == format!("{:?}", site.operation)
        && line.is_none_or(|line| line == text);
    same.then_some(reason)
}

/// Why a site may be absent, if the list has it.
fn listed(site: &SyncSite, line: Option<&str>) -> Option<&'static str> {
    entries().find_map(|entry| reason_of(entry, site, line))
}

/// Entries that are about no site of the families' kernels: of calls that the kernels lost, or that
/// nobody can read. What kernels share counts when every family was there to call it.
fn stale<'s>(
    families: &[&Family],
    sites: impl Iterator<Item = &'s SyncSite> + Clone,
) -> Vec<&'static str> {
    let concerned = |entry: &&str| {
        let own = |op: Op| entry.starts_with(&format!("kernels/{op}/"));
        families.iter().any(|family| own(family.op))
            || families.len() == FAMILIES.len() && !Op::ALL.into_iter().any(own)
    };
    let about = |entry: &'static str, site: &SyncSite| {
        reason_of(entry, site, source_line(site).as_deref()).is_some()
    };
    entries()
        .filter(concerned)
        .filter(|&entry| !sites.clone().any(|site| about(entry, site)))
        .collect()
}

/// Runs them all and prints; true when each is noticed or listed.
pub(super) fn run(
    families: &[&Family],
    seeds: u64,
    quick: bool,
) -> std::result::Result<bool, String> {
    let workloads: Vec<Workload> = families
        .iter()
        .flat_map(|family| (family.workloads)(quick))
        .collect();
    let sites =
        sites(&workloads).map_err(|error| format!("the kernels as they are fail: {error}"))?;
    println!(
        "{} synchronisation calls of the kernels, each switched off on its {} problems at most, under {seeds} schedules\n",
        sites.len(),
        workloads.len()
    );
    println!("  {:<56} its absence shows as", "call");
    let bar = progress(sites.len() as u64);
    let mut missed = 0;
    for (site, at) in &sites {
        bar.set_message(shown(site));
        let on: Vec<&Workload> = at.iter().map(|&index| &workloads[index]).collect();
        let line = source_line(site);
        let told = match noticed(site, &on, seeds).map_err(|error| error.to_string())? {
            Some(how) => match listed(site, line.as_deref()) {
                Some(_) if line.is_some() => {
                    missed += 1;
                    format!("{how}, YET it is listed as redundant")
                }
                _ => how,
            },
            None => match listed(site, line.as_deref()) {
                Some(reason) => format!("nothing; redundant: {reason}"),
                None => {
                    missed += 1;
                    format!("NOTHING: {}", line.unwrap_or_default())
                }
            },
        };
        bar.suspend(|| println!("  {:<56} {told}", shown(site)));
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!(
        "\nthe absence of {} of {} shows, or is listed as redundant",
        sites.len() - missed,
        sites.len()
    );
    let stale = stale(families, sites.keys());
    for entry in &stale {
        println!("listed as redundant, and no call of the kernels: {entry}");
    }
    Ok(missed == 0 && stale.is_empty())
}
