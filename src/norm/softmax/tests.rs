use std::f32::consts::LN_2;

use super::*;
use crate::norm::fixtures::{FLOATS, Padded, alias, bits, cpu, numbers, read, refused, rounded};
use crate::reference::norm::softmax as reference;
use crate::reference::{FloatRows, FloatRowsMut, Indices};
use crate::{Error, Status};

fn prepare(kind: SoftmaxKind) -> PreparedSoftmax {
    Softmax::new(kind).prepare(&cpu()).unwrap()
}

fn close(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-6, "{got} is not {expected}");
    }
}

/// p = 1/4 and 3/4 from scores log 1 and log 3, halved by the scale.
#[test]
fn softmax_by_hand() {
    let stream = cpu();
    let x = [0.0, 2.0 * 3_f32.ln()];
    let x = stream.upload(&[2], &x).unwrap();
    let op = Softmax::new(SoftmaxKind::Softmax).scale(0.5);
    let op = op.prepare(&stream).unwrap();
    let result = op.forward(x.view(), None).unwrap();
    close(&result.y.read::<f32>().unwrap(), &[0.25, 0.75]);
    close(&result.normalizer.read::<f32>().unwrap(), &[4_f32.ln()]);
    let entropy = 4_f32.ln() - 0.75 * 3_f32.ln();
    close(&result.entropy.read::<f32>().unwrap(), &[entropy]);

    // g = (1, 0), u = 2: sum p g = 1/4, and log p + H = -(3/4) log 3, (1/4) log 3.
    let dy = stream.upload(&[2], &[1.0_f32, 0.0]).unwrap();
    let u = stream.upload(&[1], &[2.0_f32]).unwrap();
    let incoming = SoftmaxIncoming::default().dentropy(u.view());
    let dx = op.backward(result.y.view(), None, dy.view(), &incoming);
    let first = 0.5 * 0.25 * (0.75 + 2.0 * 0.75 * 3_f32.ln());
    close(&dx.unwrap().read::<f32>().unwrap(), &[first, -first]);
}

#[test]
fn log_softmax_by_hand() {
    let stream = cpu();
    let x = stream.upload(&[1, 2], &[7.0_f32, 7.0]).unwrap();
    let op = prepare(SoftmaxKind::LogSoftmax);
    let result = op.forward(x.view(), None).unwrap();
    close(&result.y.read::<f32>().unwrap(), &[-LN_2; 2]);
    close(&result.normalizer.read::<f32>().unwrap(), &[7.0 + LN_2]);
    close(&result.entropy.read::<f32>().unwrap(), &[LN_2]);
    let dy = stream.upload(&[1, 2], &[3.0_f32, 1.0]).unwrap();
    let dx = op.backward(result.y.view(), None, dy.view(), &result.incoming());
    close(&dx.unwrap().read::<f32>().unwrap(), &[1.0, -1.0]);
}

/// s(1) = 2 and s(-1) = 1/2: p = 4/5 and 1/5, s' = 1 and 1/4.
#[test]
fn stablemax_by_hand() {
    let stream = cpu();
    let x = stream.upload(&[1, 2], &[1.0_f32, -1.0]).unwrap();
    let op = prepare(SoftmaxKind::StableMax);
    let result = op.forward(x.view(), None).unwrap();
    close(&result.y.read::<f32>().unwrap(), &[0.8, 0.2]);
    close(&result.normalizer.read::<f32>().unwrap(), &[2.5]);
    let dy = stream.upload(&[1, 2], &[1.0_f32, 0.0]).unwrap();
    let dx = op.backward(result.y.view(), None, dy.view(), &result.incoming());
    close(&dx.unwrap().read::<f32>().unwrap(), &[0.08, -0.08]);
}

