//! Activations that are quantised as they are computed.
//!
//! Their bits are those of the reference's quantisation of what the same device computes into f32:
//! so a scale and an element differ between devices only as far as the f32 results do, within
//! [`Curve`](super::bounds::Curve)'s errors. A scale then is off by the error of its block's largest
//! value, and an element is another one only where a boundary of its rounding lies between value /
//! scale of the one and of the other; then it is the neighbour.

use evenkeel::quant::{
    GateUp, Gelu, OutputArguments, Quantize, QuantizeArguments, Quantized, QuantizedTensor,
    Smoothing, SmoothingScales, SwiGlu,
};
use evenkeel::reference::quant::activation::Function;
use evenkeel::{Buffer, DType, Device, Result, Stream, TensorRef};

use super::problem::{Case, Problem};
use super::run::gate_up;
use crate::compare::{Checked, Verdict};
use crate::norm::placed::status_of;
use crate::quant::bits::Bits;

/// A quantised result of an activation.
#[derive(Clone, Debug)]
pub struct Fused {
    /// For messages.
    pub name: String,
    problem: Problem,
    /// How it is quantised.
    pub quantize: Quantize,
    /// Whether it is the gradients that are, and not y.
    pub backward: bool,
    /// Groups of rows.
    pub groups: Option<Vec<i64>>,
    /// Of stochastic rounding.
    pub offset: u64,
}

impl Fused {
    /// Of an activation, whose smoothing's scales are given where there is one.
    #[must_use]
    pub fn new(case: &Case, quantize: Quantize, backward: bool) -> Self {
        Self {
            name: format!("{quantize:?}, backward {backward}, of {case:?}"),
            problem: case.problem(),
            quantize,
            backward,
            groups: None,
            offset: 0,
        }
    }

    /// With the rows in groups.
    #[must_use]
    pub fn groups(mut self, offsets: &[i64]) -> Self {
        self.groups = Some(offsets.to_vec());
        self.name = format!("groups {offsets:?}, {}", self.name);
        self
    }

    /// With another offset of random words.
    #[must_use]
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Rows and columns of what is quantised.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        let halves = if self.backward && self.problem.gated() {
            2
        } else {
            1
        };
        [self.problem.tokens, halves * self.problem.channels]
    }
}

/// amax and counts of both outputs, and the groups.
struct Asked {
    groups: Option<Buffer>,
    amax: [Option<Buffer>; 2],
    counts: [Option<Buffer>; 2],
    offset: u64,
}

impl Asked {
    fn new(stream: &Stream, fused: &Fused) -> Result<Self> {
        let groups = fused.groups.as_ref();
        let count = groups.map_or(1, |offsets| offsets.len() - 1);
        let upload = |offsets: &Vec<i64>| stream.upload(&[offsets.len()], offsets);
        let [mut amax, mut counts] = [[None, None], [None, None]];
        for (index, output) in fused.quantize.outputs().into_iter().enumerate() {
            if output.is_some() {
                amax[index] = Some(stream.zeros(DType::F32, &[count])?);
                counts[index] = Some(stream.zeros(DType::U32, &[2])?);
            }
        }
        Ok(Self {
            groups: groups.map(upload).transpose()?,
            amax,
            counts,
            offset: fused.offset,
        })
    }

    fn arguments(&mut self) -> QuantizeArguments<'_> {
        fn of<'a>(
            amax: &'a mut Option<Buffer>,
            counts: &'a mut Option<Buffer>,
        ) -> OutputArguments<'a> {
            OutputArguments {
                amax: amax.as_mut().map(Buffer::view_mut),
                counts: counts.as_mut().map(Buffer::view_mut),
                ..OutputArguments::default()
            }
        }
        let [row_amax, column_amax] = &mut self.amax;
        let [row_counts, column_counts] = &mut self.counts;
        let mut arguments = QuantizeArguments::default()
            .rowwise(of(row_amax, row_counts))
            .transposed(of(column_amax, column_counts))
            .offset(self.offset);
        arguments.groups = self.groups.as_ref().map(Buffer::view);
        arguments
    }

    /// Everything of both outputs by name.
    fn results(&self, quantized: &Quantized) -> Result<Vec<(String, Vec<u8>)>> {
        let mut all = Vec::new();
        let outputs = [&quantized.rowwise, &quantized.transposed];
        for (index, output) in outputs.into_iter().enumerate() {
            let Some(output) = output else {
                continue;
            };
            let QuantizedTensor {
                data,
                scales,
                tensor_scale,
                ..
            } = output;
            let which = ["X", "X^T"][index];
            let parts = [
                ("elements", Some(data)),
                ("scales", scales.as_ref()),
                ("tensor scale", tensor_scale.as_ref()),
                ("amax", self.amax[index].as_ref()),
                ("counts", self.counts[index].as_ref()),
            ];
            for (what, buffer) in parts {
                if let Some(buffer) = buffer {
                    all.push((format!("{what} of {which}"), Bits::whole(buffer)?.bytes));
                }
            }
        }
        Ok(all)
    }
}

/// The operation of a problem, its result quantised or in f32.
struct Operands<'a> {
    fused: &'a Fused,
    x: GateUp<'a>,
    dy: TensorRef<'a>,
    scales: Option<TensorRef<'a>>,
}

