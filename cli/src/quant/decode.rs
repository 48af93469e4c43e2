//! Stored elements and scales as numbers, by the texts of the formats and in double precision: what
//! the properties that do not lean on the reference are told by.

use evenkeel::quant::{Format, Fp8, ScaleLayout};
use evenkeel::reference::quant::Direction;

use super::outcome::Stored;
use super::problem::{Problem, Wanted};

/// A code with so many bits of exponent and fraction below its sign, of such a bias; no special codes.
fn float(code: u8, exponent_bits: u32, fraction_bits: u32, bias: i32) -> f64 {
    let fraction = u32::from(code) & ((1 << fraction_bits) - 1);
    let exponent = u32::from(code) >> fraction_bits & ((1 << exponent_bits) - 1);
    let negative = u32::from(code) >> (exponent_bits + fraction_bits) & 1 == 1;
    let (significand, exponent) = match exponent {
        0 => (fraction, 1),
        _ => (fraction + (1 << fraction_bits), exponent as i32),
    };
    let size = f64::from(significand) * 2.0_f64.powi(exponent - bias - fraction_bits as i32);
    if negative { -size } else { size }
}

/// E4M3 of OFP8: no infinity, one NaN of each sign.
#[must_use]
pub fn e4m3(code: u8) -> f64 {
    match code & 0x7f {
        0x7f => f64::NAN,
        _ => float(code, 4, 3, 7),
    }
}

/// E5M2 of OFP8, as IEEE 754 would have it.
#[must_use]
pub fn e5m2(code: u8) -> f64 {
    match code & 0x7f {
        0x7c if code & 0x80 == 0 => f64::INFINITY,
        0x7c => f64::NEG_INFINITY,
        0x7d.. => f64::NAN,
        _ => float(code, 5, 2, 15),
    }
}

/// E2M1 of MX.
#[must_use]
pub fn e2m1(code: u8) -> f64 {
    float(code & 0xf, 2, 1, 1)
}

/// E8M0 of MX.
#[must_use]
pub fn e8m0(code: u8) -> f64 {
    match code {
        0xff => f64::NAN,
        _ => 2.0_f64.powi(i32::from(code) - 127),
    }
}

/// The value of an element's code.
#[must_use]
pub fn element(format: Format, code: u8) -> f64 {
    match format.fp8() {
        Some(Fp8::E4m3) => e4m3(code),
        Some(Fp8::E5m2) => e5m2(code),
        None => e2m1(code),
    }
}

/// The distance of neighbouring elements at `u`; of the subnormal ones below them.
#[must_use]
pub fn step(format: Format, u: f64) -> f64 {
    let (fraction, smallest) = match format.fp8() {
        Some(Fp8::E4m3) => (3, -6),
        Some(Fp8::E5m2) => (2, -14),
        None => (1, 0),
    };
    let magnitude = u.abs();
    let exponent = if magnitude > 0.0 && magnitude.is_finite() {
        magnitude.log2().floor() as i32
    } else {
        smallest
    };
    // The logarithm of what is just below a power of two may round up to it.
    let exponent = if 2.0_f64.powi(exponent) > magnitude {
        exponent - 1
    } else {
        exponent
    };
    2.0_f64.powi(exponent.max(smallest) - fraction)
}

/// Where in memory a scale lies, of `[rows, blocks]`.
#[must_use]
pub fn scale_place(
    layout: ScaleLayout,
    [rows, blocks]: [usize; 2],
    row: usize,
    block: usize,
) -> usize {
    match layout {
        ScaleLayout::ColumnMajor => block * rows + row,
        ScaleLayout::Tiled128x4 => {
            let tiles_before = (row / 128) * blocks.div_ceil(4) + block / 4;
            let (row, block) = (row % 128, block % 4);
            512 * tiles_before + 16 * (row % 32) + 4 * (row / 32) + block
        }
        _ => row * blocks + block,
    }
}

/// An output as numbers.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Rows of the output.
    pub outer: usize,
    /// Elements of a row.
    pub inner: usize,
    /// Codes of the elements.
    pub codes: Vec<u8>,
    /// The elements, row by row.
    pub elements: Vec<f64>,
    /// What each of them is multiplied by.
    pub scales: Vec<f64>,
    /// The scale of its row or block alone, without the tensor's.
    pub block_scales: Vec<f64>,
    /// Which scale that is: its place in memory, or the group's index where the format has no others.
    pub keys: Vec<usize>,
}

impl Decoded {
    /// An output of a problem.
    #[must_use]
    pub fn new(problem: &Problem, wanted: &Wanted, stored: &Stored) -> Self {
        let format = problem.case.options.format;
        let (rows, columns) = (problem.case.rows, problem.case.columns);
        let [outer, inner] = wanted.direction.orient([rows, columns]);
        let codes: Vec<u8> = (0..outer * inner)
            .map(|at| {
                let (row, column) = (at / inner, at % inner);
                match format.fp8() {
                    Some(_) => stored.data.row(row)[column],
                    None => stored.data.row(row)[column / 2] >> (4 * (column % 2)) & 0xf,
                }
            })
            .collect();
        let scales = Scales::new(problem, wanted, stored);
        let keys: Vec<usize> = (0..outer * inner)
            .map(|at| scales.place(at / inner, at % inner))
            .collect();
        Self {
            outer,
            inner,
            elements: codes.iter().map(|&code| element(format, code)).collect(),
            scales: (0..outer * inner)
                .map(|at| scales.value(keys[at], scales.group_of(at / inner, at % inner)))
                .collect(),
            block_scales: keys
                .iter()
                .map(|&key| scales.blocks.get(key).copied().unwrap_or(1.0))
                .collect(),
            codes,
            keys,
        }
    }

