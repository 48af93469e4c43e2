//! `RmsNorm` and `LayerNorm` of rows.

use super::{FLOATS, Matrix, Plain, assert_rounded, bytes, cpu, numbers, read, upload, zeros};
use crate::norm::{
    GradientOutputs, Norm, NormKind, NormOptions, PreparedNorm, Saved, Statistics, Weights,
};
use crate::{Buffer, DType, Status};

const EPS: f32 = 0.125;

fn options(kind: NormKind) -> NormOptions {
    NormOptions::new(kind).eps(EPS).zero_centred()
}

fn prepare(kind: NormKind) -> PreparedNorm {
    Norm::new(options(kind)).prepare(&cpu()).unwrap()
}

fn plain(kind: NormKind) -> Plain {
    Plain {
        layer: kind == NormKind::Layer,
        eps: EPS.into(),
    }
}

/// gamma and beta of `columns`, in types of their own, and what they multiply and add.
struct Given {
    gamma: Buffer,
    beta: Buffer,
    factor: Vec<f64>,
    term: Vec<f64>,
}

impl Given {
    fn new(columns: usize) -> Self {
        let (gamma, beta) = (numbers(90, columns), numbers(91, columns));
        Self {
            gamma: upload(DType::Bf16, &[columns], &gamma),
            beta: upload(DType::F16, &[columns], &beta),
            factor: gamma.iter().map(|gamma| gamma + 1.0).collect(),
            term: beta,
        }
    }

    fn weights(&self) -> Weights<'_> {
        Weights::gamma(self.gamma.view()).beta(self.beta.view())
    }
}

const ROWS: usize = 5;
const COLUMNS: usize = 7;

#[test]
fn a_row_by_hand() {
    let x = upload(DType::F32, &[1, 2], &[1.0, 7.0]);
    let gamma = upload(DType::F32, &[2], &[1.0, 0.5]);
    let beta = upload(DType::F32, &[2], &[0.0, 10.0]);
    let weights = Weights::gamma(gamma.view()).beta(beta.view());
    let forward = |norm: Norm| {
        let op = norm.eps(0.0).prepare(&cpu()).unwrap();
        op.forward(x.view(), &weights).unwrap()
    };
    let rms = forward(Norm::rms()); // mean(x^2) = 25
    assert_eq!(rms.y.read::<f32>().unwrap(), [0.2, 10.7]);
    assert_eq!(rms.rstd.read::<f32>().unwrap(), [0.2]);
    assert!(rms.mean.is_none() && rms.stream.is_none());
    let layer = forward(Norm::layer().zero_centred()); // mean 4, deviations 3
    assert_eq!(layer.y.read::<f32>().unwrap(), [-2.0, 11.5]);
    assert_eq!(layer.mean.unwrap().read::<f32>().unwrap(), [4.0]);
    assert_eq!(layer.rstd.read::<f32>().unwrap(), [1.0 / 3.0]);
}

#[test]
fn forwards_of_any_types_and_strides_follow_the_formula() {
    let given = Given::new(COLUMNS);
    for kind in NormKind::ALL {
        let (op, plain) = (prepare(kind), plain(kind));
        for (seed, input) in FLOATS.into_iter().enumerate() {
            for output in FLOATS {
                let values = numbers(seed, ROWS * COLUMNS);
                let x = Matrix::new(input, &values, COLUMNS, 3);
                let mut y = Matrix::empty(output, ROWS, COLUMNS, 2);
                let (mut rstd, mut mean) = (zeros(&[ROWS]), zeros(&[ROWS]));
                let mut statistics = Statistics::rstd(rstd.view_mut());
                if plain.layer {
                    statistics = statistics.mean(mean.view_mut());
                }
                let weights = given.weights();
                op.forward_into(x.view(), &weights, y.view_mut(), &mut statistics)
                    .unwrap();
                let rows = values.chunks(COLUMNS);
                let want: Vec<f64> = rows
                    .clone()
                    .flat_map(|x| plain.forward(x, &given.factor, &given.term))
                    .collect();
                assert_rounded(&y.read(), &want, output, 16.0);
                let (means, rs): (Vec<f64>, Vec<f64>) = rows.map(|x| plain.moments(x)).unzip();
                assert_rounded(&read(&rstd), &rs, DType::F32, 4.0);
                assert_rounded(&read(&mean), &means, DType::F32, 4.0);
            }
        }
    }
}

