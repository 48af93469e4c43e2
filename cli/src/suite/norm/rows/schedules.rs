//! What must not depend on who runs a problem.

use evenkeel::norm::{NormKind, NormOptions};

use super::{Effort, Held, OPERATIONS, emulated, operations, told, tried};
use crate::norm::Operation;
use crate::norm::rows::cases::FLOATS;
use crate::norm::rows::{Case, Form, Values, run};
use crate::subject::Subject;

/// Outputs of one row each: no other row, and no number of multiprocessors, is in them.
const OF_A_ROW: &[&str] = &["y", "stream", "rstd", "mean", "dx", "dresidual", "dz"];

/// Columns of a row that every device keeps in one block.
const OF_A_BLOCK: usize = 4096;

/// Two runs on each device give the same bits, and all devices the same but for sums over rows, whose
/// order may follow the number of multiprocessors, and for rows of a cluster that some have no room
/// for: the emulator's devices differ in that number and in schedule.
pub(in super::super) fn the_same_bits_every_time(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for operation in operations(subject) {
        for dtype in FLOATS {
            for (tokens, columns) in [(40, 60), (5, 997), (2, 17_000)] {
                if operation == Operation::HeadNorm && columns > 1000 {
                    continue;
                }
                let mut case = Case::new(operation, tokens, columns, dtype);
                if operation == Operation::HeadNorm {
                    case.heads = 3;
                }
                case.norm = Some(NormOptions::new(NormKind::ALL[index % 2]));
                case.values = Values::Wide;
                case.form = [Form::Apart, Form::InPlace][index % 2];
                (case.residual, case.stream_gradients, case.beta) = (true, true, true);
                case.seed = 9000 + index as u64;
                let problem = case.problem();
                let once = |device| run(device, &problem).map_err(|error| told(&error, &problem));
                let first = subject.device(0).map_err(|error| error.to_string())?;
                let expected = once(first)?;
                for device in subject.devices() {
                    let got = once(device)?;
                    held.problems += 1;
                    if columns <= OF_A_BLOCK && !got.same_bits(&expected, OF_A_ROW) {
                        return Err(format!("other bits on {}: {}", device.name(), problem.name));
                    }
                    if !once(device)?.same_bits(&got, &[]) {
                        return Err(format!("other bits the second time: {}", problem.name));
                    }
                }
                index += 1;
            }
        }
    }
    tried(held)
}

/// GPUs without large clusters, with their limits.
pub(in super::super) fn norms_on_other_architectures(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("architectures are the emulator's to choose");
    }
    architectures()
}

#[cfg(not(feature = "emulator"))]
fn architectures() -> Result<Held, String> {
    let _ = OPERATIONS;
    Held::skipped("this build has no emulator")
}

#[cfg(feature = "emulator")]
fn architectures() -> Result<Held, String> {
    use evenkeel::emulator::Architecture;
    use evenkeel::{Device, DeviceKind, EmulatorOptions};
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
        for operation in OPERATIONS {
            if !operation.is_on(DeviceKind::Emulated) {
                continue;
            }
            for (columns, form) in [
                (128, Form::InPlace),
                (1001, Form::Apart),
                (40_000, Form::Apart),
                // Aligned, and more than registers hold without clusters: in segments.
                (16_384, Form::Apart),
            ] {
                if operation == Operation::HeadNorm && columns > 1000
                    || operation != Operation::Norm && columns == 16_384
                {
                    continue;
                }
                let mut case = Case::new(operation, 3, columns, FLOATS[index % 3]);
                (case.form, case.beta, case.residual) = (form, true, true);
                case.norm = Some(NormOptions::new(NormKind::ALL[(index + columns) % 2]));
                case.layout.gap = usize::from(columns != 16_384);
                case.seed = 9100 + index as u64;
                held.check(&device, &case.problem())?;
            }
        }
    }
    tried(held)
}
