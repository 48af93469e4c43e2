//! One problem for a quantisation: its data, and how they lie in memory.

use evenkeel::DType;
use evenkeel::quant::{Format, OutputOptions, QuantizeOptions, Scaling};
use evenkeel::reference::quant::Direction;

use super::input::{Values, draw};
use super::places::scale_shape;
use crate::memory::Layout;
use crate::norm::placed::{Matrix, Place};
use crate::random::Random;

/// Where the scale of a tensor or group comes from when it is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Given {
    /// This many times what the tensor's own amax gives: below 1 the largest elements saturate.
    Times(f64),
    /// Whatever the values are.
    Fixed(f32),
}

/// Which call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Into memory that lies anywhere, with something around it.
    Into,
    /// Into memory that the call allocates.
    Allocated,
}

/// One output of a case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Output {
    /// Rotation and layout of scales.
    pub options: OutputOptions,
    /// Where its data lie, and by how much its scales are shifted.
    pub layout: Layout,
    /// Whether amax is asked for, with numbers in its place before.
    pub amax: bool,
    /// Whether elements are counted.
    pub counts: bool,
    /// Whether a scale that is given is to be copied beside the elements.
    pub keep_scale: bool,
}

impl Output {
    /// Plain, side by side, nothing asked for.
    pub const PLAIN: Self = Self {
        options: OutputOptions::new(),
        layout: Layout {
            phase: 0,
            padding: 0,
            gap: 0,
        },
        amax: false,
        counts: false,
        keep_scale: true,
    };

    /// Everything asked for.
    pub const FULL: Self = Self {
        amax: true,
        counts: true,
        ..Self::PLAIN
    };
}

/// What a case is, before its data are drawn.
#[derive(Clone, Debug)]
pub struct Case {
    /// Rows of the input.
    pub rows: usize,
    /// Columns of the input.
    pub columns: usize,
    /// Its type.
    pub dtype: DType,
    /// Where it lies.
    pub layout: Layout,
    /// What elements and scales it becomes.
    pub options: QuantizeOptions,
    /// The given scale, in the formats that take one and are asked to.
    pub given: Given,
    /// X.
    pub rowwise: Option<Output>,
    /// Its transpose.
    pub transposed: Option<Output>,
    /// Sizes of the groups of rows, which must add up to the rows, and the type of their offsets.
    pub groups: Option<(Vec<usize>, DType)>,
    /// Upper half of the generator's counter.
    pub offset: u64,
    /// What the device adds to it.
    pub device_offset: Option<i64>,
    /// The call.
    pub form: Form,
    /// How values are drawn.
    pub values: Values,
    /// What everything is drawn from.
    pub seed: u64,
}

impl Case {
    /// Both outputs of normal values, with all that can be asked for.
    #[must_use]
    pub fn new(rows: usize, columns: usize, dtype: DType, format: Format) -> Self {
        Self {
            rows,
            columns,
            dtype,
            layout: Layout::default(),
            options: QuantizeOptions::new(format),
            given: Given::Times(1.0),
            rowwise: Some(Output::FULL),
            transposed: Some(Output::FULL),
            groups: None,
            offset: 0,
            device_offset: None,
            form: Form::Into,
            values: Values::Normal,
            seed: 1,
        }
    }

    /// One output alone.
    #[must_use]
    pub fn only(mut self, direction: Direction, output: Output) -> Self {
        (self.rowwise, self.transposed) = match direction {
            Direction::RowWise => (Some(output), None),
            Direction::Transposed => (None, Some(output)),
        };
        self
    }

    /// Draws the data.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (rows, columns) = (self.rows, self.columns);
        let place = Place::new(self.dtype, &[rows, columns]).at(self.layout);
        let values = draw(self.values, self.dtype, rows, columns, self.seed);
        Problem::new(self.clone(), Matrix::new(place, values))
    }
}

/// One output of a problem.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// X or its transpose.
    pub direction: Direction,
    /// As the case has it.
    pub output: Output,
    /// Scales that are given: one, or one for each group.
    pub given: Option<Vec<f32>>,
    /// What lies where amax comes, where it is asked for.
    pub amax: Option<Vec<f32>>,
    /// What lies where the counts come, where they are asked for.
    pub counts: Option<[u32; 2]>,
}

