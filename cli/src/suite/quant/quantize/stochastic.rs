//! Stochastic rounding: that its mean is the value, what it depends on, and what it leaves alone.

use evenkeel::DType;
use evenkeel::quant::{Format, Fp8, Rounding};
use evenkeel::reference::quant::Direction;

use super::super::super::proofs::{computed, device};
use super::super::super::{Effort, Held, emulated, expect};
use super::cases::{decoded, output, outputs};
use crate::norm::placed::{Matrix, Place};
use crate::norm::rows::cases::FLOATS;
use crate::quant::decode::{element, step};
use crate::quant::{Case, Decoded, Given, Problem};
use crate::random::Random;
use crate::subject::Subject;

/// The probability that this property fails on a right rounding with a new seed, in all of its tests
/// together.
const FALSE_ALARM: f64 = 1e-9;

/// Independent numbers of mean 0, each within an interval of a width.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    total: f64,
    count: f64,
}

impl Sum {
    fn add(&mut self, x: f64) {
        self.total += x;
        self.count += 1.0;
    }

    /// Whether the mean is as near to 0 as Hoeffding's inequality says: it is further with probability
    /// 2 exp(-2 n t^2 / width^2) at most.
    fn near_zero(&self, width: f64, tests: usize) -> Result<(), String> {
        if self.count == 0.0 {
            return Ok(());
        }
        let odds = (2.0 * tests as f64 / FALSE_ALARM).ln();
        let bound = width * (odds / (2.0 * self.count)).sqrt();
        let mean = self.total / self.count;
        if mean.abs() <= bound {
            return Ok(());
        }
        let count = self.count;
        Err(format!(
            "the mean of {count} errors is {mean} steps, beyond {bound}"
        ))
    }
}

/// The errors of an output's magnitudes in steps, those of saturated ones left out: (|e| - |u|) /
/// step(u). Of magnitudes, since a word's rounding is of those: with signs, errors of one word would be
/// of either sign and seem independent.
///
/// u is in single precision, and an error is either of -f and 1 - f, f = frac(u / step): of mean 0, but
/// for the 2^-32 that the rounding's 32 bits cut off, in an interval of width 1. NaN where u has no
/// error: at exact values, and beyond the largest.
fn errors(problem: &Problem, direction: Direction, decoded: &Decoded) -> Vec<f64> {
    let format = problem.case.options.format;
    let columns = problem.case.columns;
    (0..decoded.codes.len())
        .map(|at| {
            let [row, column] = direction.orient([at / decoded.inner, at % decoded.inner]);
            let (x, s) = (problem.values[row * columns + column], decoded.scales[at]);
            let u = x / s as f32;
            let step = step(format, f64::from(u));
            let f = (f64::from(u) / step).abs().fract();
            if s == 0.0 || f == 0.0 || u.abs() > format.largest() {
                return f64::NAN;
            }
            (decoded.elements[at].abs() - f64::from(u).abs()) / step
        })
        .collect()
}

