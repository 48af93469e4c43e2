//! What a product is configured with.

use std::fmt;
use std::str::FromStr;

use crate::quant::{Format, GeluKind};
use crate::text::string_form;
use crate::{DType, Error};

/// What an operand's elements and scales are.
///
/// Written and parsed as `bf16`, `f16` or the name of a [`Format`]; the same text is its serde form.
///
/// ```
/// use evenkeel::matmul::OperandFormat;
/// use evenkeel::quant::{Format, Fp8};
///
/// let row: OperandFormat = "fp8-row:e4m3".parse()?;
/// assert_eq!(row, Format::Fp8Row(Fp8::E4m3).into());
/// assert_eq!(OperandFormat::Bf16.to_string(), "bf16");
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum OperandFormat {
    /// bf16, without scales.
    Bf16,
    /// f16, without scales.
    F16,
    /// FP8 with its scales.
    Quantized(Format),
}

impl OperandFormat {
    /// The type of the elements.
    #[must_use]
    pub const fn data_dtype(self) -> DType {
        match self {
            Self::Bf16 => DType::Bf16,
            Self::F16 => DType::F16,
            Self::Quantized(format) => format.data_dtype(),
        }
    }
}

impl From<Format> for OperandFormat {
    fn from(format: Format) -> Self {
        Self::Quantized(format)
    }
}

impl fmt::Display for OperandFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bf16 => f.pad("bf16"),
            Self::F16 => f.pad("f16"),
            Self::Quantized(format) => fmt::Display::fmt(format, f),
        }
    }
}

impl FromStr for OperandFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            format => Ok(Self::Quantized(format.parse()?)),
        }
    }
}

/// When partial sums of FP8 products leave the tensor core for fp32 registers.
///
/// Hopper's and Ada's tensor cores keep 13 fraction bits of an FP8 sum below its largest term, and
/// lose what is beneath. Products of bf16 and f16 are summed in fp32 whatever this says, and scales
/// of blocks along the contraction are applied every 128 (1x128) or 32 (MX) of it.
///
/// Written and parsed as `every-128` and `none`; the same text is its serde form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Promotion {
    /// After every 128 of the contraction.
    #[default]
    Every128,
    /// At the end: what others call fast accumulation. The error grows with K.
    None,
}

impl Promotion {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Every128, Self::None];
}

impl fmt::Display for Promotion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Every128 => "every-128",
            Self::None => "none",
        })
    }
}

impl FromStr for Promotion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        one_of(&Self::ALL, "promotion", text)
    }
}

/// What is applied to the product's values before they are stored.
///
/// Written and parsed as `none`, `gelu:exact`, `gelu:tanh` and `swiglu`; the same text is its serde
/// form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// GELU of each value.
    Gelu(GeluKind),
    /// SwiGLU of pairs of adjacent columns: silu(v_2j) v_2j+1 in column j, so that the output has half
    /// the product's columns. The rows of the weight alternate: gate 0, up 0, gate 1, up 1, ..
    SwiGlu,
}

impl Activation {
    /// Every activation, for those who test or list them.
    pub const ALL: [Self; 4] = [
        Self::None,
        Self::Gelu(GeluKind::Exact),
        Self::Gelu(GeluKind::Tanh),
        Self::SwiGlu,
    ];

    /// Columns of the output of a product of `n` columns.
    #[must_use]
    pub const fn output_columns(self, n: usize) -> usize {
        match self {
            Self::SwiGlu => n / 2,
            Self::None | Self::Gelu(_) => n,
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Gelu(kind) => f.pad(&format!("gelu:{kind}")),
            Self::SwiGlu => f.pad("swiglu"),
        }
    }
}

impl FromStr for Activation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        one_of(&Self::ALL, "activation", text)
    }
}

string_form!(OperandFormat, Promotion, Activation);

/// The one of `all` that is written as `text`.
pub(super) fn one_of<T: Copy + fmt::Display>(
    all: &[T],
    argument: &'static str,
    text: &str,
) -> Result<T, Error> {
    let found = all.iter().find(|option| option.to_string() == text);
    found.copied().ok_or_else(|| {
        let names: Vec<String> = all.iter().map(T::to_string).collect();
        let expected = format!("one of {}", names.join(", "));
        Error::argument("Matmul", argument, expected, format!("{text:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        for promotion in Promotion::ALL {
            assert_eq!(promotion.to_string().parse(), Ok(promotion));
        }
        for activation in Activation::ALL {
            assert_eq!(activation.to_string().parse(), Ok(activation));
        }
        let formats = Format::ALL.map(OperandFormat::Quantized);
        for format in [OperandFormat::Bf16, OperandFormat::F16]
            .into_iter()
            .chain(formats)
        {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("gelu".parse::<Activation>().is_err());
        assert!("f32".parse::<OperandFormat>().is_err());
    }
}
