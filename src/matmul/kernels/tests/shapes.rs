//! Every remainder of M, N and K, every pair of operands, every layout.

use super::*;
use crate::matmul::{Matmul, MatmulArguments, Promotion};
use crate::quant::{QuantizedRef, ScaleLayout};

/// Every pair of operands, one of each kind of scales.
fn pairs() -> Vec<[OperandFormat; 2]> {
    use Format::{Fp8Block1x128, Fp8Block128x128, Fp8Row, Fp8Tensor, MxFp8};
    let mut pairs = vec![[BF16; 2], [F16; 2]];
    let formats = [
        [Fp8Tensor(E4), Fp8Tensor(E5)],
        [Fp8Row(E5), Fp8Row(E4)],
        [Fp8Tensor(E4), Fp8Row(E4)],
        [Fp8Row(E4), Fp8Tensor(E5)],
        [Fp8Block1x128(E4), Fp8Block128x128(E4)],
        [Fp8Block1x128(E5), Fp8Block128x128(E4)],
        [Fp8Block1x128(E4), Fp8Block1x128(E5)],
        [MxFp8(E4), MxFp8(E4)],
        [MxFp8(E5), MxFp8(E4)],
    ];
    pairs.extend(formats.map(|pair| pair.map(quantized)));
    pairs
}

fn architectures() -> [Architecture; 3] {
    [
        Architecture::sm_80(),
        Architecture::sm_89().with_fraction_bits(24, 24),
        Architecture::sm_100(),
    ]
}

#[test]
fn every_pair_of_operands_on_every_kernel() {
    for (index, architecture) in architectures().into_iter().enumerate() {
        for (seed, formats) in pairs().into_iter().enumerate() {
            let stream = emulated(architecture.clone(), seed as u64);
            let mut case = Case::new(formats, [150 - index, 140 + index, 400]);
            case.random = seed as u64;
            for (layout, promotion) in [
                (ScaleLayout::RowMajor, Promotion::Every128),
                (ScaleLayout::ColumnMajor, Promotion::None),
            ] {
                (case.layout, case.promotion) = (layout, promotion);
                let reports = case.check(&stream);
                assert_eq!(reports.len(), 1);
                let traffic = &reports[0].traffic;
                assert_eq!(traffic.bank_conflicts, 0, "{case:?}");
            }
        }
    }
}

/// Sizes around those of instructions, warps and tiles.
const SIZES: [usize; 21] = [
    1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 127, 128, 129, 200, 257,
];

#[test]
fn every_remainder_of_m_and_n() {
    let stream = emulated(Architecture::sm_100(), 3);
    for size in SIZES {
        for (shape, formats) in [
            ([size, 5, 40], [BF16; 2]),
            ([3, size, 40], [F16; 2]),
            ([size, 11, 40], [Format::Fp8Row(E4); 2].map(quantized)),
            (
                [9, size, 140],
                [Format::Fp8Block1x128(E4), Format::Fp8Block128x128(E4)].map(quantized),
            ),
        ] {
            let mut case = Case::new(formats, shape);
            case.random = size as u64;
            for dtype in [DType::F32, DType::Bf16] {
                case.dtype = dtype;
                case.check(&stream);
            }
        }
    }
}

#[test]
fn every_remainder_of_k() {
    let expanded = emulated(Architecture::sm_80(), 4);
    let direct = emulated(Architecture::sm_89().with_fraction_bits(24, 24), 4);
    let row = [Format::Fp8Row(E4), Format::Fp8Row(E5)].map(quantized);
    let mx = [Format::MxFp8(E4); 2].map(quantized);
    let blocks = [Format::Fp8Block1x128(E4); 2].map(quantized);
    for k in 1..=140 {
        Case::new(row, [5, 9, k]).check(&expanded);
        Case::new([Format::Fp8Row(E4); 2].map(quantized), [5, 9, k]).check(&direct);
        if k % 5 == 0 || k % 32 < 2 {
            Case::new(mx, [5, 9, k]).check(&expanded);
            Case::new(blocks, [5, 9, k]).check(&direct);
        }
        if k <= 70 {
            Case::new([BF16; 2], [5, 9, k]).check(&direct);
        }
    }
    for k in [
        191, 192, 193, 255, 256, 257, 383, 384, 385, 511, 512, 513, 640,
    ] {
        for formats in [row, mx, blocks, [BF16; 2]] {
            Case::new(formats, [5, 9, k]).check(&expanded);
        }
    }
}

