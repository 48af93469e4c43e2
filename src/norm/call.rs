//! A checked call of a row normalization: what the formulas and the kernels are given.
//!
//! [`Norm`](super::Norm), [`HeadNorm`](super::HeadNorm), [`GatedNorm`](super::GatedNorm) and
//! [`Sdd`](super::Sdd) differ in what they ask of their caller. What they run is one forward and one
//! backward, and [`RowOp`] is the one place that chooses who runs it.

use super::arguments::{RotaryTables, Saved};
use super::check::{MAX_ROTARY_HEAD_DIM, workspace_bytes};
use super::kernels::NormKernels;
#[cfg(feature = "quant")]
use super::quantized;
use super::{NormKind, NormOptions, Rotary, host};
#[cfg(feature = "quant")]
use crate::check::reborrow;
use crate::check::{Check, INTEGERS, Named, read, shape_of, write};
use crate::device::stream::Backend;
#[cfg(feature = "quant")]
use crate::quant::{Quantize, Store};
use crate::rows::{RowShape, WeightForm};
use crate::{DType, Error, Result, Stream, TensorMut, TensorRef};

/// Rows that are read and rows that are written, or the same rows.
#[derive(Debug)]
pub(super) enum Pair<'a> {
    Apart(TensorRef<'a>, TensorMut<'a>),
    InPlace(TensorMut<'a>),
    /// What is written are no rows of floats, and is given beside.
    #[cfg_attr(not(feature = "quant"), allow(dead_code))]
    Read(TensorRef<'a>),
}

impl Pair<'_> {
    pub(super) fn input(&self) -> TensorRef<'_> {
        match self {
            Self::Apart(input, _) | Self::Read(input) => *input,
            Self::InPlace(both) => both.as_ref(),
        }
    }

    /// The rows that are written; where there are none, those that are read.
    pub(super) fn output(&self) -> TensorRef<'_> {
        match self {
            Self::Apart(_, output) => output.as_ref(),
            Self::InPlace(both) => both.as_ref(),
            Self::Read(input) => *input,
        }
    }

    pub(super) fn reborrow(&mut self) -> Pair<'_> {
        match self {
            Self::Apart(input, output) => Pair::Apart(*input, output.reborrow()),
            Self::InPlace(both) => Pair::InPlace(both.reborrow()),
            Self::Read(input) => Pair::Read(*input),
        }
    }

    /// The names are those of the rows that are read and written; of rows that are both, the first.
    pub(super) fn name<'s>(
        &'s self,
        names: [&'static str; 2],
        reads: &mut Named<'s>,
        writes: &mut Named<'s>,
    ) {
        match self {
            Self::Apart(input, output) => {
                reads.push((names[0], *input));
                writes.push((names[1], output.as_ref()));
            }
            Self::InPlace(both) => writes.push((names[0], both.as_ref())),
            Self::Read(input) => reads.push((names[0], *input)),
        }
    }
}

/// A forward: y = norm(x), of x + residual where there is one, times silu(gate), turned.
#[derive(Debug)]
pub(super) struct ForwardCall<'a> {
    /// Without one, rows are only turned.
    pub(super) norm: Option<NormOptions>,
    pub(super) shape: RowShape,
    /// x to y.
    pub(super) rows: Pair<'a>,
    /// The residual to the stream; in place where x is.
    pub(super) residual: Option<Pair<'a>>,
    /// z.
    pub(super) gate: Option<TensorRef<'a>>,
    /// Of gamma and beta.
    pub(super) form: WeightForm,
    pub(super) gamma: Option<TensorRef<'a>>,
    pub(super) beta: Option<TensorRef<'a>>,
    pub(super) rotary: Option<(Rotary, RotaryTables<'a>)>,
    pub(super) rstd: Option<TensorMut<'a>>,
    pub(super) mean: Option<TensorMut<'a>>,
}

