//! Numbers at the ends of f32, where kernels must do as the formulas in f64 do.

use super::*;
use crate::norm::fixtures::cpu;
use crate::{Device, Status, Stream};

/// What a forward and a backward of one row give.
struct Outcome {
    y: Vec<f32>,
    entropy: f32,
    normalizer: f32,
    dx: Vec<f32>,
    status: Result<()>,
}

fn run(stream: &Stream, op: Softmax, x: &[f32], lengths: Option<i64>) -> Outcome {
    let op = op.prepare(stream).unwrap();
    let dy: Vec<f32> = (0..x.len()).map(|key| (key % 3) as f32 - 0.5).collect();
    let dy = stream.upload(&[x.len()], &dy).unwrap();
    let x = stream.upload(&[x.len()], x).unwrap();
    let lengths = lengths.map(|length| stream.upload(&[1], &[length]).unwrap());
    let lengths = lengths.as_ref().map(Buffer::view);
    let result = op.forward(x.view(), lengths).unwrap();
    let u = stream.upload(&[1], &[0.75_f32]).unwrap();
    let incoming = result.incoming().dentropy(u.view());
    let dx = op.backward(result.y.view(), lengths, dy.view(), &incoming);
    let read = |buffer: &Buffer| buffer.read::<f32>().unwrap();
    Outcome {
        y: read(&result.y),
        entropy: read(&result.entropy)[0],
        normalizer: read(&result.normalizer)[0],
        dx: read(&dx.unwrap()),
        status: stream.check(),
    }
}

#[track_caller]
fn near(what: &str, got: f32, wanted: f32, slack: f32) {
    let fine = got == wanted || (got - wanted).abs() <= slack + 1e-5 * wanted.abs();
    assert!(
        fine || (got.is_nan() && wanted.is_nan()),
        "{what}: {got}, not {wanted}"
    );
}

/// The emulated device against the CPU.
#[track_caller]
fn agree(op: Softmax, x: &[f32], lengths: Option<i64>) -> Outcome {
    let emulated = Device::emulated().unwrap().stream().unwrap();
    let (got, wanted) = (run(&emulated, op, x, lengths), run(&cpu(), op, x, lengths));
    for (got, wanted) in got.y.iter().zip(&wanted.y) {
        near("y", *got, *wanted, 1e-38);
    }
    near("entropy", got.entropy, wanted.entropy, 1e-6);
    near("normalizer", got.normalizer, wanted.normalizer, 0.0);
    let largest = wanted
        .dx
        .iter()
        .fold(0.0_f32, |most, dx| most.max(dx.abs()));
    for (got, wanted) in got.dx.iter().zip(&wanted.dx) {
        near("dx", *got, *wanted, 1e-5 * largest);
    }
    assert_eq!(got.status, wanted.status);
    got
}

/// s from 2^-128, below the normal numbers, to the largest finite number, and sums of both.
#[test]
fn stable_scores_of_every_size() {
    let op = Softmax::new(SoftmaxKind::StableMax);
    let masked = agree(op, &[f32::MIN; 7], None);
    assert!(masked.y.iter().all(|y| (y - 1.0 / 7.0).abs() < 1e-6));
    // 1 / S of the first is past f32.
    agree(op, &[f32::MIN], None);
    agree(op, &[f32::MIN, -1e38, -2e37, -3e36], None);
    agree(op, &[f32::MIN, f32::NEG_INFINITY, 0.5, -1.0], None);
    agree(op, &[1e38, 1.2e38, 3e37, 0.0, -1e38], None);
    agree(op, &[1e30, 2e30, 3e29, -5.0], None);
    agree(op, &[1e20, 1e19, 3e19], None);
    agree(op, &[-1e20, -1e19, -3e19], None);
}

#[test]
fn scales_at_the_ends() {
    let log2 = std::f32::consts::LN_2;
    for kind in [SoftmaxKind::Softmax, SoftmaxKind::LogSoftmax] {
        let op = Softmax::new(kind);
        // The scale times log2 e is past f32.
        let even = agree(op.scale(3e38), &[0.0, 0.0, -1.0], None);
        assert!((even.normalizer - log2).abs() < 1e-6);
        // So are the scores, and their differences.
        agree(op.scale(4.0), &[3e38, -3e38, 1e38], None);
        agree(op, &[f32::MAX, f32::MIN, f32::MAX], None);
        // Differences that only the scale makes small.
        agree(op.scale(1e-38), &[1e38, -1e38, 2e38, 0.0], None);
        agree(op.scale(1e-40), &[1e38, -1e38, 2e38, 0.0], None);
    }
}

#[test]
fn masks_at_the_ends() {
    let x = [0.5, 1.0, -1.0, 2.0, 0.0];
    for kind in SoftmaxKind::ALL {
        let op = Softmax::new(kind);
        for offset in [i64::MIN, i64::MIN + 1, -1, 0, 2, i64::MAX - 1, i64::MAX] {
            agree(op.causal(Causal::Offset(offset)), &x, None);
        }
        for length in [i64::MIN, -1, 0, 3, 1 << 32, (1 << 32) + 2, i64::MAX] {
            agree(op, &x, Some(length));
        }
    }
}

/// A logarithm that is not one, with a gradient that is 0: NaN, as the formula has it.
#[test]
fn a_backward_from_what_is_not_finite() {
    let streams = [cpu(), Device::emulated().unwrap().stream().unwrap()];
    for stream in streams {
        for kind in SoftmaxKind::ALL {
            let op = Softmax::new(kind).prepare(&stream).unwrap();
            for wrong in [f32::NAN, f32::INFINITY] {
                let y = stream.upload(&[4], &[wrong, 0.25, 0.5, 0.125]).unwrap();
                let dy = stream.upload(&[4], &[0.0_f32, 1.0, 2.0, 3.0]).unwrap();
                let one = stream.upload(&[1], &[1.0_f32]).unwrap();
                let incoming = SoftmaxIncoming::default().normalizer(one.view());
                let dx = op.backward(y.view(), None, dy.view(), &incoming).unwrap();
                let dx = dx.read::<f32>().unwrap();
                assert!(dx.iter().all(|dx| dx.is_nan()), "{kind}: {dx:?}");
                let told = Err(crate::Error::Data(Status::NON_FINITE_ROW));
                assert_eq!(stream.check(), told);
            }
            // The gradient of the entropy alone.
            let y = stream.upload(&[2], &[0.25_f32, 0.75]).unwrap();
            let nan = stream.upload(&[1], &[f32::NAN]).unwrap();
            let one = stream.upload(&[1], &[1.0_f32]).unwrap();
            let incoming = SoftmaxIncoming::default().normalizer(one.view());
            let incoming = incoming.dentropy(nan.view());
            let dx = op.backward(y.view(), None, y.view(), &incoming).unwrap();
            assert!(dx.read::<f32>().unwrap().iter().all(|dx| dx.is_nan()));
            assert!(stream.check().is_err());
        }
    }
}
