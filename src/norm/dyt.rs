//! The operation: dynamic tanh and its gradients.

#[cfg(test)]
mod tests;

use super::arguments::{GradientOutputs, Weights};
use super::call::Pair;
use super::host;
use super::kernels::{DytKernels, dyt_workspace_bytes};
use crate::check::{Check, FLOATS, Named, read, reborrow, write};
use crate::device::stream::Backend;
#[cfg(feature = "quant")]
use crate::quant::Quantize;
use crate::rows::RowShape;
use crate::{Buffer, DType, Result, Stream, TensorMut, TensorRef};

/// Dynamic tanh, which stands where a normalization would; to be prepared for a stream.
///
/// ```text
/// y = gamma tanh(alpha x) + beta
///
/// dx = alpha gamma dy (1 - t^2)         dalpha = sum gamma dy x (1 - t^2)
/// dgamma = sum_rows dy t                dbeta = sum_rows dy                 t = tanh(alpha x)
/// ```
///
/// alpha is one learned number, which lies on the device; 0.5 is its authors' start.
///
/// Source: "Transformers without Normalization" (arXiv 2503.10622).
///
/// ```
/// use evenkeel::{Device, norm::{Dyt, Weights}};
///
/// let stream = Device::cpu().stream()?;
/// let x = stream.upload(&[2, 2], &[0.0_f32, 2.0, -2.0, 1e30])?;
/// let alpha = stream.upload(&[1], &[0.5_f32])?;
/// let gamma = stream.upload(&[2], &[2.0_f32, 3.0])?;
/// let op = Dyt::new().prepare(&stream)?;
/// let y = op.forward(x.view(), alpha.view(), &Weights::gamma(gamma.view()))?;
/// let tanh = 1_f32.tanh();
/// assert_eq!(y.read::<f32>()?, [0.0, 3.0 * tanh, -2.0 * tanh, 3.0]);
///
/// let dy = stream.upload(&[2, 2], &[1.0_f32; 4])?;
/// let gradients = op.backward(x.view(), alpha.view(), &Weights::gamma(gamma.view()), dy.view())?;
/// assert_eq!(gradients.dx.read_range::<f32>(0..1)?, [1.0]); // alpha gamma, where x is 0
/// assert!(gradients.dgamma.is_some() && gradients.dbeta.is_none());
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Dyt {
    #[cfg(feature = "quant")]
    quantize: Option<Quantize>,
}

impl Dyt {
    /// It has no options of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How [`forward_quantized`](PreparedDyt::forward_quantized) quantises y, as
    /// [`Norm::quantized`](super::Norm::quantized) says.
    #[cfg(feature = "quant")]
    #[must_use]
    pub fn quantized(mut self, quantize: Quantize) -> Self {
        self.quantize = Some(quantize);
        self
    }

    /// Loads the kernels, so that calls can be captured into a graph.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) on devices that have no kernels for it.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedDyt> {
        let kernels = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(DytKernels::load(stream)?),
        };
        let op = PreparedDyt {
            stream: stream.clone(),
            kernels,
            #[cfg(feature = "quant")]
            quantize: None,
        };
        #[cfg(feature = "quant")]
        let op = op.quantized(self.quantize)?;
        Ok(op)
    }
}

/// What [`PreparedDyt::backward`] returns, on the device.
#[derive(Debug)]
pub struct DytGradients {
    /// Of x: of its type and shape.
    pub dx: Buffer,
    /// Of alpha, `[1]` f32.
    pub dalpha: Buffer,
    /// Of gamma, `[D]` f32, where there is one.
    pub dgamma: Option<Buffer>,
    /// Of beta, `[D]` f32, where there is one.
    pub dbeta: Option<Buffer>,
}

/// A forward whose arguments fit.
#[derive(Debug)]
pub(super) struct ForwardCall<'a> {
    pub(super) shape: RowShape,
    /// `[1]` f32.
    pub(super) alpha: TensorRef<'a>,
    /// `[columns]` each.
    pub(super) weights: Weights<'a>,
    /// x and y.
    pub(super) x: Pair<'a>,
}

/// A backward whose arguments fit.
#[derive(Debug)]
pub(super) struct BackwardCall<'a> {
    pub(super) shape: RowShape,
    /// `[1]` f32.
    pub(super) alpha: TensorRef<'a>,
    /// `[columns]` each.
    pub(super) weights: Weights<'a>,
    pub(super) x: TensorRef<'a>,
    /// dy and dx.
    pub(super) dy: Pair<'a>,
    /// `[1]` f32.
    pub(super) dalpha: Option<TensorMut<'a>>,
    /// `[columns]` f32.
    pub(super) dgamma: Option<TensorMut<'a>>,
    /// `[columns]` f32.
    pub(super) dbeta: Option<TensorMut<'a>>,
    /// Whether these three are added to what is there; without rows they become 0 or stay.
    pub(super) accumulate: bool,
    /// There when any of them is.
    pub(super) workspace: Option<TensorMut<'a>>,
}

