//! Runs a problem on a device and brings everything back.

use evenkeel::loss::{
    Counts, KernelPath, LogProbs, LossInputs, LossResult, PreparedSoftmaxLoss, SoftmaxLoss,
    Statistic, Upstream,
};
use evenkeel::{Buffer, Device, DeviceKind, Error, Result, Status, Stream};

use super::cases::Mode;
use super::problem::Problem;
use crate::memory::{
    Layout, UNTOUCHED, download, rows, rows_mut, upload, upload_integers, view_of,
};

/// What a device computed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The kernel of the forward.
    pub path: Option<KernelPath>,
    /// The reduced loss.
    pub loss: Option<f32>,
    /// The counts, where a loss was computed.
    pub counts: Option<Counts>,
    /// What the gradient was multiplied by after the pass.
    pub gradient_scale: Option<f32>,
    /// By [`Statistic`], each `[tokens]`.
    pub statistics: Vec<(Statistic, Vec<f64>)>,
    /// `[tokens, 8]`.
    pub state: Vec<f32>,
    /// The memory of the gradient, with what surrounds its rows.
    pub memory: Vec<f64>,
    /// Status bits.
    pub status: Status,
}

impl Outcome {
    /// The gradient of a token, its padding included.
    #[must_use]
    pub fn row(&self, layout: Layout, vocab: usize, token: usize) -> &[f64] {
        let begin = layout.phase + token * layout.stride(vocab);
        &self.memory[begin..begin + layout.columns(vocab)]
    }

    /// The values of a statistic.
    #[must_use]
    pub fn statistic(&self, wanted: Statistic) -> &[f64] {
        let found = self
            .statistics
            .iter()
            .find(|(statistic, _)| *statistic == wanted);
        found.map_or(&[], |(_, values)| values)
    }

    /// Whether another outcome is the same, bit for bit.
    #[must_use]
    pub fn same_bits(&self, other: &Self) -> bool {
        let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let all = |outcome: &Self| {
            let statistics: Vec<_> = outcome.statistics.iter().map(|(_, v)| bits(v)).collect();
            let state: Vec<_> = outcome.state.iter().map(|x| x.to_bits()).collect();
            (
                outcome.loss.map(f32::to_bits),
                outcome.counts,
                outcome.gradient_scale.map(f32::to_bits),
                statistics,
                state,
                bits(&outcome.memory),
                outcome.status,
            )
        };
        all(self) == all(other)
    }
}

/// A problem's data on a device.
pub struct Uploaded {
    /// The memory of the logits: NaN around the classes, so that whoever reads it shows it.
    pub logits: Buffer,
    targets: Buffer,
    weights: Option<Buffer>,
    class_mask: Option<Buffer>,
    divisor: Buffer,
    offsets: Buffer,
    upstream_loss: Option<Buffer>,
    upstream_statistics: [Option<Buffer>; 3],
}

impl Uploaded {
    /// Uploads everything.
    ///
    /// # Errors
    /// The device's.
    pub fn new(stream: &Stream, problem: &Problem) -> Result<Self> {
        let (tokens, vocab, layout) = (problem.tokens, problem.vocab, problem.layout);
        let mut memory = vec![f64::NAN; layout.elements(tokens, vocab)];
        for (token, row) in problem.logits.chunks(vocab.max(1)).enumerate() {
            let begin = layout.phase + token * layout.stride(vocab);
            for (slot, &x) in memory[begin..].iter_mut().zip(row) {
                *slot = x.into();
            }
        }
        let floats = |values: &Option<Vec<f32>>| -> Result<Option<Buffer>> {
            values
                .as_ref()
                .map(|values| stream.upload(&[values.len()], values))
                .transpose()
        };
        let [lp, entropy, lse] = &problem.upstream_statistics;
        Ok(Self {
            logits: upload(stream, problem.dtype, &[memory.len()], &memory)?,
            targets: upload_integers(stream, problem.target_type, &problem.targets)?,
            weights: floats(&problem.weights)?,
            class_mask: problem
                .class_mask
                .as_ref()
                .map(|mask| stream.upload(&[mask.len()], mask))
                .transpose()?,
            divisor: stream.upload(&[1], &[problem.divisor])?,
            offsets: upload_integers(stream, problem.target_type, &problem.offsets)?,
            upstream_loss: floats(&problem.upstream_loss)?,
            upstream_statistics: [floats(lp)?, floats(entropy)?, floats(lse)?],
        })
    }

