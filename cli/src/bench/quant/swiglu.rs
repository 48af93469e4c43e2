//! SwiGLU with what it makes quantised: in one operation, or in two.

use evenkeel::quant::{
    Format, Fp8, GateUp, GateUpMut, OutputOptions, PreparedQuantize, PreparedSwiGlu, Quantize,
    QuantizeArguments, Quantized, SwiGlu,
};
use evenkeel::{Buffer, DType, Device, Result, Stream};

use crate::bench::record::{Measured, ShapeOf};

/// A pass of it, for a feed-forward layer as wide as the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// From gate, up and dy to the gradients of gate and up, or from gate and up to y.
    pub backward: bool,
    /// What the result is quantised to, in both directions; nothing leaves it as it is.
    pub format: Option<Format>,
}

impl Work {
    /// Those that are measured.
    pub const ALL: [Self; 5] = [
        Self::of(false, None),
        Self::of(true, None),
        Self::of(false, Some(Format::Fp8Block1x128(Fp8::E4m3))),
        Self::of(false, Some(Format::MxFp8(Fp8::E4m3))),
        Self::of(true, Some(Format::MxFp8(Fp8::E4m3))),
    ];

    const fn of(backward: bool, format: Option<Format>) -> Self {
        Self { backward, format }
    }

    /// Its name in a row.
    #[must_use]
    pub fn name(&self) -> String {
        let pass = if self.backward { "backward" } else { "forward" };
        match self.format {
            None => format!("swiglu {pass}"),
            Some(format) => format!("swiglu {pass}, {format} both"),
        }
    }

    fn quantize(format: Format) -> Quantize {
        Quantize::new(format)
            .rowwise(OutputOptions::new())
            .transposed(OutputOptions::new())
    }

    /// Columns of what is made: those of y, or of the gradients of gate and up side by side.
    fn columns(&self, width: usize) -> usize {
        if self.backward { 2 * width } else { width }
    }

    /// What a row of it measures: the least bytes are gate, up and dy once, and the result once.
    ///
    /// # Errors
    /// The library's.
    pub fn measured(&self, shape: ShapeOf, dtype: DType) -> Result<Measured> {
        let (tokens, width) = (shape.tokens(), shape.columns());
        let columns = self.columns(width);
        let read = tokens * (2 * width + if self.backward { width } else { 0 }) * dtype.size();
        let written = match self.format {
            None => tokens * columns * dtype.size(),
            Some(format) => {
                let op = Self::quantize(format).prepare(&Device::cpu().stream()?)?;
                let forms = [
                    op.rowwise_form(tokens, columns, 0),
                    op.transposed_form(tokens, columns, 0),
                ];
                forms.iter().flatten().map(|form| form.bytes()).sum()
            }
        };
        Ok(Measured {
            op: "quant",
            variant: self.name(),
            shape,
            dtype,
            bytes: (read + written) as u64,
        })
    }
}

/// A work's tensors on a device.
pub struct Call {
    op: PreparedSwiGlu,
    /// Gate and up side by side.
    x: Buffer,
    dy: Option<Buffer>,
    /// y, or the gradients of gate and up side by side, where they are not quantised.
    out: Buffer,
    then: Option<(PreparedQuantize, Quantized)>,
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
        let (tokens, width) = (shape.tokens(), shape.columns());
        let columns = work.columns(width);
        let mut op = SwiGlu::new();
        let mut then = None;
        if let Some(format) = work.format {
            let quantize = Work::quantize(format);
            op = match work.backward {
                true => op.quantize_gradient(quantize),
                false => op.quantize_output(quantize),
            };
            let quantize = quantize.prepare(stream)?;
            let outputs = quantize.allocate(tokens, columns, 0)?;
            then = Some((quantize, outputs));
        }
        let dy = work.backward.then(|| random(&[tokens, width]));
        Ok(Self {
            op: op.prepare(stream)?,
            x: random(&[tokens, 2 * width])?,
            dy: dy.transpose()?,
            out: stream.uninitialised(dtype, &[tokens, columns])?,
            then,
        })
    }

    /// Once; nothing is allocated.
    ///
    /// # Errors
    /// The library's.
    pub fn run(&mut self) -> Result<()> {
        let Some((_, quantized)) = &mut self.then else {
            return self.plain();
        };
        let x = GateUp::Packed(self.x.view());
        let arguments = QuantizeArguments::default();
        let mut outputs = quantized.outputs();
        match &self.dy {
            Some(dy) => {
                let dy = dy.view();
                self.op
                    .backward_quantized_into(x, None, dy, arguments, &mut outputs)
            }
            None => self
                .op
                .forward_quantized_into(x, None, arguments, &mut outputs),
        }
    }

    /// The same in two operations, with what lies between them in memory; nothing to compare where
    /// there is one.
    ///
    /// # Errors
    /// The library's.
    pub fn run_apart(&mut self) -> Result<()> {
        self.plain()?;
        let Some((quantize, quantized)) = &mut self.then else {
            return Ok(());
        };
        let mut outputs = quantized.outputs();
        quantize.quantize_into(self.out.view(), QuantizeArguments::default(), &mut outputs)
    }

    /// Whether there are two operations to compare with.
    #[must_use]
    pub fn is_fused(&self) -> bool {
        self.then.is_some()
    }

    fn plain(&mut self) -> Result<()> {
        let x = GateUp::Packed(self.x.view());
        let out = self.out.view_mut();
        match &self.dy {
            Some(dy) => self
                .op
                .backward_into(x, None, dy.view(), GateUpMut::Packed(out)),
            None => self.op.forward_into(x, None, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::quant::work::rows;
    use crate::memory::upload;

    /// Counted by hand for 256 rows, 512 wide, of bf16.
    #[test]
    fn the_least_bytes_are_each_tensor_once() {
        let one = 256 * 512;
        // Gate, up and y; gate, up, dy and two gradients; two outputs with a scale of 128 or 32.
        let least = [
            3 * 2 * one,
            5 * 2 * one,
            2 * 2 * one + 2 * (one + one / 32),
            2 * 2 * one + 2 * (one + one / 32),
            3 * 2 * one + 4 * (one + one / 32),
        ];
        for (work, least) in Work::ALL.iter().zip(least) {
            let measured = work.measured(rows(256, 512), DType::Bf16).unwrap();
            assert_eq!(measured.bytes, least, "{}", work.name());
        }
    }

    /// With f32 between them, two operations give what one does.
    #[test]
    fn two_operations_give_what_one_gives() {
        let stream = Device::cpu().stream().unwrap();
        for work in Work::ALL {
            let mut seed = 1.0;
            let mut call = Call::new(&stream, work, rows(32, 64), DType::F32, |shape| {
                let count: usize = shape.iter().product();
                seed += 1.0;
                let values: Vec<f64> = (0..count).map(|i| (i as f64 * seed).sin()).collect();
                upload(&stream, DType::F32, shape, &values)
            })
            .unwrap();
            let bytes = |call: &Call| {
                let outputs = call.then.as_ref().map(|(_, q)| [&q.rowwise, &q.transposed]);
                let tensors = outputs.into_iter().flatten().flatten();
                let data =
                    tensors.map(|tensor| crate::quant::bits::download(&tensor.data).unwrap());
                data.collect::<Vec<_>>()
            };
            call.run().unwrap();
            let one = bytes(&call);
            call.run_apart().unwrap();
            assert!(one == bytes(&call), "{}", work.name());
            assert_eq!(call.is_fused(), work.format.is_some());
        }
    }
}
