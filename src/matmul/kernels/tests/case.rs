//! One product: its operands, what it should be, and what a device makes of it.

use super::*;
use crate::device::LaunchReport;
use crate::matmul::operand::ScaleKind;
use crate::matmul::{
    Activation, Groups, Matmul, MatmulArguments, MatmulOutputs, Operand, Promotion,
};
use crate::quant::{QuantizedRef, ScaleLayout};
use crate::{E8m0, Result};

/// What offsets divide.
#[derive(Clone, Debug)]
pub(super) enum Grouped {
    Nothing,
    Rows(Vec<i64>),
    Contraction(Vec<i64>),
}

impl Grouped {
    pub(super) fn offsets(&self) -> &[i64] {
        match self {
            Self::Nothing => &[],
            Self::Rows(offsets) | Self::Contraction(offsets) => offsets,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) formats: [OperandFormat; 2],
    pub(super) shape: [usize; 3],
    pub(super) grouped: Grouped,
    /// Whether operands of groups of rows were quantised in them.
    pub(super) quantised_in_groups: bool,
    pub(super) layout: ScaleLayout,
    /// Of a, b and the output: elements before the first row, and after each.
    pub(super) places: [[usize; 2]; 3],
    pub(super) promotion: Promotion,
    pub(super) activation: Activation,
    pub(super) dtype: DType,
    /// Of odd ones offsets are i32.
    pub(super) random: u64,
}

/// An operand on a device.
pub(super) struct Built {
    format: OperandFormat,
    data: Matrix,
    scales: Option<Buffer>,
    layout: ScaleLayout,
    transposed: bool,
    offsets: Option<Buffer>,
    /// What it stands for.
    pub(super) values: Vec<f64>,
}

impl Built {
    /// Other elements under the same scales.
    pub(super) fn replace(&mut self, data: Matrix) {
        self.data = data;
    }

    pub(super) fn operand(&self) -> Operand<'_> {
        let OperandFormat::Quantized(format) = self.format else {
            return Operand::Dense(self.data.view());
        };
        let mut view =
            QuantizedRef::new(format, self.data.rows, self.data.columns, self.data.view());
        if self.transposed {
            view = view.transposed();
        }
        if let Some(offsets) = &self.offsets {
            view = view.groups(offsets.view());
        }
        let scales = self.scales.as_ref().unwrap().view();
        Operand::Quantized(match format {
            Format::Fp8Tensor(_) => view.tensor_scale(scales),
            _ => view.scales(scales, self.layout),
        })
    }
}

impl Case {
    pub(super) fn new(formats: [OperandFormat; 2], shape: [usize; 3]) -> Self {
        Self {
            formats,
            shape,
            grouped: Grouped::Nothing,
            quantised_in_groups: false,
            layout: ScaleLayout::RowMajor,
            places: [[0, 0]; 3],
            promotion: Promotion::Every128,
            activation: Activation::None,
            dtype: DType::F32,
            random: 1,
        }
    }

    pub(super) fn groups(&self) -> usize {
        self.grouped.offsets().len().saturating_sub(1).max(1)
    }

    pub(super) fn output_rows(&self) -> usize {
        match self.grouped {
            Grouped::Contraction(_) => self.groups() * self.shape[0],
            _ => self.shape[0],
        }
    }

    /// The group of a row or of an element of the contraction, whichever offsets divide.
    fn group_of(offsets: &[i64], index: usize) -> Option<usize> {
        let inside = |pair: &[i64]| (pair[0]..pair[1]).contains(&(index as i64));
        offsets.windows(2).position(inside)
    }

