//! What a quantisation leaves behind.

use evenkeel::Status;

use super::bits::Bits;

/// What a device stored of one output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The elements.
    pub data: Bits,
    /// The scales of blocks, in the order of memory.
    pub scales: Option<Bits>,
    /// The scale of the tensor, or of each group.
    pub tensor_scale: Option<Bits>,
    /// The largest absolute values, where they were asked for.
    pub amax: Option<Bits>,
    /// Saturated and underflowed elements, where they were asked for.
    pub counts: Option<Bits>,
}

/// What a device computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The outputs, in the order of the problem's.
    pub stored: Vec<Stored>,
    /// Status bits of the call.
    pub status: Status,
}
