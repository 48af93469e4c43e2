//! The golden vectors of the activations on devices.

use evenkeel::reference::quant::activation::Function;
use evenkeel::{DType, DeviceKind};
use evenkeel_cli::compare::Checked;
use evenkeel_cli::norm::placed::Matrix;
use evenkeel_cli::quant::activation::{Case, Problem};

use crate::golden::activation::{self as golden, load};
use crate::properties::subject;

/// A golden case as a problem, its inputs and results of this type.
fn problem(case: &golden::Case, dtype: DType, packed: bool) -> Problem {
    let [tokens, channels] = case.inputs.shape;
    let mut of = Case::new(case.function, tokens, channels, dtype);
    (of.smoothing, of.packed) = (case.smoothing, packed);
    let mut problem = of.problem();
    let wide = |name: &str| -> Vec<f64> {
        let values = case.inputs.tensors[name].iter();
        values.map(|&value| value.into()).collect()
    };
    let (x, up) = (wide("x"), wide("up"));
    let place = |at: usize| problem.inputs[at].place.clone();
    problem.inputs = match (case.function, packed) {
        (Function::SwiGlu, true) => {
            let rows = x.chunks(channels).zip(up.chunks(channels));
            let both = rows.flat_map(|(x, up)| [x, up].concat());
            vec![Matrix::new(place(0), both.collect::<Vec<_>>())]
        }
        (Function::SwiGlu, false) => vec![Matrix::new(place(0), x), Matrix::new(place(1), up)],
        _ => vec![Matrix::new(place(0), x)],
    };
    problem.dy = Matrix::new(problem.dy.place.clone(), wide("dy"));
    problem.name = case.name.clone();
    problem
}

/// Every golden case on a device. `golden::activation::the_reference_agrees_with_jax` holds the
/// reference to the file's numbers within 1e-12, which is nothing beside the bounds that the device is
/// held to here.
pub fn golden_vectors(kind: DeviceKind) {
    let Some(subject) = subject(kind) else {
        return;
    };
    let mut wrong = Vec::new();
    for (index, case) in load().iter().enumerate() {
        for dtype in [DType::Bf16, DType::F16, DType::F32] {
            if !case.inputs.types.iter().any(|name| name == dtype.name()) {
                continue;
            }
            let problem = problem(case, dtype, index % 2 == 0);
            match problem.check(subject.device(index).unwrap()) {
                Ok(verdict) => wrong.extend(verdict.mismatches),
                Err(error) => wrong.push(format!("{error} in {}", problem.name())),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(8)].join("\n")
    );
}
