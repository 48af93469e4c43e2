//! Quantised results of [`GatedNorm`](crate::norm::GatedNorm).

use super::{NormQuantized, run};
use crate::check::reborrow;
use crate::norm::arguments::{Statistics, Weights};
use crate::norm::call::{ForwardCall, Pair};
use crate::norm::{NormKind, PreparedGatedNorm};
use crate::quant::{QuantizeArguments, QuantizedMut};
use crate::rows::{RowShape, WeightForm};
use crate::{Result, TensorRef};

impl PreparedGatedNorm {
    /// y, quantised as [`GatedNorm::quantized`](crate::norm::GatedNorm::quantized) said, and what the
    /// backward needs: as [`PreparedNorm::forward_quantized`](crate::norm::PreparedNorm::forward_quantized),
    /// after the gate. The backward needs z too.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and those of the quantisation.
    pub fn forward_quantized(
        &self,
        x: TensorRef<'_>,
        z: TensorRef<'_>,
        weights: &Weights<'_>,
        arguments: QuantizeArguments<'_>,
    ) -> Result<NormQuantized> {
        let check = self.rows.check("GatedNorm::forward_quantized");
        let shape = RowShape::of(&check, "x", &x)?;
        let layer = self.options().kind == NormKind::Layer;
        let mut result = NormQuantized::allocate(&check, &self.rows, shape, [true, layer])?;
        let (y, _, mut statistics) = result.outputs();
        self.forward_quantized_into(x, z, weights, arguments, y, &mut statistics)?;
        Ok(result)
    }

    /// As [`forward_quantized`](Self::forward_quantized), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward_quantized`](Self::forward_quantized).
    pub fn forward_quantized_into(
        &self,
        x: TensorRef<'_>,
        z: TensorRef<'_>,
        weights: &Weights<'_>,
        arguments: QuantizeArguments<'_>,
        y: QuantizedMut<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        let check = self.rows.check("GatedNorm::forward_quantized");
        let shape = RowShape::of(&check, "x", &x)?;
        let call = ForwardCall {
            norm: Some(*self.options()),
            shape,
            rows: Pair::Read(x),
            residual: None,
            gate: Some(z),
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
