//! Addresses past 2^32 elements, in memory of which only the rows in use are touched.

use evenkeel::loss::{KernelPath, LossInputs, Objective, Reduction, SoftmaxLoss, Statistic};
use evenkeel::{Buffer, DType, DeviceKind, Error, Result, Stream};

use super::{Effort, Held};
use crate::loss::run::available;
use crate::memory::{download, upload};
use crate::random::Random;
use crate::subject::Subject;

const STATISTICS: [Statistic; 5] = [
    Statistic::Lse,
    Statistic::Lp,
    Statistic::Entropy,
    Statistic::SumP2,
    Statistic::Argmax,
];

pub(super) fn past_two_to_the_32(
    subject: &Subject,
    effort: Effort,
) -> std::result::Result<Held, String> {
    if subject.kind() == DeviceKind::Cpu {
        return Held::skipped("16 GiB, of which the CPU would touch every page");
    }
    if effort == Effort::Quick {
        return Held::skipped("only in full");
    }
    let device = subject.device(0).map_err(|error| error.to_string())?;
    let stream = device.stream().map_err(|error| error.to_string())?;
    let mut held = Held::default();
    for check in [wide_strides, many_rows] {
        match check(&stream) {
            Ok(Ok(())) => held.problems += 1,
            Ok(Err(wrong)) => return Err(wrong),
            Err(Error::OutOfMemory { bytes }) => {
                return Held::skipped(format!("{bytes} bytes could not be allocated"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(held)
}

/// What the statistics say of rows: enough to tell their contents apart.
fn fingerprint(
    stream: &Stream,
    logits: evenkeel::TensorRef<'_>,
    inputs: LossInputs<'_>,
) -> Result<Vec<Vec<u32>>> {
    let op = SoftmaxLoss::new(Objective::Nll)
        .report(STATISTICS)
        .prepare(stream)?;
    let result = op.forward(logits, inputs)?;
    STATISTICS
        .iter()
        .filter_map(|&statistic| result.statistic(statistic))
        .map(|values| match values.dtype() {
            DType::I32 => Ok(values
                .read::<i32>()?
                .into_iter()
                .map(|x| x as u32)
                .collect()),
            _ => Ok(values
                .read::<f32>()?
                .into_iter()
                .map(f32::to_bits)
                .collect()),
        })
        .collect()
}

fn drawn(stream: &Stream, tokens: usize, vocab: usize, dtype: DType) -> Result<Buffer> {
    let mut random = Random::new(77);
    let values: Vec<f64> = (0..tokens * vocab)
        .map(|_| crate::numbers::round_to(dtype, 3.0 * random.normal()))
        .collect();
    upload(stream, dtype, &[tokens, vocab], &values)
}

/// Three rows 2^31 + 24 elements apart: gradients written there, read back as logits, and written in
/// place, on both kernels; against the same in three rows side by side.
fn wide_strides(stream: &Stream) -> Result<std::result::Result<(), String>> {
    const TOKENS: usize = 3;
    const VOCAB: usize = 1003;
    const STRIDE: usize = (1 << 31) + 24;
    // As far from a multiple of 16 bytes as the far rows are: the sums' order is the same.
    const NEAR: usize = 1008;
    let logits = drawn(stream, TOKENS, VOCAB, DType::Bf16)?;
    let targets = stream.upload(&[TOKENS], &[5_i64, 900, 1002])?;
    // Large enough that gradients make logits.
    let upstream = stream.upload(&[1], &[3000.0_f32])?;
    for wanted in [KernelPath::Cluster, KernelPath::Block] {
        let mut op = SoftmaxLoss::new(Objective::Power(0.5)).reduction(Reduction::Sum);
        if let Some(path) = available(stream.device(), Some(wanted)) {
            op = op.path(path);
        }
        let op = op.prepare(stream)?;
        let plain = LossInputs::new(targets.view());
        let inputs = plain.upstream(upstream.view());
        let mut near = stream.zeros(DType::Bf16, &[TOKENS * NEAR])?;
        let mut far = stream.uninitialised(DType::Bf16, &[(TOKENS - 1) * STRIDE + VOCAB])?;
        let shape = [TOKENS, VOCAB];

        op.forward_backward(
            logits.view(),
            near.view_mut().strided(&shape, NEAR)?,
            inputs,
        )?;
        op.forward_backward(
            logits.view(),
            far.view_mut().strided(&shape, STRIDE)?,
            inputs,
        )?;
        let there = fingerprint(stream, far.view().strided(&shape, STRIDE)?, plain)?;
        if there != fingerprint(stream, near.view().strided(&shape, NEAR)?, plain)? {
            return Ok(Err(format!(
                "{wanted:?}: gradients past 2^32 elements are not where they belong"
            )));
        }
        op.forward_backward_in_place(near.view_mut().strided(&shape, NEAR)?, inputs)?;
        op.forward_backward_in_place(far.view_mut().strided(&shape, STRIDE)?, inputs)?;
        let there = fingerprint(stream, far.view().strided(&shape, STRIDE)?, plain)?;
        if there != fingerprint(stream, near.view().strided(&shape, NEAR)?, plain)? {
            return Ok(Err(format!(
                "{wanted:?}: gradients in place past 2^32 elements differ"
            )));
        }
    }
    Ok(Ok(()))
}

/// 16385 x 262144 logits, all rows ignored but the first and the last, whose memory the kernel itself
/// has written.
fn many_rows(stream: &Stream) -> Result<std::result::Result<(), String>> {
    const TOKENS: usize = 16_385;
    const VOCAB: usize = 262_144;
    let source = drawn(stream, 2, VOCAB, DType::Bf16)?;
    let two = stream.upload(&[2], &[5_i64, 200_000])?;
    let upstream = stream.upload(&[1], &[1e6_f32])?;
    let inputs = LossInputs::new(two.view()).upstream(upstream.view());
    let mut near = stream.zeros(DType::Bf16, &[2, VOCAB])?;
    let mut far = stream.uninitialised(DType::Bf16, &[TOKENS * VOCAB])?;
    let op = SoftmaxLoss::new(Objective::Linear).prepare(stream)?;
    op.forward_backward(source.view(), near.view_mut(), inputs)?;
    let ends = far.view_mut().strided(&[2, VOCAB], (TOKENS - 1) * VOCAB)?;
    op.forward_backward(source.view(), ends, inputs)?;

    let mut targets = vec![-100_i64; TOKENS];
    (targets[0], targets[TOKENS - 1]) = (5, 200_000);
    let targets = stream.upload(&[TOKENS], &targets)?;
    let all = far.view().reshape(&[TOKENS, VOCAB])?;
    // The block kernel passes ignored rows without a barrier; a cluster would meet at each of them.
    let op = SoftmaxLoss::new(Objective::Nll)
        .report(STATISTICS)
        .path(KernelPath::Block);
    let result = op.prepare(stream)?.forward(all, targets.view())?;
    let expected = op.prepare(stream)?.forward(near.view(), two.view())?;
    for statistic in STATISTICS {
        let (Some(got), Some(want)) = (result.statistic(statistic), expected.statistic(statistic))
        else {
            continue;
        };
        let (got, want) = (download(got)?, download(want)?);
        if got[0].to_bits() != want[0].to_bits() || got[TOKENS - 1].to_bits() != want[1].to_bits() {
            return Ok(Err(format!(
                "{statistic:?} of the last of 16385 rows differs"
            )));
        }
        if got[1..TOKENS - 1].iter().any(|&x| x != 0.0) {
            return Ok(Err(format!("{statistic:?} of an ignored row is not 0")));
        }
    }
    Ok(Ok(()))
}
