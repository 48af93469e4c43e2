//! The kernels of an operation over rows: which are loaded, and which of them takes a call's rows.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::launch::{Alignment, Available, FORWARD, Ladder, Layout, RowLaunch};
use super::{Divisor, RowGrid, RowShape};
use crate::device::launch::{Kernel, LaunchConfig};
use crate::{Result, Stream};

/// `sizeof(TeamShared)` of kernels/common/team.cuh.
pub(crate) const TEAM_SHARED_BYTES: usize = 1024;
/// `sizeof(ClusterTeamShared)`.
pub(crate) const CLUSTER_TEAM_SHARED_BYTES: usize = 1568;

/// The kernels of one row operation: one for each layout, in blocks and in clusters.
pub(crate) struct RowKernels {
    ladder: &'static Ladder,
    block: Vec<(Layout, Kernel)>,
    cluster: Vec<(Layout, Kernel)>,
    largest_cluster: u32,
    /// How many clusters of a launch the device holds at once; asked of the driver once each.
    active: Mutex<HashMap<(Layout, LaunchConfig), u32>>,
}

/// Where kernels are found: a module, and what their names begin with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) module: &'static str,
    pub(crate) stem: &'a str,
    pub(crate) layouts: &'a [Layout],
}

impl Source<'_> {
    fn load(&self, stream: &Stream) -> Result<Vec<(Layout, Kernel)>> {
        let load = |layout: &Layout| {
            let name = format!("{}_{}", self.stem, layout.name);
            Ok((*layout, stream.kernel(self.module, &name)?))
        };
        self.layouts.iter().map(load).collect()
    }
}

/// A launch of a row operation, ready but for the parameters' other fields.
pub(crate) struct Plan<'k> {
    pub(crate) kernel: &'k Kernel,
    pub(crate) launch: RowLaunch,
    pub(crate) grid: RowGrid,
    pub(crate) config: LaunchConfig,
    /// Workers (blocks, or clusters) that the device holds at once.
    pub(crate) active: u32,
}

impl RowKernels {
    /// Loads all of them: loading lazily within a graph capture may fail.
    pub(crate) fn load(
        stream: &Stream,
        block: Source<'_>,
        cluster: Option<Source<'_>>,
    ) -> Result<Self> {
        // Clusters of these kernels are compiled for compute capabilities 9.0, 10.0 and 10.3.
        let clusters = matches!(
            stream.device().compute_capability(),
            Some((9, 0) | (10, 0 | 3))
        );
        let cluster = match cluster.filter(|_| clusters) {
            Some(source) => source.load(stream)?,
            None => Vec::new(),
        };
        Ok(Self {
            ladder: &FORWARD,
            block: block.load(stream)?,
            largest_cluster: if cluster.is_empty() { 1 } else { 16 },
            cluster,
            active: Mutex::default(),
        })
    }

    /// On another ladder than that of operations that keep nothing from row to row.
    pub(crate) fn on(mut self, ladder: &'static Ladder) -> Self {
        self.ladder = ladder;
        self
    }

    /// Chooses the launch for these rows. `shared` is what the operation needs of shared memory
    /// beside the team's, in bytes.
    pub(crate) fn plan(
        &self,
        shape: RowShape,
        alignment: &Alignment,
        shared: impl Fn(&RowLaunch) -> usize,
    ) -> Result<Plan<'_>> {
        let layouts = |kernels: &[(Layout, Kernel)]| -> Vec<Layout> {
            kernels.iter().map(|(layout, _)| *layout).collect()
        };
        let (block, cluster) = (layouts(&self.block), layouts(&self.cluster));
        let available = Available {
            ladder: self.ladder,
            block: &block,
            cluster: &cluster,
            largest_cluster: self.largest_cluster,
        };
        let fits = |layout: &Layout| alignment.fits(layout, shape.columns);
        for launch in available.launches(shape.columns, fits) {
            let rung = launch.rung;
            let kernels = if rung.cluster > 1 {
                &self.cluster
            } else {
                &self.block
            };
            let Some((_, kernel)) = kernels.iter().find(|(layout, _)| *layout == rung.layout)
            else {
                continue; // not reached: launches are of available layouts
            };
            let team = if rung.cluster > 1 {
                CLUSTER_TEAM_SHARED_BYTES
            } else {
                TEAM_SHARED_BYTES
            };
            let mut config = LaunchConfig {
                grid: rung.cluster,
                block: launch.block() as u32,
                cluster: rung.cluster,
                shared_bytes: (team + shared(&launch)) as u32,
            };
            let active = self.active(rung.layout, kernel, config)?;
            if active == 0 {
                continue; // no such cluster fits: the next launch is smaller
            }
            let workers = (shape.rows() as u64).div_ceil(launch.teams as u64);
            config.grid = balanced(workers, active) * rung.cluster;
            return Ok(Plan {
                kernel,
                launch,
                grid: RowGrid {
                    rows: shape.rows() as u32,
                    columns: shape.columns as u32,
                    heads: shape.heads as u32,
                    by_heads: Divisor::new(shape.heads as u32),
                    threads: launch.threads as u32,
                    segments: launch.segments as u32,
                    unused: 0,
                },
                config,
                active,
            });
        }
        Err(crate::Error::unsupported(
            "launch",
            format!("rows of {} columns on this device", shape.columns),
            "use shorter rows, or the CPU",
        ))
    }

    fn active(&self, layout: Layout, kernel: &Kernel, config: LaunchConfig) -> Result<u32> {
        let mut cache = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&active) = cache.get(&(layout, config)) {
            return Ok(active);
        }
        let active = kernel.max_active_clusters(&config)?;
        cache.insert((layout, config), active);
        Ok(active)
    }
}

/// As few workers, each with as many rows, as let the last round be no emptier than the others.
fn balanced(work: u64, active: u32) -> u32 {
    let active = u64::from(active.max(1));
    let rounds = work.div_ceil(active).max(1);
    work.div_ceil(rounds) as u32
}

impl fmt::Debug for RowKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (block, cluster) = (self.block.len(), self.cluster.len());
        write!(f, "RowKernels({block} in blocks, {cluster} in clusters)")
    }
}