    /// What the call is given beside the logits.
    #[must_use]
    pub fn inputs<'a>(&'a self, problem: &Problem) -> LossInputs<'a> {
        let mut inputs = LossInputs::new(self.targets.view()).vocab(problem.vocab);
        if let Some(mask) = &self.class_mask {
            inputs = inputs.class_mask(mask.view());
        }
        if problem.mode == Mode::LogProbs {
            return inputs;
        }
        if let Some(weights) = &self.weights {
            inputs = inputs.token_weights(weights.view());
        }
        inputs = if problem.divisor_on_device {
            inputs.tokens_on_device(self.divisor.view())
        } else {
            inputs.tokens(problem.divisor)
        };
        inputs = inputs.sequences(self.offsets.view());
        if problem.mode.fused()
            && let Some(upstream) = &self.upstream_loss
        {
            inputs = inputs.upstream(upstream.view());
        }
        inputs
    }

    fn upstream(&self) -> Upstream<'_> {
        let [lp, entropy, lse] = &self.upstream_statistics;
        Upstream {
            loss: view_of(self.upstream_loss.as_ref()),
            lp: view_of(lp.as_ref()),
            entropy: view_of(entropy.as_ref()),
            lse: view_of(lse.as_ref()),
        }
    }
}

/// The path that the device has for the one asked for.
#[must_use]
pub fn available(device: &Device, wanted: Option<KernelPath>) -> Option<KernelPath> {
    let clusters = matches!(device.compute_capability(), Some((9, 0) | (10, _)));
    match wanted {
        _ if device.kind() == DeviceKind::Cpu => None,
        Some(KernelPath::Cluster) if !clusters => None,
        other => other,
    }
}

/// The operation of a problem, prepared; every statistic is asked for.
///
/// # Errors
/// The library's.
pub fn prepare(stream: &Stream, problem: &Problem) -> Result<PreparedSoftmaxLoss> {
    let mut op = SoftmaxLoss::from(problem.options).report(Statistic::ALL);
    if let Some(path) = available(stream.device(), problem.path) {
        op = op.path(path);
    }
    op.prepare(stream)
}

/// Computes the problem.
///
/// # Errors
/// The library's, but for what the status word holds: that is part of the outcome.
pub fn run(device: &Device, problem: &Problem) -> Result<Outcome> {
    run_on(&device.stream()?, problem)
}

/// The same, on a stream of the caller's.
///
/// # Errors
/// As [`run`].
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let mut data = Uploaded::new(stream, problem)?;
    let mut outcome = match problem.mode {
        Mode::LogProbs => log_probs(stream, problem, &data)?,
        _ => loss(stream, problem, &mut data)?,
    };
    outcome.status = match stream.check() {
        Ok(()) => Status::empty(),
        Err(Error::Data(status)) => status,
        Err(other) => return Err(other),
    };
    Ok(outcome)
}

fn gradient_memory(stream: &Stream, problem: &Problem) -> Result<Buffer> {
    let elements = problem
        .gradient_layout
        .elements(problem.tokens, problem.vocab);
    upload(
        stream,
        problem.gradient,
        &[elements],
        &vec![UNTOUCHED; elements],
    )
}

