//! The operation: a linear layer that multiplies in FP8, forward and backward.

use super::recipe::{Multipliers, Recipe, delayed};
use super::{Matmul, MatmulArguments, MatmulOutputs, PreparedMatmul, Promotion};
use crate::check::{Check, shape_of};
use crate::quant::{
    DelayedScales, DelayedScaling, OutputArguments, PreparedQuantize, QuantizeArguments, Quantized,
    QuantizedTensor, WeightCache,
};
use crate::{Buffer, DType, Result, Stream, TensorMut, TensorRef};

/// A linear layer whose three products are of FP8 operands, to be prepared for a stream and a weight
/// W `[N, K]`:
///
/// ```text
/// y  = m_y  Q(x) Q(W)^T            x [T, K], y [T, N]
/// dx = m_x  Q(dy) Q(W)             dy [T, N], dx [T, K]
/// dW += m_w Q(dy)^T Q(x)           dW [N, K], fp32
/// ```
///
/// Q quantises by the [`Recipe`], each operand along the contraction of its product: x, W and dy along
/// their rows and transposed. The m are the [`Multipliers`], 1 unless they are set.
///
/// - x is quantised once, for y and for dW; dy once, for dx and for dW; how often each is read is in
///   the recipe's table. W is quantised once for each of its versions, both ways.
/// - What the backward needs of the forward is [`SavedInput`]: x transposed, in 8 bits.
/// - There is no bias: add it to y, its gradient is the sum of dy's rows.
///
/// Sources: those of [`Recipe`].
///
/// ```
/// use evenkeel::matmul::{LinearFp8, Recipe};
/// use evenkeel::{DType, Device};
///
/// let stream = Device::cpu().stream()?;
/// let mut w = stream.upload(&[2, 4], &[1.0_f32, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0])?;
/// let mut dw = stream.zeros(DType::F32, &[2, 4])?;
/// let mut linear = LinearFp8::new(Recipe::Block).prepare(&stream, 2, 4)?;
///
/// let x = stream.upload(&[1, 4], &[1.0_f32, 2.0, 3.0, 4.0])?;
/// let dy = stream.upload(&[1, 2], &[1.0_f32, 0.5])?;
/// for step in 0..2 {
///     for _micro_batch in 0..2 {
///         let (y, saved) = linear.forward(x.view(), w.view(), step, DType::F32)?;
///         assert_eq!(y.shape(), [1, 2]);
///         let dx = linear.backward(&saved, dy.view(), w.view(), step, DType::F32, dw.view_mut())?;
///         assert_eq!(dx.shape(), [1, 4]);
///     }
///     linear.update_scales()?; // of delayed scaling; nothing in other recipes
///     w.write(&[1.0_f32; 8])?; // the optimizer
/// }
/// let sum = dw.read::<f32>()?; // four times dy^T x
/// assert!((sum[3] - 16.0).abs() < 1.0 && (sum[7] - 8.0).abs() < 0.5);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LinearFp8 {
    recipe: Recipe,
    multipliers: Multipliers,
    promotion: Promotion,
    delayed: Option<DelayedScaling>,
}

impl LinearFp8 {
    /// By a recipe.
    #[must_use]
    pub fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            multipliers: Multipliers::default(),
            promotion: Promotion::default(),
            delayed: None,
        }
    }

    /// What the products are multiplied with.
    #[must_use]
    pub fn multipliers(mut self, multipliers: Multipliers) -> Self {
        self.multipliers = multipliers;
        self
    }

    /// When partial sums leave the tensor core.
    #[must_use]
    pub fn promotion(mut self, promotion: Promotion) -> Self {
        self.promotion = promotion;
        self
    }

    /// How delayed scales are made ([`Recipe::Delayed`]); otherwise it is not looked at.
    #[must_use]
    pub fn delayed_scaling(mut self, delayed: DelayedScaling) -> Self {
        self.delayed = Some(delayed);
        self
    }

    /// Checks the options, loads the kernels and allocates what is kept of a weight `[n, k]`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for multipliers that are not finite and weights
    /// without elements, [`Error::Unsupported`](crate::Error::Unsupported) on devices that have no
    /// kernels for it, and the device's errors.
    pub fn prepare(&self, stream: &Stream, n: usize, k: usize) -> Result<PreparedLinearFp8> {
        let check = Check::new("LinearFp8::prepare", stream);
        let multipliers = self.multipliers.all();
        if !multipliers.iter().all(|multiplier| multiplier.is_finite()) {
            let got = format!("{:?}", self.multipliers);
            return check.fail("multipliers", "finite", got);
        }
        check.row_count("k", n, k)?;
        if n == 0 {
            return check.fail("n", "at least 1", "0");
        }
        let recipe = self.recipe;
        let [of_x, of_w, of_dy] = recipe.formats();
        let quantize = |format, rowwise, transposed| {
            let quantize = recipe.quantize(format, rowwise, transposed);
            quantize.prepare(stream)
        };
        let product = |a, b| Matmul::new(a, b).promotion(self.promotion).prepare(stream);
        let delayed = match recipe {
            Recipe::Delayed => Some(delayed(self.delayed).prepare(stream, &[of_x, of_w, of_dy])?),
            _ => None,
        };
        let plain = multipliers == [1.0; 3];
        Ok(PreparedLinearFp8 {
            stream: stream.clone(),
            recipe,
            shape: [n, k],
            x: quantize(of_x, true, true)?,
            x_alone: quantize(of_x, true, false)?,
            dy: quantize(of_dy, true, true)?,
            weight: WeightCache::new(quantize(of_w, true, true)?, n, k, 0)?,
            forward: product(of_x, of_w)?,
            input_gradient: product(of_dy, of_w)?,
            weight_gradient: product(of_dy, of_x)?,
            delayed,
            one: stream.upload(&[1], &[1.0_f32])?,
            multipliers: if plain {
                None
            } else {
                Some(stream.upload(&[3], &multipliers)?)
            },
        })
    }
}

