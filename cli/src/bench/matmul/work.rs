//! What is measured of products: single ones, and whole layers with their quantisation.

use evenkeel::matmul::{
    Groups, LinearFp8, Matmul, MatmulArguments, MatmulOutputs, OperandFormat, PreparedLinearFp8,
    PreparedMatmul, Promotion, Recipe,
};
use evenkeel::quant::{
    Format, Fp8, OutputOptions, Quantize, QuantizeArguments, Quantized, ScaleLayout,
};
use evenkeel::{Buffer, DType, Result, Stream};

use crate::bench::record::{Product, Row, ShapeOf, Times};

/// Groups of the grouped products: experts of one size.
const GROUPS: usize = 8;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A product of operands that are there already.
    Product {
        /// Formats of both.
        operands: [OperandFormat; 2],
        /// Of FP8 sums.
        promotion: Promotion,
        /// Whether it is added to an f32 output, as gradients of weights are; others are bf16.
        accumulate: bool,
        /// Whether rows are in groups.
        grouped: bool,
    },
    /// Forward and backward of a layer: quantisation, three products.
    Layer(Recipe),
}

/// A work and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// [`Row::variant`].
    pub name: &'static str,
    /// What is computed.
    pub kind: Kind,
}

const fn product(name: &'static str, a: Format, b: Format) -> Work {
    Work {
        name,
        kind: Kind::Product {
            operands: [OperandFormat::Quantized(a), OperandFormat::Quantized(b)],
            promotion: Promotion::Every128,
            accumulate: false,
            grouped: false,
        },
    }
}

const fn layer(name: &'static str, recipe: Recipe) -> Work {
    Work {
        name,
        kind: Kind::Layer(recipe),
    }
}

const TENSOR: Format = Format::Fp8Tensor(Fp8::E4m3);
const ROW: Format = Format::Fp8Row(Fp8::E4m3);
const BLOCK: Format = Format::Fp8Block1x128(Fp8::E4m3);
const SQUARE: Format = Format::Fp8Block128x128(Fp8::E4m3);
const MX: Format = Format::MxFp8(Fp8::E4m3);

impl Work {
    /// Single products.
    pub const PRODUCTS: [Self; 9] = [
        Self {
            name: "bf16",
            kind: Kind::Product {
                operands: [OperandFormat::Bf16; 2],
                promotion: Promotion::Every128,
                accumulate: false,
                grouped: false,
            },
        },
        product("fp8-tensor", TENSOR, TENSOR),
        product("fp8-tensor fast", TENSOR, TENSOR).fast(),
        product("fp8-row", ROW, ROW),
        product("fp8-row fast", ROW, ROW).fast(),
        product("fp8-1x128 x 128x128", BLOCK, SQUARE),
        product("fp8-1x128 x 1x128, +=", BLOCK, BLOCK).accumulated(),
        product("fp8-1x128 x 128x128, 8 groups", BLOCK, SQUARE).in_groups(),
        product("mxfp8", MX, MX),
    ];

    /// Layers.
    pub const LAYERS: [Self; 5] = [
        layer("layer tensor", Recipe::Tensor),
        layer("layer delayed", Recipe::Delayed),
        layer("layer row", Recipe::Row),
        layer("layer block", Recipe::Block),
        layer("layer mxfp8", Recipe::MxFp8),
    ];

    const fn fast(mut self) -> Self {
        if let Kind::Product { promotion, .. } = &mut self.kind {
            *promotion = Promotion::None;
        }
        self
    }

    const fn accumulated(mut self) -> Self {
        if let Kind::Product { accumulate, .. } = &mut self.kind {
            *accumulate = true;
        }
        self
    }

    const fn in_groups(mut self) -> Self {
        if let Kind::Product { grouped, .. } = &mut self.kind {
            *grouped = true;
        }
        self
    }

