//! What is measured: formats, outputs and options, their sizes, and the bytes that they must move at
//! least.

use std::fmt;

use evenkeel::quant::{
    Format, Fp8, Hadamard, OutputOptions, Quantize, QuantizeOptions, Rounding, Scaling,
};
use evenkeel::{DType, Device, Result};

use crate::bench::record::{Measured, Rows, ShapeOf};

/// Tokens of a batch.
pub const TOKENS: [usize; 2] = [4096, 16_384];

/// A model's width, and that of its feed-forward layer.
pub const WIDTHS: [usize; 2] = [4096, 14_336];

/// The key of random numbers: any.
const SEED: u64 = 20;

/// Which outputs one read makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// X.
    RowWise,
    /// Its transpose.
    Transposed,
    /// Both.
    Both,
}

impl Outputs {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::RowWise, Self::Transposed, Self::Both];

    /// Whether X itself is among them.
    #[must_use]
    pub fn row_wise(self) -> bool {
        self != Self::Transposed
    }

    /// Whether its transpose is.
    #[must_use]
    pub fn transposed(self) -> bool {
        self != Self::RowWise
    }
}

impl fmt::Display for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RowWise => "row-wise",
            Self::Transposed => "transposed",
            Self::Both => "both",
        })
    }
}

/// What is done beside dividing and rounding to nearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Nothing.
    None,
    /// Stochastic rounding.
    Stochastic,
    /// A random Hadamard rotation of blocks of so many elements.
    Rotated(usize),
}

/// A quantisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// To what.
    pub format: Format,
    /// Which ways.
    pub outputs: Outputs,
    /// And how.
    pub extra: Extra,
}

/// The formats that are measured in every direction. The tensor's scale of the first is given; that of
/// the last two follows from the tensor's own amax.
const FORMATS: [Format; 8] = [
    Format::Fp8Tensor(Fp8::E4m3),
    Format::Fp8Row(Fp8::E4m3),
    Format::Fp8Block1x128(Fp8::E4m3),
    Format::Fp8Block128x128(Fp8::E4m3),
    Format::MxFp8(Fp8::E4m3),
    Format::MxFp4,
    Format::NvFp4,
    Format::NvFp4Square,
];

/// What is measured of both outputs alone.
const VARIANTS: [(Format, Extra); 6] = [
    (Format::Fp8Block1x128(Fp8::E4m3), Extra::Stochastic),
    (Format::MxFp4, Extra::Stochastic),
    (Format::NvFp4, Extra::Stochastic),
    (Format::MxFp8(Fp8::E4m3), Extra::Rotated(32)),
    (Format::MxFp4, Extra::Rotated(128)),
    (Format::NvFp4, Extra::Rotated(16)),
];

