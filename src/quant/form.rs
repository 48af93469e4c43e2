//! The shapes of what a quantisation writes.

use super::{Format, Hadamard, OutputOptions, ScaleLayout};
use crate::DType;

/// The input of a call: `[rows, columns]`, its rows in `groups` groups, 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QuantShape {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) groups: usize,
}

/// Rows and columns of a tile: `kTile` of kernels/quant/tile.cuh.
pub(super) const TILE: usize = 128;

impl QuantShape {
    /// Tiles along the rows and the columns: those of rows begin where groups do.
    pub(super) fn tiles(self) -> [usize; 2] {
        let down = match self.groups {
            0 => self.rows.div_ceil(TILE),
            groups => (self.rows / TILE).saturating_add(groups),
        };
        [down, self.columns.div_ceil(TILE)]
    }
}

/// One output of a quantisation without its memory: what it is and which shapes it has.
///
/// An input X of `[M, K]` gives two outputs, each `[outer, inner]` with its blocks along the inner
/// dimension: X itself, `[M, K]`, and its transpose, `[K, M]`.
///
/// ```
/// use evenkeel::Device;
/// use evenkeel::quant::{Format, OutputOptions, Quantize};
///
/// let op = Quantize::new(Format::NvFp4)
///     .transposed(OutputOptions::new())
///     .prepare(&Device::cpu().stream()?)?;
/// let form = op.transposed_form(64, 48, 0).expect("asked for");
/// assert_eq!([form.outer, form.inner], [48, 64]);
/// assert_eq!(form.data_shape(), [48, 32]); // two elements a byte
/// assert_eq!(form.scale_shape(), Some([48, 4])); // of 16 elements each
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuantizedForm {
    /// Elements, scales and blocks.
    pub format: Format,
    /// Whether it is the transpose of the input.
    pub transposed: bool,
    /// Rows of this output: M, or K of the transpose.
    pub outer: usize,
    /// Elements of each: K, or M of the transpose.
    pub inner: usize,
    /// Groups of the input's rows; 0 for none.
    pub groups: usize,
    /// What was done along the inner dimension before its elements were rounded.
    pub rotation: Option<Hadamard>,
    /// Where the scales lie.
    pub layout: ScaleLayout,
}

impl QuantizedForm {
    pub(crate) fn new(
        format: Format,
        output: OutputOptions,
        transposed: bool,
        shape: QuantShape,
    ) -> Self {
        let QuantShape {
            rows,
            columns,
            groups,
        } = shape;
        let (outer, inner) = if transposed {
            (columns, rows)
        } else {
            (rows, columns)
        };
        Self {
            format,
            transposed,
            outer,
            inner,
            groups,
            rotation: output.rotation,
            layout: output.layout,
        }
    }

    /// The rotation and the layout.
    #[must_use]
    pub fn output(&self) -> OutputOptions {
        let options = OutputOptions::new().layout(self.layout);
        match self.rotation {
            Some(rotation) => options.rotation(rotation),
            None => options,
        }
    }

    /// The type of the elements: `E4m3`, `E5m2`, or `E2m1x2` with two a byte.
    #[must_use]
    pub fn data_dtype(&self) -> DType {
        self.format.data_dtype()
    }

    /// The shape of the elements, in bytes: `[outer, inner]`, or `[outer, ceil(inner / 2)]` with two
    /// a byte.
    #[must_use]
    pub fn data_shape(&self) -> [usize; 2] {
        self.format.data_shape(self.outer, self.inner)
    }

    /// The type of the scales of rows or blocks, where the format has such.
    #[must_use]
    pub fn scale_dtype(&self) -> Option<DType> {
        (!self.is_tensor()).then(|| self.format.scale_dtype())
    }

    /// The shape in memory, in their layout, of the scales of rows or blocks, where the format has
    /// such.
    #[must_use]
    pub fn scale_shape(&self) -> Option<[usize; 2]> {
        let [rows, blocks] = self.scale_grid()?;
        Some(self.layout.shape([rows, blocks]))
    }

