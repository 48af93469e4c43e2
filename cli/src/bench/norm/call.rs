//! One work with its tensors on a device, to be run again and again.

use evenkeel::norm::{
    GradientOutputs, HeadNorm, HeadNormOptions, Norm, NormOptions, Pairing, PreparedHeadNorm,
    PreparedNorm, PreparedSoftmax, RotaryTables, Saved, Softmax, SoftmaxIncoming,
    SoftmaxStatistics, Statistics, Weights,
};
use evenkeel::{Buffer, DType, Result, Stream};

use super::work::{Operation, Pass, Work};
use crate::bench::record::{Heads, ShapeOf};
use crate::memory::view_of;

/// A prepared operation.
enum Op {
    Norm(PreparedNorm),
    Heads(PreparedHeadNorm),
    Softmax(PreparedSoftmax),
}

/// What a pass has beside its rows.
enum Beside {
    Nothing,
    Residual { residual: Buffer, sum: Buffer },
    Gradient(Buffer),
}

/// A work's tensors: random ones, and what the works write.
pub struct Call {
    op: Op,
    /// x; a softmax's y in its backward.
    pub x: Buffer,
    /// y, or dx.
    pub out: Buffer,
    beside: Beside,
    /// The factor.
    pub gamma: Option<Buffer>,
    /// The term.
    pub beta: Option<Buffer>,
    /// 1 / sqrt(mean square or variance + eps) of each row.
    pub rstd: Option<Buffer>,
    /// The mean of each row.
    pub mean: Option<Buffer>,
    /// Cosines and sines.
    pub tables: Option<[Buffer; 2]>,
    /// The gradient of gamma.
    pub dgamma: Option<Buffer>,
    /// The gradient of beta.
    pub dbeta: Option<Buffer>,
    workspace: Option<Buffer>,
}

impl Call {
    /// The work in this size, of tensors that `random` makes, with its weights or without; before a
    /// backward the forward runs once.
    ///
    /// # Errors
    /// The library's.
    pub fn new(
        stream: &Stream,
        work: Work,
        shape: ShapeOf,
        dtype: DType,
        weighted: bool,
        mut random: impl FnMut(&[usize]) -> Result<Buffer>,
    ) -> Result<Self> {
        let size = shape.dimensions();
        let columns = shape.columns();
        let of_rows = &size[..size.len() - 1];
        let weights = work.operation.weights();
        let has = |weight: u64| weighted && weights >= weight;
        let mut new = |wanted: bool, shape: &[usize]| wanted.then(|| random(shape)).transpose();
        let f32s = |wanted: bool, shape: &[usize]| {
            wanted.then(|| stream.zeros(DType::F32, shape)).transpose()
        };
        let rotary = work.operation == Operation::RotaryQkNorm;
        let table = [shape.tokens(), columns / 2];
        let tables = new(rotary, &table)?.zip(new(rotary, &table)?);
        let backward = work.pass == Pass::Backward;
        let op = prepare(stream, work.operation, shape)?;
        let workspace = match &op {
            Op::Norm(op) => op.backward_workspace_bytes(shape.tokens(), columns),
            Op::Heads(op) => op.backward_workspace_bytes(shape.tokens(), columns),
            Op::Softmax(_) => 0,
        };
        let mut call = Self {
            op,
            gamma: new(has(1), &[columns])?,
            beta: new(has(2), &[columns])?,
            tables: tables.map(|(cos, sin)| [cos, sin]),
            x: random(&size)?,
            out: stream.uninitialised(dtype, &size)?,
            beside: Beside::Nothing,
            rstd: f32s(weights >= 1, of_rows)?,
            mean: f32s(weights >= 2, of_rows)?,
            dgamma: f32s(backward && has(1), &[columns])?,
            dbeta: f32s(backward && has(2), &[columns])?,
            workspace: (backward && has(1))
                .then(|| stream.uninitialised(DType::U8, &[workspace]))
                .transpose()?,
        };
        match work.pass {
            Pass::Forward => {}
            Pass::Residual => {
                call.beside = Beside::Residual {
                    residual: random(&size)?,
                    sum: stream.uninitialised(dtype, &size)?,
                }
            }
            Pass::Backward => {
                call.run()?;
                if work.operation == Operation::Softmax {
                    std::mem::swap(&mut call.x, &mut call.out);
                }
                call.beside = Beside::Gradient(random(&size)?);
            }
        }
        Ok(call)
    }