impl ForwardCall<'_> {
    /// For a shorter while.
    #[cfg(feature = "quant")]
    pub(super) fn reborrow(&mut self) -> ForwardCall<'_> {
        ForwardCall {
            rows: self.rows.reborrow(),
            residual: self.residual.as_mut().map(Pair::reborrow),
            rstd: reborrow(&mut self.rstd),
            mean: reborrow(&mut self.mean),
            norm: self.norm,
            shape: self.shape,
            gate: self.gate,
            form: self.form,
            gamma: self.gamma,
            beta: self.beta,
            rotary: self.rotary,
        }
    }

    /// All but the weights, which [`RowShape::weight_form`] checked.
    fn check(&self, check: &Check) -> Result<()> {
        let shape = self.shape;
        shape.check(check, "x", &self.rows.input())?;
        shape.check(check, "y", &self.rows.output())?;
        if let Some(residual) = &self.residual {
            shape.check(check, "residual", &residual.input())?;
            shape.check(check, "stream", &residual.output())?;
        }
        if let Some(gate) = &self.gate {
            shape.check(check, "z", gate)?;
        }
        check_rotary(check, shape, self.rotary.as_ref())?;
        let kind = self.norm.map(|norm| norm.kind);
        let of_norms = "statistics are of a normalization";
        check.absent("rstd", kind.is_none() && self.rstd.is_some(), of_norms)?;
        let of_layer = "the mean is a statistic of LayerNorm";
        let has_mean = kind == Some(NormKind::Layer);
        check.absent("mean", !has_mean && self.mean.is_some(), of_layer)?;
        for (argument, statistic) in [("rstd", &self.rstd), ("mean", &self.mean)] {
            if let Some(statistic) = statistic {
                let statistic = statistic.as_ref();
                check.tensor(argument, &statistic, &[DType::F32], &[shape.rows()])?;
            }
        }
        Ok(())
    }

    /// Its views with their names, for messages.
    fn name<'s>(&'s self, reads: &mut Named<'s>, writes: &mut Named<'s>) {
        self.rows.name(["x", "y"], reads, writes);
        if let Some(residual) = &self.residual {
            residual.name(["residual", "stream"], reads, writes);
        }
        read(reads, [("z", self.gate), ("gamma", self.gamma)]);
        read(reads, [("beta", self.beta)]);
        read_tables(reads, self.rotary.as_ref());
        write(writes, [("rstd", &self.rstd), ("mean", &self.mean)]);
    }
}

/// The backward of a [`ForwardCall`]; x is the stream where there was a residual.
#[derive(Debug)]
pub(super) struct BackwardCall<'a> {
    /// Without one, gradients are only turned back, and x and the statistics are absent.
    pub(super) norm: Option<NormOptions>,
    pub(super) shape: RowShape,
    pub(super) x: Option<TensorRef<'a>>,
    pub(super) saved: Option<Saved<'a>>,
    /// dy to dx.
    pub(super) gradient: Pair<'a>,
    /// Added to dx.
    pub(super) dstream: Option<TensorRef<'a>>,
    /// Gets what dx gets.
    pub(super) dresidual: Option<TensorMut<'a>>,
    /// z and dz.
    pub(super) gate: Option<(TensorRef<'a>, TensorMut<'a>)>,
    /// Of gamma, beta and their gradients.
    pub(super) form: WeightForm,
    pub(super) gamma: Option<TensorRef<'a>>,
    pub(super) beta: Option<TensorRef<'a>>,
    pub(super) rotary: Option<(Rotary, RotaryTables<'a>)>,
    /// f32, of the weights' form; dalpha too.
    pub(super) dgamma: Option<TensorMut<'a>>,
    pub(super) dbeta: Option<TensorMut<'a>>,
    /// Whether they are added to what is there.
    pub(super) accumulate: bool,
    /// There where a weight's gradient is asked for.
    pub(super) workspace: Option<TensorMut<'a>>,
}

