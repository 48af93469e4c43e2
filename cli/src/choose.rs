//! Words of the command line.

use std::fmt;
use std::str::FromStr;

use evenkeel::{DType, DeviceKind};

/// The operation families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Losses over a softmax.
    Loss,
    /// Normalizations and other operations on rows.
    Norm,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Loss, Self::Norm];
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "loss",
            Self::Norm => "norm",
        })
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|op| op.to_string() == text)
            .ok_or_else(|| "the operation families here are: loss, norm".into())
    }
}

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub DeviceKind);

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [DeviceKind::Cpu, DeviceKind::Emulated, DeviceKind::Cuda]
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .map(Self)
            .ok_or_else(|| "the devices are: cpu, emulated, cuda".into())
    }
}

/// Tokens and vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows.
    pub tokens: usize,
    /// Classes.
    pub vocab: usize,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split_once('x')
            .map(|(tokens, vocab)| (tokens.parse(), vocab.parse()));
        match parts {
            // Their product fits 64 bits many times over; whether memory holds it is the device's word.
            Some((Ok(tokens), Ok(vocab)))
                if (1..=1 << 24).contains(&tokens) && (1..=1 << 24).contains(&vocab) =>
            {
                Ok(Self { tokens, vocab })
            }
            _ => Err("a shape is TOKENSxVOCAB, both from 1 to 16777216, as 8192x128256".into()),
        }
    }
}

/// A type of logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Float(pub DType);

impl FromStr for Float {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        crate::loss::cases::LOGITS
            .into_iter()
            .find(|dtype| dtype.name() == text)
            .map(Self)
            .ok_or_else(|| "the types of logits are: bf16, f16, f32".into())
    }
}

/// A share, written as `5%` or `0.05`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(pub f64);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = match text.strip_suffix('%') {
            Some(number) => (number, 0.01),
            None => (text, 1.0),
        };
        match number.trim().parse::<f64>() {
            Ok(value) if value.is_finite() && value >= 0.0 => Ok(Self(value * unit)),
            _ => Err("a share is a number >= 0, as 5% or 0.05".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_others_refused() {
        assert_eq!(
            "8192x128256".parse(),
            Ok(Shape {
                tokens: 8192,
                vocab: 128_256
            })
        );
        for text in [
            "",
            "8192",
            "x",
            "0x5",
            "5x0",
            "-1x5",
            "99999999999x2",
            "axb",
            "2x3x4",
        ] {
            assert!(text.parse::<Shape>().is_err(), "{text}");
        }
        assert_eq!("5%".parse(), Ok(Percent(0.05)));
        assert_eq!("0.1".parse(), Ok(Percent(0.1)));
        for text in ["", "%", "-5%", "nan", "inf%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
        for op in Op::ALL {
            assert_eq!(op.to_string().parse(), Ok(op));
        }
        assert_eq!("cuda".parse(), Ok(Kind(DeviceKind::Cuda)));
        assert!(
            "gpu".parse::<Kind>().is_err()
                && "f64".parse::<Float>().is_err()
                && "x".parse::<Op>().is_err()
        );
    }
}
