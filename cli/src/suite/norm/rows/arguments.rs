//! Each wrong argument of a normalization, and the error that names it.

use evenkeel::norm::{
    GatedNorm, GradientOutputs, HeadNorm, HeadNormOptions, Norm, NormOptions, Pairing,
    RotaryTables, Saved, Sdd, Statistics, Weights,
};
use evenkeel::{Buffer, DType, Device, DeviceKind, Stream, TensorRef};

use super::super::proofs::names;
use super::{Effort, Held, operations, tried};
use crate::norm::Operation;
use crate::subject::Subject;

/// An error of the calls that are right, or what was accepted.
type Checked = evenkeel::Result<Result<(), String>>;

pub(in super::super) fn wrong_arguments(subject: &Subject, _: Effort) -> Result<Held, String> {
    let told = |error: evenkeel::Error| error.to_string();
    let device = subject.device(0).map_err(told)?;
    let stream = device.stream().map_err(told)?;
    let mut held = Held::default();
    for operation in operations(subject) {
        held.problems += 1;
        match operation {
            Operation::Norm => {
                options(&stream).map_err(told)??;
                norm_forward(&stream).map_err(told)??;
                norm_backward(&stream).map_err(told)??;
                elsewhere(device, &stream).map_err(told)??;
            }
            Operation::HeadNorm => heads(&stream).map_err(told)??,
            Operation::GatedNorm => gated(&stream).map_err(told)??,
            _ => sdd(&stream).map_err(told)??,
        }
    }
    tried(held)
}

/// Results of wrong calls, with the arguments that their errors are to name.
fn all(checks: Vec<(&str, evenkeel::Result<()>, &str)>) -> Result<(), String> {
    checks
        .into_iter()
        .try_for_each(|(what, result, argument)| names(what, result, argument))
}

fn floats(stream: &Stream, shape: &[usize]) -> evenkeel::Result<Buffer> {
    stream.zeros(DType::F32, shape)
}

fn options(stream: &Stream) -> Checked {
    let mut checks = Vec::new();
    for eps in [-1.0, f32::NAN, f32::INFINITY] {
        let norm = Norm::layer().eps(eps).prepare(stream).map(drop);
        checks.push(("an eps that is none", norm, "eps"));
        let gated = GatedNorm::new(NormOptions::rms().eps(eps));
        checks.push(("an eps of a gate", gated.prepare(stream).map(drop), "eps"));
    }
    Ok(all(checks))
}

fn norm_forward(stream: &Stream) -> Checked {
    let (rms, layer) = (Norm::rms().prepare(stream)?, Norm::layer().prepare(stream)?);
    let none = Weights::default();
    let x = floats(stream, &[2, 4])?;
    let (four, three) = (floats(stream, &[4])?, floats(stream, &[3])?);
    let integers = stream.zeros(DType::I64, &[2, 4])?;
    let forward = |x: TensorRef<'_>, weights: &Weights<'_>| rms.forward(x, weights).map(drop);
    let mut checks = vec![
        ("integer rows", forward(integers.view(), &none), "x"),
        (
            "no columns",
            forward(x.view().slice_columns(0..0)?, &none),
            "x",
        ),
        (
            "a short gamma",
            forward(x.view(), &Weights::gamma(three.view())),
            "gamma",
        ),
        (
            "an integer gamma",
            forward(x.view(), &Weights::gamma(integers.view().slice_rows(0..1)?)),
            "gamma",
        ),
        (
            "a short beta",
            forward(x.view(), &Weights::gamma(four.view()).beta(three.view())),
            "beta",
        ),
    ];
    let into = |shape: &[usize], statistics: &mut Statistics<'_>| {
        let mut y = floats(stream, shape)?;
        rms.forward_into(x.view(), &none, y.view_mut(), statistics)
    };
    let mut rows = floats(stream, &[3])?;
    checks.extend([
        ("a narrow y", into(&[2, 3], &mut Statistics::default()), "y"),
        (
            "a row too few",
            into(&[1, 4], &mut Statistics::default()),
            "y",
        ),
        (
            "three rstd",
            into(&[2, 4], &mut Statistics::rstd(rows.view_mut())),
            "rstd",
        ),
        (
            "a mean of RmsNorm",
            into(
                &[2, 4],
                &mut Statistics::default().mean(rows.view_mut().slice_rows(0..2)?),
            ),
            "mean",
        ),
    ]);
    let mut y = floats(stream, &[2, 4])?;
    let three_means = layer.forward_into(
        x.view(),
        &none,
        y.view_mut(),
        &mut Statistics::default().mean(rows.view_mut()),
    );
    checks.push(("three means", three_means, "mean"));
    let (narrow, mut added) = (floats(stream, &[2, 3])?, floats(stream, &[2, 4])?);
    let residual = rms.forward_residual_into(
        x.view(),
        narrow.view(),
        &none,
        added.view_mut(),
        y.view_mut(),
        &mut Statistics::default(),
    );
    checks.push(("a narrow residual", residual, "residual"));
    let mut short = floats(stream, &[1, 4])?;
    let sum = rms.forward_residual_into(
        x.view(),
        x.view(),
        &none,
        short.view_mut(),
        y.view_mut(),
        &mut Statistics::default(),
    );
    checks.push(("a short stream", sum, "stream"));
    Ok(all(checks))
}

