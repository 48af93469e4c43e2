//! Products on a device.

use evenkeel::matmul::{Groups, Matmul, MatmulArguments, MatmulOutputs};
use evenkeel::{Buffer, DType, DeviceKind, Result, Status, Stream};

use super::case::{Addend, Case, Grouping};
use super::compare::compare;
use super::operand::{OperandData, upload};
use crate::compare::{Checked, Computed, Verdict};
use crate::memory::{self, Layout, download, rows, rows_mut, view_of};
use crate::norm::placed::status_of;

/// What lies in an output's memory before: a number that every type of results has.
pub(super) const UNTOUCHED: f64 = 96.0;

/// A product, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// What it is.
    pub case: Case,
    /// a.
    pub a: OperandData,
    /// b.
    pub b: OperandData,
    /// Exact in its type.
    pub bias: Option<Vec<f64>>,
    /// C, exact in its type.
    pub c: Option<Vec<f64>>,
    /// Of an FP8 output.
    pub output_scale: Option<f32>,
    /// What the amax is raised from.
    pub amax_before: Option<f32>,
}

/// What a device computed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The memory of the output.
    pub out: Vec<f64>,
    /// That of the values before the activation.
    pub pre: Option<Vec<f64>>,
    /// The amax.
    pub amax: Option<f32>,
    /// Status bits.
    pub status: Status,
}

impl Problem {
    /// Rows and columns of the output.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 2] {
        let columns = self.case.activation.output_columns(self.case.shape[1]);
        [self.case.output_rows(), columns]
    }

    /// Where the output lies.
    #[must_use]
    pub fn place(&self) -> Layout {
        self.case.layouts[3]
    }
}

/// Computes the product.
///
/// # Errors
/// The library's, but for what the status word holds: that is part of the outcome.
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let case = &problem.case;
    let [a_format, b_format] = case.formats;
    let op = Matmul::new(a_format, b_format)
        .activation(case.activation)
        .promotion(case.promotion)
        .prepare(stream)?;
    let [m, n, k] = case.shape;
    let (a, b) = (problem.a.upload(stream)?, problem.b.upload(stream)?);
    let f32_of = |value: Option<f32>| -> Result<Option<Buffer>> {
        value.map(|value| stream.upload(&[1], &[value])).transpose()
    };
    let alpha = f32_of(case.alpha)?;
    let bias = match (&problem.bias, case.bias) {
        (Some(bias), Some(dtype)) => Some(memory::upload(stream, dtype, &[bias.len()], bias)?),
        _ => None,
    };
    let [height, width] = problem.output_shape();
    let place = problem.place();
    let c = match (&problem.c, case.c) {
        (Some(c), Addend::View(dtype)) => {
            let layout = case.layouts[2];
            let memory = layout.spread(c, height, n, f64::NAN);
            Some(upload(stream, dtype, &memory)?)
        }
        _ => None,
    };
    let before = match (&problem.c, case.c) {
        (Some(c), Addend::Output) => place.spread(c, height, width, UNTOUCHED),
        _ => vec![UNTOUCHED; place.elements(height, width)],
    };
    let mut out = upload(stream, case.dtype, &before)?;
    let mut pre = match case.pre {
        Some(dtype) => Some(upload(
            stream,
            dtype,
            &vec![UNTOUCHED; place.elements(height, n)],
        )?),
        None => None,
    };
    let mut amax = f32_of(problem.amax_before)?;
    let output_scale = f32_of(problem.output_scale)?;
    // Half of the cases have offsets of 32 bits.
    let offsets = match case.grouping.offsets() {
        Some(offsets) => {
            let dtype = [DType::I64, DType::I32][case.seed as usize % 2];
            Some(memory::upload_integers(stream, dtype, offsets)?)
        }
        None => None,
    };

    let mut arguments = MatmulArguments {
        alpha: view_of(alpha.as_ref()),
        bias: view_of(bias.as_ref()),
        output_scale: view_of(output_scale.as_ref()),
        groups: offsets.as_ref().map(|offsets| match case.grouping {
            Grouping::Contraction(_) => Groups::Contraction(offsets.view()),
            Grouping::One | Grouping::Rows(_) => Groups::Rows(offsets.view()),
        }),
        ..MatmulArguments::default()
    };
    arguments = match (&c, case.c) {
        (Some(c), _) => arguments.c(rows(c, case.layouts[2], height, n)?, case.beta),
        (None, Addend::Output) => arguments.accumulate(case.beta),
        (None, _) => arguments,
    };
    let groups = case.grouping.count();
    let bytes = match case.grouping {
        Grouping::Contraction(_) => op.contraction_workspace_bytes(m, n, k, groups),
        Grouping::One | Grouping::Rows(_) => op.workspace_bytes(m, n, k, groups),
    };
    let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
    let mut outputs = MatmulOutputs::new(rows_mut(&mut out, place, height, width)?)
        .workspace(workspace.view_mut());
    if let Some(pre) = &mut pre {
        outputs = outputs.pre_activation(rows_mut(pre, place, height, n)?);
    }
    if let Some(amax) = &mut amax {
        outputs = outputs.amax(amax.view_mut());
    }
    let (a, b) = (problem.a.view(&a)?, problem.b.view(&b)?);
    op.multiply_into(a, b, arguments, &mut outputs)?;
    let status = status_of(stream)?;
    Ok(Outcome {
        out: download(&out)?,
        pre: pre.as_ref().map(download).transpose()?,
        amax: match &amax {
            Some(amax) => amax.read::<f32>()?.first().copied(),
            None => None,
        },
        status,
    })
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
        compare(self, outcome, kind)
    }

    fn same_bits(one: &Outcome, other: &Outcome) -> bool {
        let bits = |values: &[f64]| -> Vec<u64> { values.iter().map(|x| x.to_bits()).collect() };
        let all = |outcome: &Outcome| {
            (
                bits(&outcome.out),
                outcome.pre.as_deref().map(bits),
                outcome.amax.map(f32::to_bits),
                outcome.status,
            )
        };
        all(one) == all(other)
    }
}

impl Checked for Problem {
    fn name(&self) -> &str {
        &self.name
    }

    fn check_on(&self, stream: &Stream) -> Result<Verdict> {
        compare(self, &run_on(stream, self)?, stream.device().kind())
    }
}
