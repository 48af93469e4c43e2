//! GaussWS (arXiv 2505.11170): weights with the noise of a quantisation to b bits.
//!
//! ```text
//! w^ = w + R amax 2^(1-b)                R = round(N(0, 1) / 2) of each element
//! dw = dw^                               amax = max |w|, of finite elements
//! db = -ln(2) amax 2^(1-b) sum R dw^     amax, b, db of each block of 32 x 32
//! ```
//!
//! R of element e = row x columns + column comes from word e mod 4 of Philox4x32-10 with counter
//! (e / 4, offset): the highest bit is its sign, |R| the number of thresholds that the other 31
//! reach. So P(|R| >= 1, 2, 3) are those of the normal distribution to 2^-32; 4 would be 0.
//!
//! All of it is f32 in one order, the same bits on every device: 2^x is a polynomial, and the sum of
//! a block has the order of [`block_sum`].

use rayon::prelude::*;

use super::philox;
use crate::Error;
use crate::reference::floats::{FloatRows, FloatRowsMut, FloatsMut};

/// Rows and columns of a block.
pub const BLOCK: usize = 32;

/// 2^31 times the probabilities that |N(0, 1)| is below 1, 3 and 5, rounded.
pub const THRESHOLDS: [u32; 3] = [1_466_064_521, 2_141_685_880, 2_147_482_417];

/// What the noise is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    /// The generator's key.
    pub seed: u64,
    /// The upper half of its counter.
    pub offset: u64,
}

impl Noise {
    /// R of an element.
    #[must_use]
    pub fn at(self, element: u64) -> f32 {
        rounded_normal(philox::word(self.seed, self.offset, element))
    }

    /// R of `count` elements from `first` on.
    fn run(self, first: u64, count: usize) -> Vec<f32> {
        let mut words = philox::words(self.seed, self.offset, first / 4);
        let draw = |at: usize| {
            let element = first + at as u64;
            if at > 0 && element.is_multiple_of(4) {
                words = philox::words(self.seed, self.offset, element / 4);
            }
            rounded_normal(words[(element % 4) as usize])
        };
        (0..count).map(draw).collect()
    }
}

/// R of a random word; 0 has a sign too.
#[must_use]
pub fn rounded_normal(word: u32) -> f32 {
    let size = word & 0x7fff_ffff;
    let reached = THRESHOLDS.iter().filter(|&&threshold| size >= threshold);
    let r = reached.count() as f32;
    if word >> 31 == 1 { -r } else { r }
}

/// 2^x for x from -126 to 127: exact for integers, within one unit of the last place elsewhere.
#[must_use]
pub fn power_of_two(x: f32) -> f32 {
    // 2^f = 1 + f q(f) for |f| <= 1/2, q by interpolation at Chebyshev's points.
    const Q: [f32; 6] = [
        std::f32::consts::LN_2,
        0.240_226_5,
        0.055_503_57,
        0.009_618_057,
        0.001_339_086_7,
        0.000_154_614_48,
    ];
    let whole = x.round_ties_even();
    let f = x - whole;
    let p = Q.iter().rev().fold(0.0, |p: f32, &q| p.mul_add(f, q));
    let p = p.mul_add(f, 1.0);
    p * f32::from_bits(((whole as i32 + 127) as u32) << 23)
}

/// amax 2^(1-b), at most the largest f32; its exponent is held between -126 and 127. NaN for b NaN.
#[must_use]
pub fn step(amax: f32, bits: f32) -> f32 {
    let exponent = 1.0 - bits;
    if exponent.is_nan() {
        return f32::NAN;
    }
    (amax * power_of_two(exponent.clamp(-126.0, 127.0))).min(f32::MAX)
}

/// The sum over a block of what each of its 32 rows has for its eight quads of columns: rows 8
/// apart, 16 apart, neighbouring quads, rows 4 apart, quads 2 and 4 apart, rows 1 and 2 apart.
#[must_use]
pub fn block_sum(quads: &[[f32; 8]; BLOCK]) -> f32 {
    let mut sums = *quads;
    let rows = |apart: usize, sums: &mut [[f32; 8]; BLOCK]| {
        for row in (0..BLOCK).filter(|row| row & apart == 0) {
            let later = sums[row + apart];
            for (sum, later) in sums[row].iter_mut().zip(later) {
                *sum += later;
            }
        }
    };
    let quads = |apart: usize, sums: &mut [[f32; 8]; BLOCK]| {
        for row in sums.iter_mut() {
            for quad in (0..8).filter(|quad| quad & apart == 0) {
                row[quad] += row[quad + apart];
            }
        }
    };
    rows(8, &mut sums);
    rows(16, &mut sums);
    quads(1, &mut sums);
    rows(4, &mut sums);
    quads(2, &mut sums);
    quads(4, &mut sums);
    rows(1, &mut sums);
    rows(2, &mut sums);
    sums[0][0]
}

