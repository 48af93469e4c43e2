//! Runs the backward of a problem.

use evenkeel::norm::{GatedNormGradients, GradientOutputs, NormGradients, Saved, SddGradients};
use evenkeel::{Buffer, Result, Stream, TensorMut, TensorRef};

use super::bounds::exact_moments;
use super::cases::Form;
use super::problem::{Backward, Problem, Vector};
use super::run::{Data, Kept, Left, Op, Outcome, Slot, blank, filled, missing};
use crate::norm::Operation;
use crate::norm::placed::{Place, Written};

/// Bytes after a workspace that must stay as they are.
const GUARD: usize = 64;
/// What they are, and what a workspace holds before.
const GARBAGE: u8 = 0xa5;

/// Exact statistics, for a backward whose forward saved none.
fn given_statistics(stream: &Stream, problem: &Problem, left: &mut Left, x: &[f64]) -> Result<()> {
    let Some(norm) = problem.norm.filter(|_| left.rstd.is_none()) else {
        return Ok(());
    };
    let moments: Vec<_> = x
        .chunks(problem.shape.columns.max(1))
        .map(|row| exact_moments(row, &norm))
        .collect();
    let vector = |values: Vec<f64>| -> Result<Option<Kept>> {
        let slot = Slot::filled(stream, Place::vector(values.len()), &values)?;
        Ok(Some(Kept::Slot(slot)))
    };
    left.rstd = vector(moments.iter().map(|moments| moments.rstd).collect())?;
    if problem.is_layer() {
        left.mean = vector(moments.iter().map(|moments| moments.mean).collect())?;
    }
    Ok(())
}

pub(super) fn backward(
    stream: &Stream,
    problem: &Problem,
    asked: &Backward,
    op: &Op,
    data: &Data,
    mut left: Left,
    outcome: &mut Outcome,
) -> Result<()> {
    let shape = problem.shape;
    // Where there is a residual, what was normalized is the stream.
    let normalized = match outcome.outputs.get("stream") {
        Some(stream) => stream.values(),
        None => problem.x.values.clone(),
    };
    if shape.elements() > 0 || left.rstd.is_none() {
        given_statistics(stream, problem, &mut left, &normalized)?;
    }
    let x = match left.stream.take() {
        Some(stream) => stream,
        None => Kept::Slot(filled(stream, shape, &problem.x)?),
    };
    let x = x.view()?;
    let saved = match &left.rstd {
        Some(rstd) => {
            let mut saved = Saved::new(rstd.view()?);
            if let Some(mean) = &left.mean {
                saved = saved.mean(mean.view()?);
            }
            Some(saved)
        }
        None => None,
    };
    let mut dy = filled(stream, shape, &asked.dy)?;
    let dstream = asked
        .dstream
        .as_ref()
        .map(|dstream| filled(stream, shape, dstream))
        .transpose()?;
    let call = Call {
        problem,
        op,
        data,
        x,
        saved,
        dstream: dstream.as_ref().map(Slot::view).transpose()?,
    };
    if problem.form == Form::Allocating {
        return call.allocating(dy.view()?, outcome);
    }
    let mut results = Results::new(stream, problem, asked, op)?;
    let dx = if problem.form == Form::InPlace {
        call.in_place(dy.view_mut()?, &mut results.outputs(problem)?)?;
        dy
    } else {
        let mut dx = blank(stream, shape, asked.dx)?;
        let mut dz = problem
            .z
            .as_ref()
            .map(|_| blank(stream, shape, problem.dz))
            .transpose()?;
        let into = dz.as_mut().map(|dz| dz.view_mut()).transpose()?;
        call.apart(
            dy.view()?,
            dx.view_mut()?,
            into,
            &mut results.outputs(problem)?,
        )?;
        if let Some(dz) = dz {
            outcome.outputs.insert("dz", dz.read()?);
        }
        dx
    };
    outcome.outputs.insert("dx", dx.read()?);
    results.read(outcome)
}

/// Where gradients go beside dx, and the workspace.
struct Results {
    dresidual: Option<Slot>,
    dgamma: Option<Slot>,
    dbeta: Option<Slot>,
    workspace: Option<Buffer>,
    bytes: usize,
    accumulate: bool,
}

impl Results {
    fn new(stream: &Stream, problem: &Problem, asked: &Backward, op: &Op) -> Result<Self> {
        let gradient = |weight: &Option<Vector>, index: usize| -> Result<Option<Slot>> {
            let Some(weight) = weight.as_ref().filter(|_| asked.weight_gradients) else {
                return Ok(None);
            };
            let length = weight.values.len();
            let place = match &asked.before {
                Some(before) => Slot::filled(stream, Place::vector(length), &before[index])?,
                None => Slot::blank(stream, Place::vector(length))?,
            };
            Ok(Some(place))
        };
        let bytes = op.workspace_bytes(problem.shape);
        let workspace = asked
            .weight_gradients
            .then(|| stream.upload(&[bytes + GUARD], &vec![GARBAGE; bytes + GUARD]))
            .transpose()?;
        Ok(Self {
            dresidual: asked
                .dresidual
                .map(|place| blank(stream, problem.shape, place))
                .transpose()?,
            dgamma: gradient(&problem.gamma, 0)?,
            dbeta: gradient(&problem.beta, 1)?,
            workspace,
            bytes,
            accumulate: asked.before.is_some(),
        })
    }

