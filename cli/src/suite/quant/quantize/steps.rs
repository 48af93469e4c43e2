//! How far elements are from what they stand for, and scales from what they should be: derived from
//! the texts of the formats, without the reference.

use evenkeel::quant::{Format, ScaleRounding};

use super::super::super::{Effort, Held};
use super::cases::{layouts, output, outputs, scalings};
use crate::norm::rows::cases::FLOATS;
use crate::quant::decode::step;
use crate::quant::{Case, Decoded, Given, Problem, Values};
use crate::subject::Subject;

/// The unit roundoff of single precision.
const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// Half of the smallest subnormal of single precision: what rounding to it costs at most.
const TINY: f64 = f64::from_bits((1023 - 150) << 52);

/// Every problem of these two properties.
fn grid(
    subject: &Subject,
    mut check: impl FnMut(&Problem, &Decoded, &[f64]) -> Result<(), String>,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    for format in Format::ALL {
        for options in scalings(format) {
            for values in Values::FINITE {
                index += 1;
                let mut case = Case::new(70, 133, FLOATS[index % 3], format);
                case.options = options;
                case.values = values;
                case.given = Given::Times([1.0, 0.3, 5.0][index % 3]);
                let layouts = layouts(format);
                case.rowwise = Some(output(None, layouts[index % layouts.len()]));
                case.transposed = case.rowwise;
                if index % 4 == 0 {
                    case.groups = Some((vec![17, 0, 33, 20], evenkeel::DType::I32));
                    // Two elements a byte begin with an even row.
                    if format.element_bits() == 4 {
                        case.groups = Some((vec![18, 0, 32, 20], evenkeel::DType::I64));
                    }
                }
                case.seed = 80_000 + index as u64;
                let (problem, decoded) = outputs(&mut held, subject, index, &case)?;
                for (direction, decoded) in decoded {
                    let of_output: Vec<f64> = (0..decoded.codes.len())
                        .map(|at| {
                            let place = [at / decoded.inner, at % decoded.inner];
                            let [row, column] = direction.orient(place);
                            problem.x.values[row * problem.case.columns + column]
                        })
                        .collect();
                    check(&problem, &decoded, &of_output)
                        .map_err(|wrong| format!("{wrong}, {direction:?}, in {}", problem.name))?;
                }
            }
        }
    }
    Ok(held)
}

/// The element e of x with scale s is within half a step of x / s, and the largest where x / s is beyond
/// it.
///
/// With v = x / s in exact arithmetic the kernel rounds u = RN(v), |u - v| <= 2^-24 |v| + 2^-150, to the
/// nearest element, |e - u| <= step(u) / 2, and steps grow with |u|. Divisions here are in double
/// precision, whose 2^-53 is lost in a millionth of the bound.
pub(in super::super) fn within_half_a_step(subject: &Subject, _: Effort) -> Result<Held, String> {
    grid(subject, |problem, decoded, values| {
        let format = problem.case.options.format;
        let largest = f64::from(format.largest());
        for (at, &x) in values.iter().enumerate() {
            let (e, s) = (decoded.elements[at], decoded.scales[at]);
            let told = || format!("element {at} of {x:e} is {e} with the scale {s:e}");
            if s == 0.0 {
                // Of nvfp4: a block's scale may underflow.
                if e != 0.0 || !format.has_tensor_scale() {
                    return Err(told());
                }
                continue;
            }
            let v = x / s;
            let rounding = UNIT * v.abs() + TINY;
            if v.abs() - rounding > largest {
                if e != largest.copysign(v) {
                    return Err(format!("{}: not saturated", told()));
                }
                continue;
            }
            let u = (v.abs() + rounding).min(largest);
            let bound = (step(format, u) / 2.0 + rounding) * (1.0 + 1e-6);
            if (e - v).abs() > bound || (e != 0.0 && e.is_sign_negative() != x.is_sign_negative()) {
                return Err(format!("{}: not within {bound:e} of {v:e}", told()));
            }
        }
        Ok(())
    })
}

