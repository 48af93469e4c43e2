//! What is measured: variants, shapes, and the bytes that they must move at least.

use evenkeel::DType;
use evenkeel::loss::{Objective, SoftmaxLoss, Statistic};

use crate::bench::record::{Ceilings, Logits, Measured, ShapeOf};
use crate::loss::Mode;

/// An objective in a mode.
#[derive(Clone, Debug)]
pub struct Work {
    /// The objective, and how its gradient is computed.
    pub objective: Objective,
    /// Forward, apart or in place.
    pub mode: Mode,
    /// Whether all statistics are reported.
    pub statistics: bool,
}

impl Work {
    fn new(objective: Objective, mode: Mode) -> Self {
        Self {
            objective,
            mode,
            statistics: false,
        }
    }

    /// Its name in a row.
    #[must_use]
    pub fn name(&self) -> String {
        let mode = match self.mode {
            Mode::Forward => "forward",
            Mode::InPlace => "in place",
            _ => "forward_backward",
        };
        let statistics = if self.statistics {
            ", all statistics"
        } else {
            ""
        };
        format!("{} {mode}{statistics}", self.objective)
    }

    /// The operation.
    #[must_use]
    pub fn op(&self) -> SoftmaxLoss {
        let op = SoftmaxLoss::new(self.objective);
        if self.statistics {
            op.report(Statistic::ALL)
        } else {
            op
        }
    }

    /// What a row of it measures.
    #[must_use]
    pub fn measured(&self, shape: Logits, dtype: DType) -> Measured {
        Measured {
            op: "loss",
            variant: self.name(),
            shape: ShapeOf::Logits(shape),
            dtype,
            bytes: self.bytes(shape, dtype),
        }
    }

    /// The rate that bounds it.
    #[must_use]
    pub fn ceiling(&self, ceilings: &Ceilings) -> Option<f64> {
        if self.mode == Mode::Forward {
            ceilings.read_gbs
        } else {
            ceilings.copy_gbs
        }
    }

    /// The least bytes: each logit read once, each gradient written once.
    #[must_use]
    pub fn bytes(&self, shape: Logits, dtype: DType) -> u64 {
        let passes = if self.mode == Mode::Forward { 1 } else { 2 };
        (shape.tokens * shape.vocab * dtype.size() * passes) as u64
    }
}

/// Cross entropy in each mode; and, where the whole family is asked for, each member.
#[must_use]
pub fn works(family: bool) -> Vec<Work> {
    let nll = Objective::Nll;
    let mut works = vec![
        Work::new(nll, Mode::ForwardBackward),
        Work::new(nll, Mode::InPlace),
        Work::new(nll, Mode::Forward),
    ];
    if family {
        let members = [
            Objective::Linear,
            Objective::Power(0.5),
            Objective::Dft,
            Objective::Focal(2.0),
            Objective::Poly1(1.0),
            Objective::Gce(0.7),
            Objective::Deft,
        ];
        works.extend(members.map(|member| Work::new(member, Mode::InPlace)));
        works.push(Work {
            statistics: true,
            ..Work::new(nll, Mode::InPlace)
        });
    }
    works
}

/// The same with gradients apart, each once: where the logits are not restored between repetitions,
/// in place would measure gradients of gradients.
#[must_use]
pub fn apart(works: &[Work]) -> Vec<Work> {
    let mut apart: Vec<Work> = Vec::new();
    for work in works {
        let mut work = work.clone();
        if work.mode == Mode::InPlace {
            work.mode = Mode::ForwardBackward;
        }
        if !apart.iter().any(|other| other.name() == work.name()) {
            apart.push(work);
        }
    }
    apart
}
