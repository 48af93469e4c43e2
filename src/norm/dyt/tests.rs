use super::*;
use crate::norm::fixtures::{
    FLOATS as TYPES, Padded, alias, bits, cpu, numbers, read, refused, rounded,
};
use crate::reference::norm::{self as reference, WeightGradients};
use crate::reference::{FloatRows, FloatRowsMut};
use crate::{Error, Status};

/// The result is rounded once, by half of an ulp at most. The expected number has the errors of its own
/// `f32` steps: cosh of the C library to 2 ulp, doubled by its square, and half an ulp for each of the
/// square, the quotient and three products: 6.5 ulp, that is 13 half ulps.
fn close(got: f32, expected: f32) {
    let error = (got - expected).abs();
    let most = 14.0 / 2.0 * f32::EPSILON * expected.abs();
    assert!(error <= most, "{got} is not {expected}");
}

/// With alpha = 1/2, x = 2 and dy = 3: t = tanh 1, and 1 - t^2 = 1 / cosh^2 1.
#[test]
fn one_element_by_hand() {
    let stream = cpu();
    let vector = |value: f32| stream.upload(&[1], &[value]).unwrap();
    let (x, alpha, dy) = (vector(2.0), vector(0.5), vector(3.0));
    let (gamma, beta) = (vector(5.0), vector(0.25));
    let weights = Weights::gamma(gamma.view()).beta(beta.view());
    let op = Dyt::new().prepare(&stream).unwrap();
    let (t, slope) = (1_f32.tanh(), 1_f32.cosh().powi(-2));
    let first = |buffer: &Buffer| buffer.read::<f32>().unwrap()[0];
    let y = op.forward(x.view(), alpha.view(), &weights).unwrap();
    close(first(&y), 5.0 * t + 0.25);
    let gradients = op.backward(x.view(), alpha.view(), &weights, dy.view());
    let gradients = gradients.unwrap();
    close(first(&gradients.dx), 0.5 * 5.0 * 3.0 * slope);
    close(first(&gradients.dalpha), 5.0 * 3.0 * 2.0 * slope);
    close(first(gradients.dgamma.as_ref().unwrap()), 3.0 * t);
    close(first(gradients.dbeta.as_ref().unwrap()), 3.0);

    let bare = op.backward(x.view(), alpha.view(), &Weights::default(), dy.view());
    let bare = bare.unwrap();
    assert!(bare.dgamma.is_none() && bare.dbeta.is_none());
    close(first(&bare.dalpha), 3.0 * 2.0 * slope);
}

struct Case {
    x: Vec<f64>,
    dy: Vec<f64>,
    gamma: Vec<f64>,
    beta: Vec<f64>,
}

const SHAPE: [usize; 3] = [2, 3, 5];
const ROWS: usize = 6;
const COLUMNS: usize = 5;
const ALPHA: f32 = 0.7;

impl Case {
    fn new(x: DType, weights: DType) -> Self {
        Self {
            x: rounded(x, &numbers(ROWS * COLUMNS, 1)),
            dy: rounded(x, &numbers(ROWS * COLUMNS, 2)),
            gamma: rounded(weights, &numbers(COLUMNS, 3)),
            beta: rounded(weights, &numbers(COLUMNS, 4)),
        }
    }
}

fn rows(values: &Vec<f64>) -> FloatRows<'_> {
    FloatRows::new(values, ROWS, COLUMNS, COLUMNS).unwrap()
}

fn rows_mut(values: &mut Vec<f64>) -> FloatRowsMut<'_> {
    FloatRowsMut::new(values, ROWS, COLUMNS, COLUMNS).unwrap()
}

