//! Groups of rows, against each group on its own.

use super::values;
use crate::Status;
use crate::quant::{Block, Format, Hadamard, OutputOptions, QuantizeOptions, Rounding};
use crate::reference::Indices;
use crate::reference::quant::{
    Call, Direction, Matrix, Quantized, Scales, dequantize, quantize, scale_shape,
};

const ROWS: usize = 300;
const COLUMNS: usize = 40;

fn grouped(
    options: &QuantizeOptions,
    output: &OutputOptions,
    direction: Direction,
    x: &[f32],
    offsets: &[i32],
) -> Quantized {
    let x = Matrix::new(x, x.len() / COLUMNS, COLUMNS).unwrap();
    let groups = Some(Indices::I32(offsets));
    let call = Call {
        groups,
        ..Call::default()
    };
    quantize(options, output, direction, x, &call).unwrap()
}

fn scale(of: &Quantized, at: usize) -> u32 {
    match &of.scales {
        Scales::F32(scales) => scales[at].to_bits(),
        Scales::Bytes(scales) => scales[at].into(),
    }
}

/// Elements, scales in their slots, tensor scales, amaxes and counts.
#[test]
fn each_group_is_as_on_its_own() {
    let x = values(ROWS * COLUMNS, 31);
    let offsets = [0, 2, 2, 130, 170, 298];
    let groups = offsets.len() - 1;
    let output = OutputOptions::new();
    for format in Format::ALL {
        for direction in Direction::ALL {
            let options = QuantizeOptions::new(format);
            let all = grouped(&options, &output, direction, &x, &offsets);
            let shape = scale_shape(format, direction, [ROWS, COLUMNS], Some(groups));
            assert_eq!(all.scale_shape, shape);
            let (mut saturated, mut underflowed, mut slots) = (0, 0, Vec::new());
            // What is in no group is 0.
            let mut expected = vec![0.0; ROWS * COLUMNS];
            for (group, ends) in offsets.windows(2).enumerate() {
                let what = format!("{format} {direction:?} group {group}");
                let (start, end) = (ends[0] as usize, ends[1] as usize);
                let part = &x[start * COLUMNS..end * COLUMNS];
                let own = grouped(&options, &output, direction, part, &[0, ends[1] - ends[0]]);
                assert_eq!(all.amaxes[group], own.amaxes[0], "{what}");
                if format.needs_tensor_amax() {
                    assert_eq!(all.tensor_scales[group], own.tensor_scales[0], "{what}");
                }
                saturated += own.saturated;
                underflowed += own.underflowed;

                let rows = end - start;
                let ends = [0, ends[1] - ends[0]];
                let end_of = Some(Indices::I32(&ends));
                let own_shape = [rows, COLUMNS];
                let values = dequantize(format, &output, direction, own.view(), own_shape, end_of);
                for (i, value) in values.unwrap().into_iter().enumerate() {
                    let at = match direction {
                        Direction::RowWise => start * COLUMNS + i,
                        Direction::Transposed => i / rows * ROWS + start + i % rows,
                    };
                    expected[at] = value;
                }

                let [outer, inner] = own.data_shape;
                let (row, byte) = match direction {
                    Direction::RowWise => (start, 0),
                    Direction::Transposed => (0, start * format.element_bits() / 8),
                };
                for r in 0..outer {
                    let from = (row + r) * all.data_shape[1] + byte;
                    let own = &own.data[r * inner..(r + 1) * inner];
                    assert_eq!(&all.data[from..from + inner], own, "{what}, row {r}");
                }

                // Without a group's extra slot: the blocks there are.
                let along = |size: usize, extent: usize| match size {
                    Block::WHOLE => extent.min(1),
                    size => extent.div_ceil(size),
                };
                let block = format.block();
                let (rows, blocks) = match (direction, format) {
                    (_, Format::Fp8Tensor(_)) => (0, 0),
                    (Direction::RowWise, Format::Fp8Block128x128(_)) => {
                        (along(128, end - start), own.scale_shape[1])
                    }
                    (Direction::RowWise, _) => (own.scale_shape[0], own.scale_shape[1]),
                    (Direction::Transposed, _) => {
                        (own.scale_shape[0], along(block.columns, end - start))
                    }
                };
                let first = |size: usize| match size {
                    Block::WHOLE => group,
                    size => start / size + group,
                };
                for r in 0..rows {
                    for b in 0..blocks {
                        let (slot_row, slot) = match (direction, format) {
                            (Direction::RowWise, Format::Fp8Block128x128(_)) => (first(128) + r, b),
                            (Direction::RowWise, _) => (start + r, b),
                            (Direction::Transposed, _) => (r, first(block.columns) + b),
                        };
                        let at = slot_row * shape[1] + slot;
                        let want = scale(&own, r * own.scale_shape[1] + b);
                        assert_eq!(scale(&all, at), want, "{what}, scale ({r}, {b})");
                        slots.push(at);
                    }
                }
            }
            let count = slots.len();
            slots.sort_unstable();
            slots.dedup();
            assert_eq!(
                slots.len(),
                count,
                "{format} {direction:?}: a slot is used twice"
            );
            assert_eq!((all.saturated, all.underflowed), (saturated, underflowed));

            let groups = Some(Indices::I32(&offsets));
            let shape = [ROWS, COLUMNS];
            let values = dequantize(format, &output, direction, all.view(), shape, groups).unwrap();
            assert_eq!(
                super::bits(&values),
                super::bits(&expected),
                "{format} {direction:?}"
            );
        }
    }
}

