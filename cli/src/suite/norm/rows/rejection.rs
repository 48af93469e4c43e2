//! The suite put to the test: results that are wrong in the ways kernels go wrong must be rejected.

use evenkeel::norm::{NormOptions, Pairing, Rotary};
use evenkeel::{DType, Device, Status};

use super::super::super::Refusals;
use crate::norm::Operation;
use crate::norm::rows::{Case, Outcome, Problem, Values, compare, run};
use crate::numbers::{round_to, ulp};

/// A way to be wrong.
struct WrongResult {
    /// What went wrong, in words.
    name: &'static str,
    /// The case in which it shows.
    case: fn() -> Case,
    /// Makes a right outcome wrong.
    spoil: fn(&Problem, &mut Outcome),
}

fn plain() -> Case {
    Case::new(Operation::Norm, 4, 100, DType::F32)
}

fn layer() -> Case {
    let mut case = plain();
    case.norm = Some(NormOptions::layer());
    case.beta = true;
    case
}

fn halves() -> Case {
    let mut case = Case::new(Operation::Norm, 4, 100, DType::Bf16);
    case.layout.gap = 3;
    (case.out_layout.gap, case.side_layout.gap) = (2, 1);
    (case.residual, case.stream_gradients) = (true, true);
    case
}

fn offset() -> Case {
    let mut case = Case::new(Operation::Norm, 4, 512, DType::Bf16);
    case.norm = Some(NormOptions::layer());
    case.values = Values::Offset;
    case.types.y = DType::F32;
    case
}

fn turned() -> Case {
    let mut case = Case::new(Operation::HeadNorm, 5, 64, DType::Bf16);
    (case.heads, case.positions) = (2, true);
    case.rotary = Some(Rotary::new(Pairing::HalfSplit, 32));
    case
}

fn gated() -> Case {
    Case::new(Operation::GatedNorm, 4, 100, DType::F32)
}

/// Every element of an output.
fn map(outcome: &mut Outcome, name: &str, change: impl Fn(usize, f64) -> f64) {
    if let Some(output) = outcome.outputs.get_mut(name) {
        let (dtype, width) = (output.place.dtype, output.place.width());
        for row in 0..output.place.rows() {
            for (column, x) in output.row_mut(row).iter_mut().enumerate() {
                *x = round_to(dtype, change(row * width + column, *x));
            }
        }
    }
}

/// One element of an output.
fn set(outcome: &mut Outcome, name: &str, at: usize, change: impl Fn(f64) -> f64) {
    map(
        outcome,
        name,
        |index, x| if index == at { change(x) } else { x },
    );
}

/// What a variance formed as E[x^2] - E[x]^2 in fp32 makes of y.
fn cancelled(problem: &Problem, outcome: &mut Outcome) {
    let columns = problem.shape.columns;
    let rows: Vec<(f64, f64)> = problem
        .x
        .values
        .chunks(columns)
        .map(|row| {
            let (mut sum, mut squares) = (0.0_f32, 0.0_f32);
            for &x in row {
                sum += x as f32;
                squares += (x as f32) * (x as f32);
            }
            let mean = sum / columns as f32;
            let variance = (squares / columns as f32 - mean * mean).max(0.0);
            (f64::from(mean), f64::from((variance + 1e-5).sqrt().recip()))
        })
        .collect();
    let gamma = problem.gamma.as_ref().map(|gamma| gamma.values.clone());
    map(outcome, "y", |index, _| {
        let (mean, rstd) = rows[index / columns];
        let w = gamma.as_ref().map_or(1.0, |gamma| gamma[index % columns]);
        (problem.x.values[index] - mean) * rstd * w
    });
}

