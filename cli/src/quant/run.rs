//! Runs a quantisation on a device and brings everything back.

use evenkeel::quant::{
    Dequantize, OutputArguments, PreparedQuantize, Quantize, QuantizeArguments, QuantizeOutputs,
    Quantized, QuantizedMut, QuantizedTensor,
};
use evenkeel::reference::quant::Direction;
use evenkeel::{Buffer, DType, Result, Stream};

use super::bits::{Bits, of_f32};
use super::outcome::{Outcome, Stored};
use super::places::Places;
use super::problem::{Form, Problem, Wanted};
use crate::memory::{download, upload_integers, view_of};
use crate::norm::placed::status_of;

/// The memory of one output.
pub(crate) struct Memory {
    places: Places,
    data: Buffer,
    scales: Option<Buffer>,
    tensor_scale: Option<Buffer>,
}

/// What one output is asked for, and what it is given.
pub(crate) struct Asked {
    places: Places,
    given: Option<Buffer>,
    amax: Option<Buffer>,
    counts: Option<Buffer>,
}

impl Memory {
    pub(crate) fn new(stream: &Stream, problem: &Problem, wanted: &Wanted) -> Result<Self> {
        let places = Places::new(problem, wanted);
        let empty = |place: &Option<_>| {
            place
                .as_ref()
                .map(|place| Bits::memory(stream, place, &[]))
                .transpose()
        };
        Ok(Self {
            data: Bits::memory(stream, &places.data, &[])?,
            scales: empty(&places.scales)?,
            tensor_scale: empty(&places.tensor_scale)?,
            places,
        })
    }

    pub(crate) fn views(&mut self) -> Result<QuantizedMut<'_>> {
        let mut views = QuantizedMut::new(self.places.data.view_mut(&mut self.data)?);
        if let (Some(place), Some(memory)) = (&self.places.scales, &mut self.scales) {
            views = views.scales(place.view_mut(memory)?);
        }
        if let (Some(place), Some(memory)) = (&self.places.tensor_scale, &mut self.tensor_scale) {
            views = views.tensor_scale(place.view_mut(memory)?);
        }
        Ok(views)
    }

    pub(crate) fn take(&self, asked: &Asked) -> Result<Stored> {
        let taken = |place: &Option<_>, memory: &Option<Buffer>| match (place, memory) {
            (Some(place), Some(memory)) => Bits::take(place, memory).map(Some),
            _ => Ok(None),
        };
        Ok(Stored {
            data: Bits::take(&self.places.data, &self.data)?,
            scales: taken(&self.places.scales, &self.scales)?,
            tensor_scale: taken(&self.places.tensor_scale, &self.tensor_scale)?,
            amax: asked.amax()?,
            counts: asked.counts()?,
        })
    }
}

impl Asked {
    pub(crate) fn new(stream: &Stream, problem: &Problem, wanted: &Wanted) -> Result<Self> {
        let places = Places::new(problem, wanted);
        let floats = |values: &Option<Vec<f32>>| {
            let upload = |values: &Vec<f32>| Bits::memory(stream, &places.amax, &of_f32(values));
            values.as_ref().map(upload).transpose()
        };
        let counts = wanted.counts.map(|counts| {
            let bytes: Vec<u8> = counts.iter().flat_map(|x| x.to_ne_bytes()).collect();
            Bits::memory(stream, &places.counts, &bytes)
        });
        Ok(Self {
            given: floats(&wanted.given)?,
            amax: floats(&wanted.amax)?,
            counts: counts.transpose()?,
            places,
        })
    }

    pub(crate) fn arguments(&mut self) -> Result<OutputArguments<'_>> {
        let mut arguments = OutputArguments::default();
        if let Some(given) = &self.given {
            arguments = arguments.tensor_scale(self.places.amax.view(given)?);
        }
        if let Some(amax) = &mut self.amax {
            arguments = arguments.amax(self.places.amax.view_mut(amax)?);
        }
        if let Some(counts) = &mut self.counts {
            arguments = arguments.counts(self.places.counts.view_mut(counts)?);
        }
        Ok(arguments)
    }

    fn amax(&self) -> Result<Option<Bits>> {
        let take = |memory| Bits::take(&self.places.amax, memory);
        self.amax.as_ref().map(take).transpose()
    }

    fn counts(&self) -> Result<Option<Bits>> {
        let take = |memory| Bits::take(&self.places.counts, memory);
        self.counts.as_ref().map(take).transpose()
    }
}

/// The operation of a problem.
///
/// # Errors
/// The library's.
pub fn prepare(stream: &Stream, problem: &Problem) -> Result<PreparedQuantize> {
    let case = &problem.case;
    let mut op = Quantize::new(case.options);
    if let Some(output) = case.rowwise {
        op = op.rowwise(output.options);
    }
    if let Some(output) = case.transposed {
        op = op.transposed(output.options);
    }
    op.prepare(stream)
}

