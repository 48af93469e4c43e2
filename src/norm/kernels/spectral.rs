//! Spectral norms of weights on a device.

use bytemuck::{Pod, Zeroable};

use super::walk::{Deal, LAYOUTS, Walk, WalkKernels};
use crate::device::launch::{Kernel, LaunchConfig};
use crate::norm::spectral::{BackwardCall, ForwardCall, Shape};
use crate::rows::RowShape;
use crate::rows::TEAM_SHARED_BYTES;
use crate::rows::{Alignment, Layout};
use crate::rows::{RowGrid, RowTensor};
use crate::{Result, Stream, TensorMut, TensorRef};

const ITERATION: &str = "norm_spectral";
const SCALE: &str = "norm_spectral_scale";

/// Those that kernels/norm/spectral.cu lists for a step.
const STEP_LAYOUTS: [Layout; 3] = [Layout::C8U2, Layout::C4U4, Layout::S4U4];
/// How a step deals out the rows of all weights: two blocks for each multiprocessor of an H200, and
/// rows enough for each that its partial sums are few beside them. No measurement chose these yet.
const STEP: Deal = Deal {
    threads: 512,
    rows: 8,
    blocks: 2 * 132,
};
/// The same of what reads rows and keeps no sums of columns.
const WALK: Deal = Deal::blocks(8 * 132);
/// `StepShared` and `DotShared` beside the team's.
const SCRATCH_BYTES: usize = 32 * size_of::<f32>();
/// Columns of a block that adds up partial sums, and its threads.
const SUM_COLUMNS: usize = 32;
const SUM_THREADS: u32 = 512;

/// `SpectralStepParams` of kernels/norm/spectral.cu.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct StepParams {
    grid: RowGrid,
    w: RowTensor,
    u: u64,
    t: u64,
    partial: u64,
    scales: u64,
    slices: u32,
    sums_offset: u32,
}

/// `SpectralColumnsParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ColumnsParams {
    partial: u64,
    scales: u64,
    u: u64,
    slices: u32,
    columns: u32,
}

/// `SpectralStage`.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Step,
    LastStep,
    NoStep,
}

/// `SpectralFinishParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct FinishParams {
    t: u64,
    scales: u64,
    gamma: u64,
    u: u64,
    v: u64,
    sigma: u64,
    scale: u64,
    status: u64,
    m: u32,
    n: u32,
    slices: u32,
    stage: u32,
}

/// `SpectralDotParams` of kernels/norm/spectral_scale.cu.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct DotParams {
    grid: RowGrid,
    w: RowTensor,
    g: RowTensor,
    partial: u64,
    slices: u32,
    unused: u32,
}

/// `SpectralRatioParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct RatioParams {
    partial: u64,
    sigma: u64,
    gamma: u64,
    ratio: u64,
    scale: u64,
    dgamma: u64,
    status: u64,
    blocks: u32,
    accumulate: u32,
}

/// `SpectralApplyParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct ApplyParams {
    grid: RowGrid,
    from: RowTensor,
    out: RowTensor,
    scale: u64,
    ratio: u64,
    u: u64,
    v: u64,
    slices: u32,
    accumulate: u32,
}

const _: () = {
    assert!(size_of::<StepParams>() == 104);
    assert!(size_of::<ColumnsParams>() == 32);
    assert!(size_of::<FinishParams>() == 80);
    assert!(size_of::<DotParams>() == 112);
    assert!(size_of::<RatioParams>() == 64);
    assert!(size_of::<ApplyParams>() == 136);
};

/// The loaded kernels of a prepared spectral norm.
#[derive(Debug)]
pub(in crate::norm) struct SpectralKernels {
    step: WalkKernels,
    columns: Kernel,
    finish: Kernel,
    dot: WalkKernels,
    ratio: Kernel,
    apply: WalkKernels,
}

/// Bytes of a forward's workspace: partial sums of u of each slice, t, and the slices' scales. Tensors
/// decide the layout, so it is as many as any needs.
pub(in crate::norm) fn workspace_bytes(batch: usize, m: usize, n: usize) -> usize {
    let floats = |layout: Layout| {
        let slices = step_walk(layout, Shape { batch, m, n }).slices;
        let of_weight = slices.saturating_mul(n.saturating_add(1)).saturating_add(m);
        of_weight.saturating_mul(batch)
    };
    most_bytes(STEP_LAYOUTS, floats)
}