#[test]
fn rows_begin_anywhere() {
    let stream = emulated(Architecture::sm_100(), 5);
    let row = [Format::Fp8Row(E4); 2].map(quantized);
    for first in 0..17 {
        let places = [[first, 0], [0, first], [first % 5, first]];
        for (formats, shape) in [([BF16; 2], [20, 24, 48]), (row, [20, 24, 96])] {
            let mut case = Case::new(formats, shape);
            case.places = places;
            case.dtype = [DType::F32, DType::Bf16, DType::F16][first % 3];
            case.check(&stream);
            case.dtype = [DType::Bf16, DType::F16, DType::F32][first % 3];
            case.check(&stream);
            case.places = [[0, first], [first, 16 - first % 16], [8, 8]];
            case.check(&stream);
        }
    }
}

#[test]
fn a_long_contraction_of_a_small_product_is_split() {
    let [first, second, _] = architectures();
    for (index, architecture) in [first, second].into_iter().enumerate() {
        for formats in pairs() {
            let stream = emulated(architecture.clone(), 7 + index as u64);
            for (shape, padding) in [([3, 20, 5000], 0), ([130, 13, 2600], 3)] {
                let mut case = Case::new(formats, shape);
                case.places[2] = [0, padding];
                let reports = case.check(&stream);
                assert_eq!(reports.len(), 2, "{case:?}");
                assert!(
                    reports
                        .iter()
                        .all(|report| report.traffic.bank_conflicts == 0)
                );
            }
        }
    }
}

#[test]
fn schedules_do_not_matter() {
    let mut results = Vec::new();
    let shapes = [[150, 140, 520], [3, 20, 9000]];
    for seed in 0..4 {
        let stream = emulated(Architecture::sm_100(), seed);
        for formats in [[BF16; 2], [Format::MxFp8(E4); 2].map(quantized)] {
            for shape in shapes {
                Case::new(formats, shape).check(&stream);
                results.push(sums_that_round(&stream, shape));
            }
        }
    }
    for (index, result) in results.iter().enumerate() {
        assert!(*result == results[index % 4], "run {index} has other bits");
    }
}

/// The bits of a product of numbers whose sums depend on their order.
fn sums_that_round(stream: &Stream, [m, n, k]: [usize; 3]) -> Vec<u32> {
    let mut random = Random(9);
    let mut values =
        |count: usize| -> Vec<f32> { (0..count).map(|_| random.integer(1000) / 999.0).collect() };
    let [a, b] = [values(m * k), values(n * k)];
    let a = Matrix::upload(stream, DType::Bf16, &a, k, [0, 0]);
    let b = Matrix::upload(stream, DType::Bf16, &b, k, [0, 0]);
    let prepared = Matmul::new(BF16, BF16).prepare(stream).unwrap();
    let out = prepared
        .multiply(a.view(), b.view(), DType::F32, MatmulArguments::default())
        .unwrap();
    out.read::<f32>()
        .unwrap()
        .iter()
        .map(|x| x.to_bits())
        .collect()
}

#[test]
fn traffic_is_that_of_the_tiles() {
    let [m, n, k] = [256, 384, 1024];
    let tiles = (m / 128 * n / 128) as u64;
    // One multiprocessor, so that nothing is split.
    let stream = emulated(Architecture::sm_100().with_multiprocessors(1), 0);
    for (formats, bytes, scales) in [
        ([BF16; 2], 2, 0),
        // Rows' scales: eight of each operand a thread.
        ([Format::Fp8Row(E4); 2].map(quantized), 1, 16),
        // Blocks' scales: one a thread and stage.
        ([Format::Fp8Block1x128(E4); 2].map(quantized), 1, 8),
    ] {
        let mut case = Case::new(formats, [m, n, k]);
        case.dtype = DType::Bf16;
        let reports = case.check(&stream);
        assert_eq!(reports.len(), 1);
        let traffic = &reports[0].traffic;
        let operands = tiles * 256 * (k * bytes) as u64;
        assert_eq!(
            traffic.global_load_bytes,
            operands + tiles * 256 * scales * 4,
            "{case:?}"
        );
        assert_eq!(traffic.global_store_bytes, (m * n * 2) as u64);
        // Results fill whole sectors.
        assert_eq!(
            traffic.global_store_sectors * 32,
            traffic.global_store_bytes
        );
        assert_eq!(traffic.bank_conflicts, 0);
        assert_eq!(traffic.tensor_flops, (2 * m * n * k) as u64);
    }
}

