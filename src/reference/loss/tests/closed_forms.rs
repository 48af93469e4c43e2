//! Rows whose answer is known in closed form, and the identities between members.

use super::{OBJECTIVES, assert_close, gradient_of, plain, row};
use crate::loss::Objective;
use crate::reference::loss::{
    ObjectiveValue, Probability, RowOptions, RowResult, RowUpstream, forward, objective,
};

/// A few roundings.
const ROUNDING: f64 = 8.0 * f64::EPSILON;

#[test]
fn uniform_logits() {
    for vocab in [1, 2, 3, 64, 1000, 32_000] {
        let logits = vec![2.5; vocab];
        let target = vocab / 2;
        let n = vocab as f64;
        let options = RowOptions {
            label_smoothing: 0.25,
            ..plain(Objective::Nll)
        };
        let result = forward(&row(&logits, target), &options);
        assert_close(result.lse, 2.5 + n.ln(), ROUNDING);
        assert_close(result.state.lp, -n.ln(), ROUNDING);
        assert_close(result.p, 1.0 / n, ROUNDING);
        assert_close(result.state.one_minus_p, (n - 1.0) / n, ROUNDING);
        assert_close(result.state.entropy, n.ln(), ROUNDING);
        assert_close(result.state.sum_p2, 1.0 / n, ROUNDING);
        assert_close(result.el2n, ((n - 1.0) / n).sqrt(), ROUNDING);
        assert_close(result.loss, n.ln(), ROUNDING);
        assert_eq!(result.argmax, 0);
        assert_eq!(result.correct, vocab == 1);
        let dx = gradient_of(
            &row(&logits, target),
            &options,
            &result.state,
            &RowUpstream::loss(1.0),
        );
        for (j, &dx) in dx.iter().enumerate() {
            let onehot = f64::from(u8::from(j == target));
            assert!((dx - 0.75 * (1.0 / n - onehot)).abs() <= ROUNDING);
        }
    }
}

/// With two classes a distance d apart p is the logistic function of d; both p and 1 - p are known
/// to full precision on either side.
fn two_classes(objective: Objective, d: f64) -> (RowResult, Vec<f64>) {
    let logits = [d + 11.0, 11.0];
    let row = row(&logits, 0);
    let options = plain(objective);
    let result = forward(&row, &options);
    let dx = gradient_of(&row, &options, &result.state, &RowUpstream::loss(1.0));
    (result, dx)
}

#[test]
fn two_classes_keep_their_digits() {
    // Multiples of 2^-4, so that d + 11 - 11 is d exactly; the square of exp(-300) is still normal.
    for d in [
        -300.0, -60.0, -3.0, -0.0625, 0.0, 0.5, 4.0, 36.0, 60.0, 300.0,
    ] {
        let (result, dx) = two_classes(Objective::Nll, d);
        let odds = (-d.abs()).exp();
        let (small, large) = (odds / (1.0 + odds), 1.0 / (1.0 + odds));
        let (p, q) = if d < 0.0 {
            (small, large)
        } else {
            (large, small)
        };
        let lp = d.min(0.0) - odds.ln_1p();
        assert_close(result.p, p, ROUNDING);
        assert_close(result.state.one_minus_p, q, ROUNDING);
        assert_close(result.state.lp, lp, ROUNDING);
        assert_close(result.loss, -lp, ROUNDING);
        assert_close(result.el2n, q * 2.0_f64.sqrt(), ROUNDING);
        // -p log p - q log q with log of the larger one from the smaller.
        let entropy = small * d.abs() + odds.ln_1p();
        assert_close(result.state.entropy, entropy, ROUNDING);
        assert_close(dx[0], -q, ROUNDING);
        assert_close(dx[1], q, ROUNDING);
    }
}

#[test]
fn objectives_at_two_classes() {
    for d in [-30.0_f64, -1.5, 0.0, 2.25, 30.0] {
        let odds = (-d).exp();
        let (p, q) = (1.0 / (1.0 + odds), odds / (1.0 + odds));
        let lp = if d > 0.0 {
            -odds.ln_1p()
        } else {
            d - d.exp().ln_1p()
        };
        for (objective, f, g) in [
            (Objective::Nll, -lp, 1.0),
            (Objective::Linear, q, p),
            (Objective::Power(1.0), q, p),
            // (1 - p^2)/2 = q (1 + p) / 2.
            (Objective::Power(2.0), q * (1.0 + p) / 2.0, p * p),
            // (1 - 1/p)/(-1) = 1/p - 1 = odds.
            (Objective::Power(-1.0), odds, 1.0 / p),
            (Objective::Dft, -p * lp, p),
            (Objective::Focal(0.0), -lp, 1.0),
            (Objective::Focal(1.0), -q * lp, q - p * lp),
            (Objective::Focal(2.0), -q * q * lp, q * q - 2.0 * p * q * lp),
            (Objective::Poly1(2.0), -lp + 2.0 * q, 1.0 + 2.0 * p),
            (Objective::Gce(1.0), q, p),
        ] {
            let (result, dx) = two_classes(objective, d);
            assert_close(result.loss, f, 8.0 * ROUNDING);
            assert_close(dx[0], -g * q, 8.0 * ROUNDING);
            assert_close(dx[1], g * q, 8.0 * ROUNDING);
        }
    }
}

