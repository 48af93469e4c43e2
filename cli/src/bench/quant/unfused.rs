//! What a program does without the fused operation: each step a pass over the whole tensor, its result
//! stored in f32; each pass parallel over rows. The bits are those of the operation.

use evenkeel::quant::{Block, Format, Rounding, ScaleRounding};
use evenkeel::reference::quant::{Direction, element, hadamard, philox, scale};
use evenkeel::{E4m3, Number, Result};
use rayon::prelude::*;

use super::call::Call;
use super::work::{Outputs, Work};
use crate::bench::record::ShapeOf;

/// A call's tensor in the host's memory.
pub struct Host<T> {
    work: Work,
    shape: [usize; 2],
    x: Vec<T>,
    given: Option<f32>,
}

/// What the steps leave of one output.
#[derive(Debug, PartialEq)]
pub struct Output {
    /// The stored elements.
    pub data: Vec<u8>,
    /// The scales of blocks: bits of f32, or bytes.
    pub scales: Vec<u32>,
}

/// The scale of a block, as it is stored and as it divides.
#[derive(Clone, Copy)]
struct Scale {
    stored: u32,
    divisor: f32,
}

impl<T: Number> Host<T> {
    /// That of a call.
    ///
    /// # Errors
    /// The device's.
    pub fn of(call: &Call, work: Work, shape: ShapeOf) -> Result<Self> {
        Ok(Self {
            work,
            shape: [shape.tokens(), shape.columns()],
            x: call.x.read::<T>()?,
            given: call.given(),
        })
    }

    /// Every step, for each output on its own.
    #[must_use]
    pub fn run(&self) -> Vec<Output> {
        let wanted = |direction: &Direction| match self.work.outputs {
            Outputs::Both => true,
            Outputs::RowWise => *direction == Direction::RowWise,
            Outputs::Transposed => *direction == Direction::Transposed,
        };
        let directions = Direction::ALL.into_iter().filter(wanted);
        directions.map(|direction| self.output(direction)).collect()
    }

    fn output(&self, direction: Direction) -> Output {
        let format = self.work.format;
        let [outer, inner] = direction.orient(self.shape);
        let mut values: Vec<f32> = self.x.par_iter().map(|x| x.to_f64() as f32).collect();
        if direction == Direction::Transposed {
            values = transposed(&values, self.shape);
        }
        if let Some(rotation) = self.work.output().rotation {
            values
                .par_chunks_mut(inner)
                .for_each(|row| hadamard::rotate(&rotation, row));
        }
        let scales = self.scales(&values, [outer, inner]);
        let block = format.block();
        let per_row = blocks(inner, block.columns);
        let of = |row: usize, column: usize| {
            let row = blocks(row + 1, block.rows) - 1;
            let column = blocks(column + 1, block.columns) - 1;
            scales[row * per_row + column].divisor
        };
        let mut quotients = vec![0.0_f32; values.len()];
        quotients
            .par_chunks_mut(inner)
            .zip(values.par_chunks(inner))
            .enumerate()
            .for_each(|(row, (quotients, values))| {
                for (column, (quotient, value)) in quotients.iter_mut().zip(values).enumerate() {
                    let divisor = of(row, column);
                    *quotient = if divisor == 0.0 { 0.0 } else { value / divisor };
                }
            });
        let words = self.words(direction, [outer, inner]);
        let codes: Vec<u8> = match words {
            Some(words) => quotients
                .par_iter()
                .zip(words)
                .map(|(u, word)| element::encode(format, *u, Some(word)))
                .collect(),
            None => quotients
                .par_iter()
                .map(|u| element::encode(format, *u, None))
                .collect(),
        };
        let data = match format.fp8() {
            Some(_) => codes,
            None => codes
                .par_chunks(inner)
                .flat_map_iter(|row| row.chunks(2))
                .map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4)
                .collect(),
        };
        let stored = match format {
            Format::Fp8Tensor(_) => Vec::new(),
            // A square's scale is stored for each of its rows.
            Format::NvFp4Square => (0..outer)
                .flat_map(|row| &scales[row / block.rows * per_row..][..per_row])
                .map(|scale| scale.stored)
                .collect(),
            _ => scales.iter().map(|scale| scale.stored).collect(),
        };
        Output {
            data,
            scales: stored,
        }
    }

    /// One of each block.
    fn scales(&self, values: &[f32], [outer, inner]: [usize; 2]) -> Vec<Scale> {
        let format = self.work.format;
        let block = format.block();
        let (high, wide) = (block.rows.min(outer), block.columns.min(inner));
        let magnitudes: Vec<f32> = values.par_iter().map(|value| value.abs()).collect();
        let amaxes: Vec<f32> = magnitudes
            .par_chunks(high * inner)
            .flat_map_iter(|band| {
                (0..inner.div_ceil(wide)).map(move |b| {
                    let columns = b * wide..(b * wide + wide).min(inner);
                    let rows = band.chunks(inner);
                    rows.flat_map(|row| &row[columns.clone()])
                        .fold(0.0, |a: f32, b| a.max(*b))
                })
            })
            .collect();
        let largest = format.largest();
        let tensor = match format.has_tensor_scale() {
            true => scale::nvfp4_tensor(amaxes.par_iter().copied().reduce(|| 0.0, f32::max)),
            false => 1.0,
        };
        let of = |amax: f32| match format {
            Format::MxFp8(_) | Format::MxFp4 => {
                let scale = scale::mx(amax, format, ScaleRounding::Floor);
                Scale {
                    stored: scale.to_bits().into(),
                    divisor: scale.to_f32(),
                }
            }
            Format::NvFp4 | Format::NvFp4Square => {
                let scale: E4m3 = scale::nvfp4_block(amax, tensor);
                Scale {
                    stored: scale.to_bits().into(),
                    divisor: scale.to_f32() * tensor,
                }
            }
            _ => {
                let divisor = self.given.unwrap_or_else(|| scale::exact(amax, largest));
                Scale {
                    stored: divisor.to_bits(),
                    divisor,
                }
            }
        };
        amaxes.into_par_iter().map(of).collect()
    }

    /// The random word of each element, where rounding is stochastic.
    fn words(&self, direction: Direction, [_, inner]: [usize; 2]) -> Option<Vec<u32>> {
        let Rounding::Stochastic { seed } = self.work.options().rounding else {
            return None;
        };
        let columns = self.shape[1];
        let of = |i: usize| {
            let [row, column] = direction.orient([i / inner, i % inner]);
            philox::word(seed, 0, (row * columns + column) as u64)
        };
        Some((0..self.x.len()).into_par_iter().map(of).collect())
    }
}

