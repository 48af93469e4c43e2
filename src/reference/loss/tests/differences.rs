//! Gradients against finite differences of the loss as one would write it on paper.

use super::{OBJECTIVES, gradient_of, plain, row, with_all_terms};
use crate::loss::{Criterion, DEFT_OFFSET, Objective, Threshold};
use crate::reference::differences::assert_gradient;
use crate::reference::loss::{Row, RowOptions, RowUpstream, forward};

const VOCAB: usize = 7;
const TARGET: usize = 2;
const WEIGHT: f64 = -1.7;
/// Classes 0 and 5.
const MASK: [u32; 1] = [0b10_0001];

/// What sg[] holds still while the logits move.
struct Detached {
    p: f64,
    sum_p2: f64,
    kept: bool,
}

/// The statistics, written plainly.
struct Plain {
    p: Vec<f64>,
    lse: f64,
    entropy: f64,
    lp: f64,
}

fn statistics(x: &[f64], masked: &[bool], options: &RowOptions) -> Plain {
    let z: Vec<f64> = x
        .iter()
        .zip(masked)
        .map(|(&x, &masked)| {
            let capped = options.softcap.map_or(x, |c| c * (x / c).tanh());
            if masked {
                f64::NEG_INFINITY
            } else {
                capped / options.temperature
            }
        })
        .collect();
    let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
    let p: Vec<f64> = z.iter().map(|z| (z - lse).exp()).collect();
    let entropy = p
        .iter()
        .filter(|&&p| p > 0.0)
        .map(|p| -p * p.ln())
        .sum::<f64>();
    Plain {
        lp: z[TARGET] - lse,
        p,
        lse,
        entropy,
    }
}

fn plain_objective(objective: Objective, lp: f64, detached: &Detached) -> f64 {
    let p = lp.exp();
    match objective {
        Objective::Nll => -lp,
        Objective::Linear => 1.0 - p,
        Objective::Power(0.0) => -lp,
        Objective::Power(a) | Objective::Gce(a) => (1.0 - p.powf(a.into())) / f64::from(a),
        Objective::Dft => -detached.p * lp,
        Objective::Focal(gamma) => -(1.0 - p).powf(gamma.into()) * lp,
        Objective::Poly1(epsilon) => -lp + f64::from(epsilon) * (1.0 - p),
        Objective::Deft => {
            let a = detached.sum_p2;
            -(p.powf(a) - 1.0) / (a + f64::from(DEFT_OFFSET))
        }
    }
}

fn plain_loss(x: &[f64], masked: &[bool], options: &RowOptions, detached: &Detached) -> f64 {
    if !detached.kept {
        return 0.0;
    }
    let Plain {
        p,
        lse,
        entropy,
        lp,
    } = statistics(x, masked, options);
    let live = || (0..x.len()).filter(|&j| !masked[j]);
    let uniform = live().map(|j| -p[j].ln()).sum::<f64>() / live().count() as f64;
    let epsilon = options.label_smoothing;
    let f = plain_objective(options.criterion.objective, lp, detached);
    WEIGHT * ((1.0 - epsilon) * f + epsilon * uniform) + options.z_loss * lse * lse
        - options.entropy * entropy
        + 0.5 * options.spectral_decoupling * live().map(|j| x[j] * x[j]).sum::<f64>()
}

const LOGITS: [f64; VOCAB] = [0.3, -1.2, 1.5, 2.0, -0.4, 0.9, -2.6];

