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

/// What launches moved, and how: on devices that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of global memory.
    pub bytes: Bytes,
    /// The same in whole sectors of 32 bytes, one for each warp that touches it: bytes that lie side by
    /// side cost no more than themselves.
    pub sectors: Bytes,
    /// Accesses to shared memory that had to wait for others of their warp.
    pub bank_conflicts: u64,
    /// The line with most of them.
    pub conflict: Option<String>,
    /// The names of the launches, in their order.
    pub launches: Vec<String>,
}

/// What the kernels of a problem moved.
///
/// # Errors
/// What computing the problem gives.
pub fn counted(device: &Device, problem: &dyn Checked) -> Result<Counts> {
    let stream = device.stream()?;
    problem.check_on(&stream)?;
    #[cfg(feature = "emulator")]
    {
        let mut counts = Counts::default();
        for report in stream.take_reports() {
            let traffic = &report.traffic;
            counts.bytes.loads += traffic.global_load_bytes;
            counts.bytes.stores += traffic.global_store_bytes;
            counts.sectors.loads += 32 * traffic.global_load_sectors;
            counts.sectors.stores += 32 * traffic.global_store_sectors;
            counts.bank_conflicts += traffic.bank_conflicts;
            if let Some((at, count)) = traffic.bank_conflict_sites.first() {
                counts.conflict = Some(format!("{count} at {at} of {}", report.kernel));
            }
            counts.launches.push(report.kernel);
        }
        Ok(counts)
    }
    #[cfg(not(feature = "emulator"))]
    Ok(Counts::default())
}
