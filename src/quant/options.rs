//! How values become elements and scales.

use std::fmt;
use std::str::FromStr;

use super::format::{Format, ScaleLayout};
use crate::Error;
use crate::text::string_form;

/// How a value between two elements becomes one of them.
///
/// Written and parsed as `nearest` and `stochastic:SEED`; the same text is its serde form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Rounding {
    /// The nearest, ties to the even code.
    #[default]
    Nearest,
    /// Up with the probability that makes the mean the value itself, to within 2^-32 of a step.
    ///
    /// The random word of the element at (row, column) of the input `[rows, columns]` is word
    /// e mod 4 of Philox4x32-10 with counter (e / 4, offset) and key `seed`, e = row x columns +
    /// column; the call gives the offset. Both outputs of an input use the same word.
    Stochastic {
        /// The key of the generator.
        seed: u64,
    },
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nearest => f.write_str("nearest"),
            Self::Stochastic { seed } => write!(f, "stochastic:{seed}"),
        }
    }
}

impl FromStr for Rounding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let seed = |seed: &str| seed.parse().ok().map(|seed| Self::Stochastic { seed });
        match text.split_once(':') {
            None if text == "nearest" => Some(Self::Nearest),
            Some(("stochastic", rest)) => seed(rest),
            _ => None,
        }
        .ok_or_else(|| invalid("rounding", "nearest or stochastic:SEED", text))
    }
}

/// Where the scale of a whole tensor comes from, in the formats that have one.
///
/// Written and parsed as `current` and `given`; the same text is its serde form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Scaling {
    /// From the amax of this tensor, which costs a read of its own.
    #[default]
    Current,
    /// From the caller: one read. Delayed scaling gives that of the steps before.
    Given,
}

impl Scaling {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Current, Self::Given];
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Current => "current",
            Self::Given => "given",
        })
    }
}

impl FromStr for Scaling {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        one_of(&Self::ALL, "scaling", text)
    }
}

/// How the power of two of an MX block follows from its amax.
///
/// Written and parsed as `floor` and `ceil`; the same text is its serde form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum ScaleRounding {
    /// 2^(floor(log2 amax) - emax), emax that of the largest element (OCP MX v1.0, 6.3). The
    /// largest elements of a block may saturate.
    #[default]
    Floor,
    /// 2^ceil(log2(amax / largest)): nothing saturates, and half the blocks have a bit less
    /// (arXiv 2506.08027).
    Ceil,
}

impl ScaleRounding {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Floor, Self::Ceil];
}

impl fmt::Display for ScaleRounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Floor => "floor",
            Self::Ceil => "ceil",
        })
    }
}

impl FromStr for ScaleRounding {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        one_of(&Self::ALL, "scale_rounding", text)
    }
}

/// A random Hadamard rotation of blocks of n elements along the inner dimension.
///
/// v becomes H (sigma v) / sqrt(n): signs sigma, +-1 each, then the Hadamard matrix in n log2 n
/// additions, then one multiplication. The signs are the 128 bits of Philox4x32-10 with counter 0
/// and key `seed` (bit i for element i of a block, set for minus): the same for every block, so that
/// the rotations of a product's two operands cancel. The inverse is H / sqrt(n), then the signs.
///
/// Written and parsed as `hadamard:N:SEED`; the same text is its serde form.
///
/// ```
/// use evenkeel::quant::Hadamard;
/// assert_eq!("hadamard:16:7".parse::<Hadamard>()?, Hadamard::new(16, 7));
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub struct Hadamard {
    /// Elements of a block: 16, 32 or 128.
    pub n: usize,
    /// The key of the signs.
    pub seed: u64,
}

impl Hadamard {
    /// The sizes there are.
    pub const SIZES: [usize; 3] = [16, 32, 128];

    /// Blocks of `n` with signs from `seed`.
    #[must_use]
    pub const fn new(n: usize, seed: u64) -> Self {
        Self { n, seed }
    }

    /// Checks n.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is not 16, 32 or 128.
    pub fn validate(&self) -> Result<(), Error> {
        if Self::SIZES.contains(&self.n) {
            return Ok(());
        }
        Err(invalid("rotation", "of 16, 32 or 128", self.n))
    }

