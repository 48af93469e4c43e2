//! One value as an element: a code of 8 or 4 bits with its sign on top.

use crate::quant::Format;
use crate::{E2m1x2, E4m3, E5m2};

/// The code of u, a value divided by its scale: the nearest element, or, with the element's random
/// word, the one above or below. Saturating. NaN is 0x7f in 8 bits, the one that hardware makes
/// whatever its sign, and 0 in 4, where the block's scale has to say it.
#[must_use]
pub fn encode(format: Format, u: f32, random: Option<u32>) -> u8 {
    let sign = if u.is_sign_negative() {
        1 << (format.element_bits() - 1)
    } else {
        0
    };
    let magnitude = match random {
        _ if u.is_nan() => {
            return match format.fp8() {
                Some(_) => 0x7f,
                None => 0,
            };
        }
        Some(random) => format.grid().stochastic(u, random),
        None => format.grid().nearest(u),
    };
    sign | magnitude
}

/// The value of a code.
#[must_use]
pub fn decode(format: Format, code: u8) -> f32 {
    match format.fp8() {
        Some(crate::quant::Fp8::E4m3) => E4m3::from_bits(code).to_f32(),
        Some(crate::quant::Fp8::E5m2) => E5m2::from_bits(code).to_f32(),
        None => E2m1x2::from_codes([code, 0]).to_f32()[0],
    }
}

/// The code of column `column` in a row of stored elements.
#[must_use]
pub fn load(format: Format, row: &[u8], column: usize) -> u8 {
    match format.fp8() {
        Some(_) => row[column],
        None => E2m1x2::from_bits(row[column / 2]).codes()[column % 2],
    }
}

/// Appends a row of codes as it is stored.
pub(super) fn pack(format: Format, codes: &[u8], row: &mut Vec<u8>) {
    match format.fp8() {
        Some(_) => row.extend_from_slice(codes),
        None => row.extend(codes.chunks(2).map(|pair| match *pair {
            [first, second] => E2m1x2::from_codes([first, second]).to_bits(),
            _ => pair[0],
        })),
    }
}
