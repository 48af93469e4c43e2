//! `evenkeel verify`: of each family of operations the table of errors, then the properties.

mod errors;
mod loss;
mod matmul;
#[cfg(feature = "emulator")]
mod mutate;
mod norm;
mod quant;

use std::time::{Duration, Instant};

use evenkeel::DeviceKind;
use indicatif::{ProgressBar, ProgressStyle};

use crate::choose::Op;
use crate::numbers::Worst;
use crate::subject::Subject;
use crate::suite::{Effort, FAMILIES, Family};

/// What to verify.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kind of device; all that are here without one.
    pub device: Option<DeviceKind>,
    /// The family of operations; all without one.
    pub op: Option<Op>,
    /// Schedules of the emulator.
    pub seeds: u64,
    /// Switch synchronisations off instead.
    pub mutate: bool,
    /// Less of it.
    pub quick: bool,
}

impl Options {
    fn families(&self) -> impl Iterator<Item = &'static Family> {
        let op = self.op;
        FAMILIES
            .iter()
            .filter(move |family| op.is_none_or(|op| op == family.op))
    }
}

/// Verifies and prints. True when everything holds.
///
/// # Errors
/// When the device that was asked for is not here.
pub fn run(options: &Options) -> Result<bool, String> {
    if options.mutate {
        return mutations(options);
    }
    let kinds = match options.device {
        Some(kind) => vec![kind],
        None => vec![DeviceKind::Cpu, DeviceKind::Emulated, DeviceKind::Cuda],
    };
    let mut all = true;
    for kind in kinds {
        match Subject::of(kind, options.seeds) {
            Ok(subject) => all &= device(&subject, options),
            Err(error) if options.device.is_some() => return Err(error.to_string()),
            Err(error) => println!("{kind}: skipped, {error}\n"),
        }
    }
    println!(
        "{}",
        if all {
            "everything holds"
        } else {
            "NOT everything holds"
        }
    );
    Ok(all)
}

#[cfg(feature = "emulator")]
fn mutations(options: &Options) -> Result<bool, String> {
    let families: Vec<&Family> = options.families().collect();
    match options.device {
        None | Some(DeviceKind::Emulated) => mutate::run(&families, options.seeds, options.quick),
        Some(kind) => Err(format!("--mutate needs the emulator, not {kind}")),
    }
}

#[cfg(not(feature = "emulator"))]
fn mutations(_: &Options) -> Result<bool, String> {
    Err("--mutate needs the emulator: build with --features evenkeel-cli/emulator".into())
}

/// Everything on one kind of device.
fn device(subject: &Subject, options: &Options) -> bool {
    let names: Vec<String> = subject
        .devices()
        .iter()
        .map(evenkeel::Device::name)
        .collect();
    println!("{} ({})", subject.kind(), first_of_equal(&names));
    let effort = if options.quick {
        Effort::Quick
    } else {
        Effort::Full
    };
    let mut right = true;
    for family in options.families() {
        right &= match family.op {
            Op::Loss => loss::run(subject),
            Op::Norm => norm::run(subject),
            Op::Quant => quant::run(subject),
            Op::Matmul => matmul::run(subject),
        };
        right &= properties(subject, family, effort);
        right &= refusals(subject, family);
    }
    right
}

/// The properties of a family.
fn properties(subject: &Subject, family: &Family, effort: Effort) -> bool {
    println!(
        "\n  {:<34} {:>9} {:>9}  what holds",
        "property", "problems", "seconds"
    );
    let mut right = true;
    let progress = progress(family.properties.len() as u64);
    for property in family.properties {
        progress.set_message(property.name);
        let started = Instant::now();
        let result = (property.check)(subject, effort);
        let seconds = started.elapsed().as_secs_f64();
        let line = match result {
            Ok(held) => match held.skipped {
                Some(reason) => format!(
                    "  {:<34} {:>9} {:>9}  skipped: {reason}",
                    property.name, "", ""
                ),
                None => format!(
                    "  {:<34} {:>9} {seconds:>9.2}  {}",
                    property.name, held.problems, property.about
                ),
            },
            Err(wrong) => {
                right = false;
                format!(
                    "  {:<34} {:>9} {seconds:>9.2}  FAILS: {wrong}",
                    property.name, ""
                )
            }
        };
        progress.suspend(|| println!("{line}"));
        progress.inc(1);
    }
    progress.finish_and_clear();
    right
}

/// That the comparison refuses what is wrong.
fn refusals(subject: &Subject, family: &Family) -> bool {
    let Some(device) = subject.devices().first() else {
        return false;
    };
    let refusals = (family.refusals)(device);
    println!(
        "  {} of {} results made wrong on purpose are refused\n",
        refusals.tried.saturating_sub(refusals.failures.len()),
        refusals.tried
    );
    for failure in &refusals.failures {
        println!("  {failure}");
    }
    refusals.failures.is_empty()
}

fn first_of_equal(names: &[String]) -> String {
    let first = names.first().cloned().unwrap_or_default();
    match names.len() {
        1 => first,
        count => format!("{first}, {count} schedules"),
    }
}

/// `0.50 of 0.51`: the error nearest its bound, and the bound.
fn shown(worst: Option<&Worst>) -> String {
    match worst {
        Some(worst) if worst.compared > 0 => format!("{:.2} of {:.2}", worst.ulps, worst.allowed),
        _ => String::new(),
    }
}

/// A bar on a terminal, nothing elsewhere.
pub(crate) fn progress(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("  {bar:30} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
