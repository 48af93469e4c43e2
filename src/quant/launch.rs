//! What a quantisation's kernels need beside its arguments, and what a store asks of them.

use super::call::Store;
use super::form::QuantShape;
use super::params::{
    AmaxOutput, ClearParams, ClearRange, OutsideParams, QuantizeForm, QuantizeGrid, QuantizeOutput,
};
use super::{Format, OutputOptions, Quantize, Scaling};
use crate::device::launch::LaunchConfig;
use crate::{DType, Stream, TensorMut};

/// `sizeof(QuantizeShared)` of kernels/quant/scales.cuh.
const SHARED_BYTES: u32 = 16_384 + 2 * 8192 + 136;
/// Of the slots of `KeptShared`, kernels/quant/dense_source.cuh, beside it: 64 values of each thread in
/// fp32.
const KEPT_BYTES: u32 = 256 * 64 * size_of::<f32>() as u32;
/// Threads of a tile.
const THREADS: u32 = 256;

/// Whether scales of rows come from the kernels over rows, which have a row's amax from one read:
/// without a transposed output, a rotation, or groups.
pub(super) fn takes_rows(quantize: &Quantize, shape: QuantShape) -> bool {
    let [rowwise, transposed] = quantize.outputs();
    matches!(quantize.options().format, Format::Fp8Row(_))
        && rowwise.is_some_and(|output| output.rotation.is_none())
        && transposed.is_none()
        && shape.groups == 0
        && shape.columns > 0
}

/// Words of the amaxes that scales follow from, of the row-wise and the transposed output: what has
/// to be known of all of the input first.
fn amax_words(quantize: &Quantize, shape: QuantShape) -> [usize; 2] {
    let options = quantize.options();
    let groups = shape.groups.max(1);
    let current = options.scaling == Scaling::Current && options.format.needs_tensor_amax();
    let by_row = matches!(options.format, Format::Fp8Row(_)) && !takes_rows(quantize, shape);
    let words = |output: Option<OutputOptions>, of_rows: usize| match output {
        Some(_) if current => groups,
        Some(_) if by_row => of_rows,
        _ => 0,
    };
    let [rowwise, transposed] = quantize.outputs();
    [
        words(rowwise, shape.rows),
        words(transposed, groups.saturating_mul(shape.columns)),
    ]
}

/// Bytes of scratch that a quantisation needs on a device that launches kernels: an amax of each
/// output, tensor or group, of each row or of each column, where scales follow from them.
pub(crate) fn quantize_workspace_bytes(quantize: &Quantize, shape: QuantShape) -> usize {
    let [rowwise, transposed] = amax_words(quantize, shape);
    let bytes = rowwise
        .saturating_add(transposed)
        .saturating_mul(size_of::<u32>());
    bytes.checked_next_multiple_of(16).unwrap_or(usize::MAX)
}

/// A store as the kernels over tiles take it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TilePlan {
    pub(super) grid: QuantizeGrid,
    pub(super) form: QuantizeForm,
    pub(super) rowwise: QuantizeOutput,
    pub(super) transposed: QuantizeOutput,
    /// The amaxes to find first; none where `of` is 0.
    pub(super) amax: [AmaxOutput; 2],
    /// What is zeroed before anything else.
    pub(super) clear: ClearParams,
    /// How many outputs are rotated.
    pub(super) rotated: usize,
    bits: u32,
}