#[test]
fn every_objective_with_every_option() {
    let mut cases = 0;
    for objective in OBJECTIVES {
        for criterion in [
            Criterion::from(objective),
            objective.above(0.01),
            objective.above(0.9),
            objective.below(0.9),
            objective.below(0.01),
        ] {
            for terms in 0..6 {
                for softcap in [None, Some(3.0)] {
                    for temperature in [1.0, 0.7] {
                        for mask in [None, Some(&MASK[..])] {
                            let none = plain(objective);
                            let all = with_all_terms(objective);
                            let base = match terms {
                                0 => none,
                                1 => RowOptions {
                                    z_loss: all.z_loss,
                                    ..none
                                },
                                2 => RowOptions {
                                    label_smoothing: all.label_smoothing,
                                    ..none
                                },
                                3 => RowOptions {
                                    entropy: all.entropy,
                                    ..none
                                },
                                4 => RowOptions {
                                    spectral_decoupling: all.spectral_decoupling,
                                    ..none
                                },
                                _ => all,
                            };
                            check(
                                &RowOptions {
                                    criterion,
                                    softcap,
                                    temperature,
                                    ..base
                                },
                                mask,
                            );
                            cases += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cases, OBJECTIVES.len() * 5 * 6 * 8);
}

fn check(options: &RowOptions, class_mask: Option<&[u32]>) {
    let row = Row {
        class_mask,
        weight: WEIGHT,
        ..row(&LOGITS, TARGET)
    };
    let masked: Vec<bool> = (0..VOCAB).map(|j| row.masked_by_bit(j)).collect();
    let base = statistics(&LOGITS, &masked, options);
    let p = base.lp.exp();
    let detached = Detached {
        p,
        sum_p2: base.p.iter().map(|p| p * p).sum(),
        kept: match options.criterion.threshold {
            None => true,
            Some(Threshold::Above(tau)) => p >= tau.into(),
            Some(Threshold::Below(tau)) => p <= tau.into(),
        },
    };
    let loss = |x: &[f64]| plain_loss(x, &masked, options, &detached);

    let result = forward(&row, options);
    let want = loss(&LOGITS);
    assert_eq!(result.kept(), detached.kept);
    assert!(
        (result.loss - want).abs() <= 64.0 * f64::EPSILON * (1.0 + want.abs()),
        "{options:?}: loss {} and {want}",
        result.loss
    );

    let upstream = 0.8;
    let dx = gradient_of(&row, options, &result.state, &RowUpstream::loss(upstream));
    for j in (0..VOCAB).filter(|&j| masked[j]) {
        assert_eq!(dx[j], 0.0);
    }
    // The steepest member multiplies by its exponent with each derivative.
    let exponent = match options.criterion.objective {
        Objective::Power(a) => f64::from(a.abs()),
        _ => 2.0,
    };
    let rate = (1.0 + exponent) / options.temperature;
    let size = want.abs() + 10.0;
    assert_gradient(&dx, &LOGITS, size, rate, |x| upstream * loss(x));
}

#[test]
fn gradients_of_lp_entropy_and_lse() {
    for softcap in [None, Some(3.0)] {
        for class_mask in [None, Some(&MASK[..])] {
            let options = RowOptions {
                softcap,
                temperature: 0.8,
                ..plain(Objective::Nll)
            };
            let row = Row {
                class_mask,
                ..row(&LOGITS, TARGET)
            };
            let masked: Vec<bool> = (0..VOCAB).map(|j| row.masked_by_bit(j)).collect();
            let state = forward(&row, &options).state;
            let upstream = RowUpstream {
                loss: 0.0,
                lp: 1.3,
                entropy: -0.6,
                lse: 0.45,
            };
            let dx = gradient_of(&row, &options, &state, &upstream);
            assert_gradient(&dx, &LOGITS, 10.0, 3.0, |x| {
                let at = statistics(x, &masked, &options);
                upstream.lp * at.lp + upstream.entropy * at.entropy + upstream.lse * at.lse
            });
        }
    }
}

#[test]
fn upstream_of_statistics_reaches_tokens_that_are_not_kept() {
    let options = RowOptions::new(Objective::Nll.above(0.99));
    let row = row(&LOGITS, TARGET);
    let state = forward(&row, &options).state;
    assert!(!state.kept);
    let upstream = RowUpstream {
        loss: 5.0,
        lp: 1.0,
        ..RowUpstream::default()
    };
    let dx = gradient_of(&row, &options, &state, &upstream);
    assert!((dx[TARGET] - state.one_minus_p).abs() < 1e-15);
    assert!((dx.iter().sum::<f64>()).abs() < 1e-15);
}