/// Each scale follows from the largest of what it is for: to a rounding of single precision, exactly
/// where it is a power of two, to half a step of E4M3 where it is one.
pub(in super::super) fn scales_fit_their_blocks(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    grid(subject, |problem, decoded, values| {
        if problem.wanted.iter().any(|wanted| wanted.given.is_some()) {
            return Ok(());
        }
        let format = problem.case.options.format;
        let mut amaxes = std::collections::BTreeMap::new();
        for (at, &x) in values.iter().enumerate() {
            let (amax, scale) = amaxes
                .entry(decoded.keys[at])
                .or_insert((0.0_f64, decoded.scales[at]));
            *amax = amax.max(x.abs());
            if *scale != decoded.scales[at] {
                return Err(format!("element {at} has another scale than its block"));
            }
        }
        if format.has_tensor_scale() {
            return two_levels(problem, decoded, values);
        }
        for (key, (amax, scale)) in amaxes {
            let fits = one_level(problem, amax, scale);
            if !fits {
                return Err(format!("scale {key} of a block of {amax:e} is {scale:e}"));
            }
        }
        Ok(())
    })
}

/// Whether a block of this amax may have this scale.
fn one_level(problem: &Problem, amax: f64, scale: f64) -> bool {
    let options = problem.case.options;
    let format = options.format;
    let largest = f64::from(format.largest());
    if amax == 0.0 {
        return scale == 1.0;
    }
    let is_power = (scale.to_bits() << 12) == 0;
    // Clamped below, and never above: amax is below 2^128.
    let clamped = scale == 2.0_f64.powi(-127);
    let v = amax / scale;
    match (format, options.scale_rounding) {
        (Format::MxFp8(_) | Format::MxFp4, ScaleRounding::Floor) => {
            let floor = 2.0_f64.powi(format.largest_exponent());
            is_power && v < 2.0 * floor && (v >= floor || clamped)
        }
        (Format::MxFp8(_) | Format::MxFp4, _) => {
            is_power && v <= largest && (v > largest / 2.0 || clamped)
        }
        _ if options.power_of_two => is_power && v <= largest && (v > largest / 2.0 || clamped),
        _ => (scale - amax / largest).abs() <= UNIT * scale * (1.0 + 1e-6) + 2.0 * TINY,
    }
}

/// The scales of nvfp4, by the values of each block: |s_b - q| is at most half a step of E4M3 at q =
/// amax_b / 6 / s_t, and three roundings of single precision; s_t is what makes q 448 for the largest.
fn two_levels(problem: &Problem, decoded: &Decoded, values: &[f64]) -> Result<(), String> {
    // Groups have scales of their own: here the tensor as a whole.
    if problem.groups.is_some() {
        return Ok(());
    }
    let amax = values.iter().fold(0.0_f64, |amax, x| amax.max(x.abs()));
    let tensor = if amax == 0.0 { 1.0 } else { amax / 2688.0 };
    let mut blocks = std::collections::BTreeMap::new();
    let block = problem.case.options.format.block();
    for (at, &x) in values.iter().enumerate() {
        let (row, column) = (at / decoded.inner, at % decoded.inner);
        let (amax, _) = blocks
            .entry((row / block.rows, column / block.columns))
            .or_insert((0.0_f64, decoded.scales[at]));
        *amax = amax.max(x.abs());
    }
    for ((row, column), (amax, scale)) in blocks {
        let q = (amax / 6.0 / tensor).min(448.0);
        // Products and tensor scales may be subnormal: all of their roundings are absolute then.
        let rounding = 4.0 * UNIT * q + 1024.0 * TINY / tensor;
        let half = step(Format::MxFp8(evenkeel::quant::Fp8::E4m3), q + rounding) / 2.0;
        let got = scale / tensor;
        if (got - q).abs() > (half + 2.0 * rounding) * (1.0 + 1e-6) {
            return Err(format!(
                "the scale of block ({row}, {column}) is {got} of the tensor's, not {q}"
            ));
        }
    }
    Ok(())
}