/// Blocks of `size` in an extent; one where a block is all of it.
fn blocks(extent: usize, size: usize) -> usize {
    match size {
        Block::WHOLE => 1,
        size => extent.div_ceil(size),
    }
}

fn transposed(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    // Sixteen columns at a visit of each row: a cache line of four-byte values.
    out.par_chunks_mut(16 * rows)
        .enumerate()
        .for_each(|(chunk, out)| {
            for row in 0..rows {
                let from = &values[row * columns + 16 * chunk..];
                for (column, out) in out.chunks_exact_mut(rows).enumerate() {
                    out[row] = from[column];
                }
            }
        });
    out
}

#[cfg(test)]
mod tests {
    use evenkeel::DType;
    use evenkeel::quant::QuantizedTensor;
    use half::bf16;

    use super::*;
    use crate::bench::quant::cpu::call;
    use crate::bench::quant::work::rows;
    use crate::quant::bits::download;

    /// The steps are what the operation does, or the comparison is of two different things.
    #[test]
    fn the_steps_give_what_the_operation_gives() {
        let shape = rows(160, 256);
        let works = Work::of(shape);
        assert!(works.len() > 20);
        for work in works {
            let mut call = call(work, shape, DType::Bf16).unwrap();
            call.run().unwrap();
            let got = Host::<bf16>::of(&call, work, shape).unwrap().run();
            let bytes = |tensor: &QuantizedTensor| {
                let codes = download(&tensor.data).unwrap();
                let scales = tensor.scales.as_ref().map_or(Vec::new(), |scales| {
                    let bytes = download(scales).unwrap();
                    match scales.dtype() {
                        DType::F32 => bytes
                            .chunks(4)
                            .map(|b| u32::from_ne_bytes(b.try_into().unwrap()))
                            .collect(),
                        _ => bytes.into_iter().map(u32::from).collect(),
                    }
                });
                Output {
                    data: codes,
                    scales,
                }
            };
            let outputs = [&call.quantized.rowwise, &call.quantized.transposed];
            let want: Vec<Output> = outputs.into_iter().flatten().map(bytes).collect();
            assert!(got == want, "{}", work.name());
        }
    }
}