    /// f32(1 / sqrt(n)), what the sums are multiplied by.
    #[must_use]
    pub fn factor(&self) -> f32 {
        (1.0 / (self.n as f64).sqrt()) as f32
    }
}

impl fmt::Display for Hadamard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hadamard:{}:{}", self.n, self.seed)
    }
}

impl FromStr for Hadamard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split(':');
        let rotation = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("hadamard"), Some(n), Some(seed), None) => n
                .parse()
                .ok()
                .zip(seed.parse().ok())
                .map(|(n, seed)| Self::new(n, seed)),
            _ => None,
        };
        let rotation = rotation.ok_or_else(|| invalid("rotation", "hadamard:N:SEED", text))?;
        rotation.validate()?;
        Ok(rotation)
    }
}

/// What elements and scales a tensor becomes, for both outputs of a quantisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct QuantizeOptions {
    /// Elements, scales and blocks.
    pub format: Format,
    /// Where a tensor's scale comes from.
    #[cfg_attr(feature = "serde", serde(default))]
    pub scaling: Scaling,
    /// Whether scales that are f32 are held to powers of two, rounded up.
    #[cfg_attr(feature = "serde", serde(default))]
    pub power_of_two: bool,
    /// How MX scales follow from amax.
    #[cfg_attr(feature = "serde", serde(default))]
    pub scale_rounding: ScaleRounding,
    /// How elements are rounded.
    #[cfg_attr(feature = "serde", serde(default))]
    pub rounding: Rounding,
}

impl QuantizeOptions {
    /// Current scaling, scales by the format's own formula, elements to nearest.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self {
            format,
            scaling: Scaling::Current,
            power_of_two: false,
            scale_rounding: ScaleRounding::Floor,
            rounding: Rounding::Nearest,
        }
    }

    /// A tensor's scale from somewhere else.
    #[must_use]
    pub const fn scaling(mut self, scaling: Scaling) -> Self {
        self.scaling = scaling;
        self
    }

    /// f32 scales that are powers of two: 2^ceil(log2(amax / largest)).
    #[must_use]
    pub const fn power_of_two(mut self) -> Self {
        self.power_of_two = true;
        self
    }

    /// MX scales by another rule.
    #[must_use]
    pub const fn scale_rounding(mut self, scale_rounding: ScaleRounding) -> Self {
        self.scale_rounding = scale_rounding;
        self
    }

    /// Another rounding of elements.
    #[must_use]
    pub const fn rounding(mut self, rounding: Rounding) -> Self {
        self.rounding = rounding;
        self
    }

    /// Checks that the format has what is asked of it.
    ///
    /// # Errors
    /// [`Error::Argument`] for a given scale in a format without a tensor's scale, for powers of two
    /// where scales are not f32, and for another rounding of scales where they are not MX.
    pub fn validate(&self) -> Result<(), Error> {
        let format = self.format;
        let mx = matches!(format, Format::MxFp8(_) | Format::MxFp4);
        for (argument, valid, expected) in [
            (
                "scaling",
                self.scaling == Scaling::Current || format.needs_tensor_amax(),
                "current, or given in fp8-tensor, nvfp4 and nvfp4-16x16",
            ),
            (
                "power_of_two",
                !self.power_of_two || format.has_f32_scales(),
                "asked of formats with f32 scales: fp8-tensor, -row, -1x128, -128x128",
            ),
            (
                "scale_rounding",
                self.scale_rounding == ScaleRounding::Floor || mx,
                "floor, or ceil in mxfp8 and mxfp4",
            ),
        ] {
            if !valid {
                return Err(invalid(argument, expected, format));
            }
        }
        Ok(())
    }
}

/// How one output of a quantisation differs from the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct OutputOptions {
    /// A rotation along the output's inner dimension, before anything else.
    pub rotation: Option<Hadamard>,
    /// Where the scales lie.
    pub layout: ScaleLayout,
}