    fn outputs(&mut self, problem: &Problem) -> Result<GradientOutputs<'_>> {
        let mut outputs = GradientOutputs::default();
        if let Some(place) = &mut self.dresidual {
            outputs = outputs.dresidual(place.view_mut()?);
        }
        if let Some(place) = &mut self.dgamma {
            let view = place.view_mut()?;
            outputs = match problem.operation {
                Operation::Sdd => outputs.dalpha(view),
                _ => outputs.dgamma(view),
            };
        }
        if let Some(place) = &mut self.dbeta {
            outputs = outputs.dbeta(place.view_mut()?);
        }
        if let Some(workspace) = &mut self.workspace {
            outputs = outputs.workspace(workspace.view_mut().slice_rows(0..self.bytes)?);
        }
        if self.accumulate {
            outputs = outputs.accumulate();
        }
        Ok(outputs)
    }

    fn read(self, outcome: &mut Outcome) -> Result<()> {
        for (name, place) in [
            ("dresidual", self.dresidual),
            ("dgamma", self.dgamma),
            ("dbeta", self.dbeta),
        ] {
            if let Some(place) = place {
                outcome.outputs.insert(name, place.read()?);
            }
        }
        if let Some(workspace) = &self.workspace {
            let end: Vec<u8> = workspace.read_range(self.bytes..self.bytes + GUARD)?;
            outcome.past_workspace = end.iter().any(|&byte| byte != GARBAGE);
        }
        Ok(())
    }
}

/// What all forms of a backward read.
struct Call<'a> {
    problem: &'a Problem,
    op: &'a Op,
    data: &'a Data,
    x: TensorRef<'a>,
    saved: Option<Saved<'a>>,
    dstream: Option<TensorRef<'a>>,
}

impl Call<'_> {
    fn saved(&self) -> Result<&Saved<'_>> {
        self.saved.as_ref().ok_or_else(|| missing("statistics"))
    }

    /// x of heads, of which a rotary embedding alone has no need.
    fn x_of_heads(&self) -> Option<TensorRef<'_>> {
        self.problem.norm.map(|_| self.x)
    }

    fn z(&self) -> Result<TensorRef<'_>> {
        let z = self.data.z.as_ref().ok_or_else(|| missing("a gate"))?;
        z.view()
    }

    fn in_place(&self, dy: TensorMut<'_>, outputs: &mut GradientOutputs<'_>) -> Result<()> {
        let weights = self.data.weights();
        let tables = self.data.tables();
        match self.op {
            Op::Norm(op) => {
                op.backward_in_place(self.x, &weights, self.saved()?, dy, self.dstream, outputs)
            }
            Op::Heads(op) => op.backward_in_place(
                self.x_of_heads(),
                &weights,
                self.saved.as_ref(),
                tables.as_ref(),
                dy,
                outputs,
            ),
            Op::Sdd(op) => {
                op.backward_in_place(self.x, self.data.alpha()?, self.saved()?, dy, outputs)
            }
            Op::Gated(_) => Err(missing("a form in place")),
        }
    }

    fn apart(
        &self,
        dy: TensorRef<'_>,
        dx: TensorMut<'_>,
        dz: Option<TensorMut<'_>>,
        outputs: &mut GradientOutputs<'_>,
    ) -> Result<()> {
        let weights = self.data.weights();
        let tables = self.data.tables();
        match self.op {
            Op::Norm(op) => op.backward_into(
                self.x,
                &weights,
                self.saved()?,
                dy,
                self.dstream,
                dx,
                outputs,
            ),
            Op::Heads(op) => op.backward_into(
                self.x_of_heads(),
                &weights,
                self.saved.as_ref(),
                tables.as_ref(),
                dy,
                dx,
                outputs,
            ),
            Op::Gated(op) => {
                let dz = dz.ok_or_else(|| missing("a gate"))?;
                op.backward_into(
                    self.x,
                    self.z()?,
                    &weights,
                    self.saved()?,
                    dy,
                    dx,
                    dz,
                    outputs,
                )
            }
            Op::Sdd(op) => {
                op.backward_into(self.x, self.data.alpha()?, self.saved()?, dy, dx, outputs)
            }
        }
    }

    fn allocating(&self, dy: TensorRef<'_>, outcome: &mut Outcome) -> Result<()> {
        let weights = self.data.weights();
        let mut put = |name: &'static str, buffer: Option<Buffer>| -> Result<()> {
            if let Some(buffer) = buffer {
                outcome.outputs.insert(name, Written::whole(&buffer)?);
            }
            Ok(())
        };
        let gradients = match self.op {
            Op::Norm(op) => op.backward(self.x, &weights, self.saved()?, dy, self.dstream)?,
            Op::Heads(op) => op.backward(
                self.x_of_heads(),
                &weights,
                self.saved.as_ref(),
                self.data.tables().as_ref(),
                dy,
            )?,
            Op::Gated(op) => {
                let GatedNormGradients {
                    dx,
                    dz,
                    dgamma,
                    dbeta,
                    ..
                } = op.backward(self.x, self.z()?, &weights, self.saved()?, dy)?;
                put("dx", Some(dx))?;
                put("dz", Some(dz))?;
                put("dgamma", dgamma)?;
                return put("dbeta", dbeta);
            }
            Op::Sdd(op) => {
                let SddGradients { dx, dalpha, .. } =
                    op.backward(self.x, self.data.alpha()?, self.saved()?, dy)?;
                put("dx", Some(dx))?;
                return put("dgamma", Some(dalpha));
            }
        };
        let NormGradients {
            dx, dgamma, dbeta, ..
        } = gradients;
        put("dx", Some(dx))?;
        put("dgamma", dgamma)?;
        put("dbeta", dbeta)
    }
}