/// Each type of each tensor, padded rows, with and without accumulation.
#[test]
fn results_are_the_reference_rounded_once() {
    let stream = cpu();
    let op = Dyt::new().prepare(&stream).unwrap();
    let alpha = stream.upload(&[1], &[ALPHA]).unwrap();
    let types = TYPES.iter().flat_map(|&x| TYPES.map(|other| (x, other)));
    for (index, (x_type, other)) in types.enumerate() {
        let accumulate = index % 2 == 1;
        let case = Case::new(x_type, other);
        let weights = reference::Weights::gamma(&case.gamma).beta(&case.beta);
        let (mut y, mut dx) = (vec![0.0; ROWS * COLUMNS], vec![0.0; ROWS * COLUMNS]);
        reference::dyt::forward(ALPHA, &weights, rows(&case.x), rows_mut(&mut y)).unwrap();
        let start = if accumulate { 0.5 } else { 0.0 };
        let (mut dalpha, mut dgamma) = (vec![start], vec![start; COLUMNS]);
        let mut dbeta = dgamma.clone();
        reference::dyt::backward(
            ALPHA,
            &weights,
            rows(&case.x),
            rows(&case.dy),
            rows_mut(&mut dx),
            Some((&mut dalpha).into()),
            WeightGradients {
                gamma: Some((&mut dgamma).into()),
                beta: Some((&mut dbeta).into()),
                accumulate,
            },
        )
        .unwrap();

        let x = Padded::new(&stream, x_type, &SHAPE, &case.x);
        let gamma = Padded::new(&stream, other, &[COLUMNS], &case.gamma);
        let beta = Padded::new(&stream, other, &[COLUMNS], &case.beta);
        let weights = Weights::gamma(gamma.view()).beta(beta.view());
        let mut got = Padded::blank(&stream, other, &SHAPE);
        op.forward_into(x.view(), alpha.view(), &weights, got.view_mut())
            .unwrap();
        assert_eq!(bits(&got.values()), bits(&rounded(other, &y)));

        let dy = Padded::new(&stream, x_type, &[ROWS, COLUMNS], &case.dy);
        let mut got = Padded::blank(&stream, other, &SHAPE);
        let ones = |count: usize| stream.upload(&[count], &vec![0.5_f32; count]).unwrap();
        let mut sums = [ones(1), ones(COLUMNS), ones(COLUMNS)];
        let [got_alpha, got_gamma, got_beta] = &mut sums;
        let bytes = op.backward_workspace_bytes(ROWS, COLUMNS);
        let mut workspace = stream.uninitialised(DType::U8, &[bytes]).unwrap();
        let mut outputs = GradientOutputs::default()
            .dalpha(got_alpha.view_mut())
            .dgamma(got_gamma.view_mut())
            .dbeta(got_beta.view_mut())
            .workspace(workspace.view_mut());
        outputs.accumulate = accumulate;
        let dx_view = got.view_mut();
        op.backward_into(
            x.view(),
            alpha.view(),
            &weights,
            dy.view(),
            dx_view,
            &mut outputs,
        )
        .unwrap();
        assert_eq!(bits(&got.values()), bits(&rounded(other, &dx)));
        for (got, expected) in sums.iter().zip([dalpha, dgamma, dbeta]) {
            assert_eq!(read(got), rounded(DType::F32, &expected));
        }
    }
    stream.check().unwrap();
}

#[test]
fn in_place_forms_give_what_the_others_give() {
    let stream = cpu();
    let op = Dyt::new().prepare(&stream).unwrap();
    let alpha = stream.upload(&[1], &[ALPHA]).unwrap();
    for dtype in TYPES {
        let case = Case::new(dtype, dtype);
        let gamma = Padded::new(&stream, dtype, &[COLUMNS], &case.gamma);
        let weights = Weights::gamma(gamma.view());
        let x = Padded::new(&stream, dtype, &SHAPE, &case.x);
        let mut both = Padded::new(&stream, dtype, &SHAPE, &case.x);
        let mut y = Padded::blank(&stream, dtype, &SHAPE);
        op.forward_into(x.view(), alpha.view(), &weights, y.view_mut())
            .unwrap();
        op.forward_in_place(both.view_mut(), alpha.view(), &weights)
            .unwrap();
        assert_eq!(bits(&both.values()), bits(&y.values()));

        let mut dy = Padded::new(&stream, dtype, &SHAPE, &case.dy);
        let mut dx = Padded::blank(&stream, dtype, &SHAPE);
        let bytes = op.backward_workspace_bytes(ROWS, COLUMNS);
        let mut workspace = stream.uninitialised(DType::U8, &[bytes]).unwrap();
        let mut sums = [0, 1].map(|_| stream.zeros(DType::F32, &[COLUMNS]).unwrap());
        let [first, second] = &mut sums;
        let mut outputs = GradientOutputs::default()
            .dgamma(first.view_mut())
            .workspace(workspace.view_mut());
        let (x, alpha) = (x.view(), alpha.view());
        op.backward_into(x, alpha, &weights, dy.view(), dx.view_mut(), &mut outputs)
            .unwrap();
        let mut outputs = GradientOutputs::default()
            .dgamma(second.view_mut())
            .workspace(workspace.view_mut());
        op.backward_in_place(x, alpha, &weights, dy.view_mut(), &mut outputs)
            .unwrap();
        assert_eq!(bits(&dy.values()), bits(&dx.values()));
        assert_eq!(read(first), read(second));
    }
}

