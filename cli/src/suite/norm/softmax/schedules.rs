//! What the emulator alone can see of a softmax, and what must not depend on who runs it.

use evenkeel::norm::{Causal, Softmax, SoftmaxKind, SoftmaxStatistics};
use evenkeel::{DType, Device, DeviceKind, Error};
use half::bf16;

use super::super::super::{Effort, Held, Workload, emulated};
use super::proofs::{
    Budget, FLOATS, device, is_long_for, other_architectures, same_bits, there, within,
};
use crate::norm::Operation;
use crate::norm::pass::Pass;
use crate::norm::softmax::{Case, Values};
use crate::subject::Subject;

/// Runs, schedules and device sizes give the same bits.
pub(in super::super) fn softmax_same_bits(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for kind in SoftmaxKind::ALL {
        for keys in [60, 997, 20_001] {
            let rows = if keys > 100 { 3 } else { 40 };
            let mut case = Case::new(kind, rows, keys, FLOATS[index % 3]);
            case.values = Values::Wide;
            case.pass = [Pass::Backward, Pass::BackwardInPlace][index % 2];
            case.seed = 9000 + index as u64;
            same_bits(&mut held, subject, &case.problem())?;
            index += 1;
        }
    }
    Ok(held)
}

/// Bytes against the least there is: the forward reads each key that a row sees once and writes each y
/// once. Two f32 a row come besides.
pub(in super::super) fn softmax_traffic(subject: &Subject, effort: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    for (rows, keys, dtype, causal) in [
        (64, 64, DType::Bf16, None),
        (16, 1024, DType::Bf16, None),
        (16, 1024, DType::F32, Some(Causal::Offset(500))),
        (4, 8192, DType::Bf16, None),
        (2, 65_536, DType::Bf16, None),
        (2, 262_144, DType::Bf16, None),
    ] {
        if is_long_for(subject, effort, keys) {
            continue;
        }
        let mut case = Case::new(SoftmaxKind::Softmax, rows, keys, dtype);
        case.options.causal = causal;
        case.pass = Pass::Forward;
        let problem = case.problem();
        let seen: usize = (0..rows).map(|row| problem.visible(row)).sum();
        let mut budget = Budget {
            loads: seen * dtype.size(),
            stores: rows * keys * dtype.size() + 8 * rows,
            // Vectors and sectors that a row's end shares with what it does not see.
            more: 1024 + 32 * rows,
        };
        within(&mut held, device(subject, 0)?, &problem, &budget)?;
        // The backward reads y and dy once each, and writes dx once.
        case.pass = Pass::Backward;
        let problem = case.problem();
        budget.loads += 2 * seen * dtype.size();
        budget.stores += rows * keys * dtype.size();
        budget.more *= 3;
        within(&mut held, device(subject, 0)?, &problem, &budget)?;
    }
    Ok(held)
}

/// Rows 2^32 elements apart, and a row that begins past them: in memory of which the rows alone are
/// touched.
pub(in super::super) fn softmax_past_two_to_the_32(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    if subject.kind() == DeviceKind::Cpu {
        return Held::skipped("16 GiB, of which the CPU would touch every page");
    }
    if effort == Effort::Quick {
        return Held::skipped("only in full");
    }
    match far_apart(device(subject, 0)?) {
        Ok(true) => Ok(Held {
            problems: 1,
            ..Held::default()
        }),
        Ok(false) => Err("rows 2^32 elements apart have other results than neighbours".into()),
        Err(Error::OutOfMemory { bytes }) => {
            Held::skipped(format!("{bytes} bytes could not be allocated"))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether two rows far apart have the results of the same rows side by side.
fn far_apart(device: &Device) -> evenkeel::Result<bool> {
    // Whole vectors: the order of sums is the same near and far.
    const KEYS: usize = 304;
    const STRIDE: usize = (1 << 32) + 8;
    let stream = device.stream()?;
    let op = Softmax::new(SoftmaxKind::Softmax).prepare(&stream)?;
    let problem = Case::new(SoftmaxKind::Softmax, 2, KEYS, DType::Bf16).problem();
    let near = problem.x.upload(&stream)?;
    let near = op.forward(problem.x.place.view(&near)?, None)?;
    let mut memory = stream.uninitialised(DType::Bf16, &[STRIDE + KEYS])?;
    for row in 0..2 {
        let values: Vec<bf16> = problem
            .x
            .row(row)
            .iter()
            .map(|&x| bf16::from_f64(x))
            .collect();
        memory.write_range(row * STRIDE, &values)?;
    }
    let rows = memory.view_mut().strided(&[2, KEYS], STRIDE)?;
    op.forward_in_place(rows, None, &mut SoftmaxStatistics::default())?;
    let near = near.y.read::<bf16>()?;
    for row in 0..2 {
        let begin = row * STRIDE;
        let far = memory.read_range::<bf16>(begin..begin + KEYS)?;
        if far != near[row * KEYS..(row + 1) * KEYS] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// On GPUs without large clusters, with their limits.
pub(in super::super) fn softmax_on_other_architectures(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    if !emulated(subject) {
        return Held::skipped("architectures are the emulator's to choose");
    }
    let mut held = Held::default();
    for (index, device) in other_architectures()?.into_iter().enumerate() {
        for kind in SoftmaxKind::ALL {
            for keys in [1000, 33_000, 131_072] {
                if is_long_for(subject, effort, keys) {
                    continue;
                }
                let mut case = Case::new(kind, 2, keys, FLOATS[(index + keys) % 3]);
                case.layouts[0].gap = 1;
                case.seed = 9100 + index as u64;
                held.check(&device, &case.problem())?;
            }
        }
    }
    Ok(held)
}

/// Rows enough that each block takes several; a group of threads, a warp, a block, a cluster a row.
pub(in super::super) fn workloads(quick: bool) -> Vec<Workload> {
    let mut shapes = vec![
        (SoftmaxKind::Softmax, 300, 60, DType::Bf16, 1),
        (SoftmaxKind::StableMax, 60, 1000, DType::F16, 1),
        (SoftmaxKind::LogSoftmax, 12, 6001, DType::F32, 1),
        (SoftmaxKind::StableMax, 8, 20_000, DType::Bf16, 2),
    ];
    if !quick {
        shapes.push((SoftmaxKind::Softmax, 4, 70_000, DType::Bf16, 8));
        shapes.push((SoftmaxKind::StableMax, 3, 140_000, DType::F32, 16));
    }
    shapes
        .into_iter()
        .map(|(kind, rows, keys, dtype, multiprocessors)| {
            let mut case = Case::new(kind, rows, keys, dtype);
            case.seed = 11 + keys as u64;
            Workload {
                problem: Box::new(case.problem()),
                multiprocessors,
            }
        })
        .collect()
}
