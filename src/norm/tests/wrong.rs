//! Every argument that does not fit, and the name that the error has for it.

use super::{Matrix, bytes, cpu, refused, upload, zeros};
use crate::fixtures::{again, elsewhere};
use crate::norm::{
    GatedNorm, GradientOutputs, HeadNorm, HeadNormOptions, Norm, NormOptions, Pairing,
    PreparedHeadNorm, PreparedNorm, Rotary, RotaryTables, Saved, Sdd, Statistics, Weights,
};
use crate::{Buffer, DType, TensorMut, TensorRef};

fn f32s(shape: &[usize]) -> Buffer {
    zeros(shape)
}

fn norm(options: NormOptions) -> PreparedNorm {
    Norm::new(options).prepare(&cpu()).unwrap()
}

#[test]
fn options() {
    let stream = cpu();
    assert_eq!(refused(Norm::rms().eps(-1.0).prepare(&stream)), "eps");
    let bad = NormOptions::layer().eps(f32::NAN);
    assert_eq!(refused(GatedNorm::new(bad).prepare(&stream)), "eps");
    let bad = HeadNormOptions::new(bad);
    assert_eq!(refused(HeadNorm::new(bad, 2).prepare(&stream)), "eps");
    let heads = HeadNorm::new(HeadNormOptions::default(), 0);
    assert_eq!(refused(heads.prepare(&stream)), "heads");
    let odd = HeadNorm::new(HeadNormOptions::default(), 2).rotary(Pairing::HalfSplit, 3);
    assert_eq!(refused(odd.prepare(&stream)), "rotary width");
}

#[test]
fn rows_of_a_forward() {
    let op = norm(NormOptions::rms());
    let none = Weights::default();
    let x = f32s(&[2, 4]);
    let forward = |x: TensorRef<'_>, y: TensorMut<'_>| {
        op.forward_into(x, &none, y, &mut Statistics::default())
    };
    let integers = upload(DType::I32, &[2, 4], &[0.0; 8]);
    let y = f32s(&[2, 4]);
    assert!(forward(x.view(), again(&y)).is_ok());
    assert_eq!(refused(forward(integers.view(), again(&y))), "x");
    assert_eq!(
        refused(forward(elsewhere(DType::F32, &[2, 4]), again(&y))),
        "x"
    );
    assert_eq!(refused(op.forward(integers.view(), &none)), "x");
    assert_eq!(refused(op.forward(f32s(&[2, 0]).view(), &none)), "x");
    assert_eq!(refused(forward(x.view(), again(&x))), "y");
    for shape in [[2, 3], [3, 4], [4, 2]] {
        assert_eq!(refused(forward(x.view(), f32s(&shape).view_mut())), "y");
    }
    let integers = upload(DType::I64, &[2, 4], &[0.0; 8]);
    assert_eq!(refused(forward(x.view(), again(&integers))), "y");

    let both = |residual: TensorRef<'_>, stream: TensorMut<'_>, y: TensorMut<'_>| {
        let statistics = &mut Statistics::default();
        op.forward_residual_into(x.view(), residual, &none, stream, y, statistics)
    };
    let residual = f32s(&[2, 4]);
    let stream = f32s(&[2, 4]);
    let wide = f32s(&[2, 5]);
    let got = both(residual.view(), again(&stream), again(&y));
    assert!(got.is_ok());
    let got = both(wide.view(), again(&stream), again(&y));
    assert_eq!(refused(got), "residual");
    let got = both(residual.view(), again(&wide), again(&y));
    assert_eq!(refused(got), "stream");
    let got = both(residual.view(), again(&residual), again(&y));
    assert_eq!(refused(got), "stream");
    let got = both(residual.view(), again(&y), again(&y));
    assert_eq!(refused(got), "stream");
    let got = op.forward_residual_in_place(again(&x), again(&x), &none, &mut Statistics::default());
    assert_eq!(refused(got), "residual");
}

