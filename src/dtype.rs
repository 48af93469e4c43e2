//! Element types.

pub(crate) mod low_bit;

use std::{fmt, str::FromStr};

use bytemuck::Pod;
use half::{bf16, f16};

use crate::Error;

/// The type of a tensor's elements.
///
/// ```
/// use evenkeel::DType;
/// assert_eq!(DType::Bf16.size(), 2);
/// assert_eq!("bf16".parse::<DType>()?, DType::Bf16);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float: 5 bits of exponent, 10 of fraction.
    F16,
    /// 16-bit float with the range of `F32`: 8 bits of exponent, 7 of fraction.
    Bf16,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned byte.
    U8,
    /// 64-bit float.
    F64,
    /// 8-bit float: 4 bits of exponent, 3 of fraction ([`E4m3`](crate::E4m3)).
    E4m3,
    /// 8-bit float: 5 bits of exponent, 2 of fraction ([`E5m2`](crate::E5m2)).
    E5m2,
    /// A power of two in a byte ([`E8m0`](crate::E8m0)).
    E8m0,
    /// A byte of two 4-bit floats ([`E2m1x2`](crate::E2m1x2)). Shapes count bytes.
    E2m1x2,
}

impl DType {
    /// Every type, for tables and tests.
    pub const ALL: [DType; 12] = [
        DType::F32,
        DType::F16,
        DType::Bf16,
        DType::I64,
        DType::I32,
        DType::U32,
        DType::U8,
        DType::F64,
        DType::E4m3,
        DType::E5m2,
        DType::E8m0,
        DType::E2m1x2,
    ];

    /// Bytes per element, which is also its alignment.
    pub const fn size(self) -> usize {
        match self {
            DType::U8 | DType::E4m3 | DType::E5m2 | DType::E8m0 | DType::E2m1x2 => 1,
            DType::F16 | DType::Bf16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 => 8,
        }
    }

    /// The type's name, as it is parsed and printed.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::U8 => "u8",
            DType::F64 => "f64",
            DType::E4m3 => "e4m3",
            DType::E5m2 => "e5m2",
            DType::E8m0 => "e8m0",
            DType::E2m1x2 => "e2m1x2",
        }
    }

    /// Whether the type is a floating-point type of 16 bits or more.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::Bf16 | DType::F64)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DType {
    type Err = Error;

    fn from_str(text: &str) -> Result<DType, Error> {
        DType::ALL
            .into_iter()
            .find(|dtype| dtype.name() == text)
            .ok_or_else(|| {
                let names = DType::ALL.map(DType::name).join(", ");
                Error::argument(
                    "DType",
                    "dtype",
                    format!("one of {names}"),
                    format!("{text:?}"),
                )
            })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A host type that is an element of tensors: `f32`, `f64`, [`half::f16`], [`half::bf16`], `i64`,
/// `i32`, `u32`, `u8`, [`E4m3`](crate::E4m3), [`E5m2`](crate::E5m2), [`E8m0`](crate::E8m0),
/// [`E2m1x2`](crate::E2m1x2).
///
/// The trait is sealed: kernels know these types and no others.
pub trait Element: sealed::Sealed + Pod + Send + Sync + fmt::Debug + PartialEq {
    /// The tensor's element type for this host type.
    const DTYPE: DType;
}

/// An [`Element`] that is one number: every one but [`E2m1x2`](crate::E2m1x2), which is two.
pub trait Number: Element {
    /// The value as `f64`; exact for all but `i64` beyond 2^53.
    fn to_f64(self) -> f64;

    /// The nearest value of this type, ties to even; integers saturate and drop the fraction.
    fn from_f64(value: f64) -> Self;
}

macro_rules! element {
    ($type:ty, $dtype:ident) => {
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
        }
        impl Number for $type {
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn from_f64(value: f64) -> Self {
                value as $type
            }
        }
    };
}

element!(f32, F32);
element!(f64, F64);
element!(i64, I64);
element!(i32, I32);
element!(u32, U32);
element!(u8, U8);

macro_rules! half_element {
    ($type:ty, $dtype:ident) => {
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
        }
        impl Number for $type {
            fn to_f64(self) -> f64 {
                self.to_f64()
            }
            fn from_f64(value: f64) -> Self {
                <$type>::from_f32(round_to_odd(value))
            }
        }
    };
}

half_element!(f16, F16);
half_element!(bf16, Bf16);

/// `value` in f32, rounded to odd: an inexact result has its last bit set.
///
/// Rounding that to a type at least two bits shorter gives what rounding `value` itself would (no
/// double rounding).
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) == value || value.is_nan() {
        return nearest;
    }
    let magnitude_grew = f64::from(nearest.abs()) > value.abs();
    let towards_zero = nearest.to_bits() - u32::from(magnitude_grew);
    f32::from_bits(towards_zero | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_once() {
        // Just above the tie between 1 and the next bf16: f32 rounds it onto the tie, which would
        // then go to even.
        let above_tie = 1.0 + f64::powi(2.0, -8) + f64::powi(2.0, -40);
        assert_eq!(<bf16 as Number>::from_f64(above_tie).to_bits(), 0x3f81);
        let below_tie = 1.0 + 3.0 * f64::powi(2.0, -8) - f64::powi(2.0, -40);
        assert_eq!(<bf16 as Number>::from_f64(below_tie).to_bits(), 0x3f81);
        let above_tie = 1.0 + f64::powi(2.0, -11) + f64::powi(2.0, -50);
        assert_eq!(<f16 as Number>::from_f64(-above_tie).to_bits(), 0xbc01);
        assert_eq!(<f16 as Number>::from_f64(65519.999).to_bits(), 0x7bff);
        assert_eq!(<f16 as Number>::from_f64(65520.0), f16::INFINITY);
        assert_eq!(<bf16 as Number>::from_f64(f64::MAX), bf16::INFINITY);
        assert_eq!(<bf16 as Number>::from_f64(f64::MIN_POSITIVE).to_bits(), 0);
        assert!(<bf16 as Number>::from_f64(f64::NAN).is_nan());
    }

    #[test]
    fn every_half_returns_to_itself() {
        for bits in 0..=u16::MAX {
            let value = bf16::from_bits(bits);
            if !value.is_nan() {
                assert_eq!(
                    <bf16 as Number>::from_f64(Number::to_f64(value)).to_bits(),
                    bits
                );
            }
            let value = f16::from_bits(bits);
            if !value.is_nan() {
                assert_eq!(
                    <f16 as Number>::from_f64(Number::to_f64(value)).to_bits(),
                    bits
                );
            }
        }
    }

    #[test]
    fn names_parse() {
        for dtype in DType::ALL {
            assert_eq!(dtype.to_string().parse::<DType>().unwrap(), dtype);
        }
        let message = "f8".parse::<DType>().unwrap_err().to_string();
        assert!(
            message.contains("bf16") && message.contains("\"f8\""),
            "{message}"
        );
    }
}
