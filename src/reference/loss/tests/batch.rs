//! Reductions, modes, strides and roundings of whole batches.

use half::{bf16, f16};

use super::assert_close;
use crate::loss::{Criterion, Denominator, LossOptions, Objective, Reduction};
use crate::reference::loss::batch::{
    Batch, Forward, Upstream, backward, backward_in_place, forward, forward_backward,
    forward_backward_in_place, log_probs, log_probs_backward, scale_gradient,
};
use crate::reference::loss::{RowState, Target};
use crate::reference::{Indices, PerToken, Rows, RowsMut};
use crate::{Error, Number, Status};

const VOCAB: usize = 37;
const STRIDE: usize = 41;
const TARGETS: [i64; 9] = [0, -100, 5, 36, 7, -100, 37, 11, 2];
const TOKENS: usize = TARGETS.len();

/// Fixed numbers without a pattern in [-4, 4); NaN wherever nothing may be read.
fn logits<T: Number>() -> Vec<T> {
    let mut state = 1u32;
    (0..TOKENS * STRIDE)
        .map(|i| {
            state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            let (token, class) = (i / STRIDE, i % STRIDE);
            let target = Target::classify(TARGETS[token], VOCAB, -100);
            let read = class < VOCAB && matches!(target, Target::Valid(_));
            let value = f64::from(state >> 16) / 8192.0 - 4.0;
            T::from_f64(if read { value } else { f64::NAN })
        })
        .collect()
}

fn options(criterion: impl Into<Criterion>, reduction: Reduction) -> LossOptions {
    let mut options = LossOptions::new(criterion);
    options.reduction = reduction;
    options.z_loss = 0.01;
    options.label_smoothing = 0.1;
    options
}

fn mean(denominator: Denominator) -> Reduction {
    Reduction::Mean(denominator)
}

fn batch() -> Batch<'static> {
    Batch {
        tokens: Some(20.0),
        // An empty sequence, one of ignored tokens only, and a last token in none.
        offsets: Some(Indices::I32(&[0, 1, 1, 2, 5, 8])),
        ..Batch::new(VOCAB, Indices::I64(&TARGETS))
    }
}

fn rows<T: Number>(data: &[T]) -> Rows<'_, T> {
    Rows::new(data, TOKENS, VOCAB, STRIDE).unwrap()
}

fn rows_mut<T: Number>(data: &mut [T]) -> RowsMut<'_, T> {
    RowsMut::new(data, TOKENS, VOCAB, STRIDE).unwrap()
}

/// Forward and gradient in f64, by forward and then backward.
fn in_f64(batch: &Batch, options: &LossOptions, upstream: PerToken) -> (Forward, Vec<f64>) {
    let data = logits::<f64>();
    let result = forward(batch, options, rows(&data)).unwrap();
    let mut gradient = vec![f64::NAN; TOKENS * STRIDE];
    let states: Vec<RowState> = result.rows.iter().map(|row| row.state).collect();
    let upstream = Upstream::loss(upstream);
    let gradient_rows = RowsMut::new(&mut gradient, TOKENS, STRIDE, STRIDE).unwrap();
    backward(
        batch,
        options,
        rows(&data),
        &states,
        &upstream,
        gradient_rows,
    )
    .unwrap();
    (result, gradient)
}

#[test]
fn reductions_divide_by_what_they_say() {
    let criterion = Objective::Nll.above(0.01);
    let per_token: Vec<f64> = in_f64(
        &batch(),
        &options(criterion, Reduction::None),
        PerToken::Scalar(1.0),
    )
    .0
    .rows
    .iter()
    .map(|row| row.loss)
    .collect();
    let sum: f64 = per_token.iter().sum();
    let kept = per_token.iter().filter(|&&loss| loss != 0.0).count() as f64;
    assert!(
        (1.0..6.0).contains(&kept),
        "the threshold should drop some: {kept}"
    );
    let sequences = [
        per_token[0],
        per_token[2..5].iter().sum::<f64>() / 3.0,
        // The token whose target is out of range counts as valid.
        per_token[5..8].iter().sum::<f64>() / 2.0,
    ];
    for (reduction, loss) in [
        (Reduction::None, sum),
        (Reduction::Sum, sum),
        (mean(Denominator::Valid), sum / 7.0),
        (mean(Denominator::Kept), sum / kept),
        (mean(Denominator::Tokens), sum / 20.0),
        (
            mean(Denominator::Sequence),
            sequences.iter().sum::<f64>() / 3.0,
        ),
    ] {
        let (result, _) = in_f64(
            &batch(),
            &options(criterion, reduction),
            PerToken::Scalar(1.0),
        );
        assert_close(result.loss, loss, 1e-14);
        assert_close(result.loss_sum, sum, 1e-14);
        assert_eq!((result.valid, result.kept), (7, kept as u64));
        assert_eq!(result.status, Status::TARGET_OUT_OF_RANGE);
        assert_eq!(
            result.correct,
            result.rows.iter().filter(|r| r.correct).count() as u64
        );
    }
}