/// The mean error is 0: of all elements, of those whose value has the same fraction of a step to within
/// an eighth, of those of each word of the generator, of each sign and of each binade. So are the means
/// of products of neighbours' errors, and of the same element's under another seed and another offset:
/// their words are independent.
///
/// By Hoeffding's inequality a right rounding fails with a probability of 1e-9 in all tests together.
pub(in super::super) fn stochastic_rounding_is_unbiased(
    subject: &Subject,
    effort: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let [rows, columns] = match (emulated(subject), effort) {
        (true, _) => [128, 256],
        (_, Effort::Quick) => [256, 512],
        _ => [1024, 1024],
    };
    // Every kind of element, and every width of blocks.
    let formats = [
        Format::Fp8Tensor(Fp8::E4m3),
        Format::Fp8Block1x128(Fp8::E5m2),
        Format::MxFp8(Fp8::E4m3),
        Format::MxFp4,
        Format::NvFp4,
    ];
    let tests = formats.len() * (1 + 8 + 4 + 2 + 32 + 7 + 2);
    for (index, format) in formats.into_iter().enumerate() {
        let direction = Direction::ALL[index % 2];
        let mut case = Case::new(rows, columns, FLOATS[(index + 2) % 3], format)
            .only(direction, output(None, Default::default()));
        let run = |held: &mut Held, case: &Case| -> Result<_, String> {
            let (problem, decoded) = outputs(held, subject, index, case)?;
            let errors = errors(&problem, direction, &decoded[0].1);
            Ok((problem, decoded, errors))
        };
        case.seed = 90_000 + index as u64;
        case.options = case.options.rounding(Rounding::Stochastic { seed: 12 });
        let (problem, all, one) = run(&mut held, &case)?;
        let of = &all[0].1;
        let named = |what: String, result: Result<(), String>| {
            result.map_err(|wrong| format!("{what}: {wrong}, in {}", problem.name))
        };
        let mut strata = std::collections::BTreeMap::<String, Sum>::new();
        for (at, &error) in one.iter().enumerate().filter(|(_, error)| !error.is_nan()) {
            let [row, column] = direction.orient([at / of.inner, at % of.inner]);
            let word = (row * columns + column) % 4;
            let u = problem.values[row * columns + column] / of.scales[at] as f32;
            let step = step(format, u.into());
            let eighth = (8.0 * (f64::from(u) / step).abs().fract()) as usize;
            for stratum in [
                "all elements".into(),
                format!("fractions of {eighth} eighths"),
                format!("word {word}"),
                format!("sign {}", u.is_sign_negative()),
                format!("steps of {step:e}"),
            ] {
                strata.entry(stratum).or_default().add(error);
            }
        }
        for (stratum, sum) in &strata {
            named(stratum.clone(), sum.near_zero(1.0, tests))?;
        }
        // Pairs that have no element in common, within the same quad of words and across; rows of the
        // output. A product lies in (-1, 1).
        for distance in [1, 2, 3, 4, 16, of.inner, 4096] {
            let mut sum = Sum::default();
            for first in (0..one.len()).filter(|at| at / distance % 2 == 0) {
                if let Some(second) = one.get(first + distance) {
                    let product = one[first] * second;
                    if !product.is_nan() {
                        sum.add(product);
                    }
                }
            }
            named(
                format!("neighbours at {distance}"),
                sum.near_zero(2.0, tests),
            )?;
        }
        let mut others = [case.clone(), case.clone()];
        others[0].options = case.options.rounding(Rounding::Stochastic { seed: 13 });
        others[1].offset = 1;
        for other in others {
            let (_, _, two) = run(&mut held, &other)?;
            let mut sum = Sum::default();
            let products = one.iter().zip(&two).map(|(one, two)| one * two);
            products.filter(|x| !x.is_nan()).for_each(|x| sum.add(x));
            named("another seed or offset".into(), sum.near_zero(2.0, tests))?;
        }
    }
    Ok(held)
}

/// Values that are elements times a power of two become these elements, whatever the rounding and the
/// seed, and their blocks the scales they were made with: each code in each format.
pub(in super::super) fn representable_values_stay(
    subject: &Subject,
    _: Effort,
) -> Result<Held, String> {
    let mut held = Held::default();
    let mut index = 0;
    let [rows, columns] = [64, 128];
    for format in Format::ALL {
        let plain = evenkeel::quant::QuantizeOptions::new(format);
        let options = match format {
            _ if format.needs_tensor_amax() => plain.scaling(evenkeel::quant::Scaling::Given),
            _ if format.has_f32_scales() => plain.power_of_two(),
            _ => plain,
        };
        for rounding in [
            Rounding::Nearest,
            Rounding::Stochastic { seed: 0 },
            Rounding::Stochastic { seed: u64::MAX },
        ] {
            for direction in Direction::ALL {
                index += 1;
                let dtype = [DType::Bf16, DType::F32][index % 2];
                let mut random = Random::new(index as u64);
                let mut case = Case::new(rows, columns, dtype, format)
                    .only(direction, output(None, Default::default()));
                case.options = options.rounding(rounding);
                let power = random.below(40) as i32 - 20;
                case.given = Given::Fixed(2.0_f32.powi(power));
                case.seed = 100_000 + index as u64;
                let (codes, values) = representable(format, direction, &mut random, power);
                let place = Place::new(dtype, &[rows, columns]);
                let problem = Problem::new(case, Matrix::new(place, values.clone()));
                let exact = problem.x.values == values;
                expect("exact in its type", exact, &problem)?;
                let outcome = computed(&mut held, device(subject, index)?, &problem)?;
                let decoded = decoded(&problem, &outcome, direction)?;
                let there = |at: usize| decoded.at(direction, at / columns, at % columns);
                let same = (0..codes.len()).all(|at| decoded.codes[there(at)] == codes[at]);
                expect("the elements they were made of", same, &problem)?;
                let all = decoded.values();
                let same = (0..codes.len()).all(|at| all[there(at)] == values[at]);
                expect("the values they were", same, &problem)?;
            }
        }
    }
    Ok(held)
}

