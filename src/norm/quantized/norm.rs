//! Quantised results of [`Norm`](crate::norm::Norm).

use super::{NormQuantized, run};
use crate::check::reborrow;
use crate::norm::arguments::{Statistics, Weights};
use crate::norm::call::{ForwardCall, Pair};
use crate::norm::result::like;
use crate::norm::{NormKind, PreparedNorm};
use crate::quant::{QuantizeArguments, QuantizedMut};
use crate::rows::{RowShape, WeightForm};
use crate::{Result, TensorMut, TensorRef};

impl PreparedNorm {
    /// y, quantised as [`Norm::quantized`](crate::norm::Norm::quantized) said, and what the backward
    /// needs. y is never stored in a wider type: x is read once, and y written in 8 or 4 bits.
    ///
    /// The values that are quantised are those of [`forward`](Self::forward) in f32. `arguments` are
    /// those of [`PreparedQuantize::quantize`](crate::quant::PreparedQuantize::quantize), for a
    /// row-wise output without groups. The backward is the plain one: it needs x, the weights and
    /// the statistics.
    ///
    /// ```
    /// use evenkeel::norm::{Norm, Weights};
    /// use evenkeel::quant::{Dequantize, Format, Fp8, Quantize, QuantizeArguments};
    /// use evenkeel::{DType, Device};
    ///
    /// let stream = Device::cpu().stream()?;
    /// let x = stream.upload(&[1, 2], &[1.0_f32, 7.0])?;
    /// let quantize = Quantize::new(Format::Fp8Row(Fp8::E4m3));
    /// let op = Norm::rms().quantized(quantize).prepare(&stream)?;
    /// let arguments = QuantizeArguments::default();
    /// let forward = op.forward_quantized(x.view(), &Weights::default(), arguments)?;
    ///
    /// let values = Dequantize::new().prepare(&stream)?.dequantize(forward.y.view(), DType::F32)?;
    /// let values = values.read::<f32>()?; // 0.2 and 1.4, the larger of which makes the scale
    /// assert!((values[0] - 0.2).abs() < 0.2 / 16.0 && (values[1] - 1.4).abs() < 1e-6);
    ///
    /// let saved = forward.saved().expect("of a normalization");
    /// let dy = stream.upload(&[1, 2], &[1.0_f32, 0.0])?;
    /// let backward = op.backward(x.view(), &Weights::default(), &saved, dy.view(), None)?;
    /// assert!((backward.dx.read::<f32>()?[0] - 0.196).abs() < 1e-6);
    /// # Ok::<(), evenkeel::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and those of the quantisation.
    pub fn forward_quantized(
        &self,
        x: TensorRef<'_>,
        weights: &Weights<'_>,
        arguments: QuantizeArguments<'_>,
    ) -> Result<NormQuantized> {
        const OP: &str = "Norm::forward_quantized";
        let mut result = self.allocate_quantized(OP, &x)?;
        let (y, _, mut statistics) = result.outputs();
        self.run_quantized(OP, x, None, weights, arguments, y, &mut statistics)?;
        Ok(result)
    }

    /// As [`forward_quantized`](Self::forward_quantized), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward_quantized`](Self::forward_quantized).
    pub fn forward_quantized_into(
        &self,
        x: TensorRef<'_>,
        weights: &Weights<'_>,
        arguments: QuantizeArguments<'_>,
        y: QuantizedMut<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        const OP: &str = "Norm::forward_quantized_into";
        self.run_quantized(OP, x, None, weights, arguments, y, statistics)
    }

    /// The stream s = x + residual, rounded to the residual's type, and y = norm(s) quantised as by
    /// [`forward_quantized`](Self::forward_quantized), with what the backward needs, which takes s as
    /// x.
    ///
    /// # Errors
    /// As [`forward_quantized`](Self::forward_quantized).
    pub fn forward_residual_quantized(
        &self,
        x: TensorRef<'_>,
        residual: TensorRef<'_>,
        weights: &Weights<'_>,
        arguments: QuantizeArguments<'_>,
    ) -> Result<NormQuantized> {
        const OP: &str = "Norm::forward_residual_quantized";
        let mut result = self.allocate_quantized(OP, &x)?;
        let mut stream = like(self.rows.stream(), &x, residual.dtype())?;
        let (y, _, mut statistics) = result.outputs();
        let residual = Some(Pair::Apart(residual, stream.view_mut()));
        self.run_quantized(OP, x, residual, weights, arguments, y, &mut statistics)?;
        result.stream = Some(stream);
        Ok(result)
    }

    /// As [`forward_residual_quantized`](Self::forward_residual_quantized), into memory of the
    /// caller's. The stream is rounded to the type of `stream`.
    ///
    /// # Errors
    /// As [`forward_quantized`](Self::forward_quantized).
    #[expect(clippy::too_many_arguments, reason = "each is a tensor of the formula")]
    pub fn forward_residual_quantized_into(
        &self,
        x: TensorRef<'_>,
        residual: TensorRef<'_>,
        weights: &Weights<'_>,
        mut stream: TensorMut<'_>,
        arguments: QuantizeArguments<'_>,
        y: QuantizedMut<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        const OP: &str = "Norm::forward_residual_quantized_into";
        let residual = Some(Pair::Apart(residual, stream.reborrow()));
        self.run_quantized(OP, x, residual, weights, arguments, y, statistics)
    }

    fn allocate_quantized(&self, op: &'static str, x: &TensorRef<'_>) -> Result<NormQuantized> {
        let check = self.rows.check(op);
        let shape = RowShape::of(&check, "x", x)?;
        let layer = self.options().kind == NormKind::Layer;
        NormQuantized::allocate(&check, &self.rows, shape, [true, layer])
    }

    #[expect(clippy::too_many_arguments, reason = "each is a tensor of the formula")]
    fn run_quantized<'a>(
        &self,
        op: &'static str,
        x: TensorRef<'a>,
        residual: Option<Pair<'a>>,
        weights: &Weights<'a>,
        arguments: QuantizeArguments<'_>,
        y: QuantizedMut<'_>,
        statistics: &'a mut Statistics<'_>,
    ) -> Result<()> {
        let check = self.rows.check(op);
        let shape = RowShape::of(&check, "x", &x)?;
        let call = ForwardCall {
            norm: Some(*self.options()),
            shape,
            rows: Pair::Read(x),
            residual,
            gate: None,
            form: shape.weight_form(&check, weights, &[WeightForm::Row])?,
            gamma: weights.gamma,
            beta: weights.beta,
            rotary: None,
            rstd: reborrow(&mut statistics.rstd),
            mean: reborrow(&mut statistics.mean),
        };
        run(&self.rows, &check, call, arguments, y)
    }
}
