//! The layer against the linear layer in f64, within the bounds of its formats.

use super::*;
use crate::matmul::{LinearFp8, Multipliers, Recipe};
use crate::quant::DelayedScaling;

/// Gradients and values within what rounding the operands allows.
struct Operands {
    values: Vec<f64>,
    /// What each may be off by.
    errors: Vec<f64>,
}

/// Half a step relatively, and half the smallest step of the block's scale, which is at most that of
/// the tensor; powers of two as scales are up to twice it.
fn operands(values: &[f32], recipe: Recipe, gradient: bool) -> Operands {
    let e5m2 = gradient && !matches!(recipe, Recipe::Block | Recipe::MxFp8);
    let (half_step, smallest, largest) = if e5m2 {
        (0.125, f64::powi(2.0, -17), 57344.0)
    } else {
        (0.0625, f64::powi(2.0, -10), 448.0)
    };
    let amax = values
        .iter()
        .fold(0.0_f64, |m, v| m.max(f64::from(v.abs())));
    let scale = match recipe {
        Recipe::Unit => 1.0,
        Recipe::MxFp8 => 2.0 * amax / largest,
        _ => amax / largest,
    };
    let values: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
    let error = |v: &f64| v.abs() * half_step * 1.0001 + smallest * scale;
    Operands {
        errors: values.iter().map(error).collect(),
        values,
    }
}

/// sum_k a_k b_k and what it may be off by.
fn bounded(terms: impl Iterator<Item = ((f64, f64), (f64, f64))>) -> (f64, f64) {
    let (mut sum, mut error) = (0.0, 0.0);
    for ((a, a_error), (b, b_error)) in terms {
        sum += a * b;
        error += a.abs() * b_error + b.abs() * a_error + a_error * b_error;
    }
    // fp32 results.
    (sum, error * 1.001 + 1e-6 * sum.abs())
}

impl Operands {
    fn at(&self, index: usize) -> (f64, f64) {
        (self.values[index], self.errors[index])
    }
}

#[track_caller]
fn within(what: &str, got: &[f32], expected: impl Fn(usize) -> (f64, f64)) {
    let mut some = false;
    for (index, got) in got.iter().enumerate() {
        let (value, error) = expected(index);
        let off = (f64::from(*got) - value).abs();
        assert!(
            off <= error,
            "{what} {index}: {got} is not {value} +- {error}"
        );
        some |= off > 0.0;
    }
    assert!(some, "{what} was not quantised");
}

#[test]
fn gradients_of_every_recipe() {
    let stream = cpu();
    let (tokens, n, k) = (20, 12, 150);
    let x = numbers(tokens * k, 1);
    let w = numbers(n * k, 2);
    let dy: Vec<f32> = numbers(tokens * n, 3).iter().map(|v| v / 16.0).collect();
    let upload = |values: &[f32], rows| {
        let shape = [rows, values.len() / rows];
        stream.upload(&shape, values).unwrap()
    };
    let (x_buffer, w_buffer, dy_buffer) = (upload(&x, tokens), upload(&w, n), upload(&dy, tokens));
    for recipe in Recipe::ALL {
        let delayed = DelayedScaling::new().length(1);
        let linear = LinearFp8::new(recipe).delayed_scaling(delayed);
        let mut linear = linear.prepare(&stream, n, k).unwrap();
        let mut dw = stream.upload(&[n, k], &vec![0.25_f32; n * k]).unwrap();
        if recipe == Recipe::Delayed {
            // A step whose scales are 1 leaves the amax.
            let (_, saved) = linear
                .forward(x_buffer.view(), w_buffer.view(), 0, DType::F32)
                .unwrap();
            let mut thrown = stream.zeros(DType::F32, &[n, k]).unwrap();
            let (dy, w) = (dy_buffer.view(), w_buffer.view());
            linear
                .backward(&saved, dy, w, 0, DType::F32, thrown.view_mut())
                .unwrap();
            linear.update_scales().unwrap();
        }
        let (y, saved) = linear
            .forward(x_buffer.view(), w_buffer.view(), 1, DType::F32)
            .unwrap();
        let again = linear
            .infer(x_buffer.view(), w_buffer.view(), 1, DType::F32)
            .unwrap();
        let y = y.read::<f32>().unwrap();
        assert_eq!(y, again.read::<f32>().unwrap());
        let (dy_view, w_view) = (dy_buffer.view(), w_buffer.view());
        let dx = linear
            .backward(&saved, dy_view, w_view, 1, DType::F32, dw.view_mut())
            .unwrap();

        let exact = [(&x, false), (&w, false), (&dy, true)];
        let [x, w, dy] = exact.map(|(values, gradient)| operands(values, recipe, gradient));
        within(&format!("{recipe}: y"), &y, |index| {
            let (t, j) = (index / n, index % n);
            bounded((0..k).map(|i| (x.at(t * k + i), w.at(j * k + i))))
        });
        within(
            &format!("{recipe}: dx"),
            &dx.read::<f32>().unwrap(),
            |index| {
                let (t, i) = (index / k, index % k);
                bounded((0..n).map(|j| (dy.at(t * n + j), w.at(j * k + i))))
            },
        );
        within(
            &format!("{recipe}: dW"),
            &dw.read::<f32>().unwrap(),
            |index| {
                let (j, i) = (index / k, index % k);
                let terms = (0..tokens).map(|t| (dy.at(t * n + j), x.at(t * k + i)));
                let (sum, error) = bounded(terms);
                (sum + 0.25, error + 1e-6)
            },
        );
        // Two copies, at most two scales and two amaxes for each row and column.
        let least = 2 * n * k;
        let most = least + 16 * (n + k) + 32;
        let bytes = linear.bytes();
        assert!((least..most).contains(&bytes), "{recipe}: {bytes}");
        assert!((tokens * k..tokens * k + tokens * k).contains(&saved.bytes()));
    }
    stream.check().unwrap();
}

