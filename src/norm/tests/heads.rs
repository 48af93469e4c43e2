//! Normalization of heads, and rotary embedding.

use super::{FLOATS, Matrix, assert_rounded, bytes, cpu, numbers, read, upload, zeros};
use crate::norm::{
    GradientOutputs, HeadNorm, HeadNormOptions, Norm, NormKind, NormOptions, Pairing,
    PreparedHeadNorm, Rotary, RotaryTables, Statistics, Weights,
};
use crate::{Buffer, DType, Status};

const TOKENS: usize = 3;
const HEADS: usize = 2;
const HEAD_DIM: usize = 6;
const ROW: usize = HEADS * HEAD_DIM;
const WIDTH: usize = 4;

fn prepare(options: HeadNormOptions) -> PreparedHeadNorm {
    HeadNorm::new(options, HEADS).prepare(&cpu()).unwrap()
}

fn options(kind: NormKind) -> HeadNormOptions {
    HeadNormOptions::new(NormOptions::new(kind).eps(0.125))
}

/// Cosine and sine of `positions`, whose squares do not add up to one: a rotation that stretches
/// shows a mistake that an exact one would hide.
fn tables(positions: usize) -> (Buffer, Buffer) {
    let of = |seed| {
        let shape = [positions, WIDTH / 2];
        upload(DType::F32, &shape, &numbers(seed, positions * WIDTH / 2))
    };
    (of(50), of(51))
}

#[test]
fn each_head_is_a_row_of_a_norm() {
    let gamma = upload(DType::F16, &[HEAD_DIM], &numbers(1, HEAD_DIM));
    let beta = upload(DType::F32, &[HEAD_DIM], &numbers(2, HEAD_DIM));
    let weights = Weights::gamma(gamma.view()).beta(beta.view());
    let x = upload(DType::Bf16, &[TOKENS, ROW], &numbers(3, TOKENS * ROW));
    let dy = upload(DType::Bf16, &[TOKENS, ROW], &numbers(4, TOKENS * ROW));
    let rows = |buffer: &'_ Buffer| -> Buffer {
        upload(DType::Bf16, &[TOKENS * HEADS, HEAD_DIM], &read(buffer))
    };
    let (x_rows, dy_rows) = (rows(&x), rows(&dy));
    for kind in NormKind::ALL {
        let heads = prepare(options(kind));
        let of_heads = heads.forward(x.view(), &weights, None).unwrap();
        let norm = Norm::new(options(kind).norm.unwrap())
            .prepare(&cpu())
            .unwrap();
        let of_rows = norm.forward(x_rows.view(), &weights).unwrap();
        assert_eq!(of_heads.y.shape(), [TOKENS, ROW]);
        assert_eq!(read(&of_heads.y), read(&of_rows.y));
        let rstd = of_heads.rstd.as_ref().unwrap();
        assert_eq!(rstd.shape(), [TOKENS, HEADS]);
        assert_eq!(read(rstd), read(&of_rows.rstd));
        assert_eq!(of_heads.mean.is_some(), kind == NormKind::Layer);

        let saved = of_heads.saved().unwrap();
        let of_heads = heads
            .backward(Some(x.view()), &weights, Some(&saved), None, dy.view())
            .unwrap();
        let of_rows = norm
            .backward(
                x_rows.view(),
                &weights,
                &of_rows.saved(),
                dy_rows.view(),
                None,
            )
            .unwrap();
        assert_eq!(read(&of_heads.dx), read(&of_rows.dx));
        for (heads, rows) in [
            (of_heads.dgamma, of_rows.dgamma),
            (of_heads.dbeta, of_rows.dbeta),
        ] {
            assert_eq!(read(&heads.unwrap()), read(&rows.unwrap()));
        }
    }
}

