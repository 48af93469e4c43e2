//! Runs an activation and its backward on a device and brings everything back.

use evenkeel::quant::{GateUp, GateUpMut, Gelu, Smoothing, SmoothingScales, SwiGlu};
use evenkeel::reference::quant::activation::Function;
use evenkeel::{Buffer, Result, Status, Stream, TensorRef};

use super::problem::Problem;
use crate::memory::UNTOUCHED;
use crate::norm::placed::{Place, Written, status_of};

/// What a device computed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The result.
    pub y: Written,
    /// The scales that were computed.
    pub scales: Option<Written>,
    /// The gradients of the inputs.
    pub gradients: Vec<Written>,
    /// Status bits of all calls.
    pub status: Status,
}

impl Outcome {
    /// The bits of everything.
    #[must_use]
    pub fn bits(&self) -> Vec<Vec<u64>> {
        let all = [&self.y].into_iter().chain(&self.scales);
        all.chain(&self.gradients).map(Written::bits).collect()
    }
}

/// SwiGLU's inputs, in one matrix or in two.
///
/// # Errors
/// When the memory is another's.
pub fn gate_up<'a>(problem: &Problem, memories: &'a [Buffer]) -> Result<GateUp<'a>> {
    let view = |at: usize| problem.inputs[at].place.view(&memories[at]);
    Ok(match problem.inputs.len() {
        1 => GateUp::Packed(view(0)?),
        _ => GateUp::Apart {
            gate: view(0)?,
            up: view(1)?,
        },
    })
}

/// Computes everything on a stream.
///
/// # Errors
/// The library's, but for what the status word holds.
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let inputs = problem.inputs.iter().map(|input| input.upload(stream));
    let inputs: Vec<Buffer> = inputs.collect::<Result<_>>()?;
    let dy = problem.dy.upload(stream)?;
    let dy = problem.dy.place.view(&dy)?;
    let mut y = problem.y.empty(stream)?;
    let into = problem.y.view_mut(&mut y)?;
    let memories = problem.gradients.iter().map(|place| place.empty(stream));
    let mut memories: Vec<Buffer> = memories.collect::<Result<_>>()?;
    let mut scales = None;
    match problem.function {
        Function::Gelu(kind) => {
            let op = Gelu::new(kind).prepare(stream)?;
            let x = problem.inputs[0].place.view(&inputs[0])?;
            op.forward_into(x, into)?;
            op.backward_into(x, dy, problem.gradients[0].view_mut(&mut memories[0])?)?;
        }
        Function::SwiGlu => {
            let op = prepared(problem.smoothing);
            let op = op.prepare(stream)?;
            let x = gate_up(problem, &inputs)?;
            let given = problem.given.as_ref().map(|given| given.upload(stream));
            let given = given.transpose()?;
            let place = problem.smoothing.map(|smoothing| {
                let count = smoothing.scales(problem.tokens, problem.channels);
                Place::vector(count)
            });
            let mut computed = place
                .as_ref()
                .map(|place| place.empty(stream))
                .transpose()?;
            let of_forward = match (&place, &given, &mut computed) {
                (Some(place), Some(given), _) => Some(SmoothingScales::Given(place.view(given)?)),
                (Some(place), None, Some(memory)) => {
                    Some(SmoothingScales::Computed(place.view_mut(memory)?))
                }
                _ => None,
            };
            op.forward_into(x, of_forward, into)?;
            let saved: Option<TensorRef<'_>> = match (&place, given.as_ref().or(computed.as_ref()))
            {
                (Some(place), Some(memory)) => Some(place.view(memory)?),
                _ => None,
            };
            let (first, rest) = memories.split_at_mut(1);
            let packed = problem.gradients[0].view_mut(&mut first[0])?;
            let gradients = match rest.first_mut() {
                Some(up) => GateUpMut::Apart {
                    gate: packed,
                    up: problem.gradients[1].view_mut(up)?,
                },
                None => GateUpMut::Packed(packed),
            };
            op.backward_into(x, saved, dy, gradients)?;
            if let (Some(place), None, Some(memory)) = (&place, &given, &computed) {
                scales = Some(place.take(memory, UNTOUCHED)?);
            }
        }
    }
    let gradients = problem.gradients.iter().zip(&memories);
    let gradients = gradients.map(|(place, memory)| place.take(memory, UNTOUCHED));
    Ok(Outcome {
        y: problem.y.take(&y, UNTOUCHED)?,
        scales,
        gradients: gradients.collect::<Result<_>>()?,
        status: status_of(stream)?,
    })
}

fn prepared(smoothing: Option<Smoothing>) -> SwiGlu {
    let op = SwiGlu::new();
    smoothing.map_or(op, |smoothing| op.smoothing(smoothing))
}
