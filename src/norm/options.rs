//! What shapes a normalization.

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::text::string_form;

/// eps of Scale-Distribution Decoupling, as its authors chose it (arXiv 2502.15499).
pub const SDD_EPS: f32 = 1e-6;

/// What a row is divided by, and whether its mean is taken off first.
///
/// Written and parsed as `rms` and `layer`; the same text is its serde form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum NormKind {
    /// x / sqrt(mean(x^2) + eps) (arXiv 1910.07467).
    Rms,
    /// (x - mean(x)) / sqrt(var(x) + eps), the variance over D and not D - 1 (arXiv 1607.06450).
    Layer,
}

impl NormKind {
    /// Every kind, for those who test or list them.
    pub const ALL: [Self; 2] = [Self::Rms, Self::Layer];
}

impl fmt::Display for NormKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rms => "rms",
            Self::Layer => "layer",
        })
    }
}

impl FromStr for NormKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        one_of(&Self::ALL, "kind", text)
    }
}

/// `RmsNorm` or `LayerNorm` of rows x of length D:
///
/// ```text
/// rms    y = x r (gamma + offset) + beta             r = 1 / sqrt(mean(x^2) + eps)
/// layer  y = (x - mean) r (gamma + offset) + beta    r = 1 / sqrt(mean((x - mean)^2) + eps)
/// ```
///
/// with offset 1 for a zero-centred gamma and 0 otherwise. Gamma and beta come with each call;
/// without them y has no such factor (an absent gamma is 1, whatever the offset) or term.
///
/// Written and parsed as `KIND`, `KIND:EPS` or `KIND:EPS:zero-centred`; the same text is its serde
/// form.
///
/// ```
/// use evenkeel::norm::{NormKind, NormOptions};
///
/// let gemma: NormOptions = "rms:1e-6:zero-centred".parse()?;
/// assert_eq!(gemma, NormOptions::rms().zero_centred());
/// assert_eq!("layer".parse::<NormOptions>()?.kind, NormKind::Layer);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub struct NormOptions {
    /// What a row is divided by.
    pub kind: NormKind,
    /// Added to the mean square or variance, >= 0. With 0, a row without spread has no result: it
    /// becomes NaN and the status says so.
    pub eps: f32,
    /// Whether gamma is stored less 1 (Gemma).
    pub zero_centred: bool,
}

impl NormOptions {
    /// The kind's usual eps: 1e-6 for `Rms`, 1e-5 for `Layer`; gamma as it is.
    #[must_use]
    pub fn new(kind: NormKind) -> Self {
        Self {
            kind,
            eps: match kind {
                NormKind::Rms => 1e-6,
                NormKind::Layer => 1e-5,
            },
            zero_centred: false,
        }
    }

    /// `RmsNorm`.
    #[must_use]
    pub fn rms() -> Self {
        Self::new(NormKind::Rms)
    }

    /// `LayerNorm`.
    #[must_use]
    pub fn layer() -> Self {
        Self::new(NormKind::Layer)
    }

    /// Another eps.
    #[must_use]
    pub fn eps(mut self, eps: f32) -> Self {
        self.eps = eps;
        self
    }

    /// Gamma stored less 1.
    #[must_use]
    pub fn zero_centred(mut self) -> Self {
        self.zero_centred = true;
        self
    }

    /// What is added to gamma: 1 if it is zero-centred, else 0.
    #[must_use]
    pub fn gamma_offset(&self) -> f32 {
        if self.zero_centred { 1.0 } else { 0.0 }
    }

    /// Checks eps.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is negative or not finite.
    pub fn validate(&self) -> Result<(), Error> {
        check(
            "eps",
            "a finite number >= 0",
            self.eps,
            self.eps.is_finite() && self.eps >= 0.0,
        )
    }
}

impl fmt::Display for NormOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.zero_centred {
            ":zero-centred"
        } else {
            ""
        };
        write!(f, "{}:{:e}{end}", self.kind, self.eps)
    }
}

impl FromStr for NormOptions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split(':');
        let kind = parts.next().and_then(|kind| kind.parse().ok());
        let options = kind.map(Self::new);
        let options = match (options, parts.next(), parts.next(), parts.next()) {
            (Some(options), None, None, None) => Some(options),
            (Some(options), Some(eps), None, None) => eps.parse().ok().map(|eps| options.eps(eps)),
            (Some(options), Some(eps), Some("zero-centred"), None) => {
                eps.parse().ok().map(|eps| options.eps(eps).zero_centred())
            }
            _ => None,
        };
        let options = options.ok_or_else(|| {
            invalid(
                "norm",
                "rms or layer, with :EPS and :zero-centred after it",
                text,
            )
        })?;
        options.validate()?;
        Ok(options)
    }
}

string_form!(NormKind, NormOptions);

/// The largest singular value by power iteration, for sigmaReparam (arXiv 2303.06296).
///
/// For a weight W of `[m, n]` and vectors u of n and v of m that the caller keeps from call to call,
/// each step is v = W u / |W u|, u = `W^T` v / |`W^T` v|; then sigma = `v^T` W u and
/// W^ = (gamma / sigma) W.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct SpectralNormOptions {
    /// Steps of each call, 1 by default as its authors have it in training; 0 leaves u and v as
    /// they are, for evaluation.
    pub steps: u32,
}

impl SpectralNormOptions {
    /// So many steps a call.
    #[must_use]
    pub fn new(steps: u32) -> Self {
        Self { steps }
    }
}

impl Default for SpectralNormOptions {
    fn default() -> Self {
        Self::new(1)
    }
}

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

/// [`Error::Argument`] of the options unless `valid`.
pub(super) fn check(
    argument: &'static str,
    expected: &'static str,
    got: impl fmt::Display,
    valid: bool,
) -> Result<(), Error> {
    if valid {
        Ok(())
    } else {
        Err(invalid(argument, expected, &got.to_string()))
    }
}

pub(super) fn invalid(argument: &'static str, expected: &str, got: &str) -> Error {
    Error::argument("norm", argument, expected, got)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        for kind in NormKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            for options in [
                NormOptions::new(kind),
                NormOptions::new(kind).eps(0.0),
                NormOptions::new(kind).eps(3.1e-5).zero_centred(),
            ] {
                assert_eq!(options.to_string().parse(), Ok(options));
            }
        }
        assert_eq!("rms".parse(), Ok(NormOptions::rms()));
        assert_eq!(NormOptions::layer().to_string(), "layer:1e-5");
    }

    #[test]
    fn bad_text_and_eps_are_refused() {
        for text in [
            "",
            "RMS",
            "rms:",
            "rms:x",
            "rms:-1e-6",
            "rms:nan",
            "rms:inf",
            "rms:zero-centred",
            "rms:1e-6:zero",
            "rms:1e-6:zero-centred:x",
        ] {
            assert!(
                text.parse::<NormOptions>().is_err(),
                "{text:?} was accepted"
            );
        }
        assert!(NormOptions::rms().eps(f32::NAN).validate().is_err());
    }
}