#[test]
fn queries_and_batches_come_from_the_shape() {
    let stream = cpu();
    let op = Softmax::new(SoftmaxKind::Softmax).causal(Causal::Offset(0));
    let op = op.prepare(&stream).unwrap();
    let x = [0.0_f32; 8];
    let of = |shape: &[usize], lengths: Option<TensorRef<'_>>| {
        let x = stream.upload(shape, &x).unwrap();
        let y = op.forward(x.view(), lengths).unwrap().y;
        assert_eq!(y.shape(), shape);
        y.read::<f32>().unwrap()
    };
    let half = [1.0, 0.0, 0.5, 0.5];
    assert_eq!(of(&[2, 2, 2], None), [half, half].concat());
    assert_eq!(of(&[1, 2, 2, 2], None), [half, half].concat());
    let four_queries = [1.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5];
    assert_eq!(of(&[4, 2], None), four_queries);
    assert_eq!(of(&[8], None)[..2], [1.0, 0.0]);
    // The second batch has one key, whatever the integers' type; of both batches, none and all.
    let one_key = [1.0, 0.0, 0.5, 0.5, 1.0, 0.0, 1.0, 0.0];
    let none = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.5, 0.5];
    let i64s = stream.upload(&[2], &[2_i64, 1]).unwrap();
    let i32s = stream.upload(&[2], &[-3_i32, 9]).unwrap();
    let u32s = stream.upload(&[2], &[2_u32, 1]).unwrap();
    assert_eq!(of(&[2, 2, 2], Some(i64s.view())), one_key);
    assert_eq!(of(&[2, 2, 2], Some(u32s.view())), one_key);
    assert_eq!(of(&[2, 2, 2], Some(i32s.view())), none);
}

/// Each type of each tensor, padded rows, masks: the reference's numbers, rounded once.
#[test]
fn results_are_the_reference_rounded_once() {
    let stream = cpu();
    let (rows, queries, keys) = (6, 3, 5);
    let shape = [rows / queries, queries, keys];
    let lengths = [4_i64, 2];
    let lengths_buffer = stream.upload(&[2], &lengths).unwrap();
    let lengths_view = Some(lengths_buffer.view());
    let blocks = reference::Blocks {
        queries,
        lengths: Some(Indices::I64(&lengths)),
    };
    for (seed, kind) in SoftmaxKind::ALL.into_iter().enumerate() {
        for (x_type, y_type) in FLOATS.iter().flat_map(|&x| FLOATS.map(|y| (x, y))) {
            let options = SoftmaxOptions::new(kind).scale(1.5).causal(Causal::End);
            let op = Softmax::from(options).prepare(&stream).unwrap();
            let x = rounded(x_type, &numbers(rows * keys, seed as u64));
            let dy = rounded(x_type, &numbers(rows * keys, 77));
            let du = rounded(DType::F32, &numbers(rows, 99));
            let du_buffer: Vec<f32> = du.iter().map(|&du| du as f32).collect();
            let du_buffer = stream.upload(&[rows], &du_buffer).unwrap();

            let mut y = vec![0.0; rows * keys];
            let into = FloatRowsMut::new(&mut y, rows, keys, keys).unwrap();
            let from = FloatRows::new(&x, rows, keys, keys).unwrap();
            let forward = reference::forward(&options, &blocks, from, into).unwrap();

            let x = Padded::new(&stream, x_type, &shape, &x);
            let mut got = Padded::blank(&stream, y_type, &shape);
            let mut entropy = stream.zeros(DType::F32, &[rows]).unwrap();
            let mut normalizer = stream.zeros(DType::F32, &[rows]).unwrap();
            let mut statistics = SoftmaxStatistics::default()
                .entropy(entropy.view_mut())
                .normalizer(normalizer.view_mut());
            op.forward_into(x.view(), lengths_view, got.view_mut(), &mut statistics)
                .unwrap();
            let y = rounded(y_type, &y);
            assert_eq!(bits(&got.values()), bits(&y), "{kind} {x_type} {y_type}");
            let f32s = |values: &[f64]| rounded(DType::F32, values);
            assert_eq!(read(&entropy), f32s(&forward.entropies));
            assert_eq!(read(&normalizer), f32s(&forward.normalizers));

            // The backward goes from y and S as they were stored.
            let sums = f32s(&forward.normalizers);
            let mut dx = vec![0.0; rows * keys];
            let from = FloatRows::new(&y, rows, keys, keys).unwrap();
            let into = FloatRowsMut::new(&mut dx, rows, keys, keys).unwrap();
            let incoming = reference::Incoming {
                dy: FloatRows::new(&dy, rows, keys, keys).unwrap(),
                dentropy: Some((&du).into()),
                normalizers: Some((&sums).into()),
            };
            reference::backward(&options, &blocks, from, incoming, into).unwrap();

            let dy = Padded::new(&stream, x_type, &shape, &dy);
            let mut got_dx = Padded::blank(&stream, y_type, &shape);
            let incoming = SoftmaxIncoming::default()
                .dentropy(du_buffer.view())
                .normalizer(normalizer.view());
            let (y, dx_view) = (got.view(), got_dx.view_mut());
            op.backward_into(y, lengths_view, dy.view(), &incoming, dx_view)
                .unwrap();
            assert_eq!(bits(&got_dx.values()), bits(&rounded(y_type, &dx)));
        }
    }
    stream.check().unwrap();
}