#[test]
fn weights_and_statistics_of_a_forward() {
    let (rms, layer) = (norm(NormOptions::rms()), norm(NormOptions::layer()));
    let x = f32s(&[2, 4]);
    let (fits, short) = (f32s(&[4]), f32s(&[3]));
    let padded = Matrix::new(DType::F32, &[0.0; 4], 1, 1);
    let wide = upload(DType::I64, &[4], &[0.0; 4]);
    for wrong in [
        short.view(),
        padded.view(),
        wide.view(),
        elsewhere(DType::F32, &[4]),
    ] {
        let weights = Weights::gamma(wrong);
        assert_eq!(refused(rms.forward(x.view(), &weights)), "gamma");
        let weights = Weights::gamma(fits.view()).beta(wrong);
        assert_eq!(refused(layer.forward(x.view(), &weights)), "beta");
    }

    let forward = |op: &PreparedNorm, mut statistics: Statistics<'_>| {
        let y = f32s(&[2, 4]);
        op.forward_into(x.view(), &Weights::default(), again(&y), &mut statistics)
    };
    let (two, three) = (f32s(&[2]), f32s(&[3]));
    let half = upload(DType::F16, &[2], &[0.0; 2]);
    assert!(forward(&rms, Statistics::rstd(again(&two))).is_ok());
    assert_eq!(
        refused(forward(&rms, Statistics::rstd(again(&three)))),
        "rstd"
    );
    assert_eq!(
        refused(forward(&rms, Statistics::rstd(again(&half)))),
        "rstd"
    );
    assert_eq!(refused(forward(&rms, Statistics::rstd(again(&x)))), "rstd");
    let mean = |mean| Statistics::default().mean(mean);
    assert!(forward(&layer, mean(again(&two))).is_ok());
    assert_eq!(refused(forward(&layer, mean(again(&three)))), "mean");
    assert_eq!(refused(forward(&rms, mean(again(&two)))), "mean");
    let same = Statistics::rstd(again(&two)).mean(again(&two));
    assert_eq!(refused(forward(&layer, same)), "mean");
}

