//! One problem for the inverse of a quantisation: codes and scales of every kind, and their values.

use evenkeel::quant::{Dequantize, Format, OutputOptions, QuantizedRef, ScaleLayout};
use evenkeel::reference::Indices;
use evenkeel::reference::quant::{self as reference, Direction, ScalesRef, View};
use evenkeel::{DType, DeviceKind, Result, Status, Stream};

use super::bits::{Bits, of_f32, upload};
use super::places::scale_shape;
use super::problem::offsets;
use crate::compare::{Checked, Computed, Verdict};
use crate::memory::{Layout, upload_integers};
use crate::norm::placed::{Place, status_of};
use crate::numbers::round_to;
use crate::random::Random;

/// What a case is, before its codes are drawn.
#[derive(Clone, Debug)]
pub struct ValuesCase {
    /// Rows of the input that was quantised.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
    /// What it was quantised to.
    pub format: Format,
    /// Which way.
    pub direction: Direction,
    /// Rotation and layout of scales.
    pub output: OutputOptions,
    /// Whether the values stay rotated.
    pub keep_rotation: bool,
    /// Sizes of the groups of rows.
    pub groups: Option<Vec<usize>>,
    /// The type of the values.
    pub dtype: DType,
    /// Where codes and values lie.
    pub layouts: [Layout; 2],
    /// Whether scales are of any size, NaN and 0 among them, or near 1.
    pub any_scale: bool,
    /// Whether the call allocates.
    pub allocated: bool,
    /// What everything is drawn from.
    pub seed: u64,
}

impl ValuesCase {
    /// Row-wise, plain, of ordinary scales.
    #[must_use]
    pub fn new(rows: usize, columns: usize, dtype: DType, format: Format) -> Self {
        Self {
            rows,
            columns,
            format,
            direction: Direction::RowWise,
            output: OutputOptions::new(),
            keep_rotation: false,
            groups: None,
            dtype,
            layouts: [Layout::default(); 2],
            any_scale: false,
            allocated: false,
            seed: 1,
        }
    }

    /// Draws codes and scales: all codes there are, NaN and infinities among them.
    #[must_use]
    pub fn problem(&self) -> ValuesProblem {
        let mut random = Random::new(self.seed);
        let format = self.format;
        let [outer, inner] = self.direction.orient([self.rows, self.columns]);
        let [rows, bytes] = format.data_shape(outer, inner);
        let mut data: Vec<u8> = (0..rows * bytes).map(|_| random.bits() as u8).collect();
        if !self.any_scale && format.fp8().is_some() {
            // Numbers: what is no number spreads over a rotation's block.
            data.iter_mut().for_each(|code| *code &= 0xbb);
        }
        let groups = self.groups.as_ref().map(Vec::len);
        let logical = scale_shape(format, self.direction, [self.rows, self.columns], groups);
        let [scale_rows, scale_columns] = self.output.layout.shape(logical);
        let mut f32_scale = || {
            if self.any_scale && random.chance(0.1) {
                return random.pick(&[0.0, f32::NAN, f32::MAX, f32::from_bits(1), 1e-40]);
            }
            let range = if self.any_scale { 250.0 } else { 6.0 };
            ((random.unit() - 0.5) * range).exp2() as f32
        };
        let count = scale_rows * scale_columns;
        let tensor_scales = if format.needs_tensor_amax() {
            (0..groups.unwrap_or(1)).map(|_| f32_scale()).collect()
        } else {
            Vec::new()
        };
        let scales = match format.scale_dtype() {
            DType::F32 => of_f32(&(0..count).map(|_| f32_scale()).collect::<Vec<_>>()),
            DType::E8m0 if !self.any_scale => {
                (0..count).map(|_| 120 + random.below(16) as u8).collect()
            }
            DType::E4m3 if !self.any_scale => (0..count)
                .map(|_| 0x28 + random.below(0x20) as u8)
                .collect(),
            _ => (0..count).map(|_| random.bits() as u8).collect(),
        };
        ValuesProblem {
            name: format!("{self:?}"),
            case: self.clone(),
            groups: self.groups.as_deref().map(offsets),
            data,
            scales,
            tensor_scales,
        }
    }
}

/// Codes and scales.
#[derive(Clone, Debug)]
pub struct ValuesProblem {
    /// For messages.
    pub name: String,
    /// What they were drawn from.
    pub case: ValuesCase,
    /// Offsets of the groups' rows.
    pub groups: Option<Vec<i64>>,
    /// Elements, row by row.
    pub data: Vec<u8>,
    /// The bytes of the scales in the order of memory.
    pub scales: Vec<u8>,
    /// The scale of the tensor or of each group.
    pub tensor_scales: Vec<f32>,
}

/// What a device computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValuesOutcome {
    /// The values.
    pub values: Bits,
    /// Status bits of the call.
    pub status: Status,
}

impl ValuesProblem {
    fn shape(&self) -> [usize; 2] {
        let case = &self.case;
        case.direction.orient([case.rows, case.columns])
    }

