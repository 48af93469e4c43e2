//! Rounding to the types of results, and errors counted in their units of the last place.

use evenkeel::{DType, E4m3, E5m2, Number};
use half::{bf16, f16};

/// `value` rounded once to `dtype` (bf16, f16, f32, or saturating E4M3 or E5M2), as f64.
#[must_use]
pub fn round_to(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::Bf16 => Number::to_f64(<bf16 as Number>::from_f64(value)),
        DType::F16 => Number::to_f64(<f16 as Number>::from_f64(value)),
        DType::E4m3 => Number::to_f64(<E4m3 as Number>::from_f64(value)),
        DType::E5m2 => Number::to_f64(<E5m2 as Number>::from_f64(value)),
        _ => f64::from(value as f32),
    }
}

/// The distance between neighbouring values of `dtype` at `value`; of its subnormals below them.
#[must_use]
pub fn ulp(dtype: DType, value: f64) -> f64 {
    // Digits after the leading one, and the exponent of the smallest normal value.
    let (digits, smallest) = match dtype {
        DType::Bf16 => (7, -126),
        DType::F16 => (10, -14),
        DType::E4m3 => (3, -6),
        DType::E5m2 => (2, -14),
        _ => (23, -126),
    };
    let magnitude = value.abs();
    let exponent = if magnitude.is_finite() && magnitude > 0.0 {
        exponent_of(magnitude).max(smallest)
    } else {
        smallest
    };
    2.0_f64.powi(exponent - digits)
}

/// The power of two at or below a normal, positive value.
fn exponent_of(value: f64) -> i32 {
    ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

/// The values that a result may have before its final rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The exact value.
    pub exact: f64,
    /// The smallest allowed.
    pub low: f64,
    /// The largest allowed.
    pub high: f64,
    /// The error allowed before the final rounding.
    pub error: f64,
}

impl Interval {
    /// `exact`, give or take `error`. What is infinite or NaN has no error.
    #[must_use]
    pub fn around(exact: f64, error: f64) -> Self {
        if !exact.is_finite() {
            return Self::only(exact);
        }
        Self {
            exact,
            low: exact - error,
            high: exact + error,
            error,
        }
    }

    /// Exactly this.
    #[must_use]
    pub fn only(exact: f64) -> Self {
        Self {
            exact,
            low: exact,
            high: exact,
            error: 0.0,
        }
    }

    /// The interval of the product with another interval's values, `other` being of one sign.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        let corners = [
            self.low * other.low,
            self.low * other.high,
            self.high * other.low,
            self.high * other.high,
        ];
        let exact = self.exact * other.exact;
        let low = corners.into_iter().fold(f64::INFINITY, f64::min);
        let high = corners.into_iter().fold(f64::NEG_INFINITY, f64::max);
        Self {
            exact,
            low,
            high,
            error: (high - exact).max(exact - low),
        }
    }

    /// The values of `dtype` that roundings of this interval's values give. Rounding is monotone, so
    /// its ends are the roundings of the ends; overflow and subnormals need no case of their own.
    #[must_use]
    pub fn rounded(self, dtype: DType) -> Self {
        Self {
            exact: self.exact,
            low: round_to(dtype, self.low),
            high: round_to(dtype, self.high),
            error: self.error,
        }
    }

    /// Whether `got` is allowed. NaN is allowed where it is expected, and only there.
    #[must_use]
    pub fn contains(self, got: f64) -> bool {
        if self.exact.is_nan() {
            return got.is_nan();
        }
        self.low <= got && got <= self.high
    }
}

/// The result that came closest to its bound, or went furthest past it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Worst {
    /// The error, in units of the last place of the result's type.
    pub ulps: f64,
    /// What was allowed there: the bound before the final rounding, and half a unit for that.
    pub allowed: f64,
    /// How many results were compared.
    pub compared: u64,
}

impl Worst {
    /// Error over bound.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.allowed > 0.0 {
            self.ulps / self.allowed
        } else if self.ulps > 0.0 {
            f64::INFINITY
        } else {
            0.0
        }
    }

    /// Takes one more result in.
    pub fn add(&mut self, dtype: DType, got: f64, interval: Interval) {
        self.compared += 1;
        if !interval.exact.is_finite() || !got.is_finite() {
            return;
        }
        let unit = ulp(dtype, interval.exact);
        let one = Self {
            ulps: (got - interval.exact).abs() / unit,
            allowed: interval.error / unit + 0.5,
            compared: 0,
        };
        if one.share() > self.share() {
            (self.ulps, self.allowed) = (one.ulps, one.allowed);
        }
    }

    /// The worse of both.
    pub fn merge(&mut self, other: &Self) {
        self.compared += other.compared;
        if other.share() > self.share() {
            (self.ulps, self.allowed) = (other.ulps, other.allowed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_the_last_place() {
        assert_eq!(ulp(DType::Bf16, 1.0), 2.0_f64.powi(-7));
        assert_eq!(ulp(DType::Bf16, -1.99), 2.0_f64.powi(-7));
        assert_eq!(ulp(DType::F16, 2.0), 2.0_f64.powi(-9));
        assert_eq!(ulp(DType::F16, 1e-9), 2.0_f64.powi(-24));
        assert_eq!(ulp(DType::F32, 0.0), 2.0_f64.powi(-149));
    }

    #[test]
    fn an_interval_allows_what_rounds_from_within() {
        let interval = Interval::around(1.0, 1e-6).rounded(DType::Bf16);
        assert!(interval.contains(1.0));
        assert!(!interval.contains(1.0 + 2.0_f64.powi(-7)));
        // Across a tie either neighbour may come.
        let tie = 1.0 + 2.0_f64.powi(-8);
        let interval = Interval::around(tie, 1e-6).rounded(DType::Bf16);
        assert!(interval.contains(1.0) && interval.contains(1.0 + 2.0_f64.powi(-7)));
        // Overflow is a rounding like any other.
        let interval = Interval::around(65_519.0, 2.0).rounded(DType::F16);
        assert!(interval.contains(65_504.0) && interval.contains(f64::INFINITY));
        assert!(!interval.contains(f64::NAN));
        assert!(Interval::only(f64::NAN).contains(f64::NAN));
        assert!(!Interval::only(f64::NAN).contains(0.0));
        assert!(Interval::only(f64::INFINITY).contains(f64::INFINITY));
    }

    #[test]
    fn the_worst_is_the_one_nearest_its_bound() {
        let mut worst = Worst::default();
        let unit = ulp(DType::F32, 1.0);
        worst.add(DType::F32, 1.0 + unit, Interval::around(1.0, 9.5 * unit));
        worst.add(
            DType::F32,
            2.0 + 2.0 * unit,
            Interval::around(2.0, 3.0 * unit),
        );
        assert_eq!((worst.ulps, worst.allowed), (1.0, 2.0));
        assert_eq!(worst.compared, 2);
    }
}
