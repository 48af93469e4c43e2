//! Quantised weights that are kept from one micro-batch to the next.

use super::arguments::QuantizeArguments;
use super::check;
use super::form::QuantShape;
use super::quantize::PreparedQuantize;
use super::result::Quantized;
use crate::check::Check;
use crate::{Buffer, DType, Result, TensorRef};

/// A quantised weight, kept until the weight changes: quantised by the first micro-batch of a step,
/// read by the others.
///
/// The caller says when the weight changes, by a version: the number of the optimizer's step, say. A
/// version that is not the one held, or a view of other memory, quantises again, into the same
/// buffers, so that the addresses that a captured graph holds stay right. Of a captured step, the
/// quantisation is part exactly where the capturing call quantises: capture the first micro-batch
/// with a new version, the others with that one, as two graphs.
///
/// ```
/// use evenkeel::quant::{Format, Fp8, OutputOptions, Quantize, QuantizeArguments, WeightCache};
/// use evenkeel::Device;
///
/// let stream = Device::cpu().stream()?;
/// let mut weight = stream.upload(&[2, 2], &[1.0_f32, 2.0, 3.0, 4.0])?;
/// let op = Quantize::new(Format::Fp8Block128x128(Fp8::E4m3))
///     .rowwise(OutputOptions::new()) // for the forward
///     .transposed(OutputOptions::new()) // for the gradient of the input
///     .prepare(&stream)?;
/// let mut cache = WeightCache::new(op, 2, 2, 0)?;
/// for step in 0..2 {
///     for _micro_batch in 0..4 {
///         let w = cache.get(weight.view(), step, QuantizeArguments::default())?;
///         let (_forward, _dgrad) = (w.rowwise()?, w.transposed()?); // to products
///     }
///     weight.write(&[2.0_f32, 4.0, 6.0, 8.0])?; // the optimizer
/// }
/// assert_eq!(cache.version(), Some(1));
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Debug)]
pub struct WeightCache {
    op: PreparedQuantize,
    shape: QuantShape,
    quantized: Quantized,
    workspace: Buffer,
    held: Option<Held>,
}

/// Of what the outputs were made.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Held {
    version: u64,
    address: u64,
    dtype: DType,
    row_stride: usize,
}

impl WeightCache {
    /// Memory for the outputs of a weight `[rows, columns]` whose rows are in `groups` groups (of
    /// experts, 0 for none), with nothing in it yet.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a weight that `op` cannot quantise, and the
    /// device's errors.
    pub fn new(op: PreparedQuantize, rows: usize, columns: usize, groups: usize) -> Result<Self> {
        let shape = QuantShape {
            rows,
            columns,
            groups,
        };
        let check = Check::new("WeightCache::new", op.stream());
        check.row_count("columns", rows, columns)?;
        for form in op.configuration().forms(shape).iter().flatten() {
            check::options(&check, form, ["rotation", "layout"])?;
        }
        let quantized = op.allocate(rows, columns, groups)?;
        let bytes = op.workspace_bytes(rows, columns, groups);
        let workspace = op.stream().uninitialised(DType::U8, &[bytes])?;
        Ok(Self {
            op,
            shape,
            quantized,
            workspace,
            held: None,
        })
    }

    /// The weight in low bits, quantised now unless this version of it is held already; then
    /// `arguments` are not looked at, and their amax and counts stay as they are.
    ///
    /// # Errors
    /// As [`PreparedQuantize::quantize_into`]; after one, nothing is held.
    pub fn get(
        &mut self,
        weight: TensorRef<'_>,
        version: u64,
        arguments: QuantizeArguments<'_>,
    ) -> Result<&Quantized> {
        let held = Held {
            version,
            address: weight.address(),
            dtype: weight.dtype(),
            row_stride: weight.row_stride(),
        };
        let check = Check::new("WeightCache::get", self.op.stream());
        check.rows("weight", &weight, self.shape.rows, self.shape.columns)?;
        if self.held != Some(held) {
            self.held = None;
            let groups = check::group_count(&check, arguments.groups.as_ref())?;
            if groups != self.shape.groups {
                let expected = match self.shape.groups {
                    0 => "absent, as the cache was made without groups".to_string(),
                    groups => format!("of {groups} groups, as the cache was made"),
                };
                return check.fail("groups", expected, format!("of {groups} groups"));
            }
            let mut outputs = self.quantized.outputs();
            outputs.workspace = Some(self.workspace.view_mut());
            self.op
                .run(&check, self.shape, weight, arguments, &mut outputs)?;
            self.held = Some(held);
        }
        Ok(&self.quantized)
    }

    /// Forgets what is held: the next [`get`](Self::get) quantises.
    pub fn invalidate(&mut self) {
        self.held = None;
    }

    /// The version that is held.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.held.map(|held| held.version)
    }

    /// What is held.
    #[must_use]
    pub fn quantized(&self) -> Option<&Quantized> {
        self.held.map(|_| &self.quantized)
    }

    /// Bytes of memory on the device.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.quantized.bytes() + self.workspace.elements()
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<WeightCache>();
};