/// Codes of X and their values, with a scale for each 16 x 16 elements where scales are of blocks, and
/// the largest element in each 16 of a row and of a column.
fn representable(
    format: Format,
    direction: Direction,
    random: &mut Random,
    power: i32,
) -> (Vec<u8>, Vec<f64>) {
    let (rows, columns) = (64, 128);
    let _ = direction;
    let (count, largest) = match format.fp8() {
        Some(Fp8::E4m3) => (0x7f, 0x7e),
        Some(Fp8::E5m2) => (0x7c, 0x7b),
        None => (8, 7),
    };
    let sign = if format.fp8().is_some() { 0x80 } else { 8 };
    // Of nvfp4 a scale of E4M3 for each block, below the tensor's; one for all elsewhere.
    let scales: Vec<f64> = (0..rows / 16 * (columns / 16))
        .map(|_| crate::quant::decode::e4m3(1 + random.below(0x7e) as u8))
        .collect();
    (0..rows * columns)
        .map(|at| {
            let (row, column) = (at / columns, at % columns);
            let code = if (row + column) % 16 == 0 {
                largest
            } else {
                random.below(count) as u8
            };
            let code = code | random.pick(&[0, sign]);
            let scale = if format.has_tensor_scale() {
                scales[row / 16 * (columns / 16) + column / 16]
            } else {
                1.0
            };
            (code, element(format, code) * scale * 2.0_f64.powi(power))
        })
        .unzip()
}

/// Words follow the seed and the sum of both offsets, and nothing else: an offset from the device, as a
/// replayed graph has it, is the same as one from the call, and each makes other bits.
pub(in super::super) fn offsets_add_up(subject: &Subject, _: Effort) -> Result<Held, String> {
    let mut held = Held::default();
    for (index, format) in [Format::Fp8Tensor(Fp8::E5m2), Format::MxFp4, Format::NvFp4]
        .into_iter()
        .enumerate()
    {
        let on = device(subject, index)?;
        let mut case = Case::new(60, 100, FLOATS[index], format);
        case.options = case
            .options
            .rounding(Rounding::Stochastic { seed: 1 << 40 });
        case.seed = 110_000 + index as u64;
        let mut bits = |offset: u64, device_offset: Option<i64>| {
            (case.offset, case.device_offset) = (offset, device_offset);
            computed(&mut held, on, &case.problem()).map(|outcome| outcome.stored)
        };
        let one = bits((7 << 40) + 3, None)?;
        let same = [bits(3, Some(7 << 40))?, bits((7 << 40) + 4, Some(-1))?];
        let others = [
            bits(3, None)?,
            bits(7 << 40, Some(0))?,
            bits(0, Some(3 << 32))?,
        ];
        // Wraps: the counter is what it is modulo 2^64.
        let wrapped = bits(u64::MAX, Some(4))? == bits(3, None)?;
        let problem = case.problem();
        expect(
            "one sum, one result",
            same.iter().all(|x| *x == one),
            &problem,
        )?;
        expect(
            "another sum, another result",
            !others.contains(&one),
            &problem,
        )?;
        expect("a sum modulo 2^64", wrapped, &problem)?;
    }
    Ok(held)
}
