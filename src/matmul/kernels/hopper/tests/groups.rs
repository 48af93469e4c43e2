//! Groups of rows and of the contraction.

use super::*;

#[test]
fn groups_of_rows_have_their_own_operands() {
    // Empty, short, of one tile and of several; rows of no group at both ends.
    let offsets = [3, 3, 40, 168, 168, 500, 517];
    for formats in [[BF16; 2], [TENSOR, ROW], [BLOCK, SQUARE], [BLOCK; 2]] {
        for (tile, cluster) in [(0, 1), (0, 2), (1, 2)] {
            let grouped = Case {
                ranges: Ranges::Rows(&offsets),
                full: tile == 1,
                ..case(formats, 530, 128, 150)
            };
            check(&grouped, tile, cluster, 1);
        }
    }
}

#[test]
fn groups_of_the_contraction_end_anywhere() {
    let offsets = [5, 5, 70, 198, 333, 333, 450];
    for formats in [[BF16; 2], [TENSOR; 2], [BLOCK; 2]] {
        for cluster in [1, 2] {
            let grouped = Case {
                ranges: Ranges::Contraction(&offsets),
                dtype: DType::F32,
                accumulate: (cluster == 2).then_some(1.0),
                ..case(formats, 140, 130, 460)
            };
            check(&grouped, 0, cluster, 2);
        }
    }
}

#[test]
fn wrong_offsets_write_nothing() {
    for offsets in [[0, 100, 50], [-1, 10, 20], [0, 100, 141]] {
        let rows: Vec<i64> = offsets.iter().map(|&offset| i64::from(offset)).collect();
        let grouped = Case {
            ranges: Ranges::Rows(&rows),
            ..case([BF16; 2], 140, 130, 64)
        };
        check(&grouped, 0, 1, 1);
        let contraction = Case {
            ranges: Ranges::Contraction(&offsets),
            ..case([BF16; 2], 64, 64, 140)
        };
        check(&contraction, 0, 2, 1);
    }
}
