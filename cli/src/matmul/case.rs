//! What a product is of, before its data are drawn.

use evenkeel::DType;
use evenkeel::matmul::{Activation, OperandFormat, Promotion};
use evenkeel::quant::ScaleLayout;

use super::operand::{OperandData, Side};
use super::run::Problem;
use crate::memory::Layout;
use crate::random::Random;

/// Which matrices are multiplied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// a with b.
    One,
    /// Rows of a between these offsets, each with its own b.
    Rows(Vec<i64>),
    /// The contraction between these offsets, a product each.
    Contraction(Vec<i64>),
}

impl Grouping {
    /// The offsets, where there are some.
    #[must_use]
    pub fn offsets(&self) -> Option<&[i64]> {
        match self {
            Self::One => None,
            Self::Rows(offsets) | Self::Contraction(offsets) => Some(offsets),
        }
    }

    /// How many groups; 0 without.
    #[must_use]
    pub fn count(&self) -> usize {
        self.offsets().map_or(0, |offsets| offsets.len() - 1)
    }
}

/// What elements are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// As activations and weights are; scales within a factor of 8.
    Normal,
    /// Small integers, and scales that are powers of two: no sum is rounded, whatever the arithmetic.
    Integers,
    /// Any finite element.
    Codes,
    /// Terms that cancel but for the last bits of a few.
    Cancelling,
    /// One block of scales, or one element, 2^12 times the others.
    Outlier,
    /// NaN in a row of a.
    Nan,
}

impl Values {
    /// Every kind that is finite.
    pub const FINITE: [Self; 5] = [
        Self::Normal,
        Self::Integers,
        Self::Codes,
        Self::Cancelling,
        Self::Outlier,
    ];
}

/// What is added beta times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addend {
    /// Nothing.
    None,
    /// A matrix of this type.
    View(DType),
    /// What the output holds.
    Output,
}

/// A product.
#[derive(Clone, Debug)]
pub struct Case {
    /// M, N and K.
    pub shape: [usize; 3],
    /// Of a and b.
    pub formats: [OperandFormat; 2],
    /// Which matrices.
    pub grouping: Grouping,
    /// Whether operands have scales of each group, where they may have one or the other.
    pub scale_groups: bool,
    /// Of f32 scales of 1 x 128 and of MX.
    pub scale_layout: ScaleLayout,
    /// Of the output.
    pub dtype: DType,
    /// Before it is stored.
    pub activation: Activation,
    /// Of FP8 sums.
    pub promotion: Promotion,
    /// A factor on the device.
    pub alpha: Option<f32>,
    /// The type of a bias.
    pub bias: Option<DType>,
    /// What is added.
    pub c: Addend,
    /// How often.
    pub beta: f32,
    /// The type in which values before the activation are kept.
    pub pre: Option<DType>,
    /// Whether the amax is asked for.
    pub amax: bool,
    /// Elements.
    pub values: Values,
    /// Where a, b, C and what is written lie.
    pub layouts: [Layout; 4],
    /// What everything is drawn from.
    pub seed: u64,
}

impl Case {
    /// A product without anything else, of values as they come.
    #[must_use]
    pub fn new(
        shape: [usize; 3],
        a: impl Into<OperandFormat>,
        b: impl Into<OperandFormat>,
        dtype: DType,
    ) -> Self {
        Self {
            shape,
            formats: [a.into(), b.into()],
            grouping: Grouping::One,
            scale_groups: false,
            scale_layout: ScaleLayout::ColumnMajor,
            dtype,
            activation: Activation::None,
            promotion: Promotion::Every128,
            alpha: None,
            bias: None,
            c: Addend::None,
            beta: 0.0,
            pre: None,
            amax: false,
            values: Values::Normal,
            layouts: [Layout::default(); 4],
            seed: 1,
        }
    }

    /// Rows of the output.
    #[must_use]
    pub fn output_rows(&self) -> usize {
        match &self.grouping {
            Grouping::Contraction(_) => self.shape[0] * self.grouping.count(),
            Grouping::One | Grouping::Rows(_) => self.shape[0],
        }
    }

    /// Rows of b.
    #[must_use]
    pub fn b_rows(&self) -> usize {
        match &self.grouping {
            Grouping::Rows(_) => self.shape[1] * self.grouping.count(),
            Grouping::One | Grouping::Contraction(_) => self.shape[1],
        }
    }

    /// Whether nothing is rounded before the result is: then devices have no tolerance. With at most
    /// 1024 products of at most 4 the 13 bits of FP8's tensor cores hold every sum.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.values == Values::Integers
            && self.shape[2] <= 1024
            && self.activation == Activation::None
            && self.alpha.is_none()
            && (self.c == Addend::None || self.beta == 1.0)
    }

    /// Draws the data.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut random = Random::new(self.seed);
        let a = OperandData::draw(self, Side::A, &mut random);
        let b = OperandData::draw(self, Side::B, &mut random);
        let n = self.shape[1];
        let rows = self.output_rows();
        let mut drawn = |dtype: DType, count: usize, scale: f64| -> Vec<f64> {
            let rounded = |x| crate::numbers::round_to(dtype, x);
            (0..count)
                .map(|_| rounded((scale * random.normal()).round() / 4.0))
                .collect()
        };
        let groups = self.grouping.count().max(1);
        let bias_elements = match self.grouping {
            Grouping::Rows(_) => groups * n,
            Grouping::One | Grouping::Contraction(_) => n,
        };
        Problem {
            name: format!("{self:?}"),
            bias: self.bias.map(|dtype| drawn(dtype, bias_elements, 8.0)),
            c: match self.c {
                Addend::None => None,
                Addend::View(dtype) => Some(drawn(dtype, rows * n, 16.0)),
                Addend::Output => Some(drawn(self.dtype, rows * n, 16.0)),
            },
            output_scale: matches!(self.dtype, DType::E4m3 | DType::E5m2)
                .then(|| (random.below(5) as f32 - 2.0).exp2() * 1.25),
            amax_before: self.amax.then(|| random.unit() as f32),
            case: self.clone(),
            a,
            b,
        }
    }
}
