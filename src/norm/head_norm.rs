//! The operation: normalization of attention heads (QK-norm), and rotary embedding.

use super::NormKind;
use super::arguments::{GradientOutputs, RotaryTables, Saved, Statistics, Weights};
use super::call::{BackwardCall, ForwardCall, Pair, RowOp};
use super::check::workspace_bytes;
use super::result::{HeadNormResult, NormGradients, WeightBuffers, like};
use super::{HeadNormOptions, Pairing, Rotary};
use crate::check::{Check, reborrow};
#[cfg(feature = "quant")]
use crate::quant::Quantize;
use crate::rows::{RowShape, WeightForm};
use crate::{Error, Result, Stream, TensorMut, TensorRef};

/// Normalization of each head of `[tokens, heads, head_dim]` (QK-norm, arXiv 2010.04245), then a
/// rotary embedding (`RoFormer`, arXiv 2104.09864); either may be absent. To be prepared for a stream.
///
/// Each head is a row of [`Norm`](super::Norm), with its formulas. Of its result, pair i of the first
/// `width` elements, (a, b), turns by the token's angle, whose cosine c and sine s the tables have:
///
/// ```text
/// (a, b) -> (a c - b s, a s + b c)        backward (da, db) -> (da c + db s, db c - da s)
/// ```
///
/// The result is rounded once, after both. The tables have no gradient.
///
/// ```
/// use evenkeel::{Device, norm::{HeadNorm, HeadNormOptions, Pairing, RotaryTables, Weights}};
///
/// let stream = Device::cpu().stream()?;
/// // One token of two heads of length 2, each turned by a right angle.
/// let mut q = stream.upload(&[1, 2, 2], &[1.0_f32, 7.0, 10.0, 70.0])?;
/// let cos = stream.upload(&[1, 1], &[0.0_f32])?;
/// let sin = stream.upload(&[1, 1], &[1.0_f32])?;
/// let tables = RotaryTables::new(cos.view(), sin.view());
///
/// let options = HeadNormOptions::default().rotary(Pairing::HalfSplit, 2);
/// let op = HeadNorm::new(options, 2).prepare(&stream)?;
/// let y = op.forward(q.view(), &Weights::default(), Some(&tables))?.y.read::<f32>()?;
/// for (got, expected) in y.iter().zip([-1.4, 0.2, -1.4, 0.2]) {
///     assert!((got - expected).abs() < 1e-6);
/// }
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HeadNorm {
    options: HeadNormOptions,
    heads: usize,
    #[cfg(feature = "quant")]
    quantize: Option<Quantize>,
}

impl HeadNorm {
    /// Of so many heads.
    #[must_use]
    pub fn new(options: HeadNormOptions, heads: usize) -> Self {
        Self {
            options,
            heads,
            #[cfg(feature = "quant")]
            quantize: None,
        }
    }

    /// With a rotary embedding of the first `width` elements of each head after the normalization.
    #[must_use]
    pub fn rotary(mut self, pairing: Pairing, width: usize) -> Self {
        self.options = self.options.rotary(pairing, width);
        self
    }

    /// How [`forward_quantized`](PreparedHeadNorm::forward_quantized) quantises y, as
    /// [`Norm::quantized`](super::Norm::quantized) says.
    ///
    /// y is `[tokens, heads * head_dim]`, whose blocks must divide a head; `fp8-row`, whose scales
    /// are of all heads of a token, takes one head alone.
    #[cfg(feature = "quant")]
    #[must_use]
    pub fn quantized(mut self, quantize: Quantize) -> Self {
        self.quantize = Some(quantize);
        self
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> &HeadNormOptions {
        &self.options
    }

    /// How many heads there are.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Validates the options and loads the kernels.
    ///
    /// # Errors
    /// [`Error::Argument`] for an option outside its range, [`Error::Unsupported`] on a device that
    /// has no kernels for it.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedHeadNorm> {
        // The length of a head comes with a call; all else is known.
        self.options.validate(usize::MAX)?;
        if self.heads == 0 {
            return Err(Error::argument("HeadNorm", "heads", "at least 1", "0"));
        }
        let kind = self.options.norm.map_or(NormKind::Rms, |norm| norm.kind);
        let rows = RowOp::prepare(stream, kind, "dgamma")?;
        #[cfg(feature = "quant")]
        let rows = rows.quantized("HeadNorm::quantized", kind, self.quantize)?;
        Ok(PreparedHeadNorm {
            options: self.options,
            heads: self.heads,
            rows,
        })
    }
}

