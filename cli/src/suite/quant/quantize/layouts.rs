//! The layouts of scales.

use evenkeel::quant::{Format, ScaleLayout};

use super::super::super::proofs::{computed, device};
use super::super::super::{Effort, Held, expect};
use super::cases::{layouts, output, scalings};
use crate::norm::rows::cases::FLOATS;
use crate::quant::decode::scale_place;
use crate::quant::{Case, Problem, Stored, Wanted};
use crate::subject::Subject;

/// The scales of an output in row-major order, taken from where its layout puts them, and whether
/// everything else is 0.
fn gathered(problem: &Problem, wanted: &Wanted, stored: &Stored) -> Option<(Vec<u8>, bool)> {
    let scales = &stored.scales.as_ref()?.bytes;
    let size = problem.case.options.format.scale_dtype().size();
    let [rows, blocks] = problem.scale_shape(wanted.direction);
    let layout = wanted.output.options.layout;
    let mut seen = vec![false; scales.len() / size];
    let mut all = Vec::new();
    for row in 0..rows {
        for block in 0..blocks {
            let at = scale_place(layout, [rows, blocks], row, block);
            seen[at] = true;
            all.extend_from_slice(&scales[at * size..(at + 1) * size]);
        }
    }
    let mut padding = seen
        .iter()
        .zip(scales.chunks(size))
        .filter(|(seen, _)| !**seen);
    Some((
        all,
        padding.all(|(_, bytes)| bytes.iter().all(|&byte| byte == 0)),
    ))
}

/// Every layout holds the same scales, each in its place, and 0 in its padding.
pub(in super::super) fn layouts_hold_the_same_scales(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for format in Format::ALL {
        if matches!(format, Format::Fp8Tensor(_)) {
            continue;
        }
        for options in scalings(format) {
            for (rows, columns) in [(1, 1), (33, 70), (129, 257), (256, 64)] {
                index += 1;
                let mut first: Option<Vec<Vec<u8>>> = None;
                for layout in layouts(format) {
                    let mut case = Case::new(rows, columns, FLOATS[index % 3], format);
                    case.options = options;
                    (case.rowwise, case.transposed) =
                        (Some(output(None, layout)), Some(output(None, layout)));
                    if index % 3 == 0 {
                        case.groups = Some((vec![rows / 2 * 2, rows % 2], evenkeel::DType::I64));
                    }
                    case.seed = 190_000 + index as u64;
                    let problem = case.problem();
                    let outcome = computed(&mut held, device(subject, index)?, &problem)?;
                    let both = problem.wanted.iter().zip(&outcome.stored);
                    let scales: Vec<(Vec<u8>, bool)> = both
                        .filter_map(|(wanted, stored)| gathered(&problem, wanted, stored))
                        .collect();
                    let padded = scales.iter().all(|(_, padded)| *padded);
                    expect(
                        "0 in the padding",
                        padded || layout != ScaleLayout::Tiled128x4,
                        &problem,
                    )?;
                    let scales: Vec<Vec<u8>> = scales.into_iter().map(|(all, _)| all).collect();
                    let same = first.get_or_insert_with(|| scales.clone()) == &scales;
                    expect("the same scales in each layout", same, &problem)?;
                }
            }
        }
    }
    Ok(held)
}