    /// The residual and the stream that is written.
    #[must_use]
    pub fn residual(&self) -> Option<(&Buffer, &Buffer)> {
        match &self.beside {
            Beside::Residual { residual, sum } => Some((residual, sum)),
            _ => None,
        }
    }

    /// dy.
    #[must_use]
    pub fn gradient(&self) -> Option<&Buffer> {
        match &self.beside {
            Beside::Gradient(dy) => Some(dy),
            _ => None,
        }
    }

    /// Once; nothing is allocated.
    ///
    /// # Errors
    /// The library's.
    pub fn run(&mut self) -> Result<()> {
        let Self {
            op,
            x,
            out,
            beside,
            gamma,
            beta,
            rstd,
            mean,
            tables,
            dgamma,
            dbeta,
            workspace,
        } = self;
        let (x, out) = (x.view(), out.view_mut());
        let weights = Weights {
            gamma: view_of(gamma.as_ref()),
            beta: view_of(beta.as_ref()),
        };
        let tables = tables
            .as_ref()
            .map(|[cos, sin]| RotaryTables::new(cos.view(), sin.view()));
        if let Beside::Gradient(dy) = beside {
            let dy = dy.view();
            let saved = rstd.as_ref().map(|rstd| Saved {
                rstd: rstd.view(),
                mean: view_of(mean.as_ref()),
            });
            let mut outputs = GradientOutputs {
                dgamma: dgamma.as_mut().map(Buffer::view_mut),
                dbeta: dbeta.as_mut().map(Buffer::view_mut),
                workspace: workspace.as_mut().map(Buffer::view_mut),
                ..GradientOutputs::default()
            };
            return match (op, &saved) {
                (Op::Softmax(op), _) => {
                    op.backward_into(x, None, dy, &SoftmaxIncoming::default(), out)
                }
                (Op::Norm(op), Some(saved)) => {
                    op.backward_into(x, &weights, saved, dy, None, out, &mut outputs)
                }
                (Op::Heads(op), saved) => {
                    let tables = tables.as_ref();
                    let saved = saved.as_ref();
                    op.backward_into(Some(x), &weights, saved, tables, dy, out, &mut outputs)
                }
                (Op::Norm(_), None) => unreachable!("every norm saves its statistics"),
            };
        }
        let mut statistics = Statistics {
            rstd: rstd.as_mut().map(Buffer::view_mut),
            mean: mean.as_mut().map(Buffer::view_mut),
        };
        match (op, beside) {
            (Op::Norm(op), Beside::Residual { residual, sum }) => op.forward_residual_into(
                x,
                residual.view(),
                &weights,
                sum.view_mut(),
                out,
                &mut statistics,
            ),
            (Op::Norm(op), _) => op.forward_into(x, &weights, out, &mut statistics),
            (Op::Heads(op), _) => {
                op.forward_into(x, &weights, tables.as_ref(), out, &mut statistics)
            }
            (Op::Softmax(op), _) => {
                op.forward_into(x, None, out, &mut SoftmaxStatistics::default())
            }
        }
    }
}

fn prepare(stream: &Stream, operation: Operation, shape: ShapeOf) -> Result<Op> {
    let heads = match shape {
        ShapeOf::Heads(Heads { heads, .. }) => heads,
        _ => 1,
    };
    let of_heads = HeadNorm::new(HeadNormOptions::new(NormOptions::rms()), heads);
    Ok(match operation {
        Operation::Rms => Op::Norm(Norm::rms().prepare(stream)?),
        Operation::Layer => Op::Norm(Norm::layer().prepare(stream)?),
        Operation::Softmax => Op::Softmax(Softmax::default().prepare(stream)?),
        Operation::QkNorm => Op::Heads(of_heads.prepare(stream)?),
        Operation::RotaryQkNorm => {
            let rotary = of_heads.rotary(Pairing::HalfSplit, shape.columns());
            Op::Heads(rotary.prepare(stream)?)
        }
    })
}
