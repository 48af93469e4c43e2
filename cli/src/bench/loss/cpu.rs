//! Losses on the CPU: the fused operation beside the unfused pipeline, both in f64, in the same process.

use std::time::Duration;

use evenkeel::loss::Objective;
use evenkeel::reference::loss::{Probability, objective};
use evenkeel::{Buffer, DType, Device, Error, Number, Result, Stream};
use half::{bf16, f16};
use rayon::prelude::*;

use super::work::Work;
use crate::bench::cpu::{bandwidths, repeat};
use crate::bench::record::{Ceilings, Logits, Peer, Row};
use crate::loss::Mode;
use crate::memory::upload;
use crate::random::Random;

/// Time for one measurement.
const PATIENCE: Duration = Duration::from_millis(900);

/// One shape in one type: its rows, and the bandwidth of a copy of as many bytes.
///
/// # Errors
/// The library's.
pub fn measure(works: &[Work], shape: Logits, dtype: DType) -> Result<(Vec<Row>, Ceilings)> {
    match dtype {
        DType::Bf16 => typed::<bf16>(works, shape),
        DType::F16 => typed::<f16>(works, shape),
        _ => typed::<f32>(works, shape),
    }
}

fn typed<T: Number>(works: &[Work], shape: Logits) -> Result<(Vec<Row>, Ceilings)> {
    let stream = Device::cpu().stream()?;
    let data = Data::<T>::new(&stream, shape)?;
    let ceilings = bandwidths(PATIENCE, shape.tokens * shape.vocab * T::DTYPE.size())?;
    let mut rows = Vec::new();
    for work in works {
        let fused = fused(&stream, work, &data, shape)?;
        let unfused = repeat(PATIENCE, || {
            unfused(work, &data, shape);
            Ok(())
        })?;
        let ceiling = work.ceiling(&ceilings);
        let mut row = work.measured(shape, T::DTYPE).timed(fused, ceiling);
        row.peers.extend(Peer::unfused("f64", unfused));
        rows.push(row);
    }
    Ok((rows, ceilings))
}

struct Data<T> {
    host: Vec<T>,
    labels: Vec<i64>,
    logits: Buffer,
    targets: Buffer,
}

impl<T: Number> Data<T> {
    fn new(stream: &Stream, shape: Logits) -> Result<Self> {
        let mut random = Random::new(5);
        let count = shape.tokens * shape.vocab;
        let mut values: Vec<f64> = Vec::new();
        values
            .try_reserve_exact(count)
            .map_err(|_| Error::OutOfMemory {
                bytes: count as u64 * 8,
            })?;
        values.extend((0..count).map(|_| 3.0 * random.normal()));
        let labels: Vec<i64> = (0..shape.tokens)
            .map(|_| random.below(shape.vocab as u64) as i64)
            .collect();
        Ok(Self {
            logits: upload(stream, T::DTYPE, &[shape.tokens, shape.vocab], &values)?,
            host: values.into_iter().map(T::from_f64).collect(),
            targets: stream.upload(&[shape.tokens], &labels)?,
            labels,
        })
    }
}

fn fused<T: Number>(
    stream: &Stream,
    work: &Work,
    data: &Data<T>,
    shape: Logits,
) -> Result<Vec<f64>> {
    let op = work.op().prepare(stream)?;
    let mut gradient = stream.zeros(T::DTYPE, &[shape.tokens, shape.vocab])?;
    repeat(PATIENCE, || {
        let (logits, targets) = (data.logits.view(), data.targets.view());
        let result = if work.mode == Mode::Forward {
            op.forward(logits, targets)?
        } else {
            op.forward_backward(logits, gradient.view_mut(), targets)?
        };
        std::hint::black_box(result.read()?);
        Ok(())
    })
}

/// What a program does without a fused operation: the softmax stored, its logarithm stored, the
/// targets' gathered, the gradient a pass of its own; each pass parallel over rows, in f64.
fn unfused<T: Number>(work: &Work, data: &Data<T>, shape: Logits) {
    let vocab = shape.vocab;
    let wide: Vec<f64> = data.host.par_iter().map(|x| x.to_f64()).collect();
    let mut p = vec![0.0; wide.len()];
    p.par_chunks_mut(vocab)
        .zip(wide.par_chunks(vocab))
        .for_each(|(p, z)| {
            let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut sum = 0.0;
            for (p, z) in p.iter_mut().zip(z) {
                *p = (z - max).exp();
                sum += *p;
            }
            p.iter_mut().for_each(|p| *p /= sum);
        });
    let log_p: Vec<f64> = p.par_iter().map(|p| p.ln()).collect();
    let values: Vec<(f64, f64)> = data
        .labels
        .iter()
        .enumerate()
        .map(|(token, &label)| {
            value(
                work.objective,
                log_p[token * vocab + label as usize],
                &p[token * vocab..(token + 1) * vocab],
            )
        })
        .collect();
    let loss: f64 = values.iter().map(|(f, _)| f).sum::<f64>() / shape.tokens as f64;
    std::hint::black_box(loss);
    if work.mode == Mode::Forward {
        return;
    }
    let scale = 1.0 / shape.tokens as f64;
    let mut gradient = vec![T::from_f64(0.0); p.len()];
    gradient
        .par_chunks_mut(vocab)
        .zip(p.par_chunks(vocab))
        .enumerate()
        .for_each(|(token, (out, p))| {
            let factor = values[token].1 * scale;
            for (out, p) in out.iter_mut().zip(p) {
                *out = T::from_f64(factor * p);
            }
            let label = data.labels[token] as usize;
            out[label] = T::from_f64(factor * (p[label] - 1.0));
        });
    std::hint::black_box(gradient);
}

fn value(which: Objective, lp: f64, p: &[f64]) -> (f64, f64) {
    let sum_p2 = if which == Objective::Deft {
        p.iter().map(|p| p * p).sum()
    } else {
        0.0
    };
    let at = Probability {
        lp,
        one_minus_p: 1.0 - lp.exp(),
        sum_p2,
    };
    let value = objective(which, at);
    (value.f, value.g)
}
