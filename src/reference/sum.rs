//! Sums whose error does not grow with their length.

/// A running sum in f64 with compensation (Kahan, Babuska and Neumaier): for terms of one sign the result is within
/// two units in the last place of the exact sum, whatever their number (below 2^50).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    pub(crate) fn add(&mut self, term: f64) {
        // Knuth's exact sum: no comparison, so that several sums run side by side.
        let total = self.sum + term;
        let added = total - self.sum;
        self.lost += (self.sum - (total - added)) + (term - added);
        self.sum = total;
    }

    pub(crate) fn value(self) -> f64 {
        if self.sum.is_finite() {
            self.sum + self.lost
        } else {
            // The compensation of an infinite sum is NaN and means nothing.
            self.sum
        }
    }
}

impl Extend<f64> for Sum {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, terms: I) {
        terms.into_iter().for_each(|term| self.add(term));
    }
}

impl FromIterator<f64> for Sum {
    fn from_iter<I: IntoIterator<Item = f64>>(terms: I) -> Self {
        let mut sum = Self::default();
        sum.extend(terms);
        sum
    }
}
