//! Against sums by hand and properties of products.

use super::*;
use crate::matmul::Activation;
use crate::quant::{Block, ScaleLayout};
use crate::reference::{FloatRows, Floats};
use crate::{E4m3, E8m0};

fn integers(count: usize, seed: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 37 + seed * 11 + i * i % 7) % 15) as f32 - 7.0)
        .collect()
}

fn dense(values: &[f32], rows: usize, k: usize) -> Operand<'_> {
    Operand::new(Elements::Floats(Floats::F32(values)), [rows, k], k).unwrap()
}

#[test]
fn sums_by_hand() {
    let (m, n, k) = (3, 5, 19);
    let (a, b) = (integers(m * k, 1), integers(n * k, 2));
    let product = multiply(
        &dense(&a, m, k),
        &dense(&b, n, k),
        &Groups::One,
        &Epilogue::default(),
    )
    .unwrap();
    assert_eq!(product.rows, 0..m);
    for row in 0..m {
        for column in 0..n {
            let mut sum = 0.0;
            for i in 0..k {
                sum += f64::from(a[row * k + i]) * f64::from(b[column * k + i]);
            }
            assert_eq!(product.out[row * n + column], sum);
        }
    }
    let largest = product.out.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    assert_eq!(product.amax, largest);
}

#[test]
fn scales_of_blocks_lie_in_either_layout() {
    let k = 300;
    let elements = vec![E4m3::from_f32(1.0); 2 * k];
    let grid = [2, 3];
    let row_major = [1.0_f32, 10.0, 100.0, 2.0, 20.0, 200.0];
    let column_major = [1.0_f32, 2.0, 10.0, 20.0, 100.0, 200.0];
    let ones = vec![1.0_f32; k];
    for (layout, scales) in [
        (ScaleLayout::RowMajor, &row_major),
        (ScaleLayout::ColumnMajor, &column_major),
    ] {
        let a = Operand::new(Elements::E4m3(&elements), [2, k], k).unwrap();
        let a = a
            .scaled(Scaling {
                scales: Scales::F32(scales),
                block: Block {
                    rows: 1,
                    columns: 128,
                },
                grid,
                layout,
                groups: 0,
            })
            .unwrap();
        let b = dense(&ones, 1, k);
        let product = multiply(&a, &b, &Groups::One, &Epilogue::default()).unwrap();
        let first = 128.0 + 1280.0 + 4400.0;
        assert_eq!(product.out, [first, 2.0 * first]);
    }
}

#[test]
fn groups_of_rows_have_their_own_b() {
    let (n, k) = (2, 4);
    let (a, b) = (integers(7 * k, 3), integers(3 * n * k, 4));
    let ranges = [1..3, 3..3, 3..6];
    let epilogue = Epilogue {
        bias: Some(Floats::F32(&[0.0, 0.0, 9.0, 9.0, 0.5, 0.25])),
        ..Epilogue::default()
    };
    let all = dense(&a, 7, k);
    let product = multiply(
        &all,
        &dense(&b, 3 * n, k),
        &Groups::Rows(&ranges),
        &epilogue,
    )
    .unwrap();
    assert_eq!(product.rows, 1..6);
    for (group, range) in ranges.iter().enumerate() {
        for row in range.clone() {
            let own = multiply(
                &dense(&a[row * k..][..k], 1, k),
                &dense(&b[group * n * k..][..n * k], n, k),
                &Groups::One,
                &Epilogue::default(),
            )
            .unwrap();
            let bias = if group == 2 { [0.5, 0.25] } else { [0.0, 0.0] };
            let got = &product.out[(row - 1) * n..][..n];
            assert_eq!(got, [own.out[0] + bias[0], own.out[1] + bias[1]]);
        }
    }
}

