//! Bytes that launches moved, as the emulator counted them.

use evenkeel::{Device, Result};

use crate::compare::Checked;

/// Bytes of global memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Read.
    pub loads: u64,
    /// Written.
    pub stores: u64,
}

/// Those that the kernels of a problem moved; zeros on devices that do not count.
///
/// # Errors
/// What computing the problem gives.
pub fn of(device: &Device, problem: &dyn Checked) -> Result<Bytes> {
    let stream = device.stream()?;
    problem.check_on(&stream)?;
    Ok(taken(&stream))
}

/// Those of the kernels whose names begin so.
///
/// # Errors
/// What computing the problem gives.
pub fn of_kernels(device: &Device, problem: &dyn Checked, name: &str) -> Result<Bytes> {
    let stream = device.stream()?;
    problem.check_on(&stream)?;
    Ok(taken_by(&stream, name))
}

/// Those since the stream was last asked.
#[must_use]
pub fn taken(stream: &evenkeel::Stream) -> Bytes {
    taken_by(stream, "")
}

/// The same, of the kernels whose names begin so.
fn taken_by(stream: &evenkeel::Stream, name: &str) -> Bytes {
    #[cfg(feature = "emulator")]
    {
        let mut bytes = Bytes::default();
        let reports = stream.take_reports();
        for report in reports.iter().filter(|r| r.kernel.starts_with(name)) {
            bytes.loads += report.traffic.global_load_bytes;
            bytes.stores += report.traffic.global_store_bytes;
        }
        bytes
    }
    #[cfg(not(feature = "emulator"))]
    {
        let _ = (stream, name);
        Bytes::default()
    }
}