/// Bytes of a backward's workspace: partial sums of <G, W> of each block, and two numbers a weight.
pub(in crate::norm) fn backward_workspace_bytes(batch: usize, m: usize, n: usize) -> usize {
    let floats = |layout: Layout| {
        let blocks = walk(layout, Shape { batch, m, n }, WALK).blocks();
        blocks.saturating_add(2).saturating_mul(batch)
    };
    most_bytes(LAYOUTS, floats)
}

fn most_bytes(layouts: [Layout; 3], floats: impl Fn(Layout) -> usize) -> usize {
    let most = layouts.into_iter().map(floats).max().unwrap_or(0);
    let bytes = most.saturating_mul(size_of::<f32>());
    bytes.checked_next_multiple_of(16).unwrap_or(usize::MAX)
}

/// The rows of one weight, where the weights of a batch share the blocks.
fn walk(layout: Layout, shape: Shape, deal: Deal) -> Walk {
    let deal = Deal {
        blocks: deal.blocks / shape.batch.max(1),
        ..deal
    };
    Walk::new(layout, shape.m, shape.n, deal)
}

/// The same of a step, in which a block goes over all segments of its rows.
fn step_walk(layout: Layout, shape: Shape) -> Walk {
    let segments = walk(layout, shape, STEP).segments;
    let deal = Deal {
        blocks: STEP.blocks.saturating_mul(segments),
        ..STEP
    };
    walk(layout, shape, deal)
}

/// Blocks for all weights.
fn for_all(shape: Shape, config: LaunchConfig) -> LaunchConfig {
    LaunchConfig {
        grid: config.grid * shape.batch as u32,
        ..config
    }
}

/// All weights' rows, one after the other.
fn rows(shape: Shape) -> RowShape {
    RowShape {
        tokens: shape.batch * shape.m,
        heads: 1,
        columns: shape.n,
    }
}

/// A block of so many threads for each of `grid`, which share numbers of 8 bytes, one a warp.
fn blocks(grid: usize, block: u32) -> LaunchConfig {
    LaunchConfig {
        grid: grid as u32,
        block,
        cluster: 1,
        shared_bytes: 32 * size_of::<f64>() as u32,
    }
}

impl SpectralKernels {
    pub(in crate::norm) fn load(stream: &Stream) -> Result<Self> {
        Ok(Self {
            step: WalkKernels::load(stream, ITERATION, "norm_spectral_step", STEP_LAYOUTS)?,
            columns: stream.kernel(ITERATION, "norm_spectral_columns")?,
            finish: stream.kernel(ITERATION, "norm_spectral_finish")?,
            dot: WalkKernels::load(stream, SCALE, "norm_spectral_dot", LAYOUTS)?,
            ratio: stream.kernel(SCALE, "norm_spectral_ratio")?,
            apply: WalkKernels::load(stream, SCALE, "norm_spectral_apply", LAYOUTS)?,
        })
    }

