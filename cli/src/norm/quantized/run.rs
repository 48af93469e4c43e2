//! Runs a problem on a device, quantised and not, and brings everything back.

use std::collections::BTreeMap;

use evenkeel::norm::NormQuantized;
use evenkeel::quant::{Quantize, QuantizeArguments, QuantizedTensor};
use evenkeel::{Buffer, DType, Result, Stream};

use super::problem::Problem;
use crate::memory::{upload_integers, view_of};
use crate::norm::placed::{Place, Written, status_of};
use crate::norm::rows;
use crate::norm::rows::run::{Data, Op, Slot, blank, filled, missing, statistics_of};
use crate::quant::run::{Asked, Memory, allocated_tensor};
use crate::quant::{self, Form};

/// What a device computed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The plain call, whose y is f32.
    pub plain: rows::Outcome,
    /// The elements, the scales, and what was asked for beside, with the status of the call.
    pub stored: quant::Outcome,
    /// rstd, mean and stream of the quantised call.
    pub beside: BTreeMap<&'static str, Written>,
}

/// Computes a problem.
///
/// # Errors
/// The library's, but for what the status words hold: that is part of the outcome.
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let plain = rows::run::run_on(stream, &problem.rows)?;
    let case = &problem.quantize.case;
    let Some(wanted) = problem.quantize.wanted.first() else {
        return Err(missing("an output"));
    };
    let quantize = Quantize::new(case.options).rowwise(wanted.output.options);
    let op = Op::quantized(stream, &problem.rows, Some(quantize))?;
    let data = Data::new(stream, &problem.rows)?;
    let device_offset = case
        .device_offset
        .map(|offset| upload_integers(stream, DType::I64, &[offset]))
        .transpose()?;
    let mut asked = Asked::new(stream, &problem.quantize, wanted)?;
    let mut arguments = QuantizeArguments::default().rowwise(asked.arguments()?);
    arguments.offset = case.offset;
    arguments.device_offset = view_of(device_offset.as_ref());
    let mut beside = BTreeMap::new();
    let stored = match case.form {
        Form::Allocated => {
            let (y, written) = allocating(stream, problem, &op, &data, arguments)?;
            beside = written;
            allocated_tensor(Some(&y), &asked)?
        }
        Form::Into => {
            let mut memory = Memory::new(stream, &problem.quantize, wanted)?;
            into(
                stream,
                problem,
                &op,
                &data,
                arguments,
                &mut memory,
                &mut beside,
            )?;
            memory.take(&asked)?
        }
    };
    Ok(Outcome {
        plain,
        stored: quant::Outcome {
            stored: vec![stored],
            status: status_of(stream)?,
        },
        beside,
    })
}

fn into(
    stream: &Stream,
    problem: &Problem,
    op: &Op,
    data: &Data,
    arguments: QuantizeArguments<'_>,
    memory: &mut Memory,
    beside: &mut BTreeMap<&'static str, Written>,
) -> Result<()> {
    let rows = &problem.rows;
    let shape = rows.shape;
    let x = filled(stream, shape, &rows.x)?;
    let blank_vector = |wanted: bool| {
        let slot = || Slot::blank(stream, Place::vector(shape.rows()));
        wanted.then(slot).transpose()
    };
    let mut rstd = blank_vector(rows.statistics)?;
    let mut mean = blank_vector(rows.statistics && rows.is_layer())?;
    let mut statistics = statistics_of(&mut rstd, &mut mean)?;
    let (weights, tables) = (data.weights(), data.tables());
    let (x, y) = (x.view()?, memory.views()?);
    let mut added = None;
    match (op, &rows.residual) {
        (Op::Norm(op), Some(residual)) => {
            let residual = filled(stream, shape, residual)?;
            let sum = added.insert(blank(stream, shape, rows.stream)?);
            op.forward_residual_quantized_into(
                x,
                residual.view()?,
                &weights,
                sum.view_mut()?,
                arguments,
                y,
                &mut statistics,
            )?;
        }
        (Op::Norm(op), None) => {
            op.forward_quantized_into(x, &weights, arguments, y, &mut statistics)?;
        }
        (Op::Heads(op), _) => {
            let tables = tables.as_ref();
            op.forward_quantized_into(x, &weights, tables, arguments, y, &mut statistics)?;
        }
        (Op::Gated(op), _) => {
            let z = data.z.as_ref().ok_or_else(|| missing("a gate"))?.view()?;
            op.forward_quantized_into(x, z, &weights, arguments, y, &mut statistics)?;
        }
        (Op::Sdd(op), _) => {
            op.forward_quantized_into(x, data.alpha()?, arguments, y, &mut statistics)?;
        }
    }
    for (name, slot) in [("rstd", rstd), ("mean", mean), ("stream", added)] {
        if let Some(slot) = slot {
            beside.insert(name, slot.read()?);
        }
    }
    Ok(())
}

/// What an allocating call gives: y, and what is beside it.
type Allocated = (QuantizedTensor, BTreeMap<&'static str, Written>);

fn allocating(
    stream: &Stream,
    problem: &Problem,
    op: &Op,
    data: &Data,
    arguments: QuantizeArguments<'_>,
) -> Result<Allocated> {
    let rows = &problem.rows;
    let x = filled(stream, rows.shape, &rows.x)?;
    let (x, weights, tables) = (x.view()?, data.weights(), data.tables());
    let result = match (op, &rows.residual) {
        (Op::Norm(op), Some(residual)) => {
            let residual = filled(stream, rows.shape, residual)?;
            op.forward_residual_quantized(x, residual.view()?, &weights, arguments)?
        }
        (Op::Norm(op), None) => op.forward_quantized(x, &weights, arguments)?,
        (Op::Heads(op), _) => op.forward_quantized(x, &weights, tables.as_ref(), arguments)?,
        (Op::Gated(op), _) => {
            let z = data.z.as_ref().ok_or_else(|| missing("a gate"))?.view()?;
            op.forward_quantized(x, z, &weights, arguments)?
        }
        (Op::Sdd(op), _) => op.forward_quantized(x, data.alpha()?, arguments)?,
    };
    let NormQuantized {
        y,
        rstd,
        mean,
        stream: sum,
        ..
    } = result;
    let mut beside = BTreeMap::new();
    // A stream in the residual's type may not be the plain call's.
    let same = rows.stream.0 == rows.residual.as_ref().map_or(rows.stream.0, |r| r.dtype);
    let sum = sum.filter(|_| same);
    for (name, buffer) in [("rstd", rstd), ("mean", mean), ("stream", sum)] {
        let whole = |buffer: &Buffer| Written::whole(buffer);
        if let Some(written) = buffer.as_ref().map(whole).transpose()? {
            beside.insert(name, written);
        }
    }
    Ok((y, beside))
}
