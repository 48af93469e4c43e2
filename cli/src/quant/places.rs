//! Where the parts of an output lie in memory.

use evenkeel::DType;
use evenkeel::quant::Format;
use evenkeel::reference::quant::Direction;

use super::problem::{Problem, Wanted};
use crate::memory::Layout;
use crate::norm::placed::Place;

/// The places of an output's parts.
#[derive(Clone, Debug)]
pub struct Places {
    /// The elements.
    pub data: Place,
    /// The scales of rows or blocks, where the format has them.
    pub scales: Option<Place>,
    /// The scale of the tensor or of each group, where the format has one.
    pub tensor_scale: Option<Place>,
    /// One f32 for the tensor or for each group: amax, and a scale that is given.
    pub amax: Place,
    /// Two counts.
    pub counts: Place,
}

/// How scales of an input `[rows, columns]` lie before any layout: `[rows, blocks]`, the blocks along
/// the output's inner dimension; `[0, 0]` where there are none but the tensor's.
#[must_use]
pub fn scale_shape(
    format: Format,
    direction: Direction,
    [rows, columns]: [usize; 2],
    groups: Option<usize>,
) -> [usize; 2] {
    let block = format.block();
    // Blocks along the rows of X: with groups as many slots as any sizes of them need.
    let along_rows = |size: usize| match groups {
        Some(groups) => rows / size + groups,
        None => rows.div_ceil(size),
    };
    match (format, direction) {
        (Format::Fp8Tensor(_), _) => [0, 0],
        (Format::Fp8Row(_), Direction::RowWise) => [rows, 1],
        (Format::Fp8Row(_), Direction::Transposed) => [columns, groups.unwrap_or(1)],
        (Format::Fp8Block128x128(_), Direction::RowWise) => {
            [along_rows(128), columns.div_ceil(128)]
        }
        (Format::Fp8Block128x128(_), Direction::Transposed) => {
            [columns.div_ceil(128), along_rows(128)]
        }
        (_, Direction::RowWise) => [rows, columns.div_ceil(block.columns)],
        (_, Direction::Transposed) => [columns, along_rows(block.columns)],
    }
}

impl Places {
    /// Those of one output of a problem.
    #[must_use]
    pub fn new(problem: &Problem, wanted: &Wanted) -> Self {
        let format = problem.case.options.format;
        let (rows, columns) = (problem.case.rows, problem.case.columns);
        let [outer, inner] = wanted.direction.orient([rows, columns]);
        let layout = wanted.output.layout;
        let shifted = Layout { gap: 0, ..layout };
        let scale = Place::new(DType::F32, &[problem.tensor_scales()]).at(shifted);
        let tensor = matches!(format, Format::Fp8Tensor(_));
        let options = wanted.output.options;
        let scales = options.layout.shape(problem.scale_shape(wanted.direction));
        Self {
            data: Place::new(format.data_dtype(), &format.data_shape(outer, inner)).at(layout),
            scales: (!tensor).then(|| Place::new(format.scale_dtype(), &scales).at(shifted)),
            tensor_scale: problem.keeps_tensor_scale(wanted).then(|| scale.clone()),
            amax: scale,
            counts: Place::new(DType::U32, &[2]).at(shifted),
        }
    }
}
