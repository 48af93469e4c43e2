//! Grids of problems against the reference.
//!
//! The grids are products where the product is small and samples where it is not; `random` fills
//! what lies between. Sizes are chosen for the emulator, which computes a few million logits a
//! second: a grid takes seconds there.

use evenkeel::loss::{KernelPath, Objective, Reduction, Statistic};
use evenkeel::{DType, DeviceKind};

use super::{Effort, Held, told};
use crate::loss::bounds::Arithmetic;
use crate::loss::cases::{
    INTEGERS, LOGITS, SMALL_VOCABULARIES, VARIANTS, VOCABULARIES, Variant, criteria,
};
use crate::loss::{Case, Mode, Values, run};
use crate::memory::Layout;
use crate::subject::Subject;

/// Both kernels on a device that has both.
const PATHS: [Option<KernelPath>; 2] = [Some(KernelPath::Cluster), Some(KernelPath::Block)];

/// The paths to try: one where there is no choice.
fn paths(subject: &Subject) -> &'static [Option<KernelPath>] {
    match subject.kind() {
        DeviceKind::Cpu => &PATHS[..1],
        _ => &PATHS,
    }
}

/// Each criterion in each mode, on each type of logits and kernel. Rows of 100 classes: a few
/// vectors and a ragged end; 5 tokens, one of them ignored more often than not.
pub(super) fn every_criterion_in_every_mode(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for criterion in criteria() {
        for mode in Mode::ALL {
            for dtype in LOGITS {
                for &path in paths(subject) {
                    let mut case = Case::new(5, 100, dtype);
                    case.options.criterion = criterion;
                    case.mode = mode;
                    case.path = path;
                    case.gradient = if index % 2 == 0 { dtype } else { DType::F32 };
                    case.targets = INTEGERS[index % 3];
                    case.ignored = 0.2;
                    case.upstream = index % 4 < 2;
                    case.seed = index as u64;
                    held.check(
                        subject.device(index).map_err(|e| e.to_string())?,
                        &case.problem(),
                    )?;
                    index += 1;
                }
            }
        }
    }
    Ok(held)
}

fn apply(case: &mut Case, variant: &Variant) {
    (variant.set)(&mut case.options);
    case.class_mask = variant.class_mask;
    case.token_weights = variant.token_weights;
}

/// Each option with each of four objectives that use different statistics, forward and backward.
pub(super) fn every_option(subject: &Subject, _: Effort) -> Result<Held, String> {
    let objectives = [
        Objective::Nll,
        Objective::Power(0.5),
        Objective::Focal(2.0),
        Objective::Deft,
    ];
    let mut held = Held::default();
    let mut index = 0;
    for variant in &VARIANTS {
        for objective in objectives {
            for mode in [
                Mode::ForwardBackward,
                Mode::InPlace,
                Mode::Backward,
                Mode::LogProbs,
            ] {
                for &path in paths(subject) {
                    let mut case = Case::new(4, 257, LOGITS[index % 3]);
                    case.options.criterion = objective.into();
                    apply(&mut case, variant);
                    case.mode = mode;
                    case.path = path;
                    case.upstream = true;
                    case.gradient = if index % 2 == 0 {
                        case.dtype
                    } else {
                        DType::F32
                    };
                    case.seed = 1000 + index as u64;
                    held.check(
                        subject.device(index).map_err(|e| e.to_string())?,
                        &case.problem(),
                    )?;
                    index += 1;
                }
            }
        }
    }
    Ok(held)
}