#[test]
fn backwards() {
    let (rms, layer) = (norm(NormOptions::rms()), norm(NormOptions::layer()));
    let (x, dy, weight, row) = (f32s(&[2, 4]), f32s(&[2, 4]), f32s(&[4]), f32s(&[2]));
    let weights = Weights::gamma(weight.view()).beta(weight.view());
    let saved = Saved::new(row.view());
    let (narrow, three) = (f32s(&[2, 3]), f32s(&[3]));
    let backward = |op: &PreparedNorm, x: &Buffer, saved: &Saved<'_>, dy: &Buffer| {
        op.backward(x.view(), &weights, saved, dy.view(), None)
    };
    assert!(backward(&rms, &x, &saved, &dy).is_ok());
    assert_eq!(refused(backward(&rms, &narrow, &saved, &dy)), "gamma");
    assert_eq!(refused(backward(&rms, &x, &saved, &narrow)), "dy");
    assert_eq!(
        refused(backward(&rms, &x, &Saved::new(three.view()), &dy)),
        "rstd"
    );
    assert_eq!(refused(backward(&layer, &x, &saved, &dy)), "mean");
    assert_eq!(
        refused(backward(&rms, &x, &saved.mean(row.view()), &dy)),
        "mean"
    );
    assert_eq!(
        refused(backward(&layer, &x, &saved.mean(three.view()), &dy)),
        "mean"
    );

    let into = |weights: &Weights<'_>, dx: TensorMut<'_>, mut outputs: GradientOutputs<'_>| {
        let dstream = Some(dy.view());
        rms.backward_into(
            x.view(),
            weights,
            &saved,
            dy.view(),
            dstream,
            dx,
            &mut outputs,
        )
    };
    let nothing = GradientOutputs::default;
    let (dx, dresidual) = (f32s(&[2, 4]), f32s(&[2, 4]));
    let (dgamma, short) = (f32s(&[4]), f32s(&[3]));
    let workspace = bytes(rms.backward_workspace_bytes(2, 4));
    let bytes_short = workspace.elements() - 1;
    assert!(into(&weights, again(&dx), nothing()).is_ok());
    assert_eq!(
        refused(into(&weights, f32s(&[2, 3]).view_mut(), nothing())),
        "dx"
    );
    assert_eq!(refused(into(&weights, again(&x), nothing())), "dx");
    assert_eq!(refused(into(&weights, again(&dy), nothing())), "dx");
    let wide = elsewhere(DType::F32, &[2, 4]);
    let outputs = &mut nothing();
    let got = rms.backward_in_place(x.view(), &weights, &saved, again(&dy), Some(wide), outputs);
    assert_eq!(refused(got), "dstream");
    let got = rms.backward_in_place(x.view(), &weights, &saved, again(&x), None, outputs);
    assert_eq!(refused(got), "dy");

    let outputs_of = |outputs: GradientOutputs<'_>| refused(into(&weights, again(&dx), outputs));
    let short_rows = &f32s(&[1, 4]);
    assert_eq!(
        outputs_of(nothing().dresidual(again(short_rows))),
        "dresidual"
    );
    assert_eq!(outputs_of(nothing().dresidual(again(&x))), "dresidual");
    assert_eq!(outputs_of(nothing().dalpha(again(&dgamma))), "dalpha");
    assert_eq!(outputs_of(nothing().dgamma(again(&dgamma))), "workspace");
    assert_eq!(outputs_of(nothing().dbeta(again(&dgamma))), "workspace");
    let less = again(&workspace).slice_rows(0..bytes_short).unwrap();
    let outputs = nothing().dgamma(again(&dgamma)).workspace(less);
    assert_eq!(outputs_of(outputs), "workspace");
    let outputs = nothing().workspace(again(&dresidual));
    assert_eq!(outputs_of(outputs), "workspace");
    let outputs = nothing().dgamma(again(&short));
    assert_eq!(outputs_of(outputs.workspace(again(&workspace))), "dgamma");
    let half = upload(DType::Bf16, &[4], &[0.0; 4]);
    let outputs = nothing().dbeta(again(&half));
    assert_eq!(outputs_of(outputs.workspace(again(&workspace))), "dbeta");
    let outputs = nothing().dgamma(again(&weight));
    assert_eq!(outputs_of(outputs.workspace(again(&workspace))), "dgamma");
    let outputs = nothing().dgamma(again(&dgamma)).dbeta(again(&dgamma));
    assert_eq!(outputs_of(outputs.workspace(again(&workspace))), "dbeta");

    let without = |weights: &Weights<'_>, outputs: GradientOutputs<'_>| {
        let outputs = outputs.workspace(again(&workspace));
        refused(into(weights, again(&dresidual), outputs))
    };
    let (gamma, beta) = (
        Weights::gamma(weight.view()),
        Weights::default().beta(weight.view()),
    );
    assert_eq!(without(&beta, nothing().dgamma(again(&dgamma))), "dgamma");
    assert_eq!(without(&gamma, nothing().dbeta(again(&dgamma))), "dbeta");
}

fn heads(options: HeadNormOptions) -> PreparedHeadNorm {
    HeadNorm::new(options, 2).prepare(&cpu()).unwrap()
}

