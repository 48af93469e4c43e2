//! A checked call: what the formulas and the kernels are given.
//!
//! A [`Store`] is everything of a quantisation but where its values come from. Operations that
//! compute values and quantise them in one pass build theirs by the same function.

use super::arguments::{OutputArguments, QuantizeArguments, QuantizeOutputs, QuantizedMut};
use super::form::{QuantShape, QuantizedForm};
use super::{Quantize, QuantizedRef, Scaling, check};
use crate::check::{Check, Named, read, reborrow, write};
use crate::{DType, Result, TensorMut, TensorRef};

/// A quantisation whose arguments fit.
#[derive(Debug)]
pub(crate) struct QuantizeCall<'a> {
    /// `[rows, columns]` of the store's shape; bf16, f16 or f32, rows at any stride.
    pub(crate) x: TensorRef<'a>,
    pub(crate) store: Store<'a>,
}

/// Where the values of `[rows, columns]` go, and how.
#[derive(Debug)]
pub(crate) struct Store<'a> {
    pub(crate) quantize: Quantize,
    pub(crate) shape: QuantShape,
    /// `[groups + 1]` i64 or i32, where there are groups.
    pub(crate) groups: Option<TensorRef<'a>>,
    pub(crate) offset: u64,
    /// `[1]` i64, added to `offset`.
    pub(crate) device_offset: Option<TensorRef<'a>>,
    pub(crate) rowwise: Option<OutputStore<'a>>,
    pub(crate) transposed: Option<OutputStore<'a>>,
    /// There where the kernels need one.
    pub(crate) workspace: Option<TensorMut<'a>>,
}

/// Where one output goes; all of the shapes of its form.
#[derive(Debug)]
pub(crate) struct OutputStore<'a> {
    pub(crate) form: QuantizedForm,
    /// Rows at any stride.
    pub(crate) data: TensorMut<'a>,
    /// There where the format has scales of rows or blocks.
    pub(crate) scales: Option<TensorMut<'a>>,
    /// The tensor scale to use, there under [`Scaling::Given`] and only there.
    pub(crate) given: Option<TensorRef<'a>>,
    /// The tensor scale to write: there under [`Scaling::Current`] where the format has one; under
    /// `Given` where a copy is wanted.
    pub(crate) tensor_scale: Option<TensorMut<'a>>,
    /// Raised to this output's amax.
    pub(crate) amax: Option<TensorMut<'a>>,
    /// Saturated and underflowed elements are added.
    pub(crate) counts: Option<TensorMut<'a>>,
}

/// What the parts of an output are called in messages.
struct Names {
    output: &'static str,
    data: &'static str,
    scales: &'static str,
    given: &'static str,
    tensor_scale: &'static str,
    amax: &'static str,
    counts: &'static str,
    options: [&'static str; 2],
}

const ROWWISE: Names = Names {
    output: "outputs.rowwise",
    data: "outputs.rowwise.data",
    scales: "outputs.rowwise.scales",
    given: "rowwise.tensor_scale",
    tensor_scale: "outputs.rowwise.tensor_scale",
    amax: "rowwise.amax",
    counts: "rowwise.counts",
    options: ["rowwise.rotation", "rowwise.layout"],
};

const TRANSPOSED: Names = Names {
    output: "outputs.transposed",
    data: "outputs.transposed.data",
    scales: "outputs.transposed.scales",
    given: "transposed.tensor_scale",
    tensor_scale: "outputs.transposed.tensor_scale",
    amax: "transposed.amax",
    counts: "transposed.counts",
    options: ["transposed.rotation", "transposed.layout"],
};

impl<'a> Store<'a> {
    /// Checks everything but that what is written overlaps nothing else; for that there is
    /// [`name`](Self::name).
    pub(crate) fn new(
        check: &Check,
        quantize: &Quantize,
        shape: QuantShape,
        arguments: &'a mut QuantizeArguments<'_>,
        outputs: &'a mut QuantizeOutputs<'_>,
        workspace_bytes: usize,
    ) -> Result<Self> {
        let QuantizeArguments {
            rowwise,
            transposed,
            groups,
            offset,
            device_offset,
        } = arguments;
        let (groups, offset, device_offset) = (*groups, *offset, *device_offset);
        if let Some(device_offset) = &device_offset {
            check.tensor("device_offset", device_offset, &[DType::I64], &[1])?;
        }
        check.workspace(outputs.workspace.as_ref(), workspace_bytes)?;
        let [rowwise_form, transposed_form] = quantize.forms(shape);
        let scaling = quantize.options().scaling;
        Ok(Self {
            quantize: *quantize,
            shape,
            groups,
            offset,
            device_offset,
            rowwise: output(
                check,
                &ROWWISE,
                scaling,
                rowwise_form,
                rowwise,
                outputs.rowwise.as_mut(),
            )?,
            transposed: output(
                check,
                &TRANSPOSED,
                scaling,
                transposed_form,
                transposed,
                outputs.transposed.as_mut(),
            )?,
            workspace: reborrow(&mut outputs.workspace),
        })
    }

