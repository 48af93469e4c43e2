//! Products by mma.sync, on any GPU.

use crate::device::launch::Kernel;
use crate::matmul::call::{AddendView, MatmulCall, MatmulShape};
use crate::matmul::launch::{PortablePlan, portable_config, reduce_config};
use crate::matmul::params::{
    EpilogueParams, OperandParams, PortableParams, ShapeParams, SplitParams,
};
use crate::matmul::{Matmul, OperandFormat, Promotion};
use crate::quant::{Format, Fp8};
use crate::{Result, Stream, TensorMut, TensorRef};

/// The kernels of one pair of operands.
#[derive(Debug)]
pub(super) struct PortableKernels {
    product: Kernel,
    reduce: Kernel,
    promotion: Promotion,
    element_bytes: usize,
    /// Blocks that the device holds at once.
    resident: u32,
}

/// Whether the tensor cores of this compute capability multiply FP8 in mma.sync. On sm_90 and sm_100
/// the instruction is made of conversions to f16 and products of f16.
fn multiplies_fp8(capability: (u32, u32)) -> bool {
    capability == (8, 9) || capability.0 == 12
}

/// Module and name of the kernel.
fn kernel(a: OperandFormat, b: OperandFormat, capability: (u32, u32)) -> [&'static str; 2] {
    const PORTABLE: &str = "matmul_portable";
    const FP8: &str = "matmul_portable_fp8";
    let fp8 = |format: OperandFormat| match format {
        OperandFormat::Quantized(format) => format.fp8(),
        OperandFormat::Bf16 | OperandFormat::F16 => None,
    };
    // Of MX the sums of 32 keep all their bits.
    let mx = matches!(a, OperandFormat::Quantized(Format::MxFp8(_)));
    match (fp8(a), fp8(b)) {
        (Some(a), Some(b)) if multiplies_fp8(capability) && !mx => match (a, b) {
            (Fp8::E4m3, Fp8::E5m2) => [FP8, "matmul_portable_e4m3_e5m2"],
            (Fp8::E5m2, _) => [FP8, "matmul_portable_e5m2_e4m3"],
            (Fp8::E4m3, Fp8::E4m3) => [FP8, "matmul_portable_e4m3_e4m3"],
        },
        (Some(_), Some(_)) => [PORTABLE, "matmul_portable_expanded"],
        _ if a == OperandFormat::F16 => [PORTABLE, "matmul_portable_f16"],
        _ => [PORTABLE, "matmul_portable_bf16"],
    }
}

impl PortableKernels {
    pub(super) fn load(stream: &Stream, matmul: &Matmul) -> Result<Self> {
        let [a, b] = matmul.formats();
        let capability = stream.device().compute_capability().unwrap_or((8, 0));
        let [module, name] = kernel(a, b, capability);
        let product = stream.kernel(module, name)?;
        let resident = product.max_active_clusters(&portable_config(1))?;
        Ok(Self {
            product,
            reduce: stream.kernel("matmul_split", "matmul_split_reduce")?,
            promotion: matmul.promotion_of(),
            element_bytes: a.data_dtype().size(),
            resident,
        })
    }

    fn plan(&self, shape: &MatmulShape) -> Result<PortablePlan> {
        PortablePlan::new(shape, self.element_bytes, self.resident)
    }

    /// A shape beyond the launch's limits needs none: `run` refuses it.
    pub(super) fn workspace_bytes(&self, shape: &MatmulShape) -> usize {
        self.plan(shape)
            .map_or(0, |plan| plan.workspace_bytes(shape))
    }

    pub(super) fn run(&self, stream: &Stream, call: MatmulCall<'_>) -> Result<()> {
        let MatmulCall {
            shape,
            a,
            b,
            offsets,
            mut epilogue,
            mut workspace,
        } = call;
        let plan = self.plan(&shape)?;
        let split = plan.grid.splits > 1;
        let of_results = EpilogueParams::new(&epilogue, &shape);
        let partials = workspace.as_ref().map_or(0, TensorMut::address);
        let params = PortableParams {
            a: OperandParams::new(&a, shape.grouping),
            b: OperandParams::new(&b, shape.grouping),
            shape: ShapeParams::new(&shape, offsets.as_ref()),
            epilogue: if split {
                EpilogueParams::default()
            } else {
                of_results
            },
            grid: plan.grid,
            partials,
            // Of the scales of blocks the kernels decide themselves.
            promotion: u32::from(self.promotion == Promotion::Every128),
            unused: 0,
            status: stream.status_address(),
        };
        let operands = [Some(a.data), a.scales, Some(b.data), b.scales, offsets];
        let c = match epilogue.c {
            Some(AddendView::View(c)) => Some(c),
            Some(AddendView::Output) | None => None,
        };
        let of_epilogue = [epilogue.alpha, epilogue.bias, c, epilogue.output_scale];
        let mut writes = vec![epilogue.out.reborrow()];
        for written in [&mut epilogue.pre_activation, &mut epilogue.amax] {
            writes.extend(written.as_mut().map(TensorMut::reborrow));
        }
        let config = portable_config(plan.blocks);
        if !split {
            let reads: Vec<TensorRef<'_>> =
                operands.into_iter().chain(of_epilogue).flatten().collect();
            // SAFETY: the parameters are the kernel's, made of these views: it reads elements and
            // scales of the operands at the places that operand.rs states, the offsets and what the
            // epilogue adds, and writes elements of the results, whose shapes check.rs checked.
            return unsafe { stream.launch(&self.product, config, &params, &reads, &mut writes) };
        }
        let reads: Vec<TensorRef<'_>> = operands.into_iter().flatten().collect();
        let mut sums: Vec<TensorMut<'_>> = workspace.iter_mut().map(TensorMut::reborrow).collect();
        // SAFETY: as above; what it writes are the workspace's partial sums, for which check.rs found
        // it large enough.
        unsafe { stream.launch(&self.product, config, &params, &reads, &mut sums)? };
        let params = SplitParams {
            epilogue: of_results,
            partials,
            rows: shape.m as u64,
            columns: shape.n as u64,
            splits: plan.grid.splits,
            unused: 0,
        };
        let mut reads: Vec<TensorRef<'_>> = of_epilogue.into_iter().flatten().collect();
        reads.extend(workspace.iter().map(TensorMut::as_ref));
        // SAFETY: the parameters are the kernel's: it reads the partial sums that the launch before
        // wrote, and what the epilogue adds, and writes the results as above.
        unsafe {
            stream.launch(
                &self.reduce,
                reduce_config(&shape),
                &params,
                &reads,
                &mut writes,
            )
        }
    }
}
