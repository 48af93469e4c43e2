//! The operation: gradients that pass a rounding.

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use super::check::float_shape;
use super::format::Format;
use super::kernels::StraightThroughKernels;
use super::options::invalid;
use crate::check::{Check, Named};
use crate::device::stream::Backend;
use crate::host::{matrix, matrix_mut};
use crate::reference::quant::straight_through::{self as reference, Slope};
use crate::text::string_form;
use crate::{Buffer, DType, Error, Result, Stream, TensorMut, TensorRef};

/// What stands for the derivative of a rounding, which is 0 or does not exist.
///
/// Written and parsed as `saturation:LARGEST` and `reste:O:THRESHOLD:INTERVAL` (or `reste:O`); the
/// same text is its serde form.
///
/// ```
/// use evenkeel::quant::{Estimator, Format, Fp8};
/// assert_eq!(Estimator::saturation(Format::Fp8Tensor(Fp8::E4m3)), "saturation:448".parse()?);
/// assert_eq!(Estimator::reste(3.0), "reste:3:1.5:0.1".parse()?);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Estimator {
    /// 1 where |RN(x / scale)| <= `largest`, 0 where the rounding saturates: the straight-through
    /// estimator of a format with one scale. NaN, which FP8 keeps, passes.
    Saturation {
        /// The largest element, an f32 whose last bit is 0, as all formats' are.
        largest: f32,
    },
    /// `ReSTE` (arXiv 2308.06689), of sign(x): the slope of sign(x) |x|^(1/o), which is
    /// (1/o) |x|^((1-o)/o) (equation 10), with both of its authors' cuts. o = 1 is the identity
    /// within the threshold; a larger one is nearer to the step, and its gradients less stable.
    Reste {
        /// The degree of the root, at least 1. Its authors raise it from 1 to 3.
        o: f32,
        /// Where |x| is greater, the slope is 0; its authors' is 1.5.
        threshold: f32,
        /// Where |x| is no greater, the slope is that of the chord, interval^((1-o)/o); its
        /// authors' is 0.1.
        interval: f32,
    },
}

impl Estimator {
    /// The mask of a format's largest element.
    #[must_use]
    pub fn saturation(format: Format) -> Self {
        Self::Saturation {
            largest: format.largest(),
        }
    }

    /// `ReSTE` with its authors' threshold 1.5 and interval 0.1.
    #[must_use]
    pub fn reste(o: f32) -> Self {
        Self::Reste {
            o,
            threshold: 1.5,
            interval: 0.1,
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`Error::Argument`] for a `largest` that is not a positive number whose last bit is 0, an o
    /// below 1, a threshold or an interval that is not positive and normal, or what is not finite.
    pub fn validate(&self) -> Result<()> {
        let positive = |argument, value: f32| {
            if value.is_normal() && value > 0.0 {
                return Ok(());
            }
            Err(invalid(argument, "positive, normal and finite", value))
        };
        match *self {
            Self::Saturation { largest } => {
                positive("largest", largest)?;
                if largest.to_bits() % 2 != 0 || largest == f32::MAX {
                    return Err(invalid("largest", "an f32 whose last bit is 0", largest));
                }
            }
            Self::Reste {
                o,
                threshold,
                interval,
            } => {
                if !(o.is_finite() && o >= 1.0) {
                    return Err(invalid("o", "at least 1 and finite", o));
                }
                positive("threshold", threshold)?;
                positive("interval", interval)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Estimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saturation { largest } => write!(f, "saturation:{largest}"),
            Self::Reste {
                o,
                threshold,
                interval,
            } => write!(f, "reste:{o}:{threshold}:{interval}"),
        }
    }
}

impl FromStr for Estimator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.parse::<f32>().ok();
        let parts: Vec<&str> = text.split(':').collect();
        let estimator = match parts[..] {
            ["saturation", largest] => number(largest).map(|largest| Self::Saturation { largest }),
            ["reste", o] => number(o).map(Self::reste),
            ["reste", o, threshold, interval] => number(o)
                .zip(number(threshold).zip(number(interval)))
                .map(|(o, (threshold, interval))| Self::Reste {
                    o,
                    threshold,
                    interval,
                }),
            _ => None,
        };
        let forms = "saturation:LARGEST, reste:O or reste:O:THRESHOLD:INTERVAL";
        let estimator = estimator.ok_or_else(|| invalid("estimator", forms, text))?;
        estimator.validate()?;
        Ok(estimator)
    }
}