/// Blocks along each dimension.
#[must_use]
pub fn block_shape(rows: usize, columns: usize) -> [usize; 2] {
    [rows.div_ceil(BLOCK), columns.div_ceil(BLOCK)]
}

/// w^ and the amax of each block, `[ceil(rows / 32), ceil(columns / 32)]` as `bits` is.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit.
pub fn forward(
    noise: Noise,
    w: FloatRows,
    bits: &[f32],
    noisy: FloatRowsMut,
    amax: &mut [f32],
) -> Result<(), Error> {
    let [rows, _, columns] = w.shape();
    check(rows, columns, &[bits.len(), amax.len()])?;
    same("weights", noisy.shape(), w.shape())?;
    let [_, across] = block_shape(rows, columns);
    let mut noisy = noisy.into_rows();
    noisy
        .par_chunks_mut(BLOCK)
        .zip(amax.par_chunks_mut(across))
        .zip(bits.par_chunks(across))
        .enumerate()
        .for_each(|(block_row, ((noisy, amax), bits))| {
            let first = block_row * BLOCK;
            let w: Vec<Vec<f64>> = (first..first + noisy.len()).map(|r| w.row(r)).collect();
            let finite = |columns: std::ops::Range<usize>| {
                let part = w.iter().flat_map(|row| &row[columns.clone()]);
                let sizes = part.map(|x| x.abs()).filter(|x| x.is_finite());
                sizes.fold(0.0, f64::max) as f32
            };
            for (block, amax) in amax.iter_mut().enumerate() {
                *amax = finite(block * BLOCK..columns.min((block + 1) * BLOCK));
            }
            let steps: Vec<f32> = amax.iter().zip(bits).map(|(a, b)| step(*a, *b)).collect();
            for (row, (w, noisy)) in w.iter().zip(noisy).enumerate() {
                let drawn = noise.run(((first + row) * columns) as u64, columns);
                let sums =
                    w.iter().zip(drawn).enumerate().map(|(column, (&w, r))| {
                        f64::from(r.mul_add(steps[column / BLOCK], w as f32))
                    });
                noisy.store(&sums.collect::<Vec<f64>>());
            }
        });
    Ok(())
}

/// Where the gradients of a [`forward`] go.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// Of b.
    pub bits: &'a mut [f32],
    /// Whether it is added to what is there.
    pub accumulate: bool,
    /// Of w: a copy of dw^, in its own type.
    pub w: Option<FloatRowsMut<'a>>,
}

/// The gradients of a [`forward`], whose amax is given.
///
/// # Errors
/// [`Error::Argument`] for shapes that do not fit.
pub fn backward(
    noise: Noise,
    dnoisy: FloatRows,
    bits: &[f32],
    amax: &[f32],
    gradients: Gradients,
) -> Result<(), Error> {
    let [rows, _, columns] = dnoisy.shape();
    check(
        rows,
        columns,
        &[bits.len(), amax.len(), gradients.bits.len()],
    )?;
    if let Some(dw) = gradients.w {
        same("dw", dw.shape(), dnoisy.shape())?;
        let copy = |(row, mut dw): (usize, FloatsMut)| dw.store(&dnoisy.row(row));
        dw.into_rows().into_par_iter().enumerate().for_each(copy);
    }
    let [_, across] = block_shape(rows, columns);
    let accumulate = gradients.accumulate;
    gradients
        .bits
        .par_chunks_mut(across)
        .enumerate()
        .for_each(|(block_row, dbits)| {
            let first = block_row * BLOCK;
            let mut quads = vec![[[0.0_f32; 8]; BLOCK]; across];
            for row in first..rows.min(first + BLOCK) {
                let gradient = dnoisy.row(row);
                let drawn = noise.run((row * columns) as u64, columns);
                for (quad, (g, r)) in gradient.chunks(4).zip(drawn.chunks(4)).enumerate() {
                    // What is not there is 0 x 0, so that zeros have one sign.
                    let term = |e: usize| (r.get(e).copied().unwrap_or(0.0), g.get(e).copied());
                    let term = |e: usize| (term(e).0, term(e).1.unwrap_or(0.0) as f32);
                    let (r, g) = term(0);
                    let sum = (1..4).fold(r * g, |sum, e| term(e).0.mul_add(term(e).1, sum));
                    quads[quad / 8][row - first][quad % 8] = sum;
                }
            }
            for (at, (db, quads)) in dbits.iter_mut().zip(&quads).enumerate() {
                let block = block_row * across + at;
                let step = step(amax[block], bits[block]);
                let gradient = block_sum(quads) * step * -std::f32::consts::LN_2;
                *db = if accumulate { *db + gradient } else { gradient };
            }
        });
    Ok(())
}

