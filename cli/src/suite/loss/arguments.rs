//! Each wrong argument, and the error that names it.

use evenkeel::loss::{
    Denominator, LogProbs, LossInputs, LossOutputs, Objective, Reduction, SoftmaxLoss, Upstream,
};
use evenkeel::{Buffer, DType, Device, Result, Stream, TensorMut, TensorRef};

use super::super::names;
use super::{Effort, Held};
use crate::subject::Subject;

/// Four tokens of ten classes on a device, and a little of everything else.
struct Bench {
    stream: Stream,
    logits: Buffer,
    gradient: Buffer,
    halves: Buffer,
    targets: Buffer,
    floats: Buffer,
    one: Buffer,
    words: Buffer,
    state: Buffer,
}

impl Bench {
    fn new(device: &Device) -> Result<Self> {
        let stream = device.stream()?;
        Ok(Self {
            logits: stream.zeros(DType::F32, &[4, 10])?,
            gradient: stream.zeros(DType::F32, &[4, 10])?,
            halves: stream.zeros(DType::Bf16, &[4, 10])?,
            targets: stream.zeros(DType::I64, &[4])?,
            floats: stream.zeros(DType::F32, &[4])?,
            one: stream.zeros(DType::F32, &[1])?,
            words: stream.zeros(DType::U32, &[1])?,
            state: stream.zeros(DType::F32, &[4, 8])?,
            stream,
        })
    }

    fn forward_with<'a>(
        &'a self,
        op: SoftmaxLoss,
        inputs: impl Into<LossInputs<'a>>,
    ) -> Result<()> {
        op.prepare(&self.stream)?
            .forward(self.logits.view(), inputs)
            .map(|_| ())
    }

    fn forward_backward_with<'a>(
        &'a self,
        op: SoftmaxLoss,
        inputs: impl Into<LossInputs<'a>>,
    ) -> Result<()> {
        let mut gradient = self.stream.zeros(DType::F32, &[4, 10])?;
        op.prepare(&self.stream)?
            .forward_backward(self.logits.view(), gradient.view_mut(), inputs)
            .map(|_| ())
    }

    fn forward<'a>(
        &'a self,
        logits: TensorRef<'_>,
        inputs: impl Into<LossInputs<'a>>,
    ) -> Result<()> {
        nll()
            .prepare(&self.stream)?
            .forward(logits, inputs)
            .map(|_| ())
    }

    fn inputs(&self) -> LossInputs<'_> {
        LossInputs::new(self.targets.view())
    }
}

fn nll() -> SoftmaxLoss {
    SoftmaxLoss::new(Objective::Nll)
}

pub(super) fn wrong_arguments(subject: &Subject, _: Effort) -> std::result::Result<Held, String> {
    let device = subject.device(0).map_err(|error| error.to_string())?;
    let mut bench = Bench::new(device).map_err(|error| error.to_string())?;
    options(&bench)?;
    inputs(&bench)?;
    shapes(&mut bench).map_err(|error| error.to_string())??;
    devices(&bench).map_err(|error| error.to_string())??;
    Ok(Held {
        problems: 1,
        ..Held::default()
    })
}

fn options(bench: &Bench) -> std::result::Result<(), String> {
    let wrong: [(SoftmaxLoss, &str); 15] = [
        (
            SoftmaxLoss::new(Objective::Power(f32::NAN)),
            "power exponent",
        ),
        (SoftmaxLoss::new(Objective::Focal(-1.0)), "focal gamma"),
        (SoftmaxLoss::new(Objective::Gce(0.0)), "gce q"),
        (
            SoftmaxLoss::new(Objective::Poly1(f32::INFINITY)),
            "poly1 epsilon",
        ),
        (
            SoftmaxLoss::new(Objective::Nll.above(f32::NAN)),
            "threshold",
        ),
        (SoftmaxLoss::new(Objective::Nll.below(1.5)), "threshold"),
        (nll().temperature(0.0), "temperature"),
        (nll().temperature(f32::NAN), "temperature"),
        (nll().temperature(-1.0), "temperature"),
        (nll().softcap(0.0), "softcap"),
        (nll().softcap(f32::INFINITY), "softcap"),
        (nll().z_loss(-1.0), "z_loss"),
        (nll().label_smoothing(1.5), "label_smoothing"),
        (nll().entropy(f32::NAN), "entropy"),
        (nll().spectral_decoupling(f32::NAN), "spectral_decoupling"),
    ];
    for (op, argument) in wrong {
        let what = format!("{:?}", op.options());
        names(&what, op.prepare(&bench.stream).map(|_| ()), argument)?;
    }
    Ok(())
}

