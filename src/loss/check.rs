//! The shapes of a call, checked like mathematics before anything is launched.

use super::arguments::{LossInputs, LossOutputs, Statistic, TokenCount};
use super::{Denominator, Reduction};
use crate::check::{Check, INTEGERS, shape_of};
use crate::{DType, Result, TensorMut, TensorRef};

/// A call's shapes, all found to fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checked {
    pub(super) tokens: usize,
    pub(super) vocab: usize,
}

impl Check {
    /// The saved states of the rows.
    pub(super) fn state(&self, state: &TensorRef<'_>, tokens: usize) -> Result<()> {
        if state.elements() != tokens * 8 {
            return self.fail("state", format!("[{tokens}, 8]"), shape_of(state));
        }
        self.tensor("state", state, &[DType::F32], &[tokens * 8])
    }

    /// A matrix of floats with at least `columns` columns.
    pub(super) fn matrix(
        &self,
        argument: &'static str,
        tensor: &TensorRef<'_>,
        rows: usize,
        columns: usize,
    ) -> Result<()> {
        self.float(argument, tensor)?;
        if tensor.shape().len() < 2 {
            return self.fail(argument, "[tokens, columns]", shape_of(tensor));
        }
        if tensor.rows() != rows || tensor.columns() < columns {
            return self.fail(
                argument,
                format!("[{rows}, {columns}] or wider, a row for each token"),
                shape_of(tensor),
            );
        }
        Ok(())
    }

    /// Everything of `inputs` against logits `[tokens, columns]`.
    pub(super) fn inputs(
        &self,
        logits: &TensorRef<'_>,
        inputs: &LossInputs<'_>,
        reduction: Reduction,
    ) -> Result<Checked> {
        let tokens = inputs.targets.elements();
        let vocab = inputs.vocab.unwrap_or(logits.columns());
        if vocab == 0 || i32::try_from(vocab).is_err() {
            return self.fail("vocab", "from 1 to 2^31 - 1", vocab.to_string());
        }
        self.matrix("logits", logits, tokens, vocab)?;
        self.tensor("targets", &inputs.targets, &INTEGERS, &[tokens])?;
        if let Some(weights) = &inputs.token_weights {
            self.tensor("token_weights", weights, &[DType::F32], &[tokens])?;
        }
        if let Some(mask) = &inputs.class_mask {
            self.tensor("class_mask", mask, &[DType::U32], &[vocab.div_ceil(32)])?;
        }
        match (reduction, &inputs.tokens) {
            (Reduction::Mean(Denominator::Tokens), None) => {
                return self.fail("tokens", "given for the reduction mean:tokens", "absent");
            }
            (_, Some(TokenCount::Host(count))) if !count.is_finite() || *count < 0.0 => {
                return self.fail("tokens", "a finite number >= 0", count.to_string());
            }
            (_, Some(TokenCount::Device(count))) => {
                self.tensor("tokens", count, &[DType::F32], &[1])?;
            }
            _ => {}
        }
        match (reduction, &inputs.sequences) {
            (Reduction::Mean(Denominator::Sequence), None) => {
                return self.fail(
                    "sequences",
                    "given for the reduction mean:sequence",
                    "absent",
                );
            }
            (_, Some(offsets)) => {
                let count = offsets.elements();
                if count == 0 {
                    return self.fail("sequences", "[sequences + 1] offsets", "none");
                }
                self.tensor("sequences", offsets, &INTEGERS, &[count])?;
            }
            _ => {}
        }
        if let Some(upstream) = &inputs.upstream {
            self.upstream("upstream", upstream, tokens, reduction == Reduction::None)?;
        }
        Ok(Checked { tokens, vocab })
    }

    /// A gradient from above: `[1]`, or one a token.
    pub(super) fn upstream(
        &self,
        argument: &'static str,
        upstream: &TensorRef<'_>,
        tokens: usize,
        per_token: bool,
    ) -> Result<()> {
        let sizes: &[usize] = if per_token { &[1, tokens] } else { &[1] };
        self.tensor(argument, upstream, &[DType::F32], sizes)
    }

    /// A gradient to write: the logits' type or f32, at least as wide as the vocabulary.
    pub(super) fn gradient(
        &self,
        gradient: &TensorMut<'_>,
        logits: &TensorRef<'_>,
        checked: Checked,
    ) -> Result<()> {
        self.matrix(
            "gradient",
            &gradient.as_ref(),
            checked.tokens,
            checked.vocab,
        )?;
        if gradient.dtype() != logits.dtype() && gradient.dtype() != DType::F32 {
            let expected = match logits.dtype() {
                DType::F32 => "f32, as the logits are".to_string(),
                dtype => format!("{dtype}, as the logits are, or f32"),
            };
            return self.fail("gradient", expected, gradient.dtype().to_string());
        }
        if logits.overlaps(&gradient.as_ref()) {
            return self.fail(
                "gradient",
                "memory apart from the logits (the in-place form writes over them)",
                "memory that overlaps them",
            );
        }
        Ok(())
    }

    /// Everything of `outputs`.
    pub(super) fn outputs(
        &self,
        outputs: &LossOutputs<'_>,
        tokens: usize,
        workspace_bytes: usize,
        needs_scale: bool,
    ) -> Result<()> {
        self.workspace(Some(&outputs.workspace), workspace_bytes)?;
        let check = |argument, tensor: &Option<TensorMut<'_>>, dtype, elements| match tensor {
            Some(tensor) => self.tensor(argument, &tensor.as_ref(), &[dtype], &[elements]),
            None => Ok(()),
        };
        check("loss", &outputs.loss, DType::F32, 1)?;
        check("counts", &outputs.counts, DType::U32, 3)?;
        check("gradient_scale", &outputs.gradient_scale, DType::F32, 1)?;
        if let Some(state) = &outputs.state {
            self.state(&state.as_ref(), tokens)?;
        }
        for statistic in Statistic::ALL {
            let values = &outputs.statistics[statistic as usize];
            check(statistic.name(), values, statistic.dtype(), tokens)?;
        }
        if needs_scale && outputs.gradient_scale.is_none() {
            return self.fail(
                "gradient_scale",
                "given: under mean:kept the gradient is written without its scale",
                "absent",
            );
        }
        Ok(())
    }
}
