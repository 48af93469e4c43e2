use super::*;
use crate::norm::fixtures::{FLOATS, Padded, alias, bits, cpu, numbers, read, refused, rounded};
use crate::reference::norm::spectral as reference;
use crate::reference::{FloatRows, FloatRowsMut};
use crate::{Error, Status};

const SHAPE: [usize; 3] = [2, 3, 4];
const STRIDES: [usize; 2] = [12, 4];

fn f32s(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// W = diag(3, 1) times the exchange of the two axes, whose singular vectors are known.
#[test]
fn one_weight_by_hand() {
    let stream = cpu();
    let w = stream.upload(&[2, 2], &[0.0_f32, 3.0, 1.0, 0.0]).unwrap();
    let mut u = stream.upload(&[2], &[0.0_f32, 1.0]).unwrap();
    let mut v = stream.zeros(DType::F32, &[2]).unwrap();
    let gamma = stream.upload(&[1], &[6.0_f32]).unwrap();
    let op = SpectralNorm::default().prepare(&stream).unwrap();
    let mut vectors = SpectralVectors::new(u.view_mut(), v.view_mut());
    let result = op.forward_scaled(w.view(), &mut vectors, Some(gamma.view()));
    let result = result.unwrap();
    assert_eq!(read(&result.sigma), [3.0]);
    assert_eq!(read(&result.scale), [2.0]);
    assert_eq!(read(&result.scaled), [0.0, 6.0, 2.0, 0.0]);
    assert_eq!((read(&u), read(&v)), (vec![0.0, 1.0], vec![1.0, 0.0]));

    // <G, W> = 3 * 5 + 7 = 22, and v u^T has its one at the first row's end.
    let dscaled = stream.upload(&[2, 2], &[1.0_f32, 5.0, 7.0, 0.0]).unwrap();
    let saved = SpectralSaved::new(u.view(), v.view(), result.sigma.view());
    let gradients = op.backward(w.view(), &saved, Some(gamma.view()), dscaled.view());
    let gradients = gradients.unwrap();
    let along = (2.0 * (5.0 - 22.0 / 3.0)) as f32;
    assert_eq!(read(&gradients.dw), [2.0, f64::from(along), 14.0, 0.0]);
    let dgamma = gradients.dgamma.unwrap();
    assert_eq!(dgamma.read::<f32>().unwrap(), [(22.0_f64 / 3.0) as f32]);
    let bare = op.backward(w.view(), &saved, None, dscaled.view());
    assert!(bare.unwrap().dgamma.is_none());
}

/// Each type, padded rows, several weights and steps, with and without accumulation.
#[test]
fn results_are_the_reference_rounded_once() {
    let stream = cpu();
    let [batch, m, n] = SHAPE;
    let types = FLOATS.iter().flat_map(|&w| FLOATS.map(|other| (w, other)));
    for (index, (w_type, other)) in types.enumerate() {
        let (steps, accumulate) = (index as u32 % 3, index % 2 == 1);
        let options = SpectralNormOptions::new(steps);
        let w = rounded(w_type, &numbers(24, 1));
        let g = rounded(other, &numbers(24, 2));
        let gamma = rounded(DType::F32, &numbers(batch, 3));
        let (start_u, start_v) = (f32s(&numbers(batch * n, 4)), f32s(&numbers(batch * m, 5)));

        let (mut u, mut v) = (start_u.clone(), start_v.clone());
        let vectors = reference::Vectors {
            u: (&mut u).into(),
            v: (&mut v).into(),
        };
        let rows = FloatRows::heads(&w, SHAPE, STRIDES).unwrap();
        let mut scaled = vec![0.0; 24];
        let into = FloatRowsMut::heads(&mut scaled, SHAPE, STRIDES).unwrap();
        let gamma_floats = Some((&gamma).into());
        let forward = reference::forward(&options, rows, vectors, gamma_floats, Some(into));
        let forward = forward.unwrap();
        let sigmas = rounded(DType::F32, &forward.sigmas);
        let saved = reference::Saved {
            u: (&u).into(),
            v: (&v).into(),
            sigmas: (&sigmas).into(),
        };
        let start = if accumulate { 0.5 } else { 0.0 };
        let (mut dw, mut dgamma) = (vec![start; 24], vec![start; batch]);
        let into = FloatRowsMut::heads(&mut dw, SHAPE, STRIDES).unwrap();
        let from = FloatRows::heads(&g, SHAPE, STRIDES).unwrap();
        let dgamma_floats = Some((&mut dgamma).into());
        reference::backward(
            rows,
            saved,
            gamma_floats,
            from,
            into,
            dgamma_floats,
            accumulate,
        )
        .unwrap();

        let op = SpectralNorm::new(steps).prepare(&stream).unwrap();
        let w = Padded::new(&stream, w_type, &SHAPE, &w);
        let mut got_u = stream.upload(&[batch, n], &start_u).unwrap();
        let mut got_v = stream.upload(&[batch, m], &start_v).unwrap();
        let gamma = stream.upload(&[batch], &f32s(&gamma)).unwrap();
        let [mut sigma, mut scale] = [0, 1].map(|_| stream.zeros(DType::F32, &[batch]).unwrap());
        let mut got = Padded::blank(&stream, other, &SHAPE);
        let bytes = op.workspace_bytes(batch, m, n);
        let mut workspace = stream.uninitialised(DType::U8, &[bytes]).unwrap();
        let mut vectors = SpectralVectors::new(got_u.view_mut(), got_v.view_mut());
        let mut outputs =
            SpectralNormOutputs::new(sigma.view_mut(), scale.view_mut(), workspace.view_mut())
                .scaled(got.view_mut());
        op.forward_into(w.view(), &mut vectors, Some(gamma.view()), &mut outputs)
            .unwrap();
        assert_eq!(got_u.read::<f32>().unwrap(), u);
        assert_eq!(got_v.read::<f32>().unwrap(), v);
        assert_eq!(read(&sigma), sigmas);
        assert_eq!(read(&scale), rounded(DType::F32, &forward.scales));
        assert_eq!(bits(&got.values()), bits(&rounded(other, &scaled)));

        let g = Padded::new(&stream, other, &SHAPE, &g);
        let halves = vec![0.5; 24];
        let mut got = Padded::new(&stream, w_type, &SHAPE, &halves);
        let mut got_gamma = stream.upload(&[batch], &vec![0.5_f32; batch]).unwrap();
        let bytes = op.backward_workspace_bytes(batch, m, n);
        let mut workspace = stream.uninitialised(DType::U8, &[bytes]).unwrap();
        let mut outputs = SpectralNormGradientOutputs::new(got.view_mut(), workspace.view_mut())
            .dgamma(got_gamma.view_mut());
        outputs.accumulate = accumulate;
        let saved = SpectralSaved::new(got_u.view(), got_v.view(), sigma.view());
        let gamma = Some(gamma.view());
        op.backward_into(w.view(), &saved, gamma, g.view(), &mut outputs)
            .unwrap();
        assert_eq!(bits(&got.values()), bits(&rounded(w_type, &dw)));
        assert_eq!(read(&got_gamma), rounded(DType::F32, &dgamma));
    }
    stream.check().unwrap();
}

#[test]
fn a_matrix_and_nothing_are_batches() {
    let stream = cpu();
    let op = SpectralNorm::new(2).prepare(&stream).unwrap();
    let run = |shape: &[usize], batch: usize| {
        let w = stream.zeros(DType::Bf16, shape).unwrap();
        let mut u = stream.zeros(DType::F32, &[batch, 4]).unwrap();
        let mut v = stream.zeros(DType::F32, &[batch, 3]).unwrap();
        let mut vectors = SpectralVectors::new(u.view_mut(), v.view_mut());
        let result = op.forward_scaled(w.view(), &mut vectors, None).unwrap();
        let saved = SpectralSaved::new(u.view(), v.view(), result.sigma.view());
        let dw = op.backward(w.view(), &saved, None, w.view()).unwrap().dw;
        assert_eq!((result.scaled.shape(), dw.shape()), (shape, shape));
        assert!(read(&dw).iter().all(|&dw| dw == 0.0));
        assert_eq!(read(&result.scale), vec![0.0; batch]);
        stream.check()
    };
    let zero = Err(Error::Data(Status::ZERO_SIGMA));
    assert_eq!(run(&[3, 4], 1), zero);
    assert_eq!(run(&[2, 3, 4], 2), zero);
    assert_eq!(run(&[0, 3, 4], 0), Ok(()));
}

#[test]
fn a_weight_that_is_not_finite_is_reported() {
    let stream = cpu();
    let op = SpectralNorm::new(0).prepare(&stream).unwrap();
    let w = stream.upload(&[1, 1], &[f32::INFINITY]).unwrap();
    let mut one = [0, 1].map(|_| stream.upload(&[1], &[1.0_f32]).unwrap());
    let [u, v] = &mut one;
    let mut vectors = SpectralVectors::new(u.view_mut(), v.view_mut());
    op.forward(w.view(), &mut vectors, None).unwrap();
    assert_eq!(stream.check(), Err(Error::Data(Status::NON_FINITE_ROW)));
}

#[test]
fn each_wrong_argument_of_a_forward_is_named() {
    const OP: &str = "SpectralNorm::forward";
    let stream = cpu();
    let op = SpectralNorm::default().prepare(&stream).unwrap();
    let zeros = |dtype: DType, shape: &[usize]| stream.zeros(dtype, shape).unwrap();
    let f32s = |shape: &[usize]| zeros(DType::F32, shape);
    let w = f32s(&[3, 4]);
    let forward = |w: &Buffer, u: &mut Buffer, v: &mut Buffer, gamma: Option<&Buffer>| {
        let mut vectors = SpectralVectors::new(u.view_mut(), v.view_mut());
        op.forward(w.view(), &mut vectors, gamma.map(Buffer::view))
    };
    let (mut u, mut v) = (f32s(&[4]), f32s(&[3]));
    for wrong in [
        f32s(&[12]),
        f32s(&[1, 1, 3, 4]),
        f32s(&[0, 4]),
        f32s(&[3, 0]),
        zeros(DType::I32, &[3, 4]),
    ] {
        refused(forward(&wrong, &mut u, &mut v, None), OP, "w");
    }
    refused(forward(&w, &mut f32s(&[3]), &mut v, None), OP, "u");
    refused(
        forward(&w, &mut zeros(DType::F16, &[4]), &mut v, None),
        OP,
        "u",
    );
    refused(forward(&w, &mut u, &mut f32s(&[4]), None), OP, "v");
    let two = f32s(&[2]);
    refused(forward(&w, &mut u, &mut v, Some(&two)), OP, "gamma");

    let bytes = op.workspace_bytes(1, 3, 4);
    let mut workspace = zeros(DType::U8, &[bytes]);
    let mut short = zeros(DType::U8, &[bytes - 1]);
    let mut one = [0, 1].map(|_| f32s(&[1]));
    let [sigma, scale] = &mut one;
    let (mut two, mut wide) = (f32s(&[2]), f32s(&[3, 5]));
    let mut vectors = SpectralVectors::new(u.view_mut(), v.view_mut());
    let mut into = |mut outputs: SpectralNormOutputs<'_>| {
        op.forward_into(w.view(), &mut vectors, None, &mut outputs)
    };
    use SpectralNormOutputs as Outputs;
    let outputs = Outputs::new(two.view_mut(), scale.view_mut(), workspace.view_mut());
    refused(into(outputs), OP, "sigma");
    let outputs = Outputs::new(sigma.view_mut(), two.view_mut(), workspace.view_mut());
    refused(into(outputs), OP, "scale");
    let outputs = Outputs::new(sigma.view_mut(), scale.view_mut(), short.view_mut());
    refused(into(outputs), OP, "workspace");
    let outputs = Outputs::new(sigma.view_mut(), scale.view_mut(), workspace.view_mut());
    refused(into(outputs.scaled(wide.view_mut())), OP, "scaled");
    let outputs = Outputs::new(sigma.view_mut(), scale.view_mut(), workspace.view_mut());
    into(outputs).unwrap();
}

