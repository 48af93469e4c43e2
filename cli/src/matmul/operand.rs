//! Operands of products: elements and scales, drawn one by one and not quantised from anything, so that
//! nothing of the quantiser's is taken for granted.

use evenkeel::matmul::{Operand, OperandFormat};
use evenkeel::quant::{Block, Format, Fp8, QuantizedRef, ScaleLayout};
use evenkeel::reference::matmul as reference;
use evenkeel::{Buffer, DType, E4m3, E5m2, E8m0, Number, Result, Stream};

use super::case::{Case, Grouping, Values};
use crate::memory::{self, Layout, rows};
use crate::numbers::round_to;
use crate::random::Random;

/// Which operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    A,
    B,
}

/// An operand on the host.
#[derive(Clone, Debug)]
pub struct OperandData {
    /// Elements and scales.
    pub format: OperandFormat,
    /// Rows and K.
    pub shape: [usize; 2],
    /// Exact in the type of the elements.
    pub elements: Vec<f64>,
    /// In memory, in their layout; empty without.
    pub scales: Vec<f64>,
    /// Of scales along rows and K.
    pub grid: [usize; 2],
    /// Where they lie.
    pub layout: ScaleLayout,
    /// What the operand was quantised in groups of: offsets of its rows, or of K where it is
    /// transposed.
    pub groups: Option<Vec<i64>>,
    /// Whether groups are of K.
    pub transposed: bool,
    /// Of the elements.
    pub place: Layout,
}

impl OperandData {
    pub(super) fn draw(case: &Case, side: Side, random: &mut Random) -> Self {
        let [m, n, k] = case.shape;
        let (format, rows, place) = match side {
            Side::A => (case.formats[0], m, case.layouts[0]),
            Side::B => (case.formats[1], case.b_rows(), case.layouts[1]),
        };
        let OperandFormat::Quantized(scaled) = format else {
            return Self {
                format,
                shape: [rows, k],
                elements: elements(case, side, rows, random),
                scales: Vec::new(),
                grid: [0, 0],
                layout: ScaleLayout::RowMajor,
                groups: None,
                transposed: false,
                place,
            };
        };
        let blocks_of_k = scaled.block().columns != Block::WHOLE;
        let squares = matches!(scaled, Format::Fp8Block128x128(_));
        let (groups, transposed) = match (&case.grouping, side) {
            (Grouping::One, _) => (None, false),
            (Grouping::Rows(offsets), Side::A) => {
                let own = case.scale_groups && matches!(scaled, Format::Fp8Tensor(_));
                (own.then(|| offsets.clone()), false)
            }
            (Grouping::Rows(_), Side::B) => {
                let count = case.grouping.count();
                let own = case.scale_groups || (squares && !n.is_multiple_of(128));
                let own = own && (squares || matches!(scaled, Format::Fp8Tensor(_)));
                let of = (0..=count).map(|group| (group * n) as i64).collect();
                (own.then_some(of), false)
            }
            (Grouping::Contraction(offsets), _) => {
                let own = blocks_of_k || case.scale_groups;
                (own.then(|| offsets.clone()), true)
            }
        };
        let grid = grid(scaled, [rows, k], groups.as_deref(), transposed);
        let layout = if blocks_of_k && !squares {
            case.scale_layout
        } else {
            ScaleLayout::RowMajor
        };
        let mut scales: Vec<f64> = (0..grid[0] * grid[1])
            .map(|_| scale(scaled, case.values, random))
            .collect();
        if case.values == Values::Outlier && !scales.is_empty() && side == Side::A {
            let at = random.below(scales.len() as u64) as usize;
            scales[at] *= 4096.0;
        }
        Self {
            format,
            shape: [rows, k],
            elements: elements(case, side, rows, random),
            scales,
            grid,
            layout,
            groups,
            transposed,
            place,
        }
    }

