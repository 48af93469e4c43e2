//! GaussWS on a device.

use bytemuck::{Pod, Zeroable};

use super::chunk::{ChunkKernels, tensor};
use crate::device::launch::LaunchConfig;
use crate::quant::gauss::{BackwardCall, ForwardCall, NoiseOffset};
use crate::rows::RowTensor;
use crate::{Result, Stream, TensorRef};

const MODULE: &str = "quant_gauss";

/// A warp a block.
const THREADS: u32 = 256;
/// Rows and columns that a block of threads has.
const STRIPE: [usize; 2] = [32, 256];

/// `GaussParams` of kernels/quant/gauss.cu.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct GaussParams {
    from: RowTensor,
    to: RowTensor,
    bits: u64,
    amax: u64,
    dbits: u64,
    replay: u64,
    offset: u64,
    seed: u64,
    rows: u32,
    columns: u32,
    tiles: u32,
    accumulate: u32,
}

const _: () = assert!(size_of::<GaussParams>() == 128);

/// The loaded kernels of a prepared operation.
#[derive(Debug)]
pub(in crate::quant) struct GaussKernels {
    forward: ChunkKernels,
    backward: ChunkKernels,
}

impl GaussKernels {
    pub(in crate::quant) fn load(stream: &Stream) -> Result<Self> {
        Ok(Self {
            forward: ChunkKernels::load(stream, MODULE, "quant_gauss_forward")?,
            backward: ChunkKernels::load(stream, MODULE, "quant_gauss_backward")?,
        })
    }

    pub(in crate::quant) fn forward(
        &self,
        stream: &Stream,
        seed: u64,
        call: ForwardCall<'_>,
    ) -> Result<()> {
        let ForwardCall {
            w,
            bits,
            noise,
            weights,
            amax,
        } = call;
        let written = weights.as_ref();
        let (_, kernel) = self.forward.choose(w.columns(), &[&w], &[&written]);
        let params = GaussParams {
            to: tensor(&written),
            amax: amax.address(),
            ..params(&w, &bits, &noise, seed)
        };
        let reads: Vec<_> = [Some(w), Some(bits), noise.device_offset]
            .into_iter()
            .flatten()
            .collect();
        // SAFETY: the parameters are the kernel's, made of these views, whose shapes gauss.rs found
        // to fit: it reads and writes the columns of the rows and one number a block.
        unsafe { stream.launch(kernel, config(&w), &params, &reads, &mut [weights, amax]) }
    }

    pub(in crate::quant) fn backward(
        &self,
        stream: &Stream,
        seed: u64,
        call: BackwardCall<'_>,
    ) -> Result<()> {
        let BackwardCall {
            dweights,
            bits,
            amax,
            noise,
            dbits,
            accumulate,
            dw,
        } = call;
        let written = dw.as_ref().map(|dw| dw.as_ref());
        let written: Vec<&TensorRef<'_>> = written.iter().collect();
        let (_, kernel) = self
            .backward
            .choose(dweights.columns(), &[&dweights], &written);
        let params = GaussParams {
            to: written
                .first()
                .map_or_else(RowTensor::default, |dw| tensor(dw)),
            amax: amax.address(),
            dbits: dbits.address(),
            accumulate: u32::from(accumulate),
            ..params(&dweights, &bits, &noise, seed)
        };
        let reads: Vec<_> = [Some(dweights), Some(bits), Some(amax), noise.device_offset]
            .into_iter()
            .flatten()
            .collect();
        let mut writes: Vec<_> = [Some(dbits), dw].into_iter().flatten().collect();
        // SAFETY: as above; it writes, or adds to, one number a block, and the columns of dw's rows
        // where that is given.
        unsafe { stream.launch(kernel, config(&dweights), &params, &reads, &mut writes) }
    }
}

fn tiles(columns: usize) -> usize {
    columns.div_ceil(STRIPE[1])
}

fn config(rows: &TensorRef<'_>) -> LaunchConfig {
    LaunchConfig {
        grid: (rows.rows().div_ceil(STRIPE[0]) * tiles(rows.columns())) as u32,
        block: THREADS,
        cluster: 1,
        shared_bytes: 0,
    }
}

/// What both passes are told.
fn params(
    from: &TensorRef<'_>,
    bits: &TensorRef<'_>,
    noise: &NoiseOffset<'_>,
    seed: u64,
) -> GaussParams {
    let replay = noise.device_offset.as_ref();
    GaussParams {
        from: tensor(from),
        bits: bits.address(),
        replay: replay.map_or(0, TensorRef::address),
        offset: noise.offset,
        seed,
        rows: from.rows() as u32,
        columns: from.columns() as u32,
        tiles: tiles(from.columns()) as u32,
        ..GaussParams::default()
    }
}
