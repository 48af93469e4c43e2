//! The calls that devices carry out, and their checks.

use super::SpectralSaved;
use crate::check::{Check, Named};
use crate::{DType, Result, Stream, TensorMut, TensorRef};

/// Weights `[batch, m, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::norm) struct Shape {
    pub(in crate::norm) batch: usize,
    pub(in crate::norm) m: usize,
    pub(in crate::norm) n: usize,
}

impl Shape {
    /// Of `[m, n]` or `[batch, m, n]`.
    pub(super) fn of(check: &Check, w: &TensorRef<'_>) -> Result<Self> {
        check.float("w", w)?;
        let shape = match *w.shape() {
            [m, n] => Self { batch: 1, m, n },
            [batch, m, n] => Self { batch, m, n },
            _ => return check.fail("w", "[m, n] or [batch, m, n]", format!("{:?}", w.shape())),
        };
        check.row_count("w", w.rows(), shape.n)?;
        if shape.m == 0 {
            return check.fail("w", "at least one row in each weight", "none");
        }
        Ok(shape)
    }

    fn rows(self) -> usize {
        self.batch * self.m
    }
}

/// A forward.
#[derive(Debug)]
pub(in crate::norm) struct ForwardCall<'a> {
    pub(in crate::norm) steps: u32,
    pub(in crate::norm) shape: Shape,
    /// `batch * m` rows of `n`.
    pub(in crate::norm) w: TensorRef<'a>,
    /// `[batch, n]` f32.
    pub(in crate::norm) u: TensorMut<'a>,
    /// `[batch, m]` f32.
    pub(in crate::norm) v: TensorMut<'a>,
    /// `[batch]` f32.
    pub(in crate::norm) gamma: Option<TensorRef<'a>>,
    /// `[batch]` f32.
    pub(in crate::norm) sigma: TensorMut<'a>,
    /// `[batch]` f32.
    pub(in crate::norm) scale: TensorMut<'a>,
    /// As w.
    pub(in crate::norm) scaled: Option<TensorMut<'a>>,
    pub(in crate::norm) workspace: TensorMut<'a>,
}

impl ForwardCall<'_> {
    /// All but w, which [`Shape::of`] checked.
    pub(super) fn check(&self, check: &Check, bytes: usize, stream: &Stream) -> Result<()> {
        let Shape { batch, m, n } = self.shape;
        let mut reads: Named<'_> = vec![("w", self.w)];
        let mut writes = Named::new();
        if let Some(gamma) = self.gamma {
            check.tensor("gamma", &gamma, &[DType::F32], &[batch])?;
            reads.push(("gamma", gamma));
        }
        for (argument, view, elements) in [
            ("u", &self.u, batch * n),
            ("v", &self.v, batch * m),
            ("sigma", &self.sigma, batch),
            ("scale", &self.scale, batch),
        ] {
            check.tensor(argument, &view.as_ref(), &[DType::F32], &[elements])?;
            writes.push((argument, view.as_ref()));
        }
        if let Some(scaled) = &self.scaled {
            check.rows("scaled", &scaled.as_ref(), self.shape.rows(), n)?;
            writes.push(("scaled", scaled.as_ref()));
        }
        check.workspace(Some(&self.workspace), bytes)?;
        writes.push(("workspace", self.workspace.as_ref()));
        stream.check_views(check.op, &reads, &writes)
    }
}

/// A backward.
#[derive(Debug)]
pub(in crate::norm) struct BackwardCall<'a> {
    pub(in crate::norm) shape: Shape,
    /// `batch * m` rows of `n`.
    pub(in crate::norm) w: TensorRef<'a>,
    pub(in crate::norm) saved: SpectralSaved<'a>,
    /// `[batch]` f32.
    pub(in crate::norm) gamma: Option<TensorRef<'a>>,
    /// As w.
    pub(in crate::norm) dscaled: TensorRef<'a>,
    /// As w.
    pub(in crate::norm) dw: TensorMut<'a>,
    /// `[batch]` f32; there only with gamma.
    pub(in crate::norm) dgamma: Option<TensorMut<'a>>,
    /// Whether dw and dgamma are added to what is there.
    pub(in crate::norm) accumulate: bool,
    pub(in crate::norm) workspace: TensorMut<'a>,
}

impl BackwardCall<'_> {
    /// All but w, which [`Shape::of`] checked.
    pub(super) fn check(&self, check: &Check, bytes: usize, stream: &Stream) -> Result<()> {
        let Shape { batch, m, n } = self.shape;
        check.rows("dscaled", &self.dscaled, self.shape.rows(), n)?;
        check.rows("dw", &self.dw.as_ref(), self.shape.rows(), n)?;
        let mut reads: Named<'_> = vec![("w", self.w), ("dscaled", self.dscaled)];
        let mut writes: Named<'_> = vec![("dw", self.dw.as_ref())];
        for (argument, view, elements) in [
            ("u", Some(self.saved.u), batch * n),
            ("v", Some(self.saved.v), batch * m),
            ("sigma", Some(self.saved.sigma), batch),
            ("gamma", self.gamma, batch),
        ] {
            if let Some(view) = view {
                check.tensor(argument, &view, &[DType::F32], &[elements])?;
                reads.push((argument, view));
            }
        }
        if let Some(dgamma) = &self.dgamma {
            check.absent("dgamma", self.gamma.is_none(), "gamma is not given")?;
            check.tensor("dgamma", &dgamma.as_ref(), &[DType::F32], &[batch])?;
            writes.push(("dgamma", dgamma.as_ref()));
        }
        check.workspace(Some(&self.workspace), bytes)?;
        writes.push(("workspace", self.workspace.as_ref()));
        stream.check_views(check.op, &reads, &writes)
    }
}