    /// How many scales there are along the outer and the inner dimension, before their layout.
    ///
    /// Blocks that run along the input's rows start at each group's first row: block b of group g
    /// has slot floor(start / B) + g + b of floor(M / B) + groups, of which some stay unused and are
    /// 0.
    #[must_use]
    pub fn scale_grid(&self) -> Option<[usize; 2]> {
        let Self {
            outer,
            inner,
            groups,
            ..
        } = *self;
        let slots = |length: usize, block: usize| match groups {
            0 => length.div_ceil(block),
            groups => length / block + groups,
        };
        Some(match (self.format, self.transposed) {
            (Format::Fp8Tensor(_), _) => return None,
            (Format::Fp8Row(_), false) => [outer, 1],
            (Format::Fp8Row(_), true) => [outer, groups.max(1)],
            (Format::Fp8Block128x128(_), false) => [slots(outer, 128), inner.div_ceil(128)],
            (Format::Fp8Block128x128(_), true) => [outer.div_ceil(128), slots(inner, 128)],
            (format, false) => [outer, inner.div_ceil(format.block().columns)],
            (format, true) => [outer, slots(inner, format.block().columns)],
        })
    }

    /// How many f32 scales of the tensor there are: one, or one a group, of formats with such (FP8
    /// with one scale, where it is the only one, and NVFP4), else 0.
    #[must_use]
    pub fn tensor_scales(&self) -> usize {
        if self.format.needs_tensor_amax() {
            self.groups.max(1)
        } else {
            0
        }
    }

    /// Bytes of the elements and all scales.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let product = |[rows, columns]: [usize; 2]| rows * columns;
        let scales = self.scale_shape().map_or(0, product);
        let scale_size = self.format.scale_dtype().size();
        product(self.data_shape()) + scales * scale_size + self.tensor_scales() * size_of::<f32>()
    }

    fn is_tensor(&self) -> bool {
        matches!(self.format, Format::Fp8Tensor(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Fp8;

    fn form(format: Format, transposed: bool, groups: usize) -> QuantizedForm {
        let shape = QuantShape {
            rows: 300,
            columns: 70,
            groups,
        };
        QuantizedForm::new(format, OutputOptions::new(), transposed, shape)
    }

    #[test]
    fn outputs_without_groups_have_the_shapes_of_their_format() {
        for format in Format::ALL {
            for transposed in [false, true] {
                let form = form(format, transposed, 0);
                let tensor = matches!(format, Format::Fp8Tensor(_));
                let expected = format.scale_shape(form.outer, form.inner);
                assert_eq!(form.scale_grid(), (!tensor).then_some(expected), "{format}");
                assert_eq!(form.tensor_scales() == 1, format.needs_tensor_amax());
            }
        }
    }

    #[test]
    fn groups_have_slots_where_blocks_run_along_rows() {
        let row = Format::Fp8Row(Fp8::E4m3);
        assert_eq!(form(row, false, 5).scale_grid(), Some([300, 1]));
        assert_eq!(form(row, true, 5).scale_grid(), Some([70, 5]));
        let square = Format::Fp8Block128x128(Fp8::E4m3);
        assert_eq!(form(square, false, 5).scale_grid(), Some([2 + 5, 1]));
        assert_eq!(form(square, true, 5).scale_grid(), Some([1, 2 + 5]));
        assert_eq!(form(Format::MxFp4, false, 5).scale_grid(), Some([300, 3]));
        assert_eq!(form(Format::MxFp4, true, 5).scale_grid(), Some([70, 9 + 5]));
        assert_eq!(
            form(Format::NvFp4Square, true, 5).scale_grid(),
            Some([70, 18 + 5])
        );
        assert_eq!(form(Format::NvFp4, true, 5).tensor_scales(), 5);
    }

    #[test]
    fn layouts_pad_and_count() {
        let mut form = form(Format::NvFp4, false, 0);
        assert_eq!(form.bytes(), 300 * 35 + 300 * 5 + 4);
        form.layout = ScaleLayout::Tiled128x4;
        assert_eq!(form.scale_shape(), Some([384, 8]));
        form.layout = ScaleLayout::ColumnMajor;
        assert_eq!(form.scale_shape(), Some([5, 300]));
    }
}
