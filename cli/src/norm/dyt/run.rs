//! Runs a dynamic tanh on a device and brings everything back.

use evenkeel::norm::{Dyt, GradientOutputs, PreparedDyt, Weights};
use evenkeel::{Buffer, DType, Result, Status, Stream};

use super::problem::Problem;
use crate::memory::UNTOUCHED;
use crate::norm::placed::{Matrix, Place, Written, status_of};

/// What a device computed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The result.
    pub y: Written,
    /// The gradient of x, where there is a backward.
    pub dx: Option<Written>,
    /// Those of alpha, gamma and beta, of what is there.
    pub shared: [Option<Written>; 3],
    /// Status bits of all calls.
    pub status: Status,
}

impl Outcome {
    /// Whether another outcome is the same, bit for bit.
    #[must_use]
    pub fn same_bits(&self, other: &Self) -> bool {
        let bits = |outcome: &Self| {
            let of = |written: &Option<Written>| written.as_ref().map(Written::bits);
            (
                outcome.y.bits(),
                of(&outcome.dx),
                outcome.shared.each_ref().map(of),
                outcome.status,
            )
        };
        bits(self) == bits(other)
    }
}

/// Computes the problem.
///
/// # Errors
/// The library's, but for what the status word holds: that is part of the outcome.
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let op = Dyt::new().prepare(stream)?;
    let upload = |matrix: &Option<Matrix>| -> Result<Option<Buffer>> {
        matrix
            .as_ref()
            .map(|matrix| matrix.upload(stream))
            .transpose()
    };
    let (gamma, beta) = (upload(&problem.gamma)?, upload(&problem.beta)?);
    let mut weights = Weights::default();
    if let (Some(matrix), Some(buffer)) = (&problem.gamma, &gamma) {
        weights.gamma = Some(matrix.place.view(buffer)?);
    }
    if let (Some(matrix), Some(buffer)) = (&problem.beta, &beta) {
        weights.beta = Some(matrix.place.view(buffer)?);
    }
    let one = Place::vector(1);
    let alpha = one.upload(stream, &[problem.alpha.into()], f64::NAN)?;
    let alpha = one.view(&alpha)?;
    let x = problem.x.upload(stream)?;
    let y = if problem.pass.in_place() {
        let mut over = problem.x.upload(stream)?;
        op.forward_in_place(problem.x.place.view_mut(&mut over)?, alpha, &weights)?;
        problem.y.take(&over, f64::NAN)?
    } else {
        let mut apart = problem.y.empty(stream)?;
        let into = problem.y.view_mut(&mut apart)?;
        op.forward_into(problem.x.place.view(&x)?, alpha, &weights, into)?;
        problem.y.take(&apart, UNTOUCHED)?
    };
    let (dx, shared) = if problem.pass.backward() {
        let (dx, shared) = backward(stream, problem, &op, &x, alpha, &weights)?;
        (Some(dx), shared)
    } else {
        (None, [None, None, None])
    };
    Ok(Outcome {
        y,
        dx,
        shared,
        status: status_of(stream)?,
    })
}

fn backward(
    stream: &Stream,
    problem: &Problem,
    op: &PreparedDyt,
    x: &Buffer,
    alpha: evenkeel::TensorRef<'_>,
    weights: &Weights<'_>,
) -> Result<(Written, [Option<Written>; 3])> {
    let (rows, columns) = (problem.x.place.rows(), problem.x.place.width());
    let places = [
        Some(Place::vector(1)),
        problem.gamma.as_ref().map(|_| Place::vector(columns)),
        problem.beta.as_ref().map(|_| Place::vector(columns)),
    ];
    let mut memories = [None, None, None];
    for ((memory, place), before) in memories.iter_mut().zip(&places).zip(&problem.before) {
        if let Some(place) = place {
            let before = before.as_deref().unwrap_or(&[]);
            *memory = Some(place.upload(stream, before, UNTOUCHED)?);
        }
    }
    let bytes = op.backward_workspace_bytes(rows, columns);
    let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
    let mut outputs = GradientOutputs {
        accumulate: problem.accumulates(),
        workspace: Some(workspace.view_mut()),
        ..GradientOutputs::default()
    };
    let [of_alpha, of_gamma, of_beta] = &mut memories;
    for (slot, memory, place) in [
        (&mut outputs.dalpha, of_alpha, &places[0]),
        (&mut outputs.dgamma, of_gamma, &places[1]),
        (&mut outputs.dbeta, of_beta, &places[2]),
    ] {
        if let (Some(memory), Some(place)) = (memory, place) {
            *slot = Some(place.view_mut(memory)?);
        }
    }
    let x = problem.x.place.view(x)?;
    let mut dy = problem.dy.upload(stream)?;
    let dx = if problem.pass.in_place() {
        let over = problem.dy.place.view_mut(&mut dy)?;
        op.backward_in_place(x, alpha, weights, over, &mut outputs)?;
        problem.dx.take(&dy, f64::NAN)?
    } else {
        let mut dx = problem.dx.empty(stream)?;
        let into = problem.dx.view_mut(&mut dx)?;
        let dy = problem.dy.place.view(&dy)?;
        op.backward_into(x, alpha, weights, dy, into, &mut outputs)?;
        problem.dx.take(&dx, UNTOUCHED)?
    };
    let mut shared = [None, None, None];
    for ((slot, place), memory) in shared.iter_mut().zip(&places).zip(&memories) {
        if let (Some(place), Some(memory)) = (place, memory) {
            *slot = Some(place.take(memory, UNTOUCHED)?);
        }
    }
    Ok((dx, shared))
}
