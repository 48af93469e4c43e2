//! Tiles, clusters and remainders.

use super::*;

#[test]
fn each_kernel_multiplies_one_tile() {
    for formats in [
        [BF16; 2],
        [F16; 2],
        [TENSOR; 2],
        [ROW; 2],
        [BLOCK, SQUARE],
        [BLOCK; 2],
    ] {
        for tile in [0, 1] {
            check(&case(formats, 128, 128, 128), tile, 1, 1);
        }
    }
}

#[test]
fn pairs_share_an_operand() {
    for formats in [[BF16; 2], [ROW; 2], [BLOCK; 2]] {
        for tile in [0, 1] {
            check(&case(formats, 300, 300, 200), tile, 2, 2);
        }
    }
}

#[test]
fn remainders_of_every_dimension_are_right() {
    for (m, n, k) in [
        (1, 1, 1),
        (129, 257, 65),
        (255, 127, 129),
        (70, 400, 520),
        (257, 3, 31),
    ] {
        for formats in [[BF16; 2], [TENSOR, ROW], [BLOCK, SQUARE], [BLOCK; 2]] {
            let padded = Case {
                padding: 1,
                ..case(formats, m, n, k)
            };
            check(&padded, 0, 1 + (m as u32 % 2), 3);
        }
    }
}

#[test]
fn the_ring_goes_round_within_and_between_tiles() {
    // 11 slices of a ring of 4, and several tiles a block.
    for cluster in [1, 2] {
        let long = case([ROW; 2], 300, 150, 1400);
        check(&long, 0, cluster, 4);
        check(&case([BF16; 2], 300, 300, 700), 0, cluster, 5);
    }
}

#[test]
fn both_promotions_and_mixes_of_elements_are_right() {
    let e5m2 = |format: fn(Fp8) -> Format| OperandFormat::Quantized(format(Fp8::E5m2));
    for promotion in [Promotion::Every128, Promotion::None] {
        for formats in [
            [e5m2(Format::Fp8Row), ROW],
            [TENSOR, e5m2(Format::Fp8Tensor)],
        ] {
            for tile in [0, 1] {
                let mixed = Case {
                    promotion,
                    ..case(formats, 140, 130, 300)
                };
                check(&mixed, tile, 1, 6);
            }
        }
    }
    check(
        &case([e5m2(Format::Fp8Block1x128), SQUARE], 140, 130, 300),
        0,
        2,
        6,
    );
}

#[test]
fn seeds_change_no_bit() {
    for seed in 10..14 {
        check(&case([BLOCK, SQUARE], 260, 140, 900), 0, 2, seed);
        check(&case([BF16; 2], 140, 260, 450), 0, 2, seed);
    }
}
