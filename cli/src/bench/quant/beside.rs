//! What stands beside quantisations: operations that quantise what they compute, the way back, and the
//! scales of many tensors.

use evenkeel::norm::{Norm, PreparedNorm, Statistics, Weights};
use evenkeel::quant::{
    DelayedScales, DelayedScaling, Dequantize, Format, Fp8, Gelu, GeluKind, OutputOptions,
    PreparedDequantize, PreparedGelu, PreparedQuantize, Quantize, QuantizeArguments, Quantized,
};
use evenkeel::{Buffer, DType, Device, Error, Result, Stream};

use super::swiglu;
use crate::bench::record::{Measured, ShapeOf};
use crate::norm::rows::run;

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// SwiGLU and its gradients.
    SwiGlu(swiglu::Work),
    /// `RmsNorm`, its results along the rows.
    RmsNorm(Format),
    /// GELU by tanh, forward or backward; in both directions where there is a format.
    Gelu(bool, Option<Format>),
    /// The values of a row-wise output, of the input's type.
    Dequantize(Format),
    /// Delayed scaling of as many tensors as there are rows, with a history as long as a row.
    Delayed,
}

impl Work {
    /// Those that are measured.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let e4m3 = Fp8::E4m3;
        let mx = Some(Format::MxFp8(e4m3));
        let mut all: Vec<Self> = swiglu::Work::ALL.into_iter().map(Self::SwiGlu).collect();
        all.extend([Format::Fp8Row(e4m3), Format::MxFp8(e4m3), Format::MxFp4].map(Self::RmsNorm));
        all.extend([(false, None), (false, mx), (true, mx)].map(|(b, f)| Self::Gelu(b, f)));
        let back = [
            Format::Fp8Tensor(e4m3),
            Format::Fp8Block1x128(e4m3),
            Format::MxFp8(e4m3),
            Format::NvFp4,
        ];
        all.extend(back.map(Self::Dequantize));
        all.push(Self::Delayed);
        all
    }

    /// Its name in a row.
    #[must_use]
    pub fn name(&self) -> String {
        let pass = |backward: bool| if backward { "backward" } else { "forward" };
        match *self {
            Self::SwiGlu(work) => work.name(),
            Self::RmsNorm(format) => format!("rms norm, {format} row-wise"),
            Self::Gelu(backward, None) => format!("gelu {}", pass(backward)),
            Self::Gelu(backward, Some(format)) => {
                format!("gelu {}, {format} both", pass(backward))
            }
            Self::Dequantize(format) => format!("dequantize {format}"),
            Self::Delayed => "delayed scaling of rows as histories".to_owned(),
        }
    }

    fn quantize(&self) -> Option<Quantize> {
        let plain = OutputOptions::new();
        match *self {
            Self::SwiGlu(_) | Self::Gelu(_, None) | Self::Delayed => None,
            Self::RmsNorm(format) | Self::Dequantize(format) => {
                Some(Quantize::new(format).rowwise(plain))
            }
            Self::Gelu(_, Some(format)) => {
                Some(Quantize::new(format).rowwise(plain).transposed(plain))
            }
        }
    }

    /// What a row of it measures: the least bytes are each tensor once.
    ///
    /// # Errors
    /// The library's.
    pub fn measured(&self, shape: ShapeOf, dtype: DType) -> Result<Measured> {
        if let Self::SwiGlu(work) = self {
            return work.measured(shape, dtype);
        }
        let (rows, columns) = (shape.tokens(), shape.columns());
        let wide = rows * columns * dtype.size();
        let quantized = match self.quantize() {
            None => 0,
            Some(quantize) => {
                let op = quantize.prepare(&Device::cpu().stream()?)?;
                let forms = [
                    op.rowwise_form(rows, columns, 0),
                    op.transposed_form(rows, columns, 0),
                ];
                forms.iter().flatten().map(|form| form.bytes()).sum()
            }
        };
        let bytes = match *self {
            Self::Gelu(backward, format) => {
                let written = if format.is_some() { quantized } else { wide };
                wide * (1 + usize::from(backward)) + written
            }
            // The ring; of each tensor amax and cursor both ways, the slot, largest and scale.
            Self::Delayed => 4 * rows * (columns + 7),
            _ => wide + quantized,
        };
        Ok(Measured {
            op: "quant",
            variant: self.name(),
            shape,
            dtype: if *self == Self::Delayed {
                DType::F32
            } else {
                dtype
            },
            bytes: bytes as u64,
        })
    }
}

