//! What spec and documentation promise for data that are not as they should be.

use evenkeel::loss::{Denominator, KernelPath, Objective, Reduction, Statistic};
use evenkeel::{DType, Device, Status};

use super::{Effort, Held, expect, told};
use crate::loss::cases::LOGITS;
use crate::loss::{Case, Mode, Outcome, Problem, Values, run};
use crate::subject::Subject;

const PATHS: [KernelPath; 2] = [KernelPath::Cluster, KernelPath::Block];

/// Checks a problem against the reference, and gives what was computed for a closer look.
fn computed(held: &mut Held, device: &Device, problem: &Problem) -> Result<Outcome, String> {
    held.check(device, problem)?;
    run(device, problem).map_err(|error| told(&error, problem))
}

/// A small problem for each kernel and each type of logits.
fn each(
    subject: &Subject,
    mut check: impl FnMut(&mut Held, &Device, Case) -> Result<(), String>,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for path in PATHS {
        for dtype in LOGITS {
            for mode in [Mode::ForwardBackward, Mode::Backward, Mode::InPlace] {
                let mut case = Case::new(4, 43, dtype);
                case.path = Some(path);
                case.mode = mode;
                case.layout.padding = 3;
                case.gradient_layout.padding = 1;
                case.seed = 8000 + index as u64;
                let device = subject.device(index).map_err(|error| error.to_string())?;
                check(&mut held, device, case)?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// No tokens, and none that count: the loss is 0 under every reduction.
pub(super) fn empty_batches(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, reduction) in Reduction::ALL.into_iter().enumerate() {
        for (tokens, ignored) in [(0, 0.0), (3, 1.0)] {
            for mode in Mode::ALL {
                let mut case = Case::new(tokens, 19, LOGITS[index % 3]);
                case.options.reduction = reduction;
                case.ignored = ignored;
                case.mode = mode;
                case.path = Some(PATHS[index % 2]);
                let problem = case.problem();
                let device = subject.device(index).map_err(|error| error.to_string())?;
                let outcome = computed(&mut held, device, &problem)?;
                let zero = outcome.loss.is_none_or(|loss| loss == 0.0);
                expect("a loss of 0 without tokens", zero, &problem)?;
            }
        }
    }
    // A divisor of 0 tokens, by the caller.
    let mut case = Case::new(3, 19, DType::F32);
    case.options.reduction = Reduction::Mean(Denominator::Tokens);
    for on_device in [false, true] {
        let mut problem = case.problem();
        (problem.divisor, problem.divisor_on_device) = (0.0, on_device);
        let device = subject.device(0).map_err(|error| error.to_string())?;
        let outcome = computed(&mut held, device, &problem)?;
        expect(
            "a loss of 0 over 0 tokens",
            outcome.loss == Some(0.0),
            &problem,
        )?;
        let rows = (0..3).flat_map(|t| outcome.row(problem.gradient_layout, 19, t).to_vec());
        expect(
            "a gradient of 0 over 0 tokens",
            rows.into_iter().all(|x| x == 0.0),
            &problem,
        )?;
    }
    Ok(held)
}

/// Targets that are ignored, that are no class, and a class that is the ignored one.
pub(super) fn targets_that_are_no_class(subject: &Subject, _: Effort) -> Result<Held, String> {
    each(subject, |held, device, case| {
        let vocab = case.vocab as i64;
        // (targets, ignored one, type, whether a target is out of range)
        let sets: [([i64; 4], i64, DType, bool); 7] = [
            ([5, -100, 7, -100], -100, DType::I64, false),
            ([5, -1, 7, 2], -100, DType::I32, true),
            ([5, vocab, 7, 2], -100, DType::I64, true),
            ([5, vocab - 1, 7, 0], -100, DType::I32, false),
            // Beyond the class mask's words and far beyond the row.
            ([i64::MAX, 3, i64::MIN, 1 << 32], -100, DType::I64, true),
            // The ignored one is a class: it is never a target.
            ([5, 7, 5, 2], 5, DType::U32, false),
            ([5, 7, 5, -5], -5, DType::I64, false),
        ];
        for (targets, ignored, dtype, out_of_range) in sets {
            let mut problem = case.problem();
            problem.targets = targets.to_vec();
            problem.options.ignore_index = ignored;
            problem.target_type = dtype;
            problem.name = format!(
                "{} with targets {targets:?} and ignore_index {ignored}",
                problem.name
            );
            let outcome = computed(held, device, &problem)?;
            let told = outcome.status.contains(Status::TARGET_OUT_OF_RANGE);
            expect(
                "the status of targets out of range",
                told == out_of_range,
                &problem,
            )?;
            for (token, &target) in targets.iter().enumerate() {
                if target == ignored || !(0..vocab).contains(&target) {
                    let row = outcome.row(problem.gradient_layout, problem.vocab, token);
                    expect(
                        "zeros for a token without a class",
                        row.iter().all(|&x| x == 0.0),
                        &problem,
                    )?;
                }
            }
        }
        Ok(())
    })
}

/// Rows that hold NaN or +inf, or nothing: NaN for them, their neighbours as if alone.
pub(super) fn rows_that_are_not_finite(subject: &Subject, _: Effort) -> Result<Held, String> {
    let poisons: [fn(&mut [f32]); 6] = [
        |row| row[11] = f32::NAN,
        |row| row[0] = f32::INFINITY,
        |row| row.fill(f32::NEG_INFINITY),
        |row| row.fill(f32::NAN),
        |row| row[42] = -f32::NAN,
        |row| row.fill(f32::INFINITY),
    ];
    each(subject, |held, device, case| {
        let clean = case.problem();
        let alone = computed(held, device, &clean)?;
        for (index, poison) in poisons.iter().enumerate() {
            for at_target in [false, true] {
                let mut problem = clean.clone();
                problem.options.reduction = Reduction::None;
                problem.upstream_loss = Some(vec![1.0; 4]);
                let row = &mut problem.logits[problem.vocab..2 * problem.vocab];
                poison(row);
                if at_target {
                    // The target itself is one of the poisoned classes.
                    problem.targets[1] = [11, 0, 3, 3, 42, 3][index];
                }
                problem.name = format!("{}, row 1 spoilt in way {index}", problem.name);
                let outcome = computed(held, device, &problem)?;
                expect(
                    "NON_FINITE_ROW",
                    outcome.status.contains(Status::NON_FINITE_ROW),
                    &problem,
                )?;
                let row = outcome.row(problem.gradient_layout, problem.vocab, 1);
                let vocab = problem.vocab;
                expect(
                    "a gradient of NaN",
                    row[..vocab].iter().all(|x| x.is_nan()),
                    &problem,
                )?;
                expect(
                    "NaN loss",
                    outcome.statistic(Statistic::Loss)[1].is_nan(),
                    &problem,
                )?;
                for token in [0, 2, 3] {
                    let same = alone.statistic(Statistic::Lp)[token].to_bits()
                        == outcome.statistic(Statistic::Lp)[token].to_bits();
                    expect("the same lp of the neighbours", same, &problem)?;
                }
            }
        }
        // What the class mask removes may be anything.
        let mut problem = clean.clone();
        problem.class_mask = Some(vec![1 << 11, 1 << (42 - 32)]);
        for row in problem.logits.chunks_mut(problem.vocab) {
            (row[11], row[42]) = (f32::NAN, f32::INFINITY);
        }
        problem.targets = vec![0, 1, 2, 3];
        let outcome = computed(held, device, &problem)?;
        expect(
            "no status for what is masked",
            outcome.status == Status::empty(),
            &problem,
        )
    })
}

/// A target that is masked, by its bit or by -inf: p = 0.
pub(super) fn masked_targets(subject: &Subject, _: Effort) -> Result<Held, String> {
    let objectives = [
        Objective::Nll,
        Objective::Linear,
        Objective::Power(0.5),
        Objective::Power(-0.5),
        Objective::Dft,
        Objective::Focal(2.0),
        Objective::Poly1(1.0),
        Objective::Gce(0.7),
        Objective::Deft,
    ];
    each(subject, |held, device, case| {
        for objective in objectives {
            for by_bit in [false, true] {
                let mut case = case.clone();
                case.options.criterion = objective.into();
                let mut problem = case.problem();
                let target = problem.targets[2] as usize;
                if by_bit {
                    let mut mask = vec![0; 2];
                    mask[target / 32] |= 1 << (target % 32);
                    problem.class_mask = Some(mask);
                } else {
                    problem.logits[2 * problem.vocab + target] = f32::NEG_INFINITY;
                }
                problem.name = format!("{} with a masked target", problem.name);
                let outcome = computed(held, device, &problem)?;
                expect(
                    "TARGET_MASKED",
                    outcome.status.contains(Status::TARGET_MASKED),
                    &problem,
                )?;
                let row = outcome.row(problem.gradient_layout, problem.vocab, 2);
                expect("0 at a masked target", row[target] == 0.0, &problem)?;
                expect("p = 0", outcome.statistic(Statistic::P)[2] == 0.0, &problem)?;
            }
        }
        Ok(())
    })
}

/// p^a for negative a, past the largest f32 and short of it.
pub(super) fn saturation(subject: &Subject, _: Effort) -> Result<Held, String> {
    each(subject, |held, device, mut case| {
        case.options.criterion = Objective::Power(-2.0).into();
        case.options.reduction = Reduction::Sum;
        case.gradient = DType::F32;
        for (below, saturates) in [(20.0, false), (90.0, true)] {
            let mut problem = case.problem();
            for (row, &target) in problem
                .logits
                .chunks_mut(problem.vocab)
                .zip(&problem.targets)
            {
                row.fill(0.0);
                row[target as usize] = -below;
            }
            problem.name = format!("{}, targets {below} below", problem.name);
            let outcome = computed(held, device, &problem)?;
            let told = outcome.status.contains(Status::SATURATED);
            expect("SATURATED where p^a is", told == saturates, &problem)?;
        }
        // Spread so wide that no other class is left.
        let mut case = case.clone();
        case.values = Values::Wide;
        case.options.criterion = Objective::Linear.into();
        computed(held, device, &case.problem()).map(|_| ())
    })
}

/// Offsets of sequences that are no offsets: loss and gradient 0, and the status.
pub(super) fn bad_offsets(subject: &Subject, _: Effort) -> Result<Held, String> {
    let bad: [&[i64]; 5] = [&[0, 3, 2, 4], &[0, 5], &[-1, 4], &[4, 0], &[0, i64::MAX]];
    let good: [&[i64]; 5] = [&[0, 4], &[1, 3], &[0], &[2, 2, 2], &[0, 0, 4, 4]];
    let mut held = Held::default();
    for mode in [Mode::ForwardBackward, Mode::Backward] {
        for (offsets, is_bad) in bad
            .iter()
            .map(|offsets| (offsets, true))
            .chain(good.iter().map(|offsets| (offsets, false)))
        {
            let mut case = Case::new(4, 43, DType::Bf16);
            case.options.reduction = Reduction::Mean(Denominator::Sequence);
            case.mode = mode;
            let mut problem = case.problem();
            problem.name = format!("{} with offsets {offsets:?}", problem.name);
            problem.offsets = offsets.to_vec();
            let device = subject.device(0).map_err(|error| error.to_string())?;
            let outcome = computed(&mut held, device, &problem)?;
            let told = outcome.status.contains(Status::BAD_SEQUENCE_OFFSETS);
            expect("BAD_SEQUENCE_OFFSETS", told == is_bad, &problem)?;
            if !is_bad {
                continue;
            }
            expect("a loss of 0", outcome.loss == Some(0.0), &problem)?;
            let zeros = (0..4).all(|token| {
                outcome
                    .row(problem.gradient_layout, problem.vocab, token)
                    .iter()
                    .all(|&x| x == 0.0)
            });
            expect("a gradient of 0", zeros, &problem)?;
        }
    }
    Ok(held)
}
