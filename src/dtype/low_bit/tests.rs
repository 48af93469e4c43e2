//! Conversions against tables made from the texts' formulas, searched in f64.

use half::{bf16, f16};

use super::*;

/// The finite magnitudes of a type, by the formula of its text.
struct Table {
    values: Vec<f64>,
    convert: fn(f32) -> u8,
    sign: u8,
}

/// (-1)^S 2^(E - bias) (1 + M / 2^m), and 2^(1 - bias) M / 2^m for E = 0.
fn magnitudes(m: u32, bias: i32, count: u32) -> Vec<f64> {
    let of = |code: u32| {
        let (e, fraction) = (code >> m, f64::from(code % (1 << m)) / f64::from(1 << m));
        match e {
            0 => fraction * 2_f64.powi(1 - bias),
            e => (1.0 + fraction) * 2_f64.powi(e as i32 - bias),
        }
    };
    (0..count).map(of).collect()
}

fn tables() -> [Table; 3] {
    [
        Table {
            values: magnitudes(3, 7, 0x7f),
            convert: |x| E4m3::from_f32(x).to_bits(),
            sign: 0x80,
        },
        Table {
            values: magnitudes(2, 15, 0x7c),
            convert: |x| E5m2::from_f32(x).to_bits(),
            sign: 0x80,
        },
        Table {
            values: magnitudes(1, 1, 8),
            convert: |x| E2m1x2::from_f32([x, 0.0]).codes()[0],
            sign: 8,
        },
    ]
}

impl Table {
    /// The nearest code by search: ties to even, saturating.
    fn nearest(&self, x: f32) -> u8 {
        let magnitude = f64::from(x.abs());
        let above = self.values.partition_point(|value| *value < magnitude);
        let code = match above {
            0 => 0,
            above if above == self.values.len() => above - 1,
            above => {
                let [low, high] = [self.values[above - 1], self.values[above]];
                // Both differences are exact in f64.
                match (magnitude - low).total_cmp(&(high - magnitude)) {
                    std::cmp::Ordering::Less => above - 1,
                    std::cmp::Ordering::Greater => above,
                    std::cmp::Ordering::Equal => above - above % 2,
                }
            }
        };
        code as u8 | if x.is_sign_negative() { self.sign } else { 0 }
    }

    fn check(&self, x: f32) {
        for x in [x, -x] {
            let (got, want) = ((self.convert)(x), self.nearest(x));
            assert_eq!(got, want, "{x:e} ({:#x})", x.to_bits());
        }
    }
}

