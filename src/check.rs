//! What every operation asks of its arguments, checked like mathematics before anything is launched.
//!
//! An operation adds the checks that are its own beside its other code; what two of them share is
//! here.

use crate::device::stream::Backend;
use crate::{DType, DeviceId, Error, Result, Stream, TensorMut, TensorRef};

/// The types of rows and weights.
pub(crate) const FLOATS: [DType; 3] = [DType::Bf16, DType::F16, DType::F32];
/// The types of targets, positions, lengths and offsets.
pub(crate) const INTEGERS: [DType; 3] = [DType::I64, DType::I32, DType::U32];

/// Rows and columns that kernels count, in 32 bits with one to spare.
pub(crate) const MAX_ROWS: usize = i32::MAX as usize;

/// Views with their names, for messages.
pub(crate) type Named<'a> = Vec<(&'static str, TensorRef<'a>)>;

/// The checks of one operation's arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    pub(crate) op: &'static str,
    pub(crate) device: DeviceId,
    /// Whether the device launches kernels, which have limits that the formulas do not.
    pub(crate) kernels: bool,
}

impl Check {
    pub(crate) fn new(op: &'static str, stream: &Stream) -> Self {
        Self {
            op,
            device: stream.device().id(),
            kernels: stream.backend() == Backend::Kernels,
        }
    }

    pub(crate) fn fail<T>(
        &self,
        argument: &'static str,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Result<T> {
        Err(Error::argument(self.op, argument, expected, got))
    }

    /// A view's device and type.
    pub(crate) fn typed(
        &self,
        argument: &'static str,
        tensor: &TensorRef<'_>,
        dtypes: &[DType],
    ) -> Result<()> {
        if tensor.device() != self.device {
            return self.fail(
                argument,
                format!("on {}", self.device),
                format!("on {}", tensor.device()),
            );
        }
        if !dtypes.contains(&tensor.dtype()) {
            let names: Vec<String> = dtypes.iter().map(DType::to_string).collect();
            return self.fail(argument, names.join(" or "), tensor.dtype().to_string());
        }
        Ok(())
    }

    /// A view on the device, of a type that rows and weights have.
    pub(crate) fn float(&self, argument: &'static str, tensor: &TensorRef<'_>) -> Result<()> {
        self.typed(argument, tensor, &FLOATS)
    }

    /// A view's device, type and number of elements, which lie side by side.
    pub(crate) fn tensor(
        &self,
        argument: &'static str,
        tensor: &TensorRef<'_>,
        dtypes: &[DType],
        elements: &[usize],
    ) -> Result<()> {
        self.typed(argument, tensor, dtypes)?;
        if !elements.contains(&tensor.elements()) || !tensor.is_contiguous() {
            let sizes: Vec<String> = elements.iter().map(|n| format!("[{n}]")).collect();
            return self.fail(
                argument,
                format!("contiguous, of shape {}", sizes.join(" or ")),
                shape_of(tensor),
            );
        }
        Ok(())
    }

    /// A matrix of floats of this shape, its rows at any stride.
    pub(crate) fn rows(
        &self,
        argument: &'static str,
        tensor: &TensorRef<'_>,
        rows: usize,
        columns: usize,
    ) -> Result<()> {
        self.float(argument, tensor)?;
        if tensor.rows() != rows || tensor.columns() != columns {
            return self.fail(argument, format!("[{rows}, {columns}]"), shape_of(tensor));
        }
        Ok(())
    }

    /// Rows that have columns, and as many of them as the device counts.
    pub(crate) fn row_count(
        &self,
        argument: &'static str,
        rows: usize,
        columns: usize,
    ) -> Result<()> {
        if columns == 0 {
            return self.fail(argument, "at least one column", "none");
        }
        if self.kernels && columns > MAX_ROWS {
            return self.fail(
                argument,
                "fewer than 2^31 columns on this device",
                columns.to_string(),
            );
        }
        if self.kernels && rows > MAX_ROWS {
            return self.fail(
                argument,
                "fewer than 2^31 rows on this device",
                rows.to_string(),
            );
        }
        Ok(())
    }

