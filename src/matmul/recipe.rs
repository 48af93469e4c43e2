//! In which formats a linear layer multiplies, and where its scales come from.

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::quant::{
    DelayedScaling, Format, Fp8, OutputOptions, Quantize, QuantizeOptions, Scaling,
};
use crate::quant::{ScaleLayout, ScaleRounding};
use crate::text::string_form;

/// How a [`LinearFp8`](super::LinearFp8) quantises its activations, weights and gradients.
///
/// | | activations | weights | gradients | reads of x and of dy |
/// |---|---|---|---|---|
/// | `tensor` | E4M3, scale of the tensor's amax | the same | E5M2, the same | two: the amax comes first |
/// | `delayed` | E4M3, scale of earlier steps' amax | the same | E5M2, the same | one |
/// | `row` | E4M3, scales of rows, and of columns where transposed | the same | E5M2, the same | two: for the columns' amax |
/// | `block` | E4M3, scales of 1 x 128 | E4M3, of 128 x 128 | E4M3, of 1 x 128 | one |
/// | `mxfp8` | E4M3, powers of two of 1 x 32 | the same | the same | one |
/// | `unit` | E4M3 as they are | the same | E5M2 as they are | one |
///
/// Sources: "FP8 Formats for Deep Learning" (arXiv 2209.05433) for E4M3 forward and E5M2 backward;
/// DeepSeek-V3 (arXiv 2412.19437, section 3.3) for `block`; OCP MX 1.0 for `mxfp8`, with scales rounded
/// up as in "Recipes for Pre-training LLMs with MXFP8" (arXiv 2506.08027); "u-muP: The Unit-Scaled
/// Maximal Update Parametrization" (arXiv 2407.17465) for `unit`.
///
/// Written and parsed by these names (`delayed` with its default options); the same text is its serde
/// form.
///
/// ```
/// use evenkeel::matmul::Recipe;
/// assert_eq!("block".parse(), Ok(Recipe::Block));
/// assert_eq!(Recipe::MxFp8.to_string(), "mxfp8");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Recipe {
    /// One scale a tensor, of its own amax.
    Tensor,
    /// One scale a tensor, of the amax of earlier steps ([`DelayedScaling`]).
    Delayed,
    /// A scale a row.
    Row,
    /// Scales of 128.
    Block,
    /// Scales of 32, powers of two.
    MxFp8,
    /// No scales: values are of unit variance by construction, and the products' multipliers keep them
    /// there.
    Unit,
}

impl Recipe {
    /// Every recipe.
    pub const ALL: [Self; 6] = [
        Self::Tensor,
        Self::Delayed,
        Self::Row,
        Self::Block,
        Self::MxFp8,
        Self::Unit,
    ];

    /// The formats of activations, weights and gradients.
    #[must_use]
    pub const fn formats(self) -> [Format; 3] {
        use Format::{Fp8Block1x128, Fp8Block128x128, Fp8Row, Fp8Tensor, MxFp8};
        const FORWARD: Fp8 = Fp8::E4m3;
        const BACKWARD: Fp8 = Fp8::E5m2;
        match self {
            Self::Tensor | Self::Delayed | Self::Unit => {
                [Fp8Tensor(FORWARD), Fp8Tensor(FORWARD), Fp8Tensor(BACKWARD)]
            }
            Self::Row => [Fp8Row(FORWARD), Fp8Row(FORWARD), Fp8Row(BACKWARD)],
            Self::Block => [
                Fp8Block1x128(FORWARD),
                Fp8Block128x128(FORWARD),
                Fp8Block1x128(FORWARD),
            ],
            Self::MxFp8 => [MxFp8(FORWARD), MxFp8(FORWARD), MxFp8(FORWARD)],
        }
    }

    /// How tensors of this format are quantised, without outputs yet.
    pub(super) fn options(self, format: Format) -> QuantizeOptions {
        let options = QuantizeOptions::new(format);
        match self {
            Self::Delayed | Self::Unit => options.scaling(Scaling::Given),
            Self::MxFp8 => options.scale_rounding(ScaleRounding::Ceil),
            Self::Tensor | Self::Row | Self::Block => options,
        }
    }

    /// Row-wise, transposed, or both.
    pub(super) fn quantize(self, format: Format, rowwise: bool, transposed: bool) -> Quantize {
        // As bulk copies load the scales of many rows.
        let output = match format {
            Format::Fp8Block1x128(_) => OutputOptions::new().layout(ScaleLayout::ColumnMajor),
            _ => OutputOptions::new(),
        };
        let mut quantize = Quantize::new(self.options(format));
        if rowwise {
            quantize = quantize.rowwise(output);
        }
        if transposed {
            quantize = quantize.transposed(output);
        }
        quantize
    }

    /// Whether scales come from outside.
    pub(super) const fn is_given(self) -> bool {
        matches!(self, Self::Delayed | Self::Unit)
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tensor => "tensor",
            Self::Delayed => "delayed",
            Self::Row => "row",
            Self::Block => "block",
            Self::MxFp8 => "mxfp8",
            Self::Unit => "unit",
        })
    }
}

impl FromStr for Recipe {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        super::options::one_of(&Self::ALL, "recipe", text)
    }
}

string_form!(Recipe);

/// What the three products of a layer are multiplied with.
///
/// u-muP's linear layer of K inputs multiplies y and dx with 1 / sqrt(K), and dW of T tokens with
/// 1 / sqrt(T): with weights, activations and gradients of unit variance all of them have it too.
///
/// ```
/// use evenkeel::matmul::Multipliers;
/// let multipliers = Multipliers::u_mup(4096, 16384);
/// assert_eq!([multipliers.output, multipliers.weight_gradient], [1.0 / 64.0, 1.0 / 128.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multipliers {
    /// Of y.
    pub output: f32,
    /// Of dx.
    pub input_gradient: f32,
    /// Of dW.
    pub weight_gradient: f32,
}

impl Default for Multipliers {
    fn default() -> Self {
        Self {
            output: 1.0,
            input_gradient: 1.0,
            weight_gradient: 1.0,
        }
    }
}

impl Multipliers {
    /// Those of u-muP, for a layer of so many inputs and steps of so many tokens.
    #[must_use]
    pub fn u_mup(inputs: usize, tokens: usize) -> Self {
        let of = |count: usize| (1.0 / (count.max(1) as f64).sqrt()) as f32;
        Self {
            output: of(inputs),
            input_gradient: of(inputs),
            weight_gradient: of(tokens),
        }
    }

    pub(super) fn all(self) -> [f32; 3] {
        [self.output, self.input_gradient, self.weight_gradient]
    }
}

/// How delayed scales are made, where the recipe has such.
pub(super) fn delayed(options: Option<DelayedScaling>) -> DelayedScaling {
    options.unwrap_or_default()
}