    /// In a device's memory.
    ///
    /// # Errors
    /// The device's.
    pub fn upload(&self, stream: &Stream) -> Result<Uploaded> {
        let [height, width] = self.shape;
        let memory = self.place.spread(&self.elements, height, width, f64::NAN);
        let offsets = match &self.groups {
            Some(offsets) => Some(stream.upload(&[offsets.len()], offsets)?),
            None => None,
        };
        let scales = match self.format {
            OperandFormat::Quantized(Format::MxFp8(_)) => {
                let scales: Vec<E8m0> = (self.scales.iter())
                    .map(|scale| E8m0::from_f32(*scale as f32))
                    .collect();
                Some(stream.upload(&[scales.len()], &scales)?)
            }
            OperandFormat::Quantized(_) => Some(memory::upload(
                stream,
                DType::F32,
                &[self.scales.len()],
                &self.scales,
            )?),
            _ => None,
        };
        Ok(Uploaded {
            data: upload(stream, self.format.data_dtype(), &memory)?,
            scales,
            offsets,
        })
    }

    /// As a product takes it.
    ///
    /// # Errors
    /// None: the memory has its size.
    pub fn view<'a>(&self, memory: &'a Uploaded) -> Result<Operand<'a>> {
        let [height, width] = self.shape;
        let data = rows(&memory.data, self.place, height, width)?;
        let OperandFormat::Quantized(format) = self.format else {
            return Ok(data.into());
        };
        let mut tensor = QuantizedRef::new(format, height, width, data);
        if let Some(scales) = &memory.scales {
            tensor = if matches!(format, Format::Fp8Tensor(_)) {
                tensor.tensor_scale(scales.view())
            } else {
                tensor.scales(scales.view(), self.layout)
            };
        }
        if let Some(offsets) = &memory.offsets {
            tensor = tensor.groups(offsets.view());
        }
        if self.transposed {
            tensor = tensor.transposed();
        }
        Ok(tensor.into())
    }

    /// With its values, for the reference.
    ///
    /// # Errors
    /// None: the parts fit each other.
    pub fn exact<T>(&self, then: impl FnOnce(reference::Operand<'_>) -> Result<T>) -> Result<T> {
        let [_, width] = self.shape;
        let elements = reference::Elements::Floats((&self.elements).into());
        let operand = reference::Operand::new(elements, self.shape, width)?;
        let OperandFormat::Quantized(format) = self.format else {
            return then(operand);
        };
        let scales: Vec<f32> = self.scales.iter().map(|scale| *scale as f32).collect();
        then(operand.scaled(reference::Scaling {
            scales: reference::Scales::F32(&scales),
            block: format.block(),
            grid: self.grid,
            layout: self.layout,
            groups: self.groups.as_ref().map_or(0, |offsets| offsets.len() - 1),
        })?)
    }
}

/// An operand in a device's memory.
#[derive(Debug)]
pub struct Uploaded {
    data: Buffer,
    scales: Option<Buffer>,
    offsets: Option<Buffer>,
}

/// How many scales there are along rows and K: `QuantizedForm::scale_grid`, written down again.
fn grid(
    format: Format,
    [rows, k]: [usize; 2],
    groups: Option<&[i64]>,
    transposed: bool,
) -> [usize; 2] {
    let count = groups.map_or(0, |offsets| offsets.len() - 1);
    let of_rows = if transposed { 0 } else { count };
    let of_k = if transposed { count } else { 0 };
    let slots = |length: usize, block: usize, groups: usize| match groups {
        0 => length.div_ceil(block),
        groups => length / block + groups,
    };
    match format {
        Format::Fp8Tensor(_) => [1, count.max(1)],
        Format::Fp8Row(_) => [rows, of_k.max(1)],
        Format::Fp8Block128x128(_) => [slots(rows, 128, of_rows), slots(k, 128, of_k)],
        format => [rows, slots(k, format.block().columns, of_k)],
    }
}