fn at(member: Objective, lp: f64) -> ObjectiveValue {
    let probability = Probability {
        lp,
        one_minus_p: -lp.exp_m1(),
        sum_p2: 0.3,
    };
    objective(member, probability)
}

#[test]
fn power_goes_to_nll_as_its_exponent_vanishes() {
    for lp in [-1e-12, -0.3, -5.0, -40.0] {
        for a in [1e-3_f32, 1e-6, 1e-12, 1e-30, -1e-30, -1e-12, -1e-6, -1e-3] {
            let power = at(Objective::Power(a), lp);
            // (1 - e^x)/a = -lp (1 + x/2 + ...) with x = a lp.
            let x = f64::from(a) * lp;
            assert_close(power.f, -lp, x.abs());
            assert_close(power.g, 1.0, 2.0 * x.abs());
        }
        assert_eq!(at(Objective::Power(0.0), lp), at(Objective::Nll, lp));
    }
}

#[test]
fn members_that_are_the_same_function() {
    for lp in [0.0, -1e-9, -0.2, -3.0, -90.0] {
        assert_eq!(at(Objective::Gce(0.7), lp), at(Objective::Power(0.7), lp));
        let (power, linear) = (at(Objective::Power(1.0), lp), at(Objective::Linear, lp));
        assert_close(power.f, linear.f, ROUNDING);
        assert_close(power.g, linear.g, ROUNDING);
        assert_eq!(at(Objective::Dft, lp).g, linear.g);
        let (focal, nll) = (at(Objective::Focal(0.0), lp), at(Objective::Nll, lp));
        assert_close(focal.f, nll.f, ROUNDING);
        assert_close(focal.g, nll.g, ROUNDING);
        assert_eq!(at(Objective::Poly1(0.0), lp), nll);
    }
}

#[test]
fn every_member_is_finite_at_probability_one() {
    for member in OBJECTIVES {
        // A single class, and a second one too far away to be seen.
        for logits in [&[3.0][..], &[3.0, -2000.0]] {
            let row = row(logits, 0);
            let options = plain(member);
            let result = forward(&row, &options);
            assert_eq!(result.loss, 0.0, "{member}");
            assert_eq!(result.p, 1.0);
            assert_eq!(result.state.entropy, 0.0);
            let dx = gradient_of(&row, &options, &result.state, &RowUpstream::loss(1.0));
            assert!(dx.iter().all(|&dx| dx == 0.0), "{member}: {dx:?}");
        }
    }
}

#[test]
fn focal_approaches_its_limit_at_probability_one() {
    // g ~ (1 + gamma) q^gamma, also where gamma < 1 and q^(gamma - 1) grows without bound.
    for gamma in [0.25_f32, 0.5, 1.0, 2.0] {
        for exponent in [-20, -60, -200, -300] {
            let q = 10.0_f64.powi(exponent);
            let probability = Probability {
                lp: -q,
                one_minus_p: q,
                sum_p2: 1.0,
            };
            let focal = objective(Objective::Focal(gamma), probability);
            let gamma = f64::from(gamma);
            assert_close(focal.g, (1.0 + gamma) * q.powf(gamma), ROUNDING);
        }
    }
}

#[test]
fn deft_follows_the_confidence_of_the_row() {
    let logits = [2.0_f64.ln(), 0.0, 0.0];
    let options = plain(Objective::Deft);
    let row = row(&logits, 1);
    let result = forward(&row, &options);
    // p = (1/2, 1/4, 1/4).
    let a = 0.375;
    let offset = f64::from(1e-6_f32);
    assert_close(result.state.sum_p2, a, ROUNDING);
    assert_close(
        result.loss,
        (1.0 - 0.25_f64.powf(a)) / (a + offset),
        ROUNDING,
    );
    let dx = gradient_of(&row, &options, &result.state, &RowUpstream::loss(1.0));
    let g = a / (a + offset) * 0.25_f64.powf(a);
    for (dx, want) in dx.iter().zip([0.5 * g, -0.75 * g, 0.25 * g]) {
        assert_close(*dx, want, 2.0 * ROUNDING);
    }
}

#[test]
fn softcap_keeps_its_slope_where_it_saturates() {
    // 1 - tanh^2 is 4 exp(-2 |x| / c) far out.
    let logits = [0.0, 60.0];
    let options = RowOptions {
        softcap: Some(2.0),
        ..plain(Objective::Nll)
    };
    let row = row(&logits, 0);
    let result = forward(&row, &options);
    assert_close(result.state.max, 2.0, ROUNDING);
    let dx = gradient_of(&row, &options, &result.state, &RowUpstream::loss(1.0));
    let p_other = 1.0 / (1.0 + (-2.0_f64).exp());
    assert_close(dx[0], -p_other, ROUNDING);
    assert_close(dx[1], p_other * 4.0 * (-60.0_f64).exp(), 16.0 * ROUNDING);
}