#[test]
fn every_code_has_the_value_of_its_text() {
    let [e4m3, e5m2, e2m1] = tables().map(|table| table.values);
    for bits in 0..=u8::MAX {
        let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
        let magnitude = usize::from(bits & 0x7f);
        let same = |got: f32, want: Option<f64>| match want {
            Some(want) => {
                assert_eq!(
                    f64::from(got).to_bits(),
                    (sign * want).to_bits(),
                    "{bits:#x}"
                );
            }
            None => assert!(got.is_nan(), "{bits:#x} is {got}"),
        };
        same(E4m3::from_bits(bits).to_f32(), e4m3.get(magnitude).copied());
        let infinity = (magnitude == 0x7c).then_some(f64::INFINITY);
        same(
            E5m2::from_bits(bits).to_f32(),
            e5m2.get(magnitude).copied().or(infinity),
        );

        let want = (bits < 0xff).then(|| 2_f64.powi(i32::from(bits) - 127));
        let got = E8m0::from_bits(bits).to_f32();
        assert!(
            want.map_or(got.is_nan(), |want| f64::from(got) == want),
            "{bits:#x}"
        );

        let pair = E2m1x2::from_bits(bits);
        assert_eq!(pair.codes(), [bits & 15, bits >> 4]);
        assert_eq!(E2m1x2::from_codes(pair.codes()), pair);
        for (code, got) in pair.codes().into_iter().zip(pair.to_f32()) {
            let sign = if code & 8 == 0 { 1.0 } else { -1.0 };
            let want = sign * e2m1[usize::from(code & 7)];
            assert_eq!(f64::from(got).to_bits(), f64::to_bits(want), "{code}");
        }
    }
    assert_eq!(e4m3.last().copied(), Some(448.0));
    assert_eq!(e5m2.last().copied(), Some(57344.0));
    assert_eq!((E4m3::MAX, E5m2::MAX, E2m1x2::MAX), (448.0, 57344.0, 6.0));
    assert_eq!(e2m1, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
}

#[test]
fn every_code_returns_to_itself() {
    for bits in 0..=u8::MAX {
        let (e4m3, e5m2) = (E4m3::from_bits(bits), E5m2::from_bits(bits));
        let canonical = |nan: bool| if nan { bits | 0x7f } else { bits };
        let back = E4m3::from_f32(e4m3.to_f32()).to_bits();
        assert_eq!(back, canonical(e4m3.to_f32().is_nan()));
        let back = E5m2::from_f32(e5m2.to_f32()).to_bits();
        match e5m2.to_f32().is_infinite() {
            true => assert_eq!(back, bits - 1, "saturates"),
            false => assert_eq!(back, canonical(e5m2.to_f32().is_nan())),
        }
        let e8m0 = E8m0::from_bits(bits);
        assert_eq!(E8m0::from_f32(e8m0.to_f32()), e8m0);
        assert_eq!(E8m0::from_f64(e8m0.to_f64()), e8m0);
        let pair = E2m1x2::from_bits(bits);
        assert_eq!(E2m1x2::from_f32(pair.to_f32()), pair);
    }
}

/// Each midpoint between neighbours, each value, and the f32s beside them.
#[test]
fn ties_go_to_even_and_their_neighbours_to_the_nearest() {
    for table in tables() {
        for pair in table.values.windows(2) {
            for x in [pair[0], (pair[0] + pair[1]) / 2.0, pair[1]] {
                let x = x as f32;
                table.check(x);
                table.check(x.next_up());
                if x > 0.0 {
                    table.check(x.next_down());
                }
            }
        }
        // Where a longer type would round up, and far beyond.
        let last = *table.values.last().unwrap() as f32;
        for x in [
            last * 1.03,
            last * 1.5,
            last * 2.0,
            1e30,
            f32::MAX,
            f32::INFINITY,
        ] {
            table.check(x);
        }
    }
}

/// All of bf16 and f16, f32's denormals among them, and f32s with every exponent.
#[test]
fn sixteen_bit_values_and_all_exponents_are_rounded_once() {
    for table in tables() {
        for bits in 0..=i16::MAX as u16 {
            let (wide, narrow) = (bf16::from_bits(bits), f16::from_bits(bits));
            for x in [wide.to_f32(), narrow.to_f32()] {
                if !x.is_nan() {
                    table.check(x);
                }
            }
        }
        let mut bits = 1_u32;
        while bits < 0x7f80_0000 {
            table.check(f32::from_bits(bits));
            // A step without a common factor with a power of two visits all low bits.
            bits += 9973;
        }
    }
}

#[test]
fn nan_and_zeros_keep_their_sign() {
    for sign in [0, 0x8000_0000_u32] {
        let byte = (sign >> 24) as u8;
        for nan in [0x7fc0_0000, 0x7f80_0001, 0x7fff_ffff] {
            let x = f32::from_bits(sign | nan);
            assert_eq!(E4m3::from_f32(x).to_bits(), byte | 0x7f);
            assert_eq!(E5m2::from_f32(x).to_bits(), byte | 0x7f);
            assert_eq!(E8m0::from_f32(x), E8m0::NAN);
            assert_eq!(E2m1x2::from_f32([x, x]).to_bits(), 0);
        }
        let zero = f32::from_bits(sign);
        assert_eq!(E4m3::from_f32(zero).to_bits(), byte);
        assert_eq!(E5m2::from_f32(zero).to_bits(), byte);
        assert_eq!(E2m1x2::from_f32([zero, zero]).to_bits(), byte | byte >> 4);
    }
    assert!(E4m3::from_f64(f64::NAN).to_f64().is_nan());
}

#[test]
fn e8m0_is_the_nearest_power_of_two() {
    for code in 0..254_u8 {
        let low = 2_f64.powi(i32::from(code) - 127);
        let tie = (1.5 * low) as f32;
        assert_eq!(E8m0::from_f32(low as f32).to_bits(), code);
        assert_eq!(E8m0::from_f32(tie).to_bits(), code + 1);
        assert_eq!(E8m0::from_f32(tie.next_down()).to_bits(), code);
        assert_eq!(E8m0::from_f32(tie.next_up()).to_bits(), code + 1);
    }
    for small in [0.0, -0.0, f32::from_bits(1), 2_f32.powi(-128)] {
        assert_eq!(E8m0::from_f32(small).to_bits(), 0);
    }
    for large in [1.6 * 2_f32.powi(127), f32::MAX, f32::INFINITY] {
        assert_eq!(E8m0::from_f32(large).to_bits(), 254);
    }
    assert_eq!(E8m0::from_f32(-1.0), E8m0::NAN);
}

/// f64 is rounded once, as the halves are.
#[test]
fn f64_is_rounded_once() {
    for (table, grid) in tables().iter().zip([Grid::E4M3, Grid::E5M2]) {
        for pair in table.values.windows(2) {
            let tie = (pair[0] + pair[1]) / 2.0;
            let convert = |x: f64| match grid.mantissa_bits {
                3 => E4m3::from_f64(x).to_f64(),
                _ => E5m2::from_f64(x).to_f64(),
            };
            // Closer to the tie than any f32.
            let nudge = tie * 2_f64.powi(-40);
            assert_eq!(convert(tie + nudge), pair[1]);
            assert_eq!(convert(tie - nudge), pair[0]);
        }
    }
}

/// The word decides at floor(2^32 frac): just as often up as the value is far above.
#[test]
fn stochastic_rounding_goes_up_with_the_fraction() {
    let grids = [Grid::E4M3, Grid::E5M2, Grid::E2M1];
    for (table, grid) in tables().iter().zip(grids) {
        for (code, pair) in table.values.windows(2).enumerate() {
            let code = code as u8;
            let step = pair[1] - pair[0];
            for x in [pair[0], pair[1]] {
                let own = code + u8::from(x == pair[1]);
                for random in [0, 1, 1 << 31, u32::MAX] {
                    assert_eq!(grid.stochastic(x as f32, random), own, "{x} is exact");
                }
            }
            for part in [1e-12, 1e-3, 0.2, 0.5, 0.75, 0.999_99] {
                let x = (pair[0] + part * step) as f32;
                // Exact: the difference of neighbours in f64, then a power of two.
                let fraction = (f64::from(x) - pair[0]) / step;
                if fraction >= 1.0 {
                    continue;
                }
                let threshold = (fraction * 2_f64.powi(32)).floor() as u32;
                for (random, up) in [
                    (0_u32.wrapping_sub(threshold), threshold > 0),
                    (0_u32.wrapping_sub(threshold).wrapping_sub(1), false),
                    (u32::MAX, threshold > 0),
                    (0, false),
                ] {
                    let got = grid.stochastic(x, random);
                    assert_eq!(got, code + u8::from(up), "{x} with {random:#x}");
                }
            }
        }
        for x in [
            f32::INFINITY,
            1e9,
            table.values[table.values.len() - 1] as f32,
        ] {
            assert_eq!(grid.stochastic(x, u32::MAX), grid.largest);
        }
        assert_eq!(
            grid.stochastic(f32::from_bits(1), u32::MAX),
            0,
            "below 2^-32 of a step"
        );
    }
}

/// x is a value of the type.
fn exact(table: &Table, x: f64) -> bool {
    table.values.contains(&x.abs())
}

/// What narrow formats hold of each other, which the matmuls rely on.
#[test]
fn products_are_exact_where_they_are_said_to_be() {
    let [e4m3, e5m2, e2m1] = tables();
    let bf16_exact = |x: f64| bf16::from_f64(x).to_f64() == x;
    let f16_exact = |x: f64| f16::from_f64(x).to_f64() == x;
    for x in &e2m1.values {
        assert!(exact(&e4m3, *x) && exact(&e5m2, *x) && bf16_exact(*x));
        for scale in &e4m3.values {
            let product = x * scale;
            assert!(bf16_exact(product) && f16_exact(product), "{x} * {scale}");
            let bits = product.to_bits() & ((1 << 52) - 1);
            let significant = if bits == 0 {
                1
            } else {
                53 - bits.trailing_zeros()
            };
            assert!(significant <= 6, "{x} * {scale} has {significant} bits");
        }
    }
    let all = |table: &Table, s: i32| {
        let mut scaled = e2m1.values.iter().map(|x| x * 2_f64.powi(s));
        scaled.all(|x| exact(table, x))
    };
    for s in -20..=20 {
        assert_eq!(all(&e4m3, s), (-8..=6).contains(&s), "E4M3 and 2^{s}");
        assert_eq!(all(&e5m2, s), (-15..=13).contains(&s), "E5M2 and 2^{s}");
    }
    let not_in_e4m3 = e2m1.values.iter().any(|x| {
        let mut products = e4m3.values.iter().map(|scale| x * scale);
        products.any(|product| product <= 448.0 && !exact(&e4m3, product))
    });
    assert!(not_in_e4m3);
}