impl TilePlan {
    pub(super) fn new(stream: &Stream, store: &Store<'_>) -> Self {
        let grid = QuantizeGrid::new(store.shape, store.groups.as_ref());
        let [of_rows, of_columns] = amax_words(&store.quantize, store.shape);
        let workspace = store.workspace.as_ref().map_or(0, TensorMut::address);
        let mut words = [workspace, workspace + 4 * of_rows as u64];
        let mut amax = [AmaxOutput::default(); 2];
        let mut clear = ClearParams::default();
        clear.ranges[0] = ClearRange {
            data: workspace,
            bytes: 4 * (of_rows + of_columns) as u64,
        };
        let outputs = [store.rowwise.as_ref(), store.transposed.as_ref()];
        for (index, count) in [of_rows, of_columns].into_iter().enumerate() {
            if let (Some(output), 1..) = (outputs[index], count) {
                amax[index] = AmaxOutput::new(&output.form, words[index]);
            }
        }
        // Both outputs of the same values have the same amax of the tensor; with two elements a byte,
        // X^T leaves out groups that X has.
        let shared = amax[0].of == 1
            && amax[1].of == 1
            && outputs
                .iter()
                .flatten()
                .all(|output| output.form.rotation.is_none())
            && (store.groups.is_none() || store.quantize.options().format.element_bits() == 8);
        if shared {
            amax[1] = AmaxOutput::default();
            words[1] = words[0];
        }
        let mut parts = [QuantizeOutput::default(); 2];
        for (index, output) in outputs.iter().enumerate() {
            let Some(output) = output else {
                continue;
            };
            let found = if [of_rows, of_columns][index] > 0 {
                words[index]
            } else {
                0
            };
            parts[index] = QuantizeOutput::new(output, found);
            // Of groups, some scales belong to no block; without tiles all do.
            if let (Some(scales), true) =
                (&output.scales, store.groups.is_some() || !grid.has_tiles())
            {
                clear.ranges[1 + index] = ClearRange {
                    data: scales.address(),
                    bytes: (scales.elements() * scales.dtype().size()) as u64,
                };
            }
        }
        Self {
            grid,
            form: QuantizeForm::new(stream, store),
            rowwise: parts[0],
            transposed: parts[1],
            amax,
            clear,
            rotated: outputs
                .iter()
                .flatten()
                .filter(|output| output.form.rotation.is_some())
                .count(),
            bits: store.quantize.options().format.element_bits() as u32,
        }
    }

    /// Elements of no group, to be zeroed.
    pub(super) fn outside(&self) -> OutsideParams {
        OutsideParams {
            grid: self.grid,
            rowwise: (&self.rowwise).into(),
            transposed: (&self.transposed).into(),
            bits: self.bits,
            unused: 0,
        }
    }

    /// That of `quant_outside`, which mostly finds nothing to do.
    pub(super) fn outside_config(&self) -> LaunchConfig {
        LaunchConfig {
            grid: self.grid.blocks().min(128),
            block: THREADS,
            cluster: 1,
            shared_bytes: 0,
        }
    }

    /// Whether something has to be zeroed.
    pub(super) fn clears(&self) -> bool {
        self.clear.ranges.iter().any(|range| range.bytes > 0)
    }

    /// Whether there are amaxes to find.
    pub(super) fn finds_amax(&self) -> bool {
        self.grid.has_tiles() && self.amax.iter().any(|amax| amax.of != 0)
    }

    /// A launch over the tiles of values of this type in memory, which wait in shared memory where two
    /// outputs are rotated.
    pub(super) fn config(&self, dtype: DType) -> LaunchConfig {
        match (self.rotated, dtype) {
            (0 | 1, _) => self.config_with(0),
            (_, DType::F32) => self.config_with(KEPT_BYTES),
            _ => self.config_with(KEPT_BYTES / 2),
        }
    }

    /// A launch over the tiles of values that are computed in shared memory.
    pub(super) fn computed_config(&self) -> LaunchConfig {
        self.config_with(KEPT_BYTES)
    }

    fn config_with(&self, kept: u32) -> LaunchConfig {
        let slots = if kept > 0 {
            SHARED_BYTES.next_multiple_of(16) + kept
        } else {
            SHARED_BYTES
        };
        LaunchConfig {
            grid: self.grid.blocks(),
            block: THREADS,
            cluster: 1,
            shared_bytes: slots,
        }
    }

    /// That of `quant_clear`: a thread for some 64 words.
    pub(super) fn clear_config(&self) -> LaunchConfig {
        let bytes = self.clear.ranges.iter().map(|range| range.bytes).max();
        let blocks = bytes.unwrap_or(0).div_ceil(u64::from(THREADS) * 256);
        LaunchConfig {
            grid: blocks.clamp(1, 1024) as u32,
            block: THREADS,
            cluster: 1,
            shared_bytes: 0,
        }
    }
}

/// Whether values of this type are held in fp32.
pub(super) fn is_wide(dtype: DType, plan: &TilePlan) -> bool {
    dtype == DType::F32 || plan.rotated > 0
}
