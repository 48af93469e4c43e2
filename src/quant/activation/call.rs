//! A checked call of an activation: what the formulas and the kernels are given.
//!
//! [`SwiGlu`](super::SwiGlu) and [`Gelu`](super::Gelu) differ in what they ask of their caller. What
//! they run is one forward and one backward, and [`Activation`] is the one place that chooses who
//! runs it.

use super::arguments::SmoothingScales;
use super::{Smoothing, host};
use crate::check::{Check, Named, read};
use crate::device::stream::Backend;
use crate::quant::call::Store;
use crate::quant::check::{self, group_count};
use crate::quant::form::QuantShape;
use crate::quant::kernels::ActivationKernels;
use crate::quant::launch::quantize_workspace_bytes;
use crate::quant::{Quantize, QuantizeArguments, QuantizeOutputs, Quantized};
use crate::reference::quant::activation::Function;
use crate::{DType, Error, Result, Stream, TensorMut, TensorRef};

/// What every call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::quant) struct Shape {
    pub(in crate::quant) function: Function,
    pub(in crate::quant) tokens: usize,
    /// Of y; gradients of SwiGLU have twice as many columns.
    pub(in crate::quant) channels: usize,
}

/// x, or gate and up.
#[derive(Clone, Copy, Debug)]
pub(in crate::quant) struct Inputs<'a> {
    pub(in crate::quant) x: TensorRef<'a>,
    pub(in crate::quant) up: Option<TensorRef<'a>>,
}

impl<'a> Inputs<'a> {
    fn name(&self, reads: &mut Named<'a>) {
        let name = if self.up.is_some() { "gate" } else { "x" };
        reads.push((name, self.x));
        read(reads, [("up", self.up)]);
    }
}

/// Where a result goes.
#[derive(Debug)]
pub(in crate::quant) enum Output<'a> {
    Plain(TensorMut<'a>),
    /// Gate's gradient and up's.
    Apart(TensorMut<'a>, TensorMut<'a>),
    Quantized(Box<Store<'a>>),
}

impl Output<'_> {
    fn name<'s>(&'s self, plain: &'static str, reads: &mut Named<'s>, writes: &mut Named<'s>) {
        match self {
            Self::Plain(view) => writes.push((plain, view.as_ref())),
            Self::Apart(gate, up) => {
                writes.push(("gradients.gate", gate.as_ref()));
                writes.push(("gradients.up", up.as_ref()));
            }
            Self::Quantized(store) => store.name(reads, writes),
        }
    }
}

#[derive(Debug)]
pub(in crate::quant) struct ForwardCall<'a, 's, 'y> {
    pub(in crate::quant) shape: Shape,
    pub(in crate::quant) inputs: Inputs<'a>,
    pub(in crate::quant) scales: Option<(Smoothing, SmoothingScales<'s>)>,
    /// Plain or quantised.
    pub(in crate::quant) y: Output<'y>,
}

#[derive(Debug)]
pub(in crate::quant) struct BackwardCall<'a, 'x> {
    pub(in crate::quant) shape: Shape,
    pub(in crate::quant) inputs: Inputs<'a>,
    pub(in crate::quant) scales: Option<(Smoothing, TensorRef<'a>)>,
    pub(in crate::quant) dy: TensorRef<'a>,
    pub(in crate::quant) dx: Output<'x>,
}

/// What an activation quantises, and how: y and its gradients.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Formats {
    pub(super) output: Option<Quantize>,
    pub(super) gradient: Option<Quantize>,
}

/// A prepared activation.
#[derive(Debug)]
pub(super) struct Activation {
    pub(super) stream: Stream,
    pub(super) function: Function,
    pub(super) smoothing: Option<Smoothing>,
    pub(super) formats: Formats,
    /// None: the reference runs the calls.
    kernels: Option<ActivationKernels>,
}

