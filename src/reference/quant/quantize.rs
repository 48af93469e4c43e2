//! An input as elements and scales.

use rayon::prelude::*;

use super::blocks::{self, Direction, Span, Spans};
use super::oriented::{Oriented, amax};
use super::philox::Words;
use super::{Matrix, View, element, expect, scale};
use crate::quant::{Format, OutputOptions, QuantizeOptions, Rounding, Scaling};
use crate::reference::Indices;
use crate::{E4m3, E8m0, Error, Status};

/// What comes with each call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call<'a> {
    /// The upper half of the random numbers' counter.
    pub offset: u64,
    /// For [`Scaling::Given`], positive and finite: `[1]`, or `[groups]`.
    pub tensor_scales: Option<&'a [f32]>,
    /// `[groups + 1]`: where groups of the input's rows begin, and where the last ends.
    pub groups: Option<Indices<'a>>,
}

/// Scales as they lie in memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Scales {
    /// Of the FP8 formats that are not MX.
    F32(Vec<f32>),
    /// [`E8m0`] of the MX formats, [`E4m3`] of the NVFP4 ones.
    Bytes(Vec<u8>),
}

/// One output of a quantisation. What belongs to no group, and the padding of layouts, is 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// The elements, row-major.
    pub data: Vec<u8>,
    /// [`Format::data_shape`].
    pub data_shape: [usize; 2],
    /// The scales of rows or blocks; none in `fp8-tensor`.
    pub scales: Scales,
    /// Their shape in memory.
    pub scale_shape: [usize; 2],
    /// The scale of the tensor in `fp8-tensor` and the NVFP4 formats, `[1]` or `[groups]`; else
    /// nothing.
    pub tensor_scales: Vec<f32>,
    /// The largest finite magnitude after the rotation, `[1]` or `[groups]`.
    pub amaxes: Vec<f32>,
    /// Values beyond the largest element before they were rounded. A block of E2M1 that is not
    /// finite counts neither here nor below.
    pub saturated: u64,
    /// Values that are not 0 and became 0.
    pub underflowed: u64,
    /// What was found wrong.
    pub status: Status,
}

impl Quantized {
    /// What [`dequantize`](super::dequantize) reads.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View {
            data: &self.data,
            scales: match &self.scales {
                Scales::F32(scales) => super::ScalesRef::F32(scales),
                Scales::Bytes(scales) => super::ScalesRef::Bytes(scales),
            },
            tensor_scales: &self.tensor_scales,
        }
    }
}

/// The elements and scales of one output of x.
///
/// # Errors
/// [`Error::Argument`] for options that the format does not have, for a rotation that does not divide
/// the inner dimension (with groups, that of each group is a matter of the status), and for given
/// scales that are missing, too many or too few.
pub fn quantize(
    options: &QuantizeOptions,
    output: &OutputOptions,
    direction: Direction,
    x: Matrix,
    call: &Call,
) -> Result<Quantized, Error> {
    options.validate()?;
    let format = options.format;
    let shape = x.shape();
    let [outer, inner] = direction.orient(shape);
    let grouped = call.groups.is_some();
    let each_group = grouped && direction == Direction::Transposed;
    output.validate(format, if each_group { 0 } else { inner })?;
    let (mut groups, mut status) = blocks::groups(call.groups, x.rows)?;
    if direction == Direction::Transposed {
        let n = output.rotation.map(|rotation| rotation.n);
        status |= blocks::fit_transposed(format, n, &mut groups);
    }

    let values = Oriented::new(x, direction, output.rotation.as_ref(), &groups);
    let amaxes: Vec<f32> = groups.iter().map(|group| values.amax(group)).collect();
    let tensor_scales = tensor_scales(options, call, &amaxes)?;
    let spans = Spans::new(format, direction, shape, &groups, grouped);
    let work = Work {
        options,
        values: &values,
        columns: x.columns,
        offset: call.offset,
        tensor_scales: &tensor_scales,
        inner: &spans.inner,
    };
    let bands: Vec<Band> = spans.outer.par_iter().map(|span| work.band(span)).collect();

    let logical = blocks::scale_shape(format, direction, shape, grouped.then_some(groups.len()));
    let mut result = Quantized::empty(options, output, [outer, inner], logical);
    result.status = status;
    result.amaxes = amaxes;
    for (span, band) in spans.outer.iter().zip(bands) {
        result.take(format, output, logical, span, &spans.inner, band);
    }
    result.tensor_scales = tensor_scales;
    Ok(result)
}