impl Work {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let plain = FORMATS.into_iter().flat_map(|format| {
            Outputs::ALL.map(|outputs| Self {
                format,
                outputs,
                extra: Extra::None,
            })
        });
        let variants = VARIANTS.map(|(format, extra)| Self {
            format,
            outputs: Outputs::Both,
            extra,
        });
        plain.chain(variants).collect()
    }

    /// Those that this size has: a rotation's blocks divide both dimensions.
    #[must_use]
    pub fn of(shape: ShapeOf) -> Vec<Self> {
        let divides =
            |n: usize| shape.tokens().is_multiple_of(n) && shape.columns().is_multiple_of(n);
        let mut all = Self::all();
        all.retain(|work| match work.extra {
            Extra::Rotated(n) => divides(n),
            _ => true,
        });
        all
    }

    /// Its name in a row.
    #[must_use]
    pub fn name(&self) -> String {
        let given = match self.scaling() {
            Scaling::Given => " given",
            _ => "",
        };
        let extra = match self.extra {
            Extra::None => String::new(),
            Extra::Stochastic => " stochastic".into(),
            Extra::Rotated(n) => format!(" rotated {n}"),
        };
        format!("{}{given} {}{extra}", self.format, self.outputs)
    }

    /// Where a tensor's scale comes from.
    #[must_use]
    pub fn scaling(&self) -> Scaling {
        match self.format {
            Format::Fp8Tensor(_) => Scaling::Given,
            _ => Scaling::Current,
        }
    }

    /// The options of the format.
    #[must_use]
    pub fn options(&self) -> QuantizeOptions {
        let options = QuantizeOptions::new(self.format).scaling(self.scaling());
        match self.extra {
            Extra::Stochastic => options.rounding(Rounding::Stochastic { seed: SEED }),
            _ => options,
        }
    }

    /// The options of each output.
    #[must_use]
    pub fn output(&self) -> OutputOptions {
        match self.extra {
            Extra::Rotated(n) => OutputOptions::new().rotation(Hadamard::new(n, SEED)),
            _ => OutputOptions::new(),
        }
    }

    /// The operation.
    #[must_use]
    pub fn operation(&self) -> Quantize {
        let mut operation = Quantize::new(self.options());
        if self.outputs.row_wise() {
            operation = operation.rowwise(self.output());
        }
        if self.outputs.transposed() {
            operation = operation.transposed(self.output());
        }
        operation
    }

    /// What a row of it measures.
    ///
    /// # Errors
    /// The library's.
    pub fn measured(&self, shape: ShapeOf, dtype: DType) -> Result<Measured> {
        Ok(Measured {
            op: "quant",
            variant: self.name(),
            shape,
            dtype,
            bytes: self.bytes(shape, dtype)?,
        })
    }

    /// The least bytes: x once, or twice where its scales follow from the amax of the whole tensor or
    /// of its columns, and each output's elements and scales.
    ///
    /// # Errors
    /// The library's.
    pub fn bytes(&self, shape: ShapeOf, dtype: DType) -> Result<u64> {
        let reads = match self.scaling() {
            Scaling::Current if self.format.needs_tensor_amax() => 2,
            _ if matches!(self.format, Format::Fp8Row(_)) && self.outputs.transposed() => 2,
            _ => 1,
        };
        let (rows, columns) = (shape.tokens(), shape.columns());
        let op = self.operation().prepare(&Device::cpu().stream()?)?;
        let forms = [
            op.rowwise_form(rows, columns, 0),
            op.transposed_form(rows, columns, 0),
        ];
        let outputs: usize = forms.iter().flatten().map(|form| form.bytes()).sum();
        Ok((reads * rows * columns * dtype.size() + outputs) as u64)
    }
}

/// Rows of so many columns.
#[must_use]
pub fn rows(tokens: usize, width: usize) -> ShapeOf {
    ShapeOf::Rows(Rows { tokens, width })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted by hand for 256 rows of 512 columns of bf16: x is 262144 bytes.
    #[test]
    fn the_least_bytes_are_each_tensor_once() {
        let least = |name: &str| {
            let work = Work::all().into_iter().find(|work| work.name() == name);
            work.unwrap().bytes(rows(256, 512), DType::Bf16).unwrap()
        };
        let (x, elements) = (262_144, 131_072);
        assert_eq!(least("fp8-tensor:e4m3 given row-wise"), x + elements + 4);
        // A scale of four bytes for 128 elements.
        assert_eq!(least("fp8-1x128:e4m3 transposed"), x + elements + 4096);
        assert_eq!(least("fp8-128x128:e4m3 both"), x + 2 * (elements + 32));
        assert_eq!(least("mxfp8:e4m3 both"), x + 2 * (elements + 4096));
        assert_eq!(
            least("mxfp4 both stochastic"),
            x + 2 * (elements / 2 + 4096)
        );
        // Two reads, and the scale of the tensor.
        let nvfp4 = elements / 2 + 8192 + 4;
        assert_eq!(least("nvfp4 row-wise"), 2 * x + nvfp4);
        assert_eq!(least("nvfp4 both rotated 16"), 2 * x + 2 * nvfp4);
        // A square's scale is in each of its 16 rows.
        assert_eq!(least("nvfp4-16x16 both"), 2 * x + 2 * nvfp4);
        // Rows take one read, and the amax of columns one of its own.
        assert_eq!(least("fp8-row:e4m3 row-wise"), x + elements + 4 * 256);
        let transposed = elements + 4 * 512;
        assert_eq!(least("fp8-row:e4m3 transposed"), 2 * x + transposed);
    }

    #[test]
    fn names_tell_the_rows_apart() {
        let all = Work::all();
        let mut names: Vec<String> = all.iter().map(Work::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|work| work.operation().validate().is_ok()));
        let odd = Work::of(rows(48, 100));
        assert!(
            !odd.iter()
                .any(|work| matches!(work.extra, Extra::Rotated(_)))
        );
        assert_eq!(Work::of(rows(4096, 14_336)).len(), all.len());
    }
}
