//! How far a product may be from the exact one.
//!
//! Tensor cores multiply exactly. One step of them takes 32 bytes of K; its products and the accumulator
//! are aligned to the largest exponent among them, each is truncated F fraction bits below that, and
//! their sum is truncated to fp32. So with M a bound of all of them, a term t loses less than
//! min(|t|, 2^-F M), and each step 2^-F M for the accumulator and 2^-23 M for its sum. F is 13 for FP8
//! (Hopper and Ada), and 24 for bf16 and f16.
//!
//! The accumulator of an interval of K (from one promotion to the next) is never beyond the sum of its
//! terms' sizes, whatever their order: that is M, and
//!
//! ```text
//! |error of an interval| <= sum_t min(|t|, 2^-F M) + L (2^-F + 2^-23) M        L steps
//! ```
//!
//! | operands | interval | steps |
//! |---|---|---|
//! | bf16, f16 | K | of 8, as devices that take 16 in two halves have |
//! | FP8 with scales of tensors or rows | 128 from a group's first, or K without promotion | of 32 |
//! | FP8 with scales of 128 | 128 | of 32 |
//! | MxFp8 | 32 | of 32 |
//!
//! An interval's sum is multiplied by the scales (their product and it: 2 u, u = 2^-24; alpha's is the
//! third) and added to those before it in any order, depth at most their number: that many u times the
//! sum of all sizes, as of the parts of a split contraction. The epilogue's operations are one rounding
//! each. On the CPU sums are in f64.

use evenkeel::DeviceKind;
use evenkeel::matmul::{OperandFormat, Promotion};
use evenkeel::quant::Format;

use crate::norm::arithmetic::SINGLE;

/// What is known of a sum of products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sum {
    /// Its value in f64.
    pub value: f64,
    /// What a device's may be off by.
    pub error: f64,
}

/// How a kind of device sums.
#[derive(Clone, Copy, Debug)]
pub struct Summation {
    /// Fraction bits that the tensor core keeps, as the weight of the last: 2^-F.
    last_bit: f64,
    /// Elements of K of an interval.
    interval: usize,
    /// Elements of K of a step.
    step: usize,
    /// Half a unit of fp32, or of f64 on the CPU.
    unit: f64,
    exact: bool,
}

impl Summation {
    /// Of operands in this format.
    #[must_use]
    pub fn new(kind: DeviceKind, format: OperandFormat, promotion: Promotion) -> Self {
        let exact = kind == DeviceKind::Cpu;
        let fp8 = (-13.0_f64).exp2();
        let (last_bit, interval, step) = match format {
            OperandFormat::Quantized(Format::MxFp8(_)) => (fp8, 32, 32),
            OperandFormat::Quantized(Format::Fp8Tensor(_) | Format::Fp8Row(_))
                if promotion == Promotion::None =>
            {
                (fp8, usize::MAX, 32)
            }
            OperandFormat::Quantized(_) => (fp8, 128, 32),
            _ => ((-24.0_f64).exp2(), usize::MAX, 8),
        };
        Self {
            last_bit,
            interval,
            step,
            unit: if exact { f64::EPSILON / 2.0 } else { SINGLE },
            exact,
        }
    }

    /// Of one element's terms, which start where their group does.
    #[must_use]
    pub fn of(&self, a: &[f64], b: &[f64]) -> Sum {
        let (mut value, mut error, mut sizes) = (0.0, 0.0, 0.0);
        let length = self.interval.min(a.len().max(1));
        for (a, b) in a.chunks(length).zip(b.chunks(length)) {
            let terms = || a.iter().zip(b).map(|(a, b)| a * b);
            let size: f64 = terms().map(f64::abs).sum();
            value += terms().sum::<f64>();
            sizes += size;
            let lost = self.last_bit * size;
            let truncated: f64 = terms().map(|term| term.abs().min(lost)).sum();
            let steps = a.len().div_ceil(self.step) as f64;
            error += truncated + steps * (lost + 2.0 * SINGLE * size);
        }
        // 128 of K are the least that a split leaves to one part.
        let additions = a.len().div_ceil(length.min(128)) as f64;
        let rounded = (additions + 3.0) * self.unit * sizes;
        let host = (a.len() as f64 + 8.0) * f64::EPSILON * sizes;
        Sum {
            value,
            error: if self.exact {
                host
            } else {
                error + rounded + host
            },
        }
    }

    /// Half a unit of the arithmetic after the sums, relatively.
    #[must_use]
    pub fn unit(&self) -> f64 {
        self.unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::quant::Fp8;

    /// The tensor core of the bound's own description, in the order of K.
    fn summed(summation: &Summation, fraction_bits: i32, a: &[f64], b: &[f64]) -> f64 {
        let mut total = 0.0_f64;
        let length = summation.interval.min(a.len());
        for (a, b) in a.chunks(length).zip(b.chunks(length)) {
            let mut accumulator = 0.0_f64;
            for (a, b) in a.chunks(32).zip(b.chunks(32)) {
                let mut terms: Vec<f64> = a.iter().zip(b).map(|(a, b)| a * b).collect();
                terms.push(accumulator);
                let largest = terms.iter().fold(0.0_f64, |m, t| m.max(t.abs()));
                if largest == 0.0 {
                    continue;
                }
                let unit = (largest.log2().floor() as i32 - fraction_bits) as f64;
                let unit = unit.exp2();
                let kept = terms.iter().map(|t| (t / unit).trunc() * unit);
                accumulator = f64::from(kept.sum::<f64>() as f32);
            }
            total = f64::from((total + accumulator) as f32);
        }
        total
    }

    #[test]
    fn the_bound_holds_of_its_description_and_is_not_far() {
        let format = OperandFormat::Quantized(Format::Fp8Row(Fp8::E4m3));
        let summation = Summation::new(DeviceKind::Emulated, format, Promotion::Every128);
        let mut closest = 0.0_f64;
        for seed in 0..200_u32 {
            let number = |i: usize, salt: u32| {
                let x = f64::from((i as u32 * 747_796_405 + seed * 2_891_336_453 + salt) >> 7);
                evenkeel::E4m3::from_f32((x.sin() * 8.0) as f32)
                    .to_f32()
                    .into()
            };
            let positive = seed % 2 == 0;
            let of = |salt| -> Vec<f64> {
                (0..512)
                    .map(|i| number(i, salt))
                    .map(|x: f64| if positive { x.abs() } else { x })
                    .collect()
            };
            let (a, b) = (of(1), of(7));
            let sum = summation.of(&a, &b);
            let error = (summed(&summation, 13, &a, &b) - sum.value).abs();
            assert!(error <= sum.error, "{error} {}", sum.error);
            closest = closest.max(error / sum.error);
            // Six bits fewer are too few where all terms have one sign.
            if positive {
                let coarse = (summed(&summation, 7, &a, &b) - sum.value).abs();
                assert!(coarse > sum.error, "{coarse} {}", sum.error);
            }
        }
        // M is the sum of an interval's sizes, of 128 terms, and a step is aligned to the largest of 32
        // terms and the accumulator, several times smaller; of that a truncation takes half.
        assert!(closest > 1.0 / 64.0, "{closest}");
    }
}