/// Each reduction in each mode; 70 tokens outnumber the clusters of a device of one multiprocessor.
pub(super) fn every_reduction(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for reduction in Reduction::ALL {
        for mode in Mode::ALL {
            for tokens in [1, 9, 70] {
                let mut case = Case::new(tokens, 31, LOGITS[index % 3]);
                case.options.reduction = reduction;
                case.options.criterion = Objective::Linear.above(0.1);
                case.mode = mode;
                case.path = PATHS[index % 2];
                case.ignored = 0.3;
                case.upstream = true;
                case.token_weights = index % 2 == 0;
                case.targets = INTEGERS[index % 3];
                case.seed = 2000 + index as u64;
                held.check(
                    subject.device(index).map_err(|e| e.to_string())?,
                    &case.problem(),
                )?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// Logits at each of the eight places of a 16-byte vector, the gradient at another, strides that
/// move every row to another place, and rows so short that they have no vector at all.
pub(super) fn every_alignment(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for dtype in LOGITS {
        for phase in 0..16 / dtype.size() {
            for &path in paths(subject) {
                for vocab in [5, 67] {
                    let mut case = Case::new(3, vocab, dtype);
                    case.layout = Layout {
                        phase,
                        padding: index % 3,
                        gap: 1 + index % 5,
                    };
                    case.gradient_layout = Layout {
                        phase: (3 * phase + 1) % 8,
                        padding: index % 4,
                        gap: index % 2,
                    };
                    case.mode = [Mode::ForwardBackward, Mode::InPlace, Mode::Backward][index % 3];
                    case.gradient = if index % 2 == 0 { dtype } else { DType::F32 };
                    case.path = path;
                    case.ignored = 0.3;
                    case.class_mask = index % 5 == 0;
                    case.seed = 3000 + index as u64;
                    held.check(
                        subject.device(index).map_err(|e| e.to_string())?,
                        &case.problem(),
                    )?;
                    index += 1;
                }
            }
        }
    }
    Ok(held)
}

/// Every vocabulary: the small ones in each type and on each kernel, the real ones on two rows (one
/// for the largest), where a cluster's exchange and the longest sums are.
pub(super) fn vocabularies(subject: &Subject, effort: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    let mut check = |case: &mut Case, held: &mut Held| {
        case.seed = 4000 + index as u64;
        case.ignored = 0.0;
        // Seed 0's device holds the largest clusters; the others take their turn.
        let device = if case.vocab > 4099 {
            2 * (index % 2)
        } else {
            index
        };
        index += 1;
        held.check(
            subject.device(device).map_err(|e| e.to_string())?,
            &case.problem(),
        )
    };
    for vocab in SMALL_VOCABULARIES {
        for dtype in LOGITS {
            for &path in paths(subject) {
                let mut case = Case::new(3, vocab, dtype);
                case.path = path;
                case.mode = if vocab % 2 == 0 {
                    Mode::ForwardBackward
                } else {
                    Mode::Backward
                };
                check(&mut case, &mut held)?;
            }
        }
    }
    let real = if effort == Effort::Quick {
        &VOCABULARIES[..2]
    } else {
        &VOCABULARIES[..]
    };
    for &vocab in real {
        for (dtype, mode) in [
            (DType::Bf16, Mode::InPlace),
            (DType::F32, Mode::ForwardBackward),
        ] {
            let mut case = Case::new(if vocab > 100_000 { 1 } else { 2 }, vocab, dtype);
            case.mode = mode;
            check(&mut case, &mut held)?;
        }
        let mut case = Case::new(1, vocab, DType::Bf16);
        case.path = Some(KernelPath::Block);
        case.mode = Mode::Backward;
        check(&mut case, &mut held)?;
    }
    Ok(held)
}

/// Each way to draw logits, where digits are lost by formulas less careful than these.
pub(super) fn extremes(subject: &Subject, _: Effort) -> Result<Held, String> {
    let objectives = [
        Objective::Nll,
        Objective::Linear,
        Objective::Power(0.1),
        Objective::Power(10.0),
        Objective::Focal(0.5),
        Objective::Focal(2.0),
        Objective::Poly1(-1.0),
        Objective::Deft,
    ];
    let mut held = Held::default();
    let mut index = 0;
    for values in Values::ALL {
        for objective in objectives {
            for dtype in LOGITS {
                let mut case = Case::new(3, 131, dtype);
                case.values = values;
                case.options.criterion = objective.into();
                case.path = PATHS[index % 2];
                case.mode = [Mode::ForwardBackward, Mode::Backward][index / 2 % 2];
                case.gradient = DType::F32;
                if index % 7 == 0 {
                    apply(&mut case, &VARIANTS[index / 7 % VARIANTS.len()]);
                }
                case.seed = 5000 + index as u64;
                held.check(
                    subject.device(index).map_err(|e| e.to_string())?,
                    &case.problem(),
                )?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// Logits that are multiples of 2^-6 below 8, and the same plus 4096: both exact in f32, so that
/// every difference to the maximum, and with it every bit of lp, p, H and the gradient, is the same.
pub(super) fn a_common_offset_changes_nothing(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, &path) in paths(subject).iter().enumerate() {
        for vocab in [33, 1000] {
            let mut case = Case::new(3, vocab, DType::F32);
            case.path = path;
            case.seed = 6000 + index as u64;
            let mut problem = case.problem();
            for x in &mut problem.logits {
                *x = (x.clamp(-8.0, 8.0) * 64.0).round() / 64.0;
            }
            let mut shifted = problem.clone();
            shifted.logits.iter_mut().for_each(|x| *x += 4096.0);
            let device = subject.device(index).map_err(|e| e.to_string())?;
            held.check(device, &problem)?;
            held.check(device, &shifted)?;
            let one = run(device, &problem).map_err(|error| told(&error, &problem))?;
            let other = run(device, &shifted).map_err(|error| told(&error, &shifted))?;
            if one.memory != other.memory {
                return Err(format!(
                    "an offset changed the gradient of {}",
                    problem.name
                ));
            }
            for statistic in [
                Statistic::Lp,
                Statistic::P,
                Statistic::Entropy,
                Statistic::El2n,
            ] {
                if one.statistic(statistic) != other.statistic(statistic) {
                    return Err(format!(
                        "an offset changed {statistic:?} of {}",
                        problem.name
                    ));
                }
            }
        }
    }
    Ok(held)
}

/// The gradient of a function of the softmax sums to 0 over the classes, within the relative error of
/// its elements (their exponentials here are above e^-40) times their sizes, on both sides of 0.
pub(super) fn gradients_sum_to_zero(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, criterion) in criteria().into_iter().enumerate() {
        let mut case = Case::new(2, 300, DType::F32);
        case.options.criterion = criterion;
        case.options.entropy = 0.1;
        case.options.label_smoothing = 0.1;
        case.options.temperature = 2.0;
        case.path = PATHS[index % 2];
        case.seed = 7000 + index as u64;
        let problem = case.problem();
        let device = subject.device(index).map_err(|e| e.to_string())?;
        held.check(device, &problem)?;
        let outcome = run(device, &problem).map_err(|error| told(&error, &problem))?;
        let path = outcome.path.unwrap_or(KernelPath::Block);
        let on = Arithmetic::new(path, problem.vocab, problem.dtype.size());
        let bound = 2.0 * (6.0 * on.steps + 3.0 * 40.0 + 20.0) * on.unit;
        for token in 0..problem.tokens {
            let row = outcome.row(problem.gradient_layout, problem.vocab, token);
            let sum: f64 = row.iter().sum();
            let size: f64 = row.iter().map(|x| x.abs()).sum();
            if sum.abs() > bound * size + f64::from(f32::EPSILON) * size {
                return Err(format!(
                    "the gradient of token {token} sums to {sum:e} of {size:e}: {}",
                    problem.name
                ));
            }
        }
    }
    Ok(held)
}
