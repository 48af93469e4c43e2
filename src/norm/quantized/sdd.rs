//! Quantised results of [`Sdd`](crate::norm::Sdd).

use super::{NormQuantized, run};
use crate::check::reborrow;
use crate::norm::PreparedSdd;
use crate::norm::arguments::Statistics;
use crate::norm::call::{ForwardCall, Pair};
use crate::norm::sdd::{FORMS, options};
use crate::quant::{QuantizeArguments, QuantizedMut};
use crate::rows::RowShape;
use crate::{Result, TensorRef};

impl PreparedSdd {
    /// y, quantised as [`Sdd::quantized`](crate::norm::Sdd::quantized) said, and what the backward
    /// needs: as [`PreparedNorm::forward_quantized`](crate::norm::PreparedNorm::forward_quantized).
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and those of the quantisation.
    pub fn forward_quantized(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        arguments: QuantizeArguments<'_>,
    ) -> Result<NormQuantized> {
        let check = self.rows.check("Sdd::forward_quantized");
        let shape = RowShape::of(&check, "x", &x)?;
        let mut result = NormQuantized::allocate(&check, &self.rows, shape, [true, false])?;
        let (y, _, mut statistics) = result.outputs();
        self.forward_quantized_into(x, alpha, arguments, y, &mut statistics)?;
        Ok(result)
    }

    /// As [`forward_quantized`](Self::forward_quantized), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward_quantized`](Self::forward_quantized).
    pub fn forward_quantized_into(
        &self,
        x: TensorRef<'_>,
        alpha: TensorRef<'_>,
        arguments: QuantizeArguments<'_>,
        y: QuantizedMut<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        let check = self.rows.check("Sdd::forward_quantized");
        let shape = RowShape::of(&check, "x", &x)?;
        let call = ForwardCall {
            norm: Some(options()),
            shape,
            rows: Pair::Read(x),
            residual: None,
            gate: None,
            form: shape.form_of(&check, "alpha", &alpha, &FORMS)?,
            gamma: Some(alpha),
            beta: None,
            rotary: None,
            rstd: reborrow(&mut statistics.rstd),
            mean: reborrow(&mut statistics.mean),
        };
        run(&self.rows, &check, call, arguments, y)
    }
}
