//! How the values that are quantised are drawn.

use evenkeel::DType;

use crate::random::Random;

/// What kind of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Of the standard normal distribution.
    Normal,
    /// Tiles of 16 x 16 whose sizes lie anywhere in the type's range, each with 12 binades.
    Wide,
    /// The type's subnormals and what is a little above.
    Tiny,
    /// The upper three binades of the type.
    Huge,
    /// Few bits and few binades: in units of a power of two half of them lie at ties.
    Ties,
    /// Zeros of both signs; in two tiles of three nothing else.
    Zeros,
    /// Normal, and one in 300 a NaN or an infinity.
    Special,
    /// Normal, and one in 100 two thousand times as large.
    Spikes,
}

impl Values {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Normal,
        Self::Wide,
        Self::Tiny,
        Self::Huge,
        Self::Ties,
        Self::Zeros,
        Self::Special,
        Self::Spikes,
    ];

    /// Those that are finite.
    pub const FINITE: [Self; 7] = [
        Self::Normal,
        Self::Wide,
        Self::Tiny,
        Self::Huge,
        Self::Ties,
        Self::Zeros,
        Self::Spikes,
    ];
}

/// The exponents of a type: of its smallest subnormal, of its smallest normal and of its largest value.
fn exponents(dtype: DType) -> [i32; 3] {
    match dtype {
        DType::Bf16 => [-133, -126, 127],
        DType::F16 => [-24, -14, 15],
        _ => [-149, -126, 127],
    }
}

/// A matrix of such values, still to be rounded to `dtype`, whose range they keep to.
#[must_use]
pub fn draw(values: Values, dtype: DType, rows: usize, columns: usize, seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    let [smallest, normal, largest] = exponents(dtype);
    let sign = |random: &mut Random| random.pick(&[1.0, -1.0]);
    let tile_of = |at: usize| (at / columns / 16, at % columns / 16);
    let tiles = (rows.div_ceil(16), columns.div_ceil(16));
    let centres: Vec<i32> = (0..tiles.0 * tiles.1)
        .map(|_| smallest + random.below((largest - smallest) as u64) as i32)
        .collect();
    (0..rows * columns)
        .map(|at| {
            let tile = tile_of(at);
            let tile = tile.0 * tiles.1 + tile.1;
            match values {
                Values::Normal => random.normal(),
                Values::Wide => {
                    let exponent = centres[tile] - random.below(12) as i32;
                    sign(&mut random) * (1.0 + random.unit()) * 2.0_f64.powi(exponent) * 0.999
                }
                Values::Tiny => {
                    let exponent = smallest + random.below((normal + 3 - smallest) as u64) as i32;
                    sign(&mut random) * (1.0 + random.unit()) * 2.0_f64.powi(exponent)
                }
                Values::Huge => {
                    let exponent = largest - random.below(3) as i32;
                    sign(&mut random) * (1.0 + 0.99 * random.unit()) * 2.0_f64.powi(exponent)
                }
                Values::Ties => {
                    let exponent = random.below(9) as i32 - 6;
                    sign(&mut random) * random.below(32) as f64 * 2.0_f64.powi(exponent)
                }
                Values::Zeros => {
                    let size = if tile.is_multiple_of(3) {
                        random.normal()
                    } else {
                        0.0
                    };
                    if random.chance(0.3) {
                        sign(&mut random) * 0.0
                    } else {
                        size
                    }
                }
                Values::Special if random.chance(1.0 / 300.0) => {
                    random.pick(&[f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY])
                }
                Values::Special => random.normal(),
                Values::Spikes if random.chance(0.01) => 2000.0 * random.normal(),
                Values::Spikes => random.normal(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::norm::rows::cases::FLOATS;
    use crate::numbers::round_to;

    #[test]
    fn values_keep_to_their_type() {
        for dtype in FLOATS {
            for values in Values::FINITE {
                let drawn = draw(values, dtype, 33, 47, 5);
                assert_eq!(drawn.len(), 33 * 47);
                assert!(drawn.iter().all(|&x| round_to(dtype, x).is_finite()));
            }
            let special = draw(Values::Special, dtype, 100, 100, 5);
            assert!(special.iter().any(|x| x.is_nan()) && special.iter().any(|x| x.is_infinite()));
        }
    }
}
