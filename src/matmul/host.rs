//! The CPU device: checked calls, run by the reference.

use super::call::MatmulCall;
use crate::{Error, Result, Status};

/// Runs a checked product. Gives what was found wrong with the data.
pub(super) fn run(call: MatmulCall<'_>) -> Result<Status> {
    let what = format!("a product of {:?}", call.shape);
    Err(Error::unsupported(
        "Matmul",
        what,
        "there is no device for it yet",
    ))
}
