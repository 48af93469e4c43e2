//! Golden vectors of quantisation on a device.

use evenkeel::{DType, DeviceKind};
use evenkeel_cli::compare::Computed;
use evenkeel_cli::norm::placed::{Matrix, Place};
use evenkeel_cli::quant::{self, Output, Problem};

use crate::golden::quant::{Case, Results, load};
use crate::properties::subject;

/// A golden case as a problem, with its matrix in `dtype`.
fn problem(case: &Case, dtype: DType) -> Problem {
    let [rows, columns] = case.inputs.shape;
    let output = Output {
        options: case.output,
        ..Output::FULL
    };
    let mut of =
        quant::Case::new(rows, columns, dtype, case.options.format).only(case.direction, output);
    of.options = case.options;
    of.offset = case.offset;
    let sizes = &case.groups;
    of.groups = (!sizes.is_empty()).then(|| (sizes.clone(), DType::I64));
    let place = Place::new(dtype, &[rows, columns]);
    let values = case.inputs.x.iter().map(|&x| f64::from(x));
    let mut problem = Problem::new(of, Matrix::new(place, values));
    for wanted in &mut problem.wanted {
        wanted.given = case.given.map(|scale| vec![scale]);
        wanted.amax = Some(vec![0.0; sizes.len().max(1)]);
        wanted.counts = Some([0; 2]);
    }
    problem
}

/// What a device stored, as the file has it.
fn results(case: &Case, outcome: &quant::Outcome) -> Results {
    let stored = &outcome.stored[0];
    let words = |floats: Vec<f32>| floats.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let counts = stored.counts.as_ref().unwrap().counts();
    Results {
        data: stored.data.bytes.clone(),
        scales: match &stored.scales {
            Some(scales) if case.options.format.has_f32_scales() => words(scales.floats()),
            Some(scales) => scales.bytes.iter().map(|&byte| byte.into()).collect(),
            None => Vec::new(),
        },
        tensor_scale: stored
            .tensor_scale
            .as_ref()
            .map_or(Vec::new(), |scale| words(scale.floats())),
        amax: words(stored.amax.as_ref().unwrap().floats()),
        counts: [counts[0].into(), counts[1].into()],
    }
}

/// Every golden case on a device, to the bit.
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
            let stream = subject.device(index).unwrap().stream().unwrap();
            match problem(case, dtype).outcome(&stream) {
                Ok(outcome) => wrong.extend(case.mismatches(&results(case, &outcome))),
                Err(error) => wrong.push(format!("{error} in {}", case.name)),
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
