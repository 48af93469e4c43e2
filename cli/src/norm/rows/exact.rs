//! What the reference computes for a problem.

use evenkeel::norm::{HeadNormOptions, NormOptions};
use evenkeel::reference::norm::heads::RotaryTables;
use evenkeel::reference::norm::rows::{Incoming, Outgoing};
use evenkeel::reference::norm::{
    Forward, Moments, WeightGradients, Weights, gated, heads, rows, sdd,
};
use evenkeel::reference::{FloatRows, FloatRowsMut, Floats, FloatsMut, Indices};
use evenkeel::{Error, Result, Status};

use super::problem::{Backward, Problem, Vector};
use crate::norm::Operation;

/// Everything in f64, nothing rounded.
#[derive(Clone, Debug, Default)]
pub struct Exact {
    /// y.
    pub y: Vec<f64>,
    /// The statistics of each row.
    pub moments: Vec<Moments>,
    /// Of the forward and of the backward.
    pub status: [Status; 2],
    /// dx, with the stream's gradient.
    pub dx: Vec<f64>,
    /// dz, where there is a gate.
    pub dz: Vec<f64>,
    /// dgamma or dalpha, before it is added to anything.
    pub dgamma: Vec<f64>,
    /// dbeta likewise.
    pub dbeta: Vec<f64>,
}

/// The reference on rows `x`: the problem's, or the stream that a device stored.
///
/// # Errors
/// The reference's, for problems that are none.
pub fn exact(problem: &Problem, x: &[f64]) -> Result<Exact> {
    let of = Reference { problem, x };
    let mut exact = Exact {
        y: of.blank(),
        ..Exact::default()
    };
    let forward = of.forward(&mut exact.y)?;
    (exact.moments, exact.status[0]) = (forward.moments, forward.status);
    if let Some(backward) = &problem.backward {
        exact.status[1] = of.backward(backward, &mut exact)?;
    }
    Ok(exact)
}

struct Reference<'a> {
    problem: &'a Problem,
    x: &'a [f64],
}

fn floats(vector: Option<&Vector>) -> Option<Floats<'_>> {
    vector.map(|vector| Floats::F64(&vector.values))
}

impl<'a> Reference<'a> {
    fn blank(&self) -> Vec<f64> {
        vec![f64::NAN; self.problem.shape.elements()]
    }

    fn place(&self) -> ([usize; 3], [usize; 2]) {
        let shape = self.problem.shape;
        let dims = [shape.tokens, shape.heads, shape.columns];
        (dims, [shape.heads * shape.columns, shape.columns])
    }

    fn rows<'v>(&self, values: &'v [f64]) -> Result<FloatRows<'v>> {
        let (dims, strides) = self.place();
        FloatRows::heads(values, dims, strides)
    }

    fn rows_mut<'v>(&self, values: &'v mut [f64]) -> Result<FloatRowsMut<'v>> {
        let (dims, strides) = self.place();
        FloatRowsMut::heads(values, dims, strides)
    }

    fn norm(&self) -> NormOptions {
        self.problem.norm.unwrap_or(NormOptions::rms())
    }

    fn heads(&self) -> HeadNormOptions {
        let mut options = HeadNormOptions::default();
        (options.norm, options.rotary) = (self.problem.norm, self.problem.rotary);
        options
    }

    fn weights(&self) -> Weights<'a> {
        Weights {
            gamma: floats(self.problem.gamma.as_ref()),
            beta: floats(self.problem.beta.as_ref()),
        }
    }

    fn alpha(&self) -> Result<Floats<'a>> {
        floats(self.problem.gamma.as_ref()).ok_or_else(|| missing("alpha"))
    }

    fn z(&self) -> Result<FloatRows<'a>> {
        let z = self.problem.z.as_ref().ok_or_else(|| missing("a gate"))?;
        self.rows(&z.values)
    }

    fn tables(&self) -> Option<RotaryTables<'a>> {
        let tables = self.problem.tables.as_ref()?;
        Some(RotaryTables {
            cos: Floats::F64(&tables.cos),
            sin: Floats::F64(&tables.sin),
            positions: tables.positions.as_ref().map(|(_, ids)| Indices::I64(ids)),
        })
    }

    fn forward(&self, y: &mut [f64]) -> Result<Forward> {
        let (x, y) = (self.rows(self.x)?, self.rows_mut(y)?);
        let weights = self.weights();
        match self.problem.operation {
            Operation::HeadNorm => {
                heads::forward(&self.heads(), &weights, self.tables().as_ref(), x, y)
            }
            Operation::GatedNorm => gated::forward(&self.norm(), &weights, x, self.z()?, y),
            Operation::Sdd => sdd::forward(self.alpha()?, x, y),
            _ => rows::forward(&self.norm(), &weights, x, None, y),
        }
    }

    fn backward(&self, asked: &Backward, exact: &mut Exact) -> Result<Status> {
        let problem = self.problem;
        exact.dx = self.blank();
        let length = |weight: &Option<Vector>| weight.as_ref().map_or(0, |w| w.values.len());
        exact.dgamma = vec![f64::NAN; length(&problem.gamma)];
        exact.dbeta = vec![f64::NAN; length(&problem.beta)];
        let weights = self.weights();
        let mut gradients = WeightGradients::default();
        if problem.gamma.is_some() {
            gradients.gamma = Some(FloatsMut::F64(&mut exact.dgamma));
        }
        if problem.beta.is_some() {
            gradients.beta = Some(FloatsMut::F64(&mut exact.dbeta));
        }
        let (x, dy) = (self.rows(self.x)?, self.rows(&asked.dy.values)?);
        let dx = self.rows_mut(&mut exact.dx)?;
        let incoming = Incoming {
            dy,
            dstream: asked
                .dstream
                .as_ref()
                .map(|dstream| self.rows(&dstream.values))
                .transpose()?,
        };
        match problem.operation {
            Operation::HeadNorm => heads::backward(
                &self.heads(),
                &weights,
                self.tables().as_ref(),
                x,
                dy,
                dx,
                gradients,
            ),
            Operation::Sdd => {
                let dalpha = gradients.gamma.ok_or_else(|| missing("alpha"))?;
                sdd::backward(self.alpha()?, x, dy, dx, dalpha, false)
            }
            operation => {
                let outgoing = Outgoing {
                    dx,
                    dresidual: None,
                    weights: gradients,
                };
                if operation != Operation::GatedNorm {
                    return rows::backward(&self.norm(), &weights, x, incoming, outgoing);
                }
                exact.dz = self.blank();
                let dz = self.rows_mut(&mut exact.dz)?;
                gated::backward(&self.norm(), &weights, x, self.z()?, incoming, outgoing, dz)
            }
        }
    }
}

/// A problem that was not made by a case, and is not whole.
fn missing(what: &str) -> Error {
    Error::Unsupported {
        op: "norm::rows::exact",
        what: format!("a problem without {what}"),
        remedy: "give it".into(),
    }
}