    /// Its views with their names, for messages.
    pub(crate) fn name<'s>(&'s self, reads: &mut Named<'s>, writes: &mut Named<'s>) {
        read(
            reads,
            [
                ("groups", self.groups),
                ("device_offset", self.device_offset),
            ],
        );
        write(writes, [("workspace", &self.workspace)]);
        for (names, output) in [(&ROWWISE, &self.rowwise), (&TRANSPOSED, &self.transposed)] {
            let Some(output) = output else {
                continue;
            };
            writes.push((names.data, output.data.as_ref()));
            read(reads, [(names.given, output.given)]);
            write(
                writes,
                [
                    (names.scales, &output.scales),
                    (names.tensor_scale, &output.tensor_scale),
                    (names.amax, &output.amax),
                    (names.counts, &output.counts),
                ],
            );
        }
    }
}

/// One output's memory against its form.
fn output<'a>(
    check: &Check,
    names: &Names,
    scaling: Scaling,
    form: Option<QuantizedForm>,
    arguments: &'a mut OutputArguments<'_>,
    memory: Option<&'a mut QuantizedMut<'_>>,
) -> Result<Option<OutputStore<'a>>> {
    let given = arguments.tensor_scale;
    let amax = reborrow(&mut arguments.amax);
    let counts = reborrow(&mut arguments.counts);
    let Some(form) = form else {
        let why = "the operation is not configured for this output";
        check.absent(names.output, memory.is_some(), why)?;
        check.absent(names.given, given.is_some(), why)?;
        check.absent(names.amax, amax.is_some(), why)?;
        check.absent(names.counts, counts.is_some(), why)?;
        return Ok(None);
    };
    let Some(memory) = memory else {
        let expected = "given, as the operation is configured for it";
        return check.fail(names.output, expected, "absent");
    };
    check::options(check, &form, names.options)?;
    check::data(check, &form, names.data, &memory.data.as_ref())?;
    let scales = memory.scales.as_ref().map(TensorMut::as_ref);
    check::scales(check, &form, names.scales, scales.as_ref())?;
    let written = memory.tensor_scale.as_ref().map(TensorMut::as_ref);
    match scaling {
        Scaling::Current => {
            let why = "the scaling is current: it comes from this tensor's amax";
            check.absent(names.given, given.is_some(), why)?;
            check::tensor_scale(check, &form, names.tensor_scale, written.as_ref())?;
        }
        Scaling::Given => {
            check::tensor_scale(check, &form, names.given, given.as_ref())?;
            if written.is_some() {
                check::tensor_scale(check, &form, names.tensor_scale, written.as_ref())?;
            }
        }
    }
    if let Some(amax) = &amax {
        let elements = form.groups.max(1);
        check.tensor(names.amax, &amax.as_ref(), &[DType::F32], &[elements])?;
    }
    if let Some(counts) = &counts {
        check.tensor(names.counts, &counts.as_ref(), &[DType::U32], &[2])?;
    }
    Ok(Some(OutputStore {
        form,
        data: memory.data.reborrow(),
        scales: reborrow(&mut memory.scales),
        given,
        tensor_scale: reborrow(&mut memory.tensor_scale),
        amax,
        counts,
    }))
}

/// A dequantisation whose arguments fit.
#[derive(Debug)]
pub(crate) struct DequantizeCall<'a> {
    pub(crate) q: QuantizedRef<'a>,
    pub(crate) form: QuantizedForm,
    /// Whether the form's rotation is undone.
    pub(crate) unrotate: bool,
    /// `[outer, inner]` bf16, f16 or f32, rows at any stride.
    pub(crate) y: TensorMut<'a>,
}
