//! The operation: the values of quantised tensors.

use super::QuantizedRef;
use super::call::DequantizeCall;
use super::form::QuantizedForm;
use super::kernels::DequantizeKernels;
use super::{check, host};
use crate::check::{Check, FLOATS, Named};
use crate::device::stream::Backend;
use crate::{Buffer, DType, Result, Stream, TensorMut, TensorRef};

/// The values of a quantised tensor, to be prepared for a stream.
///
/// ```text
/// value = round(element scale)           scale = RN(s_b s_t) of NVFP4
/// ```
///
/// The product is exact in f32 where the scale is a power of two, and rounded to f32 otherwise; it is
/// then rounded once to the output's type. A rotation is undone in f32 before that: H / sqrt(n), then
/// the signs.
///
/// Source: as [`Quantize`](super::Quantize).
///
/// ```
/// use evenkeel::quant::{Dequantize, Format, Quantize, QuantizeArguments};
/// use evenkeel::{DType, Device};
///
/// let stream = Device::cpu().stream()?;
/// let x = stream.upload(&[1, 4], &[3.0_f32, -1.5, 0.2, 0.0])?;
/// let op = Quantize::new(Format::MxFp4).prepare(&stream)?;
/// let q = op.quantize(x.view(), QuantizeArguments::default())?;
/// let values = Dequantize::new().prepare(&stream)?.dequantize(q.rowwise()?, DType::F32)?;
/// assert_eq!(values.read::<f32>()?, [3.0, -1.5, 0.25, 0.0]);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Dequantize {
    keep_rotation: bool,
}

impl Dequantize {
    /// The values before any rotation.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The values as they were rotated.
    #[must_use]
    pub fn keep_rotation(mut self) -> Self {
        self.keep_rotation = true;
        self
    }

    /// Loads the kernels, so that calls can be captured into a graph.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) on devices that have no kernels for it.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedDequantize> {
        let kernels = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(DequantizeKernels::load(stream)?),
        };
        Ok(PreparedDequantize {
            stream: stream.clone(),
            keep_rotation: self.keep_rotation,
            kernels,
        })
    }
}

/// A [`Dequantize`] ready to run on a stream.
///
/// The elements' rows may lie at any stride, and so may those of the output. Elements and scales are
/// read once, and the output is written once.
#[derive(Debug)]
pub struct PreparedDequantize {
    stream: Stream,
    keep_rotation: bool,
    /// None: the reference runs the calls.
    kernels: Option<DequantizeKernels>,
}

impl PreparedDequantize {
    /// The values `[outer, inner]` (of a transposed tensor: the transpose of its input), in bf16, f16
    /// or f32.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for parts that do not fit each other or another
    /// type, and the device's errors.
    pub fn dequantize(&self, q: QuantizedRef<'_>, dtype: DType) -> Result<Buffer> {
        let check = Check::new("Dequantize::dequantize", &self.stream);
        let form = q.check(&check)?;
        if !FLOATS.contains(&dtype) {
            return check.fail("dtype", "bf16, f16 or f32", dtype.to_string());
        }
        let mut y = self
            .stream
            .uninitialised(dtype, &[form.outer, form.inner])?;
        self.run(&check, q, form, y.view_mut())?;
        Ok(y)
    }

    /// As [`dequantize`](Self::dequantize), into memory of the caller's.
    ///
    /// # Errors
    /// As [`dequantize`](Self::dequantize).
    pub fn dequantize_into(&self, q: QuantizedRef<'_>, y: TensorMut<'_>) -> Result<()> {
        let check = Check::new("Dequantize::dequantize_into", &self.stream);
        let form = q.check(&check)?;
        check.rows("y", &y.as_ref(), form.outer, form.inner)?;
        self.run(&check, q, form, y)
    }

    fn run(
        &self,
        check: &Check,
        q: QuantizedRef<'_>,
        form: QuantizedForm,
        mut y: TensorMut<'_>,
    ) -> Result<()> {
        check::elements(check, "q", &form)?;
        let mut reads = Named::new();
        q.name(&mut reads);
        let writes: [(&str, TensorRef<'_>); 1] = [("y", y.as_ref())];
        self.stream.check_views(check.op, &reads, &writes)?;
        let call = DequantizeCall {
            q,
            form,
            unrotate: form.rotation.is_some() && !self.keep_rotation,
            y: y.reborrow(),
        };
        match &self.kernels {
            Some(kernels) => kernels.dequantize(&self.stream, call),
            None => {
                self.stream.raise(host::dequantize(call)?);
                Ok(())
            }
        }
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedDequantize>();
};