/// The scale of the tensor or of each group; nothing in formats without one.
fn tensor_scales(
    options: &QuantizeOptions,
    call: &Call,
    amaxes: &[f32],
) -> Result<Vec<f32>, Error> {
    let format = options.format;
    if options.scaling == Scaling::Given {
        let given = call.tensor_scales.unwrap_or_default();
        let expected = format!("given, one of each of {} groups", amaxes.len());
        expect(
            "tensor_scales",
            given.len() == amaxes.len(),
            &expected,
            given.len(),
        )?;
        return Ok(given.to_vec());
    }
    expect(
        "tensor_scales",
        call.tensor_scales.is_none(),
        "absent in current scaling",
        "given",
    )?;
    let of = |amax: f32| match format {
        _ if format.has_tensor_scale() => scale::nvfp4_tensor(amax),
        _ if options.power_of_two => scale::power_of_two(amax, format.largest()),
        _ => scale::exact(amax, format.largest()),
    };
    let amaxes = amaxes.iter().filter(|_| format.needs_tensor_amax());
    Ok(amaxes.map(|&amax| of(amax)).collect())
}

/// The scale of one block.
#[derive(Clone, Copy, Debug)]
struct BlockScale {
    /// As it is stored, the bits of an f32 or a byte.
    stored: u32,
    /// What values are divided by; `None` where elements are 0 whatever the values.
    divisor: Option<f32>,
    /// Whether its elements count as underflowed where they are 0.
    finite: bool,
}

/// The rows of one span of the outer dimension.
struct Band {
    /// Their stored elements, one after the other.
    data: Vec<u8>,
    /// One scale for each span of the inner dimension.
    scales: Vec<BlockScale>,
    saturated: u64,
    underflowed: u64,
    status: Status,
}

struct Work<'a> {
    options: &'a QuantizeOptions,
    values: &'a Oriented,
    /// Of the input.
    columns: usize,
    offset: u64,
    tensor_scales: &'a [f32],
    inner: &'a [Span],
}

impl Work<'_> {
    fn band(&self, span: &Span) -> Band {
        let format = self.options.format;
        let mut band = Band {
            data: Vec::new(),
            scales: Vec::with_capacity(self.inner.len()),
            saturated: 0,
            underflowed: 0,
            status: Status::empty(),
        };
        for inner in self.inner {
            let scale = self.scale(span, inner);
            if !scale.finite {
                band.status |= Status::NON_FINITE_BLOCK;
            }
            band.scales.push(scale);
        }
        for row in span.range.clone() {
            self.row(row, &mut band, format);
        }
        band
    }

    /// The scale of the block where two spans meet.
    fn scale(&self, outer: &Span, inner: &Span) -> BlockScale {
        let options = self.options;
        let format = options.format;
        let group = match self.values.direction {
            Direction::RowWise => outer.group,
            Direction::Transposed => inner.group,
        };
        if let Format::Fp8Tensor(_) = format {
            return BlockScale::new(self.tensor_scales[group]);
        }
        let rows = || {
            let rows = outer.range.clone();
            rows.map(|row| &self.values.row(row)[inner.range.clone()])
        };
        let amax = rows().map(amax).fold(0.0, f32::max);
        let finite = format.fp8().is_some() || rows().flatten().all(|value| value.is_finite());
        match format {
            Format::MxFp8(_) | Format::MxFp4 => {
                let scale = match finite {
                    true => scale::mx(amax, format, options.scale_rounding),
                    false => E8m0::NAN,
                };
                BlockScale {
                    stored: scale.to_bits().into(),
                    divisor: finite.then_some(scale.to_f32()),
                    finite,
                }
            }
            Format::NvFp4 | Format::NvFp4Square => {
                let tensor_scale = self.tensor_scales[group];
                let scale = match finite {
                    true => scale::nvfp4_block(amax, tensor_scale),
                    false => E4m3::from_f32(f32::NAN),
                };
                let divisor = scale.to_f32() * tensor_scale;
                BlockScale {
                    stored: scale.to_bits().into(),
                    divisor: (finite && divisor != 0.0).then_some(divisor),
                    finite,
                }
            }
            _ if options.power_of_two => {
                BlockScale::new(scale::power_of_two(amax, format.largest()))
            }
            _ => BlockScale::new(scale::exact(amax, format.largest())),
        }
    }

    /// Appends a row's elements.
    fn row(&self, row: usize, band: &mut Band, format: Format) {
        let values = self.values.row(row);
        let mut words = match self.options.rounding {
            Rounding::Stochastic { seed } => Some(Words::new(seed, self.offset)),
            Rounding::Nearest => None,
        };
        let index = |column: usize| {
            let [row, column] = self.values.direction.orient([row, column]);
            row as u64 * self.columns as u64 + column as u64
        };
        let mut codes = vec![0; values.len()];
        for (span, scale) in self.inner.iter().zip(&band.scales) {
            let values = &values[span.range.clone()];
            let codes = &mut codes[span.range.clone()];
            let Some(divisor) = scale.divisor else {
                let lost = values.iter().filter(|value| **value != 0.0).count();
                band.underflowed += if scale.finite { lost as u64 } else { 0 };
                continue;
            };
            let counted = match &mut words {
                None => round(format, divisor, values, codes, |_| None),
                Some(words) => round(format, divisor, values, codes, |at| {
                    Some(words.at(index(span.range.start + at)))
                }),
            };
            band.saturated += counted[0];
            band.underflowed += counted[1];
        }
        element::pack(format, &codes, &mut band.data);
    }
}