string_form!(Estimator);

/// The gradient of a rounding, to be prepared for a stream:
///
/// ```text
/// saturation   dx = dy where |RN(x / scale)| <= largest, 0 elsewhere
/// ReSTE        dx = dy (1/o) |x|^((1-o)/o)     for interval < |x| <= threshold
///                   dy interval^((1-o)/o)      for |x| <= interval
///                   0                          for |x| > threshold
/// ```
///
/// Sources: "Estimating or Propagating Gradients Through Stochastic Neurons" (arXiv 1308.3432);
/// "Estimator Meets Equilibrium Perspective: A Rectified Straight Through Estimator for Binary
/// Neural Networks Training" (arXiv 2308.06689), equation 10 and its authors' code.
///
/// ```
/// use evenkeel::Device;
/// use evenkeel::quant::{Estimator, StraightThrough};
///
/// let stream = Device::cpu().stream()?;
/// let x = stream.upload(&[4], &[1.0_f32, -224.0, 224.1, 1e30])?;
/// let dy = stream.upload(&[4], &[1.0_f32, 2.0, 3.0, 4.0])?;
/// let scale = stream.upload(&[1], &[0.5_f32])?;
/// let op = StraightThrough::new("saturation:448".parse()?).prepare(&stream)?;
/// let dx = op.backward(x.view(), Some(scale.view()), dy.view())?;
/// assert_eq!(dx.read::<f32>()?, [1.0, 2.0, 0.0, 0.0]);
///
/// let op = StraightThrough::new(Estimator::reste(2.0)).prepare(&stream)?;
/// let z = stream.upload(&[4], &[0.25_f32, -1.0, 1.6, 0.0])?;
/// let dz = op.backward(z.view(), None, dy.view())?;
/// assert_eq!(dz.read_range::<f32>(0..3)?, [1.0, 1.0, 0.0]); // slopes 1, 1/2 and 0
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct StraightThrough(Estimator);

impl StraightThrough {
    /// Of this estimator.
    #[must_use]
    pub fn new(estimator: Estimator) -> Self {
        Self(estimator)
    }

    /// Loads the kernels, so that calls can be captured into a graph.
    ///
    /// # Errors
    /// [`Error::Argument`] as [`Estimator::validate`] has it; [`Error::Unsupported`] on devices
    /// that have no kernels for it.
    pub fn prepare(&self, stream: &Stream) -> Result<PreparedStraightThrough> {
        self.0.validate()?;
        let kernels = match stream.backend() {
            Backend::Reference => None,
            Backend::Kernels => Some(StraightThroughKernels::load(stream, self.0)?),
        };
        Ok(PreparedStraightThrough {
            stream: stream.clone(),
            estimator: self.0,
            kernels,
        })
    }
}

/// A call whose arguments fit.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) x: TensorRef<'a>,
    /// `[1]` f32, of the saturation.
    pub(super) scale: Option<TensorRef<'a>>,
    /// None: dx holds it.
    pub(super) dy: Option<TensorRef<'a>>,
    pub(super) dx: TensorMut<'a>,
}

/// A [`StraightThrough`] ready to run on a stream.
///
/// - x, dy and dx are of one shape, bf16, f16 or f32 each of its own, rows at any stride.
/// - `scale` is `[1]` f32 on the device, the decode scale that x was quantised with; 1 where absent.
///   `ReSTE` has none.
/// - A gradient that does not pass is 0, whatever dy is. A NaN x passes the mask and makes `ReSTE`'s
///   gradient NaN.
/// - The mask is the same to the bit on every device. `ReSTE`'s slope is computed in f64 by the CPU
///   and in f32 by kernels, to within some 2^-21 of it; both round dx once.
#[derive(Debug)]
pub struct PreparedStraightThrough {
    stream: Stream,
    estimator: Estimator,
    /// None: the reference runs the calls.
    kernels: Option<StraightThroughKernels>,
}

