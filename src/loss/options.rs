//! What shapes the loss of a batch beside its criterion.

use std::fmt;
use std::str::FromStr;

use super::objective::{Criterion, Objective, check, invalid};
use crate::Error;
use crate::text::string_form;

/// What a mean divides by. Zero tokens give loss 0 and gradient 0, never NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Denominator {
    /// The number of targets that are not the ignored one.
    Valid,
    /// The number of tokens that survive the threshold ("Beyond Log Likelihood" divides so). It is
    /// known only after the pass, so forward_backward writes the gradient unscaled and returns the
    /// scale to apply.
    Kept,
    /// A count given with each call, on the host or on the device: the tokens of all micro-batches
    /// and ranks, under gradient accumulation or data parallelism.
    Tokens,
    /// First the mean over each sequence's valid tokens, then over the sequences that have any;
    /// the offsets of the sequences are given with each call.
    Sequence,
}

/// How the losses of the tokens become the loss of the batch.
///
/// Written and parsed as `none`, `sum`, `mean:valid`, `mean:kept`, `mean:tokens` and
/// `mean:sequence`; the same text is its serde form.
///
/// ```
/// use evenkeel::loss::{Denominator, Reduction};
///
/// assert_eq!("mean:kept".parse::<Reduction>()?, Reduction::Mean(Denominator::Kept));
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Reduction {
    /// One loss per token, each with an upstream gradient of its own.
    None,
    /// The sum over the tokens.
    Sum,
    /// The sum over the tokens, divided.
    Mean(Denominator),
}

impl Reduction {
    /// Every reduction, for those who test or list them.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Sum,
        Self::Mean(Denominator::Valid),
        Self::Mean(Denominator::Kept),
        Self::Mean(Denominator::Tokens),
        Self::Mean(Denominator::Sequence),
    ];
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Sum => "sum",
            Self::Mean(Denominator::Valid) => "mean:valid",
            Self::Mean(Denominator::Kept) => "mean:kept",
            Self::Mean(Denominator::Tokens) => "mean:tokens",
            Self::Mean(Denominator::Sequence) => "mean:sequence",
        })
    }
}

impl FromStr for Reduction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|reduction| reduction.to_string() == text)
            .ok_or_else(|| {
                invalid(
                    "reduction",
                    "none, sum, mean:valid, mean:kept, mean:tokens or mean:sequence",
                    &format!("{text:?}"),
                )
            })
    }
}

string_form!(Reduction);

/// Everything that shapes the loss of a batch, shared by the operation and the reference.
///
/// With raw logits x of one token, the transforms come in this order: softcap
/// c tanh(x / c), temperature (divide by T), class mask. The softmax, the statistics and every
/// term but the last use the transformed logits z; the last uses x. The loss of a token with
/// weight w, over the V' classes that are not masked, is
///
/// ```text
/// w ((1 - epsilon) f(p) + epsilon/V' sum_j -log p_j) + lambda_z lse^2 - eta H + lambda_s/2 sum_j x_j^2
/// ```
///
/// and 0 for a token that is ignored or that the threshold drops.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct LossOptions {
    /// f(p) and the tokens it counts.
    pub criterion: Criterion,
    /// c of the softcap c tanh(x / c), > 0; none by default.
    pub softcap: Option<f32>,
    /// T, by which the (capped) logits are divided, > 0 and not so small that 1/T is infinite in
    /// f32; 1 by default.
    pub temperature: f32,
    /// lambda_z of lambda_z lse^2 (`PaLM`'s auxiliary loss, arXiv 2204.02311, section 5), >= 0.
    pub z_loss: f32,
    /// epsilon in \[0, 1\] of label smoothing, in `PyTorch`'s convention: the uniform part includes
    /// the target.
    pub label_smoothing: f32,
    /// eta of -eta H: positive rewards entropy, negative punishes it.
    pub entropy: f32,
    /// lambda_s of lambda_s/2 sum_j x_j^2 (spectral decoupling, arXiv 2011.09468), >= 0.
    pub spectral_decoupling: f32,
    /// The target of tokens that take no part; -100 by default. It may be a class of the
    /// vocabulary, which then is never a target.
    pub ignore_index: i64,
    /// From the tokens' losses to the batch's; the mean over valid tokens by default.
    pub reduction: Reduction,
}

