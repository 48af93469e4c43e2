//! Products by wgmma, on Hopper: which calls its kernels take, and how they are launched.

use crate::device::launch::Kernel;
use crate::device::tensor_map::{Swizzle, TensorMap, TensorTile};
use crate::matmul::call::{AddendView, Epilogue, Grouping, MatmulCall, MatmulShape};
use crate::matmul::hopper_config::{HopperPlan, Resident, SLICE_BYTES, STORE_ROWS, Sums};
use crate::matmul::hopper_params::{HopperParams, HopperStore};
use crate::matmul::operand::{OperandView, ScaleKind};
use crate::matmul::params::{EpilogueParams, OperandParams, ShapeParams};
use crate::matmul::{Activation, Matmul, OperandFormat, Promotion};
use crate::quant::Format;
use crate::{DType, Result, Stream, TensorMut, TensorRef};

/// Rows and columns that coordinates of the copy engine reach, a tile beyond included.
const MOST: usize = i32::MAX as usize - 512;
/// The copy engine's alignment of addresses and of rows, in bytes.
const ALIGNMENT: u64 = 16;

/// The kernels of one pair of operands.
#[derive(Debug)]
pub(super) struct HopperKernels {
    sums: Sums,
    kernels: Vec<Kernel>,
    resident: Resident,
}

/// The kernels' sums for these operands; `None` where there are none.
fn sums(matmul: &Matmul) -> Option<Sums> {
    let [a, b] = matmul.formats();
    let fast = matmul.promotion_of() == Promotion::None;
    match (a, b) {
        (OperandFormat::Bf16, _) => Some(Sums::Bf16),
        (OperandFormat::F16, _) => Some(Sums::F16),
        (OperandFormat::Quantized(a), OperandFormat::Quantized(b)) => match (a, b) {
            (Format::Fp8Block1x128(_), Format::Fp8Block128x128(_)) => Some(Sums::Fp8),
            (Format::Fp8Block1x128(_), Format::Fp8Block1x128(_)) => Some(Sums::Fp8Columns),
            (
                Format::Fp8Tensor(_) | Format::Fp8Row(_),
                Format::Fp8Tensor(_) | Format::Fp8Row(_),
            ) => Some(if fast { Sums::Fp8Fast } else { Sums::Fp8 }),
            _ => None,
        },
        (OperandFormat::Quantized(_), _) => None,
    }
}

impl HopperKernels {
    /// `None` on other GPUs, and of operands that no kernel of Hopper's multiplies.
    pub(super) fn load(stream: &Stream, matmul: &Matmul) -> Result<Option<Self>> {
        // wgmma is of this compute capability alone.
        if stream.device().compute_capability() != Some((9, 0)) {
            return Ok(None);
        }
        let Some(sums) = sums(matmul) else {
            return Ok(None);
        };
        let tiles = sums.tiles();
        let kernels = tiles
            .iter()
            .map(|tile| stream.kernel(tile.module, tile.name))
            .collect::<Result<Vec<_>>>()?;
        // One block fills a multiprocessor, whichever of the kernels it is of.
        let mut resident = Resident::default();
        if let (Some(kernel), Some(tile)) = (kernels.first(), tiles.first()) {
            resident.blocks = kernel.max_active_clusters(&tile.launch(1, 1))?;
            resident.pairs = kernel.max_active_clusters(&tile.launch(2, 2))?;
        }
        Ok((resident.blocks > 0).then_some(Self {
            sums,
            kernels,
            resident,
        }))
    }

    /// How this call is launched; `None` where it is the portable kernels'.
    pub(super) fn plan(&self, call: &MatmulCall<'_>) -> Option<HopperPlan> {
        if !fits(call) {
            return None;
        }
        #[cfg(test)]
        if let Some((tile, cluster)) = tests::FORCED.get() {
            let tile = tile.min(self.kernels.len() - 1);
            return Some(HopperPlan::of(
                &call.shape,
                self.sums,
                tile,
                cluster,
                self.resident,
            ));
        }
        HopperPlan::new(&call.shape, self.sums, self.resident)
    }

