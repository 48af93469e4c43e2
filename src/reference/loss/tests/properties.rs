//! What holds for every row.

use proptest::prelude::*;

use super::{OBJECTIVES, gradient_of, row, with_all_terms};
use crate::loss::Objective;
use crate::reference::loss::{Row, RowOptions, RowState, RowUpstream, forward};

/// Logits on a grid of 2^-8, so that sums with other such numbers are exact.
fn grid_logits() -> impl Strategy<Value = Vec<f64>> {
    let logit = (-30_000i32..30_000).prop_map(|steps| f64::from(steps) / 256.0);
    prop::collection::vec(logit, 1..80)
}

fn objectives() -> impl Strategy<Value = Objective> {
    prop_oneof![
        prop::sample::select(OBJECTIVES.to_vec()),
        (-1.5f32..12.0).prop_map(Objective::Power),
        (0f32..5.0).prop_map(Objective::Focal),
        (0.01f32..=1.0).prop_map(Objective::Gce),
        (-1f32..5.0).prop_map(Objective::Poly1),
    ]
}

fn gradient(row: &Row, options: &RowOptions) -> Vec<f64> {
    let state = forward(row, options).state;
    gradient_of(row, options, &state, &RowUpstream::loss(1.0))
}

proptest! {
    #[test]
    fn gradient_of_a_row_sums_to_zero(
        logits in grid_logits(),
        objective in objectives(),
        target: prop::sample::Index,
        mask: u32,
        weight in -3f64..3.0,
    ) {
        // lse moves with a common offset of the row; its gradient sums to 2 lambda lse instead.
        let options = RowOptions {
            z_loss: 0.0,
            spectral_decoupling: 0.0,
            ..with_all_terms(objective)
        };
        let mask = [mask, !mask, mask];
        let row = Row {
            class_mask: Some(&mask),
            weight,
            ..row(&logits, target.index(logits.len()))
        };
        let result = forward(&row, &options);
        // A masked target keeps its share of the gradient from being given out.
        prop_assume!(result.state.lp.is_finite());
        let dx = gradient_of(&row, &options, &result.state, &RowUpstream::loss(1.0));
        let sum: f64 = dx.iter().sum();
        let size: f64 = dx.iter().map(|dx| dx.abs()).sum();
        // exp of a number of size |z| is off by |z| units; |z| stays below 2^8.
        prop_assert!(sum.abs() <= 1024.0 * f64::EPSILON * (size + 1.0), "{sum} of {size}");
    }

    #[test]
    fn z_loss_gradient_sums_to_the_slope_of_a_common_offset(
        logits in grid_logits(),
        target: prop::sample::Index,
    ) {
        let row = row(&logits, target.index(logits.len()));
        let options = RowOptions { z_loss: 0.1, ..RowOptions::new(Objective::Nll) };
        let lse = forward(&row, &options).lse;
        let sum: f64 = gradient(&row, &options).iter().sum();
        prop_assert!((sum - 0.2 * lse).abs() <= 1024.0 * f64::EPSILON * (1.0 + lse.abs()));
    }

    #[test]
    fn common_offset_changes_only_lse(
        logits in grid_logits(),
        objective in objectives(),
        target: prop::sample::Index,
        offset in -1_000_000i32..1_000_000,
    ) {
        let offset = f64::from(offset);
        let moved: Vec<f64> = logits.iter().map(|z| z + offset).collect();
        let target = target.index(logits.len());
        let options = RowOptions {
            z_loss: 0.0,
            spectral_decoupling: 0.0,
            ..with_all_terms(objective)
        };
        let (here, there) = (row(&logits, target), row(&moved, target));
        let (a, b) = (forward(&here, &options), forward(&there, &options));
        let unmoved = RowState { max: a.state.max, ..b.state };
        prop_assert_eq!(a.state, unmoved);
        prop_assert_eq!(a.loss, b.loss);
        prop_assert_eq!(a.state.max + offset, b.state.max);
        prop_assert_eq!(gradient(&here, &options), gradient(&there, &options));
    }

    #[test]
    fn order_of_the_classes_does_not_matter(
        logits in grid_logits(),
        objective in objectives(),
        target: prop::sample::Index,
    ) {
        let vocab = logits.len();
        let target = target.index(vocab);
        let reversed: Vec<f64> = logits.iter().rev().copied().collect();
        let options = RowOptions { softcap: Some(20.0), ..with_all_terms(objective) };
        let (here, there) = (row(&logits, target), row(&reversed, vocab - 1 - target));
        let (a, b) = (forward(&here, &options), forward(&there, &options));
        prop_assert!((a.loss - b.loss).abs() <= 64.0 * f64::EPSILON * (1.0 + a.loss.abs()));
        let backwards = gradient(&there, &options).into_iter().rev();
        for (a, b) in gradient(&here, &options).into_iter().zip(backwards) {
            prop_assert!((a - b).abs() <= 64.0 * f64::EPSILON * (1.0 + a.abs()));
        }
    }

    #[test]
    fn statistics_are_consistent(logits in grid_logits(), target: prop::sample::Index) {
        let target = target.index(logits.len());
        let result = forward(&row(&logits, target), &RowOptions::new(Objective::Nll));
        let RowState { lp, one_minus_p, entropy, sum_p2, .. } = result.state;
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * a.abs().max(b.abs());
        prop_assert!(close(lp.exp(), result.p));
        // From the end where p + (1 - p) = 1 says something about each of them.
        prop_assert!(close(result.p + one_minus_p, 1.0));
        prop_assert!(close(-lp.exp_m1(), one_minus_p) || one_minus_p < 1e-300);
        prop_assert!((0.0..=(logits.len() as f64).ln() * (1.0 + 1e-14)).contains(&entropy));
        prop_assert!(sum_p2 <= 1.0 + 1e-15 && sum_p2 * logits.len() as f64 >= 1.0 - 1e-14);
        let square = result.el2n * result.el2n;
        prop_assert!((square - (sum_p2 - 2.0 * result.p + 1.0)).abs() <= 1e-15);
        prop_assert!(logits.iter().all(|&z| z <= logits[result.argmax]));
    }

    #[test]
    fn saved_state_gives_the_gradient_to_single_precision(
        logits in grid_logits(),
        objective in objectives(),
        target: prop::sample::Index,
    ) {
        let row = row(&logits, target.index(logits.len()));
        let options = with_all_terms(objective);
        let result = forward(&row, &options);
        prop_assume!(!result.status.contains(crate::Status::SATURATED));
        let saved = RowState::from_saved(&result.state.to_saved());
        let upstream = RowUpstream::loss(1.0);
        let exact = gradient_of(&row, &options, &result.state, &upstream);
        let from_saved = gradient_of(&row, &options, &saved, &upstream);
        let g = result.objective.map_or(0.0, |objective| objective.g);
        // lp of size 2^8 is saved to 2^-17, and reaches the gradient through p^a with a <= 12 and
        // through p_j (log p_j + H).
        let tolerance = 13.0 * f64::powi(2.0, -16) * (1.0 + g);
        for (a, b) in exact.iter().zip(&from_saved) {
            prop_assert!((a - b).abs() <= tolerance, "{a} and {b}");
        }
    }
}
