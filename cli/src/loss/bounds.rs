//! How far a loss computed in fp32 may be from the exact one: the one tolerance of the project.
//!
//! A result is right when it is the rounding, to its type, of a value within `e` of the exact one
//! ([`Interval::rounded`](crate::numbers::Interval::rounded)); this module derives `e` of every
//! result of one row from the row's own exact numbers. Nothing is fitted to what was observed.
//!
//! With u = 2^-24, half a unit of the last place of 1 in fp32 (each correctly rounded operation errs
//! by at most u relatively, a library function of k ulp by 2 k u), d = m - z_j >= 0 and e_j = exp(-d):
//!
//! | step | error |
//! |---|---|
//! | transform of z | softcap: division u, `tanhf` 2 ulp (4 u), product u, 1/T and its product 2 u: 8 u z; temperature alone 2 u z. tau_j below is that of z_j plus that of m |
//! | e_j | ex2.approx 2 ulp (4 u); its argument d log2 e is off by u (the constant), u (the product) and u (d), each relative: 3 u d; and tau_j |
//! | a flushed e_j | `.ftz`: 2^-126 absolutely, once a term |
//! | sum S | 5 adds in the tree over at most 32 elements; then `steps` links (vectors of a thread, its ragged element, 5 + 5 + 4 merges of warp, block, cluster), each an add (u) and a change of maximum (ex2 4 u, product u): 6 u a link. The parts of a change that grow with d add up to the 3 u d above, since the maxima only rise |
//! | sums of e^2, e d, d, z^2 | element by element: `elements` adds of u more, and 3 u a link |
//! | log S | relative error of S, and `logf` 1 ulp |
//! | lp | target the maximum: error of S_o over S and `log1pf` 1 ulp; else d u, tau, error of log S, u |
//! | 1 - p | errors of S_o and of S, and 3 u |
//! | p | `expf` 2 ulp, error of lp |
//! | f and g | the exact function at both ends of lp, 1 - p and sum p^2, and `OBJECTIVE` u for its own operations (`powf` 4 ulp is the largest of them) |
//! | gradient | a few operations each, term by term in [`GradientBounds`](super::gradient::GradientBounds) |
//!
//! Library errors are those of the CUDA programming guide's table of mathematical functions; those of
//! the host's libm are no larger. On the CPU device everything is f64, u = 2^-53 and nothing is
//! flushed; a saved state is f32 there too.

use evenkeel::loss::{KernelPath, Objective};
use evenkeel::reference::loss::{Probability, Row, RowOptions, RowResult, Target, objective};

/// Half a unit of the last place of 1 in f32.
const SINGLE: f64 = 1.0 / (1u64 << 24) as f64;
/// The same in f64: 2^-53.
const DOUBLE: f64 = f64::EPSILON / 2.0;
/// Operations within an objective: powf (8 u), two products, a division, a difference.
const OBJECTIVE: f64 = 16.0;

/// The arithmetic of one kernel on rows of one length.
#[derive(Clone, Copy, Debug)]
pub struct Arithmetic {
    /// u.
    pub unit: f64,
    /// What a flushed exponential loses.
    pub flush: f64,
    /// The smallest subnormal number: what an underflow loses.
    pub tiny: f64,
    /// Links of the chain from a vector to the row's sum.
    pub steps: f64,
    /// Elements that a thread adds one by one.
    pub elements: f64,
    /// Relative error of a saved state's fields beyond what computed them.
    pub saved: f64,
}

impl Arithmetic {
    /// Of `path` over rows of `vocab` elements of `element_bytes`.
    #[must_use]
    pub fn new(path: KernelPath, vocab: usize, element_bytes: usize) -> Self {
        if path == KernelPath::Reference {
            return Self {
                unit: DOUBLE,
                flush: 0.0,
                tiny: 0.0,
                steps: vocab as f64,
                elements: vocab as f64,
                saved: SINGLE,
            };
        }
        let vectors = vocab * element_bytes / 16;
        // The most vectors of one thread. A cluster's group has at least 32 threads, and gives each of
        // its up to 192 about eight vectors; a block's slice has at most 227 KiB.
        let each = match path {
            KernelPath::Cluster if vectors <= 1536 => vectors.div_ceil(32).min(8),
            KernelPath::Cluster => vectors.div_ceil(192).clamp(8, 76),
            _ => vectors.div_ceil(640.min(vectors.next_multiple_of(32).max(64))),
        };
        Self {
            unit: SINGLE,
            flush: (-126.0_f64).exp2(),
            tiny: (-148.0_f64).exp2(),
            steps: (each + 1 + 5 + 5 + 4) as f64,
            elements: (each * 16 / element_bytes + 1) as f64,
            saved: 0.0,
        }
    }

    /// Relative error of each exponential's share in a sum.
    fn share(&self, distance: f64, tau: f64) -> f64 {
        let unit = self.unit;
        ((4.0 + 5.0 + 6.0 * self.steps + 3.0 * distance) * unit + tau).exp_m1()
    }