/// A work's tensors on a device.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one at a time; large in builds without the emulator alone"
)]
pub enum Call {
    /// SwiGLU.
    SwiGlu(swiglu::Call),
    /// A norm: x, y as floats, and quantised, by the same operation or another.
    RmsNorm(PreparedNorm, [Buffer; 2], PreparedQuantize, Quantized),
    /// GELU: x, dy and what it makes.
    Gelu(
        PreparedGelu,
        [Buffer; 3],
        bool,
        Option<(PreparedQuantize, Quantized)>,
    ),
    /// The way back: the quantised tensor and its values.
    Dequantize(PreparedDequantize, Quantized, Buffer),
    /// The scales of many tensors.
    Delayed(DelayedScales),
}

impl Call {
    /// The work in this size, of tensors that `random` makes.
    ///
    /// # Errors
    /// The library's.
    pub fn new(
        stream: &Stream,
        work: Work,
        shape: ShapeOf,
        dtype: DType,
        mut random: impl FnMut(&[usize]) -> Result<Buffer>,
    ) -> Result<Self> {
        let size = [shape.tokens(), shape.columns()];
        let [rows, columns] = size;
        let quantized = |quantize: Quantize| -> Result<_> {
            let op = quantize.prepare(stream)?;
            let room = op.allocate(rows, columns, 0)?;
            Ok((op, room))
        };
        Ok(match (work, work.quantize()) {
            (Work::SwiGlu(work), _) => {
                Self::SwiGlu(swiglu::Call::new(stream, work, shape, dtype, random)?)
            }
            (Work::RmsNorm(_), Some(quantize)) => {
                let op = Norm::rms().quantized(quantize).prepare(stream)?;
                let y = stream.uninitialised(dtype, &size)?;
                let (apart, room) = quantized(quantize)?;
                Self::RmsNorm(op, [random(&size)?, y], apart, room)
            }
            (Work::Gelu(backward, _), quantize) => {
                let op = Gelu::new(GeluKind::Tanh);
                let op = match quantize {
                    Some(quantize) if backward => op.quantize_gradient(quantize),
                    Some(quantize) => op.quantize_output(quantize),
                    None => op,
                };
                let out = stream.uninitialised(dtype, &size)?;
                let tensors = [random(&size)?, random(&size)?, out];
                let then = quantize.map(quantized).transpose()?;
                Self::Gelu(op.prepare(stream)?, tensors, backward, then)
            }
            (Work::Dequantize(_), Some(quantize)) => {
                let (op, room) = quantized(quantize)?;
                let x = random(&size)?;
                let mut filled = room;
                let bytes = op.workspace_bytes(rows, columns, 0).max(16);
                let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
                let mut outputs = filled.outputs().workspace(workspace.view_mut());
                op.quantize_into(x.view(), QuantizeArguments::default(), &mut outputs)?;
                let values = stream.uninitialised(dtype, &size)?;
                Self::Dequantize(Dequantize::new().prepare(stream)?, filled, values)
            }
            (Work::Delayed, _) => {
                let formats = vec![Format::Fp8Tensor(Fp8::E4m3); rows];
                let scales = DelayedScaling::new().length(columns);
                Self::Delayed(scales.prepare(stream, &formats)?)
            }
            (Work::RmsNorm(_) | Work::Dequantize(_), None) => return Err(missing()),
        })
    }

    /// Once; nothing is allocated.
    ///
    /// # Errors
    /// The library's.
    pub fn run(&mut self) -> Result<()> {
        let arguments = QuantizeArguments::default();
        match self {
            Self::SwiGlu(call) => call.run(),
            Self::RmsNorm(op, [x, _], _, room) => {
                let y = room.rowwise.as_mut().ok_or_else(missing)?.view_mut();
                let none = &mut Statistics::default();
                op.forward_quantized_into(x.view(), &Weights::default(), arguments, y, none)
            }
            Self::Gelu(op, [x, dy, _], true, Some((_, room))) => {
                let (x, dy) = (x.view(), dy.view());
                op.backward_quantized_into(x, dy, arguments, &mut room.outputs())
            }
            Self::Gelu(op, [x, ..], false, Some((_, room))) => {
                op.forward_quantized_into(x.view(), arguments, &mut room.outputs())
            }
            Self::Gelu(..) => self.plain(),
            Self::Dequantize(op, room, values) => {
                let tensor = room.rowwise.as_ref().ok_or_else(missing)?;
                op.dequantize_into(tensor.view(), values.view_mut())
            }
            Self::Delayed(scales) => scales.update(),
        }
    }