/// A [`Dyt`] ready to run on a stream.
///
/// - x, y, dy and dx are `[.., D]` bf16, f16 or f32, each of its own type, rows at any stride; alpha
///   is `[1]` f32; gamma and beta are `[D]`, of any of these types, and 1 and 0 where absent.
/// - Gradients of alpha, gamma and beta are sums over the rows in a fixed order, f32.
/// - Each element is on its own: an infinite x has the formulas' limits, NaN stays NaN; either sets
///   [`Status::NON_FINITE_ROW`](crate::Status::NON_FINITE_ROW).
/// - The CPU computes in f64, kernels in f32; both round each result once.
#[derive(Debug)]
pub struct PreparedDyt {
    pub(super) stream: Stream,
    /// None: the reference runs the calls.
    pub(super) kernels: Option<DytKernels>,
    /// How results are quantised, where they are.
    #[cfg(feature = "quant")]
    pub(super) quantize: Option<Quantize>,
}

impl PreparedDyt {
    /// Scratch that [`backward_into`](Self::backward_into) needs for gradients of alpha, gamma or
    /// beta, in bytes.
    #[must_use]
    pub fn backward_workspace_bytes(&self, rows: usize, columns: usize) -> usize {
        dyt_workspace_bytes(rows, columns)
    }

    /// y, of x's type and shape; one read of x, one write.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for what does not fit, and the device's errors.
    pub fn forward(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        weights: &Weights<'_>,
    ) -> Result<Buffer> {
        inputs(&self.check("Dyt::forward"), &x, &alpha, weights)?;
        let mut y = self.stream.uninitialised(x.dtype(), x.shape())?;
        self.forward_into(x, alpha, weights, y.view_mut())?;
        Ok(y)
    }

    /// As [`forward`](Self::forward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_into(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        weights: &Weights<'_>,
        mut y: TensorMut<'_>,
    ) -> Result<()> {
        let check = self.check("Dyt::forward");
        let shape = inputs(&check, &x, &alpha, weights)?;
        shape.check(&check, "y", &y.as_ref())?;
        self.run_forward(&check, shape, alpha, weights, Pair::Apart(x, y.reborrow()))
    }

    /// As [`forward_into`](Self::forward_into), y over x.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_in_place(
        &self,
        mut x: TensorMut<'_>,
        alpha: TensorRef<'_>,
        weights: &Weights<'_>,
    ) -> Result<()> {
        let check = self.check("Dyt::forward_in_place");
        let shape = inputs(&check, &x.as_ref(), &alpha, weights)?;
        self.run_forward(&check, shape, alpha, weights, Pair::InPlace(x.reborrow()))
    }

    /// The gradients of x, of alpha and of the weights that are given; one read of x and dy, one
    /// write of dx.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        weights: &Weights<'_>,
        dy: TensorRef<'_>,
    ) -> Result<DytGradients> {
        let shape = inputs(&self.check("Dyt::backward"), &x, &alpha, weights)?;
        let columns = shape.columns;
        let vector = |wanted: bool| {
            let allocate = || self.stream.uninitialised(DType::F32, &[columns]);
            wanted.then(allocate).transpose()
        };
        let bytes = self.backward_workspace_bytes(shape.rows(), columns);
        let mut workspace = self.stream.uninitialised(DType::U8, &[bytes])?;
        let mut gradients = DytGradients {
            dx: self.stream.uninitialised(x.dtype(), x.shape())?,
            dalpha: self.stream.uninitialised(DType::F32, &[1])?,
            dgamma: vector(weights.gamma.is_some())?,
            dbeta: vector(weights.beta.is_some())?,
        };
        let mut outputs = GradientOutputs {
            dalpha: Some(gradients.dalpha.view_mut()),
            dgamma: gradients.dgamma.as_mut().map(Buffer::view_mut),
            dbeta: gradients.dbeta.as_mut().map(Buffer::view_mut),
            workspace: Some(workspace.view_mut()),
            ..GradientOutputs::default()
        };
        self.backward_into(x, alpha, weights, dy, gradients.dx.view_mut(), &mut outputs)?;
        Ok(gradients)
    }

    /// As [`backward`](Self::backward), into memory of the caller's; of the gradients of alpha, gamma
    /// and beta those that `outputs` has room for. It takes no `dresidual`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_into(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        weights: &Weights<'_>,
        dy: TensorRef<'_>,
        mut dx: TensorMut<'_>,
        outputs: &mut GradientOutputs<'_>,
    ) -> Result<()> {
        let check = self.check("Dyt::backward");
        let shape = inputs(&check, &x, &alpha, weights)?;
        shape.check(&check, "dy", &dy)?;
        shape.check(&check, "dx", &dx.as_ref())?;
        self.run_backward(
            &check,
            (shape, x),
            alpha,
            weights,
            Pair::Apart(dy, dx.reborrow()),
            outputs,
        )
    }

    /// As [`backward_into`](Self::backward_into), dx over dy.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_in_place(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        weights: &Weights<'_>,
        mut dy: TensorMut<'_>,
        outputs: &mut GradientOutputs<'_>,
    ) -> Result<()> {
        let check = self.check("Dyt::backward_in_place");
        let shape = inputs(&check, &x, &alpha, weights)?;
        shape.check(&check, "dy", &dy.as_ref())?;
        self.run_backward(
            &check,
            (shape, x),
            alpha,
            weights,
            Pair::InPlace(dy.reborrow()),
            outputs,
        )
    }

    pub(super) fn check(&self, op: &'static str) -> Check {
        Check::new(op, &self.stream)
    }

    fn run_forward<'a>(
        &self,
        check: &Check,
        shape: RowShape,
        alpha: TensorRef<'a>,
        weights: &Weights<'a>,
        x: Pair<'a>,
    ) -> Result<()> {
        let (mut reads, mut writes) = (input_views(alpha, weights), Vec::new());
        x.name(["x", "y"], &mut reads, &mut writes);
        self.stream.check_views(check.op, &reads, &writes)?;
        let call = ForwardCall {
            shape,
            alpha,
            weights: *weights,
            x,
        };
        match &self.kernels {
            Some(kernels) => kernels.forward(&self.stream, call),
            None => {
                self.stream.raise(host::dyt::forward(call)?);
                Ok(())
            }
        }
    }

    fn run_backward<'a>(
        &self,
        check: &Check,
        (shape, x): (RowShape, TensorRef<'a>),
        alpha: TensorRef<'a>,
        weights: &Weights<'a>,
        dy: Pair<'a>,
        outputs: &'a mut GradientOutputs<'_>,
    ) -> Result<()> {
        let residual = outputs.dresidual.is_some();
        check.absent("dresidual", residual, "there is no residual")?;
        let call = BackwardCall {
            shape,
            alpha,
            weights: *weights,
            x,
            dy,
            dalpha: reborrow(&mut outputs.dalpha),
            dgamma: reborrow(&mut outputs.dgamma),
            dbeta: reborrow(&mut outputs.dbeta),
            accumulate: outputs.accumulate,
            workspace: reborrow(&mut outputs.workspace),
        };
        let bytes = self.backward_workspace_bytes(shape.rows(), shape.columns);
        call.check_outputs(check, bytes, &self.stream)?;
        match &self.kernels {
            Some(kernels) => kernels.backward(&self.stream, call),
            None => {
                self.stream.raise(host::dyt::backward(call)?);
                Ok(())
            }
        }
    }
}

