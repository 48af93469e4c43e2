//! The operation: softmax, log-softmax and `StableMax` of masked rows, and their gradients.

mod arguments;
#[cfg(all(test, feature = "emulator"))]
mod extremes;
mod options;
#[cfg(test)]
mod tests;

pub use arguments::{SoftmaxIncoming, SoftmaxResult, SoftmaxStatistics};
pub use options::{Causal, SoftmaxKind, SoftmaxOptions};

pub(super) use arguments::{BackwardCall, Blocks, ForwardCall};

use super::call::Pair;
use super::host;
use super::kernels::SoftmaxKernels;
use crate::check::{Check, INTEGERS, Named, read, reborrow, write};
use crate::device::stream::Backend;
use crate::{Buffer, DType, Result, Stream, TensorMut, TensorRef};

/// A softmax over the rows of `[.., queries, keys]`, to be prepared for a stream.
///
/// With z = scale x over the keys that a row sees and whose x is not -inf,
///
/// ```text
/// softmax      p_j = exp(z_j) / sum_k exp(z_k)
/// log-softmax  log p_j
/// stablemax    p_j = s(z_j) / sum_k s(z_k)      s(z) = z + 1 (z >= 0), 1 / (1 - z) (z < 0)
/// entropy      H = -sum_j p_j log p_j
/// ```
///
/// and p = 0 elsewhere. A query sees the keys that the causal mask leaves it and, where lengths come
/// with the call, those below its batch's length; what it does not see is not read. Each row's
/// entropy comes for free: attention whose entropy collapses is about to diverge (arXiv 2303.06296).
///
/// Sources: "Online normalizer calculation for softmax" (arXiv 1805.02867); "Grokking at the Edge of
/// Numerical Stability" (arXiv 2501.04697) for `StableMax`.
///
/// ```
/// use evenkeel::{Device, norm::{Causal, Softmax, SoftmaxIncoming, SoftmaxKind}};
///
/// let stream = Device::cpu().stream()?;
/// let scores = stream.upload(&[2, 2], &[0.0_f32, 9.0, 0.5, 0.5])?; // [queries, keys]
/// let op = Softmax::new(SoftmaxKind::Softmax).causal(Causal::End).prepare(&stream)?;
/// let result = op.forward(scores.view(), None)?;
/// assert_eq!(result.y.read::<f32>()?, [1.0, 0.0, 0.5, 0.5]); // the first query sees the first key
/// assert_eq!(result.entropy.read::<f32>()?, [0.0, std::f32::consts::LN_2]);
///
/// let dy = stream.upload(&[2, 2], &[3.0_f32, 5.0, 1.0, 0.0])?;
/// let dx = op.backward(result.y.view(), None, dy.view(), &result.incoming())?;
/// assert_eq!(dx.read::<f32>()?, [0.0, 0.0, 0.25, -0.25]);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Softmax {
    options: SoftmaxOptions,
}

impl Softmax {
    /// Of the scores as they are, all keys seen.
    #[must_use]
    pub fn new(kind: SoftmaxKind) -> Self {
        Self::from(SoftmaxOptions::new(kind))
    }

    /// What x is multiplied by, > 0; 1 by default.
    #[must_use]
    pub fn scale(mut self, scale: f32) -> Self {
        self.options.scale = scale;
        self
    }

    /// A causal mask; none by default.
    #[must_use]
    pub fn causal(mut self, causal: Causal) -> Self {
        self.options.causal = Some(causal);
        self
    }

    /// The options as they stand.
    #[must_use]
    pub fn options(&self) -> &SoftmaxOptions {
        &self.options
    }

    /// Validates the options and loads the kernels, so that calls can be captured into a graph.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a scale outside its range, and the device's
    /// errors.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedSoftmax> {
        self.options.validate()?;
        let kernels = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(SoftmaxKernels::load(stream)?),
        };
        Ok(PreparedSoftmax {
            options: self.options,
            stream: stream.clone(),
            kernels,
        })
    }
}

impl From<SoftmaxOptions> for Softmax {
    fn from(options: SoftmaxOptions) -> Self {
        Self { options }
    }
}