#[test]
fn without_rows_sums_are_zero_or_stay() {
    let stream = cpu();
    let op = Dyt::new().prepare(&stream).unwrap();
    let alpha = stream.upload(&[1], &[ALPHA]).unwrap();
    let gamma = stream.upload(&[3], &[1.0_f32; 3]).unwrap();
    let weights = Weights::gamma(gamma.view());
    let x = stream.zeros(DType::F32, &[0, 3]).unwrap();
    let y = op.forward(x.view(), alpha.view(), &weights).unwrap();
    assert_eq!(y.shape(), [0, 3]);
    let gradients = op.backward(x.view(), alpha.view(), &weights, x.view());
    let gradients = gradients.unwrap();
    assert_eq!(read(&gradients.dalpha), [0.0]);
    assert_eq!(read(&gradients.dgamma.unwrap()), [0.0; 3]);
    for (accumulate, expected) in [(true, 2.0), (false, 0.0)] {
        let mut dalpha = stream.upload(&[1], &[2.0_f32]).unwrap();
        let mut dx = stream.zeros(DType::F32, &[0, 3]).unwrap();
        let mut outputs = GradientOutputs::default().dalpha(dalpha.view_mut());
        outputs.accumulate = accumulate;
        let (x, alpha, dx) = (x.view(), alpha.view(), dx.view_mut());
        op.backward_into(x, alpha, &weights, x, dx, &mut outputs)
            .unwrap();
        assert_eq!(read(&dalpha), [expected]);
    }
}

#[test]
fn what_is_not_finite_is_reported() {
    let stream = cpu();
    let op = Dyt::new().prepare(&stream).unwrap();
    let alpha = stream.upload(&[1], &[1.0_f32]).unwrap();
    let x = [f32::INFINITY, f32::NAN, 0.0];
    let x = stream.upload(&[1, 3], &x).unwrap();
    let y = op.forward(x.view(), alpha.view(), &Weights::default());
    let y = y.unwrap().read::<f32>().unwrap();
    assert!(y[0] == 1.0 && y[1].is_nan() && y[2] == 0.0);
    assert_eq!(stream.check(), Err(Error::Data(Status::NON_FINITE_ROW)));
}

