//! The calls that a problem makes.

/// Which calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The forward alone.
    Forward,
    /// The forward alone, its result over what it reads.
    ForwardInPlace,
    /// The forward, and the backward from what it left.
    Backward,
    /// The same, each result over what the call reads.
    BackwardInPlace,
}

impl Pass {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Forward,
        Self::ForwardInPlace,
        Self::Backward,
        Self::BackwardInPlace,
    ];

    /// Whether outputs lie over inputs.
    #[must_use]
    pub fn in_place(self) -> bool {
        matches!(self, Self::ForwardInPlace | Self::BackwardInPlace)
    }

    /// Whether there is a backward.
    #[must_use]
    pub fn backward(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardInPlace)
    }
}