#[test]
fn the_stream_is_rounded_before_it_is_normalized() {
    for kind in NormKind::ALL {
        let (op, plain) = (prepare(kind), plain(kind));
        // A sum that bf16 does not hold.
        let (x, residual) = (numbers(1, ROWS * COLUMNS), numbers(2, ROWS * COLUMNS));
        let x: Vec<f64> = x.iter().map(|x| x / 64.0).collect();
        let (x, residual) = (
            upload(DType::F32, &[ROWS, COLUMNS], &x),
            upload(DType::Bf16, &[ROWS, COLUMNS], &residual),
        );
        let result = op
            .forward_residual(x.view(), residual.view(), &Weights::default())
            .unwrap();
        let stream = result.stream.unwrap();
        assert_eq!(
            (result.y.dtype(), stream.dtype()),
            (DType::F32, DType::Bf16)
        );
        let exact: Vec<f64> = read(&x)
            .iter()
            .zip(read(&residual))
            .map(|(x, r)| x + r)
            .collect();
        let stream = read(&stream);
        assert_ne!(stream, exact);
        assert_rounded(&stream, &exact, DType::Bf16, 0.0);
        let (ones, none) = ([1.0; COLUMNS], [0.0; COLUMNS]);
        let want = |s: &[f64]| -> Vec<f64> {
            let rows = s.chunks(COLUMNS);
            rows.flat_map(|s| plain.forward(s, &ones, &none)).collect()
        };
        assert_rounded(&read(&result.y), &want(&stream), DType::F32, 4.0);
    }
}

#[test]
fn backwards_of_any_types_and_strides_follow_the_formula() {
    let given = Given::new(COLUMNS);
    for kind in NormKind::ALL {
        let (op, plain) = (prepare(kind), plain(kind));
        let workspace_bytes = op.backward_workspace_bytes(ROWS, COLUMNS);
        for (seed, input) in FLOATS.into_iter().enumerate() {
            for output in FLOATS {
                let of = |seed| numbers(seed, ROWS * COLUMNS);
                let values = [of(seed), of(seed + 10), of(seed + 20)];
                let x = Matrix::new(input, &values[0], COLUMNS, 1);
                let dy = Matrix::new(output, &values[1], COLUMNS, 2);
                let dstream = Matrix::new(DType::F16, &values[2], COLUMNS, 0);
                let mut dx = Matrix::empty(output, ROWS, COLUMNS, 3);
                let mut dresidual = Matrix::empty(DType::F32, ROWS, COLUMNS, 4);
                let (mut dgamma, mut dbeta) = (zeros(&[COLUMNS]), zeros(&[COLUMNS]));
                let mut workspace = bytes(workspace_bytes);
                let forward = op.forward(x.view(), &given.weights()).unwrap();
                let mut outputs = GradientOutputs::default()
                    .dresidual(dresidual.view_mut())
                    .dgamma(dgamma.view_mut())
                    .dbeta(dbeta.view_mut())
                    .workspace(workspace.view_mut());
                for accumulate in [false, true] {
                    outputs.accumulate = accumulate;
                    op.backward_into(
                        x.view(),
                        &given.weights(),
                        &forward.saved(),
                        dy.view(),
                        Some(dstream.view()),
                        dx.view_mut(),
                        &mut outputs,
                    )
                    .unwrap();
                }
                let row = |values: &[f64], row| values[row * COLUMNS..][..COLUMNS].to_vec();
                let mut want = Vec::new();
                let mut sums = (vec![0.0; COLUMNS], vec![0.0; COLUMNS]);
                for i in 0..ROWS {
                    let [x, dy, dstream] = values.each_ref().map(|values| row(values, i));
                    let dx = plain.backward(&x, &given.factor, &dy);
                    want.extend(dx.iter().zip(&dstream).map(|(dx, ds)| dx + ds));
                    for (j, h) in plain.normalized(&x).iter().enumerate() {
                        // Twice: the second call added its own.
                        sums.0[j] += 2.0 * dy[j] * h;
                        sums.1[j] += 2.0 * dy[j];
                    }
                }
                assert_rounded(&dx.read(), &want, output, 64.0);
                assert_rounded(&dresidual.read(), &want, DType::F32, 64.0);
                // The first call rounds its sums too, which lie within 64, to 2^-24 of them.
                let twice = 64.0 * 2.0_f64.powi(40 - 24);
                assert_rounded(&read(&dgamma), &sums.0, DType::F32, twice);
                assert_rounded(&read(&dbeta), &sums.1, DType::F32, twice);
            }
        }
    }
}

