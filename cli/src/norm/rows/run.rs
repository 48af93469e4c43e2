//! Runs a problem on a device and brings everything back.

use std::collections::BTreeMap;

use evenkeel::norm::{
    GatedNorm, HeadNorm, HeadNormOptions, Norm, NormOptions, NormResult, PreparedGatedNorm,
    PreparedHeadNorm, PreparedNorm, PreparedSdd, RotaryTables, Sdd, Statistics, Weights,
};
use evenkeel::quant::Quantize;
use evenkeel::{
    Buffer, DType, Device, DeviceKind, Error, Result, Status, Stream, TensorMut, TensorRef,
};

use super::cases::Form;
use super::gradients::backward;
use super::problem::{Matrix, Problem, Shape, Vector};
use crate::memory::{Layout, UNTOUCHED, upload, upload_integers, view_of};
use crate::norm::Operation;
use crate::norm::placed::{Place, Written, status_of};

/// What a device computed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By the names of the documentation: y, stream, rstd, mean, dx, dresidual, dz, dgamma (Sdd's
    /// dalpha too), dbeta.
    pub outputs: BTreeMap<&'static str, Written>,
    /// Status bits of the forward and of the backward.
    pub status: [Status; 2],
    /// Whether kernels computed, or the CPU device.
    pub kernels: bool,
    /// Whether the workspace's end was written.
    pub past_workspace: bool,
}

impl Outcome {
    /// Whether another outcome is the same, bit for bit; only what `names` has, where there are any.
    #[must_use]
    pub fn same_bits(&self, other: &Self, names: &[&str]) -> bool {
        let wanted = |name: &&'static str| names.is_empty() || names.contains(name);
        let of = |outcome: &Self| -> Vec<&'static str> {
            outcome
                .outputs
                .keys()
                .copied()
                .filter(|name| wanted(name))
                .collect()
        };
        let all = of(self);
        self.status == other.status
            && all == of(other)
            && all
                .iter()
                .all(|name| self.outputs[name].bits() == other.outputs[name].bits())
    }

    /// The elements of an output; none where it is absent.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<f64> {
        self.outputs
            .get(name)
            .map(Written::values)
            .unwrap_or_default()
    }
}

/// Computes the problem.
///
/// # Errors
/// The library's, but for what the status word holds: that is part of the outcome.
pub fn run(device: &Device, problem: &Problem) -> Result<Outcome> {
    run_on(&device.stream()?, problem)
}

/// The same, on a stream of the caller's.
///
/// # Errors
/// As [`run`].
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let op = Op::prepare(stream, problem)?;
    let data = Data::new(stream, problem)?;
    let mut outcome = Outcome {
        kernels: stream.device().kind() != DeviceKind::Cpu,
        ..Outcome::default()
    };
    let forward = forward(stream, problem, &op, &data, &mut outcome)?;
    outcome.status[0] = status_of(stream)?;
    if let Some(asked) = &problem.backward {
        backward(stream, problem, asked, &op, &data, forward, &mut outcome)?;
        outcome.status[1] = status_of(stream)?;
    }
    Ok(outcome)
}

/// The operation of a problem, prepared.
pub(in crate::norm) enum Op {
    Norm(PreparedNorm),
    Heads(PreparedHeadNorm),
    Gated(PreparedGatedNorm),
    Sdd(PreparedSdd),
}

impl Op {
    fn prepare(stream: &Stream, problem: &Problem) -> Result<Self> {
        Self::quantized(stream, problem, None)
    }

