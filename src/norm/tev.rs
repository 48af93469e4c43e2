//! The operation: the variability of an embedding table.

#[cfg(test)]
mod tests;

use super::host;
use super::kernels::TevKernels;
use crate::check::Check;
use crate::device::stream::Backend;
use crate::rows::RowShape;
use crate::{Buffer, DType, Result, Stream, TensorMut, TensorRef};

/// Token embedding variability, a probe of stability, to be prepared for a stream:
///
/// ```text
/// TEV = mean over tokens t of sqrt(sum_j (E_tj - mean_j E_tj)^2 / D)      E the embedding table, [vocab, D]
/// ```
///
/// Its authors find that it stands in for the variance of gradients, which costs far more to follow.
/// It is a measurement, and has no gradient.
///
/// Source: "Stable Language Model Pre-training by Reducing Embedding Variability" (arXiv 2409.07787).
///
/// ```
/// use evenkeel::{Device, norm::Tev};
///
/// let stream = Device::cpu().stream()?;
/// let table = stream.upload(&[2, 2], &[1.0_f32, 3.0, 7.0, 7.0])?;
/// let result = Tev::new().prepare(&stream)?.measure(table.view())?;
/// assert_eq!(result.deviations.read::<f32>()?, [1.0, 0.0]);
/// assert_eq!(result.read()?, 0.5);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Tev;

impl Tev {
    /// It has no options.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// Loads the kernels, so that calls can be captured into a graph.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) on devices that have no kernels for it.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedTev> {
        let kernels = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(TevKernels::load(stream)?),
        };
        Ok(PreparedTev {
            stream: stream.clone(),
            kernels,
        })
    }
}

/// What [`PreparedTev::measure`] returns, on the device.
#[derive(Debug)]
pub struct TevResult {
    /// TEV, `[1]` f32.
    pub tev: Buffer,
    /// The standard deviation over the features of each token, `[vocab]` f32.
    pub deviations: Buffer,
}

impl TevResult {
    /// TEV, after waiting for it.
    ///
    /// # Errors
    /// What went wrong with earlier work on the stream.
    pub fn read(&self) -> Result<f32> {
        Ok(self.tev.read::<f32>()?.first().copied().unwrap_or(0.0))
    }
}

/// A call whose arguments fit.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) table: TensorRef<'a>,
    /// `[1]` f32, 0 without rows.
    pub(super) tev: TensorMut<'a>,
    /// `[rows]` f32, of which `tev` is the mean.
    pub(super) deviations: TensorMut<'a>,
}

/// A [`Tev`] ready to run on a stream.
///
/// The table is `[vocab, D]` bf16, f16 or f32, rows at any stride. A row that is not finite makes
/// its deviation and TEV NaN, and sets
/// [`Status::NON_FINITE_ROW`](crate::Status::NON_FINITE_ROW). A table without rows has TEV 0.
#[derive(Debug)]
pub struct PreparedTev {
    stream: Stream,
    /// None: the reference runs the calls.
    kernels: Option<TevKernels>,
}

impl PreparedTev {
    /// TEV and the deviation of each token; one read of the table.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for what does not fit, and the device's errors.
    pub fn measure(&self, table: TensorRef<'_>) -> Result<TevResult> {
        let mut result = TevResult {
            tev: self.stream.uninitialised(DType::F32, &[1])?,
            deviations: self.stream.uninitialised(DType::F32, &[table.rows()])?,
        };
        let (tev, deviations) = (result.tev.view_mut(), result.deviations.view_mut());
        self.measure_into(table, tev, deviations)?;
        Ok(result)
    }

    /// As [`measure`](Self::measure), into memory of the caller's: `tev` is `[1]` and `deviations`
    /// `[vocab]`, both f32.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    pub fn measure_into(
        &self,
        table: TensorRef<'_>,
        mut tev: TensorMut<'_>,
        mut deviations: TensorMut<'_>,
    ) -> Result<()> {
        let check = Check::new("Tev::measure", &self.stream);
        let shape = RowShape::of(&check, "table", &table)?;
        check.tensor("tev", &tev.as_ref(), &[DType::F32], &[1])?;
        check.tensor(
            "deviations",
            &deviations.as_ref(),
            &[DType::F32],
            &[shape.rows()],
        )?;
        let written = [("tev", tev.as_ref()), ("deviations", deviations.as_ref())];
        self.stream
            .check_views(check.op, &[("table", table)], &written)?;
        let call = Call {
            table,
            tev: tev.reborrow(),
            deviations: deviations.reborrow(),
        };
        match &self.kernels {
            Some(kernels) => kernels.measure(&self.stream, call),
            None => {
                self.stream.raise(host::tev::measure(call)?);
                Ok(())
            }
        }
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedTev>();
};