#[test]
fn weights_of_each_head_are_its_own() {
    let gamma = numbers(5, ROW);
    let all = upload(DType::F32, &[HEADS, HEAD_DIM], &gamma);
    let x = upload(
        DType::F32,
        &[TOKENS, HEADS, HEAD_DIM],
        &numbers(6, TOKENS * ROW),
    );
    let dy = upload(
        DType::F32,
        &[TOKENS, HEADS, HEAD_DIM],
        &numbers(7, TOKENS * ROW),
    );
    let op = prepare(options(NormKind::Layer));
    let run = |weights: &Weights<'_>| {
        let forward = op.forward(x.view(), weights, None).unwrap();
        let saved = forward.saved();
        let backward = op.backward(Some(x.view()), weights, saved.as_ref(), None, dy.view());
        (read(&forward.y), backward.unwrap())
    };
    let (y, gradients) = run(&Weights::gamma(all.view()));
    let dgamma = gradients.dgamma.unwrap();
    assert_eq!(dgamma.shape(), [HEADS, HEAD_DIM]);
    for head in 0..HEADS {
        // With the head's gamma for all heads, its part is the same.
        let part = head * HEAD_DIM..(head + 1) * HEAD_DIM;
        let one = upload(DType::F32, &[HEAD_DIM], &gamma[part.clone()]);
        let (y_one, gradients_one) = run(&Weights::gamma(one.view()));
        for token in 0..TOKENS {
            let part = token * ROW + part.start..token * ROW + part.end;
            assert_eq!(y[part.clone()], y_one[part.clone()]);
            assert_eq!(
                read(&gradients.dx)[part.clone()],
                read(&gradients_one.dx)[part]
            );
        }
    }
    // dgamma of one gamma for all heads is the sum over the heads.
    let one = upload(DType::F32, &[HEAD_DIM], &gamma[..HEAD_DIM]);
    let (_, gradients_one) = run(&Weights::gamma(one.view()));
    let dgamma = read(&dgamma);
    let sums: Vec<f64> = (0..HEAD_DIM)
        .map(|j| dgamma[j] + dgamma[HEAD_DIM + j])
        .collect();
    // Each part was rounded to f32, and lies within 64.
    let parts = 2.0 * 64.0 * 2.0_f64.powi(40 - 24);
    assert_rounded(
        &read(&gradients_one.dgamma.unwrap()),
        &sums,
        DType::F32,
        parts,
    );
}

#[test]
fn a_rotation_turns_the_normalized_head_and_its_gradient_back() {
    let (cos, sin) = tables(TOKENS);
    let (c, s) = (read(&cos), read(&sin));
    let tables = RotaryTables::new(cos.view(), sin.view());
    let x = upload(DType::F32, &[TOKENS, ROW], &numbers(8, TOKENS * ROW));
    let dy = upload(DType::F32, &[TOKENS, ROW], &numbers(9, TOKENS * ROW));
    let none = Weights::default();
    let turn = |values: &mut [f64], pairing: Pairing, back: bool| {
        for (row, head) in values.chunks_mut(HEAD_DIM).enumerate() {
            for i in 0..WIDTH / 2 {
                let at = row / HEADS * (WIDTH / 2) + i;
                let (c, s) = (c[at], if back { -s[at] } else { s[at] });
                let (p, q) = match pairing {
                    Pairing::Interleaved => (2 * i, 2 * i + 1),
                    Pairing::HalfSplit => (i, i + WIDTH / 2),
                };
                let (a, b) = (head[p], head[q]);
                (head[p], head[q]) = (a * c - b * s, a * s + b * c);
            }
        }
    };
    for pairing in Pairing::ALL {
        // A rotation alone: f32 holds the products of these numbers but not their sums.
        let op = prepare(HeadNormOptions::rotary_only(Rotary::new(pairing, WIDTH)));
        let forward = op.forward(x.view(), &none, Some(&tables)).unwrap();
        assert!(forward.saved().is_none());
        let mut want = read(&x);
        turn(&mut want, pairing, false);
        assert_rounded(&read(&forward.y), &want, DType::F32, 0.0);
        let backward = op.backward(None, &none, None, Some(&tables), dy.view());
        let mut want = read(&dy);
        turn(&mut want, pairing, true);
        assert_rounded(&read(&backward.unwrap().dx), &want, DType::F32, 0.0);

        // After a norm: rounded once, so within the roundings of a norm that was stored between.
        let both = prepare(options(NormKind::Rms).rotary(pairing, WIDTH));
        let norm = prepare(options(NormKind::Rms));
        let turned = both.forward(x.view(), &none, Some(&tables)).unwrap();
        let plain = norm.forward(x.view(), &none, None).unwrap();
        let mut want = read(&plain.y);
        turn(&mut want, pairing, false);
        let stored = 2.0 * 2.0 * 4.0 * 2.0_f64.powi(40 - 24);
        assert_rounded(&read(&turned.y), &want, DType::F32, stored);
        let mut turned_dy = read(&dy);
        turn(&mut turned_dy, pairing, true);
        let turned_dy = upload(DType::F32, &[TOKENS, ROW], &turned_dy);
        let (saved, x) = (turned.saved(), Some(x.view()));
        let got = both.backward(x, &none, saved.as_ref(), Some(&tables), dy.view());
        let want = norm.backward(x, &none, saved.as_ref(), None, turned_dy.view());
        let (got, want) = (read(&got.unwrap().dx), read(&want.unwrap().dx));
        // The gradient that was stored between lies within 8, and norms multiply it by at most 8.
        assert_rounded(&got, &want, DType::F32, 2.0 * 64.0 * 2.0_f64.powi(40 - 24));
    }
}

