//! Losses over a softmax.
//!
//! [`Objective`] is the family f(p) of probability objectives, [`Criterion`] an objective with an
//! optional hard [`Threshold`] on p, and [`LossOptions`] everything that shapes the loss of a
//! batch: transforms of the logits, added terms, the ignored target and the [`Reduction`].
//! The formulas themselves are executable in [`crate::reference::loss`].

mod objective;
mod options;

pub use objective::{Criterion, DEFT_OFFSET, Objective, Threshold};
pub use options::{Denominator, LossOptions, Reduction};
