//! What shapes a softmax over rows.

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::norm::options::{check, invalid, one_of};
use crate::text::string_form;

/// The function from scores to shares.
///
/// Written and parsed as `softmax`, `log-softmax` and `stablemax`; the same text is its serde form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum SoftmaxKind {
    /// `p_j = exp(z_j) / sum_k exp(z_k)`.
    Softmax,
    /// log p of `Softmax`.
    LogSoftmax,
    /// `p_j = s(z_j) / sum_k s(z_k)` with s(z) = z + 1 for z >= 0 and 1 / (1 - z) below
    /// (arXiv 2501.04697).
    StableMax,
}

impl SoftmaxKind {
    /// Every kind, for those who test or list them.
    pub const ALL: [Self; 3] = [Self::Softmax, Self::LogSoftmax, Self::StableMax];
}

impl fmt::Display for SoftmaxKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Softmax => "softmax",
            Self::LogSoftmax => "log-softmax",
            Self::StableMax => "stablemax",
        })
    }
}

impl FromStr for SoftmaxKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        one_of(&Self::ALL, "kind", text)
    }
}

/// Which keys a query sees, in blocks of `[queries, keys]`: query q those with key <= q + offset.
///
/// Written and parsed as `causal:OFFSET` and `causal:end`; the same text is its serde form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Causal {
    /// This offset; 0 aligns the first query with the first key.
    Offset(i64),
    /// Offset keys - queries: the last query sees every key.
    End,
}

impl Causal {
    /// The offset in a block of this shape.
    #[must_use]
    pub fn offset(self, queries: usize, keys: usize) -> i64 {
        match self {
            Self::Offset(offset) => offset,
            // Lengths of slices are below 2^63.
            Self::End => keys as i64 - queries as i64,
        }
    }
}

impl fmt::Display for Causal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offset(offset) => write!(f, "causal:{offset}"),
            Self::End => f.write_str("causal:end"),
        }
    }
}

impl FromStr for Causal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.strip_prefix("causal:") {
            Some("end") => Some(Self::End),
            Some(offset) => offset.parse().ok().map(Self::Offset),
            None => None,
        }
        .ok_or_else(|| invalid("causal", "causal:OFFSET or causal:end", text))
    }
}

string_form!(SoftmaxKind, Causal);

/// A softmax over the rows of `[.., queries, keys]`, of scores z = scale x.
///
/// A query sees the keys that `causal` leaves it and, where lengths come with the call, those below
/// its batch's length.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct SoftmaxOptions {
    /// The function.
    pub kind: SoftmaxKind,
    /// What x is multiplied by, > 0; 1 by default.
    pub scale: f32,
    /// The causal mask; none by default.
    pub causal: Option<Causal>,
}

impl SoftmaxOptions {
    /// Scale 1 and no mask.
    #[must_use]
    pub fn new(kind: SoftmaxKind) -> Self {
        Self {
            kind,
            scale: 1.0,
            causal: None,
        }
    }

    /// What x is multiplied by.
    #[must_use]
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = scale;
        self
    }

    /// A causal mask.
    #[must_use]
    pub fn causal(mut self, causal: Causal) -> Self {
        self.causal = Some(causal);
        self
    }

    /// Checks the scale.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is not a finite number > 0.
    pub fn validate(&self) -> Result<(), Error> {
        check(
            "scale",
            "a finite number > 0",
            self.scale,
            self.scale.is_finite() && self.scale > 0.0,
        )
    }
}

impl Default for SoftmaxOptions {
    fn default() -> Self {
        Self::new(SoftmaxKind::Softmax)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        for kind in SoftmaxKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for causal in [Causal::Offset(0), Causal::Offset(-7), Causal::End] {
            assert_eq!(causal.to_string().parse(), Ok(causal));
        }
        for text in ["", "causal", "causal:", "causal:x", "causal:1.5", "end"] {
            assert!(text.parse::<Causal>().is_err(), "{text:?} was accepted");
        }
        assert_eq!(Causal::End.offset(3, 5), 2);
        assert_eq!(Causal::End.offset(5, 3), -2);
    }

    #[test]
    fn the_scale_is_checked() {
        let options = SoftmaxOptions::default();
        assert!(options.validate().is_ok());
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(options.scale(scale).validate().is_err());
        }
    }
}