fn loss(stream: &Stream, problem: &Problem, data: &mut Uploaded) -> Result<Outcome> {
    let (tokens, vocab) = (problem.tokens, problem.vocab);
    let op = prepare(stream, problem)?;
    let mut memory = gradient_memory(stream, problem)?;
    let (layout, apart) = (problem.layout, problem.gradient_layout);
    // In place the logits' memory is written while the inputs are read: they are other buffers.
    let mut logits = std::mem::replace(&mut data.logits, stream.zeros(problem.dtype, &[0])?);
    let inputs = data.inputs(problem);
    let result = match problem.mode {
        Mode::ForwardBackward => {
            let gradient = rows_mut(&mut memory, apart, tokens, vocab)?;
            op.forward_backward(rows(&logits, layout, tokens, vocab)?, gradient, inputs)?
        }
        Mode::InPlace => {
            op.forward_backward_in_place(rows_mut(&mut logits, layout, tokens, vocab)?, inputs)?
        }
        _ => op.forward(rows(&logits, layout, tokens, vocab)?, inputs)?,
    };
    if let (true, Some(state)) = (problem.mode.from_state(), result.state()) {
        let upstream = data.upstream();
        if problem.mode.in_place() {
            let rows = rows_mut(&mut logits, layout, tokens, vocab)?;
            op.backward_in_place(rows, inputs, state.view(), &upstream)?;
        } else {
            let gradient = rows_mut(&mut memory, apart, tokens, vocab)?;
            let logits = rows(&logits, layout, tokens, vocab)?;
            op.backward(logits, gradient, inputs, state.view(), &upstream)?;
        }
    }
    let memory = if problem.mode.in_place() {
        &mut logits
    } else {
        &mut memory
    };
    if problem.mode.fused()
        && let (Some(scale), Some(kept)) =
            (result.gradient_scale(), result.statistic(Statistic::Kept))
    {
        let gradient = rows_mut(memory, apart, tokens, vocab)?;
        op.scale_gradient(gradient, kept.view(), scale.view())?;
    }
    let mut outcome = collect(&result)?;
    outcome.path = Some(op.path(vocab, problem.dtype));
    if problem.mode != Mode::Forward {
        outcome.memory = download(memory)?;
    }
    Ok(outcome)
}

fn collect(result: &LossResult) -> Result<Outcome> {
    let first =
        |buffer: &Buffer| -> Result<Option<f32>> { Ok(buffer.read::<f32>()?.first().copied()) };
    let mut outcome = Outcome {
        loss: result.loss().map(first).transpose()?.flatten(),
        counts: Some(result.counts()?),
        gradient_scale: result.gradient_scale().map(first).transpose()?.flatten(),
        ..Outcome::default()
    };
    for statistic in Statistic::ALL {
        if let Some(buffer) = result.statistic(statistic) {
            outcome.statistics.push((statistic, download(buffer)?));
        }
    }
    if let Some(state) = result.state() {
        outcome.state = state.read()?;
    }
    Ok(outcome)
}

fn log_probs(stream: &Stream, problem: &Problem, data: &Uploaded) -> Result<Outcome> {
    let (tokens, vocab) = (problem.tokens, problem.vocab);
    let mut op = LogProbs::new()
        .temperature(problem.options.temperature)
        .ignore_index(problem.options.ignore_index);
    if let Some(c) = problem.options.softcap {
        op = op.softcap(c);
    }
    let op = op.prepare(stream)?;
    let logits = rows(&data.logits, problem.layout, tokens, vocab)?;
    let result = op.forward(logits, data.inputs(problem))?;
    let mut memory = gradient_memory(stream, problem)?;
    let gradient = rows_mut(&mut memory, problem.gradient_layout, tokens, vocab)?;
    op.backward(
        logits,
        gradient,
        data.inputs(problem),
        &result,
        &data.upstream(),
    )?;
    Ok(Outcome {
        path: Some(prepare(stream, problem)?.path(vocab, problem.dtype)),
        statistics: vec![
            (Statistic::Lp, download(result.lp()?)?),
            (Statistic::Entropy, download(result.entropy()?)?),
            (Statistic::Lse, download(result.lse()?)?),
        ],
        memory: download(&memory)?,
        ..Outcome::default()
    })
}