/// Every FP8 number there is, times one.
#[test]
fn every_element_has_its_value() {
    for (architecture, bits) in [(Architecture::sm_80(), 24), (Architecture::sm_89(), 13)] {
        let stream = emulated(architecture.with_fraction_bits(bits, 24), 1);
        let codes: Vec<u8> = (0..=255).collect();
        let e4m3: Vec<E4m3> = codes.iter().map(|code| E4m3::from_bits(*code)).collect();
        let e5m2: Vec<E5m2> = codes.iter().map(|code| E5m2::from_bits(*code)).collect();
        let e4m3_values = e4m3.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
        let e5m2_values = e5m2.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
        // A contraction of one element.
        let e4m3 = stream.upload(&[256, 1], &e4m3).unwrap();
        let e5m2 = stream.upload(&[256, 1], &e5m2).unwrap();
        let ones = stream.upload(&[3, 1], &[E4m3::from_f32(1.0); 3]).unwrap();
        let scale = stream.upload(&[1], &[1.0_f32]).unwrap();
        for (data, fp8, values) in [(&e4m3, E4, e4m3_values), (&e5m2, E5, e5m2_values)] {
            let [format, ones_format] = [fp8, E4].map(Format::Fp8Tensor);
            let a = QuantizedRef::new(format, 256, 1, data.view()).tensor_scale(scale.view());
            let b = QuantizedRef::new(ones_format, 3, 1, ones.view()).tensor_scale(scale.view());
            let matmul = Matmul::new(format, ones_format);
            let prepared = matmul.prepare(&stream).unwrap();
            let out = prepared
                .multiply(a, b, DType::F32, MatmulArguments::default())
                .unwrap();
            let got = out.read::<f32>().unwrap();
            for (code, value) in values.iter().enumerate() {
                for column in 0..3 {
                    let got = got[code * 3 + column];
                    assert!(
                        got == *value || got.is_nan() && value.is_nan(),
                        "{format} {code:#x}: {got}, not {value}"
                    );
                }
            }
        }
    }
}

/// What 13 fraction bits lose, promotion keeps.
#[test]
fn promotion_keeps_small_terms() {
    let k = 128 * 33;
    let mut a = vec![0.0_f32; k];
    a[..128].fill(16.0);
    for small in a[128..].chunks_mut(32) {
        small[5] = 1.0;
    }
    let mut b = vec![1.0_f32; k];
    b[..128].fill(16.0);
    let sum: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    let stream = emulated(Architecture::sm_89(), 2);
    let [a, b] = [a, b].map(|values| {
        let rows: Vec<f32> = values.iter().copied().cycle().take(4 * k).collect();
        Matrix::upload(&stream, DType::E4m3, &rows, k, [0, 0])
    });
    let scale = stream.upload(&[1], &[1.0_f32]).unwrap();
    let of = |data: &Matrix, promotion| {
        let format = Format::Fp8Tensor(E4);
        let view = |data| QuantizedRef::new(format, 4, k, data).tensor_scale(scale.view());
        let matmul = Matmul::new(format, format).promotion(promotion);
        let prepared = matmul.prepare(&stream).unwrap();
        let out = prepared
            .multiply(
                view(data.view()),
                view(b.view()),
                DType::F32,
                MatmulArguments::default(),
            )
            .unwrap();
        out.read::<f32>().unwrap()[0]
    };
    assert_eq!(of(&a, Promotion::Every128), sum);
    assert!(of(&a, Promotion::None) < sum);
}

/// NaN stays in its row and column, and so does a NaN scale.
#[test]
fn nan_stays_where_it_is() {
    let [m, n, k] = [140, 20, 300];
    for architecture in architectures() {
        let stream = emulated(architecture, 6);
        for (format, dtype) in [
            (BF16, DType::Bf16),
            (F16, DType::F16),
            (quantized(Format::Fp8Row(E4)), DType::E4m3),
            (quantized(Format::Fp8Block1x128(E4)), DType::E4m3),
            (quantized(Format::MxFp8(E4)), DType::E4m3),
        ] {
            let mut case = Case::new([format; 2], [m, n, k]);
            case.random = 3;
            let [mut a, b] = [0, 1].map(|index| case.operand(&stream, index));
            let mut elements = vec![1.0_f32; m * k];
            elements[131 * k + 299] = f32::NAN;
            a.replace(Matrix::upload(&stream, dtype, &elements, k, [0, 0]));
            let prepared = Matmul::new(format, format).prepare(&stream).unwrap();
            let out = prepared
                .multiply(
                    a.operand(),
                    b.operand(),
                    DType::F32,
                    MatmulArguments::default(),
                )
                .unwrap();
            for (index, value) in out.read::<f32>().unwrap().iter().enumerate() {
                assert_eq!(
                    value.is_nan(),
                    index / n == 131,
                    "{format} row {}",
                    index / n
                );
            }
        }
    }
}
