//! The properties of activations that are quantised as they are computed.

use evenkeel::DType;
use evenkeel::quant::{
    Format, Fp8, Hadamard, OutputOptions, Quantize, QuantizeOptions, Rounding, ScaleLayout,
    ScaleRounding, Smoothing,
};
use evenkeel::reference::quant::activation::Function;

use super::super::super::proofs::{Budget, device, other_architectures, scattered, within};
use super::super::super::{Effort, Held, Workload, emulated};
use crate::norm::rows::cases::FLOATS;
use crate::quant::activation::problem::FUNCTIONS;
use crate::quant::activation::{Case, Fused, Values};
use crate::subject::Subject;

fn both(options: impl Into<QuantizeOptions>) -> Quantize {
    let plain = OutputOptions::new();
    Quantize::new(options).rowwise(plain).transposed(plain)
}

fn transposed(options: impl Into<QuantizeOptions>) -> Quantize {
    Quantize::new(options).transposed(OutputOptions::new())
}

/// Each format, in each direction, with each rounding, rotation and layout that changes the way.
fn configurations() -> Vec<Quantize> {
    let (e4m3, e5m2) = (Fp8::E4m3, Fp8::E5m2);
    let random = |format| QuantizeOptions::new(format).rounding(Rounding::Stochastic { seed: 9 });
    let turned = OutputOptions::new().rotation(Hadamard::new(16, 3));
    let tiled = OutputOptions::new().layout(ScaleLayout::Tiled128x4);
    vec![
        Quantize::new(Format::Fp8Tensor(e4m3)),
        both(random(Format::Fp8Tensor(e5m2))),
        Quantize::new(Format::Fp8Row(e4m3)),
        Quantize::new(random(Format::Fp8Row(e5m2)).power_of_two()),
        both(Format::Fp8Row(e5m2)),
        both(QuantizeOptions::new(Format::Fp8Block1x128(e4m3)).power_of_two()),
        both(Format::Fp8Block128x128(e4m3)),
        both(Format::MxFp8(e4m3)),
        Quantize::new(random(Format::MxFp8(e5m2))).rowwise(tiled),
        transposed(QuantizeOptions::new(Format::MxFp4).scale_rounding(ScaleRounding::Ceil)),
        Quantize::new(random(Format::MxFp4)),
        both(Format::NvFp4),
        Quantize::new(random(Format::NvFp4))
            .rowwise(turned)
            .transposed(turned),
        both(Format::NvFp4Square),
    ]
}

/// The bits of the f32 results, quantised: each function and its gradients, in each format.
pub(in crate::suite::quant) fn quantised_activations_are_both_steps(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for quantize in configurations() {
        for function in FUNCTIONS {
            for backward in [false, true] {
                // F a multiple of no block, of a unit, of a tile; rotations take what they divide.
                let channels = if quantize
                    .outputs()
                    .iter()
                    .flatten()
                    .any(|o| o.rotation.is_some())
                {
                    80
                } else {
                    [77, 72, 136][index % 3]
                };
                let tokens = if channels == 80 {
                    48
                } else {
                    [50, 130, 33][index / 3 % 3]
                };
                let mut case = Case::new(function, tokens, channels, FLOATS[index % 3]);
                case.smoothing =
                    [None, Some(Smoothing::Channel), Some(Smoothing::Token)][index % 3];
                case.given = true;
                case.packed = index % 2 == 0;
                case.values = Values::ALL[index % 4];
                if index % 5 == 0 {
                    case.layouts = scattered(index);
                }
                case.seed = 800 + index as u64;
                let fused = Fused::new(&case, quantize, backward).offset(index as u64);
                held.check(device(subject, index)?, &fused)?;
                index += 1;
            }
        }
    }
    Ok(held)
}

/// Groups of rows, as experts have them.
pub(in crate::suite::quant) fn quantised_activations_of_groups(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let formats = [
        both(Format::Fp8Tensor(Fp8::E4m3)),
        both(Format::MxFp8(Fp8::E4m3)),
        both(Format::NvFp4),
        both(Format::Fp8Row(Fp8::E5m2)),
    ];
    for (index, quantize) in formats.into_iter().enumerate() {
        for backward in [false, true] {
            let case = Case::new(FUNCTIONS[index % 3], 150, 40, FLOATS[index % 3]);
            let fused = Fused::new(&case, quantize, backward).groups(&[0, 10, 10, 140, 150]);
            held.check(device(subject, index)?, &fused)?;
        }
    }
    Ok(held)
}

/// What is computed, of how many channels and how, and its reads in each pass: of gate, up and dy, or x
/// and dy.
struct Traffic {
    quantize: Quantize,
    channels: usize,
    backward: bool,
    /// Passes over all of the input: 2 where a scale follows from an amax of all of it.
    passes: usize,
    /// Of gate and dy in a gradient of SwiGLU.
    again: usize,
}

