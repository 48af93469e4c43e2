//! The suite put to the test: results that are wrong in the ways kernels go wrong must be rejected.

use evenkeel::loss::{Objective, Reduction, Statistic};
use evenkeel::reference::loss::{RowOptions, forward};
use evenkeel::{DType, Device, Status};

use super::super::Refusals;
use crate::loss::{Case, Mode, Outcome, Problem, Values};

/// A way to be wrong.
#[derive(Clone, Copy)]
struct WrongResult {
    /// What went wrong, in words.
    name: &'static str,
    /// The case in which it shows.
    case: fn() -> Case,
    /// Makes a right outcome wrong.
    spoil: fn(&Problem, &mut Outcome),
}

fn plain() -> Case {
    let mut case = Case::new(4, 100, DType::F32);
    case.ignored = 0.0;
    case
}

fn confident() -> Case {
    let mut case = plain();
    case.values = Values::Confident;
    case
}

fn halves() -> Case {
    let mut case = Case::new(4, 100, DType::Bf16);
    case.layout.gap = 3;
    case.gradient_layout.gap = 2;
    case.gradient_layout.padding = 1;
    case
}

/// The gradient's element of a token's target.
fn at_target<'a>(problem: &Problem, outcome: &'a mut Outcome, token: usize) -> &'a mut f64 {
    let class = problem.targets[token] as usize;
    element(problem, outcome, token, class)
}

fn element<'a>(
    problem: &Problem,
    outcome: &'a mut Outcome,
    token: usize,
    class: usize,
) -> &'a mut f64 {
    let layout = problem.gradient_layout;
    &mut outcome.memory[layout.phase + token * layout.stride(problem.vocab) + class]
}

fn statistic(outcome: &mut Outcome, wanted: Statistic) -> &mut Vec<f64> {
    let place = outcome
        .statistics
        .iter()
        .position(|(statistic, _)| *statistic == wanted);
    &mut outcome.statistics[place.unwrap_or(0)].1
}

fn scale_all(outcome: &mut Outcome, factor: f64) {
    outcome
        .memory
        .iter_mut()
        .for_each(|x| *x = f64::from((*x * factor) as f32));
}

/// 1 - exp(lp) in f32, where S_o / S belongs.
fn cancelled(problem: &Problem, token: usize) -> f64 {
    let mut wide = Vec::new();
    let exact = forward(
        &problem.row(token, &mut wide),
        &RowOptions::from(&problem.options),
    );
    f64::from(1.0 - (exact.state.lp as f32).exp())
}

