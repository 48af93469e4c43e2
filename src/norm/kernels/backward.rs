//! The gradients of a normalization on a device: one pass over the rows, and a second stage that adds
//! up the partial sums of the weights' gradients.

use super::columns::Partial;
use super::rows::{Extra, NormKernels, kind_name, rotary_bytes, tensors, touch};
use crate::norm::call::BackwardCall;
use crate::norm::check::partial_rows;
use crate::norm::params::{NormBackwardParams, RotaryParams};
use crate::norm::{NormKind, NormOptions};
use crate::rows::{Alignment, BACKWARD, Layout, RowLaunch};
use crate::rows::{CLUSTER_TEAM_SHARED_BYTES, Plan, RowKernels, Source, TEAM_SHARED_BYTES};
use crate::rows::{ColumnVector, Divisor, RowTensor};
use crate::rows::{RowShape, WeightForm};
use crate::{Result, Stream, TensorMut, TensorRef};

/// The most shared memory that sums of columns take: what every GPU of compute capability 9.0 and
/// 10.0 and 10.3 has for a block beside its team's, and others have for layouts without clusters.
const SUMS_IN_CLUSTERS: usize = 200 * 1024;
const SUMS_IN_BLOCKS: usize = 96 * 1024;

/// The kernels that kernels/norm/backward_block.cu and backward_cluster.cu list.
pub(super) fn load(stream: &Stream, kind: NormKind, extra: Extra) -> Result<RowKernels> {
    let name = kind_name(kind);
    let layouts: &[Layout] = match extra {
        Extra::None => &[Layout::C8U2, Layout::C8U4, Layout::C4U2, Layout::S4U2],
        Extra::Rotary => &[Layout::C8U2, Layout::C4U2, Layout::S4U2],
        Extra::Gate => &[Layout::C4U2, Layout::S4U2],
    };
    let in_clusters: &[Layout] = match kind {
        NormKind::Rms => layouts,
        NormKind::Layer => &[Layout::C8U4, Layout::C4U2, Layout::S4U2],
    };
    let block = Source {
        module: "norm_backward_block",
        stem: &format!("norm_backward_{name}{}", extra.name()),
        layouts,
    };
    let stem = format!("norm_backward_cluster_{name}");
    let cluster = Source {
        module: "norm_backward_cluster",
        stem: &stem,
        layouts: in_clusters,
    };
    let kernels = RowKernels::load(stream, block, (extra == Extra::None).then_some(cluster))?;
    Ok(kernels.on(&BACKWARD))
}

/// The partial sums of a call.
#[derive(Clone, Copy, Debug)]
struct Sums {
    /// Weights that have a gradient.
    weights: usize,
    /// Sets of rows that share them.
    groups: u32,
    /// Rows of partial sums of each group.
    slices: u32,
    columns: usize,
}

impl Sums {
    /// Elements of one weight's.
    fn elements(&self) -> u64 {
        u64::from(self.groups) * u64::from(self.slices) * self.columns as u64
    }

    fn partial(&self, address: u64) -> Partial {
        Partial {
            address,
            groups: self.groups,
            slices: self.slices,
            columns: self.columns as u32,
        }
    }
}

impl NormKernels {
    pub(in crate::norm) fn backward(
        &self,
        stream: &Stream,
        mut call: BackwardCall<'_>,
    ) -> Result<()> {
        let shape = call.shape;
        let weights = [&call.dgamma, &call.dbeta].into_iter().flatten().count();
        let groups = match call.form {
            WeightForm::Heads if weights > 0 => shape.heads as u32,
            _ => 1,
        };
        let mut sums = Sums {
            weights,
            groups,
            slices: 0,
            columns: shape.columns,
        };
        if shape.rows() > 0 {
            let extra = match (&call.rotary, &call.gate) {
                (Some(_), _) => Extra::Rotary,
                (None, Some(_)) => Extra::Gate,
                (None, None) => Extra::None,
            };
            let shared = |launch: &RowLaunch| {
                let rotary = match extra {
                    Extra::Rotary => rotary_bytes(launch, shape.columns),
                    Extra::None | Extra::Gate => 0,
                };
                rotary + sums_bytes(launch, weights)
            };
            let alignment = backward_alignment(&call);
            let mut plan = self.backward[extra as usize].plan(shape, &alignment, shared)?;
            slice(&mut plan, &mut sums, shape);
            launch_backward(stream, &plan, sums, extra, &mut call)?;
        }
        self.reduce(stream, sums, call)
    }