    /// Operand 0 or 1. Scales that belong to no element are NaN.
    pub(super) fn operand(&self, stream: &Stream, index: usize) -> Built {
        let mut random = Random(self.random * 2 + index as u64);
        let [m, n, k] = self.shape;
        let format = self.formats[index];
        let of_rows = matches!(self.grouped, Grouped::Rows(_));
        let rows = match index {
            0 => m,
            _ if of_rows => self.groups() * n,
            _ => n,
        };
        let dtype = format.data_dtype();
        let elements: Vec<f32> = (0..rows * k).map(|_| random.integer(4)).collect();
        let data = Matrix::upload(stream, dtype, &elements, k, self.places[index]);
        let kind = ScaleKind::of(format).unwrap();
        let in_groups = match self.grouped {
            Grouped::Nothing => false,
            Grouped::Rows(_) => self.quantised_in_groups,
            Grouped::Contraction(_) => kind.block().is_some() || self.quantised_in_groups,
        };
        let own: Vec<i64> = match (&self.grouped, index) {
            (Grouped::Rows(_), 1) => (0..=self.groups()).map(|g| (g * n) as i64).collect(),
            _ => self.grouped.offsets().to_vec(),
        };
        let transposed = matches!(self.grouped, Grouped::Contraction(_)) && in_groups;
        let mut built = Built {
            format,
            data,
            scales: None,
            layout: ScaleLayout::RowMajor,
            transposed,
            offsets: in_groups.then(|| stream.upload(&[own.len()], &own).unwrap()),
            values: elements.iter().map(|x| f64::from(*x)).collect(),
        };
        let OperandFormat::Quantized(quantized) = format else {
            return built;
        };
        let view = QuantizedRef::new(quantized, rows, k, built.data.view());
        let view = if transposed { view.transposed() } else { view };
        let view = match &built.offsets {
            Some(offsets) => view.groups(offsets.view()),
            None => view,
        };
        let form = view.form();
        let grid = form.scale_grid().unwrap_or([1, form.tensor_scales()]);
        if kind != ScaleKind::Tensor && kind != ScaleKind::Row {
            built.layout = self.layout;
        }
        let mut scales = vec![f32::NAN; grid[0] * grid[1]];
        for row in 0..rows {
            let row_group = Self::group_of(&own, row).unwrap_or(0);
            for column in 0..k {
                let k_group = match Self::group_of(&own, column) {
                    None if transposed => continue,
                    group => group.unwrap_or(0),
                };
                let start = own.get(k_group).map_or(0, |start| *start as usize);
                let slot = |block: usize| match transposed {
                    true => start / block + k_group + (column - start) / block,
                    false => column / block,
                };
                let group = if transposed { k_group } else { row_group };
                let at = match kind {
                    ScaleKind::Dense => continue,
                    ScaleKind::Tensor => [0, if in_groups { group } else { 0 }],
                    ScaleKind::Row => [row, if transposed { group } else { 0 }],
                    ScaleKind::Block1x128 => [row, slot(128)],
                    ScaleKind::Mx => [row, slot(32)],
                    ScaleKind::Block128x128 if in_groups && of_rows => {
                        let first = group * n;
                        [first / 128 + group + (row - first) / 128, slot(128)]
                    }
                    ScaleKind::Block128x128 => [row / 128, slot(128)],
                };
                let place = match built.layout {
                    ScaleLayout::ColumnMajor => at[1] * grid[0] + at[0],
                    _ => at[0] * grid[1] + at[1],
                };
                if scales[place].is_nan() {
                    scales[place] = [0.5, 1.0, 2.0][random.bits() as usize % 3];
                }
                built.values[row * k + column] *= f64::from(scales[place]);
            }
        }
        let shape = match form.scale_shape() {
            Some(shape) => shape.to_vec(),
            None => vec![form.tensor_scales()],
        };
        built.scales = Some(match kind {
            ScaleKind::Mx => {
                let bytes = scales.iter().map(|scale| match scale.is_nan() {
                    true => E8m0::NAN,
                    false => E8m0::from_f32(*scale),
                });
                stream.upload(&shape, &bytes.collect::<Vec<_>>()).unwrap()
            }
            _ => stream.upload(&shape, &scales).unwrap(),
        });
        built
    }

