//! One work with its tensors on a device, to be run again and again.

use evenkeel::quant::{OutputArguments, PreparedQuantize, QuantizeArguments, Quantized, Scaling};
use evenkeel::{Buffer, DType, Result, Stream};

use super::work::Work;
use crate::bench::record::ShapeOf;
use crate::memory::view_of;

/// The given scale of a tensor: values a few times as large as random ones still fit.
const SCALE: f32 = 1.0 / 64.0;

/// A work's tensors: a random one, and what it writes.
pub struct Call {
    op: PreparedQuantize,
    /// The input.
    pub x: Buffer,
    /// The outputs.
    pub quantized: Quantized,
    scale: Option<Buffer>,
    workspace: Buffer,
}

impl Call {
    /// The work in this size, of a tensor that `random` makes.
    ///
    /// # Errors
    /// The library's.
    pub fn new(
        stream: &Stream,
        work: Work,
        shape: ShapeOf,
        random: impl FnOnce(&[usize]) -> Result<Buffer>,
    ) -> Result<Self> {
        let (rows, columns) = (shape.tokens(), shape.columns());
        let op = work.operation().prepare(stream)?;
        let workspace = op.workspace_bytes(rows, columns, 0);
        let given = work.scaling() == Scaling::Given;
        Ok(Self {
            x: random(&[rows, columns])?,
            quantized: op.allocate(rows, columns, 0)?,
            scale: given.then(|| stream.upload(&[1], &[SCALE])).transpose()?,
            workspace: stream.uninitialised(DType::U8, &[workspace.max(16)])?,
            op,
        })
    }

    /// The tensor's scale, where it is given.
    #[must_use]
    pub fn given(&self) -> Option<f32> {
        self.scale.as_ref().map(|_| SCALE)
    }

    /// Once; nothing is allocated.
    ///
    /// # Errors
    /// The library's.
    pub fn run(&mut self) -> Result<()> {
        let of = |wanted: bool| OutputArguments {
            tensor_scale: view_of(self.scale.as_ref()).filter(|_| wanted),
            ..OutputArguments::default()
        };
        let arguments = QuantizeArguments::default()
            .rowwise(of(self.quantized.rowwise.is_some()))
            .transposed(of(self.quantized.transposed.is_some()));
        let mut outputs = self
            .quantized
            .outputs()
            .workspace(self.workspace.view_mut());
        self.op
            .quantize_into(self.x.view(), arguments, &mut outputs)
    }
}
