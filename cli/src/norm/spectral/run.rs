//! Runs a spectral norm on a device and brings everything back.

use evenkeel::norm::{
    PreparedSpectralNorm, SpectralNorm, SpectralNormGradientOutputs, SpectralNormOutputs,
    SpectralSaved, SpectralVectors,
};
use evenkeel::{Buffer, DType, Result, Status, Stream, TensorRef};

use super::problem::Problem;
use crate::memory::UNTOUCHED;
use crate::norm::placed::{Matrix, Place, Written, status_of};

/// What a device computed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `[batch, n]`, after the call.
    pub u: Written,
    /// `[batch, m]`, after the call.
    pub v: Written,
    /// `[batch]`.
    pub sigma: Written,
    /// `[batch]`.
    pub scale: Written,
    /// The scaled weight, where it was asked for.
    pub scaled: Option<Written>,
    /// The gradient of w, where there is a backward.
    pub dw: Option<Written>,
    /// That of gamma, where there is a gamma too.
    pub dgamma: Option<Written>,
    /// Status bits of all calls.
    pub status: Status,
}

impl Outcome {
    /// All that was written.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, &Written)> {
        [
            ("u", Some(&self.u)),
            ("v", Some(&self.v)),
            ("sigma", Some(&self.sigma)),
            ("the scale", Some(&self.scale)),
            ("the scaled weight", self.scaled.as_ref()),
            ("dw", self.dw.as_ref()),
            ("dgamma", self.dgamma.as_ref()),
        ]
        .into_iter()
        .filter_map(|(name, written)| Some((name, written?)))
        .collect()
    }

    /// Whether another outcome is the same, bit for bit.
    #[must_use]
    pub fn same_bits(&self, other: &Self) -> bool {
        let bits = |outcome: &Self| {
            let all = outcome.all();
            all.into_iter()
                .map(|(name, written)| (name, written.bits()))
                .collect::<Vec<_>>()
        };
        bits(self) == bits(other) && self.status == other.status
    }
}

/// Computes the problem.
///
/// # Errors
/// The library's, but for what the status word holds: that is part of the outcome.
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let [batch, m, n] = problem.shape();
    let op = SpectralNorm::new(problem.steps).prepare(stream)?;
    let (each, of_u, of_v) = (
        Place::vector(batch),
        Place::vector(batch * n),
        Place::vector(batch * m),
    );
    let w = problem.w.upload(stream)?;
    let w_view = problem.w.place.view(&w)?;
    let mut u = of_u.upload(stream, &problem.u, UNTOUCHED)?;
    let mut v = of_v.upload(stream, &problem.v, UNTOUCHED)?;
    let gamma = problem
        .gamma
        .as_ref()
        .map(|gamma| each.upload(stream, gamma, f64::NAN))
        .transpose()?;
    let gamma = gamma.as_ref().map(|gamma| each.view(gamma)).transpose()?;
    let (mut sigma, mut scale) = (each.empty(stream)?, each.empty(stream)?);
    let mut scaled = problem
        .scaled
        .as_ref()
        .map(|place| place.empty(stream))
        .transpose()?;
    let mut workspace = stream.uninitialised(DType::U8, &[op.workspace_bytes(batch, m, n)])?;
    let mut vectors = SpectralVectors::new(
        of_u.view_mut(&mut u)?.reshape(&[batch, n])?,
        of_v.view_mut(&mut v)?.reshape(&[batch, m])?,
    );
    let mut outputs = SpectralNormOutputs::new(
        each.view_mut(&mut sigma)?,
        each.view_mut(&mut scale)?,
        workspace.view_mut(),
    );
    if let (Some(place), Some(memory)) = (&problem.scaled, &mut scaled) {
        outputs = outputs.scaled(place.view_mut(memory)?);
    }
    op.forward_into(w_view, &mut vectors, gamma, &mut outputs)?;
    let saved = SpectralSaved::new(
        of_u.view(&u)?.reshape(&[batch, n])?,
        of_v.view(&v)?.reshape(&[batch, m])?,
        each.view(&sigma)?,
    );
    let (dw, dgamma) = match &problem.dscaled {
        Some(dscaled) => backward(stream, problem, &op, w_view, saved, gamma, dscaled)?,
        None => (None, None),
    };
    let taken = |place: &Option<Place>, memory: &Option<Buffer>| -> Result<Option<Written>> {
        place
            .as_ref()
            .zip(memory.as_ref())
            .map(|(place, memory)| place.take(memory, UNTOUCHED))
            .transpose()
    };
    Ok(Outcome {
        u: of_u.take(&u, UNTOUCHED)?,
        v: of_v.take(&v, UNTOUCHED)?,
        sigma: each.take(&sigma, UNTOUCHED)?,
        scale: each.take(&scale, UNTOUCHED)?,
        scaled: taken(&problem.scaled, &scaled)?,
        dw,
        dgamma,
        status: status_of(stream)?,
    })
}

type Gradients = (Option<Written>, Option<Written>);

fn backward(
    stream: &Stream,
    problem: &Problem,
    op: &PreparedSpectralNorm,
    w: TensorRef<'_>,
    saved: SpectralSaved<'_>,
    gamma: Option<TensorRef<'_>>,
    dscaled: &Matrix,
) -> Result<Gradients> {
    let [batch, m, n] = problem.shape();
    let each = Place::vector(batch);
    let [of_w, of_gamma] = match &problem.before {
        Some([of_w, of_gamma]) => [&of_w[..], &of_gamma[..]],
        None => [&[][..], &[][..]],
    };
    let mut dw = problem.dw.upload(stream, of_w, UNTOUCHED)?;
    let mut dgamma = each.upload(stream, of_gamma, UNTOUCHED)?;
    let bytes = op.backward_workspace_bytes(batch, m, n);
    let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
    let mut outputs =
        SpectralNormGradientOutputs::new(problem.dw.view_mut(&mut dw)?, workspace.view_mut());
    if gamma.is_some() {
        outputs = outputs.dgamma(each.view_mut(&mut dgamma)?);
    }
    if problem.before.is_some() {
        outputs = outputs.accumulate();
    }
    let of_scaled = dscaled.upload(stream)?;
    let of_scaled = dscaled.place.view(&of_scaled)?;
    op.backward_into(w, &saved, gamma, of_scaled, &mut outputs)?;
    let dgamma = if gamma.is_some() {
        Some(each.take(&dgamma, UNTOUCHED)?)
    } else {
        None
    };
    Ok((Some(problem.dw.take(&dw, UNTOUCHED)?), dgamma))
}
