//! Losses over a softmax.
//!
//! [`Objective`] is the family f(p) of probability objectives, [`Criterion`] an objective with an
//! optional hard [`Threshold`] on p, and [`LossOptions`] everything that shapes the loss of a
//! batch: transforms of the logits, added terms, the ignored target and the [`Reduction`].
//! [`SoftmaxLoss`] computes them, [`LogProbs`] what a caller's own loss is built on.
//! The formulas themselves are executable in [`crate::reference::loss`].

mod arguments;
mod check;
mod host;
mod kernels;
mod launch;
mod log_probs;
mod objective;
mod options;
mod params;
mod result;
mod softmax;

pub use arguments::{LossInputs, LossOutputs, Statistic, Upstream, pack_class_mask};
pub use launch::KernelPath;
pub use log_probs::{LogProbs, LogProbsResult, PreparedLogProbs};
pub use objective::{Criterion, DEFT_OFFSET, Objective, Threshold};
pub use options::{Denominator, LossOptions, Reduction};
pub use result::{Counts, LossResult};
pub use softmax::{PreparedSoftmaxLoss, SoftmaxLoss};