#[test]
fn positions_choose_the_angles() {
    let (cos, sin) = tables(8);
    let rotary = Rotary::new(Pairing::HalfSplit, WIDTH);
    let stream = cpu();
    let op = HeadNorm::new(HeadNormOptions::rotary_only(rotary), HEADS);
    let op = op.prepare(&stream).unwrap();
    let x = upload(DType::F32, &[TOKENS, ROW], &numbers(10, TOKENS * ROW));
    let run = |dtype, ids: &[f64]| {
        let ids = upload(dtype, &[ids.len()], ids);
        let tables = RotaryTables::new(cos.view(), sin.view()).positions(ids.view());
        read(
            &op.forward(x.view(), &Weights::default(), Some(&tables))
                .unwrap()
                .y,
        )
    };
    let in_order = RotaryTables::new(cos.view(), sin.view());
    let in_order = op.forward(x.view(), &Weights::default(), Some(&in_order));
    let in_order = read(&in_order.unwrap().y);
    for dtype in [DType::I64, DType::I32, DType::U32] {
        assert_eq!(run(dtype, &[0.0, 1.0, 2.0]), in_order);
        let moved = run(dtype, &[0.0, 5.0, 2.0]);
        assert_eq!(moved[..ROW], in_order[..ROW]);
        assert_ne!(moved[ROW..2 * ROW], in_order[ROW..2 * ROW]);
        assert_eq!(moved[2 * ROW..], in_order[2 * ROW..]);
    }
    stream.check().unwrap();
    let outside = run(DType::I32, &[0.0, -1.0, 2.0]);
    assert!(outside[ROW..2 * ROW].iter().all(|y| y.is_nan()));
    assert_eq!(outside[2 * ROW..], in_order[2 * ROW..]);
    let error = crate::Error::Data(Status::POSITION_OUT_OF_RANGE);
    assert_eq!(stream.check(), Err(error));
}

#[test]
fn heads_within_a_packed_projection_are_normalized_in_place() {
    let (cos, sin) = tables(TOKENS);
    let tables = RotaryTables::new(cos.view(), sin.view());
    let gamma = upload(DType::F32, &[HEADS, HEAD_DIM], &numbers(11, ROW));
    let weights = Weights::gamma(gamma.view());
    for dtype in FLOATS {
        let op = prepare(options(NormKind::Layer).rotary(Pairing::Interleaved, WIDTH));
        let (x, dy) = (numbers(12, TOKENS * ROW), numbers(13, TOKENS * ROW));
        // Contiguous heads, apart.
        let shape = [TOKENS, HEADS, HEAD_DIM];
        let (x3, dy3) = (upload(dtype, &shape, &x), upload(dtype, &shape, &dy));
        let apart = op.forward(x3.view(), &weights, Some(&tables)).unwrap();
        let saved = apart.saved();
        let gradients = op
            .backward(
                Some(x3.view()),
                &weights,
                saved.as_ref(),
                Some(&tables),
                dy3.view(),
            )
            .unwrap();
        assert_eq!(gradients.dx.shape(), shape);
        let dgamma = read(&gradients.dgamma.unwrap());

        // The first third of rows three times as long, in place.
        let mut packed = Matrix::new(dtype, &x, ROW, 2 * ROW);
        let (mut r, mut mean) = (zeros(&[TOKENS, HEADS]), zeros(&[TOKENS, HEADS]));
        let mut statistics = Statistics::rstd(r.view_mut()).mean(mean.view_mut());
        op.forward_in_place(packed.view_mut(), &weights, Some(&tables), &mut statistics)
            .unwrap();
        assert_eq!(packed.read(), read(&apart.y));
        assert_eq!(read(&r), read(apart.rstd.as_ref().unwrap()));
        assert_eq!(read(&mean), read(apart.mean.as_ref().unwrap()));

        let x = Matrix::new(dtype, &x, ROW, ROW);
        let mut packed = Matrix::new(dtype, &dy, ROW, 2 * ROW);
        let mut sums = zeros(&[HEADS, HEAD_DIM]);
        let mut workspace = bytes(op.backward_workspace_bytes(TOKENS, HEAD_DIM));
        let mut outputs = GradientOutputs::default()
            .dgamma(sums.view_mut())
            .workspace(workspace.view_mut());
        let (x, dy) = (Some(x.view()), packed.view_mut());
        op.backward_in_place(x, &weights, saved.as_ref(), Some(&tables), dy, &mut outputs)
            .unwrap();
        assert_eq!(packed.read(), read(&gradients.dx));
        assert_eq!(read(&sums), dgamma);
    }
}

