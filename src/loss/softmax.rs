//! The operation: probability objectives fused with the softmax.

use super::arguments::{LossInputs, LossOutputs, Statistic, Upstream};
use super::check::Checked;
use super::kernels::{Call, LossKernels, Pass, Rows};
use super::launch::KernelPath;
use super::result::LossResult;
use super::{Criterion, Denominator, LossOptions, Reduction, host};
use crate::check::Check;
use crate::device::stream::Backend;
use crate::{DType, Error, Result, Stream, TensorMut, TensorRef};

/// A loss over the softmax of logits, to be prepared for a stream.
///
/// For each token with logits x (a row of `[tokens, vocab]`), transformed as z = softcap(x)/T, and
/// p = softmax(z) at the target,
///
/// ```text
/// loss = w ((1 - epsilon) f(p) + epsilon/V' sum_j -log p_j) + lambda_z lse^2 - eta H + lambda_s/2 sum_j x_j^2
/// ```
///
/// with the objective f of [`Objective`](super::Objective), and with its gradient in x. Probabilities
/// are never stored: on a GPU of compute capability 9.0, 10.0 or 10.3 forward and gradient read each
/// logit once and write each gradient once ([`KernelPath`]).
///
/// Sources: "Beyond Log Likelihood" (arXiv 2510.00526) for the family; each member's own at
/// [`Objective`](super::Objective), each term's at [`LossOptions`].
///
/// ```
/// use evenkeel::{Device, loss::{Objective, SoftmaxLoss}};
///
/// let stream = Device::best()?.stream()?;
/// let mut logits = stream.upload(&[2, 3], &[1.0_f32, 2.0, 0.5, 0.0, 0.0, 0.0])?;
/// let targets = stream.upload(&[2], &[1_i64, -100])?; // -100: the token takes no part
/// let op = SoftmaxLoss::new(Objective::Power(0.5)).z_loss(1e-4).prepare(&stream)?;
/// let loss = op.forward_backward_in_place(logits.view_mut(), targets.view())?;
/// println!("loss {}", loss.read()?); // the only synchronisation
/// assert_eq!(logits.read::<f32>()?[3..], [0.0; 3]); // the logits became gradients
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct SoftmaxLoss {
    options: LossOptions,
    report: Vec<Statistic>,
    path: Option<KernelPath>,
}

impl SoftmaxLoss {
    /// The mean of the objective over the tokens whose target is not -100.
    #[must_use]
    pub fn new(criterion: impl Into<Criterion>) -> Self {
        Self::from(LossOptions::new(criterion))
    }

    /// c of the softcap c tanh(x / c) on the raw logits; none by default.
    #[must_use]
    pub fn softcap(mut self, c: f32) -> Self {
        self.options.softcap = Some(c);
        self
    }

    /// T, by which the (capped) logits are divided; 1 by default.
    #[must_use]
    pub fn temperature(mut self, t: f32) -> Self {
        self.options.temperature = t;
        self
    }

    /// The target of tokens that take no part; -100 by default.
    #[must_use]
    pub fn ignore_index(mut self, index: i64) -> Self {
        self.options.ignore_index = index;
        self
    }

    /// lambda_z of lambda_z lse^2; 0 by default.
    #[must_use]
    pub fn z_loss(mut self, lambda: f32) -> Self {
        self.options.z_loss = lambda;
        self
    }

    /// epsilon of label smoothing, in `PyTorch`'s convention; 0 by default.
    #[must_use]
    pub fn label_smoothing(mut self, epsilon: f32) -> Self {
        self.options.label_smoothing = epsilon;
        self
    }

    /// eta of -eta H: positive rewards entropy; 0 by default.
    #[must_use]
    pub fn entropy(mut self, eta: f32) -> Self {
        self.options.entropy = eta;
        self
    }

    /// lambda_s of lambda_s/2 sum_j x_j^2 over the raw logits; 0 by default.
    #[must_use]
    pub fn spectral_decoupling(mut self, lambda: f32) -> Self {
        self.options.spectral_decoupling = lambda;
        self
    }

