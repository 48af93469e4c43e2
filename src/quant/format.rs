//! Which elements and scales a quantised tensor has, and where its scales lie.

use std::fmt;
use std::str::FromStr;

use super::options::one_of;
use crate::dtype::low_bit::Grid;
use crate::text::string_form;
use crate::{DType, Error};

/// The 8-bit element of an FP8 format.
///
/// Written and parsed as `e4m3` and `e5m2`; the same text is its serde form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub enum Fp8 {
    /// Up to 448, with 3 bits of fraction: activations and weights.
    E4m3,
    /// Up to 57344, with 2 bits of fraction: gradients.
    E5m2,
}

impl Fp8 {
    /// Both.
    pub const ALL: [Self; 2] = [Self::E4m3, Self::E5m2];
}

impl fmt::Display for Fp8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::E4m3 => "e4m3",
            Self::E5m2 => "e5m2",
        })
    }
}

impl FromStr for Fp8 {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        one_of(&Self::ALL, "element", text)
    }
}

/// The elements of one scale: a rectangle of a tensor `[outer, inner]`, cut off at its edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// Along the outer dimension; [`Block::WHOLE`] for all of it.
    pub rows: usize,
    /// Along the inner dimension, in which elements lie side by side; [`Block::WHOLE`] for all.
    pub columns: usize,
}

impl Block {
    /// The whole extent, whatever it is.
    pub const WHOLE: usize = usize::MAX;

    /// Blocks of so many rows and columns.
    pub(crate) const fn new(rows: usize, columns: usize) -> Self {
        Self { rows, columns }
    }
}

/// How a tensor of `[outer, inner]` is stored in 8 or 4 bits an element.
///
/// value = element x scale; with the two scales of NVFP4, element x RN(block scale x tensor scale),
/// RN rounding to f32. Scales are those that decode.
///
/// | | element | scale | of | stored as |
/// |---|---|---|---|---|
/// | `fp8-tensor` | FP8 | f32 | the tensor, or each group | `[1]`, `[groups]` |
/// | `fp8-row` | FP8 | f32 | 1 x inner | `[outer, 1]` |
/// | `fp8-1x128` | FP8 | f32 | 1 x 128 | `[outer, ceil(inner/128)]` |
/// | `fp8-128x128` | FP8 | f32 | 128 x 128 | `[ceil(outer/128), ceil(inner/128)]` |
/// | `mxfp8` | FP8 | E8M0 | 1 x 32 | `[outer, ceil(inner/32)]` |
/// | `mxfp4` | E2M1 | E8M0 | 1 x 32 | `[outer, ceil(inner/32)]` |
/// | `nvfp4` | E2M1 | E4M3, and f32 of the tensor | 1 x 16 | `[outer, ceil(inner/16)]`, and `[1]` or `[groups]` |
/// | `nvfp4-16x16` | E2M1 | E4M3, and f32 of the tensor | 16 x 16 | as `nvfp4`: 16 rows repeat their scale |
///
/// Written and parsed as `NAME` or, for an FP8 element, `NAME:e4m3` and `NAME:e5m2`; the same text
/// is its serde form.
///
/// ```
/// use evenkeel::DType;
/// use evenkeel::quant::{Format, Fp8};
///
/// let format: Format = "mxfp8:e5m2".parse()?;
/// assert_eq!(format, Format::MxFp8(Fp8::E5m2));
/// assert_eq!(format.scale_dtype(), DType::E8m0);
/// assert_eq!(format.scale_shape(64, 100), [64, 4]);
/// assert_eq!(Format::NvFp4.data_shape(64, 100), [64, 50]);
/// # Ok::<(), evenkeel::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum Format {
    /// One scale for the tensor.
    Fp8Tensor(Fp8),
    /// A scale for each row.
    Fp8Row(Fp8),
    /// A scale for 128 elements of a row: activations and gradients (arXiv 2412.19437).
    Fp8Block1x128(Fp8),
    /// A scale for 128 x 128 elements: weights (arXiv 2412.19437).
    Fp8Block128x128(Fp8),
    /// MX: a power of two for 32 elements of a row (OCP MX v1.0).
    MxFp8(Fp8),
    /// MX with 4-bit elements.
    MxFp4,
    /// NVFP4: an 8-bit scale for 16 elements of a row, below one for the tensor.
    NvFp4,
    /// The same with blocks of 16 x 16, so that a weight and its transpose have one scale.
    NvFp4Square,
}

impl Format {
    /// Every format, for those who test or list them.
    pub const ALL: [Self; 13] = [
        Self::Fp8Tensor(Fp8::E4m3),
        Self::Fp8Tensor(Fp8::E5m2),
        Self::Fp8Row(Fp8::E4m3),
        Self::Fp8Row(Fp8::E5m2),
        Self::Fp8Block1x128(Fp8::E4m3),
        Self::Fp8Block1x128(Fp8::E5m2),
        Self::Fp8Block128x128(Fp8::E4m3),
        Self::Fp8Block128x128(Fp8::E5m2),
        Self::MxFp8(Fp8::E4m3),
        Self::MxFp8(Fp8::E5m2),
        Self::MxFp4,
        Self::NvFp4,
        Self::NvFp4Square,
    ];