    /// The second stage. Without rows the sums are 0.
    fn reduce(&self, stream: &Stream, sums: Sums, call: BackwardCall<'_>) -> Result<()> {
        let gradients = [call.dgamma, call.dbeta].into_iter().flatten();
        let Some(mut workspace) = call.workspace.filter(|_| sums.slices > 0) else {
            if !call.accumulate {
                for gradient in gradients {
                    self.columns.clear(stream, gradient)?;
                }
            }
            return Ok(());
        };
        let mut address = workspace.address();
        let between = address + sums.weights as u64 * sums.elements() * 4;
        for gradient in gradients {
            let partial = sums.partial(address);
            let accumulate = call.accumulate;
            if call.form == WeightForm::One {
                let workspace = workspace.reborrow();
                let columns = &self.columns;
                columns.sum_to_one(stream, partial, between, workspace, gradient, accumulate)?;
            } else {
                let workspace = workspace.as_ref();
                self.columns
                    .sum(stream, partial, workspace, gradient, accumulate)?;
            }
            address += sums.elements() * 4;
        }
        Ok(())
    }
}

/// Shared memory for the sums of a block's teams: none where one team's are in registers, or do not
/// fit and go where they belong in the end.
fn sums_bytes(launch: &RowLaunch, weights: usize) -> usize {
    let layout = launch.rung.layout;
    // `ColumnSums::kInRegisters` of kernels/common/column_sums.cuh.
    let in_registers = layout.columns() <= 16 && !layout.spread;
    if in_registers && launch.teams == 1 {
        return 0;
    }
    let capacity = launch.threads * layout.columns() * launch.segments;
    let bytes = launch.teams * capacity * 4 * weights;
    let limit = if launch.rung.cluster > 1 {
        SUMS_IN_CLUSTERS
    } else {
        SUMS_IN_BLOCKS
    };
    if launch.teams == 1 && bytes > limit {
        0
    } else {
        bytes
    }
}

/// Deals the rows out: a worker has a slice of the rows that share their weights.
fn slice(plan: &mut Plan<'_>, sums: &mut Sums, shape: RowShape) {
    let teams = plan.launch.teams;
    sums.slices = slices(plan.active, teams, shape, sums.groups, sums.weights);
    let items = sums.groups * sums.slices;
    plan.config.grid = items.min(plan.active.max(1)) * plan.config.cluster;
}

/// Slices of each group's rows, for so many active workers of so many teams: no more than the
/// workspace has rows of partial sums for, where sums are asked for.
fn slices(active: u32, teams: usize, shape: RowShape, groups: u32, weights: usize) -> u32 {
    let groups = groups as usize;
    let rows = shape.rows() / groups;
    let most = match weights {
        0 => usize::MAX,
        _ => partial_rows(shape.tokens, shape.heads * shape.columns) * shape.heads / groups,
    };
    // Whole slices for all workers at once: a few workers more would wait for a second round.
    let wanted = (active as usize / groups).max(1);
    let slices = wanted.min(most).min(rows.div_ceil(teams)).max(1);
    // As few slices as give each as many rounds as the longest.
    let rounds = rows.div_ceil(slices * teams).max(1);
    rows.div_ceil(rounds * teams).max(1) as u32
}

fn backward_alignment(call: &BackwardCall<'_>) -> Alignment {
    let mut alignment = Alignment::default();
    let mut add = |view: &TensorRef<'_>| alignment.add_rows(view, call.shape);
    add(&call.gradient.input());
    add(&call.gradient.output());
    for view in [&call.x, &call.dstream].into_iter().flatten() {
        add(view);
    }
    if let Some(dresidual) = &call.dresidual {
        add(&dresidual.as_ref());
    }
    if let Some((z, dz)) = &call.gate {
        add(z);
        add(&dz.as_ref());
    }
    for vector in [&call.gamma, &call.beta].into_iter().flatten() {
        alignment.add_vector(vector);
    }
    alignment
}

