//! Where blocks begin and end, and the slots that their scales have.

use std::ops::Range;

use crate::quant::{Block, Format};
use crate::reference::Indices;
use crate::{DType, Error, Status};

/// Which way the elements of an input `[rows, columns]` lie in an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `[rows, columns]`, blocks along the columns.
    RowWise,
    /// `[columns, rows]`, blocks along the rows.
    Transposed,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::RowWise, Self::Transposed];

    /// (outer, inner) of an output of `[rows, columns]`; the same function leads back.
    #[must_use]
    pub const fn orient(self, [rows, columns]: [usize; 2]) -> [usize; 2] {
        match self {
            Self::RowWise => [rows, columns],
            Self::Transposed => [columns, rows],
        }
    }
}

/// The shape of the scales of an input `[rows, columns]`, before any layout.
///
/// Without groups that is [`Format::scale_shape`] of (outer, inner). Where blocks have more than one
/// row of the input and rows are in groups, block b of the group that starts at row s and has index g
/// has slot floor(s/B) + g + b of floor(rows/B) + groups, and transposed `fp8-row` has
/// `[columns, groups]`. `fp8-tensor` has no scales but its tensor's: `[0, 0]`.
#[must_use]
pub fn scale_shape(
    format: Format,
    direction: Direction,
    [rows, columns]: [usize; 2],
    groups: Option<usize>,
) -> [usize; 2] {
    let [outer, inner] = direction.orient([rows, columns]);
    if let Format::Fp8Tensor(_) = format {
        return [0, 0];
    }
    let shape = format.scale_shape(outer, inner);
    let Some(groups) = groups else { return shape };
    let slots = |size: usize| match size {
        Block::WHOLE => groups,
        size => rows / size + groups,
    };
    match direction {
        Direction::Transposed => [shape[0], slots(format.block().columns)],
        // The 16 rows of a block of nvfp4-16x16 repeat its scale: they need no slots.
        Direction::RowWise if matches!(format, Format::Fp8Block128x128(_)) => {
            [slots(format.block().rows), shape[1]]
        }
        Direction::RowWise => shape,
    }
}

/// Rows of the input that are quantised together: a group's, or all.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub index: usize,
    /// Empty where the group has nothing to quantise.
    pub rows: Range<usize>,
}

/// The groups of `rows` rows, and what is wrong with their offsets: then none has rows.
pub(super) fn groups(offsets: Option<Indices>, rows: usize) -> Result<(Vec<Group>, Status), Error> {
    let Some(offsets) = offsets else {
        let rows = 0..rows;
        return Ok((vec![Group { index: 0, rows }], Status::empty()));
    };
    let Some(count) = offsets.len().checked_sub(1) else {
        return Err(Error::argument(
            "reference::quant",
            "groups",
            "one offset more than there are groups",
            "no offsets",
        ));
    };
    let at = |index| {
        usize::try_from(offsets.at(index))
            .ok()
            .filter(|at| *at <= rows)
    };
    let ranges: Option<Vec<Range<usize>>> = (0..count)
        .map(|index| {
            let range = at(index)?..at(index + 1)?;
            (range.start <= range.end).then_some(range)
        })
        .collect();
    let status = match ranges {
        Some(_) => Status::empty(),
        None => Status::BAD_GROUP_OFFSETS,
    };
    let ranges = ranges.unwrap_or_else(|| vec![0..0; count]);
    let groups = ranges
        .into_iter()
        .enumerate()
        .map(|(index, rows)| Group { index, rows })
        .collect();
    Ok((groups, status))
}

/// A stretch of one dimension of an output that shares scales along it.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub range: Range<usize>,
    /// Where its scale lies along this dimension.
    pub slot: usize,
    /// The group it belongs to, if this dimension has the groups.
    pub group: usize,
}

/// The spans of an output's two dimensions.
pub(super) struct Spans {
    pub outer: Vec<Span>,
    pub inner: Vec<Span>,
}

impl Spans {
    pub fn new(
        format: Format,
        direction: Direction,
        [rows, columns]: [usize; 2],
        groups: &[Group],
        grouped: bool,
    ) -> Self {
        let block = format.block();
        // A tensor's one scale is known before any element is written: its rows need not meet.
        let block_rows = if block.rows == Block::WHOLE {
            1
        } else {
            block.rows
        };
        let along_rows = |size: usize| {
            let mut spans = Vec::new();
            for group in groups {
                let start = group.rows.start;
                for (index, from) in starts(group.rows.clone(), size).enumerate() {
                    let slot = match (size, grouped) {
                        (1, _) => from,
                        (Block::WHOLE, _) => group.index,
                        (_, false) => index,
                        (_, true) => start / size + group.index + index,
                    };
                    spans.push(Span {
                        range: from..from.saturating_add(size).min(group.rows.end),
                        slot,
                        group: group.index,
                    });
                }
            }
            spans
        };
        let along_columns = |size: usize| {
            let starts = starts(0..columns, size).enumerate();
            let spans = starts.map(|(slot, from)| Span {
                range: from..from.saturating_add(size).min(columns),
                slot,
                group: 0,
            });
            spans.collect()
        };
        debug_assert!(groups.iter().all(|group| group.rows.end <= rows));
        match direction {
            Direction::RowWise => Self {
                outer: along_rows(block_rows),
                inner: along_columns(block.columns),
            },
            Direction::Transposed => Self {
                outer: along_columns(block_rows),
                inner: along_rows(block.columns),
            },
        }
    }
}

/// 0, size, 2 size, .. within a range.
fn starts(range: Range<usize>, size: usize) -> impl Iterator<Item = usize> {
    let step = size.min(range.len().max(1));
    range.step_by(step)
}

/// Whether the scale of a block is written for each of its rows.
pub(super) fn repeats(format: Format) -> bool {
    matches!(format, Format::NvFp4Square)
}

/// Whether scales are bytes.
pub(super) fn byte_scales(format: Format) -> bool {
    format.scale_dtype() != DType::F32
}

/// Takes from a transposed output the groups that it cannot hold, and tells of those and of rotations
/// that are cut off.
///
/// With two elements a byte, a group that starts inside a byte is left out; a rotation's last block
/// that has not n rows is 0.
pub(super) fn fit_transposed(
    format: Format,
    rotation: Option<usize>,
    groups: &mut [Group],
) -> Status {
    let mut status = Status::empty();
    for group in groups.iter_mut().filter(|group| !group.rows.is_empty()) {
        let inside_byte = format.element_bits() == 4 && group.rows.start % 2 == 1;
        if inside_byte {
            group.rows = group.rows.start..group.rows.start;
        }
        if inside_byte || rotation.is_some_and(|n| !group.rows.len().is_multiple_of(n)) {
            status |= Status::RAGGED_GROUP;
        }
    }
    status
}