fn norm_backward(stream: &Stream) -> Checked {
    let (rms, layer) = (Norm::rms().prepare(stream)?, Norm::layer().prepare(stream)?);
    let (x, dy) = (floats(stream, &[2, 4])?, floats(stream, &[2, 4])?);
    let (gamma, rows) = (floats(stream, &[4])?, floats(stream, &[2])?);
    let (three, narrow) = (floats(stream, &[3])?, floats(stream, &[2, 3])?);
    let weights = Weights::gamma(gamma.view());
    let saved = Saved::new(rows.view());
    let backward = |saved: &Saved<'_>, dy: TensorRef<'_>, dstream: Option<TensorRef<'_>>| {
        rms.backward(x.view(), &weights, saved, dy, dstream)
            .map(drop)
    };
    let mut checks = vec![
        ("a narrow dy", backward(&saved, narrow.view(), None), "dy"),
        (
            "three rstd",
            backward(&Saved::new(three.view()), dy.view(), None),
            "rstd",
        ),
        (
            "a mean of RmsNorm",
            backward(&saved.mean(rows.view()), dy.view(), None),
            "mean",
        ),
        (
            "a narrow dstream",
            backward(&saved, dy.view(), Some(narrow.view())),
            "dstream",
        ),
        (
            "no mean of LayerNorm",
            layer
                .backward(x.view(), &weights, &saved, dy.view(), None)
                .map(drop),
            "mean",
        ),
    ];
    let into = |weights: &Weights<'_>, outputs: GradientOutputs<'_>| {
        let (mut outputs, mut dx) = (outputs, floats(stream, &[2, 4])?);
        let dx = dx.view_mut();
        rms.backward_into(x.view(), weights, &saved, dy.view(), None, dx, &mut outputs)
    };
    let bytes = rms.backward_workspace_bytes(2, 4);
    let mut scratch = stream.uninitialised(DType::U8, &[bytes + 16])?;
    let (mut four, mut short) = (floats(stream, &[4])?, floats(stream, &[3])?);
    let mut halves = stream.zeros(DType::Bf16, &[4])?;
    checks.extend([
        (
            "a gradient without a workspace",
            into(&weights, GradientOutputs::default().dgamma(four.view_mut())),
            "workspace",
        ),
        (
            "a short workspace",
            into(
                &weights,
                GradientOutputs::default()
                    .dgamma(four.view_mut())
                    .workspace(scratch.view_mut().slice_rows(0..bytes - 1)?),
            ),
            "workspace",
        ),
        (
            "a workspace at an odd place",
            into(
                &weights,
                GradientOutputs::default()
                    .dgamma(four.view_mut())
                    .workspace(scratch.view_mut().slice_rows(1..bytes + 1)?),
            ),
            "workspace",
        ),
        (
            "a short dgamma",
            into(
                &weights,
                GradientOutputs::default()
                    .dgamma(short.view_mut())
                    .workspace(scratch.view_mut()),
            ),
            "dgamma",
        ),
        (
            "a bf16 dgamma",
            into(
                &weights,
                GradientOutputs::default()
                    .dgamma(halves.view_mut())
                    .workspace(scratch.view_mut()),
            ),
            "dgamma",
        ),
        (
            "dbeta without beta",
            into(
                &weights,
                GradientOutputs::default()
                    .dbeta(four.view_mut())
                    .workspace(scratch.view_mut()),
            ),
            "dbeta",
        ),
        (
            "dalpha of a norm",
            into(&weights, GradientOutputs::default().dalpha(four.view_mut())),
            "dalpha",
        ),
        (
            "a short dresidual",
            into(
                &weights,
                GradientOutputs::default().dresidual(short.view_mut()),
            ),
            "dresidual",
        ),
    ]);
    Ok(all(checks))
}

