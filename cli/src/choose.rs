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
    /// Low-bit formats.
    Quant,
    /// Products of scaled operands.
    Matmul,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Loss, Self::Norm, Self::Quant, Self::Matmul];
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "loss",
            Self::Norm => "norm",
            Self::Quant => "quant",
            Self::Matmul => "matmul",
        })
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|op| op.to_string() == text)
            .ok_or_else(|| "the operation families here are: loss, norm, quant, matmul".into())
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

/// The size of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A matrix.
    Rows {
        /// Rows.
        tokens: usize,
        /// Classes, or columns.
        width: usize,
    },
    /// Attention heads.
    Heads {
        /// Tokens.
        tokens: usize,
        /// Heads of a token.
        heads: usize,
        /// Elements of a head.
        head_dim: usize,
    },
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Their product fits 64 bits; whether memory holds it is the device's word.
        let size = |part: &str| {
            let size = part.parse().ok()?;
            (1..=1_usize << 24).contains(&size).then_some(size)
        };
        let heads_fit = |heads: usize, head_dim: usize| heads.max(head_dim) <= 1 << 16;
        let sizes: Option<Vec<usize>> = text.split('x').map(size).collect();
        match sizes.as_deref() {
            Some(&[tokens, width]) => Ok(Self::Rows { tokens, width }),
            Some(&[tokens, heads, head_dim]) if heads_fit(heads, head_dim) => Ok(Self::Heads {
                tokens,
                heads,
                head_dim,
            }),
            _ => Err(
                "a shape is TOKENSxVOCAB or TOKENSxWIDTH, both from 1 to 16777216, as 8192x128256, or \
                 TOKENSxHEADSxHEAD_DIM, the last two to 65536, as 8192x32x128"
                    .into(),
            ),
        }
    }
}

/// A type of logits or of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Float(pub DType);

impl FromStr for Float {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        crate::loss::cases::LOGITS
            .into_iter()
            .find(|dtype| dtype.name() == text)
            .map(Self)
            .ok_or_else(|| "the types are: bf16, f16, f32".into())
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
            Ok(Shape::Rows {
                tokens: 8192,
                width: 128_256
            })
        );
        assert_eq!(
            "8192x32x128".parse(),
            Ok(Shape::Heads {
                tokens: 8192,
                heads: 32,
                head_dim: 128
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
            "2x3x",
            "2x99999x4",
            "2x3x4x5",
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
