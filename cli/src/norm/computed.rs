//! The row operations' problems, computed.

use evenkeel::{DeviceKind, Result, Stream};

use super::{dyt, softmax, spectral, tev};
use crate::compare::{Checked, Computed, Verdict};

macro_rules! computed {
    ($($operation:ident),*) => {$(
        impl Computed for $operation::Problem {
            type Outcome = $operation::Outcome;

            fn named(&self) -> &str {
                &self.name
            }

            fn outcome(&self, stream: &Stream) -> Result<Self::Outcome> {
                $operation::run_on(stream, self)
            }

            fn verdict(&self, outcome: &Self::Outcome, kind: DeviceKind) -> Result<Verdict> {
                $operation::compare(self, outcome, kind)
            }

            fn same_bits(one: &Self::Outcome, other: &Self::Outcome) -> bool {
                one.same_bits(other)
            }
        }

        impl Checked for $operation::Problem {
            fn name(&self) -> &str {
                &self.name
            }

            fn check_on(&self, stream: &Stream) -> Result<Verdict> {
                let outcome = $operation::run_on(stream, self)?;
                $operation::compare(self, &outcome, stream.device().kind())
            }
        }
    )*};
}
computed!(softmax, dyt, spectral, tev);
