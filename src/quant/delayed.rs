//! Delayed scaling: the scales of many tensors, from the largest elements that they had before.

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::format::Format;
use super::kernels::DelayedKernels;
use super::options::{invalid, one_of};
use crate::device::stream::Backend;
use crate::reference::quant::delayed::{self as reference, Memory, Rule};
use crate::text::string_form;
use crate::{Buffer, DType, Error, Result, Stream, TensorMut, TensorRef};

/// What of an amax history makes the next scale.
///
/// Written and parsed as `max` and `most-recent`; the same text is its serde form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum AmaxHistory {
    /// Its largest amax.
    #[default]
    Max,
    /// The last step's.
    MostRecent,
}

impl AmaxHistory {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Max, Self::MostRecent];
}

impl fmt::Display for AmaxHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Max => "max",
            Self::MostRecent => "most-recent",
        })
    }
}

impl FromStr for AmaxHistory {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        one_of(&Self::ALL, "history", text)
    }
}

string_form!(AmaxHistory);

/// Delayed scaling, to be prepared for the tensors of a model:
///
/// ```text
/// ring[t, cursor] <- amax[t]                 a = max over the ring, or amax[t] itself
/// scale[t] <- a / (largest[t] 2^-margin)     where a > 0; else it stays
/// amax[t] <- 0
/// ```
///
/// A step quantises each tensor with the scale that its earlier steps left, which costs one read
/// where the scale of its own amax costs two, and puts its amax into the slot for the next. What
/// grows faster than its history saturates; a margin, in powers of two, leaves room.
///
/// Source: "FP8 Formats for Deep Learning" (arXiv 2209.05433), and the recipe of this name in
/// NVIDIA's Transformer Engine, whose defaults these are (1024 steps, their largest, margin 0).
///
/// ```
/// use evenkeel::{Device, quant::{DelayedScaling, Format, Fp8}};
///
/// let stream = Device::cpu().stream()?;
/// let e4m3 = Format::Fp8Tensor(Fp8::E4m3);
/// let mut scales = DelayedScaling::new().length(16).prepare(&stream, &[e4m3; 2])?;
/// // A step's quantisations leave what they found; here by hand.
/// scales.amax_mut().host_slice_mut::<f32>()?.copy_from_slice(&[896.0, 0.0]);
/// scales.update()?;
/// assert_eq!(scales.scales().host_slice::<f32>()?, [2.0, 1.0]); // no amax, no change
/// assert_eq!(scales.amax().host_slice::<f32>()?, [0.0, 0.0]);
///
/// let saved = scales.save()?; // into a checkpoint
/// let mut resumed = DelayedScaling::new().length(16).prepare(&stream, &[e4m3; 2])?;
/// resumed.restore(&saved)?;
/// assert_eq!(resumed.save()?, saved);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DelayedScaling {
    length: usize,
    history: AmaxHistory,
    margin: i32,
    power_of_two: bool,
}

impl Default for DelayedScaling {
    fn default() -> Self {
        Self {
            length: 1024,
            history: AmaxHistory::Max,
            margin: 0,
            power_of_two: false,
        }
    }
}

impl DelayedScaling {
    /// The largest amax of 1024 steps, no margin.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The steps of a history: at least one, and fewer than 2^31.
    #[must_use]
    pub fn length(mut self, steps: usize) -> Self {
        self.length = steps;
        self
    }

    /// What of the history counts.
    #[must_use]
    pub fn history(mut self, history: AmaxHistory) -> Self {
        self.history = history;
        self
    }

    /// Makes scales 2^margin times what the amax asks for: -32 to 32.
    #[must_use]
    pub fn margin(mut self, margin: i32) -> Self {
        self.margin = margin;
        self
    }

