//! Operands and their values.

use rayon::prelude::*;

use super::{Groups, expect, group_of};
use crate::quant::{Block, ScaleLayout};
use crate::reference::Floats;
use crate::{E4m3, E5m2, E8m0, Error};

/// The elements of an operand.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// bf16, f16, or what a test likes.
    Floats(Floats<'a>),
    /// E4M3.
    E4m3(&'a [E4m3]),
    /// E5M2.
    E5m2(&'a [E5m2]),
}

impl Elements<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::E4m3(values) => values.len(),
            Self::E5m2(values) => values.len(),
        }
    }

    /// Elements `start..end`, which are within, widened.
    fn widen(&self, start: usize, end: usize) -> Vec<f64> {
        let exact = |values: &mut dyn Iterator<Item = f32>| values.map(f64::from).collect();
        match self {
            Self::Floats(values) => values.widen(start, end),
            Self::E4m3(values) => exact(&mut values[start..end].iter().map(|v| v.to_f32())),
            Self::E5m2(values) => exact(&mut values[start..end].iter().map(|v| v.to_f32())),
        }
    }
}

/// The scales of an operand.
#[derive(Clone, Copy, Debug)]
pub enum Scales<'a> {
    /// f32.
    F32(&'a [f32]),
    /// Powers of two.
    E8m0(&'a [E8m0]),
}

impl Scales<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(scales) => scales.len(),
            Self::E8m0(scales) => scales.len(),
        }
    }

    fn at(&self, index: usize) -> f64 {
        match self {
            Self::F32(scales) => scales[index].into(),
            Self::E8m0(scales) => scales[index].to_f32().into(),
        }
    }
}

/// Which scale belongs to which element.
///
/// A block of the contraction begins anew with each group of the contraction that the operand was
/// quantised in, and a block of rows with each group of rows: block b of the group that starts at s has
/// slot floor(s / B) + g + b (`QuantizedForm::scale_grid`).
#[derive(Clone, Copy, Debug)]
pub struct Scaling<'a> {
    /// In memory, in their layout.
    pub scales: Scales<'a>,
    /// The elements of one scale: `[rows, k]`.
    pub block: Block,
    /// Scales along the rows and along the contraction; where a block is of all of the contraction,
    /// one or one of each group.
    pub grid: [usize; 2],
    /// Row-major or column-major.
    pub layout: ScaleLayout,
    /// Groups that it was quantised in, 0 for none.
    pub groups: usize,
}

/// One operand, `[rows, columns]` with the contraction along memory.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    elements: Elements<'a>,
    rows: usize,
    columns: usize,
    stride: usize,
    scaling: Option<Scaling<'a>>,
}

impl<'a> Operand<'a> {
    /// Rows of `columns` elements that begin `stride` elements apart.
    ///
    /// # Errors
    /// [`Error::Argument`] for fewer elements than that.
    pub fn new(
        elements: Elements<'a>,
        [rows, columns]: [usize; 2],
        stride: usize,
    ) -> Result<Self, Error> {
        let span = rows
            .checked_sub(1)
            .map_or(0, |rows| rows * stride + columns);
        let fits = elements.len() >= span && stride >= columns;
        expect("elements", fits, format!("{span} of them"), elements.len())?;
        Ok(Self {
            elements,
            rows,
            columns,
            stride,
            scaling: None,
        })
    }