impl PreparedStraightThrough {
    /// dx, of dy's type; one read of x and dy, one write.
    ///
    /// # Errors
    /// [`Error::Argument`] for what does not fit, and the device's errors.
    pub fn backward(
        &self,
        x: TensorRef<'_>,
        scale: Option<TensorRef<'_>>,
        dy: TensorRef<'_>,
    ) -> Result<Buffer> {
        let check = Check::new("StraightThrough::backward", &self.stream);
        check_gradient(&check, &x, "dy", &dy)?;
        let mut dx = self.stream.uninitialised(dy.dtype(), x.shape())?;
        self.backward_into(x, scale, dy, dx.view_mut())?;
        Ok(dx)
    }

    /// As [`backward`](Self::backward), into memory of the caller's.
    ///
    /// # Errors
    /// As [`backward`](Self::backward).
    pub fn backward_into(
        &self,
        x: TensorRef<'_>,
        scale: Option<TensorRef<'_>>,
        dy: TensorRef<'_>,
        mut dx: TensorMut<'_>,
    ) -> Result<()> {
        let check = Check::new("StraightThrough::backward", &self.stream);
        check_gradient(&check, &x, "dy", &dy)?;
        check_gradient(&check, &x, "dx", &dx.as_ref())?;
        let call = Call {
            x,
            scale,
            dy: Some(dy),
            dx: dx.reborrow(),
        };
        self.run(&check, call)
    }

    /// As [`backward`](Self::backward), dx over dy.
    ///
    /// # Errors
    /// As [`backward`](Self::backward).
    pub fn backward_in_place(
        &self,
        x: TensorRef<'_>,
        scale: Option<TensorRef<'_>>,
        mut dy: TensorMut<'_>,
    ) -> Result<()> {
        let check = Check::new("StraightThrough::backward_in_place", &self.stream);
        check_gradient(&check, &x, "dy", &dy.as_ref())?;
        let call = Call {
            x,
            scale,
            dy: None,
            dx: dy.reborrow(),
        };
        self.run(&check, call)
    }

    fn run(&self, check: &Check, call: Call<'_>) -> Result<()> {
        if let Some(scale) = &call.scale {
            let unused = matches!(self.estimator, Estimator::Reste { .. });
            check.absent("scale", unused, "ReSTE has none")?;
            check.tensor("scale", scale, &[DType::F32], &[1])?;
        }
        let mut reads: Named<'_> = vec![("x", call.x)];
        crate::check::read(&mut reads, [("scale", call.scale), ("dy", call.dy)]);
        let written = if call.dy.is_some() { "dx" } else { "dy" };
        let writes = [(written, call.dx.as_ref())];
        self.stream.check_views(check.op, &reads, &writes)?;
        match &self.kernels {
            Some(kernels) => kernels.backward(&self.stream, self.estimator, call),
            None => self.on_host(call),
        }
    }

    fn on_host(&self, mut call: Call<'_>) -> Result<()> {
        let scale = match &call.scale {
            Some(scale) => scale.host_slice::<f32>()?.first().copied(),
            None => None,
        };
        let slope = match self.estimator {
            Estimator::Saturation { largest } => Slope::Saturation {
                largest,
                scale: scale.unwrap_or(1.0),
            },
            Estimator::Reste {
                o,
                threshold,
                interval,
            } => Slope::Reste {
                o,
                threshold,
                interval,
            },
        };
        match call.dy {
            Some(dy) => reference::backward(
                slope,
                matrix(&call.x)?,
                matrix(&dy)?,
                matrix_mut(&mut call.dx)?,
            ),
            None => {
                reference::backward_in_place(slope, matrix(&call.x)?, matrix_mut(&mut call.dx)?)
            }
        }
    }
}

fn check_gradient(
    check: &Check,
    x: &TensorRef<'_>,
    argument: &'static str,
    gradient: &TensorRef<'_>,
) -> Result<()> {
    let [rows, columns] = float_shape(check, "x", x)?;
    check.rows(argument, gradient, rows, columns)
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<PreparedStraightThrough>();
};
