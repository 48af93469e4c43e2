//! The arithmetic that bounds of row operations are derived from.
//!
//! With u = 2^-24, half a unit of the last place of 1 in fp32: a correctly rounded operation errs by
//! at most u relatively, a library function of k ulp by 2 k u (the CUDA programming guide's table of
//! mathematical functions; those of the host's libm err no more), and
//!
//! | step | error |
//! |---|---|
//! | exp(-d) by ex2.approx | (2 + d log2 e) 2^-23 relatively, which is 4 u + 3 u d: the instruction, and its argument d log2 e |
//! | a flushed exponential | `.ftz`: 2^-126 absolutely, once a term |
//! | a product or quotient that underflows | 2^-149 absolutely |
//! | a sum over a row | each element passes `elements` additions of a thread, then `tree` of warp, block and cluster: (`elements` + `tree`) u times the sum of the sizes |
//! | a sum over rows | any order of N additions has depth N at most: N u |
//!
//! A thread has at most 64 elements of a row, or the 512th part of it where that is more: a block's
//! threads that walk a long row alone. On the CPU everything is f64: u = 2^-53, its sums are
//! compensated and nothing is flushed.

use evenkeel::DeviceKind;

/// Half a unit of the last place of 1 in f32.
pub const SINGLE: f64 = 1.0 / (1u64 << 24) as f64;

/// The arithmetic of one device on rows of one length.
#[derive(Clone, Copy, Debug)]
pub struct Arithmetic {
    /// u.
    pub unit: f64,
    /// What a flushed exponential loses.
    pub flush: f64,
    /// What an underflow loses.
    pub tiny: f64,
    /// Elements that a thread adds one by one.
    pub elements: f64,
    /// Merges of threads into warp (5), block (5) and cluster (4).
    pub tree: f64,
    /// Changes of a running maximum: one every four elements of a thread, and the tree.
    pub links: f64,
}

impl Arithmetic {
    /// Of a kind of device on rows of so many columns.
    #[must_use]
    pub fn new(kind: DeviceKind, columns: usize) -> Self {
        let elements = columns.div_ceil(512).max(64).min(columns) as f64;
        let tree = 14.0;
        let of = Self {
            unit: SINGLE,
            flush: (-126.0_f64).exp2(),
            tiny: (-149.0_f64).exp2(),
            elements,
            tree,
            links: (elements / 4.0).ceil() + tree,
        };
        if kind == DeviceKind::Cpu {
            Self {
                unit: f64::EPSILON / 2.0,
                flush: 0.0,
                tiny: 0.0,
                ..of
            }
        } else {
            of
        }
    }

    /// Relative error of a sum over a row.
    #[must_use]
    pub fn row_sum(&self) -> f64 {
        (self.elements + self.tree) * self.unit
    }

    /// Relative error of exp(-d).
    #[must_use]
    pub fn exponential(&self, distance: f64) -> f64 {
        (4.0 + 3.0 * distance) * self.unit
    }
}
