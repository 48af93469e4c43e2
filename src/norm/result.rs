//! What the allocating forms of the normalizations give back. Everything stays on the device.

use super::NormKind;
use super::arguments::{GradientOutputs, Saved, Statistics, Weights};
use crate::rows::RowShape;
use crate::{Buffer, DType, Result, Stream, TensorMut, TensorRef};

/// What a forward of [`Norm`](super::Norm), [`GatedNorm`](super::GatedNorm) or
/// [`Sdd`](super::Sdd) gives.
#[derive(Debug)]
pub struct NormResult {
    /// The normalized rows, of x's shape and type.
    pub y: Buffer,
    /// r of each row, `[rows]` f32.
    pub rstd: Buffer,
    /// The mean of each row, `[rows]` f32, of `Layer`.
    pub mean: Option<Buffer>,
    /// x + residual where there was one, of x's shape and the residual's type: what the backward
    /// takes as x.
    pub stream: Option<Buffer>,
}

impl NormResult {
    pub(super) fn allocate(
        stream: &Stream,
        x: &TensorRef<'_>,
        residual: Option<&TensorRef<'_>>,
        layer: bool,
    ) -> Result<Self> {
        let rows = [x.rows()];
        Ok(Self {
            y: like(stream, x, x.dtype())?,
            rstd: stream.uninitialised(DType::F32, &rows)?,
            mean: layer
                .then(|| stream.uninitialised(DType::F32, &rows))
                .transpose()?,
            stream: residual
                .map(|residual| like(stream, x, residual.dtype()))
                .transpose()?,
        })
    }

    /// Where y, the stream and the statistics are written.
    pub(super) fn outputs(&mut self) -> (TensorMut<'_>, Option<TensorMut<'_>>, Statistics<'_>) {
        let statistics = Statistics {
            rstd: Some(self.rstd.view_mut()),
            mean: self.mean.as_mut().map(Buffer::view_mut),
        };
        let stream = self.stream.as_mut().map(Buffer::view_mut);
        (self.y.view_mut(), stream, statistics)
    }

    /// What the backward needs.
    #[must_use]
    pub fn saved(&self) -> Saved<'_> {
        Saved {
            rstd: self.rstd.view(),
            mean: self.mean.as_ref().map(Buffer::view),
        }
    }
}

/// What a forward of [`HeadNorm`](super::HeadNorm) gives.
#[derive(Debug)]
pub struct HeadNormResult {
    /// The normalized and turned heads, of x's shape and type.
    pub y: Buffer,
    /// r of each head, `[tokens, heads]` f32, where there is a normalization.
    pub rstd: Option<Buffer>,
    /// The mean of each head, `[tokens, heads]` f32, of `Layer`.
    pub mean: Option<Buffer>,
}

impl HeadNormResult {
    pub(super) fn allocate(
        stream: &Stream,
        x: &TensorRef<'_>,
        shape: RowShape,
        norm: Option<NormKind>,
    ) -> Result<Self> {
        let statistic = |wanted: bool| {
            wanted
                .then(|| stream.uninitialised(DType::F32, &[shape.tokens, shape.heads]))
                .transpose()
        };
        Ok(Self {
            y: like(stream, x, x.dtype())?,
            rstd: statistic(norm.is_some())?,
            mean: statistic(norm == Some(NormKind::Layer))?,
        })
    }

    /// Where y and the statistics are written.
    pub(super) fn outputs(&mut self) -> (TensorMut<'_>, Statistics<'_>) {
        let statistics = Statistics {
            rstd: self.rstd.as_mut().map(Buffer::view_mut),
            mean: self.mean.as_mut().map(Buffer::view_mut),
        };
        (self.y.view_mut(), statistics)
    }

    /// What the backward needs, where there is a normalization.
    #[must_use]
    pub fn saved(&self) -> Option<Saved<'_>> {
        Some(Saved {
            rstd: self.rstd.as_ref()?.view(),
            mean: self.mean.as_ref().map(Buffer::view),
        })
    }
}

/// What a backward of [`Norm`](super::Norm) or [`HeadNorm`](super::HeadNorm) gives.
#[derive(Debug)]
pub struct NormGradients {
    /// Of x, of its shape.
    pub dx: Buffer,
    /// Of gamma where it is given, f32, of its shape.
    pub dgamma: Option<Buffer>,
    /// Of beta where it is given, f32, of its shape.
    pub dbeta: Option<Buffer>,
}

/// What a backward of [`GatedNorm`](super::GatedNorm) gives.
#[derive(Debug)]
pub struct GatedNormGradients {
    /// Of x, of its shape and type.
    pub dx: Buffer,
    /// Of z, of its shape and type.
    pub dz: Buffer,
    /// Of gamma where it is given, f32, of its shape.
    pub dgamma: Option<Buffer>,
    /// Of beta where it is given, f32, of its shape.
    pub dbeta: Option<Buffer>,
}

/// What a backward of [`Sdd`](super::Sdd) gives.
#[derive(Debug)]
pub struct SddGradients {
    /// Of x, of its shape and type.
    pub dx: Buffer,
    /// Of alpha, f32, of its shape.
    pub dalpha: Buffer,
}

/// Memory of a view's shape.
pub(super) fn like(stream: &Stream, view: &TensorRef<'_>, dtype: DType) -> Result<Buffer> {
    stream.uninitialised(dtype, view.shape())
}

/// Memory for the gradients of gamma and beta where they are given, and the scratch for both.
pub(super) struct WeightBuffers {
    pub(super) dgamma: Option<Buffer>,
    pub(super) dbeta: Option<Buffer>,
    workspace: Option<Buffer>,
}

impl WeightBuffers {
    pub(super) fn allocate(
        stream: &Stream,
        weights: &Weights<'_>,
        workspace_bytes: usize,
    ) -> Result<Self> {
        let of = |weight: &TensorRef<'_>| like(stream, weight, DType::F32);
        let any = weights.gamma.is_some() || weights.beta.is_some();
        Ok(Self {
            dgamma: weights.gamma.as_ref().map(of).transpose()?,
            dbeta: weights.beta.as_ref().map(of).transpose()?,
            workspace: any
                .then(|| stream.uninitialised(DType::U8, &[workspace_bytes]))
                .transpose()?,
        })
    }

    pub(super) fn outputs(&mut self) -> GradientOutputs<'_> {
        GradientOutputs {
            dgamma: self.dgamma.as_mut().map(Buffer::view_mut),
            dbeta: self.dbeta.as_mut().map(Buffer::view_mut),
            workspace: self.workspace.as_mut().map(Buffer::view_mut),
            ..GradientOutputs::default()
        }
    }
}