#[test]
fn each_wrong_argument_is_named() {
    const FORWARD: &str = "Dyt::forward";
    const BACKWARD: &str = "Dyt::backward";
    let stream = cpu();
    let op = Dyt::new().prepare(&stream).unwrap();
    let zeros = |dtype: DType, shape: &[usize]| stream.zeros(dtype, shape).unwrap();
    let (x, dy) = (zeros(DType::F32, &[2, 3]), zeros(DType::F32, &[2, 3]));
    let (alpha, gamma) = (zeros(DType::F32, &[1]), zeros(DType::Bf16, &[3]));
    let none = Weights::default();
    let forward = |x: &Buffer, alpha: &Buffer, weights: &Weights<'_>| {
        op.forward(x.view(), alpha.view(), weights)
    };
    refused(
        forward(&zeros(DType::I32, &[2, 3]), &alpha, &none),
        FORWARD,
        "x",
    );
    refused(
        forward(&zeros(DType::F32, &[2, 0]), &alpha, &none),
        FORWARD,
        "x",
    );
    refused(
        forward(&x, &zeros(DType::F32, &[2]), &none),
        FORWARD,
        "alpha",
    );
    refused(
        forward(&x, &zeros(DType::F16, &[1]), &none),
        FORWARD,
        "alpha",
    );
    for wrong in [zeros(DType::F32, &[2]), zeros(DType::I32, &[3])] {
        let gamma = Weights::gamma(wrong.view());
        refused(forward(&x, &alpha, &gamma), FORWARD, "gamma");
        let beta = Weights::default().beta(wrong.view());
        refused(forward(&x, &alpha, &beta), FORWARD, "beta");
    }
    let mut wrong = zeros(DType::F32, &[3, 2]);
    let result = op.forward_into(x.view(), alpha.view(), &none, wrong.view_mut());
    refused(result, FORWARD, "y");
    let result = op.backward(x.view(), alpha.view(), &none, wrong.view());
    refused(result, BACKWARD, "dy");
    let outputs = &mut GradientOutputs::default();
    let (x, alpha) = (x.view(), alpha.view());
    let result = op.backward_in_place(x, alpha, &none, wrong.view_mut(), outputs);
    refused(result, "Dyt::backward_in_place", "dy");
    let result = op.backward_into(x, alpha, &none, dy.view(), wrong.view_mut(), outputs);
    refused(result, BACKWARD, "dx");

    let weights = Weights::gamma(gamma.view());
    let mut dx = zeros(DType::F32, &[2, 3]);
    let mut backward = |mut outputs: GradientOutputs<'_>| {
        op.backward_into(x, alpha, &weights, dy.view(), dx.view_mut(), &mut outputs)
    };
    let mut workspace = zeros(DType::U8, &[op.backward_workspace_bytes(2, 3)]);
    let mut short = zeros(DType::U8, &[16]);
    let (mut two, mut three) = (zeros(DType::F32, &[2]), zeros(DType::F32, &[3]));
    let mut half = zeros(DType::F16, &[3]);
    let dgamma = GradientOutputs::default().dgamma(three.view_mut());
    refused(backward(dgamma), BACKWARD, "workspace");
    let dgamma = GradientOutputs::default().dgamma(three.view_mut());
    refused(
        backward(dgamma.workspace(short.view_mut())),
        BACKWARD,
        "workspace",
    );
    for wrong in [&mut two, &mut half] {
        let dgamma = GradientOutputs::default().dgamma(wrong.view_mut());
        let dgamma = dgamma.workspace(workspace.view_mut());
        refused(backward(dgamma), BACKWARD, "dgamma");
    }
    let dalpha = GradientOutputs::default().dalpha(three.view_mut());
    refused(backward(dalpha), BACKWARD, "dalpha");
    let dbeta = GradientOutputs::default().dbeta(three.view_mut());
    refused(backward(dbeta), BACKWARD, "dbeta"); // there is no beta
    let mut residual = zeros(DType::F32, &[2, 3]);
    let dresidual = GradientOutputs::default().dresidual(residual.view_mut());
    refused(backward(dresidual), BACKWARD, "dresidual");
    let dgamma = GradientOutputs::default().dgamma(three.view_mut());
    backward(dgamma.workspace(workspace.view_mut())).unwrap();
    backward(GradientOutputs::default()).unwrap();
}

#[test]
fn what_is_written_may_not_overlap() {
    let stream = cpu();
    let op = Dyt::new().prepare(&stream).unwrap();
    let memory = stream.zeros(DType::F32, &[8]).unwrap();
    let view = |first, shape: &[usize]| alias(&memory, first, shape);
    let alpha = stream.zeros(DType::F32, &[1]).unwrap();
    let (alpha, none) = (alpha.view(), Weights::default());
    let x = view(0, &[2, 2]);
    let result = op.forward_into(x.as_ref(), alpha, &none, view(2, &[2, 2]));
    refused(result, "Dyt::forward", "y");
    let inside = view(3, &[1]);
    let result = op.forward_in_place(view(0, &[2, 2]), inside.as_ref(), &none);
    refused(result, "Dyt::forward_in_place", "x");
    let mut workspace = stream
        .zeros(DType::U8, &[op.backward_workspace_bytes(2, 2)])
        .unwrap();
    let mut outputs = GradientOutputs::default()
        .dalpha(view(7, &[1]))
        .workspace(workspace.view_mut());
    let (dy, dx) = (view(0, &[2, 2]), view(4, &[2, 2]));
    let result = op.backward_into(x.as_ref(), alpha, &none, dy.as_ref(), dx, &mut outputs);
    refused(result, "Dyt::backward", "dx");
}
