//! The operation: weights with the noise of a quantisation that is yet to come.

#[cfg(test)]
mod tests;

use super::check::float_shape;
use super::kernels::GaussKernels;
use crate::check::{Check, Named, read, write};
use crate::device::stream::Backend;
use crate::host::{matrix, matrix_mut};
use crate::reference::quant::gauss::{self as reference, BLOCK};
use crate::{Buffer, DType, Error, Result, Stream, TensorMut, TensorRef};

/// Gaussian weight sampling, a pseudo-quantisation of weights whose number of bits is learned; to be
/// prepared for a stream:
///
/// ```text
/// w^ = w + R amax 2^(1-b)                R = round(N(0, 1) / 2), drawn for each element
/// dw = dw^                               amax = max |w| over a block of 32 x 32
/// db = -ln(2) amax 2^(1-b) sum R dw^     b and db one number for each block
/// ```
///
/// R is 0 for 68% of the elements, +-1 for 31%, +-2 for 0.27% and +-3 for 6 in 10^7: a float of few
/// bits holds w^ well. It is not kept: the backward draws it again from the same counter.
///
/// R of the element at (row, column) of `[rows, columns]` comes from word e mod 4 of Philox4x32-10
/// with counter (e / 4, offset) and key `seed`, e = row x columns + column: the highest bit is its
/// sign, |R| the number of thresholds that the other 31 bits reach. An offset of its own for each
/// step draws other noise; stochastic rounding of the same tensor has the same words, and wants
/// another seed.
///
/// Source: "Gaussian Weight Sampling for Scalable, Efficient and Stable Pseudo-Quantization Training"
/// (arXiv 2505.11170). Its authors learn b as `b_target` + `b_i` (`b_init` - `b_target`) for a
/// learned `b_i` of each block, which is the caller's.
///
/// ```
/// use evenkeel::{Device, quant::GaussWs};
///
/// let stream = Device::cpu().stream()?;
/// let w = stream.upload(&[2, 4], &[0.5_f32, -1.0, 0.25, 0.0, 0.5, 0.5, 0.5, 0.5])?;
/// let bits = stream.upload(&[1, 1], &[4.0_f32])?;
/// let op = GaussWs::new(7).prepare(&stream)?;
/// let noisy = op.forward(w.view(), bits.view(), 0)?;
/// assert_eq!(noisy.amax.read::<f32>()?, [1.0]);
/// let step = 0.125; // 1.0 x 2^(1 - 4)
/// for (noisy, w) in noisy.weights.read::<f32>()?.iter().zip(w.read::<f32>()?) {
///     assert_eq!((noisy - w) / step, ((noisy - w) / step).round());
/// }
/// let dnoisy = stream.upload(&[2, 4], &[1.0_f32; 8])?; // which is dw too
/// let dbits = op.backward(dnoisy.view(), bits.view(), noisy.amax.view(), 0)?;
/// assert_eq!(dbits.elements(), 1);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GaussWs {
    seed: u64,
}

impl GaussWs {
    /// With noise of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The key of the noise.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The shape of b, db and amax for weights of `[rows, columns]`:
    /// `[ceil(rows / 32), ceil(columns / 32)]`.
    #[must_use]
    pub fn block_shape(rows: usize, columns: usize) -> [usize; 2] {
        reference::block_shape(rows, columns)
    }

    /// Loads the kernels, so that calls can be captured into a graph.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on devices that have no kernels for it.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedGaussWs> {
        let kernels = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(GaussKernels::load(stream)?),
        };
        Ok(PreparedGaussWs {
            stream: stream.clone(),
            seed: self.seed,
            kernels,
        })
    }
}

/// Which noise a call draws. A number alone is an offset of the caller's.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoiseOffset<'a> {
    /// The upper half of the generator's counter.
    pub offset: u64,
    /// `[1]` i64 on the device, added to it: what a graph's replays draw other noise by.
    pub device_offset: Option<TensorRef<'a>>,
}

impl From<u64> for NoiseOffset<'_> {
    fn from(offset: u64) -> Self {
        Self {
            offset,
            device_offset: None,
        }
    }
}

/// What [`PreparedGaussWs::forward`] returns, on the device.
#[derive(Debug)]
pub struct NoisyWeights {
    /// w^: of w's type and shape.
    pub weights: Buffer,
    /// The largest finite |w| of each block, f32, which the backward needs.
    pub amax: Buffer,
}

/// Where [`PreparedGaussWs::backward_into`] puts gradients.
#[derive(Debug)]
pub struct NoiseGradients<'a> {
    /// db, f32, of b's shape.
    pub dbits: TensorMut<'a>,
    /// Whether db is added to what is there.
    pub accumulate: bool,
    /// dw, where it is wanted in another type or place than dw^, which has the same values.
    pub dw: Option<TensorMut<'a>>,
}

