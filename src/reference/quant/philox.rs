//! Philox4x32-10 (Salmon et al. 2011): random bits that are a function of a counter and a key.

const ROUNDS: usize = 10;
/// The multipliers of the two halves of the counter.
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// What the key grows by each round: the golden ratio and sqrt(3) - 1.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Four words of random bits.
#[must_use]
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let product0 = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let product1 = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        c0 = (product1 >> 32) as u32 ^ c1 ^ k0;
        c1 = product1 as u32;
        c2 = (product0 >> 32) as u32 ^ c3 ^ k1;
        c3 = product0 as u32;
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// The words of elements 4 `quad` to 4 `quad` + 3.
#[must_use]
pub fn words(seed: u64, offset: u64, quad: u64) -> [u32; 4] {
    let [quad_low, quad_high] = halves(quad);
    let [offset_low, offset_high] = halves(offset);
    philox4x32_10([quad_low, quad_high, offset_low, offset_high], halves(seed))
}

/// The word of one element.
#[must_use]
pub fn word(seed: u64, offset: u64, element: u64) -> u32 {
    words(seed, offset, element / 4)[(element % 4) as usize]
}

/// Low and high.
fn halves(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

/// The words of elements, of which neighbours share a call.
#[derive(Clone, Debug)]
pub(super) struct Words {
    seed: u64,
    offset: u64,
    quad: u64,
    words: [u32; 4],
}

impl Words {
    pub fn new(seed: u64, offset: u64) -> Self {
        Self {
            seed,
            offset,
            quad: 0,
            words: words(seed, offset, 0),
        }
    }

    pub fn at(&mut self, element: u64) -> u32 {
        if element / 4 != self.quad {
            self.quad = element / 4;
            self.words = words(self.seed, self.offset, self.quad);
        }
        self.words[(element % 4) as usize]
    }
}
