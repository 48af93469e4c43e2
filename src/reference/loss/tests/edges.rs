//! Masked targets, rows that are not finite, targets that are no class, saturation.

use super::{OBJECTIVES, assert_close, gradient_of, plain, row, with_all_terms};
use crate::Status;
use crate::loss::Objective;
use crate::reference::loss::{Row, RowOptions, RowResult, RowState, RowUpstream, Target, forward};

const F32_MAX: f64 = f32::MAX as f64;

fn loss_and_gradient(row: &Row, options: &RowOptions) -> (RowResult, Vec<f64>) {
    let result = forward(row, options);
    let dx = gradient_of(row, options, &result.state, &RowUpstream::loss(1.0));
    (result, dx)
}

#[test]
fn masked_target_takes_the_limit_at_probability_zero() {
    let by_logit = [1.0, f64::NEG_INFINITY, 1.0];
    let by_bit = [1.0, 7.0, 1.0];
    for (objective, f, g) in [
        (Objective::Nll, f64::INFINITY, 1.0),
        (Objective::Linear, 1.0, 0.0),
        (Objective::Power(0.0), f64::INFINITY, 1.0),
        (Objective::Power(0.5), 2.0, 0.0),
        (Objective::Power(-0.5), F32_MAX, F32_MAX),
        (Objective::Gce(0.5), 2.0, 0.0),
        (Objective::Dft, 0.0, 0.0),
        (Objective::Focal(2.0), f64::INFINITY, 1.0),
        (Objective::Poly1(1.0), f64::INFINITY, 1.0),
        (Objective::Deft, 1.0 / (0.5 + f64::from(1e-6_f32)), 0.0),
    ] {
        let masks = [(&by_logit, None), (&by_bit, Some(&[0b010][..]))];
        for (logits, class_mask) in masks {
            let row = Row {
                class_mask,
                ..row(logits, 1)
            };
            let (result, dx) = loss_and_gradient(&row, &plain(objective));
            assert_close(result.loss, f, 1e-15);
            assert_eq!(result.state.lp, f64::NEG_INFINITY);
            assert_eq!((result.p, result.state.one_minus_p), (0.0, 1.0));
            assert_close(result.el2n, 1.5_f64.sqrt(), 1e-15);
            assert!(result.kept() && !result.correct);
            assert!(result.status.contains(Status::TARGET_MASKED));
            assert_eq!(
                result.status.contains(Status::SATURATED),
                objective == Objective::Power(-0.5)
            );
            assert_eq!(dx[1], 0.0);
            assert_close(dx[0], g * 0.5, 1e-15);
            assert_close(dx[2], g * 0.5, 1e-15);
        }
    }
}

#[test]
fn masked_classes_are_as_if_they_were_not_there() {
    let full = [0.5, 9.0, -1.0, f64::NEG_INFINITY, 2.0];
    let short = [0.5, -1.0, 2.0];
    for objective in OBJECTIVES {
        let options = RowOptions {
            softcap: None,
            ..with_all_terms(objective)
        };
        let masked = Row {
            class_mask: Some(&[0b10]),
            ..row(&full, 4)
        };
        let (with, dx_with) = loss_and_gradient(&masked, &options);
        let (without, dx_without) = loss_and_gradient(&row(&short, 2), &options);
        assert_eq!(with.state, without.state);
        assert_eq!(with.loss, without.loss);
        assert_eq!(with.argmax, 4);
        let [a, zero, b, also_zero, c] = dx_with[..] else {
            panic!("five classes")
        };
        assert_eq!(([zero, also_zero], vec![a, b, c]), ([0.0, 0.0], dx_without));
    }
}

#[test]
fn rows_that_are_not_finite_are_nan_and_say_so() {
    let inf = f64::INFINITY;
    for logits in [
        [0.0, f64::NAN, 1.0],
        [0.0, inf, 1.0],
        [inf, 0.0, -inf],
        [-inf, -inf, -inf],
        [f64::NAN, f64::NAN, f64::NAN],
    ] {
        for objective in OBJECTIVES {
            for criterion in [objective.into(), objective.above(0.5), objective.below(0.5)] {
                let options = RowOptions {
                    criterion,
                    ..plain(objective)
                };
                let (result, dx) = loss_and_gradient(&row(&logits, 0), &options);
                assert!(result.loss.is_nan() && result.lse.is_nan() && result.p.is_nan());
                assert_eq!(result.status, Status::NON_FINITE_ROW);
                assert!(!result.correct && result.kept());
                assert!(dx.iter().all(|dx| dx.is_nan()));
                let saved = RowState::from_saved(&result.state.to_saved());
                let dx = gradient_of(&row(&logits, 0), &options, &saved, &RowUpstream::loss(0.0));
                assert!(dx.iter().all(|dx| dx.is_nan()));
            }
        }
    }
}

#[test]
fn infinite_logits_stay_infinite_under_a_softcap() {
    let options = RowOptions {
        softcap: Some(30.0),
        spectral_decoupling: 0.1,
        ..plain(Objective::Nll)
    };
    let (masked, dx) = loss_and_gradient(&row(&[1.0, f64::NEG_INFINITY, 2.0], 0), &options);
    assert_eq!(masked.state.unmasked_count, 2.0);
    assert!(masked.loss.is_finite() && dx[1] == 0.0);
    let (broken, _) = loss_and_gradient(&row(&[1.0, f64::INFINITY, 2.0], 0), &options);
    assert_eq!(broken.status, Status::NON_FINITE_ROW);
}