fn heads(stream: &Stream) -> Checked {
    let op = HeadNorm::new(HeadNormOptions::default(), 2).prepare(stream)?;
    let turning = HeadNormOptions::default().rotary(Pairing::HalfSplit, 4);
    let turning = HeadNorm::new(turning, 2).prepare(stream)?;
    let wide = HeadNormOptions::default().rotary(Pairing::HalfSplit, 6);
    let wide = HeadNorm::new(wide, 2).prepare(stream)?;
    let none = Weights::default();
    let x = floats(stream, &[3, 2, 4])?;
    let (odd, table, short) = (
        floats(stream, &[3, 7])?,
        floats(stream, &[3, 2])?,
        floats(stream, &[2, 2])?,
    );
    let (ids, few) = (
        stream.zeros(DType::I64, &[3])?,
        stream.zeros(DType::I64, &[2])?,
    );
    let tables = RotaryTables::new(table.view(), table.view());
    let three = floats(stream, &[3])?;
    let weights = Weights::gamma(three.view());
    Ok(all(vec![
        (
            "columns that heads do not divide",
            op.forward(odd.view(), &none, None).map(drop),
            "x",
        ),
        (
            "a short gamma",
            op.forward(x.view(), &weights, None).map(drop),
            "gamma",
        ),
        (
            "tables without a rotary embedding",
            op.forward(x.view(), &none, Some(&tables)).map(drop),
            "tables",
        ),
        (
            "no tables",
            turning.forward(x.view(), &none, None).map(drop),
            "tables",
        ),
        (
            "a short table",
            turning
                .forward(
                    x.view(),
                    &none,
                    Some(&RotaryTables::new(short.view(), short.view())),
                )
                .map(drop),
            "cos",
        ),
        (
            "tables of two shapes",
            turning
                .forward(
                    x.view(),
                    &none,
                    Some(&RotaryTables::new(table.view(), short.view())),
                )
                .map(drop),
            "sin",
        ),
        (
            "two positions of three tokens",
            turning
                .forward(x.view(), &none, Some(&tables.positions(few.view())))
                .map(drop),
            "positions",
        ),
        (
            "float positions",
            turning
                .forward(
                    x.view(),
                    &none,
                    Some(&tables.positions(table.view().slice_rows(0..1)?)),
                )
                .map(drop),
            "positions",
        ),
        (
            "a width beyond the head",
            wide.forward(x.view(), &none, Some(&tables.positions(ids.view())))
                .map(drop),
            "rotary width",
        ),
        (
            "a backward without x",
            op.backward(None, &none, None, None, x.view()).map(drop),
            "x",
        ),
        (
            "a backward without what was saved",
            op.backward(Some(x.view()), &none, None, None, x.view())
                .map(drop),
            "saved",
        ),
    ]))
}

