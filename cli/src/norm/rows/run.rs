//! Runs a problem on a device and brings everything back.

use std::collections::BTreeMap;

use evenkeel::norm::{
    GatedNorm, HeadNorm, HeadNormOptions, Norm, NormOptions, NormResult, PreparedGatedNorm,
    PreparedHeadNorm, PreparedNorm, PreparedSdd, RotaryTables, Sdd, Statistics, Weights,
};
use evenkeel::{Buffer, DType, Device, DeviceKind, Error, Result, Status, Stream, TensorRef};

use super::cases::Form;
use super::gradients::backward;
use super::problem::{Matrix, Problem, Shape, Vector};
use crate::memory::{Layout, Output, Place, upload, upload_integers, view_of};
use crate::norm::Operation;

/// What a device computed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By the names of the documentation: y, stream, rstd, mean, dx, dresidual, dz, dgamma (Sdd's
    /// dalpha too), dbeta.
    pub outputs: BTreeMap<&'static str, Output>,
    /// Status bits of the forward and of the backward.
    pub status: [Status; 2],
    /// Whether kernels computed, or the CPU device.
    pub kernels: bool,
    /// Whether the device has the backward.
    pub backward: bool,
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
                .all(|name| self.outputs[name].same_bits(&other.outputs[name]))
    }

    /// The elements of an output; none where it is absent.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<f64> {
        self.outputs
            .get(name)
            .map(Output::values)
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
    outcome.status[0] = status(stream)?;
    outcome.backward = problem.operation.has_backward(stream.device().kind());
    if let Some(asked) = problem.backward.as_ref().filter(|_| outcome.backward) {
        backward(stream, problem, asked, &op, &data, forward, &mut outcome)?;
        outcome.status[1] = status(stream)?;
    }
    Ok(outcome)
}

fn status(stream: &Stream) -> Result<Status> {
    match stream.check() {
        Ok(()) => Ok(Status::empty()),
        Err(Error::Data(status)) => Ok(status),
        Err(other) => Err(other),
    }
}

/// The operation of a problem, prepared.
pub(super) enum Op {
    Norm(PreparedNorm),
    Heads(PreparedHeadNorm),
    Gated(PreparedGatedNorm),
    Sdd(PreparedSdd),
}

impl Op {
    fn prepare(stream: &Stream, problem: &Problem) -> Result<Self> {
        let norm = problem.norm.unwrap_or(NormOptions::rms());
        Ok(match problem.operation {
            Operation::HeadNorm => {
                let mut options = HeadNormOptions::default();
                (options.norm, options.rotary) = (problem.norm, problem.rotary);
                Self::Heads(HeadNorm::new(options, problem.shape.heads).prepare(stream)?)
            }
            Operation::GatedNorm => Self::Gated(GatedNorm::new(norm).prepare(stream)?),
            Operation::Sdd => Self::Sdd(Sdd::new().prepare(stream)?),
            _ => Self::Norm(Norm::new(norm).prepare(stream)?),
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
pub(super) struct Data {
    gamma: Option<Buffer>,
    beta: Option<Buffer>,
    tables: Option<[Buffer; 2]>,
    positions: Option<Buffer>,
    pub(super) z: Option<Place>,
}

impl Data {
    fn new(stream: &Stream, problem: &Problem) -> Result<Self> {
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
                .map(|z| place(stream, shape, z))
                .transpose()?,
        })
    }

    pub(super) fn weights(&self) -> Weights<'_> {
        Weights {
            gamma: view_of(self.gamma.as_ref()),
            beta: view_of(self.beta.as_ref()),
        }
    }

    pub(super) fn tables(&self) -> Option<RotaryTables<'_>> {
        let [cos, sin] = self.tables.as_ref()?;
        let tables = RotaryTables::new(cos.view(), sin.view());
        Some(match &self.positions {
            Some(positions) => tables.positions(positions.view()),
            None => tables,
        })
    }

    pub(super) fn alpha(&self) -> Result<TensorRef<'_>> {
        self.gamma
            .as_ref()
            .map(Buffer::view)
            .ok_or_else(|| missing("alpha"))
    }
}

/// A problem that was not made by a case, and is not whole.
pub(super) fn missing(what: &str) -> Error {
    Error::Unsupported {
        op: "norm::rows::run",
        what: format!("a problem without {what}"),
        remedy: "give it".into(),
    }
}

pub(super) fn place(stream: &Stream, shape: Shape, matrix: &Matrix) -> Result<Place> {
    Place::filled(
        stream,
        matrix.dtype,
        matrix.layout,
        &matrix.values,
        shape.width(),
    )
}

