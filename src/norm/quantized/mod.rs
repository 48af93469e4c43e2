//! Quantised results: what the normalizations share of them.

mod dyt;
mod gated;
mod heads;
mod norm;
mod sdd;

pub(super) use dyt::QuantizedCall as DytQuantizedCall;

use super::arguments::{Saved, Statistics};
use super::call::{ForwardCall, RowOp};
use crate::check::Check;
use crate::quant::{
    Block, Format, QuantShape, Quantize, QuantizeArguments, QuantizeOutputs, Quantized,
    QuantizedMut, QuantizedTensor, Scaling, Store,
};
use crate::rows::RowShape;
use crate::{Buffer, DType, Error, Result, Stream, TensorMut};

/// What the quantised forward of a normalization gives: y in low bits, and what its backward needs.
///
/// The values are those of the forward, computed in f32 and quantised without being stored or rounded
/// in between, by the formulas of [`Quantize`]: y quantised by itself gives the same bits. The
/// backward is the plain one; it needs x (or the stream), the weights and the statistics, and never
/// y.
#[derive(Debug)]
pub struct NormQuantized {
    /// The normalized rows, quantised along them.
    pub y: QuantizedTensor,
    /// r of each row, `[rows]` f32, where there is a normalization.
    pub rstd: Option<Buffer>,
    /// The mean of each row, `[rows]` f32, of `Layer`.
    pub mean: Option<Buffer>,
    /// x + residual where there was one, of x's shape and the residual's type: what the backward
    /// takes as x.
    pub stream: Option<Buffer>,
}

impl NormQuantized {
    /// Memory for the results of rows of this shape.
    pub(super) fn allocate(
        check: &Check,
        rows: &RowOp,
        shape: RowShape,
        [rstd, mean]: [bool; 2],
    ) -> Result<Self> {
        let stream = rows.stream();
        let statistic = |wanted: bool| {
            let allocate = || stream.uninitialised(DType::F32, &[shape.rows()]);
            wanted.then(allocate).transpose()
        };
        Ok(Self {
            y: allocate(check, stream, rows.quantize.as_ref(), shape)?,
            rstd: statistic(rstd)?,
            mean: statistic(mean)?,
            stream: None,
        })
    }

    /// Where y, the stream and the statistics are written.
    pub(super) fn outputs(&mut self) -> (QuantizedMut<'_>, Option<TensorMut<'_>>, Statistics<'_>) {
        let statistics = Statistics {
            rstd: self.rstd.as_mut().map(Buffer::view_mut),
            mean: self.mean.as_mut().map(Buffer::view_mut),
        };
        let stream = self.stream.as_mut().map(Buffer::view_mut);
        (self.y.view_mut(), stream, statistics)
    }

    /// What the backward needs, where there is a normalization.
    #[must_use]
    pub fn saved(&self) -> Option<Saved<'_>> {
        Some(Saved {
            rstd: self.rstd.as_ref()?.view(),
            mean: self.mean.as_ref().map(Buffer::view),
        })
    }
}

/// Memory for y.
pub(super) fn allocate(
    check: &Check,
    stream: &Stream,
    quantize: Option<&Quantize>,
    shape: RowShape,
) -> Result<QuantizedTensor> {
    let quantize = configured(check, quantize)?;
    match Quantized::allocate(stream, quantize, quant_shape(shape))?.rowwise {
        Some(tensor) => Ok(tensor),
        None => unconfigured(check), // not reached: `validate` asks for this output
    }
}

/// Checks that one pass over the rows gives what is asked for.
pub(super) fn validate(op: &'static str, quantize: &Quantize) -> Result<()> {
    quantize.validate()?;
    let options = quantize.options();
    let format = options.format;
    let apart = "write y, and quantise it with quant::Quantize";
    let unsupported = |what: &str, remedy: &str| Err(Error::unsupported(op, what, remedy));
    let [rowwise, transposed] = quantize.outputs();
    if transposed.is_some() || rowwise.is_none() {
        return unsupported("a transposed output: its blocks run over many rows", apart);
    }
    if rowwise.is_some_and(|output| output.rotation.is_some()) {
        return unsupported("a rotation of its results", apart);
    }
    if format.block().rows > 1 && format.block().rows != Block::WHOLE {
        let remedy = "use fp8-1x128 or nvfp4, or write y and quantise it with quant::Quantize";
        return unsupported(&format!("{format}: its blocks are of several rows"), remedy);
    }
    if format.needs_tensor_amax() && options.scaling == Scaling::Current {
        return unsupported(
            "a scale from the amax of this y, which is known after its last row",
            "give the scale (Scaling::Given), as delayed scaling does, or write y and quantise it \
             with quant::Quantize",
        );
    }
    Ok(())
}

/// Where y goes, checked against the rows that give it.
pub(super) fn store<'a>(
    check: &Check,
    quantize: Option<&Quantize>,
    shape: RowShape,
    arguments: &'a mut QuantizeArguments<'_>,
    outputs: &'a mut QuantizeOutputs<'_>,
) -> Result<Store<'a>> {
    let quantize = configured(check, quantize)?;
    let why = "rows are normalized whatever group they are of; give the scale of all";
    check.absent("groups", arguments.groups.is_some(), why)?;
    check_heads(check, quantize.options().format, shape)?;
    Store::new(check, quantize, quant_shape(shape), arguments, outputs, 0)
}

/// That no scale is of elements of several heads, but that of all.
fn check_heads(check: &Check, format: Format, shape: RowShape) -> Result<()> {
    let Block { rows, columns } = format.block();
    if shape.heads == 1 || rows == Block::WHOLE {
        return Ok(());
    }
    if columns == Block::WHOLE {
        let what = "a scale of all heads of a token";
        let remedy = "use fp8-tensor or a format with blocks";
        return Err(Error::unsupported(check.op, what, remedy));
    }
    if !shape.columns.is_multiple_of(columns) {
        let what = format!("blocks of {columns} over heads of {}", shape.columns);
        let remedy = "use a format whose blocks divide a head, or fp8-tensor";
        return Err(Error::unsupported(check.op, what, remedy));
    }
    Ok(())
}

/// Heads lie side by side.
fn quant_shape(shape: RowShape) -> QuantShape {
    QuantShape {
        rows: shape.tokens,
        columns: shape.heads * shape.columns,
        groups: 0,
    }
}

fn configured<'q>(check: &Check, quantize: Option<&'q Quantize>) -> Result<&'q Quantize> {
    quantize.map_or_else(|| unconfigured(check), Ok)
}

fn unconfigured<T>(check: &Check) -> Result<T> {
    check.fail(
        "quantized",
        "said before `prepare`: how y is quantised",
        "not said",
    )
}

/// Runs a call whose results go into low bits alone.
fn run(
    rows: &RowOp,
    check: &Check,
    mut call: ForwardCall<'_>,
    mut arguments: QuantizeArguments<'_>,
    y: QuantizedMut<'_>,
) -> Result<()> {
    let mut outputs = QuantizeOutputs::default().rowwise(y);
    let quantize = rows.quantize.as_ref();
    let store = store(check, quantize, call.shape, &mut arguments, &mut outputs)?;
    rows.forward_quantized(check, call.reborrow(), store)
}