    /// The work of a row.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::PRODUCTS.into_iter().chain(Self::LAYERS);
        all.find(|work| work.name == name)
    }

    /// Rows of b.
    fn b_rows(self, n: usize) -> usize {
        match self.kind {
            Kind::Product { grouped: true, .. } => GROUPS * n,
            _ => n,
        }
    }

    /// Multiplications and additions.
    #[must_use]
    pub fn flops(self, Product { m, n, k }: Product) -> u64 {
        let product = 2 * m as u64 * n as u64 * k as u64;
        match self.kind {
            Kind::Product { .. } => product,
            Kind::Layer(_) => 3 * product,
        }
    }

    /// The least bytes of a product: operands and output once. Of a layer: x, dy, y and dx in bf16 and
    /// dW in f32, read and written, its quantised tensors not counted.
    #[must_use]
    pub fn bytes(self, Product { m, n, k }: Product) -> u64 {
        let (m_, n_, k_) = (m as u64, n as u64, k as u64);
        match self.kind {
            Kind::Product {
                operands,
                accumulate,
                ..
            } => {
                let size = operands[0].data_dtype().size() as u64;
                let output = if accumulate { 8 } else { 2 };
                size * (m_ * k_ + self.b_rows(n) as u64 * k_) + output * m_ * n_
            }
            Kind::Layer(_) => 4 * m_ * (n_ + k_) + 8 * n_ * k_,
        }
    }

    /// A row of repetitions.
    #[must_use]
    pub fn row(self, shape: Product, us: Vec<f64>) -> Row {
        let (us, flops) = (Times::of(us), self.flops(shape));
        let bytes = self.bytes(shape);
        Row {
            op: "matmul".into(),
            variant: self.name.into(),
            shape: ShapeOf::Product(shape),
            dtype: DType::Bf16.name().into(),
            us,
            bytes,
            flops,
            gbs: us.map(|us| bytes as f64 / us.median / 1e3),
            tflops: us.map(|us| flops as f64 / us.median / 1e6),
            ..Row::default()
        }
    }
}

/// A work with its tensors, to be run again and again.
pub enum Call {
    /// A product.
    Product(Box<ProductCall>),
    /// A layer.
    Layer(Box<LayerCall>),
}

/// A product's tensors.
pub struct ProductCall {
    op: PreparedMatmul,
    dense: Option<[Buffer; 2]>,
    quantized: Option<[Quantized; 2]>,
    offsets: Option<Buffer>,
    out: Buffer,
    workspace: Buffer,
    accumulate: bool,
}

/// A layer's tensors.
pub struct LayerCall {
    linear: PreparedLinearFp8,
    x: Buffer,
    dy: Buffer,
    weight: Buffer,
    dw: Buffer,
}

impl Call {
    /// The work in this size, of bf16 tensors that `random` makes.
    ///
    /// # Errors
    /// The library's.
    pub fn new(
        stream: &Stream,
        work: Work,
        shape: Product,
        mut random: impl FnMut(&[usize]) -> Result<Buffer>,
    ) -> Result<Self> {
        let Product { m, n, k } = shape;
        let (operands, promotion, accumulate, grouped) = match work.kind {
            Kind::Layer(recipe) => {
                return Ok(Self::Layer(Box::new(LayerCall {
                    linear: LinearFp8::new(recipe).prepare(stream, n, k)?,
                    x: random(&[m, k])?,
                    dy: random(&[m, n])?,
                    weight: random(&[n, k])?,
                    dw: stream.zeros(DType::F32, &[n, k])?,
                })));
            }
            Kind::Product {
                operands,
                promotion,
                accumulate,
                grouped,
            } => (operands, promotion, accumulate, grouped),
        };
        let op = Matmul::new(operands[0], operands[1]);
        let op = op.promotion(promotion).prepare(stream)?;
        let groups = if grouped { GROUPS } else { 0 };
        let workspace = op.workspace_bytes(m, n, k, groups);
        let offsets = (0..=GROUPS).map(|group| (m * group / GROUPS) as i64);
        let offsets: Vec<i64> = offsets.collect();
        let dtype = if accumulate { DType::F32 } else { DType::Bf16 };
        let tensors = [random(&[m, k])?, random(&[work.b_rows(n), k])?];
        let quantized = match operands {
            [OperandFormat::Quantized(a), OperandFormat::Quantized(b)] => Some([
                quantized(stream, a, &tensors[0])?,
                quantized(stream, b, &tensors[1])?,
            ]),
            _ => None,
        };
        Ok(Self::Product(Box::new(ProductCall {
            op,
            dense: quantized.is_none().then_some(tensors),
            quantized,
            offsets: match grouped {
                true => Some(stream.upload(&[GROUPS + 1], &offsets)?),
                false => None,
            },
            out: stream.zeros(dtype, &[m, n])?,
            workspace: stream.uninitialised(DType::U8, &[workspace.max(16)])?,
            accumulate,
        })))
    }