/// A [`Softmax`] ready to run on a stream.
///
/// - x, y, dy and dx are `[.., queries, keys]` bf16, f16 or f32, each of its own type, rows at any
///   stride; one dimension is a single query. The shape of x (in backward: of y) says how many rows
///   a block has, from which the causal mask counts.
/// - `lengths` is `[batches]` i64, i32 or u32: how many keys each batch has. The rows are divided
///   among the batches in order, so for `[batch, heads, queries, keys]` there are as many lengths as
///   the first dimension has. A length below 0 is 0, one beyond the keys all of them.
/// - A row that sees no key is 0 throughout (its logarithm -inf); its entropy and gradient are 0. A
///   row that sees NaN or +inf is NaN where it sees anything, and sets
///   [`Status::NON_FINITE_ROW`](crate::Status::NON_FINITE_ROW).
/// - The CPU computes in f64, kernels in f32; both round each result once. To kernels, what leaves
///   f32's range is infinite: a difference of two x, a score or the sum of `StableMax`, a backward's
///   sum over a row.
/// - x beyond what a row sees changes nothing; kernels read it to the end of its 16 bytes.
#[derive(Debug)]
pub struct PreparedSoftmax {
    options: SoftmaxOptions,
    stream: Stream,
    /// None: the reference runs the calls.
    kernels: Option<SoftmaxKernels>,
}

impl PreparedSoftmax {
    /// The options.
    #[must_use]
    pub fn options(&self) -> &SoftmaxOptions {
        &self.options
    }

    /// y, entropies and normalizers; one read of x.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for what does not fit, and the device's errors.
    pub fn forward(
        &self,
        x: TensorRef<'_>,
        lengths: Option<TensorRef<'_>>,
    ) -> Result<SoftmaxResult> {
        let check = self.check("Softmax::forward");
        blocks(&check, "x", &x, lengths)?;
        let rows = [x.rows()];
        let mut result = SoftmaxResult {
            y: self.stream.uninitialised(x.dtype(), x.shape())?,
            entropy: self.stream.uninitialised(DType::F32, &rows)?,
            normalizer: self.stream.uninitialised(DType::F32, &rows)?,
        };
        let mut statistics = SoftmaxStatistics::default()
            .entropy(result.entropy.view_mut())
            .normalizer(result.normalizer.view_mut());
        self.forward_into(x, lengths, result.y.view_mut(), &mut statistics)?;
        Ok(result)
    }

