//! Bytes that a forward and a backward move, as the emulator counts them.

use evenkeel::norm::NormOptions;
use evenkeel::{DType, DeviceKind};

use super::{Effort, Held, OPERATIONS, told, tried};
use crate::memory::Layout;
use crate::norm::Operation;
use crate::norm::rows::{Case, Problem};
use crate::subject::Subject;

/// What a row brings along beside its elements: its statistics, its share of a status word and of a
/// launch's parameters.
const OF_A_ROW: f64 = 64.0;

/// Columns that the registers of a block hold in any type, of rows with a gate.
const HELD: usize = 4096;

/// The least and the most bytes that a forward may read and write.
///
/// Reads: each element of x, and of residual or gate, once, but for gated rows that no block holds
/// (clusters have no kernel for them), which are read twice; a row's weights once for each row (hardware
/// finds them in a cache, the emulator counts them), or once for all where a block keeps them; the
/// angles of its rotary embedding. Writes: y, the stream and the statistics once.
fn bounds(problem: &Problem) -> [(f64, f64); 2] {
    let (shape, elements) = (problem.shape, problem.shape.elements() as f64);
    let rows = shape.rows() as f64;
    let size = |dtype: DType| dtype.size() as f64;
    let mut read = elements * size(problem.x.dtype);
    let mut written = elements * size(problem.y.0);
    if let Some(residual) = &problem.residual {
        read += elements * size(residual.dtype);
        written += elements * size(problem.stream.0);
    }
    if let Some(z) = &problem.z {
        read += elements * size(z.dtype);
    }
    let (mut once, mut each_row) = (0.0, 0.0);
    for weight in [&problem.gamma, &problem.beta].into_iter().flatten() {
        let bytes = size(weight.dtype);
        once += weight.values.len() as f64 * bytes;
        each_row += rows * shape.columns as f64 * bytes;
    }
    if let Some(tables) = &problem.tables {
        // Half of the pairs' elements may be read by both threads of a pair.
        each_row += 4.0 * rows * (tables.pairs * tables.dtype.size()) as f64 + 8.0 * rows;
    }
    if problem.statistics {
        written += 4.0 * rows * if problem.is_layer() { 2.0 } else { 1.0 };
    }
    let looks = match problem.operation {
        Operation::GatedNorm if shape.columns > HELD => 2.0,
        _ => 1.0,
    };
    let slack = OF_A_ROW * rows + 1024.0;
    [
        (
            read + once.min(each_row),
            looks * read + each_row.max(once) + slack,
        ),
        (written, written + slack),
    ]
}

/// Every operation on rows short and long, aligned and not.
pub(in super::super) fn bytes_of_norms(subject: &Subject, effort: Effort) -> Result<Held, String> {
    if subject.kind() != DeviceKind::Emulated {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    let mut widths = vec![64, 128, 1000, 4096, 16_384];
    if effort == Effort::Full {
        widths.extend([65_536, 131_072, 262_144]);
    }
    for operation in OPERATIONS {
        if !operation.is_on(subject.kind()) {
            continue;
        }
        for (index, &columns) in widths.iter().enumerate() {
            if operation == Operation::HeadNorm && columns > 1000 {
                continue;
            }
            for (layer, residual, gap) in [(false, false, 0), (true, true, 0), (false, true, 3)] {
                let tokens = (30_000 / columns).clamp(1, 40);
                let dtype = [DType::Bf16, DType::F32][index % 2];
                let mut case = Case::new(operation, tokens, columns, dtype);
                if operation == Operation::HeadNorm {
                    case.heads = 4;
                }
                case.norm = Some(if layer {
                    NormOptions::layer()
                } else {
                    NormOptions::rms()
                });
                (case.beta, case.residual) = (layer, residual);
                case.layout = Layout {
                    gap,
                    ..Layout::default()
                };
                case.backward = false;
                let problem = case.problem();
                let device = subject.device(0).map_err(|error| error.to_string())?;
                let bytes =
                    crate::traffic::of(device, &problem).map_err(|error| told(&error, &problem))?;
                held.problems += 1;
                let [reads, writes] = bounds(&problem);
                for (what, got, (least, most)) in [
                    ("read", bytes.loads as f64, reads),
                    ("written", bytes.stores as f64, writes),
                ] {
                    if got < least || got > most {
                        return Err(format!(
                            "{got} bytes {what}, expected {least} to {most}: {}",
                            problem.name
                        ));
                    }
                }
            }
        }
    }
    tried(held)
}

/// The backward of rows that registers hold, without weights, which would be read again for each row:
/// x, dy and the stream's gradient are read once, dx and the residual's gradient written once. Each
/// thread's read of the row's statistics counts; a thread has 8 columns at least.
pub(in super::super) fn bytes_of_gradients(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    if subject.kind() != DeviceKind::Emulated {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    let mut widths = vec![128, 1000, 4096, 16_384];
    if effort == Effort::Full {
        widths.push(65_536);
    }
    for (index, &columns) in widths.iter().enumerate() {
        for (layer, residual) in [(false, true), (true, true), (false, false)] {
            let tokens = (30_000 / columns).clamp(1, 40);
            let dtype = [DType::Bf16, DType::F32][index % 2];
            let mut case = Case::new(Operation::Norm, tokens, columns, dtype);
            case.norm = Some(if layer {
                NormOptions::layer()
            } else {
                NormOptions::rms()
            });
            (case.gamma, case.beta, case.weight_gradients) = (false, false, false);
            (case.residual, case.stream_gradients) = (residual, residual);
            let problem = case.problem();
            let device = subject.device(0).map_err(|error| error.to_string())?;
            let bytes = crate::traffic::of_kernels(device, &problem, "norm_backward")
                .map_err(|error| told(&error, &problem))?;
            held.problems += 1;
            let rows = tokens as f64;
            let element = (tokens * columns * dtype.size()) as f64;
            let statistics = rows * if layer { 8.0 } else { 4.0 };
            let threads = (columns / 8 + 32) as f64;
            let (read, written) = match residual {
                true => (3.0 * element, 2.0 * element),
                false => (2.0 * element, element),
            };
            for (what, got, least, most) in [
                (
                    "read",
                    bytes.loads as f64,
                    read,
                    read + statistics * threads,
                ),
                ("written", bytes.stores as f64, written, written),
            ] {
                if got < least || got > most + 1024.0 {
                    return Err(format!(
                        "{got} bytes {what}, expected {least} to {most}: {}",
                        problem.name
                    ));
                }
            }
        }
    }
    tried(held)
}
