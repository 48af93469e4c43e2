use super::*;
use crate::Device;

fn named(result: Result<()>, name: &str) {
    match result {
        Err(Error::Argument { argument, .. }) => assert_eq!(argument, name),
        other => panic!("{other:?}"),
    }
}

/// Weights that are no multiples of anything, and b of each block.
fn weights(stream: &Stream, rows: usize, columns: usize) -> (Buffer, Buffer) {
    let w: Vec<f32> = (0..rows * columns)
        .map(|i| (i as f32 * 0.7).sin())
        .collect();
    let [down, across] = GaussWs::block_shape(rows, columns);
    let bits: Vec<f32> = (0..down * across).map(|i| 4.0 + i as f32 / 3.0).collect();
    let w = stream.upload(&[rows, columns], &w).unwrap();
    (w, stream.upload(&[down, across], &bits).unwrap())
}

#[test]
fn an_offset_is_the_sum_of_both() {
    let stream = Device::cpu().stream().unwrap();
    let op = GaussWs::new(3).prepare(&stream).unwrap();
    let (w, bits) = weights(&stream, 33, 70);
    let replay = stream.upload(&[1], &[5_i64]).unwrap();
    let noisy = |noise: NoiseOffset<'_>| -> Vec<f32> {
        let noisy = op.forward(w.view(), bits.view(), noise).unwrap();
        noisy.weights.read().unwrap()
    };
    let both = NoiseOffset {
        offset: 37,
        device_offset: Some(replay.view()),
    };
    assert_eq!(noisy(both), noisy(42.into()));
    assert_ne!(noisy(41.into()), noisy(42.into()));
    let other = GaussWs::new(4).prepare(&stream).unwrap();
    let other = other.forward(w.view(), bits.view(), 42).unwrap();
    assert_ne!(other.weights.read::<f32>().unwrap(), noisy(42.into()));
}

#[test]
fn the_gradient_of_bits_is_that_of_the_noisy_weights() {
    // sum(w^ dw^) as a function of one block's b, which is analytic: R is the same.
    let stream = Device::cpu().stream().unwrap();
    let op = GaussWs::new(11).prepare(&stream).unwrap();
    let (w, bits) = weights(&stream, 40, 66);
    let (_, g) = (
        0,
        stream.upload(&[40, 66], &w.read::<f32>().unwrap()).unwrap(),
    );
    let noisy = op.forward(w.view(), bits.view(), 9).unwrap();
    let db = op
        .backward(g.view(), bits.view(), noisy.amax.view(), 9)
        .unwrap();
    let db: Vec<f32> = db.read().unwrap();
    let b: Vec<f32> = bits.read().unwrap();
    let g: Vec<f32> = g.read().unwrap();
    for block in 0..b.len() {
        let sum = |change: f32| -> f64 {
            let mut b = b.clone();
            b[block] += change;
            let bits = stream.upload(bits.shape(), &b).unwrap();
            let noisy = op.forward(w.view(), bits.view(), 9).unwrap();
            let noisy: Vec<f32> = noisy.weights.read().unwrap();
            noisy
                .iter()
                .zip(&g)
                .map(|(w, g)| f64::from(*w) * f64::from(*g))
                .sum()
        };
        let h = 1.0 / 256.0;
        let difference = (sum(h) - sum(-h)) / f64::from(2.0 * h);
        let error = (difference - f64::from(db[block])).abs();
        assert!(
            error < 2e-3 * difference.abs() + 2e-3,
            "{difference} {}",
            db[block]
        );
    }
}

#[test]
fn gradients_add_and_pass_through() {
    let stream = Device::cpu().stream().unwrap();
    let op = GaussWs::new(1).prepare(&stream).unwrap();
    let (w, bits) = weights(&stream, 5, 37);
    let noisy = op.forward(w.view(), bits.view(), 0).unwrap();
    let (bits, amax) = (bits.view(), noisy.amax.view());
    let alone: Vec<f32> = op
        .backward(w.view(), bits, amax, 0)
        .unwrap()
        .read()
        .unwrap();
    let mut dbits = stream.upload(&[1, 2], &[1.0_f32, -2.0]).unwrap();
    let mut dw = stream.uninitialised(DType::Bf16, &[5, 37]).unwrap();
    let gradients = NoiseGradients::new(dbits.view_mut())
        .accumulate()
        .dw(dw.view_mut());
    op.backward_into(w.view(), bits, amax, 0, gradients)
        .unwrap();
    assert_eq!(
        dbits.read::<f32>().unwrap(),
        [1.0 + alone[0], -2.0 + alone[1]]
    );
    let rounded = |w: f32| half::bf16::from_f32(w);
    let expected: Vec<half::bf16> = w.read().unwrap().into_iter().map(rounded).collect();
    assert_eq!(dw.read::<half::bf16>().unwrap(), expected);
}

#[test]
fn wrong_arguments() {
    let stream = Device::cpu().stream().unwrap();
    let op = GaussWs::new(0).prepare(&stream).unwrap();
    let (w, bits) = weights(&stream, 33, 64);
    let zeros = |dtype, shape: &[usize]| stream.zeros(dtype, shape).unwrap();
    let forward = |w: &Buffer, bits: &Buffer| op.forward(w.view(), bits.view(), 0).map(|_| ());
    forward(&w, &bits).unwrap();
    named(forward(&zeros(DType::I32, &[33, 64]), &bits), "w");
    named(forward(&zeros(DType::F32, &[33, 0]), &bits), "w");
    named(forward(&w, &zeros(DType::F32, &[2, 1])), "bits");
    named(forward(&w, &zeros(DType::F32, &[1, 4])), "bits");
    named(forward(&w, &zeros(DType::Bf16, &[2, 2])), "bits");
    let replay = zeros(DType::I64, &[2]);
    let noise = NoiseOffset {
        offset: 0,
        device_offset: Some(replay.view()),
    };
    let noisy = op.forward(w.view(), bits.view(), noise);
    named(noisy.map(|_| ()), "device_offset");
    let into = |weights: &mut Buffer, amax: &mut Buffer| {
        op.forward_into(
            w.view(),
            bits.view(),
            0,
            weights.view_mut(),
            amax.view_mut(),
        )
    };
    let (mut weights, mut amax) = (zeros(DType::F16, &[33, 64]), zeros(DType::F32, &[2, 2]));
    into(&mut weights, &mut amax).unwrap();
    named(
        into(&mut zeros(DType::F16, &[33, 63]), &mut amax),
        "weights",
    );
    named(into(&mut weights, &mut zeros(DType::F32, &[4])), "amax");
    let backward = |amax: &Buffer, dbits: &mut Buffer, dw: Option<&mut Buffer>| {
        let mut gradients = NoiseGradients::new(dbits.view_mut());
        gradients.dw = dw.map(Buffer::view_mut);
        op.backward_into(w.view(), bits.view(), amax.view(), 0, gradients)
    };
    let mut dbits = zeros(DType::F32, &[2, 2]);
    backward(&amax, &mut dbits, Some(&mut weights)).unwrap();
    named(
        backward(&zeros(DType::F32, &[3, 2]), &mut dbits, None),
        "amax",
    );
    named(
        backward(&amax, &mut zeros(DType::F32, &[2, 3]), None),
        "dbits",
    );
    named(
        backward(&amax, &mut dbits, Some(&mut zeros(DType::F16, &[3, 3]))),
        "dw",
    );
}
