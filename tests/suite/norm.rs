//! The properties of the row operations, one test of each for each kind of device, and golden vectors
//! on all of them.

mod neighbours;

use evenkeel::norm::{HeadNormOptions, NormOptions, SDD_EPS};
use evenkeel::{DType, DeviceKind};
use evenkeel_cli::compare::Checked;
use evenkeel_cli::memory::Layout;
use evenkeel_cli::norm::Operation;
use evenkeel_cli::norm::rows::problem::{Backward, Matrix, Tables, Vector};
use evenkeel_cli::norm::rows::{Form, Problem, Shape};

use crate::golden::norm::{Case, Op, load};
use crate::properties::{properties, subject};

properties!(
    Norm:
    every_norm_in_every_form,
    every_type,
    every_alignment,
    widths,
    extremes,
    an_offset_costs_no_digits,
    rotary_embeddings,
    rows_that_are_not_finite,
    accumulating_adds,
    in_place_equals_apart,
    random_norms,
    no_rows,
    wrong_arguments,
    the_same_bits_every_time,
    bytes_of_norms,
    bytes_of_gradients,
    norms_on_other_architectures,
    softmax_kinds_and_masks,
    softmax_lengths_of_rows,
    softmax_alignments,
    softmax_extremes,
    softmax_rows_sum_to_one,
    softmax_offsets_change_nothing,
    softmax_peaks_keep_their_digits,
    softmax_ranks,
    softmax_forms_agree,
    softmax_random_problems,
    softmax_of_nothing,
    softmax_of_rows_that_see_nothing,
    softmax_of_rows_that_are_not_finite,
    softmax_wrong_arguments,
    softmax_same_bits,
    softmax_traffic,
    softmax_on_other_architectures,
    softmax_past_two_to_the_32,
    dyt_weights_and_passes,
    dyt_lengths_of_rows,
    dyt_slopes_keep_their_digits,
    dyt_forms_agree,
    dyt_random_problems,
    dyt_edges,
    dyt_wrong_arguments,
    dyt_same_bits,
    dyt_traffic,
    dyt_on_other_architectures,
    spectral_norm_shapes_and_steps,
    spectral_norm_extremes,
    spectral_norm_long_rows,
    spectral_norm_converges,
    spectral_norm_forms_agree,
    spectral_norm_random_problems,
    spectral_norm_edges,
    spectral_norm_wrong_arguments,
    spectral_norm_same_bits,
    spectral_norm_traffic,
    spectral_norm_on_other_architectures,
    tev_tables,
    tev_offsets,
    tev_random_problems,
    tev_edges,
    tev_wrong_arguments,
    tev_same_bits,
    tev_traffic,
    tev_on_other_architectures,
    quantised_norms,
    quantised_widths,
    quantised_alignments,
    quantised_extremes,
    quantised_same_bits,
    quantised_traffic,
    quantised_on_other_architectures,
    quantised_dyts,
    quantised_dyt_bits,
    quantised_dyt_traffic,
);

/// A golden case of a normalization as a problem: its data, and the call whose results the file has.
fn of_rows(case: &Case, dtype: DType) -> Option<(Operation, Problem)> {
    let [tokens, heads, columns] = case.inputs.shape;
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&x| x.into()).collect() };
    let matrix = |values: &[f32]| Matrix {
        dtype,
        layout: Layout::default(),
        values: wide(values),
    };
    let vector = |values: &[f32]| Vector {
        dtype: DType::F32,
        values: wide(values),
    };
    let plain = HeadNormOptions::default();
    let (operation, norm, options, length) = match &case.op {
        Op::Norm(norm) => (Operation::Norm, Some(*norm), plain, columns),
        Op::Gated(norm) => (Operation::GatedNorm, Some(*norm), plain, columns),
        Op::Heads { options, shared } => {
            let length = if *shared { columns } else { heads * columns };
            (Operation::HeadNorm, options.norm, *options, length)
        }
        Op::Sdd { scalar } => {
            let norm = NormOptions::rms().eps(SDD_EPS);
            let length = if *scalar { 1 } else { columns };
            (Operation::Sdd, Some(norm), plain, length)
        }
        _ => return None,
    };
    let rotary = options.rotary.filter(|_| operation == Operation::HeadNorm);
    let weight = |name| case.given(name).map(|values| vector(&values[..length]));
    let gamma = match operation {
        Operation::Sdd => Some(vector(&case.tensor("gamma")[..length])),
        _ => weight("gamma"),
    };
    let tables = rotary.map(|rotary| {
        let pairs = rotary.width / 2;
        let used = case.tensor("cos").len() / (columns / 2) * pairs;
        Tables {
            dtype: DType::F32,
            pairs,
            cos: wide(&case.tensor("cos")[..used]),
            sin: wide(&case.tensor("sin")[..used]),
            positions: Some((DType::I64, case.inputs.positions.clone())),
        }
    });
    let gate = operation == Operation::GatedNorm;
    let place = (DType::F32, Layout::default());
    let problem = Problem {
        name: format!("golden {}, {dtype}", case.name),
        operation,
        norm,
        rotary,
        shape: Shape {
            tokens,
            heads,
            columns,
            packed: true,
        },
        form: Form::Apart,
        statistics: norm.is_some(),
        x: matrix(case.tensor("x")),
        y: place,
        residual: case.given("residual").filter(|_| !gate).map(matrix),
        stream: place,
        z: gate.then(|| matrix(case.tensor("residual"))),
        dz: place,
        backward: Some(Backward {
            dy: matrix(case.tensor("dy")),
            dx: place,
            dstream: case.given("dstream").map(matrix),
            dresidual: None,
            weight_gradients: gamma.is_some() || case.given("beta").is_some(),
            before: None,
        }),
        gamma,
        beta: weight("beta"),
        tables,
    };
    Some((operation, problem))
}

/// A golden case as a problem, with its matrices in `dtype`.
fn problem(case: &Case, dtype: DType) -> (Operation, Box<dyn Checked>) {
    if let Some((operation, problem)) = of_rows(case, dtype) {
        return (operation, Box::new(problem));
    }
    neighbours::problem(case, dtype).unwrap_or_else(|| panic!("no problem of {}", case.name))
}

/// Every golden case on a device. `golden::norm::the_reference_agrees` holds the reference to the
/// file's numbers within 1e-12, which is nothing beside the bounds that the device is held to here.
fn golden_vectors(kind: DeviceKind) {
    let Some(subject) = subject(kind) else {
        return;
    };
    let mut wrong = Vec::new();
    for (index, case) in load().iter().enumerate() {
        for dtype in [DType::Bf16, DType::F16, DType::F32] {
            if !case.inputs.types.iter().any(|name| name == dtype.name()) {
                continue;
            }
            let (operation, problem) = problem(case, dtype);
            if !operation.is_on(kind) {
                continue;
            }
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
