use super::*;
use crate::Device;

fn run(estimator: Estimator, x: &[f32], scale: Option<f32>, dy: &[f32]) -> Vec<f32> {
    let stream = Device::cpu().stream().unwrap();
    let op = StraightThrough::new(estimator).prepare(&stream).unwrap();
    let view = |data: &[f32]| stream.upload(&[data.len()], data).unwrap();
    let scale = scale.map(|scale| view(&[scale]));
    let scale = scale.as_ref().map(Buffer::view);
    let (x, mut dy) = (view(x), view(dy));
    let dx = op.backward(x.view(), scale, dy.view()).unwrap();
    let dx: Vec<f32> = dx.read().unwrap();
    op.backward_in_place(x.view(), scale, dy.view_mut())
        .unwrap();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(dy.read().unwrap()), bits(dx.clone()));
    dx
}

#[test]
fn the_mask_ends_where_the_quotient_rounds_past_the_largest() {
    let estimator = Estimator::Saturation { largest: 448.0 };
    let edge = 448.0_f32 * 0.1;
    let x = [edge, edge.next_up().next_up(), -edge, f32::NEG_INFINITY];
    let passes = |x: f32| f32::from((x / 0.1).abs() <= 448.0);
    let expected: Vec<f32> = x.iter().map(|&x| passes(x)).collect();
    assert_eq!(expected, [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(run(estimator, &x, Some(0.1), &[1.0; 4]), expected);
    // What does not pass is 0 whatever it was, and NaN elements are kept.
    let dx = run(estimator, &[500.0, f32::NAN], None, &[f32::NAN, 3.0]);
    assert_eq!(dx, [0.0, 3.0]);
}

#[test]
fn reste_is_the_slope_of_a_root() {
    let o = 3.0_f32;
    let z = [0.2_f32, -0.7, 1.0, 1.5];
    let slope = |z: f32| {
        let f = |z: f64| z.signum() * z.abs().powf(1.0 / 3.0);
        let (z, h) = (f64::from(z), 1e-6);
        (f(z + h) - f(z - h)) / (2.0 * h)
    };
    for (z, got) in z.iter().zip(run(Estimator::reste(o), &z, None, &[1.0; 4])) {
        assert!((f64::from(got) - slope(*z)).abs() < 1e-6, "{z}: {got}");
    }
    // The chord of the innermost part, and the end.
    let chord = 0.1_f64.powf(1.0 / 3.0) / 0.1;
    let dx = run(
        Estimator::reste(o),
        &[0.0, -0.1, 1.6, f32::INFINITY],
        None,
        &[2.0; 4],
    );
    assert!((f64::from(dx[0]) - 2.0 * chord).abs() < 1e-5);
    assert_eq!((dx[1], dx[2], dx[3]), (dx[0], 0.0, 0.0));
    assert_eq!(
        run(Estimator::reste(1.0), &[0.3, 1.2], None, &[5.0, 7.0]),
        [5.0, 7.0]
    );
}

#[test]
fn a_nan_makes_its_gradient_nan_whatever_the_degree() {
    for o in [1.0, 3.0] {
        let dx = run(Estimator::reste(o), &[f32::NAN, 1.0], None, &[2.0; 2]);
        assert!(dx[0].is_nan() && dx[1].is_finite(), "{o}");
    }
}

#[test]
fn text_forms_round_trip() {
    for estimator in [
        Estimator::Saturation { largest: 57344.0 },
        Estimator::reste(2.5),
        Estimator::Reste {
            o: 1.0,
            threshold: 0.7,
            interval: 1e-3,
        },
    ] {
        assert_eq!(
            estimator.to_string().parse::<Estimator>().unwrap(),
            estimator
        );
    }
    for text in [
        "reste",
        "reste:0.5",
        "reste:nan",
        "reste:2:0:0.1",
        "reste:2:1.5:0",
        "reste:2:1.5:inf",
        "saturation",
        "saturation:-1",
        "saturation:0",
        "saturation:0.1",
        "saturation:inf",
        "mask",
    ] {
        assert!(text.parse::<Estimator>().is_err(), "{text}");
    }
}

#[test]
fn wrong_arguments() {
    let stream = Device::cpu().stream().unwrap();
    let named = |result: Result<()>, name: &str| match result {
        Err(Error::Argument { argument, .. }) => assert_eq!(argument, name),
        other => panic!("{other:?}"),
    };
    let mask = StraightThrough::new(Estimator::Saturation { largest: 6.0 });
    let mask = mask.prepare(&stream).unwrap();
    let reste = StraightThrough::new(Estimator::reste(2.0))
        .prepare(&stream)
        .unwrap();
    let x = stream.zeros(DType::Bf16, &[3, 4]).unwrap();
    let two = stream.zeros(DType::F32, &[2]).unwrap();
    let one = stream.zeros(DType::F32, &[1]).unwrap();
    let integers = stream.zeros(DType::I32, &[3, 4]).unwrap();
    let other = stream.zeros(DType::F32, &[4, 3]).unwrap();
    let call = |x: &Buffer, scale: Option<&Buffer>, dy: &Buffer| {
        mask.backward(x.view(), scale.map(Buffer::view), dy.view())
            .map(|_| ())
    };
    named(call(&integers, None, &x), "x");
    named(call(&x, None, &integers), "dy");
    named(call(&x, None, &other), "dy");
    named(call(&x, Some(&two), &x), "scale");
    named(call(&x, Some(&x), &x), "scale");
    call(&x, Some(&one), &x).unwrap();
    let scaled = reste.backward(x.view(), Some(one.view()), x.view());
    named(scaled.map(|_| ()), "scale");
    let empty = x.view().slice_columns(0..0).unwrap();
    named(mask.backward(empty, None, empty).map(|_| ()), "x");
    let mut dx = stream.zeros(DType::F32, &[3, 5]).unwrap();
    named(
        mask.backward_into(x.view(), None, x.view(), dx.view_mut()),
        "dx",
    );
    assert!(
        StraightThrough::new(Estimator::Saturation { largest: 0.1 })
            .prepare(&stream)
            .is_err()
    );
}
