//! Scales from amax, the largest finite magnitude of what a scale is for.
//!
//! Every operation is one of f32, rounded once. An amax of 0 gives 1, and a quotient below all of
//! f32 gives 2^-149, so that nothing is divided by 0.

use crate::quant::{Format, ScaleRounding};
use crate::{E4m3, E8m0};

/// What an NVFP4 tensor's amax is divided by: the largest element times the largest block scale.
pub const NVFP4_RANGE: f32 = 6.0 * 448.0;

/// amax / largest.
#[must_use]
pub fn exact(amax: f32, largest: f32) -> f32 {
    if amax == 0.0 {
        return 1.0;
    }
    let scale = amax / largest;
    if scale == 0.0 {
        f32::from_bits(1)
    } else {
        scale
    }
}

/// 2^ceil(log2(amax / largest)), at least 2^-127 and at most 2^127.
#[must_use]
pub fn power_of_two(amax: f32, largest: f32) -> f32 {
    two_to(ceil_exponent(amax, largest))
}

/// The scale of an MX block.
#[must_use]
pub fn mx(amax: f32, format: Format, rounding: ScaleRounding) -> E8m0 {
    let exponent = match rounding {
        ScaleRounding::Floor if amax == 0.0 => 0,
        ScaleRounding::Floor => split(amax).0 - format.largest_exponent(),
        ScaleRounding::Ceil => ceil_exponent(amax, format.largest()),
    };
    E8m0::from_bits((exponent.clamp(-127, 127) + 127) as u8)
}

/// The scale of an NVFP4 tensor: amax / 2688.
#[must_use]
pub fn nvfp4_tensor(amax: f32) -> f32 {
    exact(amax, NVFP4_RANGE)
}

/// The scale of an NVFP4 block: (amax / 6) / tensor scale, rounded to E4M3, saturating.
#[must_use]
pub fn nvfp4_block(amax: f32, tensor_scale: f32) -> E4m3 {
    E4m3::from_f32(amax / 6.0 / tensor_scale)
}

/// amax as m 2^e with m in [1, 2): e and the 23 bits of m - 1. amax > 0.
fn split(amax: f32) -> (i32, u32) {
    let bits = amax.to_bits();
    if bits >= 0x0080_0000 {
        return ((bits >> 23) as i32 - 127, bits & 0x007f_ffff);
    }
    let shift = bits.leading_zeros() - 8;
    (-126 - shift as i32, bits << shift & 0x007f_ffff)
}

/// ceil(log2(amax / largest)) of real numbers, 0 for amax = 0.
fn ceil_exponent(amax: f32, largest: f32) -> i32 {
    if amax == 0.0 {
        return 0;
    }
    let (exponent, fraction) = split(amax);
    let (largest_exponent, largest_fraction) = split(largest);
    exponent - largest_exponent + i32::from(fraction > largest_fraction)
}

/// 2^exponent, held to 2^-127 to 2^127.
fn two_to(exponent: i32) -> f32 {
    E8m0::from_bits((exponent.clamp(-127, 127) + 127) as u8).to_f32()
}
