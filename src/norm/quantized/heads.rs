//! Quantised results of [`HeadNorm`](crate::norm::HeadNorm).

use super::{NormQuantized, run};
use crate::check::reborrow;
use crate::norm::arguments::{RotaryTables, Statistics, Weights};
use crate::norm::call::{ForwardCall, Pair};
use crate::norm::{NormKind, PreparedHeadNorm};
use crate::quant::{QuantizeArguments, QuantizedMut};
use crate::{Result, TensorRef};

impl PreparedHeadNorm {
    /// y, quantised as [`HeadNorm::quantized`](crate::norm::HeadNorm::quantized) said, and what the
    /// backward needs: as [`PreparedNorm::forward_quantized`](crate::norm::PreparedNorm::forward_quantized),
    /// of heads, after their rotary embedding. y is `[tokens, heads * head_dim]`, whatever the shape
    /// of x.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and those of the quantisation;
    /// [`Error::Unsupported`](crate::Error::Unsupported) for blocks that do not divide a head.
    pub fn forward_quantized(
        &self,
        x: TensorRef<'_>,
        weights: &Weights<'_>,
        tables: Option<&RotaryTables<'_>>,
        arguments: QuantizeArguments<'_>,
    ) -> Result<NormQuantized> {
        const OP: &str = "HeadNorm::forward_quantized";
        let check = self.rows.check(OP);
        let shape = self.shape(&check, "x", &x)?;
        let kind = self.options().norm.map(|norm| norm.kind);
        let saved = [kind.is_some(), kind == Some(NormKind::Layer)];
        let mut result = NormQuantized::allocate(&check, &self.rows, shape, saved)?;
        let (y, _, mut statistics) = result.outputs();
        self.run_quantized(OP, x, weights, tables, arguments, y, &mut statistics)?;
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
        tables: Option<&RotaryTables<'_>>,
        arguments: QuantizeArguments<'_>,
        y: QuantizedMut<'_>,
        statistics: &mut Statistics<'_>,
    ) -> Result<()> {
        const OP: &str = "HeadNorm::forward_quantized_into";
        self.run_quantized(OP, x, weights, tables, arguments, y, statistics)
    }

    #[expect(clippy::too_many_arguments, reason = "each is a tensor of the formula")]
    fn run_quantized<'a>(
        &self,
        op: &'static str,
        x: TensorRef<'a>,
        weights: &Weights<'a>,
        tables: Option<&RotaryTables<'a>>,
        arguments: QuantizeArguments<'_>,
        y: QuantizedMut<'_>,
        statistics: &'a mut Statistics<'_>,
    ) -> Result<()> {
        let check = self.rows.check(op);
        let shape = self.shape(&check, "x", &x)?;
        let call = ForwardCall {
            norm: self.options().norm,
            shape,
            rows: Pair::Read(x),
            residual: None,
            gate: None,
            form: self.weight_form(&check, shape, weights)?,
            gamma: weights.gamma,
            beta: weights.beta,
            rotary: self.tables(&check, tables)?,
            rstd: reborrow(&mut statistics.rstd),
            mean: reborrow(&mut statistics.mean),
        };
        run(&self.rows, &check, call, arguments, y)
    }
}