impl LossOptions {
    /// The criterion alone, averaged over the tokens whose target is not -100.
    #[must_use]
    pub fn new(criterion: impl Into<Criterion>) -> Self {
        Self {
            criterion: criterion.into(),
            softcap: None,
            temperature: 1.0,
            z_loss: 0.0,
            label_smoothing: 0.0,
            entropy: 0.0,
            spectral_decoupling: 0.0,
            ignore_index: -100,
            reduction: Reduction::Mean(Denominator::Valid),
        }
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the option that is outside its range.
    pub fn validate(&self) -> Result<(), Error> {
        self.criterion.validate()?;
        if let Some(c) = self.softcap {
            check(
                "softcap",
                "a finite number > 0",
                c,
                c.is_finite() && c > 0.0,
            )?;
        }
        let temperature = self.temperature;
        // Kernels multiply by the reciprocal, which is infinite for the smallest subnormal numbers.
        check(
            "temperature",
            "a finite number > 0 with a finite reciprocal",
            temperature,
            temperature.is_finite() && temperature > 0.0 && temperature.recip().is_finite(),
        )?;
        for (argument, coefficient) in [
            ("z_loss", self.z_loss),
            ("spectral_decoupling", self.spectral_decoupling),
        ] {
            check(
                argument,
                "a finite number >= 0",
                coefficient,
                coefficient.is_finite() && coefficient >= 0.0,
            )?;
        }
        check(
            "label_smoothing",
            "a number in [0, 1]",
            self.label_smoothing,
            (0.0..=1.0).contains(&self.label_smoothing),
        )?;
        check(
            "entropy",
            "a finite number",
            self.entropy,
            self.entropy.is_finite(),
        )
    }
}

impl Default for LossOptions {
    /// Cross entropy, averaged over the tokens whose target is not -100.
    fn default() -> Self {
        Self::new(Objective::Nll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "serde")]
    #[test]
    fn serde_goes_through_the_text_forms() {
        use serde::Deserialize;
        use serde::de::IntoDeserializer;
        use serde::de::value::{Error, MapDeserializer, StrDeserializer};

        let text: StrDeserializer<Error> = "threshold:below:0.5:focal:2".into_deserializer();
        assert_eq!(
            Criterion::deserialize(text),
            Ok(Objective::Focal(2.0).below(0.5))
        );
        let text: StrDeserializer<Error> = "focal:-2".into_deserializer();
        assert!(Criterion::deserialize(text).is_err());

        let entries = [("criterion", "dft"), ("reduction", "mean:kept")];
        let map = MapDeserializer::<_, Error>::new(entries.into_iter());
        let mut expected = LossOptions::new(Objective::Dft);
        expected.reduction = Reduction::Mean(Denominator::Kept);
        assert_eq!(LossOptions::deserialize(map), Ok(expected));
        let map = MapDeserializer::<_, Error>::new([("alpha", "1")].into_iter());
        assert!(LossOptions::deserialize(map).is_err());
    }

    #[test]
    fn reductions_round_trip() {
        for reduction in Reduction::ALL {
            assert_eq!(reduction.to_string().parse(), Ok(reduction));
        }
        assert!("mean".parse::<Reduction>().is_err());
    }

    #[test]
    fn each_option_is_checked() {
        let valid = LossOptions::default();
        assert!(valid.validate().is_ok());
        let broken: [fn(&mut LossOptions); 12] = [
            |o| o.criterion = Objective::Power(f32::NAN).into(),
            |o| o.softcap = Some(0.0),
            |o| o.softcap = Some(f32::INFINITY),
            |o| o.temperature = 0.0,
            |o| o.temperature = f32::NAN,
            |o| o.temperature = f32::from_bits(1),
            |o| o.z_loss = -1.0,
            |o| o.z_loss = f32::NAN,
            |o| o.label_smoothing = 1.5,
            |o| o.label_smoothing = f32::NAN,
            |o| o.entropy = f32::INFINITY,
            |o| o.spectral_decoupling = -1e-3,
        ];
        for change in broken {
            let mut options = valid;
            change(&mut options);
            assert!(options.validate().is_err(), "{options:?} was accepted");
        }
    }
}
