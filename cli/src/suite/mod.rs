//! The properties of the loss, each a function of the devices it is to hold on.
//!
//! The tests make one test of each for each kind of device; `evenkeel verify` runs them all.

mod arguments;
mod edges;
mod properties;
mod random;
mod rejection;
mod schedules;
mod wide;

use evenkeel::{Device, DeviceKind, Error};

use crate::loss::{self, Problem, Verdict};
use crate::subject::Subject;

pub use self::rejection::{WRONG_RESULTS, WrongResult};

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// What takes a minute on the emulator.
    Quick,
    /// Everything.
    Full,
}

/// What a property that holds tells.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Problems that were computed.
    pub problems: usize,
    /// How close they came to their bounds.
    pub verdict: Verdict,
    /// Why nothing was tried here.
    pub skipped: Option<String>,
}

impl Held {
    fn skipped(reason: impl Into<String>) -> Result<Self, String> {
        Ok(Self {
            skipped: Some(reason.into()),
            ..Self::default()
        })
    }

    /// Computes a problem and takes its verdict in.
    fn check(&mut self, device: &Device, problem: &Problem) -> Result<(), String> {
        let verdict = loss::check(device, problem).map_err(|error| told(&error, problem))?;
        self.problems += 1;
        if !verdict.is_right() {
            let more = verdict.wrong - verdict.mismatches.len();
            let more = if more > 0 {
                format!("\nand {more} more")
            } else {
                String::new()
            };
            return Err(format!(
                "on {device}: {}{more}",
                verdict.mismatches.join("\n")
            ));
        }
        self.verdict.merge(verdict);
        Ok(())
    }
}

/// An error, and what it was about.
fn told(error: &Error, problem: &Problem) -> String {
    format!("{error}\n    in {}", problem.name)
}

/// A property of the loss.
#[derive(Clone, Copy)]
pub struct Property {
    /// Its name: that of its test.
    pub name: &'static str,
    /// What it says.
    pub about: &'static str,
    /// Whether it holds.
    pub check: fn(&Subject, Effort) -> Result<Held, String>,
}

macro_rules! properties {
    ($($module:ident :: $name:ident: $about:literal),* $(,)?) => {
        /// Every property, in the order in which `verify` runs them.
        pub const PROPERTIES: &[Property] = &[
            $(Property { name: stringify!($name), about: $about, check: $module::$name },)*
        ];
    };
}

properties!(
    properties::every_criterion_in_every_mode: "each criterion, mode and type against the reference",
    properties::every_option: "each option, alone and with the others",
    properties::every_reduction: "each denominator, with ignored tokens and empty sequences",
    properties::every_alignment: "rows and gradients at every alignment, padded and strided",
    properties::vocabularies: "each vocabulary of the tables",
    properties::extremes: "probabilities near 0 and 1, offsets, masks by -inf, ascending rows",
    properties::a_common_offset_changes_nothing: "an exact offset of a row leaves every bit of its gradient",
    properties::gradients_sum_to_zero: "the softmax moves no mass",
    random::random_problems: "problems drawn at random, made small when they fail",
    edges::empty_batches: "no tokens, and no valid ones: loss 0, never NaN",
    edges::targets_that_are_no_class: "ignored, out of range, and ignore_index inside the vocabulary",
    edges::rows_that_are_not_finite: "NaN, +inf and all -inf rows, and their neighbours untouched",
    edges::masked_targets: "the formulas at p = 0",
    edges::saturation: "negative powers end at the largest f32",
    edges::bad_offsets: "offsets that do not ascend or leave the batch",
    arguments::wrong_arguments: "each wrong argument and its error",
    schedules::the_same_bits_every_time: "runs, schedules and device sizes give the same bits",
    schedules::rows_in_flight: "the cluster kernel's ring with late copies, 1 to 4 rows in flight",
    schedules::traffic: "bytes moved, against the least there is",
    schedules::other_architectures: "the portable kernel on each architecture",
    wide::past_two_to_the_32: "16385 x 262144 logits",
);

/// Whether the devices are emulated.
fn emulated(subject: &Subject) -> bool {
    subject.kind() == DeviceKind::Emulated
}
