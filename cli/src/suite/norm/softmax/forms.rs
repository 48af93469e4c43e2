//! What must not depend on how a softmax is called: its rank, what is asked for, who allocates.

use evenkeel::norm::{Softmax, SoftmaxIncoming, SoftmaxKind, SoftmaxStatistics};
use evenkeel::{Result as Outcome, Stream};

use super::super::super::{Effort, Held, expect};
use super::proofs::{FLOATS, computed, device, there};
use crate::memory::download;
use crate::norm::Operation;
use crate::norm::softmax::{Case, Problem};
use crate::subject::Subject;

/// One dimension is one row; of more, the last two are queries and keys, and the rest is blocks.
pub(in super::super) fn softmax_ranks(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let mut held = Held::default();
    let mut index = 0;
    for kind in SoftmaxKind::ALL {
        for shape in [&[31][..], &[6, 31], &[2, 3, 31], &[2, 1, 3, 31]] {
            for batches in [None, Some(1)] {
                let rows = shape[..shape.len() - 1].iter().product();
                let mut case = Case::new(kind, rows, 31, FLOATS[index % 3]);
                case.batches = batches;
                case.seed = 9500 + index as u64;
                let mut problem = case.problem();
                problem.name = format!("{}, as {shape:?}", problem.name);
                for place in [
                    &mut problem.x.place,
                    &mut problem.y,
                    &mut problem.dy.place,
                    &mut problem.dx,
                ] {
                    place.shape = shape.to_vec();
                }
                held.check(device(subject, index)?, &problem)?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// The forms that allocate, and those that ask for less, give the same bits.
pub(in super::super) fn softmax_forms_agree(subject: &Subject, _: Effort) -> Result<Held, String> {
    if let Some(skipped) = there(subject, Operation::Softmax) {
        return skipped;
    }
    let mut held = Held::default();
    for (index, kind) in SoftmaxKind::ALL.into_iter().enumerate() {
        for dtype in FLOATS {
            let mut case = Case::new(kind, 4, 77, dtype);
            case.seed = 9600 + index as u64;
            let problem = case.problem();
            let on = device(subject, index)?;
            let whole = computed(&mut held, on, &problem)?;
            let other = on
                .stream()
                .and_then(|stream| allocating(&stream, &problem))
                .map_err(|error| error.to_string())?;
            let wanted = [
                whole.y.values(),
                whole.entropy.values(),
                whole.normalizer.values(),
                whole.dx.map(|dx| dx.values()).unwrap_or_default(),
                whole.y.values(),
            ];
            expect("the same of every form", other == wanted, &problem)?;
        }
    }
    Ok(held)
}

/// y, entropy, normalizer and dx of the forms that allocate; y without statistics.
fn allocating(stream: &Stream, problem: &Problem) -> Outcome<[Vec<f64>; 5]> {
    let op = Softmax::from(problem.options).prepare(stream)?;
    let x = problem.x.upload(stream)?;
    let x = problem.x.place.view(&x)?;
    let result = op.forward(x, None)?;
    let dy = problem.dy.upload(stream)?;
    let weights: Vec<f32> = problem
        .dentropy
        .iter()
        .flatten()
        .map(|&x| x as f32)
        .collect();
    let dentropy = stream.upload(&[weights.len()], &weights)?;
    let mut incoming = SoftmaxIncoming::default().dentropy(dentropy.view());
    // The others' backward does without.
    if problem.options.kind == SoftmaxKind::StableMax {
        incoming = incoming.normalizer(result.normalizer.view());
    }
    let dy = problem.dy.place.view(&dy)?;
    let dx = op.backward(result.y.view(), None, dy, &incoming)?;
    let mut alone = stream.zeros(problem.y.dtype, &problem.y.shape)?;
    let mut none = SoftmaxStatistics::default();
    op.forward_into(x, None, alone.view_mut(), &mut none)?;
    Ok([
        download(&result.y)?,
        download(&result.entropy)?,
        download(&result.normalizer)?,
        download(&dx)?,
        download(&alone)?,
    ])
}