impl<'a> NoiseGradients<'a> {
    /// db alone.
    #[must_use]
    pub fn new(dbits: TensorMut<'a>) -> Self {
        Self {
            dbits,
            accumulate: false,
            dw: None,
        }
    }

    /// Adds db to what is there.
    #[must_use]
    pub fn accumulate(mut self) -> Self {
        self.accumulate = true;
        self
    }

    /// Stores dw too, rounded to its type.
    #[must_use]
    pub fn dw(mut self, dw: TensorMut<'a>) -> Self {
        self.dw = Some(dw);
        self
    }
}

/// A forward whose arguments fit.
#[derive(Debug)]
pub(super) struct ForwardCall<'a> {
    pub(super) w: TensorRef<'a>,
    pub(super) bits: TensorRef<'a>,
    pub(super) noise: NoiseOffset<'a>,
    pub(super) weights: TensorMut<'a>,
    pub(super) amax: TensorMut<'a>,
}

/// A backward whose arguments fit.
#[derive(Debug)]
pub(super) struct BackwardCall<'a> {
    pub(super) dweights: TensorRef<'a>,
    pub(super) bits: TensorRef<'a>,
    pub(super) amax: TensorRef<'a>,
    pub(super) noise: NoiseOffset<'a>,
    pub(super) dbits: TensorMut<'a>,
    pub(super) accumulate: bool,
    pub(super) dw: Option<TensorMut<'a>>,
}

/// A [`GaussWs`] ready to run on a stream.
///
/// - w, w^, dw^ and dw are `[rows, columns]` (or of more dimensions, the last of which are columns)
///   bf16, f16 or f32, each of its own type, rows at any stride; blocks at the edges are cut off.
/// - b, db and amax are f32 and contiguous, of [`GaussWs::block_shape`].
/// - amax is that of the finite elements: an infinite or NaN weight stays what it is, and spoils no
///   other.
/// - All of it is computed in f32, each operation rounded once and sums in one order: the same bits
///   on every device. 2^(1-b) is exact for integers b, and within one unit of its last place else;
///   its exponent is held between -126 and 127, and the step amax 2^(1-b) to the largest f32. A b
///   that is NaN makes its block NaN.
#[derive(Debug)]
pub struct PreparedGaussWs {
    stream: Stream,
    seed: u64,
    /// None: the reference runs the calls.
    kernels: Option<GaussKernels>,
}

