//! The random Hadamard rotation, in f32 and in one order.

use super::philox::words;
use crate::quant::Hadamard;

/// The signs of a block's elements: bit i for element i, set for minus.
#[must_use]
pub fn signs(seed: u64) -> u128 {
    words(seed, 0, 0)
        .into_iter()
        .rev()
        .fold(0, |bits, word| bits << 32 | u128::from(word))
}

/// Rotates each whole block of `values`: signs, sums and differences, one multiplication.
pub fn rotate(rotation: &Hadamard, values: &mut [f32]) {
    let signs = signs(rotation.seed);
    for block in values.chunks_exact_mut(rotation.n) {
        flip(signs, block);
        butterflies(block);
        scale(rotation, block);
    }
}

/// The inverse: sums and differences, one multiplication, signs.
pub fn unrotate(rotation: &Hadamard, values: &mut [f32]) {
    let signs = signs(rotation.seed);
    for block in values.chunks_exact_mut(rotation.n) {
        butterflies(block);
        scale(rotation, block);
        flip(signs, block);
    }
}

fn flip(signs: u128, block: &mut [f32]) {
    for (i, value) in block.iter_mut().enumerate() {
        if signs >> i & 1 == 1 {
            *value = -*value;
        }
    }
}

/// Stages of distance 1, 2, .. n/2.
fn butterflies(block: &mut [f32]) {
    let mut distance = 1;
    while distance < block.len() {
        for pair in block.chunks_exact_mut(2 * distance) {
            let (low, high) = pair.split_at_mut(distance);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        distance *= 2;
    }
}

fn scale(rotation: &Hadamard, block: &mut [f32]) {
    let factor = rotation.factor();
    for value in block {
        *value *= factor;
    }
}
