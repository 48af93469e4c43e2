//! The tensor core's arithmetic, and the element types it takes.
//!
//! One step of an instruction (32 bytes of K) is exact products, aligned with the accumulator to
//! the largest exponent among all of them, each cut off below that exponent's fraction bits,
//! summed exactly, and cut off to fp32. Hardware differs in detail that is not published; the
//! widths are those that measurements of it have found.

use crate::exec::codes::Element;

/// The NaN tensor cores return.
const NAN: f32 = f32::from_bits(0x7fff_ffff);

impl Element {
    /// Bytes of one element.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Element::Bf16 | Element::F16 => 2,
            Element::E4m3 | Element::E5m2 => 1,
        }
    }

    /// Whether one instruction multiplies the two types.
    pub(crate) fn matches(self, other: Element) -> bool {
        self == other || self.bytes() + other.bytes() == 2
    }

    /// The elements of one K step, in order.
    pub(crate) fn decode(self, bytes: &[u8], out: &mut Vec<f64>) {
        match self {
            Element::Bf16 => out.extend(bytes.chunks_exact(2).map(|b| {
                let high = u32::from(u16::from_le_bytes([b[0], b[1]]));
                f64::from(f32::from_bits(high << 16))
            })),
            Element::F16 => out.extend(bytes.chunks_exact(2).map(|b| {
                let bits = u32::from(u16::from_le_bytes([b[0], b[1]]));
                small(bits, 5, 10, true)
            })),
            Element::E4m3 => out.extend(bytes.iter().map(|&b| small(u32::from(b), 4, 3, false))),
            Element::E5m2 => out.extend(bytes.iter().map(|&b| small(u32::from(b), 5, 2, true))),
        }
    }
}

/// A small floating-point number. Without infinities only the largest code is NaN.
fn small(bits: u32, exponent_bits: u32, mantissa_bits: u32, infinities: bool) -> f64 {
    let bias = (1 << (exponent_bits - 1)) - 1;
    let mantissa = bits & ((1 << mantissa_bits) - 1);
    let exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
    let top = (1 << exponent_bits) - 1;
    let size = if exponent == top && infinities {
        if mantissa == 0 {
            f64::INFINITY
        } else {
            f64::NAN
        }
    } else if exponent == top && mantissa == (1 << mantissa_bits) - 1 {
        f64::NAN
    } else {
        let steps = f64::from(mantissa + if exponent == 0 { 0 } else { 1 << mantissa_bits });
        steps * power(exponent.max(1) as i32 - bias - mantissa_bits as i32)
    };
    if bits >> (exponent_bits + mantissa_bits) & 1 == 1 {
        -size
    } else {
        size
    }
}

/// 2^e, for exponents of normal f64.
fn power(e: i32) -> f64 {
    f64::from_bits(((e + 1023) as u64) << 52)
}

/// `c` + the sum of `a[i] b[i]`, as one step of a tensor core with this many fraction bits: up to 32
/// products of elements.
pub(crate) fn step(c: f32, a: &[f64], b: &[f64], fraction_bits: u32) -> f32 {
    let (Ok(a), Ok(b)) = (a.try_into(), b.try_into()) else {
        let (mut full_a, mut full_b) = ([0.0; 32], [0.0; 32]);
        full_a[..a.len()].copy_from_slice(a);
        full_b[..b.len()].copy_from_slice(b);
        return full_step(c, &full_a, &full_b, fraction_bits);
    };
    full_step(c, a, b, fraction_bits)
}

/// The loops are short, and of one kind of arithmetic each, for the compiler to make vectors of.
fn full_step(c: f32, a: &[f64; 32], b: &[f64; 32], fraction_bits: u32) -> f32 {
    let c = f64::from(c);
    let products: [f64; 32] = std::array::from_fn(|i| a[i] * b[i]);
    let size = |x: f64| x.to_bits() & (u64::MAX >> 1);
    // Sizes of numbers are ordered as their bits are, with infinities and NaNs at the top.
    let largest = products.iter().fold(size(c), |most, &p| most.max(size(p)));
    if largest == 0 {
        return 0.0;
    }
    if largest >= f64::INFINITY.to_bits() {
        let sum: f64 = c + products.iter().filter(|p| !p.is_finite()).sum::<f64>();
        return if sum.is_nan() { NAN } else { sum as f32 };
    }
    let exponent = (largest >> 52) as i32 - 1023;
    let scale = power(fraction_bits as i32 - exponent);
    // No term has more than 25 bits now, and 33 of them no more than 31.
    let mut sum = (c * scale) as i32;
    for product in products {
        // SAFETY: finite, and below 2^(fraction_bits + 1), which is 2^25 at most.
        sum += unsafe { (product * scale).to_int_unchecked::<i32>() };
    }
    truncate(f64::from(sum) * power(exponent - fraction_bits as i32))
}