    fn place(&self) -> Place {
        Place::new(self.case.dtype, &self.shape()).at(self.case.layouts[1])
    }

    /// The bytes that the reference says, of one rounding to the type.
    ///
    /// # Errors
    /// The reference's.
    pub fn expected(&self) -> Result<Vec<f64>> {
        let case = &self.case;
        let mut output = case.output;
        if case.keep_rotation {
            output.rotation = None;
        }
        let floats: Vec<f32> = Bits {
            bytes: self.scales.clone(),
            width: self.scales.len(),
            touched: Vec::new(),
        }
        .floats();
        let view = View {
            data: &self.data,
            scales: match case.format.has_f32_scales() {
                true => ScalesRef::F32(&floats),
                false => ScalesRef::Bytes(&self.scales),
            },
            tensor_scales: &self.tensor_scales,
        };
        let groups = self.groups.as_deref().map(Indices::I64);
        let shape = [case.rows, case.columns];
        let values =
            reference::dequantize(case.format, &output, case.direction, view, shape, groups)?;
        Ok(values
            .into_iter()
            .map(|x| round_to(case.dtype, x.into()))
            .collect())
    }
}

impl Computed for ValuesProblem {
    type Outcome = ValuesOutcome;

    fn named(&self) -> &str {
        &self.name
    }

    fn outcome(&self, stream: &Stream) -> Result<ValuesOutcome> {
        let case = &self.case;
        let format = case.format;
        let [outer, inner] = self.shape();
        let shape = format.data_shape(outer, inner);
        let place = Place::new(format.data_dtype(), &shape).at(case.layouts[0]);
        let data = Bits::memory(stream, &place, &self.data)?;
        let scales = upload(stream, format.scale_dtype(), &self.scales)?;
        let tensor_scale = stream.upload(&[self.tensor_scales.len()], &self.tensor_scales)?;
        let groups = self
            .groups
            .as_ref()
            .map(|groups| upload_integers(stream, DType::I64, groups))
            .transpose()?;
        let mut view = QuantizedRef::new(format, outer, inner, place.view(&data)?);
        if case.direction == Direction::Transposed {
            view = view.transposed();
        }
        if let Some(rotation) = case.output.rotation {
            view = view.rotation(rotation);
        }
        if !matches!(format, Format::Fp8Tensor(_)) {
            let groups = self.case.groups.as_ref().map(Vec::len);
            let all = [case.rows, case.columns];
            let logical = scale_shape(format, case.direction, all, groups);
            let layout: ScaleLayout = case.output.layout;
            view = view.scales(scales.view().reshape(&layout.shape(logical))?, layout);
        }
        if format.needs_tensor_amax() {
            view = view.tensor_scale(tensor_scale.view());
        }
        if let Some(groups) = &groups {
            view = view.groups(groups.view());
        }
        let mut op = Dequantize::new();
        if case.keep_rotation {
            op = op.keep_rotation();
        }
        let op = op.prepare(stream)?;
        let values = if case.allocated {
            Bits::whole(&op.dequantize(view, case.dtype)?)?
        } else {
            let place = self.place();
            let mut memory = Bits::memory(stream, &place, &[])?;
            op.dequantize_into(view, place.view_mut(&mut memory)?)?;
            Bits::take(&place, &memory)?
        };
        Ok(ValuesOutcome {
            values,
            status: status_of(stream)?,
        })
    }

    fn verdict(&self, outcome: &ValuesOutcome, _: DeviceKind) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let dtype = self.case.dtype;
        // A NaN is a NaN, whichever: its other bits are no part of a value.
        let canonical = |x: f64| if x.is_nan() { f64::NAN } else { x };
        let bytes = |values: Vec<f64>| -> Vec<u8> {
            let each = values.into_iter().map(canonical);
            match dtype {
                DType::Bf16 => each
                    .flat_map(|x| half::bf16::from_f64(x).to_ne_bytes())
                    .collect(),
                DType::F16 => each
                    .flat_map(|x| half::f16::from_f64(x).to_ne_bytes())
                    .collect(),
                _ => each.flat_map(|x| (x as f32).to_ne_bytes()).collect(),
            }
        };
        let got = Bits {
            bytes: bytes(outcome.values.numbers(dtype)),
            ..outcome.values.clone()
        };
        got.check(
            "values",
            dtype.size(),
            &bytes(self.expected()?),
            &mut verdict,
        );
        verdict.equal(|| "the status".into(), &outcome.status, &Status::empty());
        Ok(verdict.of(&self.name))
    }

    fn same_bits(one: &ValuesOutcome, other: &ValuesOutcome) -> bool {
        one == other
    }
}

impl Checked for ValuesProblem {
    fn name(&self) -> &str {
        &self.name
    }

    fn check_on(&self, stream: &Stream) -> Result<Verdict> {
        self.verdict(&self.outcome(stream)?, stream.device().kind())
    }
}
