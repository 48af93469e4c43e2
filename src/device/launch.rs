//! Launches: one path for every device that has kernels.

use crate::Result;

/// The shape of a launch. One dimension is enough for what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaunchConfig {
    /// Blocks, a multiple of `cluster`. None: there is nothing to do.
    pub(crate) grid: u32,
    /// Threads per block.
    pub(crate) block: u32,
    /// Blocks per cluster; 1 for none.
    pub(crate) cluster: u32,
    /// Dynamic shared memory per block.
    pub(crate) shared_bytes: u32,
}

/// A kernel, loaded.
#[derive(Clone)]
pub(crate) struct Kernel {}

impl Kernel {
    /// The clusters (blocks, where a cluster is one) of this launch that the device holds at once.
    pub(crate) fn max_active_clusters(&self, config: &LaunchConfig) -> Result<u32> {
        let _ = config;
        Ok(1)
    }
}
