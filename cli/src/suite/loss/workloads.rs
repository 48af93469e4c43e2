//! Problems that go through every synchronisation of the kernels.

use evenkeel::DType;
use evenkeel::loss::{Denominator, KernelPath, Objective, Reduction};

use super::super::Workload;
use crate::loss::{Case, Mode};

/// Rows enough that each block of the kernels takes several, so that stages, boxes and scratch are
/// used again; one row in a block, in a cluster of two (30001 f32 logits), of four (128256 in bf16).
pub(super) fn workloads(quick: bool) -> Vec<Workload> {
    let make =
        |tokens: usize, vocab: usize, dtype: DType, path, multiprocessors, set: fn(&mut Case)| {
            let mut case = Case::new(tokens, vocab, dtype);
            case.path = Some(path);
            case.ignored = 0.1;
            case.seed = 11 + vocab as u64;
            set(&mut case);
            (case.problem(), multiprocessors)
        };
    let (cluster, block) = (KernelPath::Cluster, KernelPath::Block);
    let mut all = vec![
        make(200, 300, DType::Bf16, cluster, 1, |case| {
            case.mode = Mode::InPlace
        }),
        make(200, 301, DType::F32, cluster, 1, |case| {
            case.options.temperature = 0.8;
            case.options.label_smoothing = 0.1;
            case.options.criterion = Objective::Deft.into();
            case.options.reduction = Reduction::Mean(Denominator::Sequence);
        }),
        make(11, 30_001, DType::F32, cluster, 2, |case| {
            case.layout.gap = 1;
            case.mode = Mode::InPlace;
        }),
        make(80, 1001, DType::Bf16, block, 1, |case| case.layout.gap = 1),
        make(80, 999, DType::F16, block, 1, |case| {
            case.options.softcap = Some(10.0);
            case.options.criterion = Objective::Linear.above(0.1);
            case.options.reduction = Reduction::Mean(Denominator::Kept);
            case.mode = Mode::Backward;
        }),
        make(80, 500, DType::F32, block, 1, |case| {
            case.options.criterion = Objective::Nll.below(0.1);
            case.options.reduction = Reduction::Mean(Denominator::Kept);
            case.mode = Mode::InPlace;
        }),
        // Past the 512 threads that reduce a batch.
        make(1500, 3, DType::F32, block, 1, |case| {
            case.options.reduction = Reduction::Mean(Denominator::Sequence);
        }),
    ];
    // One pair of offsets out of order, which one thread of 512 sees.
    if let Some((problem, multiprocessors)) = all.last() {
        let mut problem = problem.clone();
        problem.offsets = (0..1200).collect();
        problem.offsets.swap(700, 701);
        problem.name = format!("{}, bad offsets", problem.name);
        all.push((problem, *multiprocessors));
    }
    if !quick {
        all.push(make(6, 128_256, DType::Bf16, cluster, 4, |case| {
            case.options.entropy = 0.1
        }));
    }
    all.into_iter()
        .map(|(problem, multiprocessors)| Workload {
            problem: Box::new(problem),
            multiprocessors,
        })
        .collect()
}
