//! Golden cases of the operations beside the normalizations, as problems.

use evenkeel::DType;
use evenkeel::norm::{SoftmaxOptions, SpectralNormOptions};
use evenkeel_cli::compare::Checked;
use evenkeel_cli::norm::pass::Pass;
use evenkeel_cli::norm::placed::{Matrix, Place};
use evenkeel_cli::norm::{Operation, dyt, softmax, spectral, tev};

use crate::golden::norm::{Case, Op};

/// A golden case as a problem, with its matrices in `dtype`; none of a normalization.
pub fn problem(case: &Case, dtype: DType) -> Option<(Operation, Box<dyn Checked>)> {
    let of = Golden { case, dtype };
    Some(match &case.op {
        Op::Softmax {
            options,
            queries,
            lengths,
        } => (
            Operation::Softmax,
            Box::new(of.softmax(*options, *queries, lengths.clone())),
        ),
        Op::Dyt { alpha } => (Operation::Dyt, Box::new(of.dyt(*alpha))),
        Op::Spectral(options) => (Operation::SpectralNorm, Box::new(of.spectral(*options))),
        Op::Tev => (Operation::Tev, Box::new(of.tev())),
        _ => return None,
    })
}

struct Golden<'a> {
    case: &'a Case,
    dtype: DType,
}

impl Golden<'_> {
    fn name(&self) -> String {
        format!("golden {}, {}", self.case.name, self.dtype)
    }

    fn wide(values: &[f32]) -> Vec<f64> {
        values.iter().map(|&x| x.into()).collect()
    }

    fn matrix(&self, name: &str, shape: &[usize]) -> Matrix {
        let values = Self::wide(self.case.tensor(name));
        Matrix::new(Place::new(self.dtype, shape), values)
    }

    /// Results are in f32: what they lose beyond it is the comparison's to see.
    fn result(shape: &[usize]) -> Place {
        Place::new(DType::F32, shape)
    }

    fn softmax(
        &self,
        options: SoftmaxOptions,
        queries: usize,
        lengths: Option<Vec<i64>>,
    ) -> softmax::Problem {
        let [rows, _, keys] = self.case.inputs.shape;
        let shape = [rows / queries, queries, keys];
        softmax::Problem {
            name: self.name(),
            options,
            pass: Pass::Backward,
            x: self.matrix("x", &shape),
            y: Self::result(&shape),
            dy: self.matrix("dy", &shape),
            dx: Self::result(&shape),
            lengths,
            lengths_type: DType::I64,
            dentropy: self.case.given("dentropy").map(Self::wide),
        }
    }

    fn dyt(&self, alpha: f32) -> dyt::Problem {
        let [rows, heads, columns] = self.case.inputs.shape;
        let shape = [rows * heads, columns];
        let weight = |name: &str| {
            let values = Self::wide(self.case.given(name)?);
            let place = Place::new(DType::F32, &[columns]);
            Some(Matrix::new(place, values.into_iter().take(columns)))
        };
        dyt::Problem {
            name: self.name(),
            pass: Pass::Backward,
            alpha,
            x: self.matrix("x", &shape),
            y: Self::result(&shape),
            dy: self.matrix("dy", &shape),
            dx: Self::result(&shape),
            gamma: weight("gamma"),
            beta: weight("beta"),
            before: [None, None, None],
        }
    }

    fn spectral(&self, options: SpectralNormOptions) -> spectral::Problem {
        let shape = self.case.inputs.shape;
        let [batch, m, _] = shape;
        spectral::Problem {
            name: self.name(),
            steps: options.steps,
            w: self.matrix("x", &shape),
            u: Self::wide(self.case.tensor("u")),
            v: vec![0.0; batch * m],
            gamma: self.case.given("gamma").map(Self::wide),
            scaled: Some(Self::result(&shape)),
            dscaled: Some(self.matrix("dy", &shape)),
            dw: Self::result(&shape),
            before: None,
        }
    }

    fn tev(&self) -> tev::Problem {
        let [rows, heads, columns] = self.case.inputs.shape;
        tev::Problem {
            name: self.name(),
            table: self.matrix("x", &[rows * heads, columns]),
        }
    }
}