/// Every way.
const WRONG_RESULTS: &[WrongResult] = &[
    WrongResult {
        name: "a wrong sign",
        case: plain,
        spoil: |_, outcome| map(outcome, "y", |_, y| -y),
    },
    WrongResult {
        name: "eps left out",
        case: || {
            let mut case = plain();
            case.norm = Some(NormOptions::rms().eps(1e-3));
            case
        },
        spoil: |problem, outcome| {
            let rows = problem.x.values.chunks(problem.shape.columns);
            let squares: Vec<f64> = rows
                .map(|row| row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64)
                .collect();
            map(outcome, "rstd", |row, _| squares[row].sqrt().recip());
        },
    },
    WrongResult {
        name: "eps added to the root",
        case: || {
            let mut case = plain();
            case.values = Values::Zero;
            case
        },
        spoil: |_, outcome| map(outcome, "rstd", |_, _| 1e6),
    },
    WrongResult {
        name: "a variance over D - 1",
        case: layer,
        spoil: |_, outcome| map(outcome, "rstd", |_, rstd| rstd * (99.0_f64 / 100.0).sqrt()),
    },
    WrongResult {
        name: "a variance as E[x^2] - E[x]^2",
        case: offset,
        spoil: cancelled,
    },
    WrongResult {
        name: "one element left out of the sum of squares",
        case: plain,
        spoil: |problem, outcome| {
            let x = &problem.x.values;
            let rstd = outcome.values("rstd")[0];
            let smallest = x[..100].iter().fold(f64::MAX, |least, x| {
                if x.abs() > 0.3 {
                    least.min(x.abs())
                } else {
                    least
                }
            });
            let share = smallest * smallest * rstd * rstd / 100.0;
            set(outcome, "rstd", 0, |rstd| rstd * (1.0 + 0.5 * share));
        },
    },
    WrongResult {
        name: "gamma without its offset",
        case: || {
            let mut case = plain();
            case.norm = Some(NormOptions::rms().zero_centred());
            case
        },
        spoil: |problem, outcome| {
            let gamma = problem.gamma.as_ref().map(|gamma| gamma.values.clone());
            let gamma = gamma.unwrap_or_default();
            map(outcome, "y", |index, y| {
                y * gamma[index % 100] / (1.0 + gamma[index % 100])
            });
        },
    },
    WrongResult {
        name: "a row moved by one column",
        case: halves,
        spoil: |_, outcome| {
            let values = outcome.values("y");
            map(outcome, "y", |index, _| values[(index + 1) % values.len()]);
        },
    },
    WrongResult {
        name: "two units of the last place in one element",
        case: halves,
        spoil: |_, outcome| set(outcome, "dx", 207, |x| x + 2.0 * ulp(DType::Bf16, x)),
    },
    WrongResult {
        name: "a norm of the sum before it was rounded to the stream's type",
        case: || {
            let mut case = halves();
            (case.types.x, case.types.residual, case.types.y) =
                (DType::F32, DType::F32, DType::F32);
            case
        },
        spoil: |problem, outcome| {
            // y of a column is proportional to the element: as far off as the rounding was.
            let residual = problem
                .residual
                .as_ref()
                .map(|residual| residual.values.clone());
            let residual = residual.unwrap_or_default();
            let stream = outcome.values("stream");
            map(outcome, "y", |index, y| {
                y * (problem.x.values[index] + residual[index]) / stream[index]
            });
        },
    },
    WrongResult {
        name: "the stream's gradient left out",
        case: || {
            let mut case = plain();
            (case.residual, case.stream_gradients) = (true, true);
            case
        },
        spoil: |problem, outcome| {
            let dstream = problem.backward.as_ref().and_then(|b| b.dstream.as_ref());
            let dstream = dstream
                .map(|dstream| dstream.values.clone())
                .unwrap_or_default();
            map(outcome, "dx", |index, dx| dx - dstream[index]);
        },
    },
    WrongResult {
        name: "dx without the mean of a h",
        case: plain,
        spoil: |problem, outcome| {
            let (rstd, gamma) = (outcome.values("rstd"), problem.gamma.as_ref());
            let gamma = gamma.map(|gamma| gamma.values.clone()).unwrap_or_default();
            let dy = problem.backward.as_ref().map(|b| b.dy.values.clone());
            let dy = dy.unwrap_or_default();
            map(outcome, "dx", |index, _| {
                rstd[index / 100] * gamma[index % 100] * dy[index]
            });
        },
    },
    WrongResult {
        name: "one row left out of dgamma",
        case: plain,
        spoil: |problem, outcome| {
            let (rstd, x) = (outcome.values("rstd"), &problem.x.values);
            let dy = problem.backward.as_ref().map(|b| b.dy.values.clone());
            let dy = dy.unwrap_or_default();
            map(outcome, "dgamma", |j, sum| {
                sum - dy[300 + j] * x[300 + j] * rstd[3]
            });
        },
    },
    WrongResult {
        name: "dbeta that was not added",
        case: || {
            let mut case = layer();
            case.accumulate = true;
            case
        },
        spoil: |problem, outcome| {
            let before = problem.backward.as_ref().and_then(|b| b.before.clone());
            let before = before.unwrap_or_default();
            map(outcome, "dbeta", |j, sum| sum - before[1][j]);
        },
    },
    WrongResult {
        name: "a sum of rows in bf16",
        case: || Case::new(Operation::Norm, 40, 64, DType::F32),
        spoil: |_, outcome| map(outcome, "dgamma", |_, sum| round_to(DType::Bf16, sum)),
    },
    WrongResult {
        name: "pairs of the other pairing",
        case: turned,
        spoil: |_, outcome| {
            let y = outcome.values("y");
            map(outcome, "y", |index, _| match index % 64 {
                column if column < 32 => y[index - column + (column % 16) * 2 + column / 16],
                _ => y[index],
            });
        },
    },
    WrongResult {
        name: "elements turned beyond the width",
        case: turned,
        spoil: |_, outcome| set(outcome, "y", 64 + 33, |y| 0.9 * y),
    },
    WrongResult {
        name: "an angle of the neighbouring position",
        case: turned,
        spoil: |problem, outcome| {
            // Pair 0 turns by one more.
            let y = outcome.values("y");
            let (sin, cos) = 1.0_f64.sin_cos();
            let _ = problem;
            set(outcome, "y", 0, |_| y[0] * cos - y[16] * sin);
            set(outcome, "y", 16, |_| y[0] * sin + y[16] * cos);
        },
    },
    WrongResult {
        name: "a sigmoid for a silu",
        case: gated,
        spoil: |problem, outcome| {
            let z = problem
                .z
                .as_ref()
                .map(|z| z.values.clone())
                .unwrap_or_default();
            map(outcome, "y", |index, y| y / z[index]);
        },
    },
    WrongResult {
        name: "dz without the slope's second term",
        case: gated,
        spoil: |problem, outcome| {
            let z = problem
                .z
                .as_ref()
                .map(|z| z.values.clone())
                .unwrap_or_default();
            map(outcome, "dz", |index, dz| {
                let z = z[index];
                dz / (1.0 + z / (1.0 + z.exp()))
            });
        },
    },
    WrongResult {
        name: "dalpha of the first row alone",
        case: || {
            let mut case = Case::new(Operation::Sdd, 4, 100, DType::F32);
            case.whole_weights = false;
            case
        },
        spoil: |problem, outcome| {
            let (rstd, x) = (outcome.values("rstd"), &problem.x.values);
            let dy = problem.backward.as_ref().map(|b| b.dy.values.clone());
            let dy = dy.unwrap_or_default();
            let first: f64 = (0..100).map(|j| dy[j] * x[j] * rstd[0]).sum();
            map(outcome, "dgamma", |_, _| first);
        },
    },
    WrongResult {
        name: "a write between two rows",
        case: halves,
        spoil: |_, outcome| {
            if let Some(output) = outcome.outputs.get_mut("y") {
                output.memory[100] = 0.0;
            }
        },
    },
    WrongResult {
        name: "a write before a vector",
        case: plain,
        spoil: |_, outcome| {
            if let Some(output) = outcome.outputs.get_mut("rstd") {
                output.memory[0] = 0.0;
            }
        },
    },
    WrongResult {
        name: "a row never written",
        case: plain,
        spoil: |_, outcome| {
            map(outcome, "dx", |index, dx| {
                if index < 300 {
                    dx
                } else {
                    crate::memory::UNTOUCHED
                }
            });
        },
    },
    WrongResult {
        name: "a NaN",
        case: plain,
        spoil: |_, outcome| set(outcome, "y", 107, |_| f64::NAN),
    },
    WrongResult {
        name: "a status bit that is not so",
        case: plain,
        spoil: |_, outcome| outcome.status[0] = Status::NON_FINITE_ROW,
    },
    WrongResult {
        name: "a write past the workspace",
        case: plain,
        spoil: |_, outcome| outcome.past_workspace = true,
    },
];