    /// Makes scales powers of two, rounded up.
    #[must_use]
    pub fn power_of_two(mut self) -> Self {
        self.power_of_two = true;
        self
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Argument`] for a length or a margin outside its range.
    pub fn validate(&self) -> Result<()> {
        if self.length == 0 || self.length > i32::MAX as usize {
            return Err(invalid("length", "1 to 2^31 - 1 steps", self.length));
        }
        if !(-32..=32).contains(&self.margin) {
            return Err(invalid("margin", "-32 to 32", self.margin));
        }
        Ok(())
    }

    /// The state of one tensor for each format, every scale 1 and every history empty.
    ///
    /// The formats are those whose tensor scale can be given: `fp8-tensor` and NVFP4. Loads the
    /// kernel, so that updates can be captured into a graph.
    ///
    /// # Errors
    /// [`Error::Argument`] for other formats and as [`validate`](Self::validate) has it, and the
    /// device's errors.
    pub fn prepare(&self, stream: &Stream, formats: &[Format]) -> Result<DelayedScales> {
        self.validate()?;
        let margin = 2_f32.powi(-self.margin);
        let largest = |format: &Format| match format {
            Format::Fp8Tensor(_) => Ok(format.largest() * margin),
            Format::NvFp4 | Format::NvFp4Square => {
                Ok(crate::reference::quant::scale::NVFP4_RANGE * margin)
            }
            other => Err(invalid("formats", "fp8-tensor or nvfp4", other)),
        };
        let largest: Vec<f32> = formats.iter().map(largest).collect::<Result<_>>()?;
        let tensors = largest.len();
        if tensors > i32::MAX as usize || tensors.checked_mul(self.length).is_none() {
            return Err(invalid("formats", "fewer than 2^31 tensors", tensors));
        }
        let kernels = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(DelayedKernels::load(stream)?),
        };
        Ok(DelayedScales {
            stream: stream.clone(),
            options: *self,
            amax: stream.zeros(DType::F32, &[tensors])?,
            history: stream.zeros(DType::F32, &[tensors, self.length])?,
            scales: stream.upload(&[tensors], &vec![1.0_f32; tensors])?,
            cursors: stream.zeros(DType::U32, &[tensors])?,
            largest: stream.upload(&[tensors], &largest)?,
            kernels,
        })
    }

    pub(super) fn rule(&self) -> Rule {
        Rule {
            length: self.length,
            most_recent: self.history == AmaxHistory::MostRecent,
            power_of_two: self.power_of_two,
        }
    }
}

/// The scales of T tensors and what they follow from, on a device: the caller's, to keep from step to
/// step.
///
/// A step reads [`scales`](Self::scales), lets its quantisations raise the slots of
/// [`amax`](Self::amax) (several micro-batches raise them further), and calls
/// [`update`](Self::update). The slots are one contiguous array: a trainer of several ranks takes
/// their maximum over all ranks ([`amax_mut`](Self::amax_mut)) before the update, so that all have
/// the same scales. The position in the history is on the device too, so that an update can be part
/// of a graph.
#[derive(Debug)]
pub struct DelayedScales {
    stream: Stream,
    options: DelayedScaling,
    amax: Buffer,
    history: Buffer,
    scales: Buffer,
    cursors: Buffer,
    largest: Buffer,
    /// None: the reference runs the updates.
    kernels: Option<DelayedKernels>,
}

/// What quantising one tensor, or a group of neighbours, needs of [`DelayedScales`].
#[derive(Debug)]
pub struct DelayedTensors<'a> {
    /// Their scales, f32: for [`Scaling::Given`](super::Scaling::Given).
    pub scales: TensorRef<'a>,
    /// Their slots, f32, to be raised to the largest element.
    pub amax: TensorMut<'a>,
}

/// [`DelayedScales`] on the host, to be kept in a checkpoint.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DelayedState {
    /// Steps of each history.
    pub length: usize,
    /// `[T]`: where each history is written next.
    pub cursors: Vec<u32>,
    /// `[T]`: the slots.
    pub amax: Vec<f32>,
    /// `[T, length]`.
    pub history: Vec<f32>,
    /// `[T]`.
    pub scales: Vec<f32>,
}

impl DelayedScales {
    /// The number of tensors.
    #[must_use]
    pub fn tensors(&self) -> usize {
        self.amax.elements()
    }

    /// How scales are made.
    #[must_use]
    pub fn options(&self) -> &DelayedScaling {
        &self.options
    }

    /// The scales, `[T]` f32, with which to decode.
    #[must_use]
    pub fn scales(&self) -> TensorRef<'_> {
        self.scales.view()
    }

    /// The slots of this step, `[T]` f32.
    #[must_use]
    pub fn amax(&self) -> TensorRef<'_> {
        self.amax.view()
    }

    /// The slots, to be combined with those of other ranks.
    pub fn amax_mut(&mut self) -> TensorMut<'_> {
        self.amax.view_mut()
    }

    /// What quantising a tensor needs.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such tensor.
    pub fn tensor(&mut self, index: usize) -> Result<DelayedTensors<'_>> {
        self.group(index..index.saturating_add(1))
    }

    /// What quantising neighbouring tensors as groups of one needs.
    ///
    /// # Errors
    /// [`Error::Argument`] when the range is not within the tensors.
    pub fn group(&mut self, tensors: Range<usize>) -> Result<DelayedTensors<'_>> {
        Ok(DelayedTensors {
            scales: self.scales.view().slice_rows(tensors.clone())?,
            amax: self.amax.view_mut().slice_rows(tensors)?,
        })
    }

    /// Makes the next step's scales of all tensors, in one launch, and resets the slots to 0.
    ///
    /// A slot that is negative or not finite counts as 0; a tensor whose history (or last step) has
    /// no amax above 0 keeps its scale. Scales stay between 2^-149 and the largest f32; powers of
    /// two between 2^-127 and 2^127. The same bits on every device.
    ///
    /// # Errors
    /// The device's.
    pub fn update(&mut self) -> Result<()> {
        let rule = self.options.rule();
        if let Some(kernels) = &self.kernels {
            return kernels.update(
                &self.stream,
                rule,
                self.largest.view(),
                [
                    self.amax.view_mut(),
                    self.history.view_mut(),
                    self.scales.view_mut(),
                    self.cursors.view_mut(),
                ],
            );
        }
        let (mut amax, mut history) = (self.amax.view_mut(), self.history.view_mut());
        let (mut scales, mut cursors) = (self.scales.view_mut(), self.cursors.view_mut());
        let memory = Memory {
            amax: amax.host_slice_mut()?,
            history: history.host_slice_mut()?,
            scales: scales.host_slice_mut()?,
            cursors: cursors.host_slice_mut()?,
            largest: self.largest.view().host_slice()?,
        };
        reference::update(rule, memory)
    }

    /// Waits for the stream and copies the state to the host.
    ///
    /// # Errors
    /// What went wrong with earlier work on the stream.
    pub fn save(&self) -> Result<DelayedState> {
        Ok(DelayedState {
            length: self.options.length,
            cursors: self.cursors.read()?,
            amax: self.amax.read()?,
            history: self.history.read()?,
            scales: self.scales.read()?,
        })
    }

    /// Goes on from a saved state of as many tensors and steps.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is not of these numbers of tensors and steps, or holds a cursor
    /// outside its history.
    pub fn restore(&mut self, state: &DelayedState) -> Result<()> {
        const OP: &str = "DelayedScales::restore";
        let (tensors, length) = (self.tensors(), self.options.length);
        let fits = state.length == length
            && [state.cursors.len(), state.amax.len(), state.scales.len()] == [tensors; 3]
            && state.history.len() == tensors * length;
        if !fits {
            let got = format!(
                "of {} tensors and {} steps, with {} numbers in all",
                state.scales.len(),
                state.length,
                state.history.len()
            );
            let expected = format!("of {tensors} tensors and {length} steps");
            return Err(Error::argument(OP, "state", expected, got));
        }
        if let Some(cursor) = state.cursors.iter().find(|&&at| at as usize >= length) {
            let expected = format!("with cursors below {length}");
            let got = format!("with cursor {cursor}");
            return Err(Error::argument(OP, "state", expected, got));
        }
        self.cursors.write(&state.cursors)?;
        self.amax.write(&state.amax)?;
        self.history.write(&state.history)?;
        self.scales.write(&state.scales)
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<DelayedScales>();
};
