//! Groups of rows and of the contraction.

use super::*;
use crate::Status;
use crate::matmul::{MatmulArguments, MatmulOutputs};
use crate::quant::ScaleLayout;

/// Empty groups first, in the middle and last, short ones, ends within tiles and on them; rows of no
/// group before and after.
const OFFSETS: [i64; 9] = [5, 5, 6, 133, 133, 261, 300, 428, 428];

#[test]
fn rows_in_groups() {
    use Format::{Fp8Block1x128, Fp8Block128x128, Fp8Row, Fp8Tensor, MxFp8};
    let pairs = [
        [BF16; 2],
        [F16; 2],
        [Fp8Tensor(E4), Fp8Tensor(E4)].map(quantized),
        [Fp8Row(E5), Fp8Row(E4)].map(quantized),
        [Fp8Block1x128(E4), Fp8Block128x128(E4)].map(quantized),
        [Fp8Block1x128(E4), Fp8Block1x128(E4)].map(quantized),
        [MxFp8(E4), MxFp8(E5)].map(quantized),
    ];
    for architecture in [
        Architecture::sm_80(),
        Architecture::sm_89().with_fraction_bits(24, 24),
    ] {
        for (seed, formats) in pairs.into_iter().enumerate() {
            let stream = emulated(architecture.clone(), seed as u64);
            // Groups of B that are no tiles have to be quantised as groups.
            for (n, quantised_in_groups) in [(20, true), (140, true), (128, false)] {
                let mut case = Case::new(formats, [430, n, 150]);
                case.grouped = Grouped::Rows(OFFSETS.to_vec());
                case.quantised_in_groups = quantised_in_groups;
                case.random = (seed + n) as u64;
                case.layout = [ScaleLayout::RowMajor, ScaleLayout::ColumnMajor][seed % 2];
                case.check(&stream);
            }
        }
    }
}

#[test]
fn the_contraction_in_groups() {
    use Format::{Fp8Block1x128, Fp8Row, Fp8Tensor, MxFp8};
    let pairs = [
        [BF16; 2],
        [F16; 2],
        [Fp8Tensor(E4), Fp8Tensor(E5)].map(quantized),
        [Fp8Row(E5), Fp8Row(E4)].map(quantized),
        [Fp8Block1x128(E4), Fp8Block1x128(E5)].map(quantized),
        [MxFp8(E4), MxFp8(E4)].map(quantized),
    ];
    let offsets = [
        OFFSETS.to_vec(),
        // Groups that begin at multiples of 16 and end anywhere within the next one's first piece.
        vec![0, 16, 144, 272, 272, 400, 430],
    ];
    for architecture in [
        Architecture::sm_80(),
        Architecture::sm_89().with_fraction_bits(24, 24),
    ] {
        for (seed, formats) in pairs.into_iter().enumerate() {
            let stream = emulated(architecture.clone(), seed as u64);
            for (index, offsets) in offsets.iter().enumerate() {
                let mut case = Case::new(formats, [20, 140, 430]);
                case.grouped = Grouped::Contraction(offsets.clone());
                case.quantised_in_groups = index == 0;
                case.random = (seed + index) as u64;
                case.layout = [ScaleLayout::ColumnMajor, ScaleLayout::RowMajor][index];
                case.places = [[0, 2], [0, 2], [0, 0]];
                case.check(&stream);
            }
        }
    }
}

#[test]
fn many_groups() {
    let stream = emulated(Architecture::sm_100(), 11);
    // More than a block has threads.
    let offsets: Vec<i64> = (0..=300).map(|group| group / 3).collect();
    let mut case = Case::new([BF16; 2], [100, 3, 24]);
    case.grouped = Grouped::Rows(offsets);
    case.check(&stream);
}

#[test]
fn bad_offsets_touch_nothing() {
    let stream = emulated(Architecture::sm_100(), 12);
    for grouped in [
        Grouped::Rows(vec![0, 50, 40, 100]),
        Grouped::Rows(vec![-1, 50, 60, 100]),
        Grouped::Rows(vec![0, 50, 60, 101]),
        Grouped::Contraction(vec![0, 50, 40, 100]),
        Grouped::Contraction(vec![0, 50, 60, 101]),
    ] {
        let mut case = Case::new([BF16; 2], [100, 24, 100]);
        case.grouped = Grouped::Rows(vec![0, 1, 2, 3]);
        if let Grouped::Contraction(_) = grouped {
            case.grouped = Grouped::Contraction(vec![0, 1, 2, 3]);
        }
        let [a, b] = [0, 1].map(|index| case.operand(&stream, index));
        case.grouped = grouped;
        let before = vec![3.0; case.output_rows() * 24];
        let mut out = Matrix::upload(&stream, DType::F32, &before, 24, [0, 0]);
        let mut amax = stream.zeros(DType::F32, &[1]).unwrap();
        let outputs = MatmulOutputs::new(out.view_mut()).amax(amax.view_mut());
        case.run(&stream, [&a, &b], MatmulArguments::default(), outputs)
            .unwrap();
        let status = crate::Error::Data(Status::BAD_GROUP_OFFSETS);
        assert_eq!(stream.check(), Err(status), "{case:?}");
        assert_eq!(out.read(), before, "{case:?}");
        assert_eq!(amax.read::<f32>().unwrap(), [0.0]);
    }
}
