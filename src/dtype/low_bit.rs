//! Elements of 8 and 4 bits, and their conversions by the OCP texts.

use std::fmt;

use bytemuck::{Pod, Zeroable};

use super::{DType, Element, Number, round_to_odd, sealed};

/// A float type of at most 8 bits: what its magnitudes are, from 0 up.
///
/// Code c is c steps of 2^(`min_exponent` - `mantissa_bits`) below 2 << `mantissa_bits`; above, the step
/// doubles with each power of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    /// Bits of the fraction.
    pub mantissa_bits: u32,
    /// Exponent of the smallest normal number.
    pub min_exponent: i32,
    /// Code of the largest finite magnitude.
    pub largest: u8,
}

impl Grid {
    /// OFP8 E4M3.
    pub const E4M3: Self = Self {
        mantissa_bits: 3,
        min_exponent: -6,
        largest: 0x7e,
    };
    /// OFP8 E5M2.
    pub const E5M2: Self = Self {
        mantissa_bits: 2,
        min_exponent: -14,
        largest: 0x7b,
    };
    /// MX E2M1.
    pub const E2M1: Self = Self {
        mantissa_bits: 1,
        min_exponent: 0,
        largest: 7,
    };

    /// The code at or below |x|, not limited to the largest, and what |x| is above it in 2^-32 of
    /// the step there, rounded down. NaN is not for here.
    pub fn below(self, x: f32) -> (u32, u32) {
        let bits = x.to_bits() & 0x7fff_ffff;
        let exponent = (bits >> 23).max(1) as i32 - 127;
        let significand = if bits >> 23 == 0 {
            bits
        } else {
            bits & 0x007f_ffff | 0x0080_0000
        };
        let on_grid = exponent.max(self.min_exponent);
        let shift = (on_grid - exponent) as u32 + 23 - self.mantissa_bits;
        // 24 + 32 bits: nothing of it is left beyond a shift of 56.
        let fixed = (u64::from(significand) << 32) >> shift.min(63);
        let binade = (on_grid - self.min_exponent) as u32;
        let code = (binade << self.mantissa_bits) + (fixed >> 32) as u32;
        (code, fixed as u32)
    }

    /// The magnitude nearest to |x|, ties to the even code, at most the largest.
    pub fn nearest(self, x: f32) -> u8 {
        let (code, fraction) = self.below(x);
        // The 2^-32 that are rounded off are never at a tie: there |x| is far below the step.
        let up = fraction > 1 << 31 || (fraction == 1 << 31 && code & 1 == 1);
        self.limited(code + u32::from(up))
    }

    /// As [`Grid::below`], one code higher where the fraction and `random` make a whole step, and
    /// at most the largest.
    pub fn stochastic(self, x: f32, random: u32) -> u8 {
        let (code, fraction) = self.below(x);
        let up = fraction.checked_add(random).is_none();
        self.limited(code + u32::from(up))
    }

    fn limited(self, code: u32) -> u8 {
        code.min(self.largest.into()) as u8
    }

    /// The magnitude of a code.
    pub fn value(self, code: u8) -> f32 {
        let one = 1_u32 << self.mantissa_bits;
        let code = u32::from(code);
        let (binade, steps) = match code / one {
            0 => (0, code),
            exponent => (exponent - 1, code % one + one),
        };
        let exponent = self.min_exponent - self.mantissa_bits as i32 + binade as i32;
        // Both factors are exact, and so is their product: at most 4 bits above 2^-17.
        steps as f32 * f32::from_bits(((exponent + 127) as u32) << 23)
    }

    /// The largest finite value.
    pub fn largest_value(self) -> f32 {
        self.value(self.largest)
    }
}

/// The sign of x at bit 7.
fn sign(x: f32) -> u8 {
    (x.to_bits() >> 24) as u8 & 0x80
}

macro_rules! byte_type {
    ($name:ident, $dtype:ident) => {
        impl $name {
            /// The value with this code.
            #[must_use]
            pub const fn from_bits(bits: u8) -> Self {
                Self(bits)
            }

            /// The code.
            #[must_use]
            pub const fn to_bits(self) -> u8 {
                self.0
            }
        }

        // SAFETY: a transparent byte, of which zero is a value.
        unsafe impl Zeroable for $name {}
        // SAFETY: a transparent byte, of which every bit pattern is a value.
        unsafe impl Pod for $name {}

        impl sealed::Sealed for $name {}
        impl Element for $name {
            const DTYPE: DType = DType::$dtype;
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let name = stringify!($name);
                write!(f, "{name}({:#04x} = {:?})", self.0, self.to_f32())
            }
        }
    };
}

macro_rules! number {
    ($name:ident) => {
        impl Number for $name {
            fn to_f64(self) -> f64 {
                self.to_f32().into()
            }

            fn from_f64(value: f64) -> Self {
                Self::from_f32(round_to_odd(value))
            }
        }
    };
}

/// An 8-bit float of 4 exponent and 3 fraction bits: finite up to 448, NaN, no infinity (OFP8).
///
/// Equality is that of the codes: -0 is not 0, a NaN is itself.
///
/// ```
/// use evenkeel::E4m3;
/// assert_eq!(E4m3::from_f32(0.3).to_f32(), 0.3125);
/// assert_eq!(E4m3::from_f32(f32::NEG_INFINITY).to_f32(), -448.0);
/// assert!(E4m3::from_f32(f32::NAN).to_f32().is_nan());
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct E4m3(u8);

impl E4m3 {
    /// The largest finite value, 448.
    pub const MAX: f32 = 448.0;