#[test]
fn the_allocating_backward_gives_what_is_asked_for() {
    let given = Given::new(COLUMNS);
    let op = prepare(NormKind::Layer);
    let x = upload(DType::Bf16, &[ROWS, COLUMNS], &numbers(3, ROWS * COLUMNS));
    let dy = upload(DType::F32, &[ROWS, COLUMNS], &numbers(4, ROWS * COLUMNS));
    let both = given.weights();
    let forward = op.forward(x.view(), &both).unwrap();
    let all = op
        .backward(x.view(), &both, &forward.saved(), dy.view(), None)
        .unwrap();
    assert_eq!((all.dx.dtype(), all.dx.shape()), (DType::Bf16, x.shape()));
    let (dgamma, dbeta) = (all.dgamma.unwrap(), all.dbeta.unwrap());
    assert_eq!(
        (dgamma.dtype(), dgamma.shape()),
        (DType::F32, &[COLUMNS][..])
    );
    let dy_sums: Vec<f64> = (0..COLUMNS)
        .map(|j| read(&dy).iter().skip(j).step_by(COLUMNS).sum())
        .collect();
    assert_eq!(read(&dbeta), dy_sums);

    let gamma = Weights::gamma(given.gamma.view());
    let one = op
        .backward(x.view(), &gamma, &forward.saved(), dy.view(), None)
        .unwrap();
    assert_eq!(read(&one.dgamma.unwrap()), read(&dgamma));
    assert_eq!(read(&one.dx), read(&all.dx)); // beta has no part in dx
    assert!(one.dbeta.is_none());
    let none = Weights::default();
    let none = op.backward(x.view(), &none, &forward.saved(), dy.view(), None);
    let none = none.unwrap();
    assert!(none.dgamma.is_none() && none.dbeta.is_none());
}

#[test]
fn in_place_forms_give_the_bits_of_those_apart() {
    let given = Given::new(COLUMNS);
    let weights = given.weights();
    for kind in NormKind::ALL {
        let op = prepare(kind);
        for dtype in FLOATS {
            let of = |seed| Matrix::new(dtype, &numbers(seed, ROWS * COLUMNS), COLUMNS, 3);
            let empty = || Matrix::empty(dtype, ROWS, COLUMNS, 1);
            let (x, residual) = (of(5), of(6));

            let (mut both, mut apart) = (of(5), empty());
            let (mut r, mut s) = (zeros(&[ROWS]), zeros(&[ROWS]));
            let mut statistics = Statistics::rstd(r.view_mut());
            op.forward_into(x.view(), &weights, apart.view_mut(), &mut statistics)
                .unwrap();
            let mut statistics = Statistics::rstd(s.view_mut());
            op.forward_in_place(both.view_mut(), &weights, &mut statistics)
                .unwrap();
            assert_eq!(both.read(), apart.read());
            assert_eq!(read(&r), read(&s));

            let (mut y, mut stream) = (empty(), empty());
            let none = &mut Statistics::default();
            let into = (stream.view_mut(), y.view_mut());
            op.forward_residual_into(x.view(), residual.view(), &weights, into.0, into.1, none)
                .unwrap();
            let (mut becomes_y, mut becomes_stream) = (of(5), of(6));
            let over = (becomes_y.view_mut(), becomes_stream.view_mut());
            op.forward_residual_in_place(over.0, over.1, &weights, none)
                .unwrap();
            assert_eq!(becomes_y.read(), y.read());
            assert_eq!(becomes_stream.read(), stream.read());

            let (mut dx, mut over) = (empty(), of(7));
            let forward = op.forward(x.view(), &weights).unwrap();
            let (saved, dy) = (forward.saved(), of(7));
            let none = &mut GradientOutputs::default();
            let (into, dstream) = (dx.view_mut(), Some(residual.view()));
            op.backward_into(x.view(), &weights, &saved, dy.view(), dstream, into, none)
                .unwrap();
            op.backward_in_place(x.view(), &weights, &saved, over.view_mut(), dstream, none)
                .unwrap();
            assert_eq!(over.read(), dx.read());
        }
    }
}