fn traffic() -> Vec<Traffic> {
    let (e4m3, e5m2) = (Fp8::E4m3, Fp8::E5m2);
    let turned = OutputOptions::new().rotation(Hadamard::new(32, 3));
    let rotated = |options: QuantizeOptions| {
        let options = options.rounding(Rounding::Stochastic { seed: 3 });
        Quantize::new(options).rowwise(turned).transposed(turned)
    };
    let case = |quantize, channels, backward, passes, again| Traffic {
        quantize,
        channels,
        backward,
        passes,
        again,
    };
    let mx = Format::MxFp8(e4m3);
    vec![
        case(both(mx), 256, false, 1, 1),
        case(both(mx), 256, true, 1, 1),
        case(both(Format::NvFp4), 128, false, 2, 1),
        case(both(Format::NvFp4), 128, true, 2, 1),
        case(transposed(Format::MxFp4), 384, true, 1, 1),
        case(rotated(mx.into()), 128, false, 1, 1),
        // Values of dgate and of dup, kept for the second rotation, are more than shared memory holds.
        case(rotated(mx.into()), 128, true, 1, 2),
        // Tiles of dgate and of dup are of different channels.
        case(both(mx), 192, true, 1, 2),
        case(both(Format::Fp8Row(e5m2)), 128, true, 2, 1),
        case(Quantize::new(Format::Fp8Row(e4m3)), 256, false, 1, 1),
        case(Quantize::new(Format::Fp8Row(e5m2)), 200, true, 1, 1),
    ]
}

/// Inputs are read once where the format wants one read, those of a gradient too where F is a multiple of
/// 128; and results written once.
pub(in crate::suite::quant) fn quantised_activation_traffic(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    let tokens = 256;
    let mut index = 0;
    for traffic in traffic() {
        for function in FUNCTIONS {
            let Traffic {
                quantize,
                channels,
                backward,
                passes,
                again,
            } = traffic;
            let gated = function == Function::SwiGlu;
            let dtype = FLOATS[index % 3];
            index += 1;
            let case = Case::new(function, tokens, channels, dtype);
            let fused = Fused::new(&case, quantize, backward);
            let elements = tokens * channels;
            let inputs = usize::from(gated) + 1 + usize::from(backward);
            let read = inputs
                + if gated && backward {
                    2 * (again - 1)
                } else {
                    0
                };
            let halves = if gated && backward { 2 } else { 1 };
            let mut stores = 0;
            for (direction, output) in quantize.outputs().iter().enumerate() {
                if output.is_some() {
                    let shape = [tokens, halves * channels];
                    stores += stored(quantize.options().format, shape, direction == 1);
                }
            }
            let budget = Budget {
                // The same result in f32, which the quantised one is compared with, too.
                loads: dtype.size() * elements * (passes * read + inputs),
                stores: stores + 4 * elements * halves,
                // Counts and amaxes of both outputs; the amaxes of a tensor, row or column, that all
                // tiles read.
                more: 8192 * passes,
            };
            within(&mut held, device(subject, 0)?, &fused, &budget)?;
        }
    }
    Ok(held)
}

/// Bytes of elements and scales of an output of `[rows, columns]`.
fn stored(format: Format, [rows, columns]: [usize; 2], transposed: bool) -> usize {
    let elements = rows * columns;
    let outer = if transposed { columns } else { rows };
    let scales = match format {
        Format::Fp8Row(_) => 4 * outer,
        Format::NvFp4 => elements / 16 + 4,
        _ => elements / 32,
    };
    elements * format.element_bits() / 8 + scales
}

/// On GPUs with other limits.
pub(in crate::suite::quant) fn quantised_activations_on_other_architectures(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("architectures are the emulator's to choose");
    }
    let mut held = Held::default();
    for (index, device) in other_architectures()?.into_iter().enumerate() {
        let case = Case::new(FUNCTIONS[index], 140, 130, FLOATS[index]);
        for backward in [false, true] {
            let fused = Fused::new(&case, both(Format::NvFp4), backward);
            held.check(&device, &fused)?;
        }
    }
    Ok(held)
}

/// Each barrier of the tile kernel with this source, and of the search for amaxes.
pub(in crate::suite::quant) fn workloads(_: bool) -> Vec<Workload> {
    let case = Case::new(Function::SwiGlu, 140, 136, DType::Bf16);
    let formats = [both(Format::Fp8Row(Fp8::E4m3)), both(Format::NvFp4Square)];
    formats
        .into_iter()
        .enumerate()
        .map(|(index, quantize)| Workload {
            problem: Box::new(Fused::new(&case, quantize, index == 1)),
            multiprocessors: 2,
        })
        .collect()
}
