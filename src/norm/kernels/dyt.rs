//! Dynamic tanh on a device.

use bytemuck::{Pod, Zeroable};

use super::rows::{tensors, touch};
use super::walk::{Deal, LAYOUTS, Walk, WalkKernels};
use crate::device::launch::{Kernel, LaunchConfig};
use crate::norm::arguments::Weights;
use crate::norm::dyt::{BackwardCall, ForwardCall};
use crate::rows::{Alignment, Layout};
use crate::rows::{ColumnVector, RowGrid, RowTensor};
use crate::rows::{RowShape, WeightForm};
use crate::{Result, Stream, TensorMut, TensorRef};

const MODULE: &str = "norm_dyt";

/// Blocks of a forward: twice four for each multiprocessor of an H200. No measurement chose it yet.
const FORWARD_BLOCKS: usize = 8 * 132;
/// Blocks of a backward, each of which leaves partial sums: the two that each multiprocessor of an
/// H200 holds at once. No measurement chose it yet.
const BACKWARD_BLOCKS: usize = 2 * 132;
/// Threads of the blocks that add up the partial sums, and the columns that each of them has.
const SUMS_THREADS: u32 = 512;
const SUMS_COLUMNS: usize = 32;
/// `BackwardShared` beside the team's.
const SCRATCH_BYTES: usize = 32 * size_of::<f32>();

/// `DytParams` of kernels/norm/dyt.cu.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct DytParams {
    grid: RowGrid,
    x: RowTensor,
    dy: RowTensor,
    out: RowTensor,
    gamma: ColumnVector,
    beta: ColumnVector,
    alpha: u64,
    dalpha: u64,
    dgamma: u64,
    dbeta: u64,
    status: u64,
    slices: u32,
    unused: u32,
}

/// `DytSumsParams`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct DytSumsParams {
    /// Of alpha, gamma and beta.
    partial: [u64; 3],
    sums: [u64; 3],
    blocks: u32,
    slices: u32,
    columns: u32,
    accumulate: u32,
}

const _: () = {
    assert!(size_of::<DytParams>() == 224);
    assert!(size_of::<DytSumsParams>() == 64);
};

/// The loaded kernels of a prepared dynamic tanh.
#[derive(Debug)]
pub(in crate::norm) struct DytKernels {
    forward: WalkKernels,
    backward: WalkKernels,
    sums: Kernel,
    /// Of quantised results, where they were asked for.
    #[cfg(feature = "quant")]
    pub(super) quantized: Option<super::dyt_quantized::QuantizedKernels>,
}

/// Bytes of partial sums: of gamma and of beta in each slice, of alpha in each block. Tensors decide
/// the layout, so it is as many as any needs.
pub(in crate::norm) fn workspace_bytes(rows: usize, columns: usize) -> usize {
    let floats = |layout: Layout| {
        let walk = backward_walk(layout, rows, columns);
        let vectors = walk.slices.saturating_mul(columns).saturating_mul(2);
        vectors.saturating_add(walk.blocks())
    };
    let most = LAYOUTS.into_iter().map(floats).max().unwrap_or(0);
    let bytes = most.saturating_mul(size_of::<f32>());
    bytes.checked_next_multiple_of(16).unwrap_or(usize::MAX)
}

fn backward_walk(layout: Layout, rows: usize, columns: usize) -> Walk {
    Walk::new(layout, rows, columns, Deal::blocks(BACKWARD_BLOCKS))
}

impl DytKernels {
    pub(in crate::norm) fn load(stream: &Stream) -> Result<Self> {
        Ok(Self {
            forward: WalkKernels::load(stream, MODULE, "norm_dyt_forward", LAYOUTS)?,
            backward: WalkKernels::load(stream, MODULE, "norm_dyt_backward", LAYOUTS)?,
            sums: stream.kernel(MODULE, "norm_dyt_sums")?,
            #[cfg(feature = "quant")]
            quantized: None,
        })
    }

    pub(in crate::norm) fn forward(&self, stream: &Stream, call: ForwardCall<'_>) -> Result<()> {
        let ForwardCall {
            shape,
            alpha,
            weights,
            x,
        } = call;
        let (rows, columns) = (shape.rows(), shape.columns);
        if rows == 0 {
            return Ok(());
        }
        let mut alignment = weight_alignment(&weights);
        alignment.add_rows(&x.input(), shape);
        alignment.add_rows(&x.output(), shape);
        let (layout, kernel) = self.forward.choose(&alignment, columns);
        let walk = Walk::new(layout, rows, columns, Deal::blocks(FORWARD_BLOCKS));
        let mut params = params(stream, &walk, shape, alpha, &weights);
        (params.x, params.out) = tensors(&x, shape);
        let mut reads = inputs(alpha, &weights);
        let mut writes = Vec::new();
        touch(x, &mut reads, &mut writes);
        // SAFETY: the parameters are the kernel's, made of these views alone, whose shapes dyt.rs
        // found to fit: it reads and writes the columns of the rows, the weights and alpha.
        unsafe { stream.launch(kernel, walk.config(0), &params, &reads, &mut writes) }
    }

