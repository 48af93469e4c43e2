//! What a quantisation is called with, and where it writes.

use super::delayed::DelayedTensors;
use crate::{TensorMut, TensorRef};

/// What a quantisation is given beside its input; by default nothing.
///
/// ```
/// use evenkeel::quant::{OutputArguments, QuantizeArguments};
/// use evenkeel::{DType, Device};
///
/// let stream = Device::cpu().stream()?;
/// let mut amax = stream.zeros(DType::F32, &[1])?;
/// let arguments = QuantizeArguments::default()
///     .rowwise(OutputArguments::default().amax(amax.view_mut()))
///     .offset(7);
/// assert!(arguments.rowwise.amax.is_some() && arguments.groups.is_none());
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct QuantizeArguments<'a> {
    /// Of the row-wise output.
    pub rowwise: OutputArguments<'a>,
    /// Of the transposed output.
    pub transposed: OutputArguments<'a>,
    /// Where groups of rows (those of experts) begin and end, `[groups + 1]` i64 or i32 that do not
    /// descend: group g is rows `groups[g]..groups[g + 1]`. No block crosses a group, and each has its
    /// own amax and tensor scale. Elements of rows before the first and after the last group are 0.
    ///
    /// Offsets that descend or leave 0..=M make all 0, and set
    /// [`Status::BAD_GROUP_OFFSETS`](crate::Status::BAD_GROUP_OFFSETS). A transposed output of two
    /// elements a byte leaves a group that starts at an odd row 0, and a transposed rotation the last
    /// block of a group whose rows it does not divide; both set
    /// [`Status::RAGGED_GROUP`](crate::Status::RAGGED_GROUP).
    pub groups: Option<TensorRef<'a>>,
    /// Which random numbers this call takes, for stochastic rounding: another number for each call
    /// that shares a seed (the step, or step x tensors + tensor). Rounding to nearest ignores it.
    pub offset: u64,
    /// Added to `offset`, `[1]` i64 on the device, read when the call runs: what a captured graph
    /// counts up between its replays.
    pub device_offset: Option<TensorRef<'a>>,
}

impl<'a> QuantizeArguments<'a> {
    /// What the row-wise output is given.
    #[must_use]
    pub fn rowwise(mut self, rowwise: OutputArguments<'a>) -> Self {
        self.rowwise = rowwise;
        self
    }

    /// What the transposed output is given.
    #[must_use]
    pub fn transposed(mut self, transposed: OutputArguments<'a>) -> Self {
        self.transposed = transposed;
        self
    }

    /// Groups of rows.
    #[must_use]
    pub fn groups(mut self, offsets: TensorRef<'a>) -> Self {
        self.groups = Some(offsets);
        self
    }

    /// Which random numbers to take.
    #[must_use]
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// A number on the device to add to the offset.
    #[must_use]
    pub fn device_offset(mut self, offset: TensorRef<'a>) -> Self {
        self.device_offset = Some(offset);
        self
    }
}

/// What one output is given, and where it reports; by default nothing.
#[derive(Debug, Default)]
pub struct OutputArguments<'a> {
    /// The tensor scale to decode with, `[1]` or `[groups]` f32, positive and finite: given where the
    /// scaling is [`Scaling::Given`](super::Scaling::Given), and only there.
    pub tensor_scale: Option<TensorRef<'a>>,
    /// Where the largest magnitude of this output (finite elements, after its rotation) goes, `[1]`
    /// or `[groups]` f32. What is there is never lowered, so that micro-batches gather theirs in one
    /// slot; the slot starts as 0.
    pub amax: Option<TensorMut<'a>>,
    /// `[2]` u32, added to what is there: how many elements were beyond the format's largest before
    /// they were rounded, and how many that were not 0 became 0. They wrap at 2^32. A block's own
    /// amax can be beyond by the last bit of its rounded scale, and counts then.
    pub counts: Option<TensorMut<'a>>,
}

impl<'a> OutputArguments<'a> {
    /// The tensor scale of [`Scaling::Given`](super::Scaling::Given).
    #[must_use]
    pub fn tensor_scale(mut self, scale: TensorRef<'a>) -> Self {
        self.tensor_scale = Some(scale);
        self
    }

    /// Where the amax goes.
    #[must_use]
    pub fn amax(mut self, amax: TensorMut<'a>) -> Self {
        self.amax = Some(amax);
        self
    }

    /// Where saturated and underflowed elements are counted.
    #[must_use]
    pub fn counts(mut self, counts: TensorMut<'a>) -> Self {
        self.counts = Some(counts);
        self
    }
}

/// The scale of a tensor whose scaling is delayed, and the slot for its next one.
impl<'a> From<DelayedTensors<'a>> for OutputArguments<'a> {
    fn from(tensors: DelayedTensors<'a>) -> Self {
        Self::default()
            .tensor_scale(tensors.scales)
            .amax(tensors.amax)
    }
}

/// The memory of one output, with the shapes of its [`QuantizedForm`](super::QuantizedForm).
#[derive(Debug)]
pub struct QuantizedMut<'a> {
    /// The elements, rows at any stride.
    pub data: TensorMut<'a>,
    /// The scales of rows or blocks, where the format has such; contiguous.
    pub scales: Option<TensorMut<'a>>,
    /// The scale of the tensor or of each group, f32, where the format has such. Needed under
    /// [`Scaling::Current`](super::Scaling::Current); under `Given` it is left out, or gets a copy
    /// of the given one, which then outlives the next update of that one.
    pub tensor_scale: Option<TensorMut<'a>>,
}

impl<'a> QuantizedMut<'a> {
    /// The elements.
    #[must_use]
    pub fn new(data: TensorMut<'a>) -> Self {
        Self {
            data,
            scales: None,
            tensor_scale: None,
        }
    }

    /// With the scales of rows or blocks.
    #[must_use]
    pub fn scales(mut self, scales: TensorMut<'a>) -> Self {
        self.scales = Some(scales);
        self
    }

    /// With the scale of the tensor.
    #[must_use]
    pub fn tensor_scale(mut self, scale: TensorMut<'a>) -> Self {
        self.tensor_scale = Some(scale);
        self
    }
}

/// Where a quantisation writes: each output exactly where it is configured.
#[derive(Debug, Default)]
pub struct QuantizeOutputs<'a> {
    /// X, quantised along its rows.
    pub rowwise: Option<QuantizedMut<'a>>,
    /// The transpose of X, quantised along X's columns.
    pub transposed: Option<QuantizedMut<'a>>,
    /// Scratch of the operation's `workspace_bytes`, u8 at a multiple of 16; calls may share it one
    /// after the other.
    pub workspace: Option<TensorMut<'a>>,
}

impl<'a> QuantizeOutputs<'a> {
    /// With the row-wise output.
    #[must_use]
    pub fn rowwise(mut self, rowwise: QuantizedMut<'a>) -> Self {
        self.rowwise = Some(rowwise);
        self
    }

    /// With the transposed output.
    #[must_use]
    pub fn transposed(mut self, transposed: QuantizedMut<'a>) -> Self {
        self.transposed = Some(transposed);
        self
    }

    /// With scratch.
    #[must_use]
    pub fn workspace(mut self, workspace: TensorMut<'a>) -> Self {
        self.workspace = Some(workspace);
        self
    }
}