    /// With results that are quantised so.
    pub(in crate::norm) fn quantized(
        stream: &Stream,
        problem: &Problem,
        quantize: Option<Quantize>,
    ) -> Result<Self> {
        let norm = problem.norm.unwrap_or(NormOptions::rms());
        Ok(match problem.operation {
            Operation::HeadNorm => {
                let mut options = HeadNormOptions::default();
                (options.norm, options.rotary) = (problem.norm, problem.rotary);
                let op = HeadNorm::new(options, problem.shape.heads);
                Self::Heads(quantize.map_or(op, |q| op.quantized(q)).prepare(stream)?)
            }
            Operation::GatedNorm => {
                let op = GatedNorm::new(norm);
                Self::Gated(quantize.map_or(op, |q| op.quantized(q)).prepare(stream)?)
            }
            Operation::Sdd => {
                let op = Sdd::new();
                Self::Sdd(quantize.map_or(op, |q| op.quantized(q)).prepare(stream)?)
            }
            _ => {
                let op = Norm::new(norm);
                Self::Norm(quantize.map_or(op, |q| op.quantized(q)).prepare(stream)?)
            }
        })
    }

    pub(super) fn workspace_bytes(&self, shape: Shape) -> usize {
        let (rows, columns) = (shape.rows(), shape.columns);
        match self {
            Self::Norm(op) => op.backward_workspace_bytes(rows, columns),
            Self::Heads(op) => op.backward_workspace_bytes(shape.tokens, columns),
            Self::Gated(op) => op.backward_workspace_bytes(rows, columns),
            Self::Sdd(op) => op.backward_workspace_bytes(rows, columns),
        }
    }
}

/// What calls read beside their rows.
pub(in crate::norm) struct Data {
    gamma: Option<Buffer>,
    beta: Option<Buffer>,
    tables: Option<[Buffer; 2]>,
    positions: Option<Buffer>,
    pub(in crate::norm) z: Option<Slot>,
}

impl Data {
    pub(in crate::norm) fn new(stream: &Stream, problem: &Problem) -> Result<Self> {
        let shape = problem.shape;
        let weight = |weight: &Option<Vector>| -> Result<Option<Buffer>> {
            let Some(Vector { dtype, values }) = weight else {
                return Ok(None);
            };
            let one_a_head =
                problem.operation == Operation::HeadNorm && values.len() != shape.columns;
            let dims = if one_a_head {
                vec![shape.heads, shape.columns]
            } else {
                vec![values.len()]
            };
            upload(stream, *dtype, &dims, values).map(Some)
        };
        let tables = match &problem.tables {
            Some(tables) => {
                let dims = [tables.cos.len() / tables.pairs, tables.pairs];
                Some([
                    upload(stream, tables.dtype, &dims, &tables.cos)?,
                    upload(stream, tables.dtype, &dims, &tables.sin)?,
                ])
            }
            None => None,
        };
        let positions = problem
            .tables
            .as_ref()
            .and_then(|tables| tables.positions.as_ref());
        Ok(Self {
            gamma: weight(&problem.gamma)?,
            beta: weight(&problem.beta)?,
            tables,
            positions: positions
                .map(|(dtype, ids)| upload_integers(stream, *dtype, ids))
                .transpose()?,
            z: problem
                .z
                .as_ref()
                .map(|z| filled(stream, shape, z))
                .transpose()?,
        })
    }

    pub(in crate::norm) fn weights(&self) -> Weights<'_> {
        Weights {
            gamma: view_of(self.gamma.as_ref()),
            beta: view_of(self.beta.as_ref()),
        }
    }

    pub(in crate::norm) fn tables(&self) -> Option<RotaryTables<'_>> {
        let [cos, sin] = self.tables.as_ref()?;
        let tables = RotaryTables::new(cos.view(), sin.view());
        Some(match &self.positions {
            Some(positions) => tables.positions(positions.view()),
            None => tables,
        })
    }

    pub(in crate::norm) fn alpha(&self) -> Result<TensorRef<'_>> {
        self.gamma
            .as_ref()
            .map(Buffer::view)
            .ok_or_else(|| missing("alpha"))
    }
}

/// A problem that was not made by a case, and is not whole.
pub(crate) fn missing(what: &str) -> Error {
    Error::Unsupported {
        op: "norm::rows::run",
        what: format!("a problem without {what}"),
        remedy: "give it".into(),
    }
}