    pub(in crate::norm) fn forward(
        &self,
        stream: &Stream,
        mut call: ForwardCall<'_>,
    ) -> Result<()> {
        let Shape { batch, m, n } = call.shape;
        let mut alignment = Alignment::default();
        alignment.add_rows(&call.w, rows(call.shape));
        alignment.add_vector(&call.u.as_ref());
        let (layout, kernel) = self.step.choose(&alignment, n);
        let walk = step_walk(layout, call.shape);
        let float = size_of::<f32>() as u64;
        let partial = call.workspace.address();
        let t = partial + (batch * walk.slices * n) as u64 * float;
        let scales = t + (batch * m) as u64 * float;
        let slices = walk.slices as u32;

        let mut step = StepParams {
            grid: walk.grid(m, n),
            w: RowTensor::new(&call.w, rows(call.shape)),
            u: call.u.address(),
            t,
            partial: if call.steps == 0 { 0 } else { partial },
            scales,
            slices,
            sums_offset: 0,
        };
        let mut config = step_config(&walk);
        if walk.segments > 1 {
            // Sums of a long row, in shared memory where it is large enough.
            let sums = LaunchConfig {
                shared_bytes: config
                    .shared_bytes
                    .saturating_add((n * size_of::<f32>()) as u32),
                ..config
            };
            if kernel.max_active_clusters(&sums)? > 0 {
                step.sums_offset = config.shared_bytes;
                config = sums;
            }
        }
        let step_config = for_all(call.shape, config);
        let columns = ColumnsParams {
            partial,
            scales,
            u: call.u.address(),
            slices,
            columns: n as u32,
        };
        let columns_config = LaunchConfig {
            shared_bytes: SUM_THREADS * size_of::<f32>() as u32,
            ..blocks(batch * n.div_ceil(SUM_COLUMNS), SUM_THREADS)
        };
        let mut finish = FinishParams {
            t,
            scales,
            gamma: call.gamma.map_or(0, |gamma| gamma.address()),
            u: call.u.address(),
            v: call.v.address(),
            sigma: call.sigma.address(),
            scale: call.scale.address(),
            status: stream.status_address(),
            m: m as u32,
            n: n as u32,
            slices,
            stage: Stage::NoStep as u32,
        };
        for index in 0..call.steps.max(1) {
            let reads = [call.w, call.u.as_ref()];
            let writes = &mut [call.workspace.reborrow()];
            // SAFETY: the parameters are the kernels', made of these views, whose shapes call.rs found
            // to fit. This one reads the weights and u, and writes t, partial sums and their scales,
            // for which the workspace has room.
            unsafe { stream.launch(kernel, step_config, &step, &reads, writes)? };
            if call.steps > 0 {
                let reads = [call.workspace.as_ref()];
                let writes = &mut [call.u.reborrow()];
                // SAFETY: it reads the partial sums and their scales, and writes u.
                unsafe { stream.launch(&self.columns, columns_config, &columns, &reads, writes)? };
                let last = index + 1 == call.steps;
                finish.stage = if last { Stage::LastStep } else { Stage::Step } as u32;
            }
            let mut reads = vec![call.workspace.as_ref()];
            reads.extend(call.gamma);
            let writes = &mut [&mut call.u, &mut call.v, &mut call.sigma, &mut call.scale]
                .map(TensorMut::reborrow);
            // SAFETY: it reads t, scales and gamma, and reads and writes u, v, sigma and the scale.
            unsafe { stream.launch(&self.finish, blocks(batch, 1024), &finish, &reads, writes)? };
        }
        let Some(scaled) = call.scaled else {
            return Ok(());
        };
        let apply = Apply {
            shape: call.shape,
            from: call.w,
            scale: call.scale.as_ref(),
            scale_address: call.scale.address(),
            along: None,
            accumulate: false,
        };
        self.apply(stream, apply, scaled)
    }

    pub(in crate::norm) fn backward(
        &self,
        stream: &Stream,
        mut call: BackwardCall<'_>,
    ) -> Result<()> {
        let Shape { batch, m, n } = call.shape;
        let mut alignment = Alignment::default();
        alignment.add_rows(&call.w, rows(call.shape));
        alignment.add_rows(&call.dscaled, rows(call.shape));
        let (layout, kernel) = self.dot.choose(&alignment, n);
        let walk = walk(layout, call.shape, WALK);
        let partial = call.workspace.address();
        let ratio = partial + (batch * walk.blocks() * size_of::<f32>()) as u64;
        let scale = ratio + (batch * size_of::<f32>()) as u64;
        let params = DotParams {
            grid: walk.grid(m, n),
            w: RowTensor::new(&call.w, rows(call.shape)),
            g: RowTensor::new(&call.dscaled, rows(call.shape)),
            partial,
            slices: walk.slices as u32,
            unused: 0,
        };
        let config = for_all(call.shape, walk.config(SCRATCH_BYTES));
        let reads = [call.w, call.dscaled];
        let writes = &mut [call.workspace.reborrow()];
        // SAFETY: the parameters are the kernels', made of these views, whose shapes call.rs found to
        // fit. This one reads the weights and the gradient, and writes a number a block, for which the
        // workspace has room.
        unsafe { stream.launch(kernel, config, &params, &reads, writes)? };

        let params = RatioParams {
            partial,
            sigma: call.saved.sigma.address(),
            gamma: call.gamma.map_or(0, |gamma| gamma.address()),
            ratio,
            scale,
            dgamma: call.dgamma.as_ref().map_or(0, TensorMut::address),
            status: stream.status_address(),
            blocks: walk.blocks() as u32,
            accumulate: u32::from(call.accumulate),
        };
        let mut reads = vec![call.saved.sigma];
        reads.extend(call.gamma);
        let mut writes = vec![call.workspace.reborrow()];
        writes.extend(call.dgamma.as_mut().map(TensorMut::reborrow));
        // SAFETY: it reads these numbers, sigma and gamma, and writes two numbers a weight, for which
        // the workspace has room, and dgamma.
        unsafe {
            stream.launch(
                &self.ratio,
                blocks(batch, 256),
                &params,
                &reads,
                &mut writes,
            )?
        };

        let apply = Apply {
            shape: call.shape,
            from: call.dscaled,
            scale: call.workspace.as_ref(),
            scale_address: scale,
            along: Some((ratio, call.saved.u, call.saved.v)),
            accumulate: call.accumulate,
        };
        self.apply(stream, apply, call.dw)
    }

