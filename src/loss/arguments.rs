//! What a loss is called with: inputs, upstream gradients, and where it writes.

#[cfg(doc)]
use super::{Denominator, Reduction};
use crate::{DType, TensorMut, TensorRef};

/// What the forward can report of each token, at no extra pass over the logits.
///
/// With z the transformed logits, p their softmax, y the target:
///
/// | statistic | value | type |
/// |---|---|---|
/// | `Loss` | the token's loss before the reduction | f32 |
/// | `Lse` | log sum_j exp z_j | f32 |
/// | `Lp` | log p_y | f32 |
/// | `P` | p_y | f32 |
/// | `Entropy` | -sum_j p_j log p_j | f32 |
/// | `SumP2` | sum_j p_j^2 | f32 |
/// | `El2n` | sqrt(sum_j p_j^2 - 2 p_y + 1) | f32 |
/// | `Argmax` | the lowest class with the largest z | i32 |
/// | `Correct` | 1 where the argmax is the target | u8 |
/// | `Kept` | 1 where the threshold keeps the token | u8 |
///
/// All are 0 for tokens that take no part, and NaN (`Argmax` and `Correct`: 0, `Kept`: 1) for rows
/// that are not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Statistic {
    /// The token's loss before the reduction.
    Loss,
    /// log sum exp of the transformed logits.
    Lse,
    /// log-probability of the target.
    Lp,
    /// Probability of the target.
    P,
    /// Entropy of the distribution, in nats.
    Entropy,
    /// Sum of the squared probabilities.
    SumP2,
    /// Distance of the probabilities from the target's one-hot vector.
    El2n,
    /// The most probable class.
    Argmax,
    /// Whether that is the target.
    Correct,
    /// Whether the threshold keeps the token.
    Kept,
}

impl Statistic {
    /// Every statistic.
    pub const ALL: [Self; 10] = [
        Self::Loss,
        Self::Lse,
        Self::Lp,
        Self::P,
        Self::Entropy,
        Self::SumP2,
        Self::El2n,
        Self::Argmax,
        Self::Correct,
        Self::Kept,
    ];

    /// The type of its tensor `[tokens]`.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::Argmax => DType::I32,
            Self::Correct | Self::Kept => DType::U8,
            _ => DType::F32,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss of the tokens",
            Self::Lse => "lse",
            Self::Lp => "lp",
            Self::P => "p",
            Self::Entropy => "entropy",
            Self::SumP2 => "sum_p2",
            Self::El2n => "el2n",
            Self::Argmax => "argmax",
            Self::Correct => "correct",
            Self::Kept => "kept",
        }
    }
}

/// The count that [`Denominator::Tokens`] divides by.
#[derive(Clone, Copy, Debug)]
pub(super) enum TokenCount<'a> {
    Host(f32),
    Device(TensorRef<'a>),
}

/// What a call is given beside the logits. A view of the targets is enough:
/// `op.forward(logits.view(), targets.view())`.
#[derive(Clone, Copy, Debug)]
pub struct LossInputs<'a> {
    pub(super) targets: TensorRef<'a>,
    pub(super) vocab: Option<usize>,
    pub(super) token_weights: Option<TensorRef<'a>>,
    pub(super) class_mask: Option<TensorRef<'a>>,
    pub(super) tokens: Option<TokenCount<'a>>,
    pub(super) sequences: Option<TensorRef<'a>>,
    pub(super) upstream: Option<TensorRef<'a>>,
}

impl<'a> From<TensorRef<'a>> for LossInputs<'a> {
    fn from(targets: TensorRef<'a>) -> Self {
        Self::new(targets)
    }
}

impl<'a> LossInputs<'a> {
    /// The target class of each token, `[tokens]`, i64, i32 or u32.
    #[must_use]
    pub fn new(targets: TensorRef<'a>) -> Self {
        Self {
            targets,
            vocab: None,
            token_weights: None,
            class_mask: None,
            tokens: None,
            sequences: None,
            upstream: None,
        }
    }