#[test]
fn each_wrong_argument_of_a_backward_is_named() {
    const OP: &str = "SpectralNorm::backward";
    let stream = cpu();
    let op = SpectralNorm::default().prepare(&stream).unwrap();
    let zeros = |dtype: DType, shape: &[usize]| stream.zeros(dtype, shape).unwrap();
    let f32s = |shape: &[usize]| zeros(DType::F32, shape);
    let (w, u, v, one) = (f32s(&[3, 4]), f32s(&[4]), f32s(&[3]), f32s(&[1]));
    let good = SpectralSaved::new(u.view(), v.view(), one.view());
    let backward = |saved: SpectralSaved<'_>, gamma: Option<&Buffer>, dscaled: &Buffer| {
        op.backward(w.view(), &saved, gamma.map(Buffer::view), dscaled.view())
    };
    refused(backward(good, None, &f32s(&[4, 3])), OP, "dscaled");
    refused(backward(good, Some(&v), &w), OP, "gamma");
    let wrong = SpectralSaved::new(v.view(), v.view(), one.view());
    refused(backward(wrong, None, &w), OP, "u");
    let wrong = SpectralSaved::new(u.view(), u.view(), one.view());
    refused(backward(wrong, None, &w), OP, "v");
    let wrong = SpectralSaved::new(u.view(), v.view(), u.view());
    refused(backward(wrong, None, &w), OP, "sigma");

    let bytes = op.backward_workspace_bytes(1, 3, 4);
    let (mut workspace, mut short) = (zeros(DType::U8, &[bytes]), zeros(DType::U8, &[1]));
    let (mut dw, mut wide) = (f32s(&[3, 4]), f32s(&[3, 5]));
    let (mut dgamma, mut two) = (f32s(&[1]), f32s(&[2]));
    let into = |gamma: Option<&Buffer>, mut outputs: SpectralNormGradientOutputs<'_>| {
        let gamma = gamma.map(Buffer::view);
        op.backward_into(w.view(), &good, gamma, w.view(), &mut outputs)
    };
    use SpectralNormGradientOutputs as Outputs;
    let outputs = Outputs::new(wide.view_mut(), workspace.view_mut());
    refused(into(None, outputs), OP, "dw");
    let outputs = Outputs::new(dw.view_mut(), short.view_mut());
    refused(into(None, outputs), OP, "workspace");
    let outputs = Outputs::new(dw.view_mut(), workspace.view_mut());
    let outputs = outputs.dgamma(dgamma.view_mut());
    refused(into(None, outputs), OP, "dgamma"); // there is no gamma
    let outputs = Outputs::new(dw.view_mut(), workspace.view_mut());
    let outputs = outputs.dgamma(two.view_mut());
    refused(into(Some(&one), outputs), OP, "dgamma");
    let outputs = Outputs::new(dw.view_mut(), workspace.view_mut());
    let outputs = outputs.dgamma(dgamma.view_mut()).accumulate();
    into(Some(&one), outputs).unwrap();
}

