//! Problems that go through every synchronisation of the kernels.

use evenkeel::DType;
use evenkeel::DeviceKind;
use evenkeel::norm::{NormKind, NormOptions, Pairing, Rotary};

use super::super::super::Workload;
use super::OPERATIONS;
use crate::norm::Operation;
use crate::norm::rows::{Case, Form};

/// Rows enough that each block takes several, at widths of each rung of the ladder; sums over rows of
/// many blocks.
pub(in super::super) fn workloads(quick: bool) -> Vec<Workload> {
    let mut all = Vec::new();
    let mut widths = vec![(200, 60), (60, 130), (40, 1000), (20, 4099), (6, 17_000)];
    if !quick {
        widths.extend([(5, 40_000), (5, 70_001), (5, 140_000)]);
    }
    for operation in OPERATIONS {
        if !operation.is_on(DeviceKind::Emulated) {
            continue;
        }
        for (index, &(tokens, columns)) in widths.iter().enumerate() {
            if operation == Operation::HeadNorm && columns > 130 {
                continue;
            }
            for kind in NormKind::ALL {
                let dtype = [DType::Bf16, DType::F32][index % 2];
                let mut case = Case::new(operation, tokens, columns, dtype);
                if operation == Operation::HeadNorm {
                    case.heads = 3;
                    case.rotary = Some(Rotary::new(Pairing::HalfSplit, 32));
                }
                case.norm = Some(NormOptions::new(kind));
                (case.beta, case.residual, case.stream_gradients) = (true, true, true);
                case.form = [Form::Apart, Form::InPlace][index % 2];
                case.accumulate = true;
                case.layout.gap = index % 3;
                case.seed = 11 + columns as u64;
                all.push(Workload {
                    problem: Box::new(case.problem()),
                    // The largest cluster has 16 blocks.
                    multiprocessors: if columns > 16_384 { 16 } else { 1 },
                });
            }
        }
    }
    all
}