    /// From the tokens' losses to the batch's; the mean over valid tokens by default.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Self {
        self.options.reduction = reduction;
        self
    }

    /// The statistics that the allocating forms return.
    #[must_use]
    pub fn report(mut self, statistics: impl IntoIterator<Item = Statistic>) -> Self {
        self.report = statistics.into_iter().collect();
        self
    }

    /// Which kernel to use; the device's fastest by default.
    #[must_use]
    pub fn path(mut self, path: KernelPath) -> Self {
        self.path = Some(path);
        self
    }

    /// The options as they stand.
    #[must_use]
    pub fn options(&self) -> &LossOptions {
        &self.options
    }

    /// Validates the options and loads the kernels, so that calls can be captured into a graph.
    ///
    /// # Errors
    /// [`Error::Argument`] for an option outside its range, [`Error::Unsupported`] for a path that
    /// the device does not have, and what loading a kernel gives.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedSoftmaxLoss> {
        self.options.validate()?;
        let best = KernelPath::best(stream.device());
        let path = self.path.unwrap_or(best);
        let available = match path {
            KernelPath::Reference => best == KernelPath::Reference,
            KernelPath::Block => best != KernelPath::Reference,
            KernelPath::Cluster => best == KernelPath::Cluster,
        };
        if !available {
            return Err(Error::unsupported(
                OP,
                format!("the path {path:?} on {}", stream.device()),
                "leave the path to the device",
            ));
        }
        let device = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(LossKernels::load(stream, path)?),
        };
        Ok(PreparedSoftmaxLoss {
            options: self.options,
            report: self.report.clone(),
            stream: stream.clone(),
            path,
            device,
        })
    }
}

impl From<LossOptions> for SoftmaxLoss {
    fn from(options: LossOptions) -> Self {
        Self {
            options,
            report: Vec::new(),
            path: None,
        }
    }
}

const OP: &str = "SoftmaxLoss";

/// A [`SoftmaxLoss`] ready to run on a stream.
///
/// Each mode has two forms: one that allocates what it returns, and one ending in `_into` that
/// writes where the caller says and allocates nothing, for graphs and memory planners.
///
/// - Logits are `[tokens, columns]` bf16, f16 or f32, rows at any stride. Gradients are of the same
///   type, or f32; f32 gradients are not rounded further.
/// - What is wrong with the data is found on the device: the stream's status word has it after
///   [`Stream::check`]. A target that is neither a class nor ignored sets `TARGET_OUT_OF_RANGE`, and
///   the token takes no part. A row with NaN, +inf or no class at all sets `NON_FINITE_ROW`; its
///   loss and gradient are NaN. A target whose class is masked sets `TARGET_MASKED`; the formulas
///   hold at p = 0. Negative powers beyond f32 set `SATURATED` and stay at its largest value.
/// - The same input at the same alignment gives the same bits on the same device.
/// - Kernels compute in f32: logits that softcap and temperature take beyond its range are infinite
///   to them. The CPU computes in f64, where they are not.
#[derive(Debug)]
pub struct PreparedSoftmaxLoss {
    options: LossOptions,
    report: Vec<Statistic>,
    stream: Stream,
    path: KernelPath,
    device: Option<LossKernels>,
}

impl PreparedSoftmaxLoss {
    /// The options.
    #[must_use]
    pub fn options(&self) -> &LossOptions {
        &self.options
    }

    /// The kernel that a forward over `vocab` classes of this type runs on. Rows too long for a
    /// cluster's shared memory run on [`KernelPath::Block`].
    #[must_use]
    pub fn path(&self, vocab: usize, logits: DType) -> KernelPath {
        match (&self.device, self.path) {
            (Some(device), KernelPath::Cluster) if !device.cluster_holds(vocab, logits) => {
                KernelPath::Block
            }
            _ => self.path,
        }
    }

    /// Scratch that the `_into` forms need for `tokens` tokens, in bytes.
    #[must_use]
    pub fn workspace_bytes(&self, tokens: usize) -> usize {
        super::kernels::workspace_bytes(tokens)
    }