/// Every way.
const WRONG_RESULTS: &[WrongResult] = &[
    WrongResult {
        name: "a wrong sign of the gradient",
        case: plain,
        spoil: |_, outcome| scale_all(outcome, -1.0),
    },
    WrongResult {
        name: "a wrong sign at the target",
        case: halves,
        spoil: |problem, outcome| *at_target(problem, outcome, 1) *= -1.0,
    },
    WrongResult {
        name: "1 - exp(lp) in place of S_o / S in the gradient",
        case: confident,
        spoil: |problem, outcome| {
            for token in 0..problem.tokens {
                let wrong = -cancelled(problem, token) / problem.tokens as f64;
                *at_target(problem, outcome, token) = f64::from(wrong as f32);
            }
        },
    },
    WrongResult {
        name: "1 - exp(lp) in place of S_o / S in the saved state",
        case: || {
            let mut case = confident();
            case.mode = Mode::Backward;
            case
        },
        spoil: |problem, outcome| {
            for token in 0..problem.tokens {
                outcome.state[8 * token + 3] = cancelled(problem, token) as f32;
            }
        },
    },
    WrongResult {
        name: "p - 1 formed in bf16 at the target",
        case: || {
            let mut case = halves();
            case.values = Values::Confident;
            case
        },
        spoil: |problem, outcome| {
            for token in 0..problem.tokens {
                let p = crate::numbers::round_to(DType::Bf16, 1.0 - cancelled(problem, token));
                *at_target(problem, outcome, token) = (p - 1.0) / problem.tokens as f64;
            }
        },
    },
    WrongResult {
        name: "a denominator off by one",
        case: plain,
        spoil: |problem, outcome| {
            let count = problem.tokens as f64;
            outcome.loss = outcome
                .loss
                .map(|loss| (f64::from(loss) * count / (count + 1.0)) as f32);
            scale_all(outcome, count / (count + 1.0));
        },
    },
    WrongResult {
        name: "the mean over kept instead of valid tokens",
        case: || {
            let mut case = plain();
            case.options.criterion = Objective::Nll.above(0.1);
            case
        },
        spoil: |problem, outcome| {
            let kept = outcome.counts.map_or(1, |counts| counts.kept.max(1));
            outcome.loss = outcome
                .loss
                .map(|loss| loss * problem.tokens as f32 / kept as f32);
        },
    },
    WrongResult {
        name: "one class left out of the sum",
        case: plain,
        spoil: |problem, outcome| {
            let mut wide = Vec::new();
            let options = RowOptions::from(&problem.options);
            let exact = forward(&problem.row(0, &mut wide), &options);
            // The class whose share is nearest the average one.
            let share = problem.logits[..problem.vocab]
                .iter()
                .map(|&z| (f64::from(z) - exact.lse).exp())
                .min_by(|a, b| {
                    let off = |p: f64| (p * problem.vocab as f64).ln().abs();
                    off(*a).total_cmp(&off(*b))
                });
            statistic(outcome, Statistic::Lse)[0] += (-share.unwrap_or(1.0)).ln_1p();
        },
    },
    WrongResult {
        name: "a gradient moved by one class",
        case: halves,
        spoil: |problem, outcome| {
            let first = *element(problem, outcome, 0, 0);
            for class in 1..problem.vocab {
                let next = *element(problem, outcome, 0, class);
                *element(problem, outcome, 0, class - 1) = next;
            }
            *element(problem, outcome, 0, problem.vocab - 1) = first;
        },
    },
    WrongResult {
        name: "two units of the last place in one element",
        case: halves,
        spoil: |problem, outcome| {
            let x = at_target(problem, outcome, 2);
            *x += 2.0 * crate::numbers::ulp(DType::Bf16, *x);
        },
    },
    WrongResult {
        name: "a write between two rows",
        case: halves,
        spoil: |problem, outcome| {
            let columns = problem.gradient_layout.columns(problem.vocab);
            *element(problem, outcome, 0, columns) = 0.0;
        },
    },
    WrongResult {
        name: "padding that was not cleared",
        case: halves,
        spoil: |problem, outcome| *element(problem, outcome, 3, problem.vocab) = f64::from(77),
    },
    WrongResult {
        name: "a temperature left out of the chain rule",
        case: || {
            let mut case = plain();
            case.options.temperature = 0.7;
            case
        },
        spoil: |_, outcome| scale_all(outcome, 0.7),
    },
    WrongResult {
        name: "lse without its maximum",
        case: plain,
        spoil: |problem, outcome| {
            let mut wide = Vec::new();
            let options = RowOptions::from(&problem.options);
            let exact = forward(&problem.row(2, &mut wide), &options);
            statistic(outcome, Statistic::Lse)[2] = f64::from(exact.state.log_sum as f32);
        },
    },
    WrongResult {
        name: "an entropy in bits",
        case: plain,
        spoil: |_, outcome| {
            statistic(outcome, Statistic::Entropy)
                .iter_mut()
                .for_each(|h| *h /= std::f64::consts::LN_2);
        },
    },
    WrongResult {
        name: "the highest class among equal maxima",
        case: || {
            let mut case = plain();
            case.values = Values::Equal;
            case
        },
        spoil: |problem, outcome| {
            statistic(outcome, Statistic::Argmax)[0] = (problem.vocab - 1) as f64;
        },
    },
    WrongResult {
        name: "a NaN",
        case: plain,
        spoil: |problem, outcome| *element(problem, outcome, 1, 7) = f64::NAN,
    },
    WrongResult {
        name: "a gradient never written",
        case: plain,
        spoil: |problem, outcome| *element(problem, outcome, 3, 99) = crate::memory::UNTOUCHED,
    },
    WrongResult {
        name: "a status bit not set",
        case: || {
            let mut case = plain();
            case.options.reduction = Reduction::Sum;
            case.values = Values::Infinite;
            case
        },
        spoil: |_, outcome| outcome.status = Status::SATURATED,
    },
    WrongResult {
        name: "a count off by one",
        case: plain,
        spoil: |_, outcome| {
            if let Some(counts) = &mut outcome.counts {
                counts.correct += 1;
            }
        },
    },
];

impl WrongResult {
    /// Whether the comparison takes the right outcome and refuses the spoilt one; if not, what it did
    /// instead.
    fn is_rejected(&self, device: &Device) -> Result<(), String> {
        let problem = (self.case)().problem();
        let mut outcome = crate::loss::run(device, &problem).map_err(|error| error.to_string())?;
        let before = crate::loss::compare(&problem, &outcome);
        if !before.is_right() {
            return Err(format!(
                "{}: the right outcome is refused: {:?}",
                self.name, before.mismatches
            ));
        }
        (self.spoil)(&problem, &mut outcome);
        if crate::loss::compare(&problem, &outcome).is_right() {
            return Err(format!("{} is accepted", self.name));
        }
        Ok(())
    }
}

/// All of them on a device.
pub(super) fn refusals(device: &Device) -> Refusals {
    Refusals {
        tried: WRONG_RESULTS.len(),
        failures: WRONG_RESULTS
            .iter()
            .filter_map(|wrong| wrong.is_rejected(device).err())
            .collect(),
    }
}