    /// As [`forward`](Self::forward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_into(
        &self,
        x: TensorRef<'_>,
        lengths: Option<TensorRef<'_>>,
        mut y: TensorMut<'_>,
        statistics: &mut SoftmaxStatistics<'_>,
    ) -> Result<()> {
        let check = self.check("Softmax::forward");
        let blocks = blocks(&check, "x", &x, lengths)?;
        check.rows("y", &y.as_ref(), blocks.rows, blocks.keys)?;
        self.run_forward(&check, blocks, Pair::Apart(x, y.reborrow()), statistics)
    }

    /// As [`forward_into`](Self::forward_into), y over x.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_in_place(
        &self,
        mut x: TensorMut<'_>,
        lengths: Option<TensorRef<'_>>,
        statistics: &mut SoftmaxStatistics<'_>,
    ) -> Result<()> {
        let check = self.check("Softmax::forward_in_place");
        let blocks = blocks(&check, "x", &x.as_ref(), lengths)?;
        self.run_forward(&check, blocks, Pair::InPlace(x.reborrow()), statistics)
    }

    /// The gradient of x, of y's type and shape, from y as a forward stored it:
    ///
    /// ```text
    /// softmax      dx_j = scale p_j (g_j - sum_k p_k g_k - u (log p_j + H))
    /// log-softmax  dx_j = scale (g_j - p_j (sum_k g_k + u (log p_j + H)))
    /// stablemax    dx_j = scale s'_j / S (g_j - sum_k p_k g_k - u (log p_j + H))      s'_j = min(1, S p_j)^2
    /// ```
    ///
    /// with g the gradient of y and u that of the entropy; 0 where p is. One read of y and dy, one
    /// write of dx. `lengths` are the forward's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); `StableMax` needs the normalizers.
    pub fn backward(
        &self,
        y: TensorRef<'_>,
        lengths: Option<TensorRef<'_>>,
        dy: TensorRef<'_>,
        incoming: &SoftmaxIncoming<'_>,
    ) -> Result<Buffer> {
        let check = self.check("Softmax::backward");
        blocks(&check, "y", &y, lengths)?;
        let mut dx = self.stream.uninitialised(y.dtype(), y.shape())?;
        self.backward_into(y, lengths, dy, incoming, dx.view_mut())?;
        Ok(dx)
    }

    /// As [`backward`](Self::backward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`backward`](Self::backward).
    pub fn backward_into(
        &self,
        y: TensorRef<'_>,
        lengths: Option<TensorRef<'_>>,
        dy: TensorRef<'_>,
        incoming: &SoftmaxIncoming<'_>,
        mut dx: TensorMut<'_>,
    ) -> Result<()> {
        let check = self.check("Softmax::backward");
        let blocks = blocks(&check, "y", &y, lengths)?;
        check.rows("dy", &dy, blocks.rows, blocks.keys)?;
        check.rows("dx", &dx.as_ref(), blocks.rows, blocks.keys)?;
        self.run_backward(&check, blocks, y, Pair::Apart(dy, dx.reborrow()), incoming)
    }

    /// As [`backward_into`](Self::backward_into), dx over dy.
    ///
    /// # Errors
    /// As [`backward`](Self::backward).
    pub fn backward_in_place(
        &self,
        y: TensorRef<'_>,
        lengths: Option<TensorRef<'_>>,
        mut dy: TensorMut<'_>,
        incoming: &SoftmaxIncoming<'_>,
    ) -> Result<()> {
        let check = self.check("Softmax::backward_in_place");
        let blocks = blocks(&check, "y", &y, lengths)?;
        check.rows("dy", &dy.as_ref(), blocks.rows, blocks.keys)?;
        self.run_backward(&check, blocks, y, Pair::InPlace(dy.reborrow()), incoming)
    }

    fn check(&self, op: &'static str) -> Check {
        Check::new(op, &self.stream)
    }

    fn run_forward<'a>(
        &'a self,
        check: &Check,
        blocks: Blocks<'a>,
        x: Pair<'a>,
        statistics: &'a mut SoftmaxStatistics<'_>,
    ) -> Result<()> {
        let call = ForwardCall {
            options: &self.options,
            blocks,
            x,
            entropy: reborrow(&mut statistics.entropy),
            normalizer: reborrow(&mut statistics.normalizer),
        };
        let (mut reads, mut writes) = (Named::new(), Named::new());
        let statistics = [("entropy", &call.entropy), ("normalizer", &call.normalizer)];
        write(&mut writes, statistics);
        for (argument, view) in &writes {
            check.tensor(argument, view, &[DType::F32], &[blocks.rows])?;
        }
        call.x.name(["x", "y"], &mut reads, &mut writes);
        read(&mut reads, [("lengths", blocks.lengths)]);
        self.stream.check_views(check.op, &reads, &writes)?;
        match &self.kernels {
            None => self.stream.raise(host::softmax::forward(call)?),
            Some(kernels) => kernels.forward(&self.stream, call)?,
        }
        Ok(())
    }

    fn run_backward<'a>(
        &'a self,
        check: &Check,
        blocks: Blocks<'a>,
        y: TensorRef<'a>,
        dy: Pair<'a>,
        incoming: &SoftmaxIncoming<'a>,
    ) -> Result<()> {
        let SoftmaxIncoming {
            dentropy,
            normalizer,
        } = *incoming;
        if self.options.kind == SoftmaxKind::StableMax && normalizer.is_none() {
            let expected = "given: the gradient of stablemax needs those of the forward";
            return check.fail("normalizer", expected, "absent");
        }
        let (mut reads, mut writes) = (Named::new(), Named::new());
        let vectors = [("dentropy", dentropy), ("normalizer", normalizer)];
        read(&mut reads, vectors);
        for (argument, view) in &reads {
            check.tensor(argument, view, &[DType::F32], &[blocks.rows])?;
        }
        read(&mut reads, [("y", Some(y)), ("lengths", blocks.lengths)]);
        dy.name(["dy", "dx"], &mut reads, &mut writes);
        self.stream.check_views(check.op, &reads, &writes)?;
        let call = BackwardCall {
            options: &self.options,
            blocks,
            y,
            dy,
            dentropy,
            normalizer,
        };
        match &self.kernels {
            None => self.stream.raise(host::softmax::backward(call)?),
            Some(kernels) => kernels.backward(&self.stream, call)?,
        }
        Ok(())
    }
}

/// The blocks of `x`, which is `[.., queries, keys]`.
fn blocks<'a>(
    check: &Check,
    argument: &'static str,
    x: &TensorRef<'_>,
    lengths: Option<TensorRef<'a>>,
) -> Result<Blocks<'a>> {
    let (rows, keys) = (x.rows(), x.columns());
    check.rows(argument, x, rows, keys)?;
    check.row_count(argument, rows, keys)?;
    if let Some(lengths) = &lengths {
        let batches = lengths.elements();
        check.tensor("lengths", lengths, &INTEGERS, &[batches])?;
        if rows > 0 && (batches == 0 || !rows.is_multiple_of(batches)) {
            let expected = format!("one for each batch, as many as divide the {rows} rows");
            return check.fail("lengths", expected, format!("{batches} of them"));
        }
    }
    let queries = x.shape().iter().rev().nth(1).copied().unwrap_or(1);
    Ok(Blocks {
        rows,
        queries,
        keys,
        lengths,
    })
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedSoftmax>();
};