    /// Loss, statistics and the state for [`backward`](Self::backward); one read of the logits.
    ///
    /// # Errors
    /// [`Error::Argument`] for what does not fit, and the device's errors.
    pub fn forward<'a>(
        &self,
        logits: TensorRef<'_>,
        inputs: impl Into<LossInputs<'a>>,
    ) -> Result<LossResult> {
        self.allocating(inputs.into(), true, false, |inputs, outputs| {
            self.forward_into(logits, inputs, outputs)
        })
    }

    /// As [`forward`](Self::forward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_into(
        &self,
        logits: TensorRef<'_>,
        inputs: &LossInputs<'_>,
        outputs: &mut LossOutputs<'_>,
    ) -> Result<()> {
        let check = self.check("SoftmaxLoss::forward");
        let checked = self.check_call(&check, &logits, inputs, outputs, false)?;
        self.run(
            &check,
            (Pass::Forward, checked),
            Rows::Read(logits),
            inputs,
            outputs,
        )
    }

    /// Loss, statistics and gradient; `gradient` is `[tokens, >= vocab]`, and its columns beyond the
    /// vocabulary become 0.
    ///
    /// Under [`Denominator::Kept`] the denominator is known only after the pass. The gradient is
    /// written without it, and [`LossResult::gradient_scale`] is what remains: scaling it in a
    /// second pass ([`scale_gradient`](Self::scale_gradient)) reads and writes the kept rows once
    /// more, which a caller with an optimizer that takes a scale need not pay.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_backward<'a>(
        &self,
        logits: TensorRef<'_>,
        gradient: TensorMut<'_>,
        inputs: impl Into<LossInputs<'a>>,
    ) -> Result<LossResult> {
        let mut gradient = gradient;
        self.allocating(inputs.into(), false, true, |inputs, outputs| {
            self.forward_backward_into(logits, gradient.reborrow(), inputs, outputs)
        })
    }

    /// As [`forward_backward`](Self::forward_backward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_backward_into(
        &self,
        logits: TensorRef<'_>,
        gradient: TensorMut<'_>,
        inputs: &LossInputs<'_>,
        outputs: &mut LossOutputs<'_>,
    ) -> Result<()> {
        let check = self.check("SoftmaxLoss::forward_backward");
        let checked = self.check_call(&check, &logits, inputs, outputs, true)?;
        check.gradient(&gradient, &logits, checked)?;
        let rows = Rows::Apart(logits, gradient);
        self.run(
            &check,
            (Pass::ForwardBackward, checked),
            rows,
            inputs,
            outputs,
        )
    }

    /// Loss, statistics and gradient, the gradient over the logits.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_backward_in_place<'a>(
        &self,
        logits: TensorMut<'_>,
        inputs: impl Into<LossInputs<'a>>,
    ) -> Result<LossResult> {
        let mut logits = logits;
        self.allocating(inputs.into(), false, true, |inputs, outputs| {
            self.forward_backward_in_place_into(logits.reborrow(), inputs, outputs)
        })
    }

    /// As [`forward_backward_in_place`](Self::forward_backward_in_place), into memory of the
    /// caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_backward_in_place_into(
        &self,
        logits: TensorMut<'_>,
        inputs: &LossInputs<'_>,
        outputs: &mut LossOutputs<'_>,
    ) -> Result<()> {
        let check = self.check("SoftmaxLoss::forward_backward_in_place");
        let checked = self.check_call(&check, &logits.as_ref(), inputs, outputs, true)?;
        let rows = Rows::InPlace(logits);
        self.run(
            &check,
            (Pass::ForwardBackward, checked),
            rows,
            inputs,
            outputs,
        )
    }

    /// The gradient of the logits from the state that a forward saved, and from gradients of the
    /// loss, lp, entropy and lse. Inputs are those of the forward; the gradient comes scaled under
    /// every reduction, [`Denominator::Kept`] too.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward<'a>(
        &self,
        logits: TensorRef<'_>,
        gradient: TensorMut<'_>,
        inputs: impl Into<LossInputs<'a>>,
        state: TensorRef<'_>,
        upstream: &Upstream<'_>,
    ) -> Result<()> {
        let inputs = inputs.into();
        let mut workspace = self.workspace(&inputs)?;
        let workspace = workspace.view_mut();
        self.backward_into(logits, gradient, &inputs, state, upstream, workspace)
    }

    /// As [`backward`](Self::backward), with the caller's workspace.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_into(
        &self,
        logits: TensorRef<'_>,
        gradient: TensorMut<'_>,
        inputs: &LossInputs<'_>,
        state: TensorRef<'_>,
        upstream: &Upstream<'_>,
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        let check = self.check("SoftmaxLoss::backward");
        let mut outputs = LossOutputs::new(workspace);
        let checked = self.check_call(&check, &logits, inputs, &outputs, false)?;
        check.gradient(&gradient, &logits, checked)?;
        self.check_backward(&check, checked, &state, upstream)?;
        let pass = Pass::Backward(&state, upstream);
        let rows = Rows::Apart(logits, gradient);
        self.run(&check, (pass, checked), rows, inputs, &mut outputs)
    }

    /// As [`backward`](Self::backward), the gradient over the logits.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_in_place<'a>(
        &self,
        logits: TensorMut<'_>,
        inputs: impl Into<LossInputs<'a>>,
        state: TensorRef<'_>,
        upstream: &Upstream<'_>,
    ) -> Result<()> {
        let inputs = inputs.into();
        let check = self.check("SoftmaxLoss::backward_in_place");
        let mut workspace = self.workspace(&inputs)?;
        let mut outputs = LossOutputs::new(workspace.view_mut());
        let checked = self.check_call(&check, &logits.as_ref(), &inputs, &outputs, false)?;
        self.check_backward(&check, checked, &state, upstream)?;
        let pass = Pass::Backward(&state, upstream);
        let rows = Rows::InPlace(logits);
        self.run(&check, (pass, checked), rows, &inputs, &mut outputs)
    }

    /// Multiplies the rows of the kept tokens by `scale`, `[1]` f32 on the device: after
    /// forward_backward under [`Denominator::Kept`]. `kept` is [`Statistic::Kept`] of the same call.
    /// The gradient is rounded once more.
    ///
    /// # Errors
    /// [`Error::Argument`] for what does not fit, and the device's errors.
    pub fn scale_gradient(
        &self,
        gradient: TensorMut<'_>,
        kept: TensorRef<'_>,
        scale: TensorRef<'_>,
    ) -> Result<()> {
        let check = self.check("SoftmaxLoss::scale_gradient");
        let tokens = kept.elements();
        check.matrix("gradient", &gradient.as_ref(), tokens, 0)?;
        check.tensor("kept", &kept, &[DType::U8], &[tokens])?;
        check.tensor("scale", &scale, &[DType::F32], &[1])?;
        match &self.device {
            Some(device) => device.scale_gradient(&self.stream, gradient, kept, scale),
            None => host::scale_gradient(gradient, kept, scale),
        }
    }

    fn check(&self, op: &'static str) -> Check {
        Check::new(op, &self.stream)
    }

    fn check_call(
        &self,
        check: &Check,
        logits: &TensorRef<'_>,
        inputs: &LossInputs<'_>,
        outputs: &LossOutputs<'_>,
        gradient: bool,
    ) -> Result<Checked> {
        if !gradient && inputs.upstream.is_some() {
            return check.fail(
                "upstream",
                "absent: only forward_backward takes it (backward has an argument of its own)",
                "given",
            );
        }
        let checked = check.inputs(logits, inputs, self.options.reduction)?;
        let deferred = gradient && self.options.reduction == Reduction::Mean(Denominator::Kept);
        let bytes = self.workspace_bytes(checked.tokens);
        check.outputs(outputs, checked.tokens, bytes, deferred)?;
        Ok(checked)
    }

    fn check_backward(
        &self,
        check: &Check,
        checked: Checked,
        state: &TensorRef<'_>,
        upstream: &Upstream<'_>,
    ) -> Result<()> {
        let tokens = checked.tokens;
        check.state(state, tokens)?;
        let none = self.options.reduction == Reduction::None;
        for (argument, gradient, per_token) in [
            ("upstream.loss", &upstream.loss, none),
            ("upstream.lp", &upstream.lp, true),
            ("upstream.entropy", &upstream.entropy, true),
            ("upstream.lse", &upstream.lse, true),
        ] {
            if let Some(gradient) = gradient {
                check.upstream(argument, gradient, tokens, per_token)?;
            }
        }
        Ok(())
    }

    fn run(
        &self,
        check: &Check,
        call: (Pass<'_>, Checked),
        rows: Rows<'_, '_>,
        inputs: &LossInputs<'_>,
        outputs: &mut LossOutputs<'_>,
    ) -> Result<()> {
        let call = Call {
            options: &self.options,
            pass: call.0,
            checked: call.1,
            inputs,
        };
        check_views(check, &self.stream, &call, &rows, outputs)?;
        match &self.device {
            None => {
                self.stream.raise(host::run(&call, rows, outputs)?);
                Ok(())
            }
            Some(device) => device.run(&self.stream, &call, rows, outputs),
        }
    }

    fn workspace(&self, inputs: &LossInputs<'_>) -> Result<crate::Buffer> {
        let bytes = self.workspace_bytes(inputs.targets.elements());
        self.stream.uninitialised(DType::U8, &[bytes])
    }

    fn allocating(
        &self,
        inputs: LossInputs<'_>,
        save_state: bool,
        gradient: bool,
        run: impl FnOnce(&LossInputs<'_>, &mut LossOutputs<'_>) -> Result<()>,
    ) -> Result<LossResult> {
        let reduction = self.options.reduction;
        let deferred = gradient && reduction == Reduction::Mean(Denominator::Kept);
        let tokens = inputs.targets.elements();
        let mut result = LossResult::allocate(
            &self.stream,
            reduction,
            tokens,
            &self.report,
            save_state,
            deferred,
        )?;
        let mut workspace = self.workspace(&inputs)?;
        run(&inputs, &mut result.outputs(workspace.view_mut()))?;
        Ok(result)
    }
}

/// That nothing a call writes overlaps anything else of it.
fn check_views(
    check: &Check,
    stream: &Stream,
    call: &Call<'_>,
    rows: &Rows<'_, '_>,
    outputs: &LossOutputs<'_>,
) -> Result<()> {
    let mut reads = call.inputs.views();
    let mut writes = outputs.views();
    match rows {
        Rows::Read(logits) => reads.push(("logits", *logits)),
        Rows::Apart(logits, gradient) => {
            reads.push(("logits", *logits));
            writes.push(("gradient", gradient.as_ref()));
        }
        Rows::InPlace(logits) => writes.push(("logits", logits.as_ref())),
    }
    if let Pass::Backward(state, upstream) = call.pass {
        reads.push(("state", *state));
        reads.extend(upstream.views());
    }
    stream.check_views(check.op, &reads, &writes)
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedSoftmaxLoss>();
};