#[test]
fn weights_are_quantised_once_a_version() {
    let stream = cpu();
    let mut w = stream.upload(&[1, 2], &[1.0_f32, 2.0]).unwrap();
    let x = stream.upload(&[1, 2], &[1.0_f32, 1.0]).unwrap();
    let mut linear = LinearFp8::new(Recipe::Tensor)
        .prepare(&stream, 1, 2)
        .unwrap();
    let mut y = |w: &Buffer, version| {
        let y = linear
            .infer(x.view(), w.view(), version, DType::F32)
            .unwrap();
        y.read::<f32>().unwrap()[0].round()
    };
    assert_eq!(y(&w, 0), 3.0);
    w.write(&[8.0_f32, 8.0]).unwrap();
    assert_eq!(y(&w, 0), 3.0);
    assert_eq!(y(&w, 1), 16.0);
}

#[test]
fn multipliers() {
    let stream = cpu();
    let w = stream.upload(&[1, 2], &[1.0_f32, 2.0]).unwrap();
    let x = stream.upload(&[1, 2], &[4.0_f32, 1.0]).unwrap();
    let dy = stream.upload(&[1, 1], &[2.0_f32]).unwrap();
    let multipliers = Multipliers {
        output: 0.5,
        input_gradient: 0.25,
        weight_gradient: 3.0,
    };
    let linear = LinearFp8::new(Recipe::Unit).multipliers(multipliers);
    let mut linear = linear.prepare(&stream, 1, 2).unwrap();
    let (y, saved) = linear.forward(x.view(), w.view(), 0, DType::F32).unwrap();
    assert_eq!(y.read::<f32>().unwrap(), [3.0]);
    let mut dw = stream.upload(&[1, 2], &[1.0_f32, 1.0]).unwrap();
    let dx = linear
        .backward(&saved, dy.view(), w.view(), 0, DType::F32, dw.view_mut())
        .unwrap();
    assert_eq!(dx.read::<f32>().unwrap(), [0.5, 1.0]);
    assert_eq!(dw.read::<f32>().unwrap(), [25.0, 7.0]);
    let wild = Multipliers {
        output: f32::NAN,
        ..multipliers
    };
    let refused_for = LinearFp8::new(Recipe::Unit).multipliers(wild);
    assert_eq!(refused(refused_for.prepare(&stream, 1, 2)), "multipliers");
}

#[test]
fn wrong_arguments_of_layers() {
    let stream = cpu();
    assert_eq!(
        refused(LinearFp8::new(Recipe::Row).prepare(&stream, 0, 4)),
        "n"
    );
    assert_eq!(
        refused(LinearFp8::new(Recipe::Row).prepare(&stream, 4, 0)),
        "k"
    );
    let mut linear = LinearFp8::new(Recipe::Row).prepare(&stream, 2, 4).unwrap();
    let w = zeros(DType::F32, &[2, 4]);
    let (x, short) = (zeros(DType::F32, &[3, 4]), zeros(DType::F32, &[3, 3]));
    let mut forward =
        |x: &Buffer, w: &Buffer, dtype| refused(linear.forward(x.view(), w.view(), 0, dtype));
    assert_eq!(forward(&short, &w, DType::F32), "x");
    assert_eq!(forward(&zeros(DType::F32, &[0, 4]), &w, DType::F32), "x");
    assert_eq!(forward(&x, &short, DType::F32), "weight");
    assert_eq!(forward(&x, &w, DType::E4m3), "dtype");
    let (_, saved) = linear.forward(x.view(), w.view(), 0, DType::F32).unwrap();
    let mut dw = zeros(DType::F32, &[2, 4]);
    let mut backward = |dy: &Buffer, dw: &mut Buffer| {
        let (dy, w) = (dy.view(), w.view());
        refused(linear.backward(&saved, dy, w, 0, DType::F32, dw.view_mut()))
    };
    assert_eq!(backward(&zeros(DType::F32, &[3, 3]), &mut dw), "dy");
    assert_eq!(backward(&zeros(DType::F32, &[2, 2]), &mut dw), "dy");
    let dy = zeros(DType::F32, &[3, 2]);
    assert_eq!(backward(&dy, &mut zeros(DType::Bf16, &[2, 4])), "dw");
    assert_eq!(backward(&dy, &mut zeros(DType::F32, &[4, 2])), "dw");
}