pub(super) fn blank(
    stream: &Stream,
    shape: Shape,
    (dtype, layout): (DType, Layout),
) -> Result<Place> {
    Place::blank(stream, dtype, layout, shape.memory_rows(), shape.width())
}

/// A vector of f32 one element past a 16-byte boundary, and one element after it.
pub(super) fn vector(stream: &Stream, length: usize) -> Result<Place> {
    Place::blank(stream, DType::F32, AROUND, 1, length)
}

pub(super) const AROUND: Layout = Layout {
    phase: 1,
    padding: 0,
    gap: 1,
};

/// What a forward leaves for the backward.
pub(super) struct Left {
    /// The stream, where there is a residual.
    pub(super) stream: Option<Kept>,
    pub(super) rstd: Option<Kept>,
    pub(super) mean: Option<Kept>,
}

/// Memory of the suite's or of the library's.
pub(super) enum Kept {
    Place(Place),
    Buffer(Buffer),
}

impl Kept {
    pub(super) fn view(&self, dims: &[usize]) -> Result<TensorRef<'_>> {
        match self {
            Self::Place(place) => place.view(dims),
            Self::Buffer(buffer) => Ok(buffer.view()),
        }
    }

    fn read(&self) -> Result<Output> {
        match self {
            Self::Place(place) => place.read(),
            Self::Buffer(buffer) => Output::of(buffer),
        }
    }
}

fn statistics_of<'a>(
    rstd: &'a mut Option<Place>,
    mean: &'a mut Option<Place>,
    rows: usize,
) -> Result<Statistics<'a>> {
    Ok(Statistics {
        rstd: rstd
            .as_mut()
            .map(|place| place.view_mut(&[rows]))
            .transpose()?,
        mean: mean
            .as_mut()
            .map(|place| place.view_mut(&[rows]))
            .transpose()?,
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
    let (dims, rows) = (shape.dims(), shape.rows());
    let mut x = place(stream, shape, &problem.x)?;
    let mut residual = problem
        .residual
        .as_ref()
        .map(|residual| place(stream, shape, residual))
        .transpose()?;
    let wanted = |wanted: bool| wanted.then(|| vector(stream, rows)).transpose();
    let mut rstd = wanted(problem.statistics)?;
    let mut mean = wanted(problem.statistics && problem.is_layer())?;
    let mut statistics = statistics_of(&mut rstd, &mut mean, rows)?;
    let (weights, tables) = (data.weights(), data.tables());
    let y = if problem.form == Form::InPlace {
        let rows = x.view_mut(&dims)?;
        match (op, &mut residual) {
            (Op::Norm(op), Some(residual)) => op.forward_residual_in_place(
                rows,
                residual.view_mut(&dims)?,
                &weights,
                &mut statistics,
            )?,
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
        let (rows, into) = (x.view(&dims)?, y.view_mut(&dims)?);
        match (op, &mut residual) {
            (Op::Norm(op), Some(residual)) => {
                let mut added = blank(stream, shape, problem.stream)?;
                op.forward_residual_into(
                    rows,
                    residual.view(&dims)?,
                    &weights,
                    added.view_mut(&dims)?,
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
                op.forward_into(rows, z.view(&dims)?, &weights, into, &mut statistics)?;
            }
            (Op::Sdd(op), _) => op.forward_into(rows, data.alpha()?, into, &mut statistics)?,
        }
        y
    };
    outcome.outputs.insert("y", y.read()?);
    let left = Left {
        stream: residual.map(Kept::Place),
        rstd: rstd.map(Kept::Place),
        mean: mean.map(Kept::Place),
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
    let (shape, dims) = (problem.shape, problem.shape.dims());
    let x = place(stream, shape, &problem.x)?;
    let rows = x.view(&dims)?;
    let weights = data.weights();
    let result = match (op, &problem.residual) {
        (Op::Norm(op), Some(residual)) => {
            let residual = place(stream, shape, residual)?;
            op.forward_residual(rows, residual.view(&dims)?, &weights)?
        }
        (Op::Norm(op), None) => op.forward(rows, &weights)?,
        (Op::Gated(op), _) => {
            let z = data.z.as_ref().ok_or_else(|| missing("a gate"))?;
            op.forward(rows, z.view(&dims)?, &weights)?
        }
        (Op::Sdd(op), _) => op.forward(rows, data.alpha()?)?,
        (Op::Heads(op), _) => {
            let result = op.forward(rows, &weights, data.tables().as_ref())?;
            outcome.outputs.insert("y", Output::of(&result.y)?);
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
    outcome.outputs.insert("y", Output::of(&y)?);
    let left = Left {
        stream: stream.map(Kept::Buffer),
        rstd: Some(Kept::Buffer(rstd)),
        mean: mean.map(Kept::Buffer),
    };
    keep(left, outcome)
}
