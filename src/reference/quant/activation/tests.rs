//! Activations against closed forms, identities and finite differences.

use super::*;
use crate::reference::differences::assert_gradient;

const FUNCTIONS: [Function; 3] = [
    Function::SwiGlu,
    Function::Gelu(GeluKind::Exact),
    Function::Gelu(GeluKind::Tanh),
];

fn rows(data: &[f64], columns: usize) -> FloatRows<'_> {
    FloatRows::new(data, data.len() / columns, columns, columns).unwrap()
}

fn rows_mut(data: &mut [f64], columns: usize) -> FloatRowsMut<'_> {
    let tokens = data.len() / columns;
    FloatRowsMut::new(data, tokens, columns, columns).unwrap()
}

fn inputs(function: Function, x: &[f64], columns: usize) -> Inputs<'_> {
    if function != Function::SwiGlu {
        return Inputs {
            x: rows(x, columns),
            up: None,
        };
    }
    // Gate and up side by side in each row.
    let tokens = x.len() / (2 * columns);
    let half = |from: usize| FloatRows::new(&x[from..], tokens, columns, 2 * columns).unwrap();
    Inputs {
        x: half(0),
        up: Some(half(columns)),
    }
}

fn outputs(function: Function, x: &[f64], columns: usize, scales: Scales) -> Vec<f64> {
    let inputs = inputs(function, x, columns);
    let mut y = vec![f64::NAN; inputs.x.rows() * columns];
    forward(function, inputs, scales, rows_mut(&mut y, columns)).unwrap();
    y
}

fn gradients(
    function: Function,
    x: &[f64],
    columns: usize,
    scales: Scales,
    dy: &[f64],
) -> Vec<f64> {
    let inputs = inputs(function, x, columns);
    let wide = x.len() / inputs.x.rows();
    let mut dx = vec![f64::NAN; x.len()];
    let into = Gradients::One(rows_mut(&mut dx, wide));
    backward(function, inputs, scales, rows(dy, columns), into).unwrap();
    dx
}

#[track_caller]
fn assert_close(got: f64, want: f64, relative: f64) {
    let close = (got - want).abs() <= relative * want.abs();
    assert!(close, "got {got:e}, not {want:e}");
}

#[test]
fn the_error_function_has_its_published_values() {
    // erfc to 20 digits: Abramowitz and Stegun, tables 7.1 to 7.3, continued by 50-digit arithmetic.
    for (z, want) in [
        (0.5, 0.479_500_122_186_953_5),
        (1.0, 0.157_299_207_050_285_13),
        (2.0, 4.677_734_981_047_266e-3),
        (3.0, 2.209_049_699_858_544e-5),
        (5.0, 1.537_459_794_428_035e-12),
        (5.999_999_999, 2.151_973_697_422_906e-17),
        (6.0, 2.151_973_671_249_891_3e-17),
        (10.0, 2.088_487_583_762_545e-45),
        (26.0, 5.663_192_408_856_143e-296),
    ] {
        assert_close(erfc(z), want, 4e-15 + 4.0 * z * z * f64::EPSILON);
    }
    for z in [0.0, 0.1, -0.3, 0.499_999] {
        assert_close(erf_near_0(z) + erf_near_0(-z), 0.0, 0.0);
    }
    assert_close(erf_near_0(0.5), 0.520_499_877_813_046_5, 4e-16);
    assert_close(erf_near_0(0.1), 0.112_462_916_018_284_9, 4e-16);
    assert_eq!(erfc(1e200), 0.0);
}

#[test]
fn known_points() {
    let e = 1.0_f64.exp();
    assert_close(value(Function::SwiGlu, 1.0), e / (1.0 + e), 1e-15);
    for function in FUNCTIONS {
        assert_eq!(value(function, 0.0), 0.0);
        assert_eq!(slope(function, 0.0), 0.5);
        for x in [50.0, 1e30, 1e300] {
            assert_close(value(function, x), x, 1e-15);
            assert_close(slope(function, x), 1.0, 1e-15);
            assert!(value(function, -x).abs() < 1e-18);
            assert!(slope(function, -x).abs() < 1e-18);
        }
        // f(x) - f(-x) = x, whichever sigmoid it is.
        for x in [1e-8, 0.3, 0.8, 2.5, 7.0] {
            assert_close(value(function, x) - value(function, -x), x, 1e-15);
            assert_close(slope(function, x) + slope(function, -x), 1.0, 1e-15);
        }
        assert!(value(function, f64::NAN).is_nan() && slope(function, f64::NAN).is_nan());
        assert_eq!(value(function, f64::INFINITY), f64::INFINITY);
        assert!(value(function, f64::NEG_INFINITY).is_nan());
    }
    // gelu(1) = Phi(1), and the tanh form of it (arXiv 1606.08415, section 2).
    assert_close(
        value(Function::Gelu(GeluKind::Exact), 1.0),
        0.841_344_746_068_542_9,
        1e-15,
    );
    let a = (2.0 / std::f64::consts::PI).sqrt() * 1.044_715;
    let want = 0.5 * (1.0 + a.tanh());
    assert_close(value(Function::Gelu(GeluKind::Tanh), 1.0), want, 1e-15);
}

#[test]
fn tails_keep_their_digits() {
    // x e^x and x phi(x) / |x|, far below where 1 + .. has digits.
    assert_close(
        value(Function::SwiGlu, -60.0),
        -60.0 * (-60.0_f64).exp(),
        1e-14,
    );
    let density = (-32.0_f64).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let series = 1.0 - 1.0 / 64.0 + 3.0 / 4096.0 - 15.0 / 262_144.0 + 105.0 / 16_777_216.0;
    assert_close(
        value(Function::Gelu(GeluKind::Exact), -8.0),
        -density * series,
        1e-6,
    );
}