    /// The FP8 element; `None` where elements are E2M1.
    #[must_use]
    pub const fn fp8(self) -> Option<Fp8> {
        match self {
            Self::Fp8Tensor(element)
            | Self::Fp8Row(element)
            | Self::Fp8Block1x128(element)
            | Self::Fp8Block128x128(element)
            | Self::MxFp8(element) => Some(element),
            Self::MxFp4 | Self::NvFp4 | Self::NvFp4Square => None,
        }
    }

    /// Bits of an element: 8 or 4.
    #[must_use]
    pub const fn element_bits(self) -> usize {
        match self.fp8() {
            Some(_) => 8,
            None => 4,
        }
    }

    pub(crate) const fn grid(self) -> Grid {
        match self.fp8() {
            Some(Fp8::E4m3) => Grid::E4M3,
            Some(Fp8::E5m2) => Grid::E5M2,
            None => Grid::E2M1,
        }
    }

    /// The largest finite element: 448, 57344 or 6.
    #[must_use]
    pub fn largest(self) -> f32 {
        self.grid().largest_value()
    }

    /// The exponent of the largest element's power of two: 8, 15 or 2.
    #[must_use]
    pub const fn largest_exponent(self) -> i32 {
        match self.fp8() {
            Some(Fp8::E4m3) => 8,
            Some(Fp8::E5m2) => 15,
            None => 2,
        }
    }

    /// The type that elements are stored as: `E4m3`, `E5m2`, or `E2m1x2` with two a byte.
    #[must_use]
    pub const fn data_dtype(self) -> DType {
        match self.fp8() {
            Some(Fp8::E4m3) => DType::E4m3,
            Some(Fp8::E5m2) => DType::E5m2,
            None => DType::E2m1x2,
        }
    }

    /// The shape of the stored elements of `[outer, inner]`, in bytes. With two a byte and an odd
    /// inner dimension, the last four bits of a row are 0.
    #[must_use]
    pub const fn data_shape(self, outer: usize, inner: usize) -> [usize; 2] {
        [outer, (inner * self.element_bits()).div_ceil(8)]
    }

    /// What one scale is for.
    #[must_use]
    pub const fn block(self) -> Block {
        match self {
            Self::Fp8Tensor(_) => Block::new(Block::WHOLE, Block::WHOLE),
            Self::Fp8Row(_) => Block::new(1, Block::WHOLE),
            Self::Fp8Block1x128(_) => Block::new(1, 128),
            Self::Fp8Block128x128(_) => Block::new(128, 128),
            Self::MxFp8(_) | Self::MxFp4 => Block::new(1, 32),
            Self::NvFp4 => Block::new(1, 16),
            Self::NvFp4Square => Block::new(16, 16),
        }
    }

    /// The type of the scales of blocks: `F32`, `E8m0` or `E4m3`.
    #[must_use]
    pub const fn scale_dtype(self) -> DType {
        match self {
            Self::MxFp8(_) | Self::MxFp4 => DType::E8m0,
            Self::NvFp4 | Self::NvFp4Square => DType::E4m3,
            _ => DType::F32,
        }
    }

    /// The shape of the scales of `[outer, inner]` without groups, before any [`ScaleLayout`]. That
    /// of `fp8-tensor` is `[1]`, here `[1, 1]`.
    #[must_use]
    pub const fn scale_shape(self, outer: usize, inner: usize) -> [usize; 2] {
        match self {
            Self::Fp8Tensor(_) => [1, 1],
            Self::Fp8Row(_) => [outer, 1],
            Self::Fp8Block128x128(_) => [outer.div_ceil(128), inner.div_ceil(128)],
            _ => [outer, inner.div_ceil(self.block().columns)],
        }
    }

    /// Whether a second scale, f32 of the whole tensor or group, goes with those of the blocks.
    #[must_use]
    pub const fn has_tensor_scale(self) -> bool {
        matches!(self, Self::NvFp4 | Self::NvFp4Square)
    }

    /// Whether a scale depends on the amax of the whole tensor or group: it can be given, and is
    /// found by a read of its own where it is not.
    #[must_use]
    pub const fn needs_tensor_amax(self) -> bool {
        matches!(self, Self::Fp8Tensor(_) | Self::NvFp4 | Self::NvFp4Square)
    }

    /// Whether scales are f32, which may be held to powers of two.
    #[must_use]
    pub const fn has_f32_scales(self) -> bool {
        matches!(self.scale_dtype(), DType::F32)
    }