    /// The values, exact.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        let both = self.elements.iter().zip(&self.scales);
        both.map(|(element, scale)| element * scale).collect()
    }

    /// Where the element of a row and column of X lies.
    #[must_use]
    pub fn at(&self, direction: Direction, row: usize, column: usize) -> usize {
        match direction {
            Direction::RowWise => row * self.inner + column,
            Direction::Transposed => column * self.inner + row,
        }
    }
}

/// The scales of an output.
struct Scales<'a> {
    problem: &'a Problem,
    wanted: &'a Wanted,
    shape: [usize; 2],
    blocks: Vec<f64>,
    tensor: Vec<f32>,
}

impl<'a> Scales<'a> {
    fn new(problem: &'a Problem, wanted: &'a Wanted, stored: &Stored) -> Self {
        let format = problem.case.options.format;
        let blocks = stored.scales.as_ref().map(|scales| {
            if format.has_f32_scales() {
                return scales.floats().into_iter().map(f64::from).collect();
            }
            let value = if format.has_tensor_scale() {
                e4m3
            } else {
                e8m0
            };
            scales.bytes.iter().map(|&code| value(code)).collect()
        });
        let tensor = stored.tensor_scale.as_ref().map(|scale| scale.floats());
        Self {
            problem,
            wanted,
            shape: problem.scale_shape(wanted.direction),
            blocks: blocks.unwrap_or_default(),
            tensor: tensor.unwrap_or_default(),
        }
    }

    /// The group of a row of X, and the first row of it.
    fn group(&self, row: usize) -> (usize, usize) {
        let Some(groups) = &self.problem.groups else {
            return (0, 0);
        };
        // Of groups that begin at one row the last is the one that is not empty.
        let group = groups[..groups.len() - 1].partition_point(|&start| start as usize <= row) - 1;
        (group, groups[group] as usize)
    }

    /// The slot of a row of X among blocks of so many rows, none of which crosses a group.
    fn slot(&self, row: usize, size: usize) -> usize {
        let (group, start) = self.group(row);
        start / size + group + (row - start) / size
    }

    /// The group of an element of the output.
    fn group_of(&self, outer: usize, inner: usize) -> usize {
        self.group(self.wanted.direction.orient([outer, inner])[0])
            .0
    }

    /// Where the scale of an element of the output lies; its group where there are no others.
    fn place(&self, outer: usize, inner: usize) -> usize {
        let format = self.problem.case.options.format;
        let block = format.block();
        let [row, column] = self.wanted.direction.orient([outer, inner]);
        let [at, along] = match (format, self.wanted.direction) {
            (Format::Fp8Tensor(_), _) => return self.group(row).0,
            (Format::Fp8Row(_), Direction::RowWise) => [row, 0],
            (Format::Fp8Row(_), Direction::Transposed) => [column, self.group(row).0],
            (Format::Fp8Block128x128(_), Direction::RowWise) => [self.slot(row, 128), column / 128],
            (Format::Fp8Block128x128(_), Direction::Transposed) => {
                [column / 128, self.slot(row, 128)]
            }
            (_, Direction::RowWise) => [row, column / block.columns],
            (_, Direction::Transposed) => [column, self.slot(row, block.columns)],
        };
        scale_place(self.wanted.output.options.layout, self.shape, at, along)
    }

    /// What elements of a scale and a group are multiplied by.
    fn value(&self, key: usize, group: usize) -> f64 {
        let Some(&scale) = self.blocks.get(key) else {
            return self
                .tensor
                .get(group)
                .map_or(f64::NAN, |&scale| scale.into());
        };
        match self.tensor.get(group) {
            Some(&tensor) => f64::from((scale * f64::from(tensor)) as f32),
            None => scale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_texts_say() {
        assert_eq!(
            [e4m3(0x7e), e4m3(0x01), e4m3(0x88)],
            [448.0, 2.0_f64.powi(-9), -2.0_f64.powi(-6)]
        );
        assert_eq!(
            [e5m2(0x7b), e5m2(0x01), e5m2(0xfc)],
            [57344.0, 2.0_f64.powi(-16), f64::NEG_INFINITY]
        );
        let positive: Vec<f64> = (0..8).map(e2m1).collect();
        assert_eq!(positive, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert_eq!(
            [e2m1(9), e8m0(0), e8m0(254)],
            [-0.5, 2.0_f64.powi(-127), 2.0_f64.powi(127)]
        );
        assert!(e4m3(0xff).is_nan() && e5m2(0x7d).is_nan() && e8m0(0xff).is_nan());
    }

    #[test]
    fn steps_are_the_distances_of_neighbours() {
        for format in [
            Format::MxFp8(Fp8::E4m3),
            Format::MxFp8(Fp8::E5m2),
            Format::MxFp4,
        ] {
            let largest = f64::from(format.largest());
            for code in 0..if format.fp8().is_some() { 0x7e } else { 7 } {
                let (low, high) = (element(format, code), element(format, code + 1));
                if high <= largest {
                    assert_eq!(step(format, low), high - low, "{format} {code}");
                    assert_eq!(
                        step(format, high.next_down()),
                        high - low,
                        "{format} {code}"
                    );
                }
            }
        }
    }
}
