//! Log-probabilities of given tokens, with a gradient: what policy-gradient and preference losses
//! are built on.

use super::arguments::{LossInputs, Statistic, Upstream};
use super::{LossResult, Objective, PreparedSoftmaxLoss, Reduction, SoftmaxLoss};
use crate::{Buffer, Error, Result, Stream, TensorMut, TensorRef};

/// lp_t = log softmax(z_t) at the target, H_t and lse_t of each token, without a loss; to be prepared.
///
/// The caller builds a loss of its own from them and hands back its gradients in lp, H and lse:
/// d lp/dz_j = `[j = y]` - p_j, d H/dz_j = -p_j (log p_j + H), d lse/dz_j = p_j.
///
/// ```
/// use evenkeel::{DType, Device, loss::{LogProbs, Upstream}};
///
/// let stream = Device::cpu().stream()?;
/// let logits = stream.upload(&[1, 2], &[0.0_f32, 0.0])?;
/// let targets = stream.upload(&[1], &[1_i64])?;
/// let op = LogProbs::new().temperature(0.7).prepare(&stream)?;
/// let result = op.forward(logits.view(), targets.view())?;
/// assert_eq!(result.lp()?.read::<f32>()?, [-std::f32::consts::LN_2]);
///
/// let advantage = stream.upload(&[1], &[0.35_f32])?;
/// let upstream = Upstream { lp: Some(advantage.view()), ..Upstream::default() };
/// let mut gradient = stream.zeros(DType::F32, &[1, 2])?;
/// op.backward(logits.view(), gradient.view_mut(), targets.view(), &result, &upstream)?;
/// assert_eq!(gradient.read::<f32>()?, [-0.25, 0.25]);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LogProbs {
    loss: SoftmaxLoss,
}

impl Default for LogProbs {
    fn default() -> Self {
        Self::new()
    }
}

impl LogProbs {
    /// Of the softmax of the logits as they are.
    #[must_use]
    pub fn new() -> Self {
        let loss = SoftmaxLoss::new(Objective::Nll)
            .reduction(Reduction::None)
            .report([Statistic::Lp, Statistic::Entropy, Statistic::Lse]);
        Self { loss }
    }

    /// c of the softcap c tanh(x / c); none by default.
    #[must_use]
    pub fn softcap(mut self, c: f32) -> Self {
        self.loss = self.loss.softcap(c);
        self
    }

    /// T, by which the (capped) logits are divided; 1 by default.
    #[must_use]
    pub fn temperature(mut self, t: f32) -> Self {
        self.loss = self.loss.temperature(t);
        self
    }

    /// The target of tokens that take no part; -100 by default.
    #[must_use]
    pub fn ignore_index(mut self, index: i64) -> Self {
        self.loss = self.loss.ignore_index(index);
        self
    }

    /// Validates the options and loads the kernels.
    ///
    /// # Errors
    /// As [`SoftmaxLoss::prepare`].
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedLogProbs> {
        Ok(PreparedLogProbs {
            loss: self.loss.prepare(stream)?,
        })
    }
}

/// [`LogProbs`] ready to run on a stream.
#[derive(Debug)]
pub struct PreparedLogProbs {
    loss: PreparedSoftmaxLoss,
}

impl PreparedLogProbs {
    /// lp, H and lse of each token, and the state for [`backward`](Self::backward); one read of the
    /// logits. For the memory that planners own there is [`PreparedSoftmaxLoss::forward_into`].
    ///
    /// # Errors
    /// As [`PreparedSoftmaxLoss::forward`].
    pub fn forward<'a>(
        &self,
        logits: TensorRef<'_>,
        inputs: impl Into<LossInputs<'a>>,
    ) -> Result<LogProbsResult> {
        Ok(LogProbsResult {
            loss: self.loss.forward(logits, inputs)?,
        })
    }

    /// The gradient of the logits from those of lp, entropy and lse; one read, one write.
    ///
    /// # Errors
    /// [`Error::Argument`] when `upstream.loss` is given (there is no loss here), and as
    /// [`PreparedSoftmaxLoss::backward`].
    pub fn backward<'a>(
        &self,
        logits: TensorRef<'_>,
        gradient: TensorMut<'_>,
        inputs: impl Into<LossInputs<'a>>,
        forward: &LogProbsResult,
        upstream: &Upstream<'_>,
    ) -> Result<()> {
        if upstream.loss.is_some() {
            return Err(Error::argument(
                "LogProbs::backward",
                "upstream.loss",
                "absent: log-probabilities have no loss",
                "given",
            ));
        }
        let state = forward.required(forward.loss.state())?;
        self.loss
            .backward(logits, gradient, inputs, state.view(), upstream)
    }
}

/// What [`PreparedLogProbs::forward`] returns, on the device.
#[derive(Debug)]
pub struct LogProbsResult {
    loss: LossResult,
}

impl LogProbsResult {
    /// The log-probability of each token's target, `[tokens]` f32.
    ///
    /// # Errors
    /// None in practice: the forward always writes it.
    pub fn lp(&self) -> Result<&Buffer> {
        self.required(self.loss.statistic(Statistic::Lp))
    }

    /// The entropy of each token's distribution, in nats, `[tokens]` f32.
    ///
    /// # Errors
    /// As [`lp`](Self::lp).
    pub fn entropy(&self) -> Result<&Buffer> {
        self.required(self.loss.statistic(Statistic::Entropy))
    }

    /// log sum exp of each token's transformed logits, `[tokens]` f32.
    ///
    /// # Errors
    /// As [`lp`](Self::lp).
    pub fn lse(&self) -> Result<&Buffer> {
        self.required(self.loss.statistic(Statistic::Lse))
    }

    fn required<'r>(&self, buffer: Option<&'r Buffer>) -> Result<&'r Buffer> {
        buffer.ok_or_else(|| {
            Error::argument(
                "LogProbs",
                "forward",
                "a result of forward",
                "another result",
            )
        })
    }
}
