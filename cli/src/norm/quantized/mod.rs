//! Normalizations with quantised results.
//!
//! What a device quantises are its own values: the same operation on the same device gives them in
//! f32, within the bounds of [`rows`], and the reference quantises those. The bytes must be
//! the same, without tolerance. Both kernels add the numbers of a row in one order where x is f32, or
//! where rows are odd; elsewhere problems have rows whose sums are exact in any order
//! ([`Case::problem`]).

pub mod dyt;
mod problem;
mod run;

use evenkeel::quant::Format;
use evenkeel::{DeviceKind, Result, Status, Stream};

pub use self::{
    problem::{Case, Problem},
    run::Outcome,
};
use super::rows;
use crate::compare::{Checked, Computed, Verdict};
use crate::quant;

impl Computed for Problem {
    type Outcome = Outcome;

    fn named(&self) -> &str {
        &self.name
    }

    fn outcome(&self, stream: &Stream) -> Result<Outcome> {
        run::run_on(stream, self)
    }

    fn verdict(&self, outcome: &Outcome, _: DeviceKind) -> Result<Verdict> {
        let mut verdict = rows::compare(&self.rows, &outcome.plain)?;
        let values = outcome.plain.values("y");
        let plain = (values.as_slice(), outcome.plain.status[0]);
        compare_stored(&self.quantize, plain, &outcome.stored, &mut verdict)?;
        for (name, beside) in &outcome.beside {
            beside.check_gaps(name, &mut verdict);
            let bits =
                |values: Vec<f64>| -> Vec<u64> { values.into_iter().map(f64::to_bits).collect() };
            verdict.equal(
                || format!("{name}, beside that of the plain call"),
                &bits(beside.values()),
                &bits(outcome.plain.values(name)),
            );
        }
        Ok(verdict.of(&self.name))
    }

    fn same_bits(one: &Outcome, other: &Outcome) -> bool {
        one.stored == other.stored && one.plain.same_bits(&other.plain, &[])
    }
}

impl Checked for Problem {
    fn name(&self) -> &str {
        &self.name
    }

    fn check_on(&self, stream: &Stream) -> Result<Verdict> {
        self.verdict(&self.outcome(stream)?, stream.device().kind())
    }
}

/// Compares what was stored with the plain call's values, quantised by the reference, and the status
/// with that of the plain call and of the quantisation.
fn compare_stored(
    quantize: &quant::Problem,
    (values, plain): (&[f64], Status),
    stored: &quant::Outcome,
    verdict: &mut Verdict,
) -> Result<()> {
    let status = stored.status;
    verdict.equal(
        || "the status of the norm, within that of both".into(),
        &(status.bits() & plain.bits()),
        &plain.bits(),
    );
    let mut stored = stored.clone();
    stored.status = Status::from_bits(status.bits() & !plain.bits());
    verdict.merge(quant::compare::compare(
        &quantize.with_values(values),
        &stored,
    )?);
    Ok(())
}

/// Whether one pass over rows has a format.
#[must_use]
pub fn is_of_rows(format: Format) -> bool {
    !matches!(format, Format::Fp8Block128x128(_) | Format::NvFp4Square)
}