    /// Once. A product allocates nothing; a layer allocates its results, as in training. Its weight is
    /// quantised each time: one micro-batch a step.
    ///
    /// # Errors
    /// The library's.
    pub fn run(&mut self) -> Result<()> {
        match self {
            Self::Product(call) => call.run(),
            Self::Layer(call) => call.run(),
        }
    }
}

impl ProductCall {
    fn run(&mut self) -> Result<()> {
        let mut arguments = MatmulArguments::default();
        if self.accumulate {
            arguments = arguments.accumulate(1.0);
        }
        if let Some(offsets) = &self.offsets {
            arguments = arguments.groups(Groups::Rows(offsets.view()));
        }
        let mut outputs =
            MatmulOutputs::new(self.out.view_mut()).workspace(self.workspace.view_mut());
        if let Some([a, b]) = &self.dense {
            return (self.op).multiply_into(a.view(), b.view(), arguments, &mut outputs);
        }
        let Some([a, b]) = &self.quantized else {
            return Ok(());
        };
        (self.op).multiply_into(a.rowwise()?, b.rowwise()?, arguments, &mut outputs)
    }
}

impl LayerCall {
    fn run(&mut self) -> Result<()> {
        self.linear.invalidate();
        let (x, dy, w) = (self.x.view(), self.dy.view(), self.weight.view());
        let (_, saved) = self.linear.forward(x, w, 0, DType::Bf16)?;
        let dw = self.dw.view_mut();
        self.linear.backward(&saved, dy, w, 0, DType::Bf16, dw)?;
        self.linear.update_scales()
    }
}

fn quantized(stream: &Stream, format: Format, tensor: &Buffer) -> Result<Quantized> {
    let layout = match format {
        Format::Fp8Block1x128(_) => ScaleLayout::ColumnMajor,
        _ => ScaleLayout::RowMajor,
    };
    let op = Quantize::new(format).rowwise(OutputOptions::new().layout(layout));
    op.prepare(stream)?
        .quantize(tensor.view(), QuantizeArguments::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::upload;
    use evenkeel::Device;

    #[test]
    fn every_work_runs_on_the_cpu() {
        let stream = Device::cpu().stream().expect("the CPU");
        // N as groups of weights in blocks of 128 x 128 need it.
        let shape = Product {
            m: 16,
            n: 128,
            k: 32,
        };
        for work in Work::PRODUCTS.into_iter().chain(Work::LAYERS) {
            let random = |size: &[usize]| {
                let count = size.iter().product();
                let values: Vec<f64> = (0..count)
                    .map(|at| f64::from(at as u32 % 7) - 3.0)
                    .collect();
                upload(&stream, DType::Bf16, size, &values)
            };
            let mut call = Call::new(&stream, work, shape, random).expect(work.name);
            call.run().expect(work.name);
            let row = work.row(shape, vec![2.0]);
            assert_eq!(Work::named(&row.variant), Some(work));
            assert_eq!(row.tflops, Some(work.flops(shape) as f64 / 2e6));
        }
        assert_eq!(Work::LAYERS[0].flops(shape), 6 * 16 * 128 * 32);
        assert_eq!(
            Work::PRODUCTS[0].bytes(shape),
            2 * (16 * 32 + 128 * 32 + 16 * 128)
        );
    }
}