#[test]
fn gradients_carry_the_scale_of_their_reduction() {
    let criterion = Objective::Power(0.5).above(0.01);
    let (result, unscaled) = in_f64(
        &batch(),
        &options(criterion, Reduction::None),
        PerToken::Scalar(1.0),
    );
    let kept = result.kept as f64;
    let sequence = [3.0, 0.0, 9.0, 9.0, 9.0, 6.0, 6.0, 6.0, 0.0];
    for (reduction, divisor) in [
        (Reduction::Sum, [1.0; TOKENS]),
        (mean(Denominator::Valid), [7.0; TOKENS]),
        (mean(Denominator::Kept), [kept; TOKENS]),
        (mean(Denominator::Tokens), [20.0; TOKENS]),
        (mean(Denominator::Sequence), sequence),
    ] {
        let (_, gradient) = in_f64(
            &batch(),
            &options(criterion, reduction),
            PerToken::Scalar(-2.0),
        );
        for (i, (&got, &unscaled)) in gradient.iter().zip(&unscaled).enumerate() {
            let divisor: f64 = divisor[i / STRIDE];
            let want = if divisor == 0.0 {
                0.0
            } else {
                -2.0 * unscaled / divisor
            };
            assert_close(got, want, 1e-14);
        }
    }
}

#[test]
fn upstream_for_each_token() {
    let options = options(Objective::Nll, Reduction::None);
    let (_, ones) = in_f64(&batch(), &options, PerToken::Scalar(1.0));
    let upstream: Vec<f32> = (0..TOKENS).map(|t| t as f32 - 3.5).collect();
    let (_, gradient) = in_f64(&batch(), &options, PerToken::Tokens(&upstream));
    for (i, (&got, &one)) in gradient.iter().zip(&ones).enumerate() {
        // Label smoothing subtracts eps / V' from a nearly equal number in a class or two.
        assert_close(got, one * f64::from(upstream[i / STRIDE]), 1e-12);
    }
}

#[test]
fn denominators_of_zero_leave_nothing() {
    let ignored = [-100i64; 4];
    let data = [f32::NAN; 12];
    for reduction in Reduction::ALL {
        let batch = Batch {
            tokens: Some(0.0),
            offsets: Some(Indices::I64(&[0, 4])),
            ..Batch::new(3, Indices::I64(&ignored))
        };
        let mut gradient = [f32::NAN; 12];
        let result = forward_backward(
            &batch,
            &options(Objective::Nll, reduction),
            Rows::new(&data, 4, 3, 3).unwrap(),
            PerToken::Scalar(1.0),
            RowsMut::new(&mut gradient, 4, 3, 3).unwrap(),
        )
        .unwrap();
        assert_eq!((result.loss, result.valid, result.kept), (0.0, 0, 0));
        assert_eq!(gradient, [0.0; 12]);
        let expected = if reduction == mean(Denominator::Kept) {
            0.0
        } else {
            1.0
        };
        assert_eq!(result.gradient_scale, expected);
    }
    // A count of zero removes even a loss that is there.
    let batch = Batch {
        tokens: Some(0.0),
        ..Batch::new(3, Indices::U32(&[1]))
    };
    let options = options(Objective::Nll, mean(Denominator::Tokens));
    let logits = [1.0f32, 2.0, 3.0];
    let result = forward(&batch, &options, Rows::new(&logits, 1, 3, 3).unwrap()).unwrap();
    assert_eq!(result.loss, 0.0);
    assert!(result.loss_sum > 0.0);
}

#[test]
fn offsets_that_do_not_ascend_leave_nothing() {
    let options = options(Objective::Nll, mean(Denominator::Sequence));
    let data = logits::<f32>();
    for offsets in [&[0, 5, 3][..], &[-1, 3], &[0, 10], &[4, 2]] {
        let batch = Batch {
            offsets: Some(Indices::I64(offsets)),
            ..batch()
        };
        let mut gradient = data.clone();
        let into = rows_mut(&mut gradient);
        let upstream = PerToken::Scalar(1.0);
        let result = forward_backward(&batch, &options, rows(&data), upstream, into).unwrap();
        assert_eq!(result.loss, 0.0);
        assert!(result.status.contains(Status::BAD_SEQUENCE_OFFSETS));
        for row in gradient.chunks(STRIDE) {
            assert!(row[..VOCAB].iter().all(|&dx| dx == 0.0));
        }
    }
}