/// Bit for bit, each kind and type, padded rows.
#[test]
fn in_place_forms_give_what_the_others_give() {
    let stream = cpu();
    let shape = [2, 3, 7];
    for (kind, dtype) in SoftmaxKind::ALL
        .iter()
        .flat_map(|&kind| FLOATS.map(|dtype| (kind, dtype)))
    {
        let op = Softmax::new(kind).causal(Causal::Offset(2));
        let op = op.prepare(&stream).unwrap();
        let x = Padded::new(&stream, dtype, &shape, &numbers(42, 5));
        let mut y = Padded::blank(&stream, dtype, &shape);
        let mut both = Padded::new(&stream, dtype, &shape, &x.values());
        let mut normalizers = [0, 1].map(|_| stream.zeros(DType::F32, &[6]).unwrap());
        let [first, second] = &mut normalizers;
        let mut statistics = SoftmaxStatistics::default().normalizer(first.view_mut());
        op.forward_into(x.view(), None, y.view_mut(), &mut statistics)
            .unwrap();
        let mut statistics = SoftmaxStatistics::default().normalizer(second.view_mut());
        op.forward_in_place(both.view_mut(), None, &mut statistics)
            .unwrap();
        assert_eq!(bits(&both.values()), bits(&y.values()));
        assert_eq!(read(first), read(second));

        let incoming = SoftmaxIncoming::default().normalizer(first.view());
        let mut dy = Padded::new(&stream, dtype, &shape, &numbers(42, 6));
        let mut dx = Padded::blank(&stream, dtype, &shape);
        op.backward_into(y.view(), None, dy.view(), &incoming, dx.view_mut())
            .unwrap();
        op.backward_in_place(y.view(), None, dy.view_mut(), &incoming)
            .unwrap();
        assert_eq!(bits(&dy.values()), bits(&dx.values()));
    }
}

#[test]
fn a_row_that_is_not_finite_is_reported_and_alone() {
    let stream = cpu();
    let op = Softmax::default().prepare(&stream).unwrap();
    let x = [f32::NAN, 0.0, 1.0, 1.0];
    let x = stream.upload(&[2, 2], &x).unwrap();
    let y = op.forward(x.view(), None).unwrap().y.read::<f32>().unwrap();
    assert!(y[0].is_nan() && y[1].is_nan());
    assert_eq!(y[2..], [0.5, 0.5]);
    assert_eq!(stream.check(), Err(Error::Data(Status::NON_FINITE_ROW)));
}

#[test]
fn nothing_is_fine() {
    let stream = cpu();
    let op = prepare(SoftmaxKind::StableMax);
    for shape in [&[0, 4][..], &[2, 0, 4], &[0, 3, 4], &[0, 2, 3, 4]] {
        let x = stream.zeros(DType::Bf16, shape).unwrap();
        let lengths = stream.zeros(DType::I32, &[0]).unwrap();
        let result = op.forward(x.view(), Some(lengths.view())).unwrap();
        assert_eq!((result.y.shape(), result.entropy.elements()), (shape, 0));
        let incoming = result.incoming();
        let dx = op.backward(result.y.view(), None, x.view(), &incoming);
        assert_eq!(dx.unwrap().shape(), shape);
    }
}

#[test]
fn options_are_validated() {
    let scale = Softmax::default().scale(0.0).prepare(&cpu());
    refused(scale, "norm", "scale");
}