#[test]
fn weighted_gradient_is_held_in_the_range_of_f32() {
    let row = Row {
        weight: -4.0,
        ..row(&[0.0, 100.0], 0)
    };
    let (result, dx) = loss_and_gradient(&row, &plain(Objective::Power(-2.0)));
    assert_eq!(result.objective.map(|o| o.g), Some(F32_MAX));
    assert_eq!(dx, [F32_MAX, -F32_MAX]);
    // g is held before it is weighted.
    let half = Row { weight: 0.5, ..row };
    let (_, dx) = loss_and_gradient(&half, &plain(Objective::Power(-2.0)));
    assert_eq!(dx, [-0.5 * F32_MAX, 0.5 * F32_MAX]);
}

#[test]
fn class_mask_hides_what_is_not_finite() {
    let logits = [0.0, f64::NAN, 1.0, f64::INFINITY];
    let row = Row {
        class_mask: Some(&[0b1010]),
        ..row(&logits, 0)
    };
    let (result, dx) = loss_and_gradient(&row, &with_all_terms(Objective::Nll));
    assert!(result.loss.is_finite() && result.status.is_empty());
    assert!(dx.iter().all(|dx| dx.is_finite()));
    assert_eq!((dx[1], dx[3]), (0.0, 0.0));

    // A row that is not finite for another reason still has zeros there.
    let row = Row {
        logits: &[0.0, f64::NAN, f64::NAN, f64::INFINITY],
        ..row
    };
    let (result, dx) = loss_and_gradient(&row, &plain(Objective::Nll));
    assert_eq!(result.status, Status::NON_FINITE_ROW);
    assert!(dx[0].is_nan() && dx[2].is_nan());
    assert_eq!((dx[1], dx[3]), (0.0, 0.0));
}

#[test]
fn all_classes_masked() {
    let row = Row {
        class_mask: Some(&[0b11]),
        ..row(&[1.0, 2.0], 0)
    };
    let (result, dx) = loss_and_gradient(&row, &plain(Objective::Linear));
    assert!(result.loss.is_nan());
    assert_eq!(result.status, Status::NON_FINITE_ROW);
    assert_eq!(dx, [0.0, 0.0]);
}

#[test]
fn targets_that_are_no_class() {
    assert_eq!(Target::classify(-100, 5, -100), Target::Ignored);
    assert_eq!(Target::classify(3, 5, 3), Target::Ignored);
    assert_eq!(Target::classify(4, 5, -100), Target::Valid(4));
    for target in [5, -1, i64::MIN, i64::MAX] {
        assert_eq!(Target::classify(target, 5, -100), Target::OutOfRange);
    }
    let logits = [f64::NAN; 3];
    for (target, status) in [
        (Target::Ignored, Status::empty()),
        (Target::OutOfRange, Status::TARGET_OUT_OF_RANGE),
        (Target::Valid(3), Status::TARGET_OUT_OF_RANGE),
    ] {
        let row = Row::new(&logits, target);
        let (result, dx) = loss_and_gradient(&row, &with_all_terms(Objective::Nll));
        let nothing = RowResult {
            status,
            ..RowResult::default()
        };
        assert_eq!(result, nothing);
        assert_eq!(dx, [0.0; 3]);
    }
}

#[test]
fn negative_power_saturates_and_reports_it() {
    // p = e^-100: p^-2 = e^200 is beyond f32.
    let logits = [0.0, 100.0];
    let (result, dx) = loss_and_gradient(&row(&logits, 0), &plain(Objective::Power(-2.0)));
    assert_eq!(result.loss, F32_MAX);
    assert_eq!(result.status, Status::SATURATED);
    assert_eq!(dx, [-F32_MAX, F32_MAX]);
    // The value leaves the range before the gradient does where the exponent is small.
    let (result, _) = loss_and_gradient(&row(&[0.0, 8850.0], 0), &plain(Objective::Power(-0.01)));
    assert_eq!(result.objective.map(|o| o.f), Some(F32_MAX));
    assert!(result.objective.is_some_and(|o| o.g < F32_MAX));
    assert_eq!(result.status, Status::SATURATED);
    // A token that is not kept does not report it.
    let dropped = RowOptions::new(Objective::Power(-2.0).above(0.5));
    let (result, dx) = loss_and_gradient(&row(&logits, 0), &dropped);
    assert_eq!((result.loss, result.status), (0.0, Status::empty()));
    assert_eq!(dx, [0.0, 0.0]);
}

#[test]
fn weight_of_zero_removes_an_infinite_objective() {
    let row = Row {
        weight: 0.0,
        ..row(&[1.0, f64::NEG_INFINITY], 1)
    };
    let (result, dx) = loss_and_gradient(&row, &plain(Objective::Nll));
    assert_eq!(result.loss, 0.0);
    assert_eq!(dx, [0.0, 0.0]);
}

#[test]
fn threshold_is_inclusive_on_both_sides() {
    let logits = [0.0, 0.0];
    for (criterion, kept) in [
        (Objective::Nll.above(0.5), true),
        (Objective::Nll.below(0.5), true),
        (Objective::Nll.above(0.500_001), false),
        (Objective::Nll.below(0.499_999), false),
    ] {
        let (result, dx) = loss_and_gradient(&row(&logits, 0), &RowOptions::new(criterion));
        assert_eq!(result.kept(), kept, "{criterion}");
        assert_eq!(result.loss != 0.0, kept);
        assert_eq!(dx.iter().any(|&dx| dx != 0.0), kept);
        assert_close(result.state.lp, -(2.0_f64.ln()), 1e-15);
    }
}

#[test]
fn argmax_is_the_lowest_of_equals() {
    let logits = [1.0, 3.0, 3.0, f64::NEG_INFINITY];
    let second = forward(&row(&logits, 2), &plain(Objective::Nll));
    assert_eq!((second.argmax, second.correct), (1, false));
    assert!(forward(&row(&logits, 1), &plain(Objective::Nll)).correct);
}