fn inputs(bench: &Bench) -> std::result::Result<(), String> {
    let (four, one) = (bench.floats.view(), bench.one.view());
    let mean = |denominator| nll().reduction(Reduction::Mean(denominator));
    let cases: [(&str, Result<()>, &str); 13] = [
        (
            "a vocabulary of 0",
            bench.forward_with(nll(), bench.inputs().vocab(0)),
            "vocab",
        ),
        (
            "a vocabulary past the columns",
            bench.forward_with(nll(), bench.inputs().vocab(11)),
            "logits",
        ),
        ("float targets", bench.forward_with(nll(), four), "targets"),
        (
            "one weight",
            bench.forward_with(nll(), bench.inputs().token_weights(one)),
            "token_weights",
        ),
        (
            "integer weights",
            bench.forward_with(nll(), bench.inputs().token_weights(bench.targets.view())),
            "token_weights",
        ),
        (
            "a float mask",
            bench.forward_with(nll(), bench.inputs().class_mask(one)),
            "class_mask",
        ),
        (
            "no count",
            bench.forward_with(mean(Denominator::Tokens), bench.inputs()),
            "tokens",
        ),
        (
            "a count of NaN",
            bench.forward_with(mean(Denominator::Tokens), bench.inputs().tokens(f32::NAN)),
            "tokens",
        ),
        (
            "four counts",
            bench.forward_with(
                mean(Denominator::Tokens),
                bench.inputs().tokens_on_device(four),
            ),
            "tokens",
        ),
        (
            "no offsets",
            bench.forward_with(mean(Denominator::Sequence), bench.inputs()),
            "sequences",
        ),
        (
            "float offsets",
            bench.forward_with(mean(Denominator::Sequence), bench.inputs().sequences(four)),
            "sequences",
        ),
        (
            "an upstream a token of a mean",
            bench.forward_backward_with(nll(), bench.inputs().upstream(four)),
            "upstream",
        ),
        (
            "an upstream of a forward",
            bench.forward_with(nll(), bench.inputs().upstream(one)),
            "upstream",
        ),
    ];
    for (what, result, argument) in cases {
        names(what, result, argument)?;
    }
    // These are right, so that a check that refuses everything would show.
    let right = bench
        .inputs()
        .class_mask(bench.words.view())
        .upstream(one)
        .tokens(2.0);
    bench
        .forward_backward_with(mean(Denominator::Tokens), right)
        .map_err(|error| error.to_string())
}

