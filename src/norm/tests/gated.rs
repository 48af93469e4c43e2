//! A normalization times a gate.

use super::{FLOATS, Matrix, Plain, assert_rounded, bytes, cpu, numbers, read, upload, zeros};
use crate::norm::{GatedNorm, GradientOutputs, NormKind, NormOptions, Statistics, Weights};
use crate::{DType, Status};

const ROWS: usize = 4;
const COLUMNS: usize = 5;
const EPS: f32 = 0.125;

fn silu(z: f64) -> f64 {
    z / (1.0 + (-z).exp())
}

/// d silu(z) / dz.
fn slope(z: f64) -> f64 {
    let sigmoid = 1.0 / (1.0 + (-z).exp());
    sigmoid + z * sigmoid * (1.0 - sigmoid)
}

#[test]
fn both_passes_follow_the_formula() {
    let gamma = numbers(1, COLUMNS);
    let beta = numbers(2, COLUMNS);
    let gammas = upload(DType::Bf16, &[COLUMNS], &gamma);
    let betas = upload(DType::F32, &[COLUMNS], &beta);
    let weights = Weights::gamma(gammas.view()).beta(betas.view());
    for kind in NormKind::ALL {
        let op = GatedNorm::new(NormOptions::new(kind).eps(EPS));
        let op = op.prepare(&cpu()).unwrap();
        let plain = Plain {
            layer: kind == NormKind::Layer,
            eps: EPS.into(),
        };
        for (i, input) in FLOATS.into_iter().enumerate() {
            let (gate, output) = (FLOATS[(i + 1) % 3], FLOATS[(i + 2) % 3]);
            let of = |seed| numbers(seed, ROWS * COLUMNS);
            let values = [of(3), of(4), of(5)];
            let x = Matrix::new(input, &values[0], COLUMNS, 1);
            let z = Matrix::new(gate, &values[1], COLUMNS, 2);
            let dy = Matrix::new(output, &values[2], COLUMNS, 0);
            let mut y = Matrix::empty(output, ROWS, COLUMNS, 3);
            let none = &mut Statistics::default();
            op.forward_into(x.view(), z.view(), &weights, y.view_mut(), none)
                .unwrap();
            let forward = op.forward(x.view(), z.view(), &weights).unwrap();
            assert_eq!(forward.y.dtype(), input);

            let mut dx = Matrix::empty(gate, ROWS, COLUMNS, 2);
            let mut dz = Matrix::empty(input, ROWS, COLUMNS, 1);
            let (mut dgamma, mut dbeta) = (zeros(&[COLUMNS]), zeros(&[COLUMNS]));
            let mut workspace = bytes(op.backward_workspace_bytes(ROWS, COLUMNS));
            let mut outputs = GradientOutputs::default()
                .dgamma(dgamma.view_mut())
                .dbeta(dbeta.view_mut())
                .workspace(workspace.view_mut());
            op.backward_into(
                x.view(),
                z.view(),
                &weights,
                &forward.saved(),
                dy.view(),
                dx.view_mut(),
                dz.view_mut(),
                &mut outputs,
            )
            .unwrap();

            let mut want = (vec![], vec![], vec![]);
            let mut sums = (vec![0.0; COLUMNS], vec![0.0; COLUMNS]);
            for row in 0..ROWS {
                let [x, z, dy] = values.each_ref().map(|v| &v[row * COLUMNS..][..COLUMNS]);
                let n = plain.forward(x, &gamma, &beta);
                let dn: Vec<f64> = dy.iter().zip(z).map(|(dy, z)| dy * silu(*z)).collect();
                want.0.extend(n.iter().zip(z).map(|(n, z)| n * silu(*z)));
                want.1.extend(plain.backward(x, &gamma, &dn));
                want.2
                    .extend((0..COLUMNS).map(|j| dy[j] * n[j] * slope(z[j])));
                for (j, h) in plain.normalized(x).iter().enumerate() {
                    sums.0[j] += dn[j] * h;
                    sums.1[j] += dn[j];
                }
            }
            assert_rounded(&y.read(), &want.0, output, 64.0);
            assert_rounded(&read(&forward.y), &want.0, input, 64.0);
            assert_rounded(&dx.read(), &want.1, gate, 64.0);
            assert_rounded(&dz.read(), &want.2, input, 64.0);
            assert_rounded(&read(&dgamma), &sums.0, DType::F32, 64.0);
            assert_rounded(&read(&dbeta), &sums.1, DType::F32, 64.0);

            let all = op
                .backward(x.view(), z.view(), &weights, &forward.saved(), dy.view())
                .unwrap();
            assert_eq!((all.dx.dtype(), all.dz.dtype()), (input, gate));
            assert_rounded(&read(&all.dx), &want.1, input, 64.0);
            assert_rounded(&read(&all.dz), &want.2, gate, 64.0);
            assert_eq!(read(&all.dgamma.unwrap()), read(&dgamma));
            assert_eq!(read(&all.dbeta.unwrap()), read(&dbeta));
        }
    }
}

#[test]
fn a_faulty_gate_makes_its_row_nan() {
    let stream = cpu();
    let op = GatedNorm::new(NormOptions::rms()).prepare(&stream).unwrap();
    let x = upload(DType::F32, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let z = upload(DType::F32, &[2, 2], &[1.0, f64::NAN, 1.0, 1.0]);
    let none = Weights::default();
    let result = op.forward(x.view(), z.view(), &none).unwrap();
    let (y, rstd) = (read(&result.y), read(&result.rstd));
    assert!(y[..2].iter().all(|y| y.is_nan()) && y[2..].iter().all(|y| y.is_finite()));
    assert!(rstd[0].is_nan() && rstd[1].is_finite());
    let error = crate::Error::Data(Status::NON_FINITE_ROW);
    assert_eq!(stream.check(), Err(error));
}
