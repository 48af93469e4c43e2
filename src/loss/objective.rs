//! The objective family: which function of the target's probability is minimised.

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::text::string_form;

/// The constant that keeps [`Objective::Deft`]'s division finite, as its authors chose it.
pub const DEFT_OFFSET: f32 = 1e-6;

/// A function f(p) of the target's probability p = softmax(z)_y, to be minimised.
///
/// Its gradient in the logits is g * (p_j - [j = y]) with g = -p f'(p); both are functions of
/// lp = log p alone (and of sum p^2 for [`Objective::Deft`]). In the table, sg\[x\] is x without a
/// gradient.
///
/// | member | f | g |
/// |---|---|---|
/// | `Nll` | -lp | 1 |
/// | `Linear` | 1 - p | p |
/// | `Power(a)` | (1 - p^a) / a | p^a |
/// | `Dft` | -sg\[p\] lp | p |
/// | `Focal(gamma)` | -(1-p)^gamma lp | (1-p)^gamma - gamma p (1-p)^(gamma-1) lp |
/// | `Poly1(epsilon)` | -lp + epsilon (1 - p) | 1 + epsilon p |
/// | `Gce(q)` | (1 - p^q) / q | p^q |
/// | `Deft` | (1 - p^a) / (a + 1e-6), a = sg\[sum_j p_j^2\] | a / (a + 1e-6) p^a |
///
/// Written and parsed as `nll`, `linear`, `power:0.5`, `dft`, `focal:2`, `poly1:1`, `gce:0.7`,
/// `deft`; the same text is its serde form.
///
/// ```
/// use evenkeel::loss::Objective;
///
/// let objective: Objective = "power:0.5".parse()?;
/// assert_eq!(objective, Objective::Power(0.5));
/// assert_eq!(objective.to_string(), "power:0.5");
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Objective {
    /// Cross entropy, -log p.
    Nll,
    /// 1 - p: the paper's `p` ("Beyond Log Likelihood", arXiv 2510.00526).
    Linear,
    /// (1 - p^a)/a for any finite a ("Beyond Log Likelihood", its `GeneralFamily`): a = 0 is
    /// [`Objective::Nll`], a = 1 is [`Objective::Linear`], large a leans on what the model already
    /// believes, negative a on what it does not. Values beyond the largest finite `f32`, which
    /// only a negative a reaches, are held there and reported in the status word.
    Power(f32),
    /// -sg\[p\] log p: Dynamic Fine-Tuning (arXiv 2508.05629), the gradient of `Linear`.
    Dft,
    /// -(1 - p)^gamma log p with gamma >= 0: focal loss (arXiv 1708.02002, eq. 4).
    Focal(f32),
    /// -log p + epsilon (1 - p): `PolyLoss` with its first term changed (arXiv 2204.12511, eq. 5).
    Poly1(f32),
    /// (1 - p^q)/q with 0 < q <= 1: generalised cross entropy (arXiv 1805.07836, eq. 6).
    Gce(f32),
    /// (1 - p^a)/(a + 1e-6) with a = sg\[sum_j p_j^2\]: the exponent follows the confidence of
    /// the whole distribution (DEFT).
    Deft,
}

impl Objective {
    /// Counts only tokens whose target has p >= `tau`.
    #[must_use]
    pub fn above(self, tau: f32) -> Criterion {
        Criterion {
            objective: self,
            threshold: Some(Threshold::Above(tau)),
        }
    }

    /// Counts only tokens whose target has p <= `tau`.
    #[must_use]
    pub fn below(self, tau: f32) -> Criterion {
        Criterion {
            objective: self,
            threshold: Some(Threshold::Below(tau)),
        }
    }

    /// Checks the parameter.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is not finite, when gamma of `Focal` is negative, or when q of
    /// `Gce` is outside (0, 1].
    pub fn validate(&self) -> Result<(), Error> {
        let (argument, expected, parameter, valid) = match *self {
            Self::Power(a) => ("power exponent", "a finite number", a, a.is_finite()),
            Self::Focal(gamma) => (
                "focal gamma",
                "a finite number >= 0",
                gamma,
                gamma.is_finite() && gamma >= 0.0,
            ),
            Self::Poly1(epsilon) => (
                "poly1 epsilon",
                "a finite number",
                epsilon,
                epsilon.is_finite(),
            ),
            Self::Gce(q) => ("gce q", "a number in (0, 1]", q, q > 0.0 && q <= 1.0),
            Self::Nll | Self::Linear | Self::Dft | Self::Deft => return Ok(()),
        };
        check(argument, expected, parameter, valid)
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nll => f.write_str("nll"),
            Self::Linear => f.write_str("linear"),
            Self::Power(a) => write!(f, "power:{a}"),
            Self::Dft => f.write_str("dft"),
            Self::Focal(gamma) => write!(f, "focal:{gamma}"),
            Self::Poly1(epsilon) => write!(f, "poly1:{epsilon}"),
            Self::Gce(q) => write!(f, "gce:{q}"),
            Self::Deft => f.write_str("deft"),
        }
    }
}

impl FromStr for Objective {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, parameter) = match text.split_once(':') {
            Some((name, parameter)) => (name, Some(parameter)),
            None => (text, None),
        };
        let number = || parameter.and_then(|p| p.parse::<f32>().ok());
        let objective = match (name, parameter) {
            ("nll", None) => Some(Self::Nll),
            ("linear", None) => Some(Self::Linear),
            ("dft", None) => Some(Self::Dft),
            ("deft", None) => Some(Self::Deft),
            ("power", _) => number().map(Self::Power),
            ("focal", _) => number().map(Self::Focal),
            ("poly1", _) => number().map(Self::Poly1),
            ("gce", _) => number().map(Self::Gce),
            _ => None,
        };
        let objective = objective.ok_or_else(|| {
            invalid(
                "objective",
                "nll, linear, power:A, dft, focal:GAMMA, poly1:EPSILON, gce:Q or deft",
                &format!("{text:?}"),
            )
        })?;
        objective.validate()?;
        Ok(objective)
    }
}

