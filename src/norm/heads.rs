//! What shapes the normalization of attention heads and their rotary embedding.

use std::fmt;
use std::str::FromStr;

use super::options::{check, one_of};
use super::{NormKind, NormOptions};
use crate::Error;
use crate::text::string_form;

/// Which elements of a head turn together.
///
/// Written and parsed as `interleaved` and `half-split`; the same text is its serde form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Pairing {
    /// Elements 2i and 2i + 1 (`RoFormer`, arXiv 2104.09864; GPT-J).
    Interleaved,
    /// Elements i and i + width/2 (GPT-NeoX, Llama in the transformers library).
    HalfSplit,
}

impl Pairing {
    /// Every pairing, for those who test or list them.
    pub const ALL: [Self; 2] = [Self::Interleaved, Self::HalfSplit];

    /// The two elements of pair `i < width / 2`.
    #[must_use]
    pub fn elements(self, i: usize, width: usize) -> (usize, usize) {
        match self {
            Self::Interleaved => (2 * i, 2 * i + 1),
            Self::HalfSplit => (i, i + width / 2),
        }
    }
}

impl fmt::Display for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interleaved => "interleaved",
            Self::HalfSplit => "half-split",
        })
    }
}

impl FromStr for Pairing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        one_of(&Self::ALL, "pairing", text)
    }
}

string_form!(Pairing);

/// A rotary embedding of the first `width` elements of each head; the others stay as they are.
///
/// With (a, b) a pair, and c and s the cosine and sine that the tables have for the token's position
/// and the pair, (a, b) becomes (a c - b s, a s + b c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Rotary {
    /// Which elements turn together.
    pub pairing: Pairing,
    /// How many elements turn: even, 2 to the head's length.
    pub width: usize,
}

impl Rotary {
    /// The first `width` elements in this pairing.
    #[must_use]
    pub fn new(pairing: Pairing, width: usize) -> Self {
        Self { pairing, width }
    }
}

/// A normalization over each head of `[tokens, heads, head_dim]` (QK-norm), then a rotary embedding;
/// either may be absent.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct HeadNormOptions {
    /// The normalization; without one, heads are only turned.
    pub norm: Option<NormOptions>,
    /// The rotary embedding.
    pub rotary: Option<Rotary>,
}

impl HeadNormOptions {
    /// This normalization alone.
    #[must_use]
    pub fn new(norm: NormOptions) -> Self {
        Self {
            norm: Some(norm),
            rotary: None,
        }
    }

    /// A rotary embedding alone.
    #[must_use]
    pub fn rotary_only(rotary: Rotary) -> Self {
        Self {
            norm: None,
            rotary: Some(rotary),
        }
    }

    /// With a rotary embedding after the normalization.
    #[must_use]
    pub fn rotary(mut self, pairing: Pairing, width: usize) -> Self {
        self.rotary = Some(Rotary::new(pairing, width));
        self
    }

    /// Checks the options for heads of this length.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the option that is outside its range.
    pub fn validate(&self, head_dim: usize) -> Result<(), Error> {
        if let Some(norm) = &self.norm {
            norm.validate()?;
        }
        if let Some(rotary) = self.rotary {
            let width = rotary.width;
            check(
                "rotary width",
                "even, at least 2 and at most the head's length",
                width,
                width >= 2 && width.is_multiple_of(2) && width <= head_dim,
            )?;
        }
        check(
            "options",
            "a norm, a rotary embedding, or both",
            "neither",
            self.norm.is_some() || self.rotary.is_some(),
        )
    }
}

impl Default for HeadNormOptions {
    fn default() -> Self {
        Self::new(NormOptions::new(NormKind::Rms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairings_round_trip_and_cover_the_width() {
        for pairing in Pairing::ALL {
            assert_eq!(pairing.to_string().parse(), Ok(pairing));
            let mut seen = [false; 6];
            for i in 0..3 {
                let (a, b) = pairing.elements(i, 6);
                seen[a] = true;
                seen[b] = true;
            }
            assert_eq!(seen, [true; 6]);
        }
        assert!("split".parse::<Pairing>().is_err());
    }

    #[test]
    fn each_option_is_checked() {
        let norm = HeadNormOptions::default();
        assert!(norm.validate(1).is_ok());
        assert!(norm.rotary(Pairing::HalfSplit, 64).validate(64).is_ok());
        for width in [0, 1, 3, 66] {
            assert!(norm.rotary(Pairing::HalfSplit, width).validate(64).is_err());
        }
        let bad_norm = HeadNormOptions::new(NormOptions::rms().eps(-1.0));
        assert!(bad_norm.validate(64).is_err());
        let nothing = HeadNormOptions { norm: None, ..norm };
        assert!(nothing.validate(64).is_err());
    }
}