fn check(rows: usize, columns: usize, lengths: &[usize]) -> Result<(), Error> {
    let [down, across] = block_shape(rows, columns);
    match lengths.iter().find(|&&length| length != down * across) {
        None => Ok(()),
        Some(length) => Err(Error::argument(
            "GaussWs",
            "bits",
            format!("[{down}, {across}]"),
            format!("{length} elements"),
        )),
    }
}

fn same(argument: &'static str, got: [usize; 3], expected: [usize; 3]) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    let text = |shape: [usize; 3]| format!("{shape:?}");
    Err(Error::argument(
        "GaussWs",
        argument,
        text(expected),
        text(got),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 Q(x), Q the tail of the normal distribution, by the continued fraction of erfc.
    fn both_tails(x: f64) -> f64 {
        let fraction = (1..400)
            .rev()
            .fold(0.0, |rest, k| f64::from(k) / (x + rest));
        let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        2.0 * density / (x + fraction)
    }

    #[test]
    fn thresholds_are_those_of_the_normal_distribution() {
        for (threshold, x) in THRESHOLDS.iter().zip([1.0, 3.0, 5.0]) {
            let below = 2_f64.powi(31) * (1.0 - both_tails(x));
            assert_eq!(f64::from(*threshold), below.round(), "{x}");
        }
        // The next one is a word that does not exist.
        assert_eq!(
            (2_f64.powi(31) * (1.0 - both_tails(7.0))).round(),
            2_f64.powi(31)
        );
    }

    #[test]
    fn words_become_rounded_normals_at_the_thresholds() {
        let mut size = 0;
        for (r, &threshold) in THRESHOLDS.iter().enumerate() {
            for (word, expected) in [(size, r), (threshold - 1, r), (threshold, r + 1)] {
                assert_eq!(rounded_normal(word), expected as f32);
                assert_eq!(rounded_normal(word | 1 << 31), -(expected as f32));
            }
            size = threshold;
        }
        assert_eq!(rounded_normal(u32::MAX), -3.0);
    }

    #[test]
    fn powers_of_two_are_within_a_unit_and_exact_for_integers() {
        let mut worst: f64 = 0.0;
        for i in -126 * 4096..=127 * 4096 {
            let x = i as f32 / 4096.0 + if i % 3 == 0 { 1e-5 } else { 0.0 };
            let x = x.clamp(-126.0, 127.0);
            let (got, exact) = (power_of_two(x), f64::from(x).exp2());
            let unit = f64::from(got.next_up()) - f64::from(got);
            worst = worst.max((f64::from(got) - exact).abs() / unit);
            if x == x.round() {
                assert_eq!(f64::from(got), exact, "{x}");
            }
        }
        assert!(worst < 1.0, "{worst}");
    }

    #[test]
    fn steps_stay_finite() {
        assert_eq!(step(3.0, 4.0), 0.375);
        assert_eq!(step(1.0, f32::INFINITY), 2_f32.powi(-126));
        assert_eq!(step(1e30, -1000.0), f32::MAX);
        assert_eq!(step(0.0, -1000.0), 0.0);
        assert!(step(1.0, f32::NAN).is_nan());
    }

    #[test]
    fn a_block_is_summed_whole() {
        let mut quads = [[0.0; 8]; BLOCK];
        let quad = |row: usize, quad: usize| (row * 8 + quad) as f32;
        for (row, quads) in quads.iter_mut().enumerate() {
            for (at, sum) in quads.iter_mut().enumerate() {
                *sum = quad(row, at);
            }
        }
        assert_eq!(block_sum(&quads), (0..256).sum::<i32>() as f32);
    }

    #[test]
    fn non_finite_weights_stay_alone() {
        let mut w = vec![0.5_f32; 33 * 33];
        (w[0], w[1], w[40]) = (f32::NAN, f32::INFINITY, -2.0);
        let rows = FloatRows::new(&w, 33, 33, 33).unwrap();
        let mut noisy = vec![0.0_f32; w.len()];
        let mut amax = [0.0; 4];
        let noise = Noise { seed: 1, offset: 2 };
        let bits = [3.0; 4];
        let into = FloatRowsMut::new(&mut noisy, 33, 33, 33).unwrap();
        forward(noise, rows, &bits, into, &mut amax).unwrap();
        assert_eq!(amax, [2.0, 0.5, 0.5, 0.5]);
        assert!(noisy[0].is_nan() && noisy[1] == f32::INFINITY);
        for (at, noisy) in noisy.iter().enumerate().skip(2) {
            let [row, column] = [at / 33, at % 33];
            let step = step(amax[row / 32 * 2 + column / 32], 3.0);
            let r = noise.at(at as u64);
            assert_eq!(*noisy, w[at] + r * step);
        }
    }
}