impl OutputOptions {
    /// No rotation, scales row-major.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rotation: None,
            layout: ScaleLayout::RowMajor,
        }
    }

    /// Rotated before it is quantised.
    #[must_use]
    pub const fn rotation(mut self, rotation: Hadamard) -> Self {
        self.rotation = Some(rotation);
        self
    }

    /// Scales somewhere else.
    #[must_use]
    pub const fn layout(mut self, layout: ScaleLayout) -> Self {
        self.layout = layout;
        self
    }

    /// Checks the output against a format and its inner dimension.
    ///
    /// # Errors
    /// [`Error::Argument`] for a rotation of another size than 16, 32 or 128 or that does not divide
    /// `inner`, and for a layout that the format's scales do not have.
    pub fn validate(&self, format: Format, inner: usize) -> Result<(), Error> {
        if let Some(rotation) = self.rotation {
            rotation.validate()?;
            if !inner.is_multiple_of(rotation.n) {
                let n = rotation.n;
                let expected = format!("of a block that divides the inner dimension {inner}");
                return Err(invalid("rotation", &expected, n));
            }
        }
        if !self.layout.fits(format) {
            let expected = "row-major or column-major where scales are f32";
            return Err(invalid("layout", expected, self.layout));
        }
        Ok(())
    }
}

string_form!(Rounding, Scaling, ScaleRounding, Hadamard);

/// The one of `all` whose text is `text`.
pub(super) fn one_of<T: Copy + fmt::Display>(
    all: &[T],
    argument: &'static str,
    text: &str,
) -> Result<T, Error> {
    all.iter()
        .copied()
        .find(|candidate| candidate.to_string() == text)
        .ok_or_else(|| {
            let names: Vec<String> = all.iter().map(T::to_string).collect();
            invalid(argument, &format!("one of {}", names.join(", ")), text)
        })
}

/// [`Error::Argument`] of the options.
pub(super) fn invalid(argument: &'static str, expected: &str, got: impl fmt::Display) -> Error {
    Error::argument("quant", argument, expected, got.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Fp8;

    #[test]
    fn text_forms_round_trip() {
        for rounding in [Rounding::Nearest, Rounding::Stochastic { seed: u64::MAX }] {
            assert_eq!(rounding.to_string().parse(), Ok(rounding));
        }
        for scaling in Scaling::ALL {
            assert_eq!(scaling.to_string().parse(), Ok(scaling));
        }
        for rounding in ScaleRounding::ALL {
            assert_eq!(rounding.to_string().parse(), Ok(rounding));
        }
        for n in Hadamard::SIZES {
            let rotation = Hadamard::new(n, 3);
            assert_eq!(rotation.to_string().parse(), Ok(rotation));
        }
        for text in [
            "",
            "stochastic",
            "stochastic:",
            "stochastic:-1",
            "nearest:1",
        ] {
            assert!(text.parse::<Rounding>().is_err(), "{text:?} was accepted");
        }
        for text in [
            "",
            "hadamard",
            "hadamard:16",
            "hadamard:64:1",
            "hadamard:16:1:2",
        ] {
            assert!(text.parse::<Hadamard>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn what_a_format_lacks_is_refused() {
        let row = QuantizeOptions::new(Format::Fp8Row(Fp8::E4m3));
        let mx = QuantizeOptions::new(Format::MxFp4);
        assert!(row.validate().is_ok() && row.power_of_two().validate().is_ok());
        assert!(mx.scale_rounding(ScaleRounding::Ceil).validate().is_ok());
        for options in [
            row.scaling(Scaling::Given),
            row.scale_rounding(ScaleRounding::Ceil),
            mx.power_of_two(),
            mx.scaling(Scaling::Given),
        ] {
            assert!(options.validate().is_err(), "{options:?} was accepted");
        }
        let output = OutputOptions::new();
        let tiled = output.layout(ScaleLayout::Tiled128x4);
        assert!(tiled.validate(mx.format, 5).is_ok());
        assert!(tiled.validate(row.format, 5).is_err());
        let rotated = output.rotation(Hadamard::new(16, 0));
        assert!(rotated.validate(mx.format, 48).is_ok());
        assert!(rotated.validate(mx.format, 40).is_err());
        assert!(
            output
                .rotation(Hadamard::new(64, 0))
                .validate(mx.format, 64)
                .is_err()
        );
    }

    #[test]
    fn the_factor_is_rounded_once() {
        assert_eq!(Hadamard::new(16, 0).factor(), 0.25);
        assert_eq!(Hadamard::new(32, 0).factor().to_bits(), 0x3e35_04f3);
        assert_eq!(Hadamard::new(128, 0).factor().to_bits(), 0x3db5_04f3);
    }
}