#[test]
fn rows_are_all_dimensions_but_the_last() {
    let op = prepare(NormKind::Rms);
    let values = numbers(8, 24);
    let flat = upload(DType::F32, &[6, 4], &values);
    let flat = read(&op.forward(flat.view(), &Weights::default()).unwrap().y);
    let deep = upload(DType::F32, &[1, 2, 3, 4], &values);
    let result = op.forward(deep.view(), &Weights::default()).unwrap();
    assert_eq!(result.y.shape(), [1, 2, 3, 4]);
    assert_eq!(result.rstd.shape(), [6]);
    assert_eq!(read(&result.y), flat);
    let row = upload(DType::F32, &[4], &values[..4]);
    let result = op.forward(row.view(), &Weights::default()).unwrap();
    assert_eq!(read(&result.y), flat[..4]);
}

#[test]
fn no_rows_are_nothing_to_do() {
    let op = prepare(NormKind::Layer);
    let given = Given::new(COLUMNS);
    let empty = cpu().zeros(DType::Bf16, &[0, COLUMNS]).unwrap();
    let forward = op
        .forward_residual(empty.view(), empty.view(), &given.weights())
        .unwrap();
    assert_eq!(forward.y.elements(), 0);
    let saved = forward.saved();
    let gradients = op
        .backward(empty.view(), &given.weights(), &saved, empty.view(), None)
        .unwrap();
    assert_eq!(read(&gradients.dgamma.unwrap()), [0.0; COLUMNS]);
    assert_eq!(read(&gradients.dbeta.unwrap()), [0.0; COLUMNS]);

    let mut kept = upload(DType::F32, &[COLUMNS], &[3.0; COLUMNS]);
    let mut dx = Matrix::empty(DType::F32, 0, COLUMNS, 0);
    for (accumulate, want) in [(true, 3.0), (false, 0.0)] {
        let mut outputs = GradientOutputs {
            dgamma: Some(kept.view_mut()),
            accumulate,
            ..GradientOutputs::default()
        };
        let (x, weights, dx) = (empty.view(), given.weights(), dx.view_mut());
        op.backward_into(x, &weights, &saved, x, None, dx, &mut outputs)
            .unwrap();
        assert_eq!(read(&kept), [want; COLUMNS]);
    }
}

#[test]
fn a_faulty_row_is_told_and_stays_alone() {
    for kind in NormKind::ALL {
        let stream = cpu();
        let op = Norm::new(options(kind)).prepare(&stream).unwrap();
        let mut values = numbers(9, 12);
        let fine = upload(DType::F32, &[3, 4], &values);
        let fine = read(&op.forward(fine.view(), &Weights::default()).unwrap().y);
        stream.check().unwrap();
        values[5] = f64::INFINITY;
        let x = upload(DType::F32, &[3, 4], &values);
        let result = op.forward(x.view(), &Weights::default()).unwrap();
        let y = read(&result.y);
        assert!(y[4..8].iter().all(|y| y.is_nan()));
        assert_eq!((&y[..4], &y[8..]), (&fine[..4], &fine[8..]));
        assert!(read(&result.rstd)[1].is_nan());
        assert_eq!(
            stream.check(),
            Err(crate::Error::Data(Status::NON_FINITE_ROW))
        );
    }
}

#[test]
fn what_was_saved_can_be_given_by_hand() {
    let (rstd, mean) = (zeros(&[1]), zeros(&[1]));
    let saved = Saved::new(rstd.view()).mean(mean.view());
    let op = prepare(NormKind::Layer);
    let x = upload(DType::F32, &[1, 2], &[1.0, 2.0]);
    let none = Weights::default();
    assert!(op.backward(x.view(), &none, &saved, x.view(), None).is_ok());
    assert_eq!(op.options(), &options(NormKind::Layer));
}