impl BackwardCall<'_> {
    /// All but the weights, which [`RowShape::weight_form`] checked; `dgamma` is what that gradient is called.
    fn check(&self, check: &Check, dgamma: &'static str) -> Result<()> {
        let shape = self.shape;
        self.check_forward(check)?;
        shape.check(check, "dy", &self.gradient.input())?;
        shape.check(check, "dx", &self.gradient.output())?;
        if let Some(dstream) = &self.dstream {
            shape.check(check, "dstream", dstream)?;
        }
        if let Some(dresidual) = &self.dresidual {
            shape.check(check, "dresidual", &dresidual.as_ref())?;
        }
        if let Some((z, dz)) = &self.gate {
            shape.check(check, "z", z)?;
            shape.check(check, "dz", &dz.as_ref())?;
        }
        check_rotary(check, shape, self.rotary.as_ref())?;
        let elements = self.form.elements(shape);
        let mut needed = 0;
        for (argument, weight, gradient) in [
            (dgamma, &self.gamma, &self.dgamma),
            ("dbeta", &self.beta, &self.dbeta),
        ] {
            let Some(gradient) = gradient else {
                continue;
            };
            check.absent(argument, weight.is_none(), "its weight is not given")?;
            check.tensor(argument, &gradient.as_ref(), &[DType::F32], &[elements])?;
            needed = workspace_bytes(shape.tokens, shape.heads * shape.columns);
        }
        check.workspace(self.workspace.as_ref(), needed)
    }

    /// What the forward was given and what it saved.
    fn check_forward(&self, check: &Check) -> Result<()> {
        let shape = self.shape;
        let Some(norm) = &self.norm else {
            let why = "a rotary embedding alone needs dy, and nothing of its forward";
            check.absent("x", self.x.is_some(), why)?;
            return check.absent("saved", self.saved.is_some(), why);
        };
        match &self.x {
            Some(x) => shape.check(check, "x", x)?,
            None => return check.fail("x", "given, as its forward was", "absent"),
        }
        let Some(saved) = &self.saved else {
            return check.fail("saved", "what the forward saved", "absent");
        };
        let rows = [shape.rows()];
        check.tensor("rstd", &saved.rstd, &[DType::F32], &rows)?;
        match (norm.kind, &saved.mean) {
            (NormKind::Layer, Some(mean)) => check.tensor("mean", mean, &[DType::F32], &rows),
            (NormKind::Layer, None) => check.fail("mean", "given for LayerNorm", "absent"),
            (NormKind::Rms, mean) => {
                check.absent("mean", mean.is_some(), "RmsNorm takes no mean off")
            }
        }
    }

    fn check_views(&self, check: &Check, stream: &Stream, dgamma: &'static str) -> Result<()> {
        let (mut reads, mut writes) = (Named::new(), Named::new());
        self.gradient.name(["dy", "dx"], &mut reads, &mut writes);
        read(&mut reads, [("x", self.x), ("dstream", self.dstream)]);
        read(&mut reads, [("gamma", self.gamma), ("beta", self.beta)]);
        if let Some(saved) = &self.saved {
            read(
                &mut reads,
                [("rstd", Some(saved.rstd)), ("mean", saved.mean)],
            );
        }
        read_tables(&mut reads, self.rotary.as_ref());
        if let Some((z, dz)) = &self.gate {
            reads.push(("z", *z));
            writes.push(("dz", dz.as_ref()));
        }
        write(
            &mut writes,
            [
                ("dresidual", &self.dresidual),
                (dgamma, &self.dgamma),
                ("dbeta", &self.dbeta),
                ("workspace", &self.workspace),
            ],
        );
        stream.check_views(check.op, &reads, &writes)
    }
}