    /// Relative error of a transformed logit.
    #[must_use]
    pub fn transform(&self, options: &RowOptions) -> f64 {
        match (options.softcap, options.temperature) {
            (Some(_), _) => 8.0 * self.unit,
            (None, 1.0) => 0.0,
            (None, _) => 2.0 * self.unit,
        }
    }
}

/// The transformed logit, -inf where the class is masked: the reference's formula, once more and by itself.
#[must_use]
pub fn transformed(row: &Row<'_>, class: usize, options: &RowOptions) -> f64 {
    let masked = row
        .class_mask
        .is_some_and(|words| words[class / 32] >> (class % 32) & 1 == 1);
    let x = row.logits[class];
    if masked {
        return f64::NEG_INFINITY;
    }
    let capped = match options.softcap {
        Some(c) if x.is_finite() => c * (x / c).tanh(),
        _ => x,
    };
    capped / options.temperature
}

/// Errors of one finite row's statistics and of what its gradient is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowBounds {
    /// tau of the maximum.
    pub tau_max: f64,
    /// Relative, of S.
    pub sum: f64,
    /// Absolute, as all below: log S.
    pub log_sum: f64,
    /// m + log S.
    pub lse: f64,
    /// log p.
    pub lp: f64,
    /// p.
    pub p: f64,
    /// 1 - p.
    pub one_minus_p: f64,
    /// H.
    pub entropy: f64,
    /// sum p^2.
    pub sum_p2: f64,
    /// EL2N.
    pub el2n: f64,
    /// The token's loss.
    pub loss: f64,
    /// f.
    pub value: f64,
    /// g.
    pub g: f64,
    /// Mean of -log p over the classes.
    pub uniform: f64,
    /// The exact value of that mean.
    pub uniform_exact: f64,
}

impl RowBounds {
    /// Of a row whose exact results are `exact`; the row is finite and its target valid.
    #[must_use]
    pub fn new(row: &Row<'_>, options: &RowOptions, exact: &RowResult, on: &Arithmetic) -> Self {
        let Target::Valid(target) = row.target else {
            return Self::default();
        };
        let (unit, state) = (on.unit, &exact.state);
        let transform = on.transform(options);
        let tau_max = transform * state.max.abs();
        let total = state.log_sum.exp();
        let further = (on.elements + 3.0 * on.steps + 4.0) * unit;

        let (mut sum, mut others) = (0.0, 0.0);
        let (mut gaps, mut taus, mut raw_squares) = (0.0, 0.0, 0.0);
        let (mut weighted, mut squares, mut other_squares) = (0.0, 0.0, 0.0);
        for class in 0..row.logits.len() {
            let z = transformed(row, class, options);
            if z == f64::NEG_INFINITY {
                continue;
            }
            let distance = state.max - z;
            let tau = transform * z.abs() + tau_max;
            let e = (-distance).exp();
            let p = e / total;
            let share = on.share(distance, tau);
            sum += e * share + on.flush;
            weighted += p * distance * (share + further) + p * tau + on.flush * distance.min(1e4);
            let square = p * p * (2.0 * share + further) + on.flush;
            squares += square;
            if class != target {
                others += e * share + on.flush;
                other_squares += square;
            }
            gaps += distance;
            taus += tau;
            raw_squares += row.logits[class] * row.logits[class];
        }

        let mut bounds = Self {
            tau_max,
            sum: sum / total + unit,
            ..Self::default()
        };
        bounds.log_sum = bounds.sum + 2.0 * unit * state.log_sum;
        bounds.lse = bounds.log_sum + unit * exact.lse.abs() + tau_max;
        let distance = state.max - transformed(row, target, options);
        bounds.lp = if state.lp == f64::NEG_INFINITY {
            0.0
        } else {
            let tau = 2.0 * tau_max;
            let leads = others / total + 2.0 * unit * state.lp.abs();
            let follows = distance * unit + tau + bounds.log_sum + unit * state.lp.abs();
            match (distance == 0.0, distance <= tau) {
                (true, _) if tau == 0.0 => leads,
                (_, true) => leads.max(follows),
                _ => follows,
            }
        };
        bounds.p = exact.p * (bounds.lp + 4.0 * unit).exp_m1() + on.tiny;
        bounds.one_minus_p = others / total + state.one_minus_p * (bounds.sum + 3.0 * unit);
        bounds.entropy =
            bounds.log_sum + weighted + (state.entropy + state.log_sum) * (bounds.sum + 4.0 * unit);
        let twice = 2.0 * bounds.sum + 4.0 * unit;
        bounds.sum_p2 = squares + state.sum_p2 * twice;
        let under_root = other_squares
            + exact.el2n.powi(2) * (twice + 2.0 * unit)
            + 2.0 * state.one_minus_p * bounds.one_minus_p
            + bounds.one_minus_p.powi(2);
        bounds.el2n = under_root
            .sqrt()
            .min(under_root / exact.el2n.max(f64::MIN_POSITIVE))
            + 2.0 * unit * exact.el2n;

        let count = state.unmasked_count;
        bounds.uniform_exact = state.log_sum + gaps / count;
        bounds.uniform = bounds.log_sum
            + 3.0 * unit * bounds.uniform_exact
            + (gaps * (on.elements + 6.0 * on.steps + 1.0) * unit + taus) / count;
        bounds.objective(options, exact, on);
        bounds.loss(row, options, exact, raw_squares, on);
        bounds
    }

