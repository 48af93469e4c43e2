//! The kernels that the build script compiled.

use crate::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What this build of the crate holds: which kernels, compiled for what, by what.
///
/// ```
/// let build = evenkeel::device::Build::current();
/// println!("{} of {} modules for CUDA", build.cuda_modules().len(), build.modules().len());
/// if let Some(reason) = build.not_built {
///     println!("no CUDA kernels: {reason}");
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Build {
    /// Why there are no CUDA kernels, where there are none.
    pub not_built: Option<&'static str>,
    /// What the kernels were compiled for: `90a` is sm_90a, `compute_80` is PTX.
    pub targets: &'static [&'static str],
    /// The version of the CUDA compiler; empty without kernels.
    pub cuda_version: &'static str,
    /// `family=hash` of the kernels and the code that launches them.
    pub source_hash: &'static str,
}

impl Build {
    /// This build.
    #[must_use]
    pub fn current() -> Build {
        Build {
            not_built: NOT_BUILT,
            targets: TARGETS,
            cuda_version: CUDA_VERSION,
            source_hash: SOURCE_HASH,
        }
    }

    /// The kernel files, as `<family>_<operation>`.
    #[must_use]
    pub fn modules(&self) -> Vec<&'static str> {
        MODULES.iter().map(|module| module.name).collect()
    }

    /// Those that were compiled for a GPU.
    #[must_use]
    pub fn cuda_modules(&self) -> Vec<&'static str> {
        let compiled = MODULES.iter().filter(|module| module.fatbin.is_some());
        compiled.map(|module| module.name).collect()
    }
}

/// The module of this name.
pub(super) fn find(name: &str) -> Result<&'static Module> {
    MODULES
        .iter()
        .find(|module| module.name == name)
        .ok_or_else(|| Error::NotBuilt {
            reason: format!("there is no kernel file for module {name}"),
        })
}