    /// Scratch of at least so many bytes, where any are needed.
    pub(crate) fn workspace(&self, workspace: Option<&TensorMut<'_>>, needed: usize) -> Result<()> {
        let expected = || format!("at least {needed} bytes at a multiple of 16");
        let Some(workspace) = workspace else {
            return match needed {
                0 => Ok(()),
                _ => self.fail("workspace", expected(), "absent"),
            };
        };
        let bytes = workspace.elements();
        self.tensor("workspace", &workspace.as_ref(), &[DType::U8], &[bytes])?;
        if needed > 0 && (bytes < needed || !workspace.address().is_multiple_of(16)) {
            let got = format!("{bytes} bytes at {:#x}", workspace.address());
            return self.fail("workspace", expected(), got);
        }
        Ok(())
    }

    /// Something that this operation has no use for.
    pub(crate) fn absent(&self, argument: &'static str, given: bool, why: &str) -> Result<()> {
        if given {
            return self.fail(argument, format!("absent: {why}"), "given");
        }
        Ok(())
    }
}

/// A view's shape in words; its row stride where that is not the row's length.
pub(crate) fn shape_of(tensor: &TensorRef<'_>) -> String {
    if tensor.is_contiguous() {
        format!("{:?}", tensor.shape())
    } else {
        format!(
            "{:?} with row stride {}",
            tensor.shape(),
            tensor.row_stride()
        )
    }
}

/// An output for a shorter while.
pub(crate) fn reborrow<'s>(output: &'s mut Option<TensorMut<'_>>) -> Option<TensorMut<'s>> {
    output.as_mut().map(TensorMut::reborrow)
}

pub(crate) fn read<'a, const N: usize>(
    reads: &mut Named<'a>,
    views: [(&'static str, Option<TensorRef<'a>>); N],
) {
    reads.extend(
        views
            .into_iter()
            .filter_map(|(name, view)| Some((name, view?))),
    );
}

pub(crate) fn write<'s, const N: usize>(
    writes: &mut Named<'s>,
    views: [(&'static str, &'s Option<TensorMut<'_>>); N],
) {
    let views = views.into_iter();
    writes.extend(views.filter_map(|(name, view)| Some((name, view.as_ref()?.as_ref()))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn devices_with_kernels_count_rows_in_31_bits() {
        let stream = Device::cpu().stream().unwrap();
        let cpu = Check::new("operation", &stream);
        assert!(cpu.row_count("x", MAX_ROWS + 1, 1).is_ok());
        assert!(cpu.row_count("x", 1, 0).is_err());
        let kernels = Check {
            kernels: true,
            ..cpu
        };
        assert!(kernels.row_count("x", MAX_ROWS, 1).is_ok());
        assert!(kernels.row_count("x", 1, MAX_ROWS).is_ok());
        assert!(kernels.row_count("x", 1, MAX_ROWS + 1).is_err());
        assert!(cpu.row_count("x", 1, MAX_ROWS + 1).is_ok());
        let error = kernels.row_count("x", MAX_ROWS + 1, 1).unwrap_err();
        assert!(error.to_string().contains("2^31"), "{error}");
    }

    #[test]
    fn a_workspace_is_asked_for_only_where_it_is_needed() {
        let stream = Device::cpu().stream().unwrap();
        let check = Check::new("operation", &stream);
        assert!(check.workspace(None, 0).is_ok());
        assert!(check.workspace(None, 1).is_err());
        let mut memory = stream.zeros(DType::U8, &[64]).unwrap();
        assert!(check.workspace(Some(&memory.view_mut()), 64).is_ok());
        assert!(check.workspace(Some(&memory.view_mut()), 65).is_err());
        let misaligned = memory.view_mut().slice_rows(1..64).unwrap();
        assert!(check.workspace(Some(&misaligned), 16).is_err());
        assert!(check.workspace(Some(&misaligned), 0).is_ok());
        let mut floats = stream.zeros(DType::F32, &[64]).unwrap();
        assert!(check.workspace(Some(&floats.view_mut()), 16).is_err());
    }
}
