//! Straight-through gradients on a device.

use bytemuck::{Pod, Zeroable};

use super::chunk::{Chunk, ChunkKernels, tensor};
use crate::device::launch::LaunchConfig;
use crate::quant::Estimator;
use crate::quant::straight_through::Call;
use crate::rows::RowTensor;
use crate::{Result, Stream, TensorRef};

const MODULE: &str = "quant_straight_through";

const THREADS: usize = 256;
/// `kUnits`.
const UNITS: usize = 4;
/// Blocks at most: twice four for each multiprocessor of an H200. No measurement chose it yet.
const BLOCKS: usize = 8 * 132;

/// `StraightThroughParams` of kernels/quant/straight_through.cu.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct StraightThroughParams {
    x: RowTensor,
    dy: RowTensor,
    dx: RowTensor,
    scale: u64,
    rows: u64,
    columns: u64,
    limit: f64,
    threshold: f32,
    interval: f32,
    power: f32,
    log2_factor: f32,
    inner_slope: f32,
    unused: u32,
}

const _: () = assert!(size_of::<StraightThroughParams>() == 152);

/// The loaded kernels of a prepared operation.
#[derive(Debug)]
pub(in crate::quant) struct StraightThroughKernels(ChunkKernels);

impl StraightThroughKernels {
    pub(in crate::quant) fn load(stream: &Stream, estimator: Estimator) -> Result<Self> {
        let stem = match estimator {
            Estimator::Saturation { .. } => "quant_straight_through_saturation",
            Estimator::Reste { .. } => "quant_straight_through_reste",
        };
        Ok(Self(ChunkKernels::load(stream, MODULE, stem)?))
    }

    pub(in crate::quant) fn backward(
        &self,
        stream: &Stream,
        estimator: Estimator,
        call: Call<'_>,
    ) -> Result<()> {
        let Call { x, scale, dy, dx } = call;
        let gradient = dy.unwrap_or_else(|| dx.as_ref());
        let views = [&x, &gradient, &dx.as_ref()];
        // Without gaps all rows are one.
        let one_row = views.iter().all(|view| view.is_contiguous());
        let (rows, columns) = if one_row {
            (x.rows().min(1), x.elements())
        } else {
            (x.rows(), x.columns())
        };
        let [x_rows, dy_rows, dx_rows] = [
            flat(x, one_row)?,
            flat(gradient, one_row)?,
            flat(dx.as_ref(), one_row)?,
        ];
        let (chunk, kernel) = self.0.choose(columns, &[&x_rows, &dy_rows], &[&dx_rows]);
        let params = StraightThroughParams {
            x: tensor(&x_rows),
            dy: tensor(&dy_rows),
            dx: tensor(&dx_rows),
            scale: scale.as_ref().map_or(0, |scale| scale.address()),
            rows: rows as u64,
            columns: columns as u64,
            ..constants(estimator)
        };
        let config = LaunchConfig {
            grid: blocks(chunk, rows, columns) as u32,
            block: THREADS as u32,
            cluster: 1,
            shared_bytes: 0,
        };
        let reads: Vec<_> = [Some(x), scale, dy].into_iter().flatten().collect();
        // SAFETY: the parameters are the kernel's, made of these views, whose shapes
        // straight_through.rs found to fit: it reads and writes their rows, and reads the scale.
        unsafe { stream.launch(kernel, config, &params, &reads, &mut [dx]) }
    }
}

fn flat(view: TensorRef<'_>, one_row: bool) -> Result<TensorRef<'_>> {
    if one_row {
        view.reshape(&[1, view.elements()])
    } else {
        Ok(view)
    }
}

fn blocks(chunk: Chunk, rows: usize, columns: usize) -> usize {
    let pieces = columns.div_ceil(THREADS * UNITS * chunk.elements);
    rows.saturating_mul(pieces).min(BLOCKS)
}

/// What an estimator is to its kernel.
fn constants(estimator: Estimator) -> StraightThroughParams {
    match estimator {
        Estimator::Saturation { largest } => StraightThroughParams {
            // A tie goes to `largest`, whose last bit is even.
            limit: (f64::from(largest) + f64::from(largest.next_up())) / 2.0,
            ..StraightThroughParams::default()
        },
        Estimator::Reste {
            o,
            threshold,
            interval,
        } => {
            let power = (1.0 - f64::from(o)) / f64::from(o);
            StraightThroughParams {
                threshold,
                interval,
                power: power as f32,
                log2_factor: -f64::from(o).log2() as f32,
                inner_slope: f64::from(interval).powf(power) as f32,
                ..StraightThroughParams::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotient_saturates_where_its_product_is_beyond_the_limit() {
        for largest in [448.0_f32, 57344.0, 6.0, 1.0] {
            let limit = constants(Estimator::Saturation { largest }).limit;
            for scale in [1.0_f32, 0.1, 3e-39, 1.0 / 3.0, 1.234_567e20, 7.7e35] {
                let bound = (f64::from(scale) * limit) as f32;
                let mut x = bound * (1.0 - 4e-7);
                while x < bound * (1.0 + 4e-7) {
                    let saturates = x / scale > largest;
                    assert_eq!(
                        f64::from(x) > f64::from(scale) * limit,
                        saturates,
                        "{x} / {scale}"
                    );
                    x = x.next_up();
                }
            }
        }
    }

    #[test]
    fn no_block_is_idle() {
        let wide = Chunk::WIDEST;
        assert_eq!(blocks(wide, 1, 1), 1);
        assert_eq!(blocks(wide, 1, 8193), 2);
        assert_eq!(blocks(wide, 0, 8192), 0);
        assert_eq!(blocks(wide, usize::MAX, 8193), BLOCKS);
    }
}