#[test]
fn gradients_are_those_of_the_values() {
    let columns = 5;
    for function in FUNCTIONS {
        let wide = if function == Function::SwiGlu { 2 } else { 1 };
        let x: Vec<f64> = (0..3 * wide * columns)
            .map(|i| ((i * 37 % 53) as f64 - 26.0) / 6.0)
            .collect();
        let dy: Vec<f64> = (0..3 * columns)
            .map(|i| ((i * 29 % 31) as f64 - 15.0) / 8.0)
            .collect();
        let channel: Vec<f32> = (0..5_i16).map(|j| 0.5 + f32::from(j)).collect();
        let token = [0.25, 3.0, 1.5];
        let smooth = [
            Scales::None,
            Scales::Channel(&channel[..]),
            Scales::Token(&token),
        ];
        for scales in smooth.into_iter().take(if wide == 2 { 3 } else { 1 }) {
            let loss = |x: &[f64]| -> f64 {
                let y = outputs(function, x, columns, scales);
                y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
            };
            let got = gradients(function, &x, columns, scales, &dy);
            let size: f64 = 15.0 * 2.0 * 5.0 * 5.0 * 4.0;
            assert_gradient(&got, &x, size, 1.0, loss);
        }
    }
}

#[test]
fn two_views_of_the_gradients_hold_what_one_does() {
    let x = [0.5, -1.0, 2.0, 3.0, -0.25, 1.5, -2.0, 0.75];
    let dy = [1.0, 2.0, -3.0, 0.5];
    let one = gradients(Function::SwiGlu, &x, 2, Scales::None, &dy);
    let (mut gate, mut up) = ([0.0; 4], [0.0; 4]);
    let into = Gradients::Two(rows_mut(&mut gate, 2), rows_mut(&mut up, 2));
    let inputs = inputs(Function::SwiGlu, &x, 2);
    backward(Function::SwiGlu, inputs, Scales::None, rows(&dy, 2), into).unwrap();
    assert_eq!(
        one,
        [
            gate[0], gate[1], up[0], up[1], gate[2], gate[3], up[2], up[3]
        ]
    );
}

#[test]
fn smoothing_scales_are_the_largest_finite_elements() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let up = [1.0, -3.0, 0.0, inf, 2.0, 0.0, -0.5, nan, -0.0];
    let up = rows(&up, 3);
    assert_eq!(smoothing_scales(Smoothing::Channel, up), [1.0, 3.0, 1.0]);
    assert_eq!(smoothing_scales(Smoothing::Token, up), [3.0, 2.0, 0.5]);
}

#[test]
fn a_smooth_result_times_its_scale_is_the_plain_one() {
    let x: Vec<f64> = (0..24).map(|i| (f64::from(i) * 0.7).sin() * 9.0).collect();
    let plain = outputs(Function::SwiGlu, &x, 4, Scales::None);
    let up = inputs(Function::SwiGlu, &x, 4).up.unwrap();
    for smoothing in [Smoothing::Channel, Smoothing::Token] {
        // In f32, of values that are f64 here: the bound on the branch is one rounding above 1.
        let s = smoothing_scales(smoothing, up);
        let scales = match smoothing {
            Smoothing::Channel => Scales::Channel(&s),
            Smoothing::Token => Scales::Token(&s),
        };
        let smooth = outputs(Function::SwiGlu, &x, 4, scales);
        for (i, (smooth, plain)) in smooth.iter().zip(&plain).enumerate() {
            assert_close(smooth * scales.at(i / 4, i % 4), *plain, 1e-15);
            let gate = value(Function::SwiGlu, x[i / 4 * 8 + i % 4]);
            assert!(smooth.abs() <= gate.abs() * (1.0 + f64::from(f32::EPSILON)));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let data = [1.0; 12];
    let mut y = [0.0; 12];
    let x = rows(&data, 4);
    let alone = Inputs { x, up: None };
    let gelu = Function::Gelu(GeluKind::Exact);
    let both = Inputs { x, up: Some(x) };
    let narrow = Inputs {
        x,
        up: Some(rows(&data, 3)),
    };
    let mut run =
        |function, inputs, scales| forward(function, inputs, scales, rows_mut(&mut y, 4)).is_ok();
    assert!(run(gelu, alone, Scales::None));
    assert!(!run(gelu, both, Scales::None));
    assert!(!run(gelu, alone, Scales::Token(&[1.0; 3])));
    assert!(!run(Function::SwiGlu, alone, Scales::None));
    assert!(!run(Function::SwiGlu, narrow, Scales::None));
    assert!(run(Function::SwiGlu, both, Scales::Channel(&[1.0; 4])));
    assert!(!run(Function::SwiGlu, both, Scales::Channel(&[1.0; 3])));
    assert!(run(Function::SwiGlu, both, Scales::Token(&[1.0; 3])));
    assert!(!run(Function::SwiGlu, both, Scales::Token(&[1.0; 4])));
    let narrow = forward(Function::SwiGlu, both, Scales::None, rows_mut(&mut y, 3));
    assert!(narrow.is_err());
    let into = Gradients::One(rows_mut(&mut y, 4));
    assert!(backward(Function::SwiGlu, both, Scales::None, x, into).is_err());
}