/// The word of an element counts rows of the whole input.
#[test]
fn random_words_do_not_depend_on_groups() {
    let x = values(ROWS * COLUMNS, 32);
    let rounding = Rounding::Stochastic { seed: 8 };
    let options = QuantizeOptions::new("mxfp8:e5m2".parse().unwrap()).rounding(rounding);
    let output = OutputOptions::new();
    let one = grouped(&options, &output, Direction::RowWise, &x, &[0, 300]);
    let many = grouped(&options, &output, Direction::RowWise, &x, &[0, 7, 150, 300]);
    assert_eq!(one.data, many.data);
}

#[test]
fn offsets_that_do_not_ascend_give_nothing() {
    let x = values(ROWS * COLUMNS, 33);
    let options = QuantizeOptions::new(Format::MxFp4);
    for offsets in [&[0, 5, 4][..], &[-1, 5], &[0, 301], &[301, 301]] {
        for direction in Direction::ALL {
            let got = grouped(&options, &OutputOptions::new(), direction, &x, offsets);
            assert_eq!(got.status, Status::BAD_GROUP_OFFSETS, "{offsets:?}");
            assert!(got.data.iter().all(|byte| *byte == 0));
        }
    }
    let m = Matrix::new(&x, ROWS, COLUMNS).unwrap();
    let call = Call {
        groups: Some(Indices::I64(&[])),
        ..Call::default()
    };
    let result = quantize(
        &options,
        &OutputOptions::new(),
        Direction::RowWise,
        m,
        &call,
    );
    assert!(result.is_err());
}

#[test]
fn groups_that_a_transposed_output_cannot_hold() {
    let x = values(ROWS * COLUMNS, 34);
    let fp4 = QuantizeOptions::new(Format::MxFp4);
    let plain = OutputOptions::new();
    // The middle group starts inside a byte.
    let got = grouped(&fp4, &plain, Direction::Transposed, &x, &[0, 33, 64, 300]);
    assert_eq!(got.status, Status::RAGGED_GROUP);
    let clean = grouped(&fp4, &plain, Direction::Transposed, &x, &[0, 33, 33, 33]);
    assert_eq!(clean.status, Status::empty());
    for row in 0..COLUMNS {
        let bytes = &got.data[row * 150..(row + 1) * 150];
        assert_eq!(bytes[..17], clean.data[row * 150..row * 150 + 17]);
        assert!(bytes[17..32].iter().all(|byte| *byte == 0));
        assert!(bytes[32..].iter().any(|byte| *byte != 0));
    }
    assert_eq!(got.amaxes[1], 0.0);
    let row_wise = grouped(&fp4, &plain, Direction::RowWise, &x, &[0, 33, 64, 300]);
    assert_eq!(row_wise.status, Status::empty());

    // A rotation of 16 leaves the last four rows of 20.
    let rotated = OutputOptions::new().rotation(Hadamard::new(16, 1));
    let fp8 = QuantizeOptions::new("mxfp8:e4m3".parse().unwrap());
    let got = grouped(&fp8, &rotated, Direction::Transposed, &x, &[0, 20, 52]);
    assert_eq!(got.status, Status::RAGGED_GROUP);
    for row in got.data.chunks_exact(ROWS) {
        assert_eq!(row[16..20], [0; 4]);
    }
    let own = grouped(
        &fp8,
        &rotated,
        Direction::Transposed,
        &x[20 * COLUMNS..],
        &[0, 32],
    );
    for (row, own) in got
        .data
        .chunks_exact(ROWS)
        .zip(own.data.chunks_exact(ROWS - 20))
    {
        assert_eq!(row[20..52], own[..32]);
    }
}