/// The tables of a rotary embedding.
fn check_rotary(
    check: &Check,
    shape: RowShape,
    rotary: Option<&(Rotary, RotaryTables<'_>)>,
) -> Result<()> {
    let Some((rotary, tables)) = rotary else {
        return Ok(());
    };
    if check.kernels && shape.columns > MAX_ROTARY_HEAD_DIM {
        return Err(Error::unsupported(
            check.op,
            format!("a rotary embedding of heads of {}", shape.columns),
            format!("use heads of at most {MAX_ROTARY_HEAD_DIM}, or the CPU"),
        ));
    }
    let pairs = rotary.width / 2;
    let (cos, sin) = (&tables.cos, &tables.sin);
    check.float("cos", cos)?;
    check.typed("sin", sin, &[cos.dtype()])?;
    let positions = cos.rows();
    for (argument, table) in [("cos", cos), ("sin", sin)] {
        let fits = table.columns() == pairs && table.rows() == positions;
        if !fits || !table.is_contiguous() {
            let expected = match argument {
                "cos" => format!("[positions, {pairs}], contiguous"),
                _ => format!("[{positions}, {pairs}], contiguous, as cos is"),
            };
            return check.fail(argument, expected, shape_of(table));
        }
    }
    match &tables.positions {
        Some(ids) => check.tensor("positions", ids, &INTEGERS, &[shape.tokens]),
        None if positions < shape.tokens => check.fail(
            "cos",
            format!("of {} positions at least, one a token", shape.tokens),
            shape_of(cos),
        ),
        None => Ok(()),
    }
}

fn read_tables<'a>(reads: &mut Named<'a>, rotary: Option<&(Rotary, RotaryTables<'a>)>) {
    if let Some((_, tables)) = rotary {
        let RotaryTables {
            cos,
            sin,
            positions,
        } = *tables;
        read(
            reads,
            [
                ("cos", Some(cos)),
                ("sin", Some(sin)),
                ("positions", positions),
            ],
        );
    }
}

/// Who runs the calls of a prepared operation.
#[derive(Debug)]
pub(super) struct RowOp {
    stream: Stream,
    /// What the gradient of gamma is called.
    dgamma: &'static str,
    /// None: the reference runs the calls.
    kernels: Option<NormKernels>,
    /// How results are quantised, where they are.
    #[cfg(feature = "quant")]
    pub(super) quantize: Option<Quantize>,
}

impl RowOp {
    /// Loads the kernels, so that calls can be captured into a graph.
    pub(super) fn prepare(stream: &Stream, kind: NormKind, dgamma: &'static str) -> Result<Self> {
        let kernels = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(NormKernels::load(stream, kind)?),
        };
        Ok(Self {
            stream: stream.clone(),
            dgamma,
            kernels,
            #[cfg(feature = "quant")]
            quantize: None,
        })
    }

    /// Quantising its results so, where it is asked to; with the kernels for it.
    #[cfg(feature = "quant")]
    pub(super) fn quantized(
        mut self,
        op: &'static str,
        kind: NormKind,
        quantize: Option<Quantize>,
    ) -> Result<Self> {
        if let Some(quantize) = &quantize {
            quantized::validate(op, quantize)?;
            if let Some(kernels) = &mut self.kernels {
                kernels.load_quantized(&self.stream, kind)?;
            }
        }
        self.quantize = quantize;
        Ok(self)
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn check(&self, op: &'static str) -> Check {
        Check::new(op, &self.stream)
    }

    pub(super) fn forward(&self, check: &Check, call: ForwardCall<'_>) -> Result<()> {
        call.check(check)?;
        let (mut reads, mut writes) = (Named::new(), Named::new());
        call.name(&mut reads, &mut writes);
        self.stream.check_views(check.op, &reads, &writes)?;
        match &self.kernels {
            Some(kernels) => kernels.forward(&self.stream, call),
            None => {
                self.stream.raise(host::rows::forward(call)?);
                Ok(())
            }
        }
    }

    /// A forward whose rows are read alone, its results into a store.
    #[cfg(feature = "quant")]
    pub(super) fn forward_quantized<'a>(
        &self,
        check: &Check,
        call: ForwardCall<'a>,
        store: Store<'a>,
    ) -> Result<()> {
        call.check(check)?;
        let (mut reads, mut writes) = (Named::new(), Named::new());
        call.name(&mut reads, &mut writes);
        store.name(&mut reads, &mut writes);
        self.stream.check_views(check.op, &reads, &writes)?;
        match &self.kernels {
            Some(kernels) => kernels.forward_quantized(&self.stream, call, store),
            None => {
                let status = host::rows::forward_quantized(&self.stream, call, store)?;
                self.stream.raise(status);
                Ok(())
            }
        }
    }

    pub(super) fn backward(&self, check: &Check, call: BackwardCall<'_>) -> Result<()> {
        call.check(check, self.dgamma)?;
        call.check_views(check, &self.stream, self.dgamma)?;
        match &self.kernels {
            Some(kernels) => kernels.backward(&self.stream, call),
            None => {
                self.stream.raise(host::rows::backward(call)?);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pairing;
    use super::*;
    use crate::Device;

    #[test]
    fn kernels_turn_heads_of_a_length_that_registers_hold() {
        let stream = Device::cpu().stream().unwrap();
        let table = stream.zeros(DType::F32, &[1, 1]).unwrap();
        let tables = RotaryTables::new(table.view(), table.view());
        let rotary = (Rotary::new(Pairing::HalfSplit, 2), tables);
        let cpu = Check::new("HeadNorm::forward", &stream);
        let kernels = Check {
            kernels: true,
            ..cpu
        };
        let of = |columns| RowShape {
            tokens: 1,
            heads: 1,
            columns,
        };
        let long = of(MAX_ROTARY_HEAD_DIM + 2);
        assert!(check_rotary(&cpu, long, Some(&rotary)).is_ok());
        assert!(check_rotary(&kernels, of(MAX_ROTARY_HEAD_DIM), Some(&rotary)).is_ok());
        assert!(check_rotary(&kernels, long, None).is_ok());
        let error = check_rotary(&kernels, long, Some(&rotary)).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}