/// What a backward needs of its forward: x transposed, quantised.
#[derive(Debug)]
pub struct SavedInput {
    x: QuantizedTensor,
    tokens: usize,
}

impl SavedInput {
    /// Bytes of memory on the device: T K, and the scales.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.x.form().bytes()
    }
}

/// A [`LinearFp8`] ready to run on a stream.
///
/// x and dy are bf16, f16 or f32, rows at any stride, their dimensions before the last counting tokens;
/// results are bf16, f16 or f32.
#[derive(Debug)]
pub struct PreparedLinearFp8 {
    stream: Stream,
    recipe: Recipe,
    /// N and K.
    shape: [usize; 2],
    x: PreparedQuantize,
    /// Along the rows alone.
    x_alone: PreparedQuantize,
    dy: PreparedQuantize,
    weight: WeightCache,
    forward: PreparedMatmul,
    input_gradient: PreparedMatmul,
    weight_gradient: PreparedMatmul,
    /// Of x, W and dy.
    delayed: Option<DelayedScales>,
    /// The scale of [`Recipe::Unit`].
    one: Buffer,
    /// Of y, dx and dW; `None` where all are 1.
    multipliers: Option<Buffer>,
}

/// Which tensor delayed scales are of.
#[derive(Clone, Copy, Debug)]
enum Of {
    X,
    W,
    Dy,
}

/// The scales of a tensor for the outputs that are asked for.
fn given<'a>(
    recipe: Recipe,
    delayed: Option<&'a mut DelayedScales>,
    one: &'a Buffer,
    of: Of,
    transposed: bool,
) -> Result<QuantizeArguments<'a>> {
    let mut arguments = QuantizeArguments::default();
    if !recipe.is_given() {
        return Ok(arguments);
    }
    let (scale, amax) = match delayed {
        Some(delayed) => {
            let tensor = delayed.tensor(of as usize)?;
            (tensor.scales, Some(tensor.amax))
        }
        None => (one.view(), None),
    };
    arguments.rowwise = OutputArguments::default().tensor_scale(scale);
    arguments.rowwise.amax = amax;
    if transposed {
        arguments.transposed = OutputArguments::default().tensor_scale(scale);
    }
    Ok(arguments)
}