/// A [`HeadNorm`] ready to run on a stream.
///
/// - x is `[tokens, heads * head_dim]`, whose row stride is free (the part of a packed projection that
///   holds the queries, for instance), `[tokens, heads, head_dim]` or
///   `[batch, tokens, heads, head_dim]`. y and the gradients of both have the same heads, in any of
///   these shapes, each bf16, f16 or f32 on its own.
/// - gamma and beta are `[head_dim]` or `[heads, head_dim]`, both of the same shape, in types of their
///   own. Statistics are `[tokens, heads]` f32, gradients of weights f32. Without a normalization
///   there are neither weights nor statistics, and backward takes neither x nor what was saved.
/// - Tables are given with a rotary embedding, and only then. On devices with kernels it turns heads
///   of up to 4096 elements.
/// - The forms ending in `_into` and `_in_place` write where the caller says and allocate nothing;
///   the others allocate what they return. What a call writes may not overlap anything else of it.
/// - A head that holds NaN or an infinity, or that has neither spread nor eps, is NaN and sets
///   [`Status::NON_FINITE_ROW`](crate::Status::NON_FINITE_ROW); other heads are not affected. Without
///   a normalization NaN and infinities reach their partners alone.
#[derive(Debug)]
pub struct PreparedHeadNorm {
    options: HeadNormOptions,
    heads: usize,
    pub(super) rows: RowOp,
}

/// What a backward needs of its forward: x, the weights, what was saved, the tables.
type ForwardInputs<'c, 'a> = (
    Option<TensorRef<'a>>,
    &'c Weights<'a>,
    Option<&'c Saved<'a>>,
    Option<&'c RotaryTables<'a>>,
);

impl PreparedHeadNorm {
    /// The options.
    #[must_use]
    pub fn options(&self) -> &HeadNormOptions {
        &self.options
    }

    /// How many heads there are.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Scratch that a backward of so many tokens needs for the gradients of weights, in bytes.
    #[must_use]
    pub fn backward_workspace_bytes(&self, tokens: usize, head_dim: usize) -> usize {
        workspace_bytes(tokens, self.heads.saturating_mul(head_dim))
    }

    /// y, of x's shape and type, and what the backward needs.
    ///
    /// # Errors
    /// [`Error::Argument`] for what does not fit, and the device's errors.
    pub fn forward(
        &self,
        x: TensorRef<'_>,
        weights: &Weights<'_>,
        tables: Option<&RotaryTables<'_>>,
    ) -> Result<HeadNormResult> {
        const OP: &str = "HeadNorm::forward";
        let shape = self.shape(&self.rows.check(OP), "x", &x)?;
        let kind = self.options.norm.map(|norm| norm.kind);
        let mut result = HeadNormResult::allocate(self.rows.stream(), &x, shape, kind)?;
        let (y, mut statistics) = result.outputs();
        self.run(OP, Pair::Apart(x, y), weights, tables, &mut statistics)?;
        Ok(result)
    }