/// A tensor in its memory on a device.
pub(in crate::norm) struct Slot {
    place: Place,
    buffer: Buffer,
    around: f64,
}

impl Slot {
    /// To be written: [`UNTOUCHED`] everywhere.
    pub(in crate::norm) fn blank(stream: &Stream, place: Place) -> Result<Self> {
        Ok(Self {
            buffer: place.empty(stream)?,
            place,
            around: UNTOUCHED,
        })
    }

    /// To be read: NaN around it.
    pub(super) fn filled(stream: &Stream, place: Place, values: &[f64]) -> Result<Self> {
        Ok(Self {
            buffer: place.upload(stream, values, f64::NAN)?,
            place,
            around: f64::NAN,
        })
    }

    pub(in crate::norm) fn view(&self) -> Result<TensorRef<'_>> {
        self.place.view(&self.buffer)
    }

    pub(in crate::norm) fn view_mut(&mut self) -> Result<TensorMut<'_>> {
        self.place.view_mut(&mut self.buffer)
    }

    pub(in crate::norm) fn read(&self) -> Result<Written> {
        self.place.take(&self.buffer, self.around)
    }
}

pub(in crate::norm) fn filled(stream: &Stream, shape: Shape, matrix: &Matrix) -> Result<Slot> {
    let place = Place::new(matrix.dtype, &shape.dims()).at(matrix.layout);
    Slot::filled(stream, place, &matrix.values)
}

pub(in crate::norm) fn blank(
    stream: &Stream,
    shape: Shape,
    (dtype, layout): (DType, Layout),
) -> Result<Slot> {
    Slot::blank(stream, Place::new(dtype, &shape.dims()).at(layout))
}

/// What a forward leaves for the backward.
pub(super) struct Left {
    /// The stream, where there is a residual.
    pub(super) stream: Option<Kept>,
    pub(super) rstd: Option<Kept>,
    pub(super) mean: Option<Kept>,
}

/// Memory of the suite's or of the library's.
pub(super) enum Kept {
    Slot(Slot),
    Buffer(Buffer),
}

impl Kept {
    pub(super) fn view(&self) -> Result<TensorRef<'_>> {
        match self {
            Self::Slot(slot) => slot.view(),
            Self::Buffer(buffer) => Ok(buffer.view()),
        }
    }

    fn read(&self) -> Result<Written> {
        match self {
            Self::Slot(slot) => slot.read(),
            Self::Buffer(buffer) => Written::whole(buffer),
        }
    }
}

pub(in crate::norm) fn statistics_of<'a>(
    rstd: &'a mut Option<Slot>,
    mean: &'a mut Option<Slot>,
) -> Result<Statistics<'a>> {
    Ok(Statistics {
        rstd: rstd.as_mut().map(Slot::view_mut).transpose()?,
        mean: mean.as_mut().map(Slot::view_mut).transpose()?,
    })
}

