//! Elements and scales as values.

use rayon::prelude::*;

use super::blocks::{self, Direction, Span, Spans};
use super::{element, expect, hadamard};
use crate::quant::{Format, OutputOptions};
use crate::reference::Indices;
use crate::{E4m3, E8m0, Error};

/// Scales as they lie in memory.
#[derive(Clone, Copy, Debug)]
pub enum ScalesRef<'a> {
    /// Of the FP8 formats that are not MX.
    F32(&'a [f32]),
    /// [`E8m0`] of the MX formats, [`E4m3`] of the NVFP4 ones.
    Bytes(&'a [u8]),
}

/// A quantised output.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The elements, row-major.
    pub data: &'a [u8],
    /// The scales in their layout.
    pub scales: ScalesRef<'a>,
    /// The scale of the tensor in `fp8-tensor` and the NVFP4 formats, `[1]` or `[groups]`; else
    /// nothing.
    pub tensor_scales: &'a [f32],
}

/// The values `[outer, inner]` of a quantised output of an input `[rows, columns]`.
///
/// value = RN(element x scale), for NVFP4 RN(element x RN(block scale x tensor scale)), then the
/// inverse rotation; all in f32, to be rounded once to what it is stored as. What belongs to no
/// group is 0.
///
/// # Errors
/// [`Error::Argument`] for views that have not the format's shapes.
pub fn dequantize(
    format: Format,
    output: &OutputOptions,
    direction: Direction,
    view: View,
    shape: [usize; 2],
    groups: Option<Indices>,
) -> Result<Vec<f32>, Error> {
    let [outer, inner] = direction.orient(shape);
    let grouped = groups.is_some();
    let each_group = grouped && direction == Direction::Transposed;
    output.validate(format, if each_group { 0 } else { inner })?;
    let (mut groups, _) = blocks::groups(groups, shape[0])?;
    if direction == Direction::Transposed {
        let n = output.rotation.map(|rotation| rotation.n);
        blocks::fit_transposed(format, n, &mut groups);
    }
    let logical = blocks::scale_shape(format, direction, shape, grouped.then_some(groups.len()));
    check(format, output, view, [outer, inner], logical, groups.len())?;

    let spans = Spans::new(format, direction, shape, &groups, grouped);
    let decoder = Decoder {
        format,
        output,
        direction,
        view,
        logical,
    };
    let rows = |span: &Span| span.range.clone();
    let mut values = vec![0.0; outer * inner];
    let mut of_row: Vec<Option<&Span>> = vec![None; outer];
    for span in &spans.outer {
        of_row[rows(span)].fill(Some(span));
    }
    if values.is_empty() {
        return Ok(values);
    }
    values
        .par_chunks_mut(inner)
        .zip(of_row)
        .enumerate()
        .for_each(|(row, (values, span))| {
            let Some(span) = span else { return };
            decoder.row(row, span, &spans.inner, values);
            let Some(rotation) = &output.rotation else {
                return;
            };
            match direction {
                Direction::RowWise => hadamard::unrotate(rotation, values),
                Direction::Transposed => {
                    for group in &groups {
                        hadamard::unrotate(rotation, &mut values[group.rows.clone()]);
                    }
                }
            }
        });
    Ok(values)
}

fn check(
    format: Format,
    output: &OutputOptions,
    view: View,
    [outer, inner]: [usize; 2],
    logical: [usize; 2],
    groups: usize,
) -> Result<(), Error> {
    let size = |[rows, columns]: [usize; 2]| rows * columns;
    let data = size(format.data_shape(outer, inner));
    let expected = format!("{data} bytes");
    expect("data", view.data.len() == data, &expected, view.data.len())?;
    let scales = size(output.layout.shape(logical));
    let (bytes, given) = match view.scales {
        ScalesRef::F32(scales) => (false, scales.len()),
        ScalesRef::Bytes(scales) => (true, scales.len()),
    };
    let fits = bytes == blocks::byte_scales(format) && given == scales;
    let expected = format!("{scales} of {}", format.scale_dtype());
    expect("scales", fits, &expected, given)?;
    let tensor_scales = if format.needs_tensor_amax() {
        groups
    } else {
        0
    };
    let given = view.tensor_scales.len();
    let expected = format!("{tensor_scales} scales");
    expect("tensor_scales", given == tensor_scales, &expected, given)
}

struct Decoder<'a> {
    format: Format,
    output: &'a OutputOptions,
    direction: Direction,
    view: View<'a>,
    /// The shape of scales before their layout.
    logical: [usize; 2],
}

impl Decoder<'_> {
    fn row(&self, row: usize, outer: &Span, inner: &[Span], values: &mut [f32]) {
        let [_, bytes] = self.format.data_shape(1, values.len());
        let data = &self.view.data[row * bytes..(row + 1) * bytes];
        for span in inner {
            let scale = self.scale(row, outer, span);
            for column in span.range.clone() {
                let code = element::load(self.format, data, column);
                values[column] = element::decode(self.format, code) * scale;
            }
        }
    }

    fn scale(&self, row: usize, outer: &Span, inner: &Span) -> f32 {
        let group = match self.direction {
            Direction::RowWise => outer.group,
            Direction::Transposed => inner.group,
        };
        if let Format::Fp8Tensor(_) = self.format {
            return self.view.tensor_scales[group];
        }
        let slot = match blocks::repeats(self.format) {
            true => row,
            false => outer.slot,
        };
        let at = self.output.layout.offset(self.logical, slot, inner.slot);
        match self.view.scales {
            ScalesRef::F32(scales) => scales[at],
            ScalesRef::Bytes(scales) if self.format.has_tensor_scale() => {
                E4m3::from_bits(scales[at]).to_f32() * self.view.tensor_scales[group]
            }
            ScalesRef::Bytes(scales) => E8m0::from_bits(scales[at]).to_f32(),
        }
    }
}