#[test]
fn no_tokens() {
    for reduction in Reduction::ALL {
        let batch = Batch {
            tokens: Some(0.0),
            offsets: Some(Indices::I64(&[0])),
            ..Batch::new(3, Indices::I32(&[]))
        };
        let mut data: [f32; 0] = [];
        let result = forward_backward_in_place(
            &batch,
            &options(Objective::Nll, reduction),
            RowsMut::new(&mut data, 0, 3, 3).unwrap(),
            PerToken::Scalar(1.0),
        )
        .unwrap();
        assert_eq!(result.loss, 0.0);
        assert!(result.rows.is_empty());
    }
}

/// Each mode gives the bits of the others: one rounding of the same f64 gradient.
fn modes_agree<T: Number, G: Number>() {
    let data = logits::<T>();
    let batch = batch();
    let criterion = Objective::Focal(1.5).below(0.4);
    for reduction in [
        Reduction::Sum,
        mean(Denominator::Valid),
        mean(Denominator::Sequence),
    ] {
        let options = options(criterion, reduction);
        let result = forward(&batch, &options, rows(&data)).unwrap();
        let states: Vec<RowState> = result.rows.iter().map(|row| row.state).collect();
        let upstream = PerToken::Scalar(3.0);

        let mut wide = vec![f64::NAN; TOKENS * STRIDE];
        let both = forward_backward(&batch, &options, rows(&data), upstream, rows_mut(&mut wide));
        assert_eq!(both.unwrap(), result);
        let mut separate = vec![G::from_f64(1.0); TOKENS * STRIDE];
        let by_loss = Upstream::loss(upstream);
        backward(
            &batch,
            &options,
            rows(&data),
            &states,
            &by_loss,
            rows_mut(&mut separate),
        )
        .unwrap();
        let mut fused = vec![G::from_f64(1.0); TOKENS * STRIDE];
        forward_backward(
            &batch,
            &options,
            rows(&data),
            upstream,
            rows_mut(&mut fused),
        )
        .unwrap();
        let mut in_place = data.clone();
        forward_backward_in_place(&batch, &options, rows_mut(&mut in_place), upstream).unwrap();
        let mut backward_only = data.clone();
        backward_in_place(
            &batch,
            &options,
            rows_mut(&mut backward_only),
            &states,
            &by_loss,
        )
        .unwrap();
        for i in 0..TOKENS * STRIDE {
            if i % STRIDE >= VOCAB {
                // Between the rows nothing is written.
                assert_eq!(separate[i], G::from_f64(1.0));
                assert_eq!(in_place[i].to_f64().to_bits(), data[i].to_f64().to_bits());
                continue;
            }
            assert_eq!(separate[i], G::from_f64(wide[i]));
            assert_eq!(fused[i], separate[i]);
            assert_eq!(in_place[i], T::from_f64(wide[i]));
            assert_eq!(backward_only[i], in_place[i]);
        }
    }
}

#[test]
fn modes_agree_in_every_type() {
    modes_agree::<f32, f32>();
    modes_agree::<bf16, bf16>();
    modes_agree::<bf16, f32>();
    modes_agree::<f16, f16>();
    modes_agree::<f16, f32>();
}

#[test]
fn kept_defers_its_scale() {
    let options = options(Objective::Linear.above(0.01), mean(Denominator::Kept));
    let data = logits::<f32>();
    let mut deferred = data.clone();
    let upstream = PerToken::Scalar(3.0);
    let result =
        forward_backward_in_place(&batch(), &options, rows_mut(&mut deferred), upstream).unwrap();
    assert!(result.kept > 0 && result.kept < 6);
    assert_close(result.gradient_scale, 3.0 / result.kept as f64, 1e-15);

    let states: Vec<RowState> = result.rows.iter().map(|row| row.state).collect();
    let mut scaled = data.clone();
    let by_loss = Upstream::loss(upstream);
    backward_in_place(&batch(), &options, rows_mut(&mut scaled), &states, &by_loss).unwrap();
    let kept: Vec<bool> = result.rows.iter().map(|row| row.kept()).collect();
    scale_gradient(rows_mut(&mut deferred), &kept, result.gradient_scale).unwrap();
    for (token, kept) in kept.iter().enumerate() {
        for i in token * STRIDE..token * STRIDE + VOCAB {
            // Two roundings against one.
            assert!((deferred[i] - scaled[i]).abs() <= 2.0 * f32::EPSILON * scaled[i].abs());
            assert!(*kept || deferred[i] == 0.0);
        }
    }
}

