//! How far a gradient computed in fp32 may be from the exact one.

use evenkeel::reference::loss::{Coefficients, Row, RowOptions, RowResult, RowUpstream, Target};

use super::bounds::{Arithmetic, RowBounds, transformed};

/// The errors of one row's gradient, element by element.
///
/// dz_j = a p_j + c p_j (log p_j + H) - d, at the target o p - b (1 - p) + c p (log p + H) - d, times
/// the slope of the transforms, plus e x_j. Each factor brings its own error, each product and sum u.
#[derive(Clone, Copy, Debug)]
pub struct GradientBounds<'a> {
    row: &'a Row<'a>,
    options: &'a RowOptions,
    exact: &'a RowResult,
    bounds: RowBounds,
    on: Arithmetic,
    of: Coefficients,
    target: usize,
    /// Relative error of 1 / S.
    inverse_sum: f64,
    /// Absolute errors of b, o (the p_j of other terms) and a.
    b: f64,
    o: f64,
    a: f64,
}

impl<'a> GradientBounds<'a> {
    /// Of a finite row; none where the row takes no part. `from_state`: in a backward.
    #[must_use]
    pub fn new(
        row: &'a Row<'a>,
        options: &'a RowOptions,
        exact: &'a RowResult,
        bounds: RowBounds,
        upstream: &RowUpstream,
        on: Arithmetic,
        from_state: bool,
    ) -> Option<Self> {
        let Target::Valid(target) = row.target else {
            return None;
        };
        let bounds = if from_state {
            bounds.from_saved(exact, options, &on)
        } else {
            bounds
        };
        let of = Coefficients::new(&exact.state, row.weight, options, upstream);
        let unit = on.unit;
        let loss = if exact.kept() {
            upstream.loss.abs()
        } else {
            0.0
        };
        let epsilon = options.label_smoothing;
        let weight = row.weight.abs();
        let share = loss * weight * (1.0 - epsilon);
        let of_objective = of.b + upstream.lp;
        let b = share * bounds.g + 6.0 * unit * of_objective.abs() + unit * of.b.abs();
        let of_lse = 2.0 * loss * options.z_loss;
        let o = of_lse * bounds.lse
            + 8.0
                * unit
                * (loss * weight * epsilon + of_lse * exact.lse.abs() + upstream.lse.abs());
        let inverse_sum = if from_state {
            bounds.log_sum + 6.0 * unit
        } else {
            bounds.sum + unit
        };
        Some(Self {
            row,
            options,
            exact,
            bounds,
            on,
            of,
            target,
            inverse_sum,
            b,
            o,
            a: b + o + unit * (of.a().abs() + of.b.abs()),
        })
    }

    /// The bound of class `class`, which is not masked.
    #[must_use]
    pub fn at(&self, class: usize) -> f64 {
        let (on, of, state) = (&self.on, &self.of, &self.exact.state);
        let unit = on.unit;
        let x = self.row.logits[class];
        let z = transformed(self.row, class, self.options);
        let distance = state.max - z;
        let tau = on.transform(self.options) * z.abs() + self.bounds.tau_max;
        let log_p = -distance - state.log_sum;
        let p = log_p.exp();
        let (of_p, p_error) = if class == self.target {
            let q = state.one_minus_p;
            let error = self.o * self.exact.p
                + of.a_minus_b.abs() * self.bounds.p
                + self.b * q
                + of.b.abs() * self.bounds.one_minus_p
                + self.b * self.bounds.one_minus_p;
            let size = (of.a_minus_b * self.exact.p).abs() + (of.b * q).abs();
            ((error, size), self.bounds.p)
        } else {
            let relative = (7.0 + 3.0 * distance) * unit + tau + self.inverse_sum;
            let p_error = p * relative.exp_m1() + on.flush * (-state.log_sum).exp();
            let a = of.a().abs();
            ((a * p_error + self.a * (p + p_error), a * p), p_error)
        };
        // c p (log p + H)
        let terms = log_p.abs() + state.entropy;
        let bracket = (log_p + state.entropy).abs();
        let log_p_error = distance * unit + tau + self.bounds.log_sum + self.bounds.lp;
        let entropy = of.c.abs()
            * (p_error * bracket + p * (log_p_error + self.bounds.entropy + 6.0 * unit * terms));
        let error = of_p.0 + entropy + 8.0 * unit * of.d.abs();
        let size = of_p.1 + of.c.abs() * p * bracket + of.d.abs();
        let error = error + 4.0 * unit * size + on.tiny;

        // The slope: 1/T, and 4 e / (1 + e)^2 with e = exp(-2 |x/c|).
        let (slope, slope_error) = match self.options.softcap {
            None => (1.0, 2.0 * unit),
            Some(c) => {
                let u = (x / c).abs();
                let e = (-2.0 * u).exp();
                let slope = 4.0 * e / (1.0 + e).powi(2);
                (slope, slope * (14.0 + 6.0 * u) * unit + 4.0 * on.flush)
            }
        };
        let per_t = self.options.temperature.recip();
        let dz = error * (slope + slope_error) * per_t + size * slope_error * per_t;
        dz + (6.0 * unit * of.e * x).abs() + unit * (size * slope * per_t) + on.tiny
    }
}