impl Operands<'_> {
    fn swiglu(&self) -> SwiGlu {
        let op = SwiGlu::new();
        let smoothing: Option<Smoothing> = self.fused.problem.smoothing;
        smoothing.map_or(op, |smoothing| op.smoothing(smoothing))
    }

    fn alone(&self) -> TensorRef<'_> {
        match self.x {
            GateUp::Packed(x) => x,
            GateUp::Apart { gate, .. } => gate,
        }
    }

    fn given(&self) -> Option<SmoothingScales<'_>> {
        self.scales.map(SmoothingScales::Given)
    }

    fn quantized(&self, stream: &Stream, arguments: QuantizeArguments<'_>) -> Result<Quantized> {
        let (quantize, backward) = (self.fused.quantize, self.fused.backward);
        match self.fused.problem.function {
            Function::SwiGlu if backward => {
                let op = self.swiglu().quantize_gradient(quantize).prepare(stream)?;
                op.backward_quantized(self.x, self.scales, self.dy, arguments)
            }
            Function::SwiGlu => {
                let op = self.swiglu().quantize_output(quantize).prepare(stream)?;
                let [rows, columns] = self.fused.shape();
                let groups = self
                    .fused
                    .groups
                    .as_ref()
                    .map_or(0, |offsets| offsets.len() - 1);
                let mut y = op.allocate_output(rows, columns, groups)?;
                let bytes = op.output_workspace_bytes(rows, columns, groups);
                let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
                let mut outputs = y.outputs().workspace(workspace.view_mut());
                op.forward_quantized_into(self.x, self.given(), arguments, &mut outputs)?;
                Ok(y)
            }
            Function::Gelu(kind) => {
                let op = Gelu::new(kind);
                if backward {
                    let op = op.quantize_gradient(quantize).prepare(stream)?;
                    op.backward_quantized(self.alone(), self.dy, arguments)
                } else {
                    let op = op.quantize_output(quantize).prepare(stream)?;
                    op.forward_quantized(self.alone(), arguments)
                }
            }
        }
    }

    fn plain(&self, stream: &Stream) -> Result<Buffer> {
        let mut result = stream.zeros(DType::F32, &self.fused.shape())?;
        let into = result.view_mut();
        match (self.fused.problem.function, self.fused.backward) {
            (Function::SwiGlu, true) => {
                let op = self.swiglu().prepare(stream)?;
                op.backward_into(self.x, self.scales, self.dy, into.into())?;
            }
            (Function::SwiGlu, false) => {
                let op = self.swiglu().prepare(stream)?;
                op.forward_into(self.x, self.given(), into)?;
            }
            (Function::Gelu(kind), true) => {
                let op = Gelu::new(kind).prepare(stream)?;
                op.backward_into(self.alone(), self.dy, into)?;
            }
            (Function::Gelu(kind), false) => {
                let op = Gelu::new(kind).prepare(stream)?;
                op.forward_into(self.alone(), into)?;
            }
        }
        Ok(result)
    }
}

impl Checked for Fused {
    fn name(&self) -> &str {
        &self.name
    }

    fn check_on(&self, stream: &Stream) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let problem = &self.problem;
        let inputs = problem.inputs.iter().map(|input| input.upload(stream));
        let inputs: Vec<Buffer> = inputs.collect::<Result<_>>()?;
        let dy = problem.dy.upload(stream)?;
        let given = problem.given.as_ref();
        let given = given.map(|given| Ok::<_, evenkeel::Error>((given, given.upload(stream)?)));
        let given = given.transpose()?;
        let scales = match &given {
            Some((of, memory)) => Some(of.place.view(memory)?),
            None => None,
        };
        let operands = Operands {
            fused: self,
            x: gate_up(problem, &inputs)?,
            dy: problem.dy.place.view(&dy)?,
            scales,
        };
        let mut asked = Asked::new(stream, self)?;
        let quantized = operands.quantized(stream, asked.arguments())?;
        let got = asked.results(&quantized)?;
        let status = status_of(stream)?;
        let plain: Vec<f32> = operands.plain(stream)?.read()?;

        let cpu = Device::cpu().stream()?;
        let values = cpu.upload(&self.shape(), &plain)?;
        let mut wanted = Asked::new(&cpu, self)?;
        let op = self.quantize.prepare(&cpu)?;
        let expected = op.quantize(values.view(), wanted.arguments())?;
        let want = wanted.results(&expected)?;
        for ((what, got), (_, want)) in got.iter().zip(&want) {
            verdict.worst.entry("bytes").or_default().compared += want.len() as u64;
            let differ = got
                .iter()
                .zip(want)
                .filter(|(got, want)| got != want)
                .count();
            if differ > 0 || got.len() != want.len() {
                let first = got.iter().zip(want).position(|(got, want)| got != want);
                verdict.wrong(|| {
                    let (got, want) = (got.len(), want.len());
                    format!("{what}: {differ} of {want} bytes differ of {got}, from {first:?} on")
                });
            }
        }
        verdict.equal(|| "the status".into(), &status, &status_of(&cpu)?);
        Ok(verdict.of(&self.name))
    }
}
