//! The kernels that the build script compiled.

use crate::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The module of this name.
pub(super) fn find(name: &str) -> Result<&'static Module> {
    MODULES
        .iter()
        .find(|module| module.name == name)
        .ok_or_else(|| Error::NotBuilt {
            reason: format!("there is no kernel file for module {name}"),
        })
}