#[test]
fn heads_weights_and_statistics() {
    let op = heads(HeadNormOptions::default());
    let none = Weights::default();
    for shape in [
        &[8][..],
        &[1, 7],
        &[2, 1, 4],
        &[1, 2, 1, 8],
        &[1, 0],
        &[1, 2, 0],
    ] {
        let x = f32s(shape);
        assert_eq!(refused(op.forward(x.view(), &none, None)), "x");
        let got = op.backward(None, &none, None, None, x.view());
        assert_eq!(refused(got), "dy");
    }
    let x = f32s(&[3, 2, 4]);
    for shape in [&[3, 9][..], &[2, 8], &[3, 3, 4]] {
        let y = f32s(shape);
        let statistics = &mut Statistics::default();
        let got = op.forward_into(x.view(), &none, None, again(&y), statistics);
        assert_eq!(refused(got), "y");
    }
    let (one, each, short) = (f32s(&[4]), f32s(&[2, 4]), f32s(&[2]));
    let weights = |gamma, beta| Weights::gamma(gamma).beta(beta);
    let got = op.forward(x.view(), &weights(short.view(), one.view()), None);
    assert_eq!(refused(got), "gamma");
    let got = op.forward(x.view(), &weights(one.view(), each.view()), None);
    assert_eq!(refused(got), "beta");
    let got = op.forward(x.view(), &weights(each.view(), one.view()), None);
    assert_eq!(refused(got), "beta");
    let tokens = f32s(&[3]);
    let got = op.forward_in_place(
        again(&x),
        &none,
        None,
        &mut Statistics::rstd(again(&tokens)),
    );
    assert_eq!(refused(got), "rstd");

    let (dy, rstd) = (f32s(&[3, 8]), f32s(&[6]));
    let saved = Saved::new(rstd.view());
    let backward =
        |x: Option<&Buffer>, saved| op.backward(x.map(Buffer::view), &none, saved, None, dy.view());
    assert!(backward(Some(&x), Some(&saved)).is_ok());
    assert_eq!(refused(backward(None, Some(&saved))), "x");
    assert_eq!(refused(backward(Some(&x), None)), "saved");
    assert_eq!(refused(backward(Some(&each), Some(&saved))), "x");
    let saved = Saved::new(tokens.view());
    assert_eq!(refused(backward(Some(&x), Some(&saved))), "rstd");
    let saved = Saved::new(rstd.view());
    let into = |outputs: GradientOutputs<'_>| {
        let mut outputs = outputs;
        op.backward_in_place(
            Some(x.view()),
            &none,
            Some(&saved),
            None,
            again(&dy),
            &mut outputs,
        )
    };
    let other = f32s(&[3, 8]);
    let outputs = GradientOutputs::default().dresidual(again(&other));
    assert_eq!(refused(into(outputs)), "dresidual");
    let outputs = GradientOutputs::default().dalpha(again(&other));
    assert_eq!(refused(into(outputs)), "dalpha");
}

#[test]
fn rotary_tables() {
    let rotary = Rotary::new(Pairing::HalfSplit, 4);
    let alone = heads(HeadNormOptions::rotary_only(rotary));
    let none = Weights::default();
    let x = f32s(&[3, 2, 4]);
    let (four, two, wide) = (f32s(&[4, 2]), f32s(&[2, 2]), f32s(&[4, 3]));
    let half = upload(DType::F16, &[4, 2], &[0.0; 8]);
    let integers = upload(DType::I32, &[4, 2], &[0.0; 8]);
    let forward = |tables: RotaryTables<'_>| alone.forward(x.view(), &none, Some(&tables));
    let of =
        |cos: &Buffer, sin: &Buffer| refused(forward(RotaryTables::new(cos.view(), sin.view())));
    let fits = RotaryTables::new(four.view(), four.view());
    assert!(forward(fits).is_ok());
    assert_eq!(of(&wide, &wide), "cos");
    assert_eq!(of(&integers, &integers), "cos");
    assert_eq!(of(&two, &two), "cos"); // fewer positions than tokens
    assert_eq!(of(&four, &two), "sin");
    assert_eq!(of(&four, &half), "sin");
    let padded = Matrix::new(DType::F32, &[0.0; 8], 2, 1);
    let got = forward(RotaryTables::new(padded.view(), four.view()));
    assert_eq!(refused(got), "cos");
    let of = |dtype, count: usize| {
        let ids = upload(dtype, &[count], &vec![0.0; count]);
        forward(RotaryTables::new(two.view(), two.view()).positions(ids.view()))
    };
    assert!(of(DType::I64, 3).is_ok());
    assert_eq!(refused(of(DType::I64, 2)), "positions");
    assert_eq!(refused(of(DType::F32, 3)), "positions");

    assert_eq!(refused(alone.forward(x.view(), &none, None)), "tables");
    let norm = heads(HeadNormOptions::default());
    let got = norm.forward(x.view(), &none, Some(&fits));
    assert_eq!(refused(got), "tables");
    let short = f32s(&[3, 2, 3]);
    let got = alone.forward(short.view(), &none, Some(&fits));
    assert_eq!(refused(got), "rotary width");

    // Without a normalization there is nothing of one.
    let weight = f32s(&[4]);
    let got = alone.forward(x.view(), &Weights::gamma(weight.view()), Some(&fits));
    assert_eq!(refused(got), "gamma");
    let beta = Weights::default().beta(weight.view());
    let got = alone.forward(x.view(), &beta, Some(&fits));
    assert_eq!(refused(got), "beta");
    let six = f32s(&[6]);
    let mut statistics = Statistics::rstd(again(&six));
    let got = alone.forward_in_place(again(&x), &none, Some(&fits), &mut statistics);
    assert_eq!(refused(got), "rstd");
    let saved = Saved::new(six.view());
    let got = alone.backward(Some(x.view()), &none, None, Some(&fits), x.view());
    assert_eq!(refused(got), "x");
    let got = alone.backward(None, &none, Some(&saved), Some(&fits), x.view());
    assert_eq!(refused(got), "saved");
}