impl Activation {
    pub(super) fn prepare(
        stream: &Stream,
        function: Function,
        smoothing: Option<Smoothing>,
        formats: Formats,
    ) -> Result<Self> {
        for format in [&formats.output, &formats.gradient].into_iter().flatten() {
            format.validate()?;
        }
        let kernels = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(ActivationKernels::load(
                stream,
                function,
                [formats.output.as_ref(), formats.gradient.as_ref()],
            )?),
        };
        Ok(Self {
            stream: stream.clone(),
            function,
            smoothing,
            formats,
            kernels,
        })
    }

    pub(super) fn check(&self, op: &'static str) -> Check {
        Check::new(op, &self.stream)
    }

    /// The options of the output, where it is to be quantised.
    pub(super) fn output(&self, check: &Check) -> Result<&Quantize> {
        let remedy = "choose it before prepare: quantize_output";
        self.formats.output.as_ref().ok_or_else(|| {
            Error::unsupported(check.op, "an output whose format is not chosen", remedy)
        })
    }

    /// The options of the gradients, where these are to be quantised.
    pub(super) fn gradient(&self, check: &Check) -> Result<&Quantize> {
        let remedy = "choose it before prepare: quantize_gradient";
        self.formats.gradient.as_ref().ok_or_else(|| {
            Error::unsupported(check.op, "gradients whose format is not chosen", remedy)
        })
    }

    /// Of the gradients.
    pub(super) fn gradient_columns(&self, channels: usize) -> usize {
        match self.function {
            Function::SwiGlu => channels.saturating_mul(2),
            Function::Gelu(_) => channels,
        }
    }

    pub(super) fn shape(&self, check: &Check, inputs: &Inputs<'_>) -> Result<Shape> {
        let (tokens, channels) = (inputs.x.rows(), inputs.x.columns());
        let name = if inputs.up.is_some() { "gate" } else { "x" };
        check.float(name, &inputs.x)?;
        check.row_count(name, tokens, self.gradient_columns(channels))?;
        Ok(Shape {
            function: self.function,
            tokens,
            channels,
        })
    }

    /// The scales of a call, against the operation's smoothing.
    fn scales(
        &self,
        check: &Check,
        shape: Shape,
        scales: Option<&TensorRef<'_>>,
    ) -> Result<Option<Smoothing>> {
        match (self.smoothing, scales) {
            (None, None) => Ok(None),
            (None, Some(_)) => check.fail("scales", "absent: there is no smoothing", "given"),
            (Some(smoothing), given) => {
                let len = smoothing.scales(shape.tokens, shape.channels);
                let Some(view) = given else {
                    return check.fail("scales", format!("[{len}] f32"), "absent");
                };
                check.tensor("scales", view, &[DType::F32], &[len])?;
                Ok(Some(smoothing))
            }
        }
    }

    pub(super) fn forward_plain(
        &self,
        check: &Check,
        inputs: Inputs<'_>,
        scales: Option<SmoothingScales<'_>>,
        y: TensorMut<'_>,
    ) -> Result<()> {
        let shape = self.shape(check, &inputs)?;
        check.rows("y", &y.as_ref(), shape.tokens, shape.channels)?;
        self.run_forward(check, shape, inputs, scales, Output::Plain(y))
    }

    pub(super) fn forward_quantized(
        &self,
        check: &Check,
        inputs: Inputs<'_>,
        scales: Option<SmoothingScales<'_>>,
        mut arguments: QuantizeArguments<'_>,
        outputs: &mut QuantizeOutputs<'_>,
    ) -> Result<()> {
        let options = self.output(check)?;
        let shape = self.shape(check, &inputs)?;
        let whole = quant_shape(check, shape.tokens, shape.channels, &arguments)?;
        let bytes = quantize_workspace_bytes(options, whole);
        let store = Store::new(check, options, whole, &mut arguments, outputs, bytes)?;
        let y = Output::Quantized(Box::new(store));
        self.run_forward(check, shape, inputs, scales, y)
    }

    fn run_forward(
        &self,
        check: &Check,
        shape: Shape,
        inputs: Inputs<'_>,
        scales: Option<SmoothingScales<'_>>,
        y: Output<'_>,
    ) -> Result<()> {
        let view = scales.as_ref().map(|scales| match scales {
            SmoothingScales::Computed(view) => view.as_ref(),
            SmoothingScales::Given(view) => *view,
        });
        let smoothing = self.scales(check, shape, view.as_ref())?;
        let (mut reads, mut writes) = (Named::new(), Named::new());
        inputs.name(&mut reads);
        match &scales {
            Some(SmoothingScales::Computed(view)) => writes.push(("scales", view.as_ref())),
            Some(SmoothingScales::Given(view)) => reads.push(("scales", *view)),
            None => {}
        }
        y.name("y", &mut reads, &mut writes);
        self.stream.check_views(check.op, &reads, &writes)?;
        let call = ForwardCall {
            shape,
            inputs,
            scales: smoothing.zip(scales),
            y,
        };
        match &self.kernels {
            Some(kernels) => kernels.forward(&self.stream, call),
            None => {
                self.stream.raise(host::forward(call)?);
                Ok(())
            }
        }
    }

    pub(super) fn backward_plain(
        &self,
        check: &Check,
        inputs: Inputs<'_>,
        scales: Option<TensorRef<'_>>,
        dy: TensorRef<'_>,
        dx: Output<'_>,
    ) -> Result<()> {
        let shape = self.shape(check, &inputs)?;
        let columns = self.gradient_columns(shape.channels);
        match &dx {
            Output::Plain(view) => check.rows("dx", &view.as_ref(), shape.tokens, columns)?,
            Output::Apart(gate, up) => {
                for (name, view) in [("gradients.gate", gate), ("gradients.up", up)] {
                    check.rows(name, &view.as_ref(), shape.tokens, shape.channels)?;
                }
            }
            Output::Quantized(_) => {}
        }
        self.run_backward(check, shape, inputs, scales, dy, dx)
    }

    pub(super) fn backward_quantized(
        &self,
        check: &Check,
        inputs: Inputs<'_>,
        scales: Option<TensorRef<'_>>,
        dy: TensorRef<'_>,
        mut arguments: QuantizeArguments<'_>,
        outputs: &mut QuantizeOutputs<'_>,
    ) -> Result<()> {
        let options = self.gradient(check)?;
        let shape = self.shape(check, &inputs)?;
        let columns = self.gradient_columns(shape.channels);
        let whole = quant_shape(check, shape.tokens, columns, &arguments)?;
        let bytes = quantize_workspace_bytes(options, whole);
        let store = Store::new(check, options, whole, &mut arguments, outputs, bytes)?;
        let dx = Output::Quantized(Box::new(store));
        self.run_backward(check, shape, inputs, scales, dy, dx)
    }

    fn run_backward<'a>(
        &self,
        check: &Check,
        shape: Shape,
        inputs: Inputs<'a>,
        scales: Option<TensorRef<'a>>,
        dy: TensorRef<'a>,
        dx: Output<'_>,
    ) -> Result<()> {
        check.rows("dy", &dy, shape.tokens, shape.channels)?;
        let smoothing = self.scales(check, shape, scales.as_ref())?;
        let (mut reads, mut writes) = (Named::new(), Named::new());
        inputs.name(&mut reads);
        read(&mut reads, [("scales", scales), ("dy", Some(dy))]);
        dx.name("dx", &mut reads, &mut writes);
        self.stream.check_views(check.op, &reads, &writes)?;
        let call = BackwardCall {
            shape,
            inputs,
            scales: smoothing.zip(scales),
            dy,
            dx,
        };
        match &self.kernels {
            Some(kernels) => kernels.backward(&self.stream, call),
            None => {
                self.stream.raise(host::backward(call)?);
                Ok(())
            }
        }
    }

    /// Bytes of workspace for an output quantised with these options.
    pub(super) fn workspace_bytes(
        quantize: Option<&Quantize>,
        rows: usize,
        columns: usize,
        groups: usize,
    ) -> usize {
        let shape = QuantShape {
            rows,
            columns,
            groups,
        };
        quantize.map_or(0, |quantize| quantize_workspace_bytes(quantize, shape))
    }

    /// Memory for quantised results of this shape.
    pub(super) fn room(
        &self,
        options: &Quantize,
        rows: usize,
        columns: usize,
        groups: usize,
    ) -> Result<Quantized> {
        let shape = QuantShape {
            rows,
            columns,
            groups,
        };
        Quantized::allocate(&self.stream, options, shape)
    }

    /// Memory for quantised results of this shape, and for what making them needs.
    pub(super) fn allocate(
        &self,
        check: &Check,
        options: &Quantize,
        rows: usize,
        columns: usize,
        arguments: &QuantizeArguments<'_>,
    ) -> Result<(Quantized, crate::Buffer)> {
        let shape = quant_shape(check, rows, columns, arguments)?;
        let bytes = quantize_workspace_bytes(options, shape);
        Ok((
            Quantized::allocate(&self.stream, options, shape)?,
            self.stream.uninitialised(DType::U8, &[bytes])?,
        ))
    }
}

fn quant_shape(
    check: &Check,
    rows: usize,
    columns: usize,
    arguments: &QuantizeArguments<'_>,
) -> Result<QuantShape> {
    let shape = QuantShape {
        rows,
        columns,
        groups: group_count(check, arguments.groups.as_ref())?,
    };
    check::tiles(check, "x", shape)?;
    Ok(shape)
}