    /// Launches a call as `plan` says.
    pub(super) fn run(
        &self,
        stream: &Stream,
        plan: HopperPlan,
        call: MatmulCall<'_>,
    ) -> Result<()> {
        let MatmulCall {
            shape,
            a,
            b,
            offsets,
            mut epilogue,
            ..
        } = call;
        let tile = &self.sums.tiles()[plan.tile];
        let store = store(&epilogue);
        let [a_rows, b_rows] = tile.boxes();
        let params = HopperParams {
            a_map: operand_map(stream, &a, a_rows)?,
            b_map: operand_map(stream, &b, b_rows)?,
            out_map: match store {
                HopperStore::Elements => bytemuck::Zeroable::zeroed(),
                _ => matrix_map(stream, &epilogue.out.as_ref(), STORE_ROWS)?,
            },
            shape: ShapeParams::new(&shape, offsets.as_ref()),
            a: OperandParams::new(&a, shape.grouping),
            b: OperandParams::new(&b, shape.grouping),
            epilogue: EpilogueParams::new(&epilogue, &shape),
            status: stream.status_address(),
            store: store.code(),
            raster: plan.raster,
            unused: [0; 3],
        };
        let c = match epilogue.c {
            Some(AddendView::View(c)) => Some(c),
            Some(AddendView::Output) | None => None,
        };
        let operands = [Some(a.data), a.scales, Some(b.data), b.scales, offsets];
        let added = [epilogue.alpha, epilogue.bias, c, epilogue.output_scale];
        let reads: Vec<TensorRef<'_>> = operands.into_iter().chain(added).flatten().collect();
        let mut writes = vec![epilogue.out.reborrow()];
        for written in [&mut epilogue.pre_activation, &mut epilogue.amax] {
            writes.extend(written.as_mut().map(TensorMut::reborrow));
        }
        let config = tile.launch(plan.grid, plan.cluster);
        // SAFETY: the parameters are the kernel's, made of these views: its maps and pointers reach the
        // operands' elements and scales at the places that operand.rs states, the offsets and what the
        // epilogue adds; it writes elements of the results, whose shapes check.rs checked.
        unsafe {
            stream.launch(
                &self.kernels[plan.tile],
                config,
                &params,
                &reads,
                &mut writes,
            )
        }
    }
}

/// Whether the kernels can take a call at all.
fn fits(call: &MatmulCall<'_>) -> bool {
    let shape = &call.shape;
    let one_block = call.b.kind != ScaleKind::Block128x128
        || !matches!(shape.grouping, Grouping::Rows(_))
        // Else a tile of 128 columns would meet two blocks of 128 x 128.
        || shape.n.is_multiple_of(128);
    one_block
        && copied(&call.a.data)
        && copied(&call.b.data)
        && [shape.output_rows(), shape.b_rows(), shape.m, shape.k]
            .iter()
            .all(|&length| length <= MOST)
        && tiles_fit(shape)
}

/// Whether tiles are counted in 32 bits, whatever groups' sizes are.
fn tiles_fit(shape: &MatmulShape) -> bool {
    let groups = shape.grouping.count();
    let rows = match shape.grouping {
        Grouping::Contraction(_) => shape.m.div_ceil(128).saturating_mul(groups),
        Grouping::One | Grouping::Rows(_) => shape.m / 128 + 2 * groups,
    };
    rows.saturating_mul(shape.n.div_ceil(128) + 1) <= MOST
}

/// Whether the copy engine can move rows of this matrix.
fn copied(view: &TensorRef<'_>) -> bool {
    view.address().is_multiple_of(ALIGNMENT) && row_bytes(view).is_multiple_of(ALIGNMENT)
}

/// From a row to the next; of one row whatever the copy engine takes.
fn row_bytes(view: &TensorRef<'_>) -> u64 {
    let size = view.dtype().size();
    match view.rows() {
        0 | 1 => ((view.columns() * size) as u64).next_multiple_of(ALIGNMENT),
        _ => (view.row_stride() * size) as u64,
    }
}

/// By tiles what is the scaled sums, rounded once, or fp32 sums added to what is there.
fn store(epilogue: &Epilogue<'_>) -> HopperStore {
    let out = epilogue.out.as_ref();
    let plain = epilogue.bias.is_none()
        && epilogue.activation == Activation::None
        && epilogue.pre_activation.is_none()
        && epilogue.amax.is_none()
        && matches!(out.dtype(), DType::Bf16 | DType::F16 | DType::F32)
        && copied(&out);
    match &epilogue.c {
        None if plain => HopperStore::Tiles,
        // Each element is added once: no order to depend on.
        Some(AddendView::Output) if plain && epilogue.beta == 1.0 && out.dtype() == DType::F32 => {
            HopperStore::TilesAdded
        }
        _ => HopperStore::Elements,
    }
}

fn operand_map(stream: &Stream, operand: &OperandView<'_>, rows: u32) -> Result<TensorMap> {
    matrix_map(stream, &operand.data, rows)
}

/// Boxes of 128 bytes and so many rows, swizzled over these bytes.
fn matrix_map(stream: &Stream, view: &TensorRef<'_>, rows: u32) -> Result<TensorMap> {
    let dtype = view.dtype();
    stream.tensor_map(&TensorTile {
        address: view.address(),
        dtype,
        dims: &[view.columns() as u64, view.rows() as u64],
        strides: &[row_bytes(view)],
        tile: &[(SLICE_BYTES / dtype.size()) as u32, rows],
        swizzle: Swizzle::B128,
    })
}

#[cfg(all(test, feature = "emulator"))]
mod tests;
#[cfg(all(test, not(feature = "emulator")))]
mod tests {
    use std::cell::Cell;

    thread_local! {
        pub(super) static FORCED: Cell<Option<(usize, u32)>> = const { Cell::new(None) };
    }
}
