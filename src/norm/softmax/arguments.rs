//! What a softmax is called with and gives back, and the calls that devices carry out.

use super::SoftmaxOptions;
use crate::norm::call::Pair;
use crate::{Buffer, TensorMut, TensorRef};

/// What a forward can report of each row at no extra pass, `[rows]` f32 each; by default nothing.
#[derive(Debug, Default)]
pub struct SoftmaxStatistics<'a> {
    /// The entropy of the row, in nats; 0 where the row sees nothing.
    pub entropy: Option<TensorMut<'a>>,
    /// log sum exp z of the row (-inf where it sees nothing); for `StableMax` the sum itself.
    pub normalizer: Option<TensorMut<'a>>,
}

impl<'a> SoftmaxStatistics<'a> {
    /// With the entropies.
    #[must_use]
    pub fn entropy(mut self, entropy: TensorMut<'a>) -> Self {
        self.entropy = Some(entropy);
        self
    }

    /// With the normalizers.
    #[must_use]
    pub fn normalizer(mut self, normalizer: TensorMut<'a>) -> Self {
        self.normalizer = Some(normalizer);
        self
    }
}

/// What a backward is given beside y and its gradient, `[rows]` f32 each; by default nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoftmaxIncoming<'a> {
    /// The gradient of each row's entropy; absent it is 0.
    pub dentropy: Option<TensorRef<'a>>,
    /// [`SoftmaxStatistics::normalizer`] of the forward, which `StableMax` needs; the others do not
    /// read it.
    pub normalizer: Option<TensorRef<'a>>,
}

impl<'a> SoftmaxIncoming<'a> {
    /// With the gradient of the entropies.
    #[must_use]
    pub fn dentropy(mut self, dentropy: TensorRef<'a>) -> Self {
        self.dentropy = Some(dentropy);
        self
    }

    /// With the forward's normalizers.
    #[must_use]
    pub fn normalizer(mut self, normalizer: TensorRef<'a>) -> Self {
        self.normalizer = Some(normalizer);
        self
    }
}

/// What [`PreparedSoftmax::forward`](super::PreparedSoftmax::forward) returns, on the device.
#[derive(Debug)]
pub struct SoftmaxResult {
    /// Shares, or their logarithms: of x's type and shape.
    pub y: Buffer,
    /// The entropy of each row, `[rows]` f32.
    pub entropy: Buffer,
    /// The normalizer of each row, `[rows]` f32.
    pub normalizer: Buffer,
}

impl SoftmaxResult {
    /// What backward needs of it, without a gradient of the entropy.
    #[must_use]
    pub fn incoming(&self) -> SoftmaxIncoming<'_> {
        SoftmaxIncoming::default().normalizer(self.normalizer.view())
    }
}

/// How the rows of a call form blocks; checked.
#[derive(Clone, Copy, Debug)]
pub(in crate::norm) struct Blocks<'a> {
    pub(in crate::norm) rows: usize,
    /// Rows of a block, from which the causal mask counts.
    pub(in crate::norm) queries: usize,
    pub(in crate::norm) keys: usize,
    /// `[batches]` integers; row r is of batch `r / (rows / batches)`.
    pub(in crate::norm) lengths: Option<TensorRef<'a>>,
}

/// A forward whose arguments fit.
#[derive(Debug)]
pub(in crate::norm) struct ForwardCall<'a> {
    pub(in crate::norm) options: &'a SoftmaxOptions,
    pub(in crate::norm) blocks: Blocks<'a>,
    /// x and y.
    pub(in crate::norm) x: Pair<'a>,
    pub(in crate::norm) entropy: Option<TensorMut<'a>>,
    pub(in crate::norm) normalizer: Option<TensorMut<'a>>,
}

/// A backward whose arguments fit.
#[derive(Debug)]
pub(in crate::norm) struct BackwardCall<'a> {
    pub(in crate::norm) options: &'a SoftmaxOptions,
    pub(in crate::norm) blocks: Blocks<'a>,
    pub(in crate::norm) y: TensorRef<'a>,
    /// dy and dx.
    pub(in crate::norm) dy: Pair<'a>,
    pub(in crate::norm) dentropy: Option<TensorRef<'a>>,
    pub(in crate::norm) normalizer: Option<TensorRef<'a>>,
}