fn gated(stream: &Stream) -> Checked {
    let op = GatedNorm::new(NormOptions::rms()).prepare(stream)?;
    let none = Weights::default();
    let (x, narrow, rows) = (
        floats(stream, &[2, 4])?,
        floats(stream, &[2, 3])?,
        floats(stream, &[2])?,
    );
    let saved = Saved::new(rows.view());
    let mut dx = floats(stream, &[2, 4])?;
    let mut dz = floats(stream, &[1, 4])?;
    let short_dz = op.backward_into(
        x.view(),
        x.view(),
        &none,
        &saved,
        x.view(),
        dx.view_mut(),
        dz.view_mut(),
        &mut GradientOutputs::default(),
    );
    let mut full = floats(stream, &[2, 4])?;
    let mut four = floats(stream, &[2, 4])?;
    let residual = op.backward_into(
        x.view(),
        x.view(),
        &none,
        &saved,
        x.view(),
        dx.view_mut(),
        full.view_mut(),
        &mut GradientOutputs::default().dresidual(four.view_mut()),
    );
    Ok(all(vec![
        (
            "a narrow gate",
            op.forward(x.view(), narrow.view(), &none).map(drop),
            "z",
        ),
        (
            "a narrow dy",
            op.backward(x.view(), x.view(), &none, &saved, narrow.view())
                .map(drop),
            "dy",
        ),
        ("a short dz", short_dz, "dz"),
        ("a residual of a gate", residual, "dresidual"),
    ]))
}

fn sdd(stream: &Stream) -> Checked {
    let op = Sdd::new().prepare(stream)?;
    let (x, two, one) = (
        floats(stream, &[2, 4])?,
        floats(stream, &[2])?,
        floats(stream, &[1])?,
    );
    let saved = Saved::new(two.view());
    let mut dx = floats(stream, &[2, 4])?;
    let mut four = floats(stream, &[4])?;
    let mut scratch =
        stream.uninitialised(DType::U8, &[op.backward_workspace_bytes(2, 4).max(16)])?;
    let mut backward = |outputs: &mut GradientOutputs<'_>| {
        op.backward_into(
            x.view(),
            one.view(),
            &saved,
            x.view(),
            dx.view_mut(),
            outputs,
        )
    };
    Ok(all(vec![
        (
            "two alphas of four columns",
            op.forward(x.view(), two.view()).map(drop),
            "alpha",
        ),
        (
            "dalpha of another length",
            backward(
                &mut GradientOutputs::default()
                    .dalpha(four.view_mut())
                    .workspace(scratch.view_mut()),
            ),
            "dalpha",
        ),
        (
            "dgamma of Sdd",
            backward(
                &mut GradientOutputs::default()
                    .dgamma(four.view_mut())
                    .workspace(scratch.view_mut()),
            ),
            "dgamma",
        ),
    ]))
}

/// Memory of another device, and memory that overlaps.
fn elsewhere(device: &Device, stream: &Stream) -> Checked {
    let op = Norm::rms().prepare(stream)?;
    let none = Weights::default();
    let mut checks = Vec::new();
    if device.kind() != DeviceKind::Cpu {
        let other = floats(&Device::cpu().stream()?, &[2, 4])?;
        let here = floats(stream, &[2, 4])?;
        checks.push((
            "rows of another device",
            op.forward(other.view(), &none).map(drop),
            "x",
        ));
        let gamma = Weights::gamma(other.view().slice_rows(0..1)?);
        let result = op.forward(here.view(), &gamma).map(drop);
        checks.push(("a gamma of another device", result, "gamma"));
    }
    // One buffer for x and y, y a row further.
    let mut both = floats(stream, &[3, 4])?;
    let address = both.view().address();
    // SAFETY: the memory is the buffer's, which lives to the end of this function; the call refuses
    // the views and does not use them.
    let x = unsafe { TensorRef::from_raw(device.id(), DType::F32, address, &[2, 4], None)? };
    let y = both.view_mut().slice_rows(1..3)?;
    let result = op.forward_into(x, &none, y, &mut Statistics::default());
    checks.push(("a y that overlaps x", result, "y"));
    Ok(all(checks))
}