impl PreparedLinearFp8 {
    /// The recipe.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        self.recipe
    }

    /// Bytes of memory on the device that stay: the weight in 8 bits, both ways, with its scales. A
    /// forward keeps [`SavedInput::bytes`] until its backward.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.weight.bytes()
    }

    /// Scales of the next step, in the recipe of delayed scaling; nothing in the others.
    ///
    /// # Errors
    /// The device's.
    pub fn update_scales(&mut self) -> Result<()> {
        match &mut self.delayed {
            Some(delayed) => delayed.update(),
            None => Ok(()),
        }
    }

    /// The delayed scales of x, W and dy, to be combined with other ranks', saved or restored.
    pub fn delayed_scales(&mut self) -> Option<&mut DelayedScales> {
        self.delayed.as_mut()
    }

    /// The weight is quantised again by the next call, whatever its version.
    pub fn invalidate(&mut self) {
        self.weight.invalidate();
    }

    /// y of `dtype`, and what the backward needs. `version` says when W changes: another one than the
    /// last call's quantises it again.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for what does not fit, and the device's errors.
    pub fn forward(
        &mut self,
        x: TensorRef<'_>,
        weight: TensorRef<'_>,
        version: u64,
        dtype: DType,
    ) -> Result<(Buffer, SavedInput)> {
        const OP: &str = "LinearFp8::forward";
        let (quantized, y) = self.multiply(OP, x, weight, version, dtype, true)?;
        let check = Check::new(OP, &self.stream);
        match quantized.transposed {
            Some(transposed) => Ok((
                y,
                SavedInput {
                    tokens: transposed.form().inner,
                    x: transposed,
                },
            )),
            None => check.fail("x", "quantised transposed", "not made"),
        }
    }

    /// y of `dtype`, where no backward follows: x is quantised along its rows alone. Delayed scales
    /// take x's amax in, as they do in training.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn infer(
        &mut self,
        x: TensorRef<'_>,
        weight: TensorRef<'_>,
        version: u64,
        dtype: DType,
    ) -> Result<Buffer> {
        let (_, y) = self.multiply("LinearFp8::infer", x, weight, version, dtype, false)?;
        Ok(y)
    }

    fn multiply(
        &mut self,
        op: &'static str,
        x: TensorRef<'_>,
        weight: TensorRef<'_>,
        version: u64,
        dtype: DType,
        saved: bool,
    ) -> Result<(Quantized, Buffer)> {
        let check = Check::new(op, &self.stream);
        self.result(&check, dtype)?;
        let [_, k] = self.shape;
        tokens(&check, "x", &x, k)?;
        self.quantize_weight(weight, version)?;
        let quantize = if saved { &self.x } else { &self.x_alone };
        let arguments = given(self.recipe, self.delayed.as_mut(), &self.one, Of::X, saved)?;
        let quantized = quantize.quantize(x, arguments)?;
        let (x, w) = (quantized.rowwise()?, self.cached(&check)?.rowwise()?);
        let y = self.forward.multiply(x, w, dtype, self.multiplier(0)?)?;
        Ok((quantized, y))
    }

    /// dx of `dtype`, with dW added to `dw`, `[N, K]` f32. `weight` and `version` are those of the
    /// forward.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(
        &mut self,
        saved: &SavedInput,
        dy: TensorRef<'_>,
        weight: TensorRef<'_>,
        version: u64,
        dtype: DType,
        mut dw: TensorMut<'_>,
    ) -> Result<Buffer> {
        let check = Check::new("LinearFp8::backward", &self.stream);
        self.result(&check, dtype)?;
        let [n, k] = self.shape;
        tokens(&check, "dy", &dy, n)?;
        if dy.rows() != saved.tokens {
            let expected = format!("[{}, {n}], the forward's tokens", saved.tokens);
            return check.fail("dy", expected, shape_of(&dy));
        }
        check.typed("dw", &dw.as_ref(), &[DType::F32])?;
        check.rows("dw", &dw.as_ref(), n, k)?;
        self.quantize_weight(weight, version)?;
        let arguments = given(self.recipe, self.delayed.as_mut(), &self.one, Of::Dy, true)?;
        let dy = self.dy.quantize(dy, arguments)?;
        let w = self.cached(&check)?.transposed()?;
        let multiplier = self.multiplier(1)?;
        let dx = self
            .input_gradient
            .multiply(dy.rowwise()?, w, dtype, multiplier)?;
        let arguments = self.multiplier(2)?.accumulate(1.0);
        let bytes = self.weight_gradient.workspace_bytes(n, k, saved.tokens, 0);
        let mut workspace = self.stream.uninitialised(DType::U8, &[bytes])?;
        let mut outputs = MatmulOutputs::new(dw.reborrow()).workspace(workspace.view_mut());
        self.weight_gradient.multiply_into(
            dy.transposed()?,
            saved.x.view(),
            arguments,
            &mut outputs,
        )?;
        Ok(dx)
    }

    fn quantize_weight(&mut self, weight: TensorRef<'_>, version: u64) -> Result<()> {
        let arguments = given(self.recipe, self.delayed.as_mut(), &self.one, Of::W, true)?;
        self.weight.get(weight, version, arguments)?;
        Ok(())
    }

    fn cached(&self, check: &Check) -> Result<&Quantized> {
        match self.weight.quantized() {
            Some(weight) => Ok(weight),
            None => check.fail("weight", "quantised", "not held"),
        }
    }

    fn multiplier(&self, of: usize) -> Result<MatmulArguments<'_>> {
        let arguments = MatmulArguments::default();
        Ok(match &self.multipliers {
            Some(multipliers) => arguments.alpha(multipliers.view().slice_rows(of..of + 1)?),
            None => arguments,
        })
    }

    fn result(&self, check: &Check, dtype: DType) -> Result<()> {
        if crate::check::FLOATS.contains(&dtype) {
            return Ok(());
        }
        check.fail("dtype", "bf16, f16 or f32", dtype.to_string())
    }
}

/// `[.., columns]` floats, of a token at least: the contraction of dW is over tokens.
fn tokens(
    check: &Check,
    argument: &'static str,
    view: &TensorRef<'_>,
    columns: usize,
) -> Result<()> {
    check.float(argument, view)?;
    if view.columns() != columns || view.rows() == 0 {
        let expected = format!("[.., {columns}], of one token at least");
        return check.fail(argument, expected, shape_of(view));
    }
    Ok(())
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedLinearFp8>();
    send_and_sync::<SavedInput>();
};