    /// The errors of f and g: the exact function at the corners of what it is given.
    fn objective(&mut self, options: &RowOptions, exact: &RowResult, on: &Arithmetic) {
        let state = &exact.state;
        let at = Probability {
            lp: state.lp,
            one_minus_p: state.one_minus_p,
            sum_p2: state.sum_p2,
        };
        let which = options.criterion.objective;
        let middle = objective(which, at);
        // Rounding a lp before the exponential moves lp.
        let lp_error = if at.lp.is_finite() {
            self.lp + 2.0 * on.unit * at.lp.abs()
        } else {
            0.0
        };
        let (mut value, mut g) = (0.0_f64, 0.0_f64);
        for (a, b, c) in (0..8).map(|corner| (corner & 1, corner >> 1 & 1, corner >> 2)) {
            let sign = |bit: i32| f64::from(2 * bit - 1);
            let end = objective(
                which,
                Probability {
                    lp: at.lp + sign(a) * lp_error,
                    one_minus_p: (at.one_minus_p + sign(b) * self.one_minus_p).max(0.0),
                    sum_p2: (at.sum_p2 + sign(c) * self.sum_p2).max(0.0),
                },
            );
            if end.f.is_finite() && middle.f.is_finite() {
                value = value.max((end.f - middle.f).abs());
            }
            g = g.max((end.g - middle.g).abs());
        }
        // The sizes of the terms that are added, where they may cancel.
        let (value_size, g_size) = match which {
            Objective::Poly1(epsilon) => {
                let epsilon = f64::from(epsilon).abs();
                (
                    at.lp.abs() + epsilon * at.one_minus_p,
                    1.0 + epsilon * exact.p,
                )
            }
            _ => (middle.f.abs(), middle.g.abs()),
        };
        let own = OBJECTIVE * on.unit;
        self.value = if value_size.is_finite() {
            value + own * value_size + on.tiny
        } else {
            0.0
        };
        self.g = g + own * g_size + on.tiny;
    }

    fn loss(
        &mut self,
        row: &Row<'_>,
        options: &RowOptions,
        exact: &RowResult,
        raw_squares: f64,
        on: &Arithmetic,
    ) {
        let value = exact.objective.map_or(0.0, |objective| objective.f.abs());
        if !exact.loss.is_finite() || !exact.kept() {
            return;
        }
        let epsilon = options.label_smoothing;
        let weight = row.weight.abs();
        // 0 times an infinite value is 0: the coefficient removes it.
        let value = if value.is_finite() { value } else { 0.0 };
        let (z_loss, entropy) = (options.z_loss, options.entropy.abs());
        let spectral = 0.5 * options.spectral_decoupling;
        let lse = exact.lse.abs();
        let errors = weight * ((1.0 - epsilon) * self.value + epsilon * self.uniform)
            + z_loss * (2.0 * lse * self.lse + self.lse.powi(2))
            + entropy * self.entropy
            + spectral * raw_squares * (on.elements + on.steps + 2.0) * on.unit;
        let sizes = weight * ((1.0 - epsilon) * value + epsilon * self.uniform_exact)
            + z_loss * lse * lse
            + entropy * exact.state.entropy
            + spectral * raw_squares;
        self.loss = errors + 8.0 * on.unit * sizes + on.tiny;
    }

    /// With the rounding of a saved state added, where it comes on top of what computed it.
    #[must_use]
    pub fn from_saved(mut self, exact: &RowResult, options: &RowOptions, on: &Arithmetic) -> Self {
        let state = &exact.state;
        let finite = |x: f64| if x.is_finite() { x.abs() } else { 0.0 };
        if options.softcap.is_some() || options.temperature != 1.0 {
            self.tau_max += on.saved * state.max.abs();
        }
        self.log_sum += on.saved * state.log_sum;
        self.lse += on.saved * (state.log_sum + state.max.abs());
        self.lp += on.saved * finite(state.lp);
        self.one_minus_p += on.saved * state.one_minus_p;
        self.entropy += on.saved * state.entropy;
        self.sum_p2 += on.saved * state.sum_p2;
        // The reference forms p of the target anew, from the saved maximum and sum.
        self.p += exact.p * (self.tau_max + self.log_sum + on.saved * finite(state.lp)).exp_m1();
        self.objective(options, exact, on);
        self
    }
}
