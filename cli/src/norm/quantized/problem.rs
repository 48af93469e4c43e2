//! One problem: a normalization with its data, and how its results are quantised.

use evenkeel::DType;
use evenkeel::quant::{Format, QuantizeOptions, Scaling};
use evenkeel::reference::quant::Direction;

use crate::norm::placed::{Matrix, Place};
use crate::norm::rows;
use crate::quant::{self, Form, Given, Output};

/// What a case is, before its data are drawn.
#[derive(Clone, Debug)]
pub struct Case {
    /// The normalization; y is f32, and there is no backward.
    pub rows: rows::Case,
    /// What its results become.
    pub options: QuantizeOptions,
    /// How they lie, and what is asked for beside.
    pub output: Output,
    /// The tensor's scale, in formats with one.
    pub given: f32,
    /// Which call is made.
    pub form: Form,
    /// Upper half of the generator's counter, of the host and of the device.
    pub offset: (u64, Option<i64>),
}

impl Case {
    /// With all that can be asked for.
    #[must_use]
    pub fn new(rows: rows::Case, format: Format) -> Self {
        let options = QuantizeOptions::new(format);
        Self {
            rows,
            options: match format.needs_tensor_amax() {
                true => options.scaling(Scaling::Given),
                false => options,
            },
            output: Output::FULL,
            // Normalized rows of 4 are within, a few elements beyond it are not.
            given: match format.has_tensor_scale() {
                true => 4.0 / 2688.0,
                false => 4.0 / format.largest(),
            },
            form: Form::Into,
            offset: (3, Some(4)),
        }
    }

    /// Draws the data. Rows of 16 bits become pairs (a, -a) of small integers: whatever the order, the
    /// sums of any of their units, and of their squares, are exact.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let mut case = self.rows.clone();
        case.types.y = DType::F32;
        case.form = rows::Form::Apart;
        (case.backward, case.packed) = (false, true);
        let mut rows = case.problem();
        rows.y.1 = Default::default();
        let shape = rows.shape;
        let sums = |dtype| dtype != DType::F32 && shape.columns.is_multiple_of(8);
        if sums(rows.x.dtype) {
            for (row, values) in rows.x.values.chunks_mut(shape.columns).enumerate() {
                for (pair, both) in values.chunks_mut(2).enumerate() {
                    let a = 1.0 + ((pair * 7 + row * 3) % 8) as f64;
                    both.copy_from_slice(&[a, -a]);
                }
            }
            if let Some(residual) = &mut rows.residual {
                residual.values.clone_from(&rows.x.values);
            }
        }
        let quantize = quant::Case {
            options: self.options,
            given: Given::Fixed(self.given),
            offset: self.offset.0,
            device_offset: self.offset.1,
            form: self.form,
            ..quant::Case::new(
                shape.tokens,
                shape.heads * shape.columns,
                DType::F32,
                self.options.format,
            )
        };
        let quantize = quantize.only(Direction::RowWise, self.output);
        let place = Place::new(DType::F32, &[shape.tokens, shape.heads * shape.columns]);
        let zeros = vec![0.0; shape.elements()];
        Problem {
            name: format!("{self:?}"),
            quantize: quant::Problem::new(quantize, Matrix::new(place, zeros)),
            rows,
        }
    }
}

/// A normalization whose results are quantised, with all its data, on the host.
#[derive(Clone, Debug)]
pub struct Problem {
    /// For messages.
    pub name: String,
    /// The normalization, whose y is f32.
    pub rows: rows::Problem,
    /// The quantisation of y, which no host knows before.
    pub quantize: quant::Problem,
}