fn forward(
    stream: &Stream,
    problem: &Problem,
    op: &Op,
    data: &Data,
    outcome: &mut Outcome,
) -> Result<Left> {
    let shape = problem.shape;
    if problem.form == Form::Allocating {
        return allocating_forward(stream, problem, op, data, outcome);
    }
    let mut x = filled(stream, shape, &problem.x)?;
    let mut residual = problem
        .residual
        .as_ref()
        .map(|residual| filled(stream, shape, residual))
        .transpose()?;
    let wanted = |wanted: bool| {
        wanted
            .then(|| Slot::blank(stream, Place::vector(shape.rows())))
            .transpose()
    };
    let mut rstd = wanted(problem.statistics)?;
    let mut mean = wanted(problem.statistics && problem.is_layer())?;
    let mut statistics = statistics_of(&mut rstd, &mut mean)?;
    let (weights, tables) = (data.weights(), data.tables());
    let y = if problem.form == Form::InPlace {
        let rows = x.view_mut()?;
        match (op, &mut residual) {
            (Op::Norm(op), Some(residual)) => {
                op.forward_residual_in_place(rows, residual.view_mut()?, &weights, &mut statistics)?
            }
            (Op::Norm(op), None) => op.forward_in_place(rows, &weights, &mut statistics)?,
            (Op::Heads(op), _) => {
                op.forward_in_place(rows, &weights, tables.as_ref(), &mut statistics)?;
            }
            (Op::Sdd(op), _) => op.forward_in_place(rows, data.alpha()?, &mut statistics)?,
            (Op::Gated(_), _) => return Err(missing("a form in place")),
        }
        x
    } else {
        let mut y = blank(stream, shape, problem.y)?;
        let (rows, into) = (x.view()?, y.view_mut()?);
        match (op, &mut residual) {
            (Op::Norm(op), Some(residual)) => {
                let mut added = blank(stream, shape, problem.stream)?;
                op.forward_residual_into(
                    rows,
                    residual.view()?,
                    &weights,
                    added.view_mut()?,
                    into,
                    &mut statistics,
                )?;
                *residual = added;
            }
            (Op::Norm(op), None) => op.forward_into(rows, &weights, into, &mut statistics)?,
            (Op::Heads(op), _) => {
                op.forward_into(rows, &weights, tables.as_ref(), into, &mut statistics)?;
            }
            (Op::Gated(op), _) => {
                let z = data.z.as_ref().ok_or_else(|| missing("a gate"))?;
                op.forward_into(rows, z.view()?, &weights, into, &mut statistics)?;
            }
            (Op::Sdd(op), _) => op.forward_into(rows, data.alpha()?, into, &mut statistics)?,
        }
        y
    };
    outcome.outputs.insert("y", y.read()?);
    let left = Left {
        stream: residual.map(Kept::Slot),
        rstd: rstd.map(Kept::Slot),
        mean: mean.map(Kept::Slot),
    };
    keep(left, outcome)
}

/// Reads what a forward left beside y.
fn keep(left: Left, outcome: &mut Outcome) -> Result<Left> {
    for (name, kept) in [
        ("stream", &left.stream),
        ("rstd", &left.rstd),
        ("mean", &left.mean),
    ] {
        if let Some(kept) = kept {
            outcome.outputs.insert(name, kept.read()?);
        }
    }
    Ok(left)
}

fn allocating_forward(
    stream: &Stream,
    problem: &Problem,
    op: &Op,
    data: &Data,
    outcome: &mut Outcome,
) -> Result<Left> {
    let shape = problem.shape;
    let x = filled(stream, shape, &problem.x)?;
    let rows = x.view()?;
    let weights = data.weights();
    let result = match (op, &problem.residual) {
        (Op::Norm(op), Some(residual)) => {
            let residual = filled(stream, shape, residual)?;
            op.forward_residual(rows, residual.view()?, &weights)?
        }
        (Op::Norm(op), None) => op.forward(rows, &weights)?,
        (Op::Gated(op), _) => {
            let z = data.z.as_ref().ok_or_else(|| missing("a gate"))?;
            op.forward(rows, z.view()?, &weights)?
        }
        (Op::Sdd(op), _) => op.forward(rows, data.alpha()?)?,
        (Op::Heads(op), _) => {
            let result = op.forward(rows, &weights, data.tables().as_ref())?;
            outcome.outputs.insert("y", Written::whole(&result.y)?);
            let left = Left {
                stream: None,
                rstd: result.rstd.map(Kept::Buffer),
                mean: result.mean.map(Kept::Buffer),
            };
            return keep(left, outcome);
        }
    };
    let NormResult {
        y,
        rstd,
        mean,
        stream,
        ..
    } = result;
    outcome.outputs.insert("y", Written::whole(&y)?);
    let left = Left {
        stream: stream.map(Kept::Buffer),
        rstd: Some(Kept::Buffer(rstd)),
        mean: mean.map(Kept::Buffer),
    };
    keep(left, outcome)
}
