//! Scale-Distribution Decoupling.

use super::{FLOATS, Matrix, assert_rounded, bytes, cpu, numbers, read, upload, zeros};
use crate::DType;
use crate::norm::{GradientOutputs, Norm, SDD_EPS, Sdd, Statistics, Weights};

const ROWS: usize = 4;
const COLUMNS: usize = 6;

#[test]
fn one_alpha_for_each_feature_is_the_gamma_of_a_norm() {
    let sdd = Sdd::new().prepare(&cpu()).unwrap();
    let norm = Norm::rms().eps(SDD_EPS).prepare(&cpu()).unwrap();
    let alpha = upload(DType::F16, &[COLUMNS], &numbers(1, COLUMNS));
    let x = upload(DType::Bf16, &[ROWS, COLUMNS], &numbers(2, ROWS * COLUMNS));
    let dy = upload(DType::F32, &[ROWS, COLUMNS], &numbers(3, ROWS * COLUMNS));
    let got = sdd.forward(x.view(), alpha.view()).unwrap();
    let weights = Weights::gamma(alpha.view());
    let want = norm.forward(x.view(), &weights).unwrap();
    assert_eq!(read(&got.y), read(&want.y));
    assert_eq!(read(&got.rstd), read(&want.rstd));
    let saved = got.saved();
    let got = sdd.backward(x.view(), alpha.view(), &saved, dy.view());
    let got = got.unwrap();
    let want = norm.backward(x.view(), &weights, &saved, dy.view(), None);
    let want = want.unwrap();
    assert_eq!(read(&got.dx), read(&want.dx));
    assert_eq!(read(&got.dalpha), read(&want.dgamma.unwrap()));
}

#[test]
fn one_alpha_for_all_features_gets_the_sum_of_their_gradients() {
    let sdd = Sdd::new().prepare(&cpu()).unwrap();
    let x = upload(DType::Bf16, &[ROWS, COLUMNS], &numbers(4, ROWS * COLUMNS));
    let dy = upload(DType::F32, &[ROWS, COLUMNS], &numbers(5, ROWS * COLUMNS));
    let one = upload(DType::F32, &[1], &[1.5]);
    let each = upload(DType::F32, &[COLUMNS], &[1.5; COLUMNS]);
    let forward = sdd.forward(x.view(), one.view()).unwrap();
    let saved = forward.saved();
    let of_each = sdd.forward(x.view(), each.view()).unwrap();
    assert_eq!(read(&forward.y), read(&of_each.y));
    let of_each = sdd.backward(x.view(), each.view(), &saved, dy.view());
    let of_each = of_each.unwrap();
    let sum: f64 = read(&of_each.dalpha).iter().sum();
    let backward = sdd.backward(x.view(), one.view(), &saved, dy.view());
    let backward = backward.unwrap();
    assert_eq!(backward.dalpha.shape(), [1]);
    assert_eq!(read(&backward.dx), read(&of_each.dx));
    // Each part was rounded to f32, and lies within 32.
    let parts = 32.0 * COLUMNS as f64 * 2.0_f64.powi(40 - 24);
    assert_rounded(&read(&backward.dalpha), &[sum], DType::F32, parts);
}

#[test]
fn in_place_forms_give_the_bits_of_those_apart() {
    let sdd = Sdd::new().prepare(&cpu()).unwrap();
    for alpha in [vec![0.75], numbers(6, COLUMNS)] {
        let alpha = upload(DType::Bf16, &[alpha.len()], &alpha);
        for dtype in FLOATS {
            let of = |seed| Matrix::new(dtype, &numbers(seed, ROWS * COLUMNS), COLUMNS, 2);
            let (x, dy) = (of(7), of(8));
            let (mut y, mut dx) = (of(0), of(0));
            let (mut over_x, mut over_dy) = (of(7), of(8));
            let (mut r, mut dalpha) = (zeros(&[ROWS]), zeros(alpha.shape()));
            let none = &mut Statistics::default();
            sdd.forward_into(x.view(), alpha.view(), y.view_mut(), none)
                .unwrap();
            let mut statistics = Statistics::rstd(r.view_mut());
            sdd.forward_in_place(over_x.view_mut(), alpha.view(), &mut statistics)
                .unwrap();
            assert_eq!(over_x.read(), y.read());

            let forward = sdd.forward(x.view(), alpha.view()).unwrap();
            assert_eq!(read(&forward.rstd), read(&r));
            let saved = forward.saved();
            let none = &mut GradientOutputs::default();
            let into = dx.view_mut();
            sdd.backward_into(x.view(), alpha.view(), &saved, dy.view(), into, none)
                .unwrap();
            let mut workspace = bytes(sdd.backward_workspace_bytes(ROWS, COLUMNS));
            let mut outputs = GradientOutputs::default()
                .dalpha(dalpha.view_mut())
                .workspace(workspace.view_mut());
            let over = over_dy.view_mut();
            sdd.backward_in_place(x.view(), alpha.view(), &saved, over, &mut outputs)
                .unwrap();
            assert_eq!(over_dy.read(), dx.read());
            let all = sdd.backward(x.view(), alpha.view(), &saved, dy.view());
            assert_eq!(read(&all.unwrap().dalpha), read(&dalpha));
        }
    }
}