impl BackwardCall<'_> {
    /// What is written beside dx, and that nothing written overlaps anything else.
    fn check_outputs(&self, check: &Check, bytes: usize, stream: &Stream) -> Result<()> {
        let RowShape { columns, .. } = self.shape;
        let Weights { gamma, beta } = self.weights;
        let mut reads = input_views(self.alpha, &self.weights);
        reads.push(("x", self.x));
        let mut writes = Named::new();
        for (argument, view, possible, elements) in [
            ("dalpha", &self.dalpha, true, 1),
            ("dgamma", &self.dgamma, gamma.is_some(), columns),
            ("dbeta", &self.dbeta, beta.is_some(), columns),
        ] {
            if let Some(view) = view {
                check.absent(argument, !possible, "its weight is not given")?;
                check.tensor(argument, &view.as_ref(), &[DType::F32], &[elements])?;
                writes.push((argument, view.as_ref()));
            }
        }
        let needed = if writes.is_empty() { 0 } else { bytes };
        check.workspace(self.workspace.as_ref(), needed)?;
        write(&mut writes, [("workspace", &self.workspace)]);
        self.dy.name(["dy", "dx"], &mut reads, &mut writes);
        stream.check_views(check.op, &reads, &writes)
    }
}

/// What every call reads, against x.
pub(super) fn inputs(
    check: &Check,
    x: &TensorRef<'_>,
    alpha: &TensorRef<'_>,
    weights: &Weights<'_>,
) -> Result<RowShape> {
    let shape = RowShape::of(check, "x", x)?;
    check.tensor("alpha", alpha, &[DType::F32], &[1])?;
    for (argument, weight) in [("gamma", weights.gamma), ("beta", weights.beta)] {
        if let Some(weight) = weight {
            check.tensor(argument, &weight, &FLOATS, &[shape.columns])?;
        }
    }
    Ok(shape)
}

pub(super) fn input_views<'a>(alpha: TensorRef<'a>, weights: &Weights<'a>) -> Named<'a> {
    let mut views: Named<'_> = vec![("alpha", alpha)];
    read(
        &mut views,
        [("gamma", weights.gamma), ("beta", weights.beta)],
    );
    views
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedDyt>();
};