#[test]
fn heads_may_lie_apart_and_in_batches() {
    let op = prepare(options(NormKind::Rms));
    let values = numbers(14, 2 * TOKENS * ROW);
    let none = Weights::default();
    let packed = upload(DType::F32, &[2 * TOKENS, ROW], &values);
    let want = read(&op.forward(packed.view(), &none, None).unwrap().y);
    let batches = upload(DType::F32, &[2, TOKENS, HEADS, HEAD_DIM], &values);
    let result = op.forward(batches.view(), &none, None).unwrap();
    assert_eq!(result.y.shape(), batches.shape());
    assert_eq!(read(&result.y), want);
    assert_eq!(result.rstd.unwrap().shape(), [2 * TOKENS, HEADS]);
    // Each head followed by padding, into packed heads.
    let apart = Matrix::new(DType::F32, &values, HEAD_DIM, 5);
    let apart = apart
        .view()
        .reshape(&[2 * TOKENS, HEADS, HEAD_DIM])
        .unwrap();
    let mut y = Matrix::empty(DType::F32, 2 * TOKENS, ROW, 1);
    op.forward_into(apart, &none, None, y.view_mut(), &mut Statistics::default())
        .unwrap();
    assert_eq!(y.read(), want);
}

#[test]
fn a_rotation_alone_is_turned_back_in_place() {
    // A right angle: exact.
    let cos = upload(DType::Bf16, &[TOKENS, 1], &[0.0; TOKENS]);
    let sin = upload(DType::Bf16, &[TOKENS, 1], &[1.0; TOKENS]);
    let tables = RotaryTables::new(cos.view(), sin.view());
    let rotary = Rotary::new(Pairing::Interleaved, 2);
    let op = prepare(HeadNormOptions::rotary_only(rotary));
    let values = numbers(15, TOKENS * ROW);
    let mut x = Matrix::new(DType::Bf16, &values, ROW, 3);
    let none = Weights::default();
    op.forward_in_place(
        x.view_mut(),
        &none,
        Some(&tables),
        &mut Statistics::default(),
    )
    .unwrap();
    assert_ne!(x.read(), values);
    let outputs = &mut GradientOutputs::default();
    op.backward_in_place(None, &none, None, Some(&tables), x.view_mut(), outputs)
        .unwrap();
    assert_eq!(x.read(), values);
}

#[test]
fn no_tokens_are_nothing_to_do() {
    let op = prepare(options(NormKind::Rms));
    let empty = cpu().zeros(DType::F16, &[0, HEADS, HEAD_DIM]).unwrap();
    let gamma = upload(DType::F32, &[HEADS, HEAD_DIM], &numbers(16, ROW));
    let weights = Weights::gamma(gamma.view());
    let forward = op.forward(empty.view(), &weights, None).unwrap();
    let saved = forward.saved();
    let x = Some(empty.view());
    let gradients = op.backward(x, &weights, saved.as_ref(), None, empty.view());
    assert_eq!(read(&gradients.unwrap().dgamma.unwrap()), [0.0; ROW]);
}
