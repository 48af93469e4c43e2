//! Dynamic tanh with quantised results: as the normalizations.
//!
//! Each element is on its own, so the plain call has the same bits at any length of rows.

use evenkeel::norm::{Dyt, PreparedDyt, Weights};
use evenkeel::quant::{Format, Quantize, QuantizeArguments, QuantizeOptions, Scaling};
use evenkeel::reference::quant::Direction;
use evenkeel::{Buffer, DType, DeviceKind, Result, Stream, TensorRef};

use super::compare_stored;
use crate::compare::{Checked, Computed, Verdict};
use crate::memory::{upload_integers, view_of};
use crate::norm::dyt;
use crate::norm::pass::Pass;
use crate::norm::placed::{Matrix, Place, status_of};
use crate::norm::rows::run::missing;
use crate::quant::run::{Asked, Memory, allocated_tensor};
use crate::quant::{self, Form, Given, Output};

/// What a case is, before its data are drawn.
#[derive(Clone, Debug)]
pub struct Case {
    /// The dynamic tanh; y is f32, and there is no backward.
    pub dyt: dyt::Case,
    /// What its results become.
    pub options: QuantizeOptions,
    /// How they lie, and what is asked for beside.
    pub output: Output,
    /// The tensor's scale, in formats with one.
    pub given: f32,
    /// Which call is made.
    pub form: Form,
}

impl Case {
    /// With all that can be asked for.
    #[must_use]
    pub fn new(dyt: dyt::Case, format: Format) -> Self {
        let options = QuantizeOptions::new(format);
        Self {
            dyt,
            options: match format.needs_tensor_amax() {
                true => options.scaling(Scaling::Given),
                false => options,
            },
            output: Output::FULL,
            // gamma tanh + beta of 2 are within, a few elements beyond it are not.
            given: match format.has_tensor_scale() {
                true => 2.0 / 2688.0,
                false => 2.0 / format.largest(),
            },
            form: Form::Into,
        }
    }

    /// Draws the data.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut case = self.dyt.clone();
        (case.types[1], case.layouts[1], case.pass) =
            (DType::F32, Default::default(), Pass::Forward);
        let quantize = quant::Case {
            options: self.options,
            given: Given::Fixed(self.given),
            offset: 5,
            device_offset: Some(6),
            form: self.form,
            ..quant::Case::new(case.rows, case.columns, DType::F32, self.options.format)
        };
        let quantize = quantize.only(Direction::RowWise, self.output);
        let place = Place::new(DType::F32, &[case.rows, case.columns]);
        let zeros = vec![0.0; case.rows * case.columns];
        Problem {
            name: format!("{self:?}"),
            quantize: quant::Problem::new(quantize, Matrix::new(place, zeros)),
            dyt: case.problem(),
        }
    }
}

/// A dynamic tanh whose results are quantised, with all its data, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// The dynamic tanh, whose y is f32.
    pub dyt: dyt::Problem,
    /// The quantisation of y, which no host knows before.
    pub quantize: quant::Problem,
}

/// What a device computed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The plain call, whose y is f32.
    pub plain: dyt::Outcome,
    /// The elements, the scales, and what was asked for beside, with the status of the call.
    pub stored: quant::Outcome,
}

/// Computes a problem.
///
/// # Errors
/// The library's, but for what the status words hold: that is part of the outcome.
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let plain = dyt::run_on(stream, &problem.dyt)?;
    let case = &problem.quantize.case;
    let Some(wanted) = problem.quantize.wanted.first() else {
        return Err(missing("an output"));
    };
    let quantize = Quantize::new(case.options).rowwise(wanted.output.options);
    let op = Dyt::new().quantized(quantize).prepare(stream)?;
    let device_offset = case
        .device_offset
        .map(|offset| upload_integers(stream, DType::I64, &[offset]))
        .transpose()?;
    let mut asked = Asked::new(stream, &problem.quantize, wanted)?;
    let mut arguments = QuantizeArguments::default().rowwise(asked.arguments()?);
    arguments.offset = case.offset;
    arguments.device_offset = view_of(device_offset.as_ref());
    let data = Data::new(stream, &problem.dyt)?;
    let weights = data.weights(&problem.dyt)?;
    let (x, alpha) = (problem.dyt.x.place.view(&data.x)?, data.alpha.view());
    let stored = match case.form {
        Form::Allocated => {
            let y = op.forward_quantized(x, alpha, &weights, arguments)?;
            allocated_tensor(Some(&y), &asked)?
        }
        Form::Into => {
            let mut memory = Memory::new(stream, &problem.quantize, wanted)?;
            into(&op, [x, alpha], &weights, arguments, &mut memory)?;
            memory.take(&asked)?
        }
    };
    Ok(Outcome {
        plain,
        stored: quant::Outcome {
            stored: vec![stored],
            status: status_of(stream)?,
        },
    })
}

fn into(
    op: &PreparedDyt,
    [x, alpha]: [TensorRef<'_>; 2],
    weights: &Weights<'_>,
    arguments: QuantizeArguments<'_>,
    memory: &mut Memory,
) -> Result<()> {
    op.forward_quantized_into(x, alpha, weights, arguments, memory.views()?)
}

/// What a call reads, on the device.
struct Data {
    x: Buffer,
    alpha: Buffer,
    gamma: Option<Buffer>,
    beta: Option<Buffer>,
}

impl Data {
    fn new(stream: &Stream, problem: &dyt::Problem) -> Result<Self> {
        let upload = |matrix: &Option<Matrix>| {
            let upload = |matrix: &Matrix| matrix.upload(stream);
            matrix.as_ref().map(upload).transpose()
        };
        Ok(Self {
            x: problem.x.upload(stream)?,
            alpha: stream.upload(&[1], &[problem.alpha])?,
            gamma: upload(&problem.gamma)?,
            beta: upload(&problem.beta)?,
        })
    }

    fn weights<'d>(&'d self, problem: &dyt::Problem) -> Result<Weights<'d>> {
        let view = |matrix: &Option<Matrix>, memory: &'d Option<Buffer>| {
            let both = matrix.as_ref().zip(memory.as_ref());
            both.map(|(matrix, memory)| matrix.place.view(memory))
                .transpose()
        };
        Ok(Weights {
            gamma: view(&problem.gamma, &self.gamma)?,
            beta: view(&problem.beta, &self.beta)?,
        })
    }
}

impl Computed for Problem {
    type Outcome = Outcome;

    fn named(&self) -> &str {
        &self.name
    }

    fn outcome(&self, stream: &Stream) -> Result<Outcome> {
        run_on(stream, self)
    }

    fn verdict(&self, outcome: &Outcome, kind: DeviceKind) -> Result<Verdict> {
        let mut verdict = dyt::compare(&self.dyt, &outcome.plain, kind)?;
        let values = outcome.plain.y.values();
        let plain = (values.as_slice(), outcome.plain.status);
        compare_stored(&self.quantize, plain, &outcome.stored, &mut verdict)?;
        Ok(verdict.of(&self.name))
    }

    fn same_bits(one: &Outcome, other: &Outcome) -> bool {
        one.stored == other.stored && one.plain.same_bits(&other.plain)
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