#[test]
fn groups_of_the_contraction_have_their_own_product() {
    let (m, n, k) = (2, 3, 10);
    let (a, b) = (integers(m * k, 5), integers(n * k, 6));
    let ranges = [0..4, 4..4, 4..9];
    let groups = Groups::Contraction(&ranges);
    let product = multiply(
        &dense(&a, m, k),
        &dense(&b, n, k),
        &groups,
        &Epilogue::default(),
    )
    .unwrap();
    assert_eq!(product.rows, 0..6);
    for (group, range) in ranges.iter().enumerate() {
        for row in 0..m {
            for column in 0..n {
                let terms = range.clone().map(|i| a[row * k + i] * b[column * k + i]);
                let sum: f32 = terms.sum();
                let at = (group * m + row) * n + column;
                assert_eq!(product.out[at], f64::from(sum));
            }
        }
    }
}

/// MX scales along groups of the contraction begin anew with each group.
#[test]
fn blocks_begin_anew_with_a_group() {
    let k = 100;
    let elements = vec![E4m3::from_f32(1.0); k];
    // Groups 0..33 and 33..70: slots 0, 1 and floor(33 / 32) + 1 = 2, 3; of 100 / 32 + 2 = 5.
    let scales = [1.0_f32, 2.0, 4.0, 8.0, 16.0].map(E8m0::from_f32);
    let operand = Operand::new(Elements::E4m3(&elements), [1, k], k).unwrap();
    let a = operand
        .scaled(Scaling {
            scales: Scales::E8m0(&scales),
            block: Block {
                rows: 1,
                columns: 32,
            },
            grid: [1, 5],
            layout: ScaleLayout::RowMajor,
            groups: 2,
        })
        .unwrap();
    let ones = vec![1.0_f32; k];
    let ranges = [0..33, 33..70];
    let groups = Groups::Contraction(&ranges);
    let product = multiply(&a, &dense(&ones, 1, k), &groups, &Epilogue::default()).unwrap();
    assert_eq!(product.out, [32.0 + 2.0, 32.0 * 4.0 + 5.0 * 8.0]);
}

#[test]
fn epilogues_in_their_order() {
    let (a, b) = ([1.0_f32, 2.0], [3.0_f32, 4.0, -1.0, 1.0]);
    let c = [10.0_f32, 20.0];
    let epilogue = Epilogue {
        alpha: 0.5,
        bias: Some(Floats::F32(&[1.0, -1.0])),
        c: Some((FloatRows::new(Floats::F32(&c), 1, 2, 2).unwrap(), 0.1)),
        activation: Activation::SwiGlu,
    };
    let product = multiply(&dense(&a, 1, 2), &dense(&b, 2, 2), &Groups::One, &epilogue).unwrap();
    let (gate, up) = (0.5 * 11.0 + 1.0 + 0.1 * 10.0, 0.5 - 1.0 + 0.1 * 20.0);
    assert_eq!(product.pre, [gate, up]);
    let silu: f64 = gate / (1.0 + (-gate).exp());
    assert!((product.out[0] - silu * up).abs() < 1e-14 * silu);
    assert_eq!(product.amax, product.out[0].abs());
}

#[test]
fn offsets_that_descend_are_no_ranges() {
    let of = |offsets: &[i64]| group_ranges(&Indices::I64(offsets), 10);
    assert_eq!(of(&[0, 3, 3, 10]), Some(vec![0..3, 3..3, 3..10]));
    assert_eq!(of(&[0, 3, 2]), None);
    assert_eq!(of(&[0, 11]), None);
    assert_eq!(of(&[-1, 3]), None);
}

#[test]
fn what_is_not_finite_stays_in_its_row() {
    let (m, n, k) = (3, 4, 9);
    let (mut a, b) = (integers(m * k, 7), integers(n * k, 8));
    a[k + 2] = f32::NAN;
    let product = multiply(
        &dense(&a, m, k),
        &dense(&b, n, k),
        &Groups::One,
        &Epilogue::default(),
    )
    .unwrap();
    for (index, value) in product.out.iter().enumerate() {
        assert_eq!(value.is_nan(), index / n == 1);
    }
    assert!(product.amax.is_finite());
}