impl WrongResult {
    /// Whether the comparison takes the right outcome and refuses the spoilt one; if not, what it did
    /// instead. A device without kernels is held to their wider bounds too.
    fn is_rejected(&self, device: &Device) -> Result<(), String> {
        let problem = (self.case)().problem();
        let told = |error: evenkeel::Error| format!("{}: {error}", self.name);
        let mut outcome = run(device, &problem).map_err(told)?;
        let mut bounds = vec![outcome.kernels, true];
        bounds.dedup();
        for &kernels in &bounds {
            outcome.kernels = kernels;
            let before = compare(&problem, &outcome).map_err(told)?;
            if !before.is_right() {
                return Err(format!(
                    "{}: the right outcome is refused: {:?}",
                    self.name, before.mismatches
                ));
            }
        }
        (self.spoil)(&problem, &mut outcome);
        for &kernels in &bounds {
            outcome.kernels = kernels;
            if compare(&problem, &outcome).map_err(told)?.is_right() {
                return Err(format!(
                    "{} is accepted within the bounds of {}",
                    self.name,
                    if kernels { "kernels" } else { "f64" }
                ));
            }
        }
        Ok(())
    }
}

/// All of them on a device that has the operations.
pub(in super::super) fn refusals(device: &Device) -> Refusals {
    let here = |wrong: &&WrongResult| (wrong.case)().operation.is_on(device.kind());
    let mut refusals = Refusals::default();
    for wrong in WRONG_RESULTS.iter().filter(here) {
        refusals.tried += 1;
        refusals.failures.extend(wrong.is_rejected(device).err());
    }
    refusals
}