/// Quantises a problem's X.
///
/// # Errors
/// The library's, but for what the status word holds: that is part of the outcome.
pub fn run_on(stream: &Stream, problem: &Problem) -> Result<Outcome> {
    let op = prepare(stream, problem)?;
    let case = &problem.case;
    let x = problem.x.upload(stream)?;
    let x = problem.x.place.view(&x)?;
    let groups = problem
        .groups
        .as_ref()
        .zip(case.groups.as_ref())
        .map(|(offsets, (_, dtype))| upload_integers(stream, *dtype, offsets))
        .transpose()?;
    let device_offset = case
        .device_offset
        .map(|offset| upload_integers(stream, DType::I64, &[offset]))
        .transpose()?;
    let mut asked = problem
        .wanted
        .iter()
        .map(|wanted| Asked::new(stream, problem, wanted))
        .collect::<Result<Vec<_>>>()?;
    let mut arguments = QuantizeArguments {
        groups: view_of(groups.as_ref()),
        offset: case.offset,
        device_offset: view_of(device_offset.as_ref()),
        ..QuantizeArguments::default()
    };
    for (wanted, asked) in problem.wanted.iter().zip(&mut asked) {
        match wanted.direction {
            Direction::RowWise => arguments.rowwise = asked.arguments()?,
            Direction::Transposed => arguments.transposed = asked.arguments()?,
        }
    }
    let stored = match case.form {
        Form::Allocated => {
            let outputs = op.quantize(x, arguments)?;
            let both = problem.wanted.iter().zip(&asked);
            both.map(|(wanted, asked)| allocated(&outputs, wanted, asked))
                .collect::<Result<_>>()?
        }
        Form::Into => {
            let mut memories = problem
                .wanted
                .iter()
                .map(|wanted| Memory::new(stream, problem, wanted))
                .collect::<Result<Vec<_>>>()?;
            let count = problem.groups.as_ref().map_or(0, |groups| groups.len() - 1);
            let bytes = op.workspace_bytes(case.rows, case.columns, count);
            let mut workspace = stream.uninitialised(DType::U8, &[bytes])?;
            let mut outputs = QuantizeOutputs::default();
            for (wanted, memory) in problem.wanted.iter().zip(&mut memories) {
                let views = Some(memory.views()?);
                match wanted.direction {
                    Direction::RowWise => outputs.rowwise = views,
                    Direction::Transposed => outputs.transposed = views,
                }
            }
            if bytes > 0 {
                outputs.workspace = Some(workspace.view_mut());
            }
            op.quantize_into(x, arguments, &mut outputs)?;
            let both = memories.iter().zip(&asked);
            both.map(|(memory, asked)| memory.take(asked))
                .collect::<Result<_>>()?
        }
    };
    Ok(Outcome {
        stored,
        status: status_of(stream)?,
    })
}

/// The values that an output of a problem stands for, by the device's own inverse, in single precision;
/// of a problem without groups and given scales.
///
/// # Errors
/// The library's.
pub fn dequantized(stream: &Stream, problem: &Problem, direction: Direction) -> Result<Vec<f64>> {
    let x = problem.x.upload(stream)?;
    let arguments = QuantizeArguments::default().offset(problem.case.offset);
    let outputs = prepare(stream, problem)?.quantize(problem.x.place.view(&x)?, arguments)?;
    let output = match direction {
        Direction::RowWise => outputs.rowwise()?,
        Direction::Transposed => outputs.transposed()?,
    };
    let op = Dequantize::new().prepare(stream)?;
    download(&op.dequantize(output, DType::F32)?)
}

/// What the call allocated of one output.
fn allocated(outputs: &Quantized, wanted: &Wanted, asked: &Asked) -> Result<Stored> {
    let tensor: Option<&QuantizedTensor> = match wanted.direction {
        Direction::RowWise => outputs.rowwise.as_ref(),
        Direction::Transposed => outputs.transposed.as_ref(),
    };
    allocated_tensor(tensor, asked)
}

/// The same, of the output itself.
pub(crate) fn allocated_tensor(tensor: Option<&QuantizedTensor>, asked: &Asked) -> Result<Stored> {
    let whole = |buffer: Option<&Buffer>| buffer.map(Bits::whole).transpose();
    let data = whole(tensor.map(|tensor| &tensor.data))?;
    Ok(Stored {
        data: data.unwrap_or(Bits {
            bytes: Vec::new(),
            width: 0,
            touched: Vec::new(),
        }),
        scales: whole(tensor.and_then(|tensor| tensor.scales.as_ref()))?,
        tensor_scale: whole(tensor.and_then(|tensor| tensor.tensor_scale.as_ref()))?,
        amax: asked.amax()?,
        counts: asked.counts()?,
    })
}