#[test]
fn what_is_written_may_not_overlap() {
    let stream = cpu();
    let op = SpectralNorm::default().prepare(&stream).unwrap();
    let memory = stream.zeros(DType::F32, &[12]).unwrap();
    let bytes = op.workspace_bytes(1, 2, 2).max(16);
    let mut workspace = stream.zeros(DType::U8, &[bytes]).unwrap();
    let w = alias(&memory, 0, &[2, 2]);
    let mut forward = |u: usize, scaled: usize| {
        let mut vectors = SpectralVectors::new(alias(&memory, u, &[2]), alias(&memory, 6, &[2]));
        let (sigma, scale) = (alias(&memory, 4, &[1]), alias(&memory, 5, &[1]));
        let mut outputs = SpectralNormOutputs::new(sigma, scale, workspace.view_mut())
            .scaled(alias(&memory, scaled, &[2, 2]));
        op.forward_into(w.as_ref(), &mut vectors, None, &mut outputs)
    };
    refused(forward(3, 8), "SpectralNorm::forward", "u");
    refused(forward(7, 8), "SpectralNorm::forward", "v");
    refused(forward(4, 8), "SpectralNorm::forward", "sigma");
}

#[test]
fn a_gradient_over_what_it_comes_from_is_refused() {
    let stream = cpu();
    let op = SpectralNorm::default().prepare(&stream).unwrap();
    let memory = stream.zeros(DType::F32, &[8]).unwrap();
    let ones = stream.upload(&[2], &[1.0_f32; 2]).unwrap();
    let one = ones.view().slice_rows(0..1).unwrap();
    let bytes = op.backward_workspace_bytes(1, 2, 2).max(16);
    let mut workspace = stream.zeros(DType::U8, &[bytes]).unwrap();
    let (w, dscaled) = (alias(&memory, 0, &[2, 2]), alias(&memory, 4, &[2, 2]));
    let saved = SpectralSaved::new(ones.view(), ones.view(), one);
    for first in [3, 4] {
        let dw = alias(&memory, first, &[2, 2]);
        let mut outputs = SpectralNormGradientOutputs::new(dw, workspace.view_mut());
        let result = op.backward_into(w.as_ref(), &saved, None, dscaled.as_ref(), &mut outputs);
        refused(result, "SpectralNorm::backward", "dw");
    }
}