    /// The sums, `None` in rows of no group.
    pub(super) fn sums(&self, a: &Built, b: &Built) -> Vec<Option<f64>> {
        let [m, n, k] = self.shape;
        let mut sums = Vec::with_capacity(self.output_rows() * n);
        for out_row in 0..self.output_rows() {
            let row = out_row % m;
            let offsets = self.grouped.offsets();
            let (mut range, mut b_row, mut there) = (0..k, 0, true);
            match self.grouped {
                Grouped::Nothing => {}
                Grouped::Rows(_) => {
                    there = offsets[0] <= row as i64 && (row as i64) < offsets[self.groups()];
                    b_row = Self::group_of(offsets, row).unwrap_or(0) * n;
                }
                Grouped::Contraction(_) => {
                    let group = out_row / m;
                    range = offsets[group] as usize..offsets[group + 1] as usize;
                }
            }
            for column in 0..n {
                let left = &a.values[row * k..][range.clone()];
                let right = &b.values[(b_row + column) * k..][range.clone()];
                let sum = left.iter().zip(right).map(|(a, b)| a * b).sum();
                sums.push(there.then_some(sum));
            }
        }
        sums
    }

    /// Runs it into these outputs.
    pub(super) fn run(
        &self,
        stream: &Stream,
        [a, b]: [&Built; 2],
        arguments: MatmulArguments<'_>,
        mut outputs: MatmulOutputs<'_>,
    ) -> Result<()> {
        let [m, n, k] = self.shape;
        let matmul = Matmul::new(self.formats[0], self.formats[1]).promotion(self.promotion);
        let prepared = matmul.activation(self.activation).prepare(stream)?;
        let offsets = self.grouped.offsets();
        let offsets = match self.random % 2 {
            0 => stream.upload(&[offsets.len()], offsets)?,
            _ => {
                let narrow: Vec<i32> = offsets.iter().map(|offset| *offset as i32).collect();
                stream.upload(&[narrow.len()], &narrow)?
            }
        };
        let (bytes, groups) = match self.grouped {
            Grouped::Nothing => (prepared.workspace_bytes(m, n, k, 0), None),
            Grouped::Rows(_) => (
                prepared.workspace_bytes(m, n, k, self.groups()),
                Some(Groups::Rows(offsets.view())),
            ),
            Grouped::Contraction(_) => (
                prepared.contraction_workspace_bytes(m, n, k, self.groups()),
                Some(Groups::Contraction(offsets.view())),
            ),
        };
        let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
        // Anew, as the scratch does not live as long as the other outputs.
        let mut outputs = MatmulOutputs {
            out: outputs.out.reborrow(),
            pre_activation: outputs.pre_activation.as_mut().map(TensorMut::reborrow),
            amax: outputs.amax.as_mut().map(TensorMut::reborrow),
            workspace: Some(workspace.view_mut()),
        };
        let arguments = MatmulArguments {
            groups,
            ..arguments
        };
        prepared.multiply_into(a.operand(), b.operand(), arguments, &mut outputs)
    }

    /// Runs it and compares all of the output: what is wrong, in words, and what the launches did.
    pub(super) fn outcome(&self, stream: &Stream) -> (Option<String>, Vec<LaunchReport>) {
        let [a, b] = [0, 1].map(|index| self.operand(stream, index));
        let before = vec![-7.0; self.output_rows() * self.shape[1]];
        let mut out = Matrix::upload(stream, self.dtype, &before, self.shape[1], self.places[2]);
        stream.take_reports();
        let outputs = MatmulOutputs::new(out.view_mut());
        let ran = self
            .run(stream, [&a, &b], MatmulArguments::default(), outputs)
            .and_then(|()| stream.check());
        let reports = stream.take_reports();
        if let Err(error) = ran {
            return (Some(error.to_string()), reports);
        }
        let got = out.read();
        for (index, sum) in self.sums(&a, &b).into_iter().enumerate() {
            let expected = sum.map_or(-7.0, |sum| match self.dtype {
                DType::Bf16 => bf16::from_f64(sum).to_f32(),
                DType::F16 => f16::from_f64(sum).to_f32(),
                _ => sum as f32,
            });
            let [row, column] = [index / self.shape[1], index % self.shape[1]];
            let got = got[index];
            if got != expected {
                let wrong = format!("[{row}, {column}] is {got}, not {expected}");
                return (Some(wrong), reports);
            }
        }
        (None, reports)
    }

    #[track_caller]
    pub(super) fn check(&self, stream: &Stream) -> Vec<LaunchReport> {
        let (wrong, reports) = self.outcome(stream);
        if let Some(wrong) = wrong {
            panic!("{self:?}: {wrong}");
        }
        reports
    }
}
