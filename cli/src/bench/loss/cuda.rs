//! Losses on a GPU.

use evenkeel::loss::{Counts, LossInputs, LossOutputs};
use evenkeel::{Buffer, DType, Result};

use super::work::Work;
use crate::bench::cuda::Gpu;
use crate::bench::record::{Ceilings, Logits, Row};
use crate::loss::Mode;
use crate::random::Random;

/// One shape in one type: a row for each work.
///
/// # Errors
/// The library's and the driver's; [`Error::OutOfMemory`](evenkeel::Error::OutOfMemory) among them.
pub fn measure(
    gpu: &Gpu,
    works: &[Work],
    shape: Logits,
    dtype: DType,
    ceilings: &Ceilings,
) -> Result<Vec<Row>> {
    let size = [shape.tokens, shape.vocab];
    let pool = gpu.pool(dtype, shape.tokens * shape.vocab, 3.0)?;
    let pristine = gpu.fill(&pool, &size, 0)?;
    let mut random = Random::new(4);
    let labels: Vec<i64> = (0..shape.tokens)
        .map(|_| random.below(shape.vocab as u64) as i64)
        .collect();
    let targets = gpu.stream().upload(&[shape.tokens], &labels)?;
    // The gradient apart; in place: the logits, restored each time.
    let mut memory = gpu.stream().uninitialised(dtype, &size)?;
    let mut rows = Vec::new();
    for work in works {
        let us = repeat(gpu, work, &pristine, &targets, &mut memory)?;
        let ceiling = work.ceiling(ceilings);
        rows.push(work.measured(shape, dtype).timed(us, ceiling));
    }
    gpu.stream().check()?;
    Ok(rows)
}

fn repeat(
    gpu: &Gpu,
    work: &Work,
    pristine: &Buffer,
    targets: &Buffer,
    memory: &mut Buffer,
) -> Result<Vec<f64>> {
    let stream = gpu.stream();
    let op = work.op().prepare(stream)?;
    let tokens = targets.elements();
    let mut workspace = stream.uninitialised(DType::U8, &[op.workspace_bytes(tokens)])?;
    let mut loss = stream.zeros(DType::F32, &[1])?;
    let mut counts = stream.zeros(DType::U32, &[size_of::<Counts>() / 4])?;
    let mut statistics = Vec::new();
    if work.statistics {
        for statistic in evenkeel::loss::Statistic::ALL {
            statistics.push((statistic, stream.zeros(statistic.dtype(), &[tokens])?));
        }
    }
    // Both closures of `time` use the memory, in turn.
    let memory = std::cell::RefCell::new(memory);
    let restore = || {
        if work.mode == Mode::InPlace {
            gpu.restore(pristine, &mut memory.borrow_mut())?;
        }
        Ok(())
    };
    gpu.time(restore, || {
        let mut memory = memory.borrow_mut();
        let inputs = LossInputs::new(targets.view());
        let mut outputs = LossOutputs::new(workspace.view_mut())
            .loss(loss.view_mut())
            .counts(counts.view_mut());
        for (statistic, values) in &mut statistics {
            outputs = outputs.statistic(*statistic, values.view_mut());
        }
        match work.mode {
            Mode::Forward => op.forward_into(pristine.view(), &inputs, &mut outputs),
            Mode::InPlace => {
                op.forward_backward_in_place_into(memory.view_mut(), &inputs, &mut outputs)
            }
            _ => {
                op.forward_backward_into(pristine.view(), memory.view_mut(), &inputs, &mut outputs)
            }
        }
    })
}
