//! The properties of dequantisation.

use evenkeel::quant::{Format, Hadamard, OutputOptions};
use evenkeel::reference::quant::Direction;
use proptest::prelude::*;

use super::super::super::proofs::{computed, device, layout, scattered};
use super::super::super::random::drawn;
use super::super::super::{Effort, Held, expect};
use super::cases::{layouts, rotations};
use crate::norm::rows::cases::FLOATS;
use crate::quant::{ValuesCase, decode};
use crate::subject::Subject;

/// Every format, direction, layout, rotation, type of values, with groups and without: all codes, NaN and
/// infinities among them, and scales of any size.
pub(in super::super) fn dequantised_values(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0_usize;
    for format in Format::ALL {
        for direction in Direction::ALL {
            for layout in layouts(format) {
                for rotation in rotations(31) {
                    for dtype in FLOATS {
                        index += 1;
                        let n = rotation.map_or(1, |rotation: Hadamard| rotation.n);
                        // Ragged, but for what a rotation divides.
                        let inner = if n == 1 { 45 + index % 90 } else { 128 };
                        let [rows, columns] = direction.orient([37, inner]);
                        let mut case = ValuesCase::new(rows, columns, dtype, format);
                        case.direction = direction;
                        case.output = OutputOptions::new().layout(layout);
                        case.output.rotation = rotation;
                        case.keep_rotation = index.is_multiple_of(7);
                        if index.is_multiple_of(3) && rows >= 32 && n <= 32 {
                            let rest = rows - 32;
                            case.groups = (rest % n == 0 || direction == Direction::RowWise)
                                .then(|| vec![32, 0, rest]);
                        }
                        case.any_scale = index.is_multiple_of(2);
                        case.allocated = index % 4 == 3;
                        let places = scattered(index);
                        case.layouts = [places[0], places[1]];
                        case.seed = 300_000 + index as u64;
                        held.check(device(subject, index)?, &case.problem())?;
                    }
                }
            }
        }
    }
    Ok(held)
}

/// Values are exact: in single precision each is its element times its scale, by the formats' texts and
/// in double precision, rounded once.
pub(in super::super) fn values_are_exact(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, format) in Format::ALL.into_iter().enumerate() {
        // One row and one block: its only scale is the first.
        let mut case = ValuesCase::new(1, 16, evenkeel::DType::F32, format);
        case.any_scale = true;
        for repeat in 0..40 {
            case.seed = 310_000 + 100 * index as u64 + repeat;
            let problem = case.problem();
            let outcome = computed(&mut held, device(subject, index)?, &problem)?;
            let values = outcome.values.floats();
            let bits = |at: usize| {
                problem.scales[at..at + 4]
                    .try_into()
                    .map_or(0.0, f32::from_ne_bytes)
            };
            let scale = match format {
                Format::Fp8Tensor(_) => f64::from(problem.tensor_scales[0]),
                _ if format.has_f32_scales() => f64::from(bits(0)),
                Format::NvFp4 | Format::NvFp4Square => {
                    let tensor = f64::from(problem.tensor_scales[0]);
                    f64::from((decode::e4m3(problem.scales[0]) * tensor) as f32)
                }
                _ => decode::e8m0(problem.scales[0]),
            };
            let right = values.iter().enumerate().all(|(at, &value)| {
                let code = match format.fp8() {
                    Some(_) => problem.data[at],
                    None => problem.data[at / 2] >> (4 * (at % 2)) & 0xf,
                };
                let want = (decode::element(format, code) * scale) as f32;
                value.to_bits() == want.to_bits() || value.is_nan() && want.is_nan()
            });
            expect("each an element times its scale", right, &problem)?;
        }
    }
    Ok(held)
}

fn cases() -> impl Strategy<Value = ValuesCase> {
    let what = (
        prop::sample::select(Format::ALL.to_vec()),
        prop::sample::select(FLOATS.to_vec()),
        any::<bool>(),
        0_usize..4,
        0_usize..3,
    );
    let shape = (1_usize..170, 1_usize..170, any::<bool>(), any::<bool>());
    (what, shape, layout(), layout(), any::<u32>()).prop_map(|(what, shape, one, two, seed)| {
        let (format, dtype, transposed, rotation, layout) = what;
        let (outer, inner, any_scale, keep_rotation) = shape;
        let direction = Direction::ALL[usize::from(transposed)];
        let rotation = rotations(seed.into())[rotation];
        let inner = match rotation {
            Some(rotation) => (inner / rotation.n + 1) * rotation.n,
            None => inner,
        };
        let [rows, columns] = direction.orient([outer, inner]);
        let mut case = ValuesCase::new(rows, columns, dtype, format);
        let layouts = layouts(format);
        case.direction = direction;
        case.output = OutputOptions::new().layout(layouts[layout % layouts.len()]);
        case.output.rotation = rotation;
        case.keep_rotation = keep_rotation;
        case.any_scale = any_scale;
        case.layouts = [one, two];
        case.seed = seed.into();
        case
    })
}

/// Problems drawn at random, made small when they fail.
pub(in super::super) fn random_dequantisations(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    drawn(
        subject,
        effort,
        &cases(),
        |case| case.seed,
        |held, device, case| held.check(device, &case.problem()),
    )
}