    /// Whether blocks are squares, so that a tensor and its transpose have the same scales.
    #[must_use]
    pub const fn is_square(self) -> bool {
        let block = self.block();
        block.rows == block.columns
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Fp8Tensor(_) => "fp8-tensor",
            Self::Fp8Row(_) => "fp8-row",
            Self::Fp8Block1x128(_) => "fp8-1x128",
            Self::Fp8Block128x128(_) => "fp8-128x128",
            Self::MxFp8(_) => "mxfp8",
            Self::MxFp4 => "mxfp4",
            Self::NvFp4 => "nvfp4",
            Self::NvFp4Square => "nvfp4-16x16",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fp8() {
            Some(element) => f.pad(&format!("{}:{element}", self.name())),
            None => f.pad(self.name()),
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        one_of(&Self::ALL, "format", text)
    }
}

/// Where the scales of `[rows, blocks]` lie in memory: `blocks` are those along the inner dimension,
/// `rows` those along the outer one.
///
/// Written and parsed as `row-major`, `column-major` and `tiled-128x4`; the same text is its serde
/// form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
#[non_exhaustive]
pub enum ScaleLayout {
    /// `[rows, blocks]`.
    #[default]
    RowMajor,
    /// `[blocks, rows]`, of which a bulk copy loads the scales of many rows at once.
    ColumnMajor,
    /// `[128 ceil(rows/128), 4 ceil(blocks/4)]` bytes in tiles of 128 x 4, as block-scaled tensor
    /// cores load them: tiles in row-major order, scale (r, c) of a tile at byte
    /// (r mod 32) 16 + floor(r/32) 4 + c, padding 0. Of scales of one byte alone.
    Tiled128x4,
}

impl ScaleLayout {
    /// Every layout.
    pub const ALL: [Self; 3] = [Self::RowMajor, Self::ColumnMajor, Self::Tiled128x4];

    /// The shape in memory of the scales of `[rows, blocks]`.
    #[must_use]
    pub const fn shape(self, [rows, blocks]: [usize; 2]) -> [usize; 2] {
        match self {
            Self::RowMajor => [rows, blocks],
            Self::ColumnMajor => [blocks, rows],
            Self::Tiled128x4 => [rows.next_multiple_of(128), blocks.next_multiple_of(4)],
        }
    }

    /// Where in memory the scale of row `row` and block `block` of `[rows, blocks]` lies, counted
    /// in scales.
    #[must_use]
    pub const fn offset(self, [rows, blocks]: [usize; 2], row: usize, block: usize) -> usize {
        match self {
            Self::RowMajor => row * blocks + block,
            Self::ColumnMajor => block * rows + row,
            Self::Tiled128x4 => {
                let tile = row / 128 * blocks.div_ceil(4) + block / 4;
                tile * 512 + row % 32 * 16 + row % 128 / 32 * 4 + block % 4
            }
        }
    }

    /// Whether scales of this format may lie so.
    #[must_use]
    pub const fn fits(self, format: Format) -> bool {
        !matches!(self, Self::Tiled128x4) || format.scale_dtype().size() == 1
    }
}

impl fmt::Display for ScaleLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RowMajor => "row-major",
            Self::ColumnMajor => "column-major",
            Self::Tiled128x4 => "tiled-128x4",
        })
    }
}

impl FromStr for ScaleLayout {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        one_of(&Self::ALL, "layout", text)
    }
}

string_form!(Fp8, Format, ScaleLayout);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        for layout in ScaleLayout::ALL {
            assert_eq!(layout.to_string().parse(), Ok(layout));
        }
        assert_eq!(Format::Fp8Row(Fp8::E5m2).to_string(), "fp8-row:e5m2");
        assert_eq!("nvfp4-16x16".parse(), Ok(Format::NvFp4Square));
        for text in ["", "mxfp8", "mxfp4:e4m3", "fp8-row:e3m4", "NVFP4"] {
            let message = text.parse::<Format>().unwrap_err().to_string();
            assert!(message.contains("fp8-1x128:e4m3"), "{message}");
        }
    }

    #[test]
    fn properties_agree_with_each_other() {
        for format in Format::ALL {
            let exponent = format.largest().log2().floor() as i32;
            assert_eq!(exponent, format.largest_exponent(), "{format}");
            assert_eq!(format.data_dtype().size(), 1);
            let block = format.block();
            let [rows, blocks] = format.scale_shape(300, 300);
            assert_eq!(blocks, 300_usize.div_ceil(block.columns), "{format}");
            let repeats = format == Format::NvFp4Square;
            let expected = if repeats {
                300
            } else {
                300_usize.div_ceil(block.rows)
            };
            assert_eq!(rows, expected, "{format}");
        }
        assert_eq!(Format::MxFp4.data_shape(3, 5), [3, 3]);
    }

    #[test]
    fn layouts_hold_each_scale_once() {
        for layout in ScaleLayout::ALL {
            for shape in [[1, 1], [130, 9], [256, 4], [31, 5]] {
                let [height, width] = layout.shape(shape);
                let mut seen = vec![false; height * width];
                for row in 0..shape[0] {
                    for block in 0..shape[1] {
                        let at = layout.offset(shape, row, block);
                        assert!(
                            !std::mem::replace(&mut seen[at], true),
                            "{layout} {shape:?}"
                        );
                    }
                }
            }
        }
        // The second tile of the second row of tiles, 33 rows and 2 blocks in.
        assert_eq!(
            ScaleLayout::Tiled128x4.offset([300, 9], 128 + 33, 4 + 2),
            (3 + 1) * 512 + 16 + 4 + 2
        );
    }
}
