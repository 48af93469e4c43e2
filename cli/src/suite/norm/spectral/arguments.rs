//! Each wrong argument of a spectral norm, and the error that names it.

use evenkeel::norm::{SpectralNorm, SpectralNormOutputs, SpectralSaved, SpectralVectors};
use evenkeel::{DType, Stream, TensorRef};

use super::super::super::{Effort, Held};
use super::super::proofs::{device, names, there};
use crate::norm::Operation;
use crate::subject::Subject;

pub(in super::super) fn spectral_norm_wrong_arguments(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::SpectralNorm) {
        return skipped;
    }
    let told = |error: evenkeel::Error| error.to_string();
    let stream = device(subject, 0)?.stream().map_err(told)?;
    arguments(&stream).map_err(told)??;
    Ok(Held {
        problems: 1,
        ..Held::default()
    })
}

fn arguments(stream: &Stream) -> evenkeel::Result<Result<(), String>> {
    let op = SpectralNorm::default().prepare(stream)?;
    let w = stream.zeros(DType::Bf16, &[2, 4, 6])?;
    let integers = stream.zeros(DType::I32, &[2, 4, 6])?;
    let two = stream.zeros(DType::F32, &[2])?;
    let three = stream.zeros(DType::F32, &[3])?;
    let forward = |w: TensorRef<'_>, u: [usize; 2], v: [usize; 2], gamma: Option<TensorRef<'_>>| {
        let (mut u, mut v) = (stream.zeros(DType::F32, &u)?, stream.zeros(DType::F32, &v)?);
        let mut vectors = SpectralVectors::new(u.view_mut(), v.view_mut());
        op.forward(w, &mut vectors, gamma).map(|_| ())
    };
    let into = |bytes: usize, sigmas: usize| -> evenkeel::Result<()> {
        let (mut u, mut v) = (
            stream.zeros(DType::F32, &[2, 6])?,
            stream.zeros(DType::F32, &[2, 4])?,
        );
        let mut sigma = stream.zeros(DType::F32, &[sigmas])?;
        let mut scale = stream.zeros(DType::F32, &[2])?;
        let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
        let mut vectors = SpectralVectors::new(u.view_mut(), v.view_mut());
        let mut outputs =
            SpectralNormOutputs::new(sigma.view_mut(), scale.view_mut(), workspace.view_mut());
        op.forward_into(w.view(), &mut vectors, None, &mut outputs)
    };
    let backward = |sigma: TensorRef<'_>, dscaled: TensorRef<'_>| -> evenkeel::Result<()> {
        let u = stream.zeros(DType::F32, &[2, 6])?;
        let v = stream.zeros(DType::F32, &[2, 4])?;
        let saved = SpectralSaved::new(u.view(), v.view(), sigma);
        op.backward(w.view(), &saved, None, dscaled).map(|_| ())
    };
    let bytes = op.workspace_bytes(2, 4, 6);
    let flat = w.view().reshape(&[48])?;
    let checks = [
        (
            "integer weights",
            forward(integers.view(), [2, 6], [2, 4], None),
            "w",
        ),
        ("a flat weight", forward(flat, [1, 48], [1, 1], None), "w"),
        ("a short u", forward(w.view(), [2, 5], [2, 4], None), "u"),
        ("a short v", forward(w.view(), [2, 6], [1, 4], None), "v"),
        (
            "three gammas",
            forward(w.view(), [2, 6], [2, 4], Some(three.view())),
            "gamma",
        ),
        ("three sigmas", into(bytes, 3), "sigma"),
        (
            "three sigmas of a backward",
            backward(three.view(), w.view()),
            "sigma",
        ),
        (
            "a short gradient",
            backward(two.view(), w.view().slice_rows(0..1)?),
            "dscaled",
        ),
    ];
    for (what, result, argument) in checks {
        if let Err(wrong) = names(what, result, argument) {
            return Ok(Err(wrong));
        }
    }
    if bytes > 0
        && let Err(wrong) = names("a short workspace", into(bytes - 1, 2), "workspace")
    {
        return Ok(Err(wrong));
    }
    forward(w.view(), [2, 6], [2, 4], Some(two.view()))?;
    backward(two.view(), w.view())?;
    into(bytes, 2)?;
    // Those calls found weights of zeros, as they were given.
    match stream.check() {
        Ok(()) => Ok(Err("zero weights were not told".into())),
        Err(evenkeel::Error::Data(_)) => Ok(Ok(())),
        Err(other) => Err(other),
    }
}