    /// As [`forward`](Self::forward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_into(
        &self,
        x: TensorRef<'_>,
        weights: &Weights<'_>,
        tables: Option<&RotaryTables<'_>>,
        mut y: TensorMut<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        let rows = Pair::Apart(x, y.reborrow());
        self.run("HeadNorm::forward", rows, weights, tables, statistics)
    }

    /// As [`forward`](Self::forward), y over x.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_in_place(
        &self,
        mut x: TensorMut<'_>,
        weights: &Weights<'_>,
        tables: Option<&RotaryTables<'_>>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        const OP: &str = "HeadNorm::forward_in_place";
        let rows = Pair::InPlace(x.reborrow());
        self.run(OP, rows, weights, tables, statistics)
    }

    /// The gradients of x, in the shape and type of dy, and of the weights that are given.
    ///
    /// x is the forward's, and `saved` what it saved; both are absent without a normalization, since
    /// a rotation is turned back from dy alone.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(
        &self,
        x: Option<TensorRef<'_>>,
        weights: &Weights<'_>,
        saved: Option<&Saved<'_>>,
        tables: Option<&RotaryTables<'_>>,
        dy: TensorRef<'_>,
    ) -> Result<NormGradients> {
        let check = self.rows.check("HeadNorm::backward");
        let shape = self.shape(&check, "dy", &dy)?;
        self.weight_form(&check, shape, weights)?;
        let stream = self.rows.stream();
        let mut dx = like(stream, &dy, dy.dtype())?;
        let bytes = self.backward_workspace_bytes(shape.tokens, shape.columns);
        let mut buffers = WeightBuffers::allocate(stream, weights, bytes)?;
        let mut outputs = buffers.outputs();
        self.backward_into(x, weights, saved, tables, dy, dx.view_mut(), &mut outputs)?;
        let WeightBuffers { dgamma, dbeta, .. } = buffers;
        Ok(NormGradients { dx, dgamma, dbeta })
    }

    /// As [`backward`](Self::backward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    #[expect(clippy::too_many_arguments, reason = "each is a tensor of the formula")]
    pub fn backward_into(
        &self,
        x: Option<TensorRef<'_>>,
        weights: &Weights<'_>,
        saved: Option<&Saved<'_>>,
        tables: Option<&RotaryTables<'_>>,
        dy: TensorRef<'_>,
        mut dx: TensorMut<'_>,
        outputs: &mut GradientOutputs<'_>,
    ) -> Result<()> {
        let forward = (x, weights, saved, tables);
        let gradient = Pair::Apart(dy, dx.reborrow());
        self.run_backward("HeadNorm::backward", forward, gradient, outputs)
    }

    /// As [`backward`](Self::backward), dx over dy.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_in_place(
        &self,
        x: Option<TensorRef<'_>>,
        weights: &Weights<'_>,
        saved: Option<&Saved<'_>>,
        tables: Option<&RotaryTables<'_>>,
        mut dy: TensorMut<'_>,
        outputs: &mut GradientOutputs<'_>,
    ) -> Result<()> {
        let forward = (x, weights, saved, tables);
        let gradient = Pair::InPlace(dy.reborrow());
        self.run_backward("HeadNorm::backward_in_place", forward, gradient, outputs)
    }

    pub(super) fn shape(
        &self,
        check: &Check,
        argument: &'static str,
        view: &TensorRef<'_>,
    ) -> Result<RowShape> {
        let shape = RowShape::of_heads(check, argument, view, self.heads)?;
        self.options.validate(shape.columns)?;
        Ok(shape)
    }

    pub(super) fn weight_form(
        &self,
        check: &Check,
        shape: RowShape,
        weights: &Weights<'_>,
    ) -> Result<WeightForm> {
        if self.options.norm.is_none() {
            let of_norms = "weights are of a normalization";
            check.absent("gamma", weights.gamma.is_some(), of_norms)?;
            check.absent("beta", weights.beta.is_some(), of_norms)?;
        }
        shape.weight_form(check, weights, &[WeightForm::Row, WeightForm::Heads])
    }

    /// The rotary embedding with its tables, both or neither.
    pub(super) fn tables<'a>(
        &self,
        check: &Check,
        tables: Option<&RotaryTables<'a>>,
    ) -> Result<Option<(Rotary, RotaryTables<'a>)>> {
        match (self.options.rotary, tables) {
            (Some(rotary), Some(tables)) => Ok(Some((rotary, *tables))),
            (None, None) => Ok(None),
            (Some(_), None) => check.fail("tables", "given for a rotary embedding", "absent"),
            (None, Some(_)) => {
                check.fail("tables", "absent: there is no rotary embedding", "given")
            }
        }
    }

    fn run<'a>(
        &self,
        op: &'static str,
        rows: Pair<'a>,
        weights: &Weights<'a>,
        tables: Option<&RotaryTables<'a>>,
        statistics: &'a mut Statistics<'_>,
    ) -> Result<()> {
        let check = self.rows.check(op);
        let shape = self.shape(&check, "x", &rows.input())?;
        let call = ForwardCall {
            norm: self.options.norm,
            shape,
            rows,
            residual: None,
            gate: None,
            form: self.weight_form(&check, shape, weights)?,
            gamma: weights.gamma,
            beta: weights.beta,
            rotary: self.tables(&check, tables)?,
            rstd: reborrow(&mut statistics.rstd),
            mean: reborrow(&mut statistics.mean),
        };
        self.rows.forward(&check, call)
    }

    fn run_backward<'a>(
        &self,
        op: &'static str,
        (x, weights, saved, tables): ForwardInputs<'_, 'a>,
        gradient: Pair<'a>,
        outputs: &'a mut GradientOutputs<'_>,
    ) -> Result<()> {
        let check = self.rows.check(op);
        let shape = self.shape(&check, "dy", &gradient.input())?;
        outputs.refuse_residual(&check)?;
        outputs.refuse_alpha(&check)?;
        let call = BackwardCall {
            norm: self.options.norm,
            shape,
            x,
            saved: saved.copied(),
            gradient,
            dstream: None,
            dresidual: None,
            gate: None,
            form: self.weight_form(&check, shape, weights)?,
            gamma: weights.gamma,
            beta: weights.beta,
            rotary: self.tables(&check, tables)?,
            dgamma: reborrow(&mut outputs.dgamma),
            dbeta: reborrow(&mut outputs.dbeta),
            accumulate: outputs.accumulate,
            workspace: reborrow(&mut outputs.workspace),
        };
        self.rows.backward(&check, call)
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedHeadNorm>();
};