/// Uploads elements of any type that operands and results have.
///
/// # Errors
/// The device's.
pub(super) fn upload(stream: &Stream, dtype: DType, values: &[f64]) -> Result<Buffer> {
    fn converted<T: Number>(values: &[f64]) -> Vec<T> {
        values.iter().map(|x| T::from_f64(*x)).collect()
    }
    let shape = [values.len()];
    match dtype {
        DType::E4m3 => stream.upload(&shape, &converted::<E4m3>(values)),
        DType::E5m2 => stream.upload(&shape, &converted::<E5m2>(values)),
        dtype => memory::upload(stream, dtype, &shape, values),
    }
}

fn scale(format: Format, values: Values, random: &mut Random) -> f64 {
    if values == Values::Integers {
        return (random.below(4) as f64 - 2.0).exp2();
    }
    let power = (random.below(7) as f64 - 3.0).exp2();
    if matches!(format, Format::MxFp8(_)) {
        return power;
    }
    f64::from((power * (1.0 + random.unit())) as f32)
}

fn elements(case: &Case, side: Side, rows: usize, random: &mut Random) -> Vec<f64> {
    let k = case.shape[2];
    let format = case.formats[usize::from(side == Side::B)];
    let dtype = format.data_dtype();
    let fp8 = match format {
        OperandFormat::Quantized(format) => format.fp8(),
        _ => None,
    };
    let mut values: Vec<f64> = Vec::with_capacity(rows * k);
    for at in 0..rows * k {
        let value = match case.values {
            Values::Integers => random.below(5) as f64 - 2.0,
            Values::Codes => any(fp8, random),
            // Pairs in a are opposite, and nearly equal in b.
            Values::Cancelling if side == Side::A && at % k % 2 == 1 => -values[at - 1],
            Values::Cancelling if side == Side::B && at % k % 2 == 1 && random.chance(0.9) => {
                values[at - 1]
            }
            _ if fp8.is_some() => 16.0 * random.normal(),
            _ => random.normal(),
        };
        values.push(round_to(dtype, value));
    }
    match (case.values, side) {
        (Values::Outlier, Side::A) if fp8.is_none() => {
            let at = random.below(values.len().max(1) as u64) as usize;
            if let Some(value) = values.get_mut(at) {
                *value = round_to(dtype, *value * 4096.0);
            }
        }
        (Values::Nan, Side::A) => {
            let at = random.below(values.len().max(1) as u64) as usize;
            if let Some(value) = values.get_mut(at) {
                *value = f64::NAN;
            }
        }
        _ => {}
    }
    // What is in no group must show nowhere.
    match (&case.grouping, side) {
        (Grouping::Rows(offsets), Side::A) => {
            for (row, values) in values.chunks_mut(k).enumerate() {
                if outside(offsets, row) {
                    values.fill(f64::NAN);
                }
            }
        }
        (Grouping::Contraction(offsets), _) => {
            for (at, value) in values.iter_mut().enumerate() {
                if outside(offsets, at % k) {
                    *value = f64::NAN;
                }
            }
        }
        _ => {}
    }
    values
}

fn outside(offsets: &[i64], at: usize) -> bool {
    let at = at as i64;
    offsets.first().is_none_or(|first| at < *first) || offsets.last().is_none_or(|last| at >= *last)
}

/// Any finite element; of 16 bits those within 2^-30 and 2^8, so that no sum overflows f16.
fn any(fp8: Option<Fp8>, random: &mut Random) -> f64 {
    loop {
        let bits = random.bits() as u8;
        let value = match fp8 {
            Some(Fp8::E4m3) => f64::from(E4m3::from_bits(bits).to_f32()),
            Some(Fp8::E5m2) => f64::from(E5m2::from_bits(bits).to_f32()),
            None => {
                let power = (random.below(38) as f64 - 30.0).exp2();
                (1.0 + random.unit()) * if bits & 1 == 0 { power } else { -power }
            }
        };
        if value.is_finite() {
            return value;
        }
    }
}
