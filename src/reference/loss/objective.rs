//! f(p) and g = -p f'(p) of every member of the family.

use crate::loss::{DEFT_OFFSET, Objective};

/// What a member of the family is a function of.
#[derive(Clone, Copy, Debug)]
pub struct Probability {
    /// log p of the target; -inf when the target is masked.
    pub lp: f64,
    /// 1 - p, computed as the share of the other classes, not by subtraction.
    pub one_minus_p: f64,
    /// `sum_j p_j^2`.
    pub sum_p2: f64,
}

/// An objective at one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ObjectiveValue {
    /// f.
    pub f: f64,
    /// g = -p f'(p): the gradient in the logits is g * (p_j - [j = y]).
    pub g: f64,
    /// Whether f or g went beyond the largest finite f32 and was held there.
    pub saturated: bool,
}

impl ObjectiveValue {
    fn new(f: f64, g: f64) -> Self {
        Self {
            f,
            g,
            saturated: false,
        }
    }

    /// The value with f and g held at the largest finite f32.
    fn held(self) -> Self {
        const MAX: f64 = f32::MAX as f64;
        Self {
            f: self.f.min(MAX),
            g: self.g.min(MAX),
            saturated: self.f > MAX || self.g > MAX,
        }
    }
}

/// f and g of `objective`.
///
/// Each formula is the one of its source, rearranged only where the plain form loses digits; all
/// of them hold at p = 1 (lp = 0) and at a masked target (p = 0, lp = -inf) by their limits.
#[must_use]
pub fn objective(objective: Objective, at: Probability) -> ObjectiveValue {
    let lp = at.lp;
    let p = lp.exp();
    match objective {
        Objective::Nll => ObjectiveValue::new(-lp, 1.0),
        Objective::Linear => ObjectiveValue::new(at.one_minus_p, p),
        Objective::Power(a) => power(f64::from(a), lp),
        Objective::Gce(q) => power(f64::from(q), lp),
        // p log p -> 0 as p -> 0, where the product itself is 0 * inf.
        Objective::Dft => ObjectiveValue::new(if p == 0.0 { 0.0 } else { -p * lp }, p),
        Objective::Focal(gamma) => focal(f64::from(gamma), at),
        Objective::Poly1(epsilon) => {
            let epsilon = f64::from(epsilon);
            ObjectiveValue::new(-lp + epsilon * at.one_minus_p, 1.0 + epsilon * p)
        }
        Objective::Deft => {
            let a = at.sum_p2;
            let divisor = a + f64::from(DEFT_OFFSET);
            ObjectiveValue::new(-(a * lp).exp_m1() / divisor, a / divisor * (a * lp).exp())
        }
    }
}

/// (1 - p^a)/a and p^a; expm1 keeps the digits that 1 - p^a loses near p = 1 and for small a,
/// where the value goes continuously to -lp.
fn power(a: f64, lp: f64) -> ObjectiveValue {
    if a == 0.0 {
        return ObjectiveValue::new(-lp, 1.0);
    }
    ObjectiveValue::new(-(a * lp).exp_m1() / a, (a * lp).exp()).held()
}

/// With q = 1 - p: -q^gamma lp, and g = q^gamma (1 + gamma p (-lp / q)). The quotient goes to 1 as
/// q -> 0, so g goes to its limit for every gamma where q^(gamma - 1) alone is infinite.
fn focal(gamma: f64, at: Probability) -> ObjectiveValue {
    let q = at.one_minus_p;
    let p = at.lp.exp();
    let modulation = q.powf(gamma);
    let surprise_per_doubt = match (q == 0.0, p == 0.0) {
        (true, _) => 1.0,
        // p times the quotient goes to 0 with p, though lp is infinite.
        (_, true) => 0.0,
        _ => -at.lp / q,
    };
    let f = if modulation == 0.0 {
        0.0
    } else {
        -modulation * at.lp
    };
    ObjectiveValue::new(f, modulation * (1.0 + gamma * p * surprise_per_doubt))
}