fn launch_backward(
    stream: &Stream,
    plan: &Plan<'_>,
    sums: Sums,
    extra: Extra,
    call: &mut BackwardCall<'_>,
) -> Result<()> {
    let (shape, form) = (call.shape, call.form);
    let columns = shape.columns;
    let mut params = NormBackwardParams {
        grid: plan.grid,
        x: RowTensor::optional(call.x.as_ref(), shape),
        dstream: RowTensor::optional(call.dstream.as_ref(), shape),
        gamma: ColumnVector::new(call.gamma.as_ref(), form, columns),
        beta: ColumnVector::new(call.beta.as_ref(), form, columns),
        status: stream.status_address(),
        gamma_offset: call.norm.as_ref().map_or(0.0, NormOptions::gamma_offset),
        normalize: u32::from(call.norm.is_some()),
        groups: sums.groups,
        slices: sums.slices,
        by_slices: Divisor::new(sums.slices),
        ..NormBackwardParams::default()
    };
    let views = [call.x, call.dstream, call.gamma, call.beta];
    let mut reads: Vec<TensorRef<'_>> = views.into_iter().flatten().collect();
    let mut writes: Vec<TensorMut<'_>> = Vec::new();
    (params.dy, params.dx) = tensors(&call.gradient, shape);
    touch(call.gradient.reborrow(), &mut reads, &mut writes);
    if let Some(dresidual) = &mut call.dresidual {
        params.dresidual = RowTensor::new(&dresidual.as_ref(), shape);
        writes.push(dresidual.reborrow());
    }
    if let Some((z, dz)) = &mut call.gate {
        params.gate = RowTensor::new(z, shape);
        params.dgate = RowTensor::new(&dz.as_ref(), shape);
        reads.push(*z);
        writes.push(dz.reborrow());
    }
    if let Some((rotary, tables)) = &call.rotary {
        params.rotary = RotaryParams::new(rotary, tables, plan.launch.rung.layout.chunk);
        reads.extend([tables.cos, tables.sin]);
        reads.extend(tables.positions);
    }
    if let Some(saved) = &call.saved {
        params.rstd = saved.rstd.address();
        params.mean = saved.mean.map_or(0, |mean| mean.address());
        reads.push(saved.rstd);
        reads.extend(saved.mean);
    }
    if let Some(workspace) = &mut call.workspace {
        let mut address = workspace.address();
        if call.dgamma.is_some() {
            params.dgamma = address;
            address += sums.elements() * 4;
        }
        if call.dbeta.is_some() {
            params.dbeta = address;
        }
        writes.push(workspace.reborrow());
    }
    if sums_bytes(&plan.launch, sums.weights) > 0 {
        let team = if plan.config.cluster > 1 {
            CLUSTER_TEAM_SHARED_BYTES
        } else {
            TEAM_SHARED_BYTES
        };
        let rotary = match extra {
            Extra::Rotary => rotary_bytes(&plan.launch, columns),
            Extra::None | Extra::Gate => 0,
        };
        params.sums_offset = (team + rotary) as u32;
    }
    // SAFETY: the parameters are the kernel's, made of these views alone, whose shapes call.rs found to
    // fit: it reads and writes the columns of the rows, reads one value a row of the statistics, the
    // weights within their forms and the rows of the tables below their count, and writes groups *
    // slices rows of partial sums a weight, which `partial_rows` bounds as `workspace_bytes` does.
    unsafe { stream.launch(plan.kernel, plan.config, &params, &reads, &mut writes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::norm::check::workspace_bytes;
    use proptest::prelude::*;

    fn check(active: u32, teams: usize, shape: RowShape, by_head: bool) {
        let groups = if by_head { shape.heads as u32 } else { 1 };
        let slices = slices(active, teams, shape, groups, 2);
        let sums = Sums {
            weights: 2,
            groups,
            slices,
            columns: shape.columns,
        };
        let floats = 2 * sums.elements() as usize + shape.columns;
        let bytes = workspace_bytes(shape.tokens, shape.heads * shape.columns);
        assert!(
            4 * floats <= bytes,
            "{active} {teams} {shape:?} {by_head}: {slices} slices"
        );
        let rows = shape.rows() / groups as usize;
        assert!(slices as usize <= rows.max(1));
    }

    #[test]
    fn heads_that_share_a_weight_stay_within_the_workspace() {
        for (active, columns, heads) in [(108, 38_840, 6), (142, 29_136, 6), (188, 22_080, 5)] {
            let shape = RowShape {
                tokens: 100_000,
                heads,
                columns,
            };
            check(active, 1, shape, false);
            check(active, 1, shape, true);
        }
    }

    /// 32 heads on 132 workers: four slices each, and no second round for a few.
    #[test]
    fn slices_fill_the_device_once() {
        let shape = RowShape {
            tokens: 8192,
            heads: 32,
            columns: 128,
        };
        assert_eq!(slices(132, 64, shape, 32, 1), 4);
        // 262144 rows in 32 rounds of 64: 128 slices have all of them to do.
        assert_eq!(slices(132, 64, shape, 1, 1), 128);
        assert_eq!(slices(16, 64, shape, 32, 1), 1);
    }

    proptest! {
        #[test]
        fn partial_sums_stay_within_the_workspace(
            active in 1_u32..2000,
            teams in 1_usize..130,
            tokens in 1_usize..100_000,
            heads in 1_usize..200,
            columns in 1_usize..300_000,
            by_head: bool,
        ) {
            check(active, teams, RowShape { tokens, heads, columns }, by_head);
        }
    }
}