    pub(in crate::norm) fn backward(&self, stream: &Stream, call: BackwardCall<'_>) -> Result<()> {
        let BackwardCall {
            shape,
            alpha,
            weights,
            x,
            dy,
            dalpha,
            dgamma,
            dbeta,
            accumulate,
            workspace,
        } = call;
        let (rows, columns) = (shape.rows(), shape.columns);
        let mut alignment = weight_alignment(&weights);
        for view in [&x, &dy.input(), &dy.output()] {
            alignment.add_rows(view, shape);
        }
        let (layout, kernel) = self.backward.choose(&alignment, columns);
        let walk = backward_walk(layout, rows, columns);
        let mut params = params(stream, &walk, shape, alpha, &weights);
        params.x = RowTensor::new(&x, shape);
        (params.dy, params.out) = tensors(&dy, shape);

        let vector = (walk.slices * columns * size_of::<f32>()) as u64;
        let outputs = [dalpha, dgamma, dbeta];
        let partial = workspace.as_ref().map_or([0; 3], |workspace| {
            let base = workspace.address();
            let places = [base + 2 * vector, base, base + vector];
            std::array::from_fn(|at| outputs[at].as_ref().map_or(0, |_| places[at]))
        });
        [params.dalpha, params.dgamma, params.dbeta] = partial;
        let mut reads = inputs(alpha, &weights);
        reads.push(x);
        let mut writes = Vec::new();
        touch(dy, &mut reads, &mut writes);
        writes.extend(workspace);
        let config = walk.config(SCRATCH_BYTES + walk.team_sums() * size_of::<f32>());
        // SAFETY: as above; of the workspace, which dyt.rs found to have `workspace_bytes`, it writes
        // the partial sums of those gradients that are asked for, and the workspace is there then.
        unsafe { stream.launch(kernel, config, &params, &reads, &mut writes)? };

        if outputs.iter().all(Option::is_none) {
            return Ok(());
        }
        let params = DytSumsParams {
            partial,
            sums: std::array::from_fn(|at| outputs[at].as_ref().map_or(0, TensorMut::address)),
            blocks: walk.blocks() as u32,
            slices: walk.slices as u32,
            columns: columns as u32,
            accumulate: u32::from(accumulate),
        };
        let config = LaunchConfig {
            grid: (2 * columns.div_ceil(SUMS_COLUMNS) + 1) as u32,
            block: SUMS_THREADS,
            cluster: 1,
            shared_bytes: SUMS_THREADS * size_of::<f32>() as u32,
        };
        // The workspace, last of what was written; without rows there is none.
        let reads: Vec<TensorRef<'_>> = writes
            .last()
            .filter(|_| rows > 0)
            .map(TensorMut::as_ref)
            .into_iter()
            .collect();
        let mut writes: Vec<TensorMut<'_>> = outputs.into_iter().flatten().collect();
        // SAFETY: it reads the partial sums that were written just now, none without rows, and writes
        // (or adds to) one number, or one a column, of each gradient that is asked for.
        unsafe { stream.launch(&self.sums, config, &params, &reads, &mut writes) }
    }
}

pub(super) fn weight_alignment(weights: &Weights<'_>) -> Alignment {
    let mut alignment = Alignment::default();
    for vector in [&weights.gamma, &weights.beta].into_iter().flatten() {
        alignment.add_vector(vector);
    }
    alignment
}

pub(super) fn inputs<'a>(alpha: TensorRef<'a>, weights: &Weights<'a>) -> Vec<TensorRef<'a>> {
    let views = [Some(alpha), weights.gamma, weights.beta];
    views.into_iter().flatten().collect()
}

/// All but the rows and the sums.
fn params(
    stream: &Stream,
    walk: &Walk,
    shape: RowShape,
    alpha: TensorRef<'_>,
    weights: &Weights<'_>,
) -> DytParams {
    let columns = shape.columns;
    let vector =
        |view: &Option<TensorRef<'_>>| ColumnVector::new(view.as_ref(), WeightForm::Row, columns);
    DytParams {
        grid: walk.grid(shape.rows(), columns),
        gamma: vector(&weights.gamma),
        beta: vector(&weights.beta),
        alpha: alpha.address(),
        status: stream.status_address(),
        slices: walk.slices as u32,
        ..DytParams::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_small_beside_the_rows() {
        // 32768 rows of 4096 bf16 are 256 MiB, thrice.
        assert!(workspace_bytes(32_768, 4096) < 5 << 20);
        assert_eq!(workspace_bytes(0, 4096), 0);
        assert!(workspace_bytes(1, 1) >= 12);
        assert_eq!(workspace_bytes(usize::MAX, usize::MAX), usize::MAX);
    }
}