    fn apply(&self, stream: &Stream, apply: Apply<'_>, out: TensorMut<'_>) -> Result<()> {
        let shape = apply.shape;
        let mut alignment = Alignment::default();
        alignment.add_rows(&apply.from, rows(shape));
        alignment.add_rows(&out.as_ref(), rows(shape));
        if let Some((_, u, _)) = &apply.along {
            alignment.add_vector(u);
        }
        let (layout, kernel) = self.apply.choose(&alignment, shape.n);
        let walk = walk(layout, shape, WALK);
        let along = apply.along;
        let params = ApplyParams {
            grid: walk.grid(shape.m, shape.n),
            from: RowTensor::new(&apply.from, rows(shape)),
            out: RowTensor::new(&out.as_ref(), rows(shape)),
            scale: apply.scale_address,
            ratio: along.map_or(0, |(ratio, ..)| ratio),
            u: along.map_or(0, |(_, u, _)| u.address()),
            v: along.map_or(0, |(.., v)| v.address()),
            slices: walk.slices as u32,
            accumulate: u32::from(apply.accumulate),
        };
        let mut reads = vec![apply.from, apply.scale];
        reads.extend(along.into_iter().flat_map(|(_, u, v)| [u, v]));
        let config = for_all(shape, walk.config(0));
        // SAFETY: the parameters are the kernel's, made of these views, whose shapes call.rs found to
        // fit: it reads one matrix, a scale (and ratio) a weight, u and v, and writes the other matrix,
        // to which it may add.
        unsafe { stream.launch(kernel, config, &params, &reads, &mut [out]) }
    }
}

/// out = scale from, or scale (from - ratio v u^T).
struct Apply<'a> {
    shape: Shape,
    from: TensorRef<'a>,
    /// Where the scales lie, and the ratios.
    scale: TensorRef<'a>,
    scale_address: u64,
    /// The ratios' address, u and v.
    along: Option<(u64, TensorRef<'a>, TensorRef<'a>)>,
    accumulate: bool,
}

/// Of a step on one weight, but for the sums of a long row.
fn step_config(walk: &Walk) -> LaunchConfig {
    let shared = TEAM_SHARED_BYTES + SCRATCH_BYTES + walk.team_sums() * size_of::<f32>();
    LaunchConfig {
        // The segments of a row are one block's.
        grid: walk.slices as u32,
        shared_bytes: shared as u32,
        ..walk.config(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspaces_are_small_beside_the_weights() {
        let weight = |[batch, m, n]: [usize; 3]| 2 * batch * m * n;
        for shape in [[1, 4096, 4096], [1, 4096, 14_336], [32, 512, 1024]] {
            let [batch, m, n] = shape;
            assert!(
                workspace_bytes(batch, m, n) <= weight(shape) / 6,
                "{shape:?}"
            );
            assert!(backward_workspace_bytes(batch, m, n) < 1 << 14);
        }
        assert_eq!(workspace_bytes(0, 3, 5), 0);
        assert_eq!(workspace_bytes(2, usize::MAX, usize::MAX), usize::MAX);
    }

    #[test]
    fn a_long_row_has_a_block_to_itself() {
        for layout in STEP_LAYOUTS {
            let shape = Shape {
                batch: 2,
                m: 70,
                n: 8193,
            };
            let walk = step_walk(layout, shape);
            assert!(walk.segments > 1 && walk.teams == 1);
        }
    }
}