#[test]
fn log_probs_and_their_gradient() {
    let data = logits::<f32>();
    let mut with_terms = options(Objective::Deft.above(0.9), mean(Denominator::Valid));
    with_terms.temperature = 0.5;
    let result = log_probs(&batch(), &with_terms, rows(&data)).unwrap();
    assert_eq!(result.kept, 6);
    let states: Vec<RowState> = result.rows.iter().map(|row| row.state).collect();
    let lp: Vec<f32> = (0..TOKENS).map(|t| 0.5 * t as f32).collect();
    let upstream = Upstream {
        loss: PerToken::Scalar(f64::NAN),
        lp: PerToken::Tokens(&lp),
        ..Upstream::default()
    };
    let mut gradient = vec![f64::NAN; TOKENS * STRIDE];
    let into = rows_mut(&mut gradient);
    log_probs_backward(&batch(), &with_terms, rows(&data), &states, &upstream, into).unwrap();
    for (token, &target) in TARGETS.iter().enumerate() {
        let row = &gradient[token * STRIDE..token * STRIDE + VOCAB];
        match Target::classify(target, VOCAB, -100) {
            Target::Valid(y) => {
                let want = f64::from(lp[token]) * states[token].one_minus_p / 0.5;
                assert_close(row[y], want, 1e-14);
                assert!(row.iter().sum::<f64>().abs() < 1e-13);
            }
            _ => assert!(row.iter().all(|&dx| dx == 0.0)),
        }
    }
}

#[test]
fn weights_and_masks_reach_their_rows() {
    let data = logits::<f64>();
    let weights: Vec<f32> = (0..TOKENS).map(|t| 2.0 - t as f32).collect();
    let mask = [0b1u32, 0b10];
    let options = LossOptions::new(Objective::Nll);
    let weighted = Batch {
        token_weights: Some(&weights),
        class_mask: Some(&mask),
        ..batch()
    };
    let unweighted = Batch {
        token_weights: None,
        ..weighted
    };
    let a = forward(&weighted, &options, rows(&data)).unwrap();
    let b = forward(&unweighted, &options, rows(&data)).unwrap();
    // Token 0's target is class 0, which the mask removes.
    assert!(b.status.contains(Status::TARGET_MASKED));
    assert_eq!(b.rows[0].loss, f64::INFINITY);
    for (token, (a, b)) in a.rows.iter().zip(&b.rows).enumerate() {
        assert_close(a.loss, f64::from(weights[token]) * b.loss, 1e-15);
        let unmasked = if b.objective.is_some() { 35.0 } else { 0.0 };
        assert_eq!(b.state.unmasked_count, unmasked);
    }
}

#[test]
fn arguments_that_do_not_fit_are_errors() {
    let data = logits::<f32>();
    let valid = LossOptions::new(Objective::Nll);
    let refused = |batch: Batch, options: &LossOptions| {
        matches!(
            forward(&batch, options, rows(&data)),
            Err(Error::Argument { .. })
        )
    };
    let mut broken = valid;
    broken.temperature = 0.0;
    assert!(refused(batch(), &broken));
    assert!(refused(
        Batch {
            vocab: 0,
            ..batch()
        },
        &valid
    ));
    assert!(refused(
        Batch {
            vocab: VOCAB + 1,
            ..batch()
        },
        &valid
    ));
    assert!(refused(
        Batch {
            targets: Indices::I64(&[1]),
            ..batch()
        },
        &valid
    ));
    assert!(refused(
        Batch {
            token_weights: Some(&[1.0]),
            ..batch()
        },
        &valid
    ));
    assert!(refused(
        Batch {
            class_mask: Some(&[0]),
            ..batch()
        },
        &valid
    ));
    let by_count = options(Objective::Nll, mean(Denominator::Tokens));
    assert!(refused(
        Batch {
            tokens: None,
            ..batch()
        },
        &by_count
    ));
    let by_sequence = options(Objective::Nll, mean(Denominator::Sequence));
    let none = Some(Indices::I64(&[]));
    assert!(refused(
        Batch {
            offsets: none,
            ..batch()
        },
        &by_sequence
    ));
    assert!(refused(
        Batch {
            offsets: None,
            ..batch()
        },
        &by_sequence
    ));
    assert!(Rows::new(&data, TOKENS + 1, VOCAB, STRIDE).is_err());
    assert!(Rows::new(&data, 1, 0, 0).is_err());
    assert!(Rows::new(&data, 1, VOCAB, VOCAB - 1).is_err());
    assert!(Rows::new(&data, usize::MAX, VOCAB, usize::MAX).is_err());
    assert!(
        Rows::new(
            &data[..(TOKENS - 1) * STRIDE + VOCAB],
            TOKENS,
            VOCAB,
            STRIDE
        )
        .is_ok()
    );
    let states = [RowState::default(); 1];
    let mut gradient = data.clone();
    let upstream = Upstream::loss(PerToken::Scalar(1.0));
    assert!(
        backward_in_place(
            &batch(),
            &valid,
            rows_mut(&mut gradient),
            &states,
            &upstream
        )
        .is_err()
    );
    let too_few = PerToken::Tokens(&[1.0]);
    assert!(forward_backward_in_place(&batch(), &valid, rows_mut(&mut gradient), too_few).is_err());
}