    /// The nearest value, ties to even; beyond 448 and at the infinities +-448; NaN with its sign.
    #[must_use]
    pub fn from_f32(value: f32) -> Self {
        let magnitude = if value.is_nan() {
            0x7f
        } else {
            Grid::E4M3.nearest(value)
        };
        Self(sign(value) | magnitude)
    }

    /// The value, exactly.
    #[must_use]
    pub fn to_f32(self) -> f32 {
        let magnitude = match self.0 & 0x7f {
            0x7f => f32::NAN,
            code => Grid::E4M3.value(code),
        };
        if self.0 & 0x80 == 0 {
            magnitude
        } else {
            -magnitude
        }
    }
}

byte_type!(E4m3, E4m3);
number!(E4m3);

/// An 8-bit float of 5 exponent and 2 fraction bits: finite up to 57344, infinities, NaN (OFP8).
///
/// Equality is that of the codes: -0 is not 0, a NaN is itself.
///
/// ```
/// use evenkeel::E5m2;
/// assert_eq!(E5m2::from_f32(0.3).to_f32(), 0.3125);
/// assert_eq!(E5m2::from_f32(f32::INFINITY).to_f32(), 57344.0);
/// assert_eq!(E5m2::from_bits(0x7c).to_f32(), f32::INFINITY);
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct E5m2(u8);

impl E5m2 {
    /// The largest finite value, 57344.
    pub const MAX: f32 = 57344.0;

    /// The nearest value, ties to even; beyond 57344 and at the infinities +-57344; NaN (0x7f) with
    /// its sign.
    #[must_use]
    pub fn from_f32(value: f32) -> Self {
        let magnitude = if value.is_nan() {
            0x7f
        } else {
            Grid::E5M2.nearest(value)
        };
        Self(sign(value) | magnitude)
    }

    /// The value, exactly.
    #[must_use]
    pub fn to_f32(self) -> f32 {
        let magnitude = match self.0 & 0x7f {
            0x7c => f32::INFINITY,
            0x7d..=0x7f => f32::NAN,
            code => Grid::E5M2.value(code),
        };
        if self.0 & 0x80 == 0 {
            magnitude
        } else {
            -magnitude
        }
    }
}

byte_type!(E5m2, E5m2);
number!(E5m2);

/// A power of two from 2^-127 to 2^127, or NaN: the scale of an MX block.
///
/// Code b is 2^(b - 127), and 0xff is NaN. There is no sign and no zero.
///
/// ```
/// use evenkeel::E8m0;
/// assert_eq!(E8m0::from_f32(0.25).to_bits(), 125);
/// assert_eq!(E8m0::from_f32(5.0).to_f32(), 4.0);
/// assert_eq!(E8m0::from_f32(0.0).to_f32(), f32::powi(2.0, -127));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct E8m0(u8);

impl E8m0 {
    /// 2^0.
    pub const ONE: Self = Self(127);
    /// No number.
    pub const NAN: Self = Self(0xff);

    /// The nearest power of two, ties to the larger; 2^-127 for what is smaller (0 too), 2^127 for
    /// what is larger; NaN for NaN and what is below 0.
    #[must_use]
    pub fn from_f32(value: f32) -> Self {
        if value.is_nan() || value < 0.0 {
            return Self::NAN;
        }
        let bits = value.to_bits() & 0x7fff_ffff;
        if bits < 0x0080_0000 {
            // Among the denormals 2^-127 is code 0, and 1.5 x 2^-127 the tie above it.
            return Self(u8::from(bits >= 0x0060_0000));
        }
        // Half a power more carries into the exponent.
        Self(((bits + 0x0040_0000) >> 23).min(254) as u8)
    }

    /// The value, exactly.
    #[must_use]
    pub fn to_f32(self) -> f32 {
        match self.0 {
            0 => f32::from_bits(0x0040_0000),
            0xff => f32::NAN,
            code => f32::from_bits(u32::from(code) << 23),
        }
    }
}

byte_type!(E8m0, E8m0);
number!(E8m0);

/// Two 4-bit floats of 2 exponent bits and 1 fraction bit in a byte: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and
/// their negatives (MX).
///
/// The first of the two, of even index, lies in the low four bits. Equality is that of the codes.
///
/// ```
/// use evenkeel::E2m1x2;
/// let pair = E2m1x2::from_f32([1.5, -100.0]);
/// assert_eq!(pair.to_bits(), 0xf3);
/// assert_eq!(pair.to_f32(), [1.5, -6.0]);
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct E2m1x2(u8);

impl E2m1x2 {
    /// The largest value, 6.
    pub const MAX: f32 = 6.0;

    /// The pair of codes, of 4 bits each, `[first, second]`.
    #[must_use]
    pub const fn from_codes(codes: [u8; 2]) -> Self {
        Self(codes[0] & 0xf | codes[1] << 4)
    }

    /// The codes, `[first, second]`.
    #[must_use]
    pub const fn codes(self) -> [u8; 2] {
        [self.0 & 0xf, self.0 >> 4]
    }

    /// The nearest values, ties to even; beyond 6 and at the infinities +-6; 0 for NaN, which the
    /// type does not have.
    #[must_use]
    pub fn from_f32(values: [f32; 2]) -> Self {
        Self::from_codes(values.map(|value| {
            if value.is_nan() {
                return 0;
            }
            sign(value) >> 4 | Grid::E2M1.nearest(value)
        }))
    }

    /// The values, exactly.
    #[must_use]
    pub fn to_f32(self) -> [f32; 2] {
        self.codes().map(|code| {
            let magnitude = Grid::E2M1.value(code & 7);
            if code & 8 == 0 { magnitude } else { -magnitude }
        })
    }
}

byte_type!(E2m1x2, E2m1x2);

#[cfg(test)]
mod tests;