#[test]
fn each_wrong_argument_of_a_forward_is_named() {
    const OP: &str = "Softmax::forward";
    let stream = cpu();
    let op = Softmax::default().prepare(&stream).unwrap();
    let x = stream.zeros(DType::F32, &[4, 3]).unwrap();
    let integers = stream.zeros(DType::I32, &[4, 3]).unwrap();
    refused(op.forward(integers.view(), None), OP, "x");
    let no_keys = stream.zeros(DType::F32, &[4, 0]).unwrap();
    refused(op.forward(no_keys.view(), None), OP, "x");

    let three = stream.zeros(DType::I64, &[3]).unwrap();
    refused(op.forward(x.view(), Some(three.view())), OP, "lengths");
    let none = stream.zeros(DType::I64, &[0]).unwrap();
    refused(op.forward(x.view(), Some(none.view())), OP, "lengths");
    let floats = stream.zeros(DType::F32, &[4]).unwrap();
    refused(op.forward(x.view(), Some(floats.view())), OP, "lengths");
    let apart = stream.zeros(DType::I64, &[4, 2]).unwrap();
    let apart = apart.view().slice_columns(0..1).unwrap();
    refused(op.forward(x.view(), Some(apart)), OP, "lengths");

    let nothing = &mut SoftmaxStatistics::default();
    for shape in [&[4, 2][..], &[3, 3], &[12]] {
        let mut y = stream.zeros(DType::F32, shape).unwrap();
        refused(
            op.forward_into(x.view(), None, y.view_mut(), nothing),
            OP,
            "y",
        );
    }
    let mut y = stream.zeros(DType::I32, &[4, 3]).unwrap();
    let result = op.forward_into(x.view(), None, y.view_mut(), nothing);
    refused(result, OP, "y");

    let mut y = stream.zeros(DType::F32, &[4, 3]).unwrap();
    let mut short = stream.zeros(DType::F32, &[3]).unwrap();
    let mut half = stream.zeros(DType::F16, &[4]).unwrap();
    for wrong in [&mut short, &mut half] {
        let mut statistics = SoftmaxStatistics::default().entropy(wrong.view_mut());
        let result = op.forward_into(x.view(), None, y.view_mut(), &mut statistics);
        refused(result, OP, "entropy");
        let mut statistics = SoftmaxStatistics::default().normalizer(wrong.view_mut());
        let result = op.forward_into(x.view(), None, y.view_mut(), &mut statistics);
        refused(result, OP, "normalizer");
    }
}

#[test]
fn each_wrong_argument_of_a_backward_is_named() {
    const OP: &str = "Softmax::backward";
    let stream = cpu();
    let op = Softmax::new(SoftmaxKind::StableMax).prepare(&stream);
    let op = op.unwrap();
    let y = stream.zeros(DType::F32, &[4, 3]).unwrap();
    let dy = stream.zeros(DType::F32, &[4, 3]).unwrap();
    let rows = stream.zeros(DType::F32, &[4]).unwrap();
    let short = stream.zeros(DType::F32, &[3]).unwrap();
    let mut dx = stream.zeros(DType::F32, &[4, 3]).unwrap();
    let good = SoftmaxIncoming::default().normalizer(rows.view());

    let absent = SoftmaxIncoming::default();
    let result = op.backward(y.view(), None, dy.view(), &absent);
    refused(result, OP, "normalizer");
    let wrong = SoftmaxIncoming::default().normalizer(short.view());
    let result = op.backward(y.view(), None, dy.view(), &wrong);
    refused(result, OP, "normalizer");
    let wrong = good.dentropy(short.view());
    let result = op.backward(y.view(), None, dy.view(), &wrong);
    refused(result, OP, "dentropy");
    refused(op.backward(y.view(), None, rows.view(), &good), OP, "dy");
    refused(op.backward(rows.view(), None, y.view(), &good), OP, "dy");
    let lengths = Some(short.view());
    let result = op.backward(y.view(), lengths, dy.view(), &good);
    refused(result, OP, "lengths");
    let mut wide = stream.zeros(DType::F32, &[4, 4]).unwrap();
    let result = op.backward_into(y.view(), None, dy.view(), &good, wide.view_mut());
    refused(result, OP, "dx");
    let result = op.backward_in_place(y.view(), None, wide.view_mut(), &good);
    refused(result, "Softmax::backward_in_place", "dy");
    let dx = dx.view_mut();
    op.backward_into(y.view(), None, dy.view(), &good, dx)
        .unwrap();
}

#[test]
fn what_is_written_may_not_overlap() {
    let stream = cpu();
    let op = Softmax::default().prepare(&stream).unwrap();
    let memory = stream.zeros(DType::F32, &[6]).unwrap();
    let view = |first, shape: &[usize]| alias(&memory, first, shape);
    let x = view(0, &[2, 2]);
    let nothing = &mut SoftmaxStatistics::default();
    let result = op.forward_into(x.as_ref(), None, view(2, &[2, 2]), nothing);
    refused(result, "Softmax::forward", "y");
    let mut statistics = SoftmaxStatistics::default().entropy(view(3, &[2]));
    let result = op.forward_in_place(view(0, &[2, 2]), None, &mut statistics);
    refused(result, "Softmax::forward_in_place", "x");
    let incoming = SoftmaxIncoming::default();
    let result = op.backward_in_place(x.as_ref(), None, view(0, &[2, 2]), &incoming);
    refused(result, "Softmax::backward_in_place", "dy");
}
