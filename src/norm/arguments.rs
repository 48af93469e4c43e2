//! What a normalization is called with: weights, tables, saved statistics, and where it writes.

use crate::check::Check;
use crate::rows::{RowShape, WeightForm};
use crate::{Result, TensorMut, TensorRef};

/// gamma and beta, bf16, f16 or f32 each; absent ones are 1 (whatever gamma's offset) and 0.
///
/// ```
/// use evenkeel::{Device, norm::Weights};
///
/// let stream = Device::cpu().stream()?;
/// let gamma = stream.upload(&[2], &[1.0_f32, 2.0])?;
/// let beta = stream.upload(&[2], &[0.5_f32, 0.0])?;
/// let both = Weights::gamma(gamma.view()).beta(beta.view());
/// assert!(both.gamma.is_some() && both.beta.is_some());
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Weights<'a> {
    /// The factor, less its offset.
    pub gamma: Option<TensorRef<'a>>,
    /// The term.
    pub beta: Option<TensorRef<'a>>,
}

impl<'a> Weights<'a> {
    /// gamma alone.
    #[must_use]
    pub fn gamma(gamma: TensorRef<'a>) -> Self {
        Self {
            gamma: Some(gamma),
            beta: None,
        }
    }

    /// With beta.
    #[must_use]
    pub fn beta(mut self, beta: TensorRef<'a>) -> Self {
        self.beta = Some(beta);
        self
    }
}

/// Where a forward writes the statistics that its backward needs; absent ones are not written.
#[derive(Debug, Default)]
pub struct Statistics<'a> {
    /// r = 1 / sqrt(mean square or variance + eps) of each row, `[rows]` f32.
    pub rstd: Option<TensorMut<'a>>,
    /// The mean of each row, `[rows]` f32; `Layer` has it, `Rms` does not.
    pub mean: Option<TensorMut<'a>>,
}

impl<'a> Statistics<'a> {
    /// Of rstd alone: what the backward of `Rms` needs.
    #[must_use]
    pub fn rstd(rstd: TensorMut<'a>) -> Self {
        Self {
            rstd: Some(rstd),
            mean: None,
        }
    }

    /// With the mean, which the backward of `Layer` needs too.
    #[must_use]
    pub fn mean(mut self, mean: TensorMut<'a>) -> Self {
        self.mean = Some(mean);
        self
    }
}

/// The statistics that a forward saved, for its backward.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// Of each row, `[rows]` f32.
    pub rstd: TensorRef<'a>,
    /// Of each row, `[rows]` f32; given for `Layer`, and only then.
    pub mean: Option<TensorRef<'a>>,
}

impl<'a> Saved<'a> {
    /// Of `Rms`.
    #[must_use]
    pub fn new(rstd: TensorRef<'a>) -> Self {
        Self { rstd, mean: None }
    }

    /// With the mean of `Layer`.
    #[must_use]
    pub fn mean(mut self, mean: TensorRef<'a>) -> Self {
        self.mean = Some(mean);
        self
    }
}

/// What a rotary embedding reads beside the heads.
#[derive(Clone, Copy, Debug)]
pub struct RotaryTables<'a> {
    /// The cosine of each position and pair, `[positions, width / 2]` bf16, f16 or f32, contiguous.
    pub cos: TensorRef<'a>,
    /// The sine, of the same shape and type.
    pub sin: TensorRef<'a>,
    /// The position of each token, `[tokens]` i64, i32 or u32; without, token t has position t, and
    /// the tables at least as many positions as there are tokens. A position that the tables do not
    /// have makes the token NaN, and sets
    /// [`Status::POSITION_OUT_OF_RANGE`](crate::Status::POSITION_OUT_OF_RANGE).
    pub positions: Option<TensorRef<'a>>,
}

impl<'a> RotaryTables<'a> {
    /// Token t at position t.
    #[must_use]
    pub fn new(cos: TensorRef<'a>, sin: TensorRef<'a>) -> Self {
        Self {
            cos,
            sin,
            positions: None,
        }
    }

    /// The position of each token.
    #[must_use]
    pub fn positions(mut self, positions: TensorRef<'a>) -> Self {
        self.positions = Some(positions);
        self
    }
}

/// Where a backward writes beside the gradient of its rows; absent ones are not computed. What an
/// operation has no use for it refuses.
///
/// Gradients of weights are sums over all rows in a fixed order, f32, each as long as its weight.
#[derive(Debug, Default)]
pub struct GradientOutputs<'a> {
    /// Of the residual: the numbers of dx in this tensor's type, where that is not x's.
    pub dresidual: Option<TensorMut<'a>>,
    /// Of gamma.
    pub dgamma: Option<TensorMut<'a>>,
    /// Of beta.
    pub dbeta: Option<TensorMut<'a>>,
    /// Of alpha, where the operation has one.
    pub dalpha: Option<TensorMut<'a>>,
    /// Whether the gradients of weights are added to what is there.
    pub accumulate: bool,
    /// Scratch for the sums over rows, u8 at a multiple of 16, of as many bytes as the operation's
    /// `backward_workspace_bytes` says: needed where a weight's gradient is asked for.
    pub workspace: Option<TensorMut<'a>>,
}

impl<'a> GradientOutputs<'a> {
    /// With the gradient of the residual.
    #[must_use]
    pub fn dresidual(mut self, dresidual: TensorMut<'a>) -> Self {
        self.dresidual = Some(dresidual);
        self
    }

    /// With the gradient of gamma.
    #[must_use]
    pub fn dgamma(mut self, dgamma: TensorMut<'a>) -> Self {
        self.dgamma = Some(dgamma);
        self
    }

    /// With the gradient of beta.
    #[must_use]
    pub fn dbeta(mut self, dbeta: TensorMut<'a>) -> Self {
        self.dbeta = Some(dbeta);
        self
    }

    /// With the gradient of alpha.
    #[must_use]
    pub fn dalpha(mut self, dalpha: TensorMut<'a>) -> Self {
        self.dalpha = Some(dalpha);
        self
    }

    /// Added to what is there.
    #[must_use]
    pub fn accumulate(mut self) -> Self {
        self.accumulate = true;
        self
    }

    /// Scratch for the sums over rows.
    #[must_use]
    pub fn workspace(mut self, workspace: TensorMut<'a>) -> Self {
        self.workspace = Some(workspace);
        self
    }
}

impl RowShape {
    /// The form of gamma and beta over these rows, which is the same.
    pub(super) fn weight_form(
        self,
        check: &Check,
        weights: &Weights<'_>,
        known: &[WeightForm],
    ) -> Result<WeightForm> {
        let mut form = None;
        for (argument, weight) in [("gamma", weights.gamma), ("beta", weights.beta)] {
            if let Some(weight) = weight {
                let known = form.as_ref().map_or(known, std::slice::from_ref);
                form = Some(self.form_of(check, argument, &weight, known)?);
            }
        }
        Ok(form.unwrap_or(WeightForm::Row))
    }
}

/// What an operation has no use for, it refuses.
impl GradientOutputs<'_> {
    pub(super) fn refuse_residual(&self, check: &Check) -> Result<()> {
        let given = self.dresidual.is_some();
        check.absent("dresidual", given, "there is no residual")
    }

    pub(super) fn refuse_alpha(&self, check: &Check) -> Result<()> {
        check.absent("dalpha", self.dalpha.is_some(), "there is no alpha")
    }

    pub(super) fn refuse_weights(&self, check: &Check) -> Result<()> {
        check.absent("dgamma", self.dgamma.is_some(), "there is no gamma")?;
        check.absent("dbeta", self.dbeta.is_some(), "there is no beta")
    }
}
