//! Runs a softmax on a device and brings everything back.

use evenkeel::norm::{Softmax, SoftmaxIncoming, SoftmaxStatistics};
use evenkeel::{Buffer, Result, Status, Stream};

use super::problem::Problem;
use crate::memory::{UNTOUCHED, upload_integers};
use crate::norm::placed::{Place, Written, status_of};

/// What a device computed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The shares.
    pub y: Written,
    /// `[rows]`.
    pub entropy: Written,
    /// `[rows]`.
    pub normalizer: Written,
    /// The gradient, where there is a backward.
    pub dx: Option<Written>,
    /// Status bits of all calls.
    pub status: Status,
}

impl Outcome {
    /// Whether another outcome is the same, bit for bit.
    #[must_use]
    pub fn same_bits(&self, other: &Self) -> bool {
        let bits = |outcome: &Self| {
            (
                outcome.y.bits(),
                outcome.entropy.bits(),
                outcome.normalizer.bits(),
                outcome.dx.as_ref().map(Written::bits),
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
    let op = Softmax::from(problem.options).prepare(stream)?;
    let lengths = problem
        .lengths
        .as_ref()
        .map(|lengths| upload_integers(stream, problem.lengths_type, lengths))
        .transpose()?;
    let lengths = lengths.as_ref().map(Buffer::view);
    let vector = Place::vector(problem.rows());
    let (mut entropy, mut normalizer) = (vector.empty(stream)?, vector.empty(stream)?);
    let mut x = problem.x.upload(stream)?;
    let mut apart = problem.y.empty(stream)?;
    let mut statistics = SoftmaxStatistics::default()
        .entropy(vector.view_mut(&mut entropy)?)
        .normalizer(vector.view_mut(&mut normalizer)?);
    let in_place = problem.pass.in_place();
    let (y, y_around) = if in_place {
        let x_mut = problem.x.place.view_mut(&mut x)?;
        op.forward_in_place(x_mut, lengths, &mut statistics)?;
        (&x, f64::NAN)
    } else {
        let into = problem.y.view_mut(&mut apart)?;
        op.forward_into(problem.x.place.view(&x)?, lengths, into, &mut statistics)?;
        (&apart, UNTOUCHED)
    };
    let dx = if problem.pass.backward() {
        Some(backward(stream, problem, &op, y, lengths, &normalizer)?)
    } else {
        None
    };
    Ok(Outcome {
        y: problem.y.take(y, y_around)?,
        entropy: vector.take(&entropy, UNTOUCHED)?,
        normalizer: vector.take(&normalizer, UNTOUCHED)?,
        dx,
        status: status_of(stream)?,
    })
}

fn backward(
    stream: &Stream,
    problem: &Problem,
    op: &evenkeel::norm::PreparedSoftmax,
    y: &Buffer,
    lengths: Option<evenkeel::TensorRef<'_>>,
    normalizer: &Buffer,
) -> Result<Written> {
    let vector = Place::vector(problem.rows());
    let dentropy = problem
        .dentropy
        .as_ref()
        .map(|values| vector.upload(stream, values, f64::NAN))
        .transpose()?;
    let mut incoming = SoftmaxIncoming::default().normalizer(vector.view(normalizer)?);
    if let Some(dentropy) = &dentropy {
        incoming = incoming.dentropy(vector.view(dentropy)?);
    }
    let y = problem.y.view(y)?;
    let mut dy = problem.dy.upload(stream)?;
    if problem.pass.in_place() {
        let dy_mut = problem.dy.place.view_mut(&mut dy)?;
        op.backward_in_place(y, lengths, dy_mut, &incoming)?;
        return problem.dx.take(&dy, f64::NAN);
    }
    let mut dx = problem.dx.empty(stream)?;
    let into = problem.dx.view_mut(&mut dx)?;
    op.backward_into(y, lengths, problem.dy.place.view(&dy)?, &incoming, into)?;
    problem.dx.take(&dx, UNTOUCHED)
}