fn shapes(bench: &mut Bench) -> Result<std::result::Result<(), String>> {
    let (stream, mut gradient) = (
        bench.stream.clone(),
        std::mem::replace(
            &mut bench.gradient,
            bench.stream.zeros(DType::F32, &[4, 10])?,
        ),
    );
    let op = nll().prepare(&stream)?;
    let logits = bench.logits.view();
    let inputs = bench.inputs();
    let flat = logits.reshape(&[40])?;
    let three = logits.slice_rows(0..3)?;
    let none = logits.slice_columns(0..0)?;
    let into = |logits: TensorRef<'_>, gradient: TensorMut<'_>| -> Result<()> {
        op.forward_backward(logits, gradient, inputs).map(|_| ())
    };
    let mut small = stream.zeros(DType::F32, &[4, 9])?;
    let mut halves = stream.zeros(DType::F16, &[4, 10])?;
    let halves_in = bench.halves.view();
    let mut checks = vec![
        (
            "logits in one dimension",
            bench.forward(flat, inputs),
            "logits",
        ),
        ("a row too few", bench.forward(three, inputs), "logits"),
        ("no columns", bench.forward(none, inputs), "vocab"),
        (
            "integer logits",
            bench.forward(bench.targets.view(), inputs),
            "logits",
        ),
        (
            "a narrow gradient",
            into(logits, small.view_mut()),
            "gradient",
        ),
        (
            "a gradient of a row too few",
            into(logits, gradient.view_mut().slice_rows(0..3)?),
            "gradient",
        ),
        (
            "an f16 gradient of bf16 logits",
            into(halves_in, halves.view_mut()),
            "gradient",
        ),
        (
            "an f16 gradient of f32 logits",
            into(logits, halves.view_mut()),
            "gradient",
        ),
    ];
    let mut scratch = stream.uninitialised(DType::U8, &[8])?;
    let mut loss = stream.zeros(DType::F32, &[2])?;
    let mut few = LossOutputs::new(scratch.view_mut());
    checks.push((
        "a short workspace",
        op.forward_into(logits, &inputs, &mut few),
        "workspace",
    ));
    let mut scratch = stream.uninitialised(DType::U8, &[op.workspace_bytes(4)])?;
    let mut two = LossOutputs::new(scratch.view_mut()).loss(loss.view_mut());
    checks.push((
        "two losses",
        op.forward_into(logits, &inputs, &mut two),
        "loss",
    ));

    let kept = nll()
        .reduction(Reduction::Mean(Denominator::Kept))
        .prepare(&stream)?;
    let mut scratch = stream.uninitialised(DType::U8, &[kept.workspace_bytes(4)])?;
    let mut no_scale = LossOutputs::new(scratch.view_mut());
    let result = kept.forward_backward_into(logits, gradient.view_mut(), &inputs, &mut no_scale);
    checks.push((
        "mean:kept without a place for its scale",
        result,
        "gradient_scale",
    ));

    let state = bench.state.view();
    let upstream = Upstream::loss(bench.one.view());
    let mut backward = |state, upstream: &Upstream<'_>| {
        op.backward(logits, gradient.view_mut(), inputs, state, upstream)
    };
    let four = Upstream::loss(bench.floats.view());
    checks.push((
        "a short state",
        backward(state.slice_rows(0..3)?, &upstream),
        "state",
    ));
    checks.push((
        "an upstream a token of a mean",
        backward(state, &four),
        "upstream.loss",
    ));
    let short = Upstream {
        lp: Some(bench.words.view()),
        ..Upstream::default()
    };
    checks.push((
        "an integer upstream",
        backward(state, &short),
        "upstream.lp",
    ));

    let log_probs = LogProbs::new().prepare(&stream)?;
    let result = log_probs.forward(logits, inputs)?;
    let refused = log_probs.backward(logits, gradient.view_mut(), inputs, &result, &upstream);
    checks.push(("a loss of log-probabilities", refused, "upstream.loss"));
    checks.push((
        "a loss where there is none",
        log_probs_read(&stream, logits, inputs),
        "reduction",
    ));
    Ok(checks
        .into_iter()
        .try_for_each(|(what, result, argument)| names(what, result, argument)))
}

fn log_probs_read(stream: &Stream, logits: TensorRef<'_>, inputs: LossInputs<'_>) -> Result<()> {
    let op = nll().reduction(Reduction::None).prepare(stream)?;
    op.forward(logits, inputs)?.read().map(|_| ())
}

/// Memory of another device, and memory that overlaps.
fn devices(bench: &Bench) -> Result<std::result::Result<(), String>> {
    let elsewhere = if bench.stream.device().kind() == evenkeel::DeviceKind::Cpu {
        // Another device without hardware: only its name matters, nothing is read.
        None
    } else {
        Some(Device::cpu().stream()?)
    };
    let inputs = bench.inputs();
    let op = nll().prepare(&bench.stream)?;
    if let Some(other) = elsewhere {
        let logits = other.zeros(DType::F32, &[4, 10])?;
        let targets = other.zeros(DType::I64, &[4])?;
        let mixed = [
            (
                "logits of another device",
                bench.forward(logits.view(), inputs),
                "logits",
            ),
            (
                "targets of another device",
                bench.forward(bench.logits.view(), targets.view()),
                "targets",
            ),
        ];
        for (what, result, argument) in mixed {
            if let Err(message) = names(what, result, argument) {
                return Ok(Err(message));
            }
        }
    }
    // One buffer for logits and gradient, the gradient a row further.
    let mut both = bench.stream.zeros(DType::F32, &[5, 10])?;
    let address = both.view().address();
    let device = bench.stream.device().id();
    // SAFETY: the memory is the buffer's, which lives to the end of this function; the call refuses
    // the views and does not use them.
    let logits = unsafe { TensorRef::from_raw(device, DType::F32, address, &[4, 10], None)? };
    let gradient = both.view_mut().slice_rows(1..5)?;
    let overlapping = op.forward_backward(logits, gradient, inputs).map(|_| ());
    Ok(names(
        "a gradient that overlaps the logits",
        overlapping,
        "gradient",
    ))
}
