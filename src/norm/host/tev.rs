//! The variability of a table.

use crate::host::{fill, matrix};
use crate::norm::tev::Call;
use crate::reference::norm::tev;
use crate::{Result, Status};

/// Runs a checked call. Gives what was found wrong with the data.
pub(in crate::norm) fn measure(mut call: Call<'_>) -> Result<Status> {
    let variability = tev::tev(matrix(&call.table)?);
    fill(&mut call.deviations, variability.deviations)?;
    fill(&mut call.tev, [variability.mean])?;
    Ok(variability.status)
}
