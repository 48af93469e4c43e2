//! Published answers, and small cases by hand.

use super::plain;
use crate::quant::{Format, Fp8, Hadamard, QuantizeOptions, Rounding, ScaleRounding};
use crate::reference::quant::philox::{philox4x32_10, word};
use crate::reference::quant::{Direction, Scales, hadamard, scale};

/// The vectors of Random123's `kat_vectors`.
#[test]
fn philox_gives_the_known_answers() {
    assert_eq!(
        philox4x32_10([0; 4], [0; 2]),
        [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
    );
    assert_eq!(
        philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
    assert_eq!(
        philox4x32_10(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0]
        ),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
}

#[test]
fn words_are_counted_by_elements() {
    let (seed, offset) = (0x299f_31d0_a409_3822, 0x0370_7344_1319_8a2e);
    let quad = 0x85a3_08d3_243f_6a88_u64 >> 2;
    let counter = [quad as u32, (quad >> 32) as u32, 0x1319_8a2e, 0x0370_7344];
    let words = philox4x32_10(counter, [0xa409_3822, 0x299f_31d0]);
    for (element, want) in (4 * quad..).zip(words) {
        assert_eq!(word(seed, offset, element), want);
    }
}

/// The block of the MX text's formula: amax 13 has exponent 3.
#[test]
fn mx_scales_by_hand() {
    let e4m3 = Format::MxFp8(Fp8::E4m3);
    let of = |amax, rounding| f64::from(scale::mx(amax, e4m3, rounding).to_f32()).log2();
    assert_eq!(of(13.0, ScaleRounding::Floor), 3.0 - 8.0);
    // 13 / 448 = 0.029 is below 2^-5.
    assert_eq!(of(13.0, ScaleRounding::Ceil), -5.0);
    // 15 is beyond 448 x 2^-5 = 14: one saturates, the other has the next power.
    assert_eq!(of(15.0, ScaleRounding::Floor), -5.0);
    assert_eq!(of(15.0, ScaleRounding::Ceil), -4.0);
    assert_eq!(of(1e-40, ScaleRounding::Floor), -127.0);
    assert_eq!(of(0.0, ScaleRounding::Floor), 0.0);
    assert_eq!(of(0.0, ScaleRounding::Ceil), 0.0);
    assert_eq!(of(f32::MAX, ScaleRounding::Floor), 119.0);
}

/// 300 / 0.5 = 600 would saturate at 448.
#[test]
fn power_of_two_scales_are_never_rounded_down() {
    assert_eq!(scale::power_of_two(300.0, 448.0), 1.0);
    assert_eq!(scale::power_of_two(448.0, 448.0), 1.0);
    assert_eq!(scale::power_of_two(448.0_f32.next_up(), 448.0), 2.0);
    assert_eq!(scale::power_of_two(0.0, 448.0), 1.0);
    assert_eq!(scale::exact(0.0, 448.0), 1.0);
    assert_eq!(scale::exact(f32::from_bits(1), 448.0).to_bits(), 1);
}

#[test]
fn nvfp4_by_hand() {
    let mut x = [0.0_f32; 32];
    (x[0], x[1], x[17]) = (2688.0, -448.0, 3.0);
    let options = QuantizeOptions::new(Format::NvFp4);
    let got = plain(&options, Direction::RowWise, &x, [1, 32]);
    assert_eq!(got.tensor_scales, [1.0]);
    // 2688 / 6 = 448 and 3 / 6 = 0.5.
    assert_eq!(got.scales, Scales::Bytes(vec![0x7e, 0x30]));
    // 6 and -1 in the first byte, the second half of the ninth holds 6.
    assert_eq!((got.data[0], got.data[8]), (0xa7, 0x70));
}

#[test]
fn hadamard_of_a_unit_vector_is_a_column() {
    for n in Hadamard::SIZES {
        let rotation = Hadamard::new(n, 11);
        let signs = hadamard::signs(11);
        for i in 0..n {
            let mut v = vec![0.0_f32; n];
            v[i] = 1.0;
            hadamard::rotate(&rotation, &mut v);
            for (j, value) in v.iter().enumerate() {
                // Sylvester's matrix: the parity of the bits that both indices have.
                let odd = (i & j).count_ones() % 2 == 1;
                let minus = odd != (signs >> i & 1 == 1);
                let want = if minus {
                    -rotation.factor()
                } else {
                    rotation.factor()
                };
                assert_eq!(*value, want, "n {n}, ({j}, {i})");
            }
        }
    }
    let words = philox4x32_10([0; 4], [11, 0]);
    let signs = hadamard::signs(11);
    for i in 0..128 {
        assert_eq!((signs >> i) as u32 & 1, words[i / 32] >> (i % 32) & 1);
    }
}

/// 1.25 lies half way from 1 to 1.5, half a step of E2M1.
#[test]
fn stochastic_elements_follow_their_words() {
    let rounding = Rounding::Stochastic { seed: 5 };
    let options = QuantizeOptions::new(Format::MxFp4).rounding(rounding);
    let mut x = [1.25_f32; 64];
    (x[31], x[63]) = (6.0, 6.0);
    for (direction, shape) in [
        (Direction::RowWise, [1, 64]),
        (Direction::Transposed, [64, 1]),
    ] {
        let got = plain(&options, direction, &x, shape);
        for element in (0..64_u64).filter(|element| element % 32 != 31) {
            let up = word(5, 0, element) >= 1 << 31;
            let code = got.data[element as usize / 2] >> (element % 2 * 4) & 15;
            assert_eq!(code, 2 + u8::from(up), "{element}");
        }
    }
}