    /// The same in two operations, with what lies between them in memory; nothing to compare where
    /// there is one.
    ///
    /// # Errors
    /// The library's.
    pub fn run_apart(&mut self) -> Result<()> {
        if let Self::SwiGlu(call) = self {
            return call.run_apart();
        }
        self.plain()?;
        let (quantize, between, room) = match self {
            Self::RmsNorm(_, [_, y], quantize, room) => (quantize, y, room),
            Self::Gelu(_, [.., out], _, Some((quantize, room))) => (quantize, out, room),
            _ => return Ok(()),
        };
        let arguments = QuantizeArguments::default();
        quantize.quantize_into(between.view(), arguments, &mut room.outputs())
    }

    /// Whether there are two operations to compare with.
    #[must_use]
    pub fn is_fused(&self) -> bool {
        match self {
            Self::SwiGlu(call) => call.is_fused(),
            Self::RmsNorm(..) => true,
            Self::Gelu(.., then) => then.is_some(),
            Self::Dequantize(..) | Self::Delayed(_) => false,
        }
    }

    fn plain(&mut self) -> Result<()> {
        match self {
            Self::RmsNorm(op, [x, y], ..) => {
                let none = &mut Statistics::default();
                op.forward_into(x.view(), &Weights::default(), y.view_mut(), none)
            }
            Self::Gelu(op, [x, dy, out], true, _) => {
                op.backward_into(x.view(), dy.view(), out.view_mut())
            }
            Self::Gelu(op, [x, _, out], false, _) => op.forward_into(x.view(), out.view_mut()),
            _ => Ok(()),
        }
    }
}

/// Not reached: these works have a format, which has an output along rows.
fn missing() -> Error {
    run::missing("an output along rows")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::quant::work::rows;
    use crate::memory::upload;
    use crate::quant::bits::download;

    /// Counted by hand for 256 rows of 512 columns of bf16.
    #[test]
    fn the_least_bytes_are_each_tensor_once() {
        let one = 256 * 512;
        for (name, bytes) in [
            ("rms norm, fp8-row:e4m3 row-wise", 2 * one + one + 4 * 256),
            ("rms norm, mxfp4 row-wise", 2 * one + one / 2 + one / 32),
            ("gelu forward", 4 * one),
            (
                "gelu forward, mxfp8:e4m3 both",
                2 * one + 2 * (one + one / 32),
            ),
            (
                "gelu backward, mxfp8:e4m3 both",
                4 * one + 2 * (one + one / 32),
            ),
            ("dequantize fp8-tensor:e4m3", 2 * one + one + 4),
            ("dequantize nvfp4", 2 * one + one / 2 + one / 16 + 4),
            ("delayed scaling of rows as histories", 4 * one + 28 * 256),
        ] {
            let work = Work::all().into_iter().find(|work| work.name() == name);
            let measured = work.unwrap().measured(rows(256, 512), DType::Bf16);
            assert_eq!(measured.unwrap().bytes, bytes as u64, "{name}");
        }
    }

    #[test]
    fn names_tell_the_rows_apart() {
        let mut names: Vec<String> = Work::all().iter().map(Work::name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// With f32 between them, two operations give what one does; every call runs again and again.
    #[test]
    fn two_operations_give_what_one_gives() {
        let stream = Device::cpu().stream().unwrap();
        for work in Work::all() {
            let mut seed = 1.0;
            let mut call = Call::new(&stream, work, rows(32, 64), DType::F32, |shape| {
                let count: usize = shape.iter().product();
                seed += 1.0;
                let values: Vec<f64> = (0..count).map(|i| (i as f64 * seed).sin()).collect();
                upload(&stream, DType::F32, shape, &values)
            })
            .unwrap();
            call.run().unwrap();
            call.run().unwrap();
            let bytes = |call: &Call| {
                let room = match call {
                    Call::RmsNorm(.., room) | Call::Gelu(.., Some((_, room))) => room,
                    _ => return Vec::new(),
                };
                let tensors = [&room.rowwise, &room.transposed].into_iter().flatten();
                tensors
                    .map(|tensor| download(&tensor.data).unwrap())
                    .collect()
            };
            let one = bytes(&call);
            call.run_apart().unwrap();
            assert!(one == bytes(&call), "{}", work.name());
            let quantised = matches!(work, Work::RmsNorm(_) | Work::Gelu(_, Some(_)));
            assert_eq!(!one.is_empty(), quantised);
            assert!(call.is_fused() || !quantised);
        }
    }
}
