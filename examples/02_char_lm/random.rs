//! Seeded random numbers, the same on every machine.

/// `SplitMix64`.
pub struct Random(u64);

/// What the numbers are for: each purpose has its own sequence, so that runs share what they should.
#[derive(Clone, Copy)]
pub enum Purpose {
    Split,
    Corruption,
    Model,
    Order,
}

impl Random {
    pub fn new(seed: u64, purpose: Purpose) -> Random {
        let mut seeds = Random(seed);
        for _ in 0..purpose as usize {
            seeds.next();
        }
        Random(seeds.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