    /// With scales.
    ///
    /// # Errors
    /// [`Error::Argument`] for another number of scales than the grid has.
    pub fn scaled(mut self, scaling: Scaling<'a>) -> Result<Self, Error> {
        let [rows, columns] = scaling.layout.shape(scaling.grid);
        let fits = scaling.scales.len() == rows * columns;
        expect(
            "scales",
            fits,
            format!("{:?}", scaling.grid),
            scaling.scales.len(),
        )?;
        self.scaling = Some(scaling);
        Ok(self)
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Element x scale, side by side. `n` is there for b: rows of one group.
    pub(super) fn values(&self, groups: &Groups, n: Option<usize>) -> Result<Vec<f64>, Error> {
        if let Some(scaling) = &self.scaling {
            let [rows, columns] = self.last_slot(scaling, groups, n);
            let fits = rows <= scaling.grid[0] && columns <= scaling.grid[1];
            let expected = format!("a grid of {rows} x {columns} at least");
            expect("scales", fits, expected, format!("{:?}", scaling.grid))?;
        }
        let rows: Vec<Vec<f64>> = (0..self.rows)
            .into_par_iter()
            .map(|row| {
                let start = row * self.stride;
                let mut values = self.elements.widen(start, start + self.columns);
                if let Some(scaling) = &self.scaling {
                    scale_row(scaling, row, groups, n, &mut values);
                }
                values
            })
            .collect();
        Ok(rows.concat())
    }

    /// One past the largest slots that elements of products have.
    fn last_slot(&self, scaling: &Scaling, groups: &Groups, n: Option<usize>) -> [usize; 2] {
        let row_slots = (0..self.rows).map(|row| row_slot(scaling, row, groups, n) + 1);
        let rows = row_slots.max().unwrap_or(0);
        if scaling.block.columns == Block::WHOLE {
            let columns = if scaling.grid[1] > 1 {
                groups.ranges().len()
            } else {
                1
            };
            return [rows, columns];
        }
        let columns = match groups {
            Groups::Contraction(ranges) => ranges
                .iter()
                .filter(|range| !range.is_empty())
                .map(|range| column_slot(scaling, range.end - 1, groups) + 1)
                .max()
                .unwrap_or(0),
            Groups::One | Groups::Rows(_) => self.columns.div_ceil(scaling.block.columns),
        };
        [rows, columns]
    }
}

/// Where along the rows the scale of an element of this row lies.
fn row_slot(scaling: &Scaling, row: usize, groups: &Groups, n: Option<usize>) -> usize {
    match (scaling.block.rows, groups, n) {
        (Block::WHOLE, ..) => 0,
        (1, ..) => row,
        (block, Groups::Rows(_), Some(n)) if scaling.groups > 0 => {
            let group = row / n.max(1);
            group * n / block + group + (row - group * n) / block
        }
        (block, ..) => row / block,
    }
}

/// Where along the contraction the scale of element k lies, of blocks of the contraction.
fn column_slot(scaling: &Scaling, k: usize, groups: &Groups) -> usize {
    let block = scaling.block.columns;
    match groups {
        Groups::Contraction(ranges) if scaling.groups > 0 => {
            let group = group_of(ranges, k);
            let start = ranges.get(group).map_or(k, |range| range.start.min(k));
            start / block + group + (k - start) / block
        }
        _ => k / block,
    }
}

fn scale_row(scaling: &Scaling, row: usize, groups: &Groups, n: Option<usize>, values: &mut [f64]) {
    let slot = row_slot(scaling, row, groups, n);
    let at = |column: usize| {
        let offset = scaling.layout.offset(scaling.grid, slot, column);
        scaling.scales.at(offset)
    };
    if scaling.block.columns != Block::WHOLE {
        let whole = 0..values.len();
        // Elements of no group are in no product.
        let groups_of_k = match groups {
            Groups::Contraction(ranges) => *ranges,
            Groups::One | Groups::Rows(_) => std::slice::from_ref(&whole),
        };
        for range in groups_of_k {
            for k in range.clone() {
                values[k] *= at(column_slot(scaling, k, groups));
            }
        }
        return;
    }
    match groups {
        // A scale of each group of the contraction.
        Groups::Contraction(ranges) if scaling.grid[1] > 1 => {
            for (group, range) in ranges.iter().enumerate() {
                values[range.clone()]
                    .iter_mut()
                    .for_each(|value| *value *= at(group));
            }
        }
        // A scale of each group of rows.
        Groups::Rows(ranges) if scaling.grid[1] > 1 => {
            let group = match n {
                Some(n) => row / n.max(1),
                None => group_of(ranges, row),
            };
            if group < ranges.len() {
                values.iter_mut().for_each(|value| *value *= at(group));
            }
        }
        _ => values.iter_mut().for_each(|value| *value *= at(0)),
    }
}