impl PreparedGaussWs {
    /// w^ and amax; one read of w, one write.
    ///
    /// # Errors
    /// [`Error::Argument`] for what does not fit, and the device's errors.
    pub fn forward<'a>(
        &self,
        w: TensorRef<'_>,
        bits: TensorRef<'_>,
        noise: impl Into<NoiseOffset<'a>>,
    ) -> Result<NoisyWeights> {
        let check = Check::new("GaussWs::forward", &self.stream);
        let [rows, columns] = float_shape(&check, "w", &w)?;
        let blocks = GaussWs::block_shape(rows, columns);
        let mut weights = self.stream.uninitialised(w.dtype(), w.shape())?;
        let mut amax = self.stream.uninitialised(DType::F32, &blocks)?;
        self.forward_into(w, bits, noise, weights.view_mut(), amax.view_mut())?;
        Ok(NoisyWeights { weights, amax })
    }

    /// As [`forward`](Self::forward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_into<'a>(
        &self,
        w: TensorRef<'_>,
        bits: TensorRef<'_>,
        noise: impl Into<NoiseOffset<'a>>,
        mut weights: TensorMut<'_>,
        mut amax: TensorMut<'_>,
    ) -> Result<()> {
        let check = Check::new("GaussWs::forward", &self.stream);
        let noise = noise.into();
        let shape @ [rows, columns] = float_shape(&check, "w", &w)?;
        check.rows("weights", &weights.as_ref(), rows, columns)?;
        check_blocks(&check, shape, [("bits", bits), ("amax", amax.as_ref())])?;
        check_noise(&check, &noise)?;
        let mut reads: Named<'_> = vec![("w", w), ("bits", bits)];
        read(&mut reads, [("device_offset", noise.device_offset)]);
        let writes = [("weights", weights.as_ref()), ("amax", amax.as_ref())];
        self.stream.check_views(check.op, &reads, &writes)?;
        let mut call = ForwardCall {
            w,
            bits,
            noise,
            weights: weights.reborrow(),
            amax: amax.reborrow(),
        };
        if let Some(kernels) = &self.kernels {
            return kernels.forward(&self.stream, self.seed, call);
        }
        reference::forward(
            self.noise(&noise)?,
            matrix(&call.w)?,
            call.bits.host_slice()?,
            matrix_mut(&mut call.weights)?,
            call.amax.host_slice_mut()?,
        )
    }

    /// db; one read of dw^, which is dw too.
    ///
    /// `amax` is the forward's, and `noise` what the forward had.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward<'a>(
        &self,
        dweights: TensorRef<'_>,
        bits: TensorRef<'_>,
        amax: TensorRef<'_>,
        noise: impl Into<NoiseOffset<'a>>,
    ) -> Result<Buffer> {
        let check = Check::new("GaussWs::backward", &self.stream);
        let [rows, columns] = float_shape(&check, "dweights", &dweights)?;
        let blocks = GaussWs::block_shape(rows, columns);
        let mut dbits = self.stream.uninitialised(DType::F32, &blocks)?;
        let gradients = NoiseGradients::new(dbits.view_mut());
        self.backward_into(dweights, bits, amax, noise, gradients)?;
        Ok(dbits)
    }

    /// As [`backward`](Self::backward), into memory of the caller's, and dw where it is asked for.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_into<'a>(
        &self,
        dweights: TensorRef<'_>,
        bits: TensorRef<'_>,
        amax: TensorRef<'_>,
        noise: impl Into<NoiseOffset<'a>>,
        gradients: NoiseGradients<'_>,
    ) -> Result<()> {
        let check = Check::new("GaussWs::backward", &self.stream);
        let noise = noise.into();
        let NoiseGradients {
            mut dbits,
            accumulate,
            mut dw,
        } = gradients;
        let shape @ [rows, columns] = float_shape(&check, "dweights", &dweights)?;
        let blocks = [("bits", bits), ("amax", amax), ("dbits", dbits.as_ref())];
        check_blocks(&check, shape, blocks)?;
        if let Some(dw) = &dw {
            check.rows("dw", &dw.as_ref(), rows, columns)?;
        }
        check_noise(&check, &noise)?;
        let mut reads: Named<'_> = vec![("dweights", dweights), ("bits", bits), ("amax", amax)];
        read(&mut reads, [("device_offset", noise.device_offset)]);
        let mut writes: Named<'_> = vec![("dbits", dbits.as_ref())];
        write(&mut writes, [("dw", &dw)]);
        self.stream.check_views(check.op, &reads, &writes)?;
        let mut call = BackwardCall {
            dweights,
            bits,
            amax,
            noise,
            dbits: dbits.reborrow(),
            accumulate,
            dw: crate::check::reborrow(&mut dw),
        };
        if let Some(kernels) = &self.kernels {
            return kernels.backward(&self.stream, self.seed, call);
        }
        let gradients = reference::Gradients {
            bits: call.dbits.host_slice_mut()?,
            accumulate,
            w: call.dw.as_mut().map(matrix_mut).transpose()?,
        };
        reference::backward(
            self.noise(&noise)?,
            matrix(&call.dweights)?,
            call.bits.host_slice()?,
            call.amax.host_slice()?,
            gradients,
        )
    }

    /// The noise of a call on the host.
    fn noise(&self, noise: &NoiseOffset<'_>) -> Result<reference::Noise> {
        let replay = match &noise.device_offset {
            Some(view) => view.host_slice::<i64>()?.first().copied().unwrap_or(0),
            None => 0,
        };
        Ok(reference::Noise {
            seed: self.seed,
            offset: noise.offset.wrapping_add(replay as u64),
        })
    }
}

/// That the numbers of blocks are there, side by side.
fn check_blocks<const N: usize>(
    check: &Check,
    [rows, columns]: [usize; 2],
    views: [(&'static str, TensorRef<'_>); N],
) -> Result<()> {
    let [down, across] = GaussWs::block_shape(rows, columns);
    for (argument, view) in views {
        check.typed(argument, &view, &[DType::F32])?;
        let fits = view.elements() == down * across && view.columns() == across;
        if !fits || !view.is_contiguous() {
            let expected = format!("contiguous, of shape [{down}, {across}]");
            let got = crate::check::shape_of(&view);
            return Err(Error::argument(check.op, argument, expected, got));
        }
    }
    // A block of threads takes eight blocks, and a launch fewer than 2^31 blocks of threads.
    if check.kernels && down.saturating_mul(columns.div_ceil(8 * BLOCK)) > i32::MAX as usize {
        let got = format!("[{rows}, {columns}]");
        return Err(Error::argument(
            check.op,
            "bits",
            "fewer than 2^31 stripes of 32 x 256 on this device",
            got,
        ));
    }
    Ok(())
}

fn check_noise(check: &Check, noise: &NoiseOffset<'_>) -> Result<()> {
    match &noise.device_offset {
        Some(view) => check.tensor("device_offset", view, &[DType::I64], &[1]),
        None => Ok(()),
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedGaussWs>();
};
