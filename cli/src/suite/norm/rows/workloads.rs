//! Problems that go through every synchronisation of the kernels.

use evenkeel::norm::{NormKind, NormOptions, Pairing, Rotary};
use evenkeel::{DType, DeviceKind};

use super::super::super::Workload;
use super::OPERATIONS;
use crate::norm::Operation;
use crate::norm::rows::{Case, Form};

/// Tokens, columns and multiprocessors: rows enough that each team takes several, at widths of each
/// kind of team; as many multiprocessors as the row's cluster has blocks.
const ROWS: [(usize, usize, u32); 5] = [
    (200, 60, 1),
    (60, 130, 1),
    (40, 1000, 1),
    (20, 4099, 1),
    (12, 17_000, 4),
];

/// The larger clusters.
const LONG: [(usize, usize, u32); 3] = [(5, 40_000, 8), (5, 70_001, 16), (5, 140_000, 16)];

/// Tokens, heads and columns, pairing and width of their rotary embedding: partners in one thread and
/// in two, of one warp and of several; and more heads than blocks, so that a block has the weights of
/// one after the other.
const HEADS: [([usize; 3], Pairing, usize); 6] = [
    ([100, 3, 64], Pairing::HalfSplit, 64),
    ([60, 3, 130], Pairing::HalfSplit, 36),
    ([60, 3, 61], Pairing::Interleaved, 60),
    ([40, 3, 128], Pairing::Interleaved, 128),
    ([12, 3, 1000], Pairing::HalfSplit, 1000),
    ([10, 40, 62], Pairing::HalfSplit, 62),
];

/// Each operation on each of these.
pub(in super::super) fn workloads(quick: bool) -> Vec<Workload> {
    let mut all = Vec::new();
    let mut add = |mut case: Case, multiprocessors: u32, index: usize| {
        for kind in NormKind::ALL {
            case.norm = Some(NormOptions::new(kind));
            (case.beta, case.residual, case.stream_gradients) = (true, true, true);
            case.form = [Form::Apart, Form::InPlace][index % 2];
            case.accumulate = true;
            case.layout.gap = index % 3;
            case.seed = 11 + index as u64;
            all.push(Workload {
                problem: Box::new(case.problem()),
                multiprocessors,
            });
            if case.operation == Operation::Sdd {
                return;
            }
        }
    };
    let here = |operation: &Operation| operation.is_on(DeviceKind::Emulated);
    for operation in OPERATIONS.into_iter().filter(here) {
        let dtype = |index: usize| [DType::Bf16, DType::F32][index % 2];
        if operation == Operation::HeadNorm {
            for (index, (shape, pairing, width)) in HEADS.into_iter().enumerate() {
                let [tokens, heads, columns] = shape;
                let mut case = Case::new(operation, tokens, columns, dtype(index));
                case.heads = heads;
                case.rotary = Some(Rotary::new(pairing, width));
                add(case, 1, index);
            }
            continue;
        }
        let long = if quick { &[] } else { &LONG[..] };
        for (index, &(tokens, columns, multiprocessors)) in ROWS.iter().chain(long).enumerate() {
            let case = Case::new(operation, tokens, columns, dtype(index));
            add(case, multiprocessors, index);
        }
    }
    all
}
