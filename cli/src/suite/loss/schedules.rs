//! What the emulator alone can see, and what must not depend on who runs a problem.

use evenkeel::loss::{KernelPath, Reduction};
use evenkeel::{DType, DeviceKind};

use super::{Effort, Held, emulated, told};
use crate::loss::cases::LOGITS;
use crate::loss::{Case, Mode, Values, run};
use crate::subject::Subject;

/// Two runs on each device, and all devices with each other: the emulator's differ in schedule and
/// in the number of multiprocessors.
pub(super) fn the_same_bits_every_time(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for path in [KernelPath::Cluster, KernelPath::Block] {
        for dtype in LOGITS {
            for (vocab, reduction) in [
                (997, Reduction::Sum),
                (60, Reduction::Mean(evenkeel::loss::Denominator::Valid)),
            ] {
                let mut case = Case::new(if vocab > 100 { 3 } else { 40 }, vocab, dtype);
                case.path = Some(path);
                case.options.reduction = reduction;
                case.values = Values::Wide;
                case.mode = [Mode::InPlace, Mode::Backward][index % 2];
                case.seed = 9000 + index as u64;
                let problem = case.problem();
                let first = subject.device(0).map_err(|error| error.to_string())?;
                let expected = run(first, &problem).map_err(|error| told(&error, &problem))?;
                for device in subject.devices() {
                    let again = run(device, &problem).map_err(|error| told(&error, &problem))?;
                    held.problems += 1;
                    if !again.same_bits(&expected) {
                        return Err(format!("other bits on {}: {}", device.name(), problem.name));
                    }
                }
                let again = run(first, &problem).map_err(|error| told(&error, &problem))?;
                if !again.same_bits(&expected) {
                    return Err(format!("other bits the second time: {}", problem.name));
                }
                index += 1;
            }
        }
    }
    Ok(held)
}

/// The portable kernel on GPUs without large clusters, with their limits.
pub(super) fn other_architectures(subject: &Subject, _: Effort) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("architectures are the emulator's to choose");
    }
    architectures()
}

#[cfg(not(feature = "emulator"))]
fn architectures() -> Result<Held, String> {
    Held::skipped("this build has no emulator")
}

#[cfg(feature = "emulator")]
fn architectures() -> Result<Held, String> {
    use evenkeel::emulator::Architecture;
    use evenkeel::{Device, EmulatorOptions};
    let architectures = [
        Architecture::sm_80(),
        Architecture::sm_86(),
        Architecture::sm_89(),
        Architecture::sm_100(),
        Architecture::sm_120(),
    ];
    let mut held = Held::default();
    for (index, architecture) in architectures.into_iter().enumerate() {
        let options = EmulatorOptions::new()
            .architecture(architecture)
            .seed(index as u64);
        let device = Device::emulated_with(options).map_err(|error| error.to_string())?;
        for dtype in LOGITS {
            for mode in [Mode::InPlace, Mode::Backward] {
                let mut case = Case::new(3, 1000, dtype);
                case.mode = mode;
                case.layout.gap = 1;
                case.ignored = 0.3;
                case.seed = 9100 + index as u64;
                held.check(&device, &case.problem())?;
            }
        }
    }
    Ok(held)
}

/// The cluster kernel's ring with more rows than it holds, for each number of rows in flight: copies
/// that come late, groups that run ahead, boxes that are used again.
pub(super) fn rows_in_flight(subject: &Subject, effort: Effort) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("late copies are the emulator's to make");
    }
    rings(effort)
}

#[cfg(not(feature = "emulator"))]
fn rings(_: Effort) -> Result<Held, String> {
    Held::skipped("this build has no emulator")
}

#[cfg(feature = "emulator")]
fn rings(effort: Effort) -> Result<Held, String> {
    use evenkeel::emulator::Architecture;
    use evenkeel::{Device, EmulatorOptions};
    let seeds = if effort == Effort::Full { 4 } else { 1 };
    let mut held = Held::default();
    // Few multiprocessors, so that each cluster has many rows. In flight: 4 rows of one block, 3 of
    // one block, 3 of four blocks; and where no cluster of 16 fits, 2 and 1 of eight blocks.
    for (multiprocessors, tokens, vocab, dtype) in [
        (1, 40, 1000, DType::F16),
        (1, 14, 32_000, DType::Bf16),
        (4, 10, 128_256, DType::Bf16),
        (8, 6, 170_000, DType::F32),
        (8, 5, 262_144, DType::F32),
    ] {
        for seed in 0..seeds {
            let architecture = Architecture::sm_90().with_multiprocessors(multiprocessors);
            let options = EmulatorOptions::new().architecture(architecture).seed(seed);
            let device = Device::emulated_with(options).map_err(|error| error.to_string())?;
            let mut case = Case::new(tokens, vocab, dtype);
            case.path = Some(KernelPath::Cluster);
            case.mode = Mode::InPlace;
            // Ignored rows pass through the ring without a copy.
            case.ignored = if seed % 2 == 0 { 0.0 } else { 0.3 };
            case.seed = 9200 + seed;
            held.check(&device, &case.problem())?;
        }
    }
    Ok(held)
}

/// Bytes against the least there is: each valid row's logits once, each gradient once. What a token
/// brings besides (target, loss, flags, state) is allowed in full and is well below 1% of a real row.
pub(super) fn traffic(subject: &Subject, effort: Effort) -> Result<Held, String> {
    if subject.kind() != DeviceKind::Emulated {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    // On the cluster path every real vocabulary, the longest in both types; a row of each, and one
    // that is ignored.
    let mut shapes = vec![(32_000, DType::Bf16), (50_257, DType::Bf16)];
    if effort == Effort::Full {
        shapes.extend([
            (128_256, DType::Bf16),
            (151_936, DType::Bf16),
            (262_144, DType::Bf16),
            (128_256, DType::F32),
        ]);
    }
    for (vocab, dtype) in shapes {
        for (path, mode, reads, writes) in [
            (KernelPath::Cluster, Mode::InPlace, 1.0, 1.0),
            (KernelPath::Cluster, Mode::Forward, 1.0, 0.0),
            (KernelPath::Block, Mode::InPlace, 2.0, 1.0),
        ] {
            if vocab > 60_000 && mode != Mode::InPlace {
                continue;
            }
            if vocab > 60_000 && path == KernelPath::Block {
                continue;
            }
            let mut case = Case::new(3, vocab, dtype);
            (case.path, case.mode) = (Some(path), mode);
            let mut problem = case.problem();
            problem.targets[1] = problem.options.ignore_index;
            let device = subject.device(0).map_err(|error| error.to_string())?;
            let bytes =
                crate::traffic::of(device, &problem).map_err(|error| told(&error, &problem))?;
            held.problems += 1;
            let row = (vocab * dtype.size()) as f64;
            // Two rows are read; all three gradients are written, one of them as zeros.
            let (least_loads, least_stores) = (2.0 * row * reads, 3.0 * row * writes);
            for (what, got, least) in [
                ("read", bytes.loads, least_loads),
                ("written", bytes.stores, least_stores),
            ] {
                let most = 1.01 * least + 1024.0;
                let got = got as f64;
                if got < least || got > most {
                    return Err(format!(
                        "{got} bytes {what}, expected {least} to {most}: {}",
                        problem.name
                    ));
                }
            }
        }
    }
    Ok(held)
}