    /// The number of classes, where the logits' rows are padded beyond it: the columns from there
    /// on take no part, and get gradient 0.
    #[must_use]
    pub fn vocab(mut self, vocab: usize) -> Self {
        self.vocab = Some(vocab);
        self
    }

    /// A weight of each token's objective, `[tokens]` f32, of any sign: advantages, for instance.
    #[must_use]
    pub fn token_weights(mut self, weights: TensorRef<'a>) -> Self {
        self.token_weights = Some(weights);
        self
    }

    /// Classes that take no part, `[ceil(vocab / 32)]` u32: class j is masked when bit j % 32 of
    /// word j / 32 is set. [`pack_class_mask`] makes it of booleans.
    #[must_use]
    pub fn class_mask(mut self, mask: TensorRef<'a>) -> Self {
        self.class_mask = Some(mask);
        self
    }

    /// The count that [`Denominator::Tokens`] divides by.
    #[must_use]
    pub fn tokens(mut self, count: f32) -> Self {
        self.tokens = Some(TokenCount::Host(count));
        self
    }

    /// The count that [`Denominator::Tokens`] divides by, `[1]` f32 on the device: the sum over
    /// ranks and micro-batches, for instance, which the host need not know.
    #[must_use]
    pub fn tokens_on_device(mut self, count: TensorRef<'a>) -> Self {
        self.tokens = Some(TokenCount::Device(count));
        self
    }

    /// The first token of each sequence and the end of the last, `[sequences + 1]`, i64, i32 or
    /// u32, ascending within 0..=tokens, for [`Denominator::Sequence`]. Offsets that do not ascend
    /// or leave the batch set [`Status::BAD_SEQUENCE_OFFSETS`](crate::Status::BAD_SEQUENCE_OFFSETS)
    /// and make loss and gradient 0.
    #[must_use]
    pub fn sequences(mut self, offsets: TensorRef<'a>) -> Self {
        self.sequences = Some(offsets);
        self
    }

    /// The gradient of what follows in the loss, f32 on the device, for forward_backward: `[1]`, or
    /// `[tokens]` under [`Reduction::None`]. 1 when absent: a loss scale goes here.
    #[must_use]
    pub fn upstream(mut self, upstream: TensorRef<'a>) -> Self {
        self.upstream = Some(upstream);
        self
    }
}

impl<'a> LossInputs<'a> {
    /// All views that a call reads, besides the logits.
    pub(super) fn views(&self) -> Vec<(&'static str, TensorRef<'a>)> {
        let tokens = match self.tokens {
            Some(TokenCount::Device(count)) => Some(count),
            _ => None,
        };
        [
            ("targets", Some(self.targets)),
            ("token_weights", self.token_weights),
            ("class_mask", self.class_mask),
            ("tokens", tokens),
            ("sequences", self.sequences),
            ("upstream", self.upstream),
        ]
        .into_iter()
        .filter_map(|(name, view)| Some((name, view?)))
        .collect()
    }
}

/// The class mask of `masked[j]`: whether class j takes no part.
///
/// ```
/// assert_eq!(evenkeel::loss::pack_class_mask(&[false, true, true]), [0b110]);
/// ```
#[must_use]
pub fn pack_class_mask(masked: &[bool]) -> Vec<u32> {
    masked
        .chunks(32)
        .map(|word| {
            word.iter()
                .enumerate()
                .fold(0, |bits, (j, &masked)| bits | u32::from(masked) << j)
        })
        .collect()
}

/// The gradients from above, for backward; absent ones are 0. f32, `[1]` (the same for all tokens)
/// or `[tokens]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upstream<'a> {
    /// Of the batch's loss, `[1]`; under [`Reduction::None`] of the tokens' losses.
    pub loss: Option<TensorRef<'a>>,
    /// Of each token's lp.
    pub lp: Option<TensorRef<'a>>,
    /// Of each token's entropy.
    pub entropy: Option<TensorRef<'a>>,
    /// Of each token's lse.
    pub lse: Option<TensorRef<'a>>,
}