#[test]
fn gates() {
    let op = GatedNorm::new(NormOptions::rms()).prepare(&cpu()).unwrap();
    let (x, wide, rstd) = (f32s(&[2, 4]), f32s(&[2, 5]), f32s(&[2]));
    let none = Weights::default();
    assert_eq!(refused(op.forward(x.view(), wide.view(), &none)), "z");
    let saved = Saved::new(rstd.view());
    let backward = |z: &Buffer, dz: TensorMut<'_>, outputs: GradientOutputs<'_>| {
        let (dx, mut outputs) = (f32s(&[2, 4]), outputs);
        let (x, z, dx) = (x.view(), z.view(), again(&dx));
        op.backward_into(x, z, &none, &saved, x, dx, dz, &mut outputs)
    };
    let (dz, nothing) = (f32s(&[2, 4]), GradientOutputs::default);
    assert!(backward(&x, again(&dz), nothing()).is_ok());
    assert_eq!(refused(backward(&wide, again(&dz), nothing())), "z");
    assert_eq!(
        refused(backward(&x, f32s(&[2, 5]).view_mut(), nothing())),
        "dz"
    );
    assert_eq!(refused(backward(&x, again(&x), nothing())), "dz");
    let other = f32s(&[2, 4]);
    let outputs = nothing().dresidual(again(&other));
    assert_eq!(refused(backward(&x, again(&dz), outputs)), "dresidual");
    let outputs = nothing().dalpha(again(&other));
    assert_eq!(refused(backward(&x, again(&dz), outputs)), "dalpha");
    let got = op.backward(x.view(), wide.view(), &none, &saved, x.view());
    assert_eq!(refused(got), "z");
}

#[test]
fn alphas() {
    let op = Sdd::new().prepare(&cpu()).unwrap();
    let (x, one, two, rstd) = (f32s(&[2, 4]), f32s(&[1]), f32s(&[2]), f32s(&[2]));
    assert_eq!(refused(op.forward(x.view(), two.view())), "alpha");
    let saved = Saved::new(rstd.view());
    let got = op.backward(x.view(), two.view(), &saved, x.view());
    assert_eq!(refused(got), "alpha");
    let mean = f32s(&[2]);
    let mut statistics = Statistics::default().mean(again(&mean));
    let got = op.forward_in_place(again(&x), one.view(), &mut statistics);
    assert_eq!(refused(got), "mean");

    let workspace = bytes(op.backward_workspace_bytes(2, 4));
    let backward = |outputs: GradientOutputs<'_>| {
        let dx = f32s(&[2, 4]);
        let mut outputs = outputs.workspace(again(&workspace));
        let dx = again(&dx);
        op.backward_into(x.view(), one.view(), &saved, x.view(), dx, &mut outputs)
    };
    let (fits, four) = (f32s(&[1]), f32s(&[4]));
    let nothing = GradientOutputs::default;
    assert!(backward(nothing().dalpha(again(&fits))).is_ok());
    assert_eq!(refused(backward(nothing().dalpha(again(&four)))), "dalpha");
    assert_eq!(refused(backward(nothing().dalpha(again(&one)))), "dalpha");
    assert_eq!(refused(backward(nothing().dgamma(again(&fits)))), "dgamma");
    assert_eq!(refused(backward(nothing().dbeta(again(&fits)))), "dbeta");
    let outputs = nothing().dresidual(again(&four));
    assert_eq!(refused(backward(outputs)), "dresidual");
}
