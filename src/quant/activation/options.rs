//! What shapes an activation.

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::text::string_form;

/// Which GELU.
///
/// Written and parsed as `exact` and `tanh`; the same text is its serde form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum GeluKind {
    /// x Phi(x), Phi the normal distribution function.
    #[default]
    Exact,
    /// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
    Tanh,
}

impl GeluKind {
    /// Every kind, for those who test or list them.
    pub const ALL: [Self; 2] = [Self::Exact, Self::Tanh];
}

impl fmt::Display for GeluKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Exact => "exact",
            Self::Tanh => "tanh",
        })
    }
}

impl FromStr for GeluKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        one_of(&Self::ALL, "gelu", text)
    }
}

string_form!(GeluKind);

/// What each scale of Smooth-SwiGLU belongs to.
///
/// Written and parsed as `channel` and `token`; the same text is its serde form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Smoothing {
    /// A channel: the largest |up| of a column, `[F]` scales, as the paper has it. The next linear
    /// layer multiplies its weight's column j with s_j: `w_ij s_j`.
    Channel,
    /// A token: the largest |up| of a row, `[tokens]` scales, as the authors' published program has
    /// it. The next linear layer multiplies row t of its result with s_t.
    Token,
}

impl Smoothing {
    /// Every kind, for those who test or list them.
    pub const ALL: [Self; 2] = [Self::Channel, Self::Token];

    /// How many scales `[tokens, channels]` have.
    #[must_use]
    pub fn scales(self, tokens: usize, channels: usize) -> usize {
        match self {
            Self::Channel => channels,
            Self::Token => tokens,
        }
    }
}

impl fmt::Display for Smoothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Channel => "channel",
            Self::Token => "token",
        })
    }
}

impl FromStr for Smoothing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        one_of(&Self::ALL, "smoothing", text)
    }
}

string_form!(Smoothing);

/// The option that is written so.
fn one_of<T: Copy + fmt::Display>(all: &[T], what: &'static str, text: &str) -> Result<T, Error> {
    let found = all.iter().find(|option| option.to_string() == text);
    found.copied().ok_or_else(|| {
        let names: Vec<String> = all.iter().map(T::to_string).collect();
        Error::argument(
            "activation",
            what,
            format!("one of {}", names.join(", ")),
            format!("{text:?}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_read_back_what_they_write() {
        for kind in GeluKind::ALL {
            assert_eq!(kind.to_string().parse::<GeluKind>().unwrap(), kind);
        }
        for smoothing in Smoothing::ALL {
            assert_eq!(
                smoothing.to_string().parse::<Smoothing>().unwrap(),
                smoothing
            );
        }
        let error = "erf".parse::<GeluKind>().unwrap_err();
        assert!(error.to_string().contains("one of exact, tanh"), "{error}");
        assert!("row".parse::<Smoothing>().is_err());
    }
}