impl<'a> Upstream<'a> {
    /// The gradient of the loss alone.
    #[must_use]
    pub fn loss(loss: TensorRef<'a>) -> Self {
        Self {
            loss: Some(loss),
            ..Self::default()
        }
    }
}

impl<'a> Upstream<'a> {
    pub(super) fn views(&self) -> impl Iterator<Item = (&'static str, TensorRef<'a>)> {
        [
            ("upstream.loss", self.loss),
            ("upstream.lp", self.lp),
            ("upstream.entropy", self.entropy),
            ("upstream.lse", self.lse),
        ]
        .into_iter()
        .filter_map(|(name, view)| Some((name, view?)))
    }
}

/// Where a call writes, besides the gradient: memory that the caller owns.
#[derive(Debug)]
pub struct LossOutputs<'a> {
    pub(super) workspace: TensorMut<'a>,
    pub(super) loss: Option<TensorMut<'a>>,
    pub(super) counts: Option<TensorMut<'a>>,
    pub(super) gradient_scale: Option<TensorMut<'a>>,
    pub(super) state: Option<TensorMut<'a>>,
    pub(super) statistics: [Option<TensorMut<'a>>; Statistic::ALL.len()],
}

impl<'a> LossOutputs<'a> {
    /// Nothing but scratch: `[workspace_bytes]` u8, 16-byte aligned, whose size
    /// [`PreparedSoftmaxLoss::workspace_bytes`](super::PreparedSoftmaxLoss::workspace_bytes) says.
    #[must_use]
    pub fn new(workspace: TensorMut<'a>) -> Self {
        Self {
            workspace,
            loss: None,
            counts: None,
            gradient_scale: None,
            state: None,
            statistics: Default::default(),
        }
    }

    /// The reduced loss, `[1]` f32. There is none under [`Reduction::None`].
    #[must_use]
    pub fn loss(mut self, loss: TensorMut<'a>) -> Self {
        self.loss = Some(loss);
        self
    }

    /// The counts of valid, kept and correct tokens, `[3]` u32.
    #[must_use]
    pub fn counts(mut self, counts: TensorMut<'a>) -> Self {
        self.counts = Some(counts);
        self
    }

    /// What the gradient is still to be multiplied by, `[1]` f32: forward_backward under
    /// [`Denominator::Kept`] needs it.
    #[must_use]
    pub fn gradient_scale(mut self, scale: TensorMut<'a>) -> Self {
        self.gradient_scale = Some(scale);
        self
    }

    /// What backward needs of each row, `[tokens, 8]` f32: the fields of
    /// [`reference::loss::RowState`](crate::reference::loss::RowState), in their order.
    #[must_use]
    pub fn state(mut self, state: TensorMut<'a>) -> Self {
        self.state = Some(state);
        self
    }

    /// A statistic of each token, `[tokens]` of [`Statistic::dtype`].
    #[must_use]
    pub fn statistic(mut self, statistic: Statistic, values: TensorMut<'a>) -> Self {
        self.statistics[statistic as usize] = Some(values);
        self
    }

    /// All views that a call writes, besides the gradient.
    pub(super) fn views(&self) -> Vec<(&'static str, TensorRef<'_>)> {
        let named = [
            ("loss", &self.loss),
            ("counts", &self.counts),
            ("gradient_scale", &self.gradient_scale),
            ("state", &self.state),
        ];
        let statistics = Statistic::ALL.map(|s| (s.name(), &self.statistics[s as usize]));
        let optional = named.into_iter().chain(statistics);
        let mut views = vec![("workspace", self.workspace.as_ref())];
        views.extend(optional.filter_map(|(name, view)| Some((name, view.as_ref()?.as_ref()))));
        views
    }

    pub(super) fn wants(&self, statistic: Statistic) -> bool {
        self.statistics[statistic as usize].is_some()
    }
}