/// A hard mask on the target's probability: a token outside it has loss 0 and gradient 0.
///
/// On [`Objective::Linear`] and [`Objective::Nll`] these are `OnlyTopP`, `OnlyBottomP`,
/// `OnlyTopLogP` and `OnlyBottomLogP` of "Beyond Log Likelihood" (arXiv 2510.00526).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// Keeps tokens with p >= tau.
    Above(f32),
    /// Keeps tokens with p <= tau.
    Below(f32),
}

/// An [`Objective`] with an optional [`Threshold`].
///
/// Written and parsed as the objective, or as `threshold:above:TAU:OBJECTIVE` and
/// `threshold:below:TAU:OBJECTIVE`; the same text is its serde form.
///
/// ```
/// use evenkeel::loss::{Criterion, Objective};
///
/// let criterion: Criterion = "threshold:above:0.1:nll".parse()?;
/// assert_eq!(criterion, Objective::Nll.above(0.1));
/// assert_eq!(criterion.to_string(), "threshold:above:0.1:nll");
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct Criterion {
    /// The function minimised.
    pub objective: Objective,
    /// The tokens it counts; all of them without one.
    pub threshold: Option<Threshold>,
}

impl Criterion {
    /// Checks the objective's parameter and the threshold.
    ///
    /// # Errors
    /// [`Error::Argument`] as [`Objective::validate`] gives it, or when the threshold is outside
    /// [0, 1].
    pub fn validate(&self) -> Result<(), Error> {
        self.objective.validate()?;
        match self.threshold {
            Some(Threshold::Above(tau) | Threshold::Below(tau)) => check(
                "threshold",
                "a probability in [0, 1]",
                tau,
                (0.0..=1.0).contains(&tau),
            ),
            None => Ok(()),
        }
    }
}

impl From<Objective> for Criterion {
    fn from(objective: Objective) -> Self {
        Self {
            objective,
            threshold: None,
        }
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let objective = self.objective;
        match self.threshold {
            None => write!(f, "{objective}"),
            Some(Threshold::Above(tau)) => write!(f, "threshold:above:{tau}:{objective}"),
            Some(Threshold::Below(tau)) => write!(f, "threshold:below:{tau}:{objective}"),
        }
    }
}

impl FromStr for Criterion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some(rest) = text.strip_prefix("threshold:") else {
            return Ok(text.parse::<Objective>()?.into());
        };
        let mut parts = rest.splitn(3, ':');
        let criterion = match (parts.next(), parts.next(), parts.next()) {
            (Some(side), Some(tau), Some(objective)) => {
                let objective = objective.parse::<Objective>()?;
                match (side, tau.parse::<f32>()) {
                    ("above", Ok(tau)) => Some(objective.above(tau)),
                    ("below", Ok(tau)) => Some(objective.below(tau)),
                    _ => None,
                }
            }
            _ => None,
        };
        let criterion = criterion.ok_or_else(|| {
            invalid(
                "criterion",
                "threshold:above:TAU:OBJECTIVE or threshold:below:TAU:OBJECTIVE",
                &format!("{text:?}"),
            )
        })?;
        criterion.validate()?;
        Ok(criterion)
    }
}

string_form!(Objective, Criterion);

/// [`Error::Argument`] of the loss options unless `valid`.
pub(super) fn check(
    argument: &'static str,
    expected: &'static str,
    got: f32,
    valid: bool,
) -> Result<(), Error> {
    if valid {
        Ok(())
    } else {
        Err(invalid(argument, expected, &got.to_string()))
    }
}

pub(super) fn invalid(argument: &'static str, expected: &str, got: &str) -> Error {
    Error::Argument {
        op: "SoftmaxLoss",
        argument,
        expected: expected.to_string(),
        got: got.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        for text in [
            "nll",
            "linear",
            "power:0.5",
            "power:-0.5",
            "power:0",
            "power:10",
            "dft",
            "focal:2",
            "focal:0.5",
            "poly1:-1",
            "gce:0.7",
            "deft",
            "threshold:above:0.1:nll",
            "threshold:below:0.9:power:-1.5",
        ] {
            let criterion: Criterion = text.parse().unwrap();
            assert_eq!(criterion.to_string(), text);
        }
        assert_eq!("power:-0.5".parse(), Ok(Objective::Power(-0.5)));
        assert_eq!("nll".parse(), Ok(Criterion::from(Objective::Nll)));
    }

    #[test]
    fn bad_text_and_parameters_are_refused() {
        for text in [
            "",
            "NLL",
            "nll:1",
            "power",
            "power:",
            "power:x",
            "power:nan",
            "power:inf",
            "focal:-1",
            "gce:0",
            "gce:1.5",
            "gce:nan",
            "poly1:inf",
            "threshold:above:0.1",
            "threshold:under:0.1:nll",
            "threshold:above:2:nll",
            "threshold:above:nan:nll",
            "threshold:above:0.1:threshold:below:0.9:nll",
        ] {
            assert!(text.parse::<Criterion>().is_err(), "{text:?} was accepted");
        }
        assert!(Objective::Power(f32::NAN).validate().is_err());
        assert!(Objective::Nll.above(-0.1).validate().is_err());
    }
}