/// A quantisation with all its data, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// What it was drawn from.
    pub case: Case,
    /// X, `[rows, columns]`.
    pub x: Matrix,
    /// The same in single precision, which is exact.
    pub values: Vec<f32>,
    /// Offsets of the groups' rows.
    pub groups: Option<Vec<i64>>,
    /// The outputs.
    pub wanted: Vec<Wanted>,
}

impl Problem {
    /// A case with other values than its own.
    #[must_use]
    pub fn new(case: Case, x: Matrix) -> Self {
        let values: Vec<f32> = x.values.iter().map(|&x| x as f32).collect();
        let groups = case.groups.as_ref().map(|(sizes, _)| offsets(sizes));
        let mut random = Random::new(case.seed ^ 0xa11);
        let mut wanted = Vec::new();
        for (direction, output) in [
            (Direction::RowWise, case.rowwise),
            (Direction::Transposed, case.transposed),
        ] {
            let Some(output) = output else { continue };
            let scales = groups.as_ref().map_or(1, |groups| groups.len() - 1);
            let given = (case.options.scaling == Scaling::Given)
                .then(|| given(&case, &values, groups.as_deref()));
            // Less than any amax, and more than most.
            let amax = (0..scales).map(|_| random.pick(&[0.0, 1e-30, 3.5, 3e38]));
            wanted.push(Wanted {
                direction,
                output,
                given,
                amax: output.amax.then(|| amax.collect()),
                counts: output.counts.then_some([7, 1 << 20]),
            });
        }
        Self {
            name: format!("{case:?}"),
            case,
            x,
            values,
            groups,
            wanted,
        }
    }

    /// The same of other values, whatever the case draws.
    #[must_use]
    pub fn with_values(&self, values: &[f64]) -> Self {
        let mut problem = self.clone();
        problem.values = values.iter().map(|&x| x as f32).collect();
        problem
    }

    /// How many scales a tensor has that has one for each group.
    #[must_use]
    pub fn tensor_scales(&self) -> usize {
        self.groups.as_ref().map_or(1, |groups| groups.len() - 1)
    }

    /// Whether an output has the scale of its tensor beside its elements.
    #[must_use]
    pub fn keeps_tensor_scale(&self, wanted: &Wanted) -> bool {
        let options = self.case.options;
        let asked = options.scaling == Scaling::Current
            || wanted.output.keep_scale
            || self.case.form == Form::Allocated;
        options.format.needs_tensor_amax() && asked
    }

    /// How the scales of an output lie before any layout.
    #[must_use]
    pub fn scale_shape(&self, direction: Direction) -> [usize; 2] {
        let groups = self.groups.as_ref().map(|groups| groups.len() - 1);
        let shape = [self.case.rows, self.case.columns];
        scale_shape(self.case.options.format, direction, shape, groups)
    }

    /// The upper half of the generator's counter.
    #[must_use]
    pub fn offset(&self) -> u64 {
        let device = self.case.device_offset.unwrap_or(0) as u64;
        self.case.offset.wrapping_add(device)
    }
}

/// The offsets of groups of these sizes.
#[must_use]
pub fn offsets(sizes: &[usize]) -> Vec<i64> {
    let mut offsets = vec![0];
    let mut end = 0;
    for &size in sizes {
        end += size as i64;
        offsets.push(end);
    }
    offsets
}

/// A scale for the tensor or for each group.
fn given(case: &Case, values: &[f32], groups: Option<&[i64]>) -> Vec<f32> {
    let whole = [0, case.rows as i64];
    let format = case.options.format;
    // Of nvfp4 the scales of blocks take a factor of their own.
    let room = if format.has_tensor_scale() {
        448.0 * 6.0
    } else {
        f64::from(format.largest())
    };
    groups
        .unwrap_or(&whole)
        .windows(2)
        .map(|ends| match case.given {
            Given::Fixed(scale) => scale,
            Given::Times(times) => {
                let group =
                    &values[ends[0] as usize * case.columns..ends[1] as usize * case.columns];
                let finite = group.iter().filter(|x| x.is_finite());
                let amax = finite.fold(0.0_f32, |amax, x| amax.max(x.abs()));
                let scale = (times * f64::from(amax) / room) as f32;
                if scale > 0.0 && scale.is_finite() {
                    scale
                } else {
                    1.0
                }
            }
        })
        .collect()
}
