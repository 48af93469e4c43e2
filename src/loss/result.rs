//! What the allocating forms of a loss give back.

use std::fmt;

#[cfg(doc)]
use super::Denominator;
use super::Reduction;
use super::arguments::{LossOutputs, Statistic};
use crate::{Buffer, DType, Error, Result, Stream, TensorMut};

/// The counts of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Targets that are not the ignored one.
    pub valid: u32,
    /// Tokens that the threshold keeps.
    pub kept: u32,
    /// Tokens whose target is the most probable class.
    pub correct: u32,
}

/// What the allocating forms return. Everything stays on the device until it is read.
pub struct LossResult {
    pub(super) reduction: Reduction,
    pub(super) loss: Option<Buffer>,
    pub(super) counts: Buffer,
    pub(super) gradient_scale: Option<Buffer>,
    pub(super) state: Option<Buffer>,
    pub(super) statistics: [Option<Buffer>; Statistic::ALL.len()],
}

impl LossResult {
    pub(super) fn allocate(
        stream: &Stream,
        reduction: Reduction,
        tokens: usize,
        report: &[Statistic],
        save_state: bool,
        deferred_scale: bool,
    ) -> Result<LossResult> {
        let mut statistics: [Option<Buffer>; Statistic::ALL.len()] = Default::default();
        let own = (reduction == Reduction::None).then_some(Statistic::Loss);
        for &statistic in report.iter().chain(&own) {
            statistics[statistic as usize] =
                Some(stream.uninitialised(statistic.dtype(), &[tokens])?);
        }
        let when = |wanted: bool, dtype: DType, shape: &[usize]| {
            wanted
                .then(|| stream.uninitialised(dtype, shape))
                .transpose()
        };
        Ok(LossResult {
            reduction,
            loss: when(reduction != Reduction::None, DType::F32, &[1])?,
            counts: stream.uninitialised(DType::U32, &[3])?,
            gradient_scale: when(deferred_scale, DType::F32, &[1])?,
            state: when(save_state, DType::F32, &[tokens, 8])?,
            statistics,
        })
    }

    pub(super) fn outputs<'a>(&'a mut self, workspace: TensorMut<'a>) -> LossOutputs<'a> {
        let view = |buffer: &'a mut Option<Buffer>| buffer.as_mut().map(Buffer::view_mut);
        LossOutputs {
            workspace,
            loss: view(&mut self.loss),
            counts: Some(self.counts.view_mut()),
            gradient_scale: view(&mut self.gradient_scale),
            state: view(&mut self.state),
            statistics: self.statistics.each_mut().map(view),
        }
    }

    /// The reduced loss, after waiting for it.
    ///
    /// # Errors
    /// [`Error::Argument`] under [`Reduction::None`]: read `statistic(Statistic::Loss)`.
    pub fn read(&self) -> Result<f32> {
        let Some(loss) = &self.loss else {
            return Err(Error::argument(
                "LossResult::read",
                "reduction",
                "one that gives a single loss (statistic(Statistic::Loss) has the tokens')",
                self.reduction.to_string(),
            ));
        };
        Ok(loss.read::<f32>()?.first().copied().unwrap_or(0.0))
    }

    /// The counts, after waiting for them.
    ///
    /// # Errors
    /// What went wrong with earlier work on the stream.
    pub fn counts(&self) -> Result<Counts> {
        let counts = self.counts.read::<u32>()?;
        let at = |i: usize| counts.get(i).copied().unwrap_or(0);
        Ok(Counts {
            valid: at(0),
            kept: at(1),
            correct: at(2),
        })
    }

    /// The reduced loss on the device, `[1]` f32; none under [`Reduction::None`].
    #[must_use]
    pub fn loss(&self) -> Option<&Buffer> {
        self.loss.as_ref()
    }

    /// A statistic that was asked for, `[tokens]`.
    #[must_use]
    pub fn statistic(&self, statistic: Statistic) -> Option<&Buffer> {
        self.statistics[statistic as usize].as_ref()
    }

    /// What the gradient is still to be multiplied by, `[1]` f32, where its denominator is known
    /// only after the pass ([`Denominator::Kept`]); then
    /// [`scale_gradient`](super::PreparedSoftmaxLoss::scale_gradient) applies it, or an optimizer
    /// that takes a scale.
    #[must_use]
    pub fn gradient_scale(&self) -> Option<&Buffer> {
        self.gradient_scale.as_ref()
    }

    /// What backward needs, `[tokens, 8]` f32, after a forward.
    #[must_use]
    pub fn state(&self) -> Option<&Buffer> {
        self.state.as_ref()
    }
}

impl fmt::Debug for LossResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LossResult({})", self.reduction)
    }
}