/// fp32, towards zero; from 2^128 on infinity.
fn truncate(x: f64) -> f32 {
    let nearest = x as f32;
    if f64::from(nearest).abs() <= x.abs() {
        nearest
    } else if nearest.is_finite() || x.abs() < power(128) {
        f32::from_bits(nearest.to_bits() - 1)
    } else {
        nearest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(element: Element, bytes: &[u8]) -> Vec<f64> {
        let mut out = Vec::new();
        element.decode(bytes, &mut out);
        out
    }

    #[test]
    fn elements_have_their_values() {
        let e4m3 = decoded(Element::E4m3, &[0x38, 0xb8, 0x7e, 0x01, 0x00, 0x7f, 0x08]);
        assert_eq!(e4m3[..5], [1.0, -1.0, 448.0, 0.001953125, 0.0]);
        assert!(e4m3[5].is_nan());
        assert_eq!(e4m3[6], 0.015625);
        let e5m2 = decoded(Element::E5m2, &[0x3c, 0x7b, 0x01, 0x7c, 0xfd]);
        assert_eq!(e5m2[..4], [1.0, 57344.0, 1.52587890625e-5, f64::INFINITY]);
        assert!(e5m2[4].is_nan());
        assert_eq!(decoded(Element::Bf16, &[0xc0, 0xbf]), [-1.5]);
        assert_eq!(
            decoded(Element::F16, &[0xff, 0x7b, 0x01, 0x00]),
            [65504.0, power(-24)]
        );
    }

    #[test]
    fn small_integers_are_exact() {
        let a: Vec<f64> = (0..32).map(f64::from).collect();
        let b: Vec<f64> = (0..32).map(|i| f64::from(i % 5) - 2.0).collect();
        let exact: f64 = a.iter().zip(&b).map(|(x, y)| x * y).sum();
        assert_eq!(f64::from(step(3.0, &a, &b, 13)), exact + 3.0);
    }

    /// Below the largest exponent, 13 bits are left; what lies beneath is cut off, towards zero.
    #[test]
    fn terms_are_cut_off_at_the_fraction_bits() {
        let large = power(13);
        assert_eq!(step(0.0, &[large, 1.0], &[1.0, 1.5], 13), 8193.0);
        assert_eq!(step(0.0, &[large, -1.0], &[1.0, 1.5], 13), 8191.0);
        assert_eq!(step(0.0, &[large, 1.0], &[1.0, 0.5], 13), 8192.0);
        assert_eq!(step(1.75, &[large], &[1.0], 13), 8193.0);
        assert_eq!(step(0.0, &[large, 1.0], &[1.0, 0.5], 24), 8192.5);
        // The accumulator can be the largest.
        assert_eq!(step(8192.0, &[0.5; 32], &[1.0; 32], 13), 8192.0);
        assert_eq!(step(8192.0, &[0.5; 32], &[1.0; 32], 14), 8208.0);
    }

    #[test]
    fn results_are_cut_off_to_fp32() {
        let a = [power(24), 1.0, 1.0, 1.0];
        // 2^24 + 3 is no fp32; 2^24 + 4 would be nearest.
        assert_eq!(step(0.0, &a, &[1.0; 4], 24), 16_777_218.0);
        assert_eq!(step(0.0, &a, &[-1.0; 4], 24), -16_777_218.0);
        assert_eq!(step(f32::MAX, &[power(100)], &[1.0], 24), f32::MAX);
        assert_eq!(step(f32::MAX, &[power(127)], &[1.0], 24), f32::INFINITY);
    }

    #[test]
    fn infinities_and_nans() {
        assert_eq!(step(1.0, &[f64::INFINITY], &[-1.0], 13), f32::NEG_INFINITY);
        assert!(step(1.0, &[f64::INFINITY], &[0.0], 13).is_nan());
        assert!(step(f32::INFINITY, &[f64::INFINITY], &[-1.0], 13).is_nan());
        assert!(step(f32::NAN, &[1.0], &[1.0], 13).is_nan());
        assert_eq!(step(0.0, &[0.0], &[-1.0], 13).to_bits(), 0);
    }
}