/// The codes of values; how many saturated, and how many were lost.
fn round(
    format: Format,
    divisor: f32,
    values: &[f32],
    codes: &mut [u8],
    mut random: impl FnMut(usize) -> Option<u32>,
) -> [u64; 2] {
    let largest = format.largest();
    let magnitude = (1_u8 << (format.element_bits() - 1)) - 1;
    let (mut saturated, mut underflowed) = (0, 0);
    for (at, (value, code)) in values.iter().zip(codes).enumerate() {
        let u = value / divisor;
        *code = element::encode(format, u, random(at));
        saturated += u64::from(u.abs() > largest);
        underflowed += u64::from(*code & magnitude == 0 && *value != 0.0);
    }
    [saturated, underflowed]
}

impl BlockScale {
    fn new(scale: f32) -> Self {
        Self {
            stored: scale.to_bits(),
            divisor: Some(scale),
            finite: true,
        }
    }
}

impl Quantized {
    fn empty(
        options: &QuantizeOptions,
        output: &OutputOptions,
        [outer, inner]: [usize; 2],
        logical: [usize; 2],
    ) -> Self {
        let format = options.format;
        let data_shape = format.data_shape(outer, inner);
        let scale_shape = output.layout.shape(logical);
        let scales = scale_shape[0] * scale_shape[1];
        Self {
            data: vec![0; data_shape[0] * data_shape[1]],
            data_shape,
            scales: match blocks::byte_scales(format) {
                true => Scales::Bytes(vec![0; scales]),
                false => Scales::F32(vec![0.0; scales]),
            },
            scale_shape,
            tensor_scales: Vec::new(),
            amaxes: Vec::new(),
            saturated: 0,
            underflowed: 0,
            status: Status::empty(),
        }
    }

    /// Puts a band where it belongs.
    fn take(
        &mut self,
        format: Format,
        output: &OutputOptions,
        logical: [usize; 2],
        span: &Span,
        inner: &[Span],
        band: Band,
    ) {
        self.saturated += band.saturated;
        self.underflowed += band.underflowed;
        self.status |= band.status;
        let bytes = self.data_shape[1];
        let rows = span.range.clone();
        self.data[rows.start * bytes..rows.end * bytes].copy_from_slice(&band.data);
        if let Format::Fp8Tensor(_) = format {
            return;
        }
        let slots = match blocks::repeats(format) {
            true => rows,
            false => span.slot..span.slot + 1,
        };
        for slot in slots {
            for (inner, scale) in inner.iter().zip(&band.scales) {
                let at = output.layout.offset(logical, slot, inner.slot);
                match &mut self.scales {
                    Scales::F32(scales) => scales[at] = f32::from_bits(scale.stored),
                    Scales::Bytes(scales) => scales[at] = scale.stored as u8,
                }
            }
        }
    }
}
