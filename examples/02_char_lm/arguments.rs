//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use evenkeel::Device;
use evenkeel::loss::{Criterion, Objective};

pub const USAGE: &str = "\
cargo run --release --example 02_char_lm -- [FILE] [OPTIONS]

  FILE                   any UTF-8 text; without it, this package's own documents and sources
  --corrupted SHARE      the share of targets to replace, from 0 to 1 (default 0.3)
  --objectives A,B,...   such as nll,power:0.5,threshold:above:0.1:nll (default: a tour of the family)
  --steps N              of each run in the table; the warm start has had 8 times as many (default 1000)
  --device D             best, cpu, cuda, or emulated in a build with the feature `emulator` (default best)
  --seed N               of everything that is random (default 1)
";

pub struct Arguments {
    pub file: Option<PathBuf>,
    pub corrupted: f64,
    pub criteria: Vec<Criterion>,
    pub steps: usize,
    pub seed: u64,
    device: String,
}

impl Arguments {
    /// `None` when help was asked for.
    pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Option<Arguments>, String> {
        let mut arguments = Arguments {
            file: None,
            corrupted: 0.3,
            criteria: tour(),
            steps: 1000,
            seed: 1,
            device: "best".into(),
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let Some(option) = word.to_str().filter(|word| word.starts_with('-')) else {
                if let Some(first) = arguments.file.replace(word.into()) {
                    return Err(format!(
                        "one file is enough; the first was {}",
                        first.display()
                    ));
                }
                continue;
            };
            if matches!(option, "-h" | "--help") {
                return Ok(None);
            }
            if ![
                "--corrupted",
                "--objectives",
                "--steps",
                "--device",
                "--seed",
            ]
            .contains(&option)
            {
                return Err(format!("there is no option `{option}`"));
            }
            let value = words.next().and_then(|value| value.into_string().ok());
            let value = value.ok_or_else(|| format!("{option} needs a value"))?;
            arguments.set(option, value)?;
        }
        Ok(Some(arguments))
    }

    fn set(&mut self, option: &str, value: String) -> Result<(), String> {
        let wrong = |expected: &str| format!("{option} should be {expected}, but is `{value}`");
        match option {
            "--corrupted" => {
                let share = value.parse().ok();
                let share = share.filter(|share| (0.0..=1.0).contains(share));
                self.corrupted = share.ok_or_else(|| wrong("a number from 0 to 1"))?;
            }
            "--objectives" => {
                let criteria = value.split(',').map(str::parse);
                let criteria: Result<Vec<_>, evenkeel::Error> = criteria.collect();
                self.criteria = criteria.map_err(|error| error.to_string())?;
            }
            "--steps" => {
                let steps = value.parse().ok();
                let steps = steps.filter(|steps| (1..=1_000_000).contains(steps));
                self.steps = steps.ok_or_else(|| wrong("a number from 1 to 1000000"))?;
            }
            "--seed" => self.seed = value.parse().map_err(|_| wrong("a whole number"))?,
            _ => self.device = value,
        }
        Ok(())
    }

    pub fn device(&self) -> Result<Device, String> {
        let device = match self.device.as_str() {
            "best" => Device::best(),
            "cpu" => Ok(Device::cpu()),
            "cuda" => Device::cuda(0),
            #[cfg(feature = "emulator")]
            "emulated" => Device::emulated(),
            #[cfg(not(feature = "emulator"))]
            "emulated" => {
                return Err("the emulator is not in this build; add `--features emulator`".into());
            }
            other => {
                return Err(format!(
                    "there is no device `{other}`: best, cpu, cuda or emulated"
                ));
            }
        };
        device.map_err(|error| error.to_string())
    }
}

/// From objectives that learn most from what the model doubts to those that learn least from it.
fn tour() -> Vec<Criterion> {
    vec![
        Objective::Power(-0.5).into(),
        Objective::Focal(2.0).into(),
        Objective::Nll.into(),
        Objective::Nll.above(0.1),
        Objective::Power(0.5).into(),
        Objective::Deft.into(),
        Objective::Linear.into(),
        Objective::Dft.into(),
        Objective::Power(10.0).into(),
    ]
}
