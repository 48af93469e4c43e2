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

/// Inputs are read once where the format wants one read, but gate and dy of a gradient twice; and
/// results written once.
pub(in crate::suite::quant) fn quantised_activation_traffic(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    if !emulated(subject) {
        return Held::skipped("only the emulator counts bytes");
    }
    let mut held = Held::default();
    let (tokens, channels) = (256, 256);
    for function in FUNCTIONS {
        for backward in [false, true] {
            let gated = function == Function::SwiGlu;
            let case = Case::new(function, tokens, channels, DType::Bf16);
            let fused = Fused::new(&case, both(Format::MxFp8(Fp8::E4m3)), backward);
            let elements = tokens * channels;
            let (read, halves) = match (gated, backward) {
                (true, true) => (5, 2),
                (true, false) => (2, 1),
                (false, true) => (2, 1),
                (false, false) => (1, 1),
            };
            // The same result in f32, which the quantised one is compared with.
            let (plain_read, plain_written) = (if gated && backward { 3 } else { read }, halves);
            let scales = elements * halves / 32 * 2;
            let budget = Budget {
                loads: 2 * elements * (read + plain_read),
                stores: elements * halves * 2 + scales + 4 * elements * plain_written,
                // Counts and amaxes of both outputs.
                more: 4096,
            };
            within(&mut held, device(subject, 0)?, &fused, &budget)?;
        }
    }
    Ok(held)
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
