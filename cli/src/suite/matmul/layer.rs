//! Linear layers of each recipe: results and gradients against the layer in f64.
//!
//! What an operand's rounding may be off by is half a step of its element relatively (2^-4 in E4M3, 2^-3
//! in E5M2; a scale rounded by 2^-24 with it), and half the smallest step of its block's scale, which is
//! at most that of the whole tensor, or twice it where scales are powers of two. Sums then are off by
//! those of all terms; and, as no promotion is further than 128 terms away, four steps of 33 terms lose
//! less than 2^-6 of the terms' sizes, and what follows rounds to f32.

use evenkeel::matmul::{LinearFp8, Recipe};
use evenkeel::quant::DelayedScaling;
use evenkeel::{DType, Device, DeviceKind, Error, Result, Stream};

use super::super::proofs::device;
use super::super::{Effort, Held};
use crate::memory::{download, upload};
use crate::numbers::{Interval, round_to};
use crate::random::Random;
use crate::subject::Subject;

/// A tensor `[rows, columns]`, and what each of its elements may become.
struct Rounded {
    values: Vec<f64>,
    errors: Vec<f64>,
    columns: usize,
}

impl Rounded {
    fn new(values: &[f64], columns: usize, recipe: Recipe, gradient: bool) -> Self {
        let e5m2 = gradient && !matches!(recipe, Recipe::Block | Recipe::MxFp8);
        let (half_step, smallest, largest) = if e5m2 {
            (0.125, (-17.0_f64).exp2(), 57344.0)
        } else {
            (0.0625, (-10.0_f64).exp2(), 448.0)
        };
        let amax = values.iter().fold(0.0_f64, |amax, x| amax.max(x.abs()));
        let scale = match recipe {
            Recipe::Unit => 1.0,
            Recipe::MxFp8 => 2.0 * amax / largest,
            _ => amax / largest,
        };
        let error = |x: &f64| x.abs() * half_step * 1.0001 + smallest * scale;
        Self {
            errors: values.iter().map(error).collect(),
            values: values.to_vec(),
            columns,
        }
    }

    fn at(&self, row: usize, column: usize) -> (f64, f64) {
        let index = row * self.columns + column;
        (self.values[index], self.errors[index])
    }
}

/// What a result is called, its elements, their number in a row, and what each may be.
type Expected<'a> = (
    &'static str,
    &'a [f64],
    usize,
    &'a dyn Fn(usize, usize) -> Interval,
);

/// The sum of the products of such pairs.
fn sum(pairs: impl Iterator<Item = ((f64, f64), (f64, f64))>) -> Interval {
    let (mut value, mut error, mut sizes) = (0.0, 0.0, 0.0);
    for ((a, a_error), (b, b_error)) in pairs {
        value += a * b;
        error += a.abs() * b_error + b.abs() * a_error + a_error * b_error;
        sizes += (a.abs() + a_error) * (b.abs() + b_error);
    }
    Interval::around(value, error + sizes / 64.0 + 1e-6 * sizes)
}

/// Drawn tensors of one layer: bf16, some channels larger than others.
struct Layer {
    shape: [usize; 3],
    x: Vec<f64>,
    w: Vec<f64>,
    dy: Vec<f64>,
    dw: Vec<f64>,
}

impl Layer {
    fn new(shape: [usize; 3], seed: u64) -> Self {
        let [tokens, n, k] = shape;
        let mut random = Random::new(seed);
        let mut draw = |count: usize, columns: usize| -> Vec<f64> {
            (0..count)
                .map(|at| {
                    let channel = if at % columns % 17 == 3 { 6.0 } else { 1.0 };
                    round_to(DType::Bf16, channel * random.normal())
                })
                .collect()
        };
        Self {
            x: draw(tokens * k, k),
            w: draw(n * k, k),
            dy: draw(tokens * n, n),
            dw: draw(n * k, k),
            shape,
        }
    }

    /// y, dx and dW of a device, and its amaxes' step before where scales are delayed.
    fn run(&self, stream: &Stream, recipe: Recipe) -> Result<[Vec<f64>; 3]> {
        let [tokens, n, k] = self.shape;
        let linear = LinearFp8::new(recipe).delayed_scaling(DelayedScaling::new().length(1));
        let mut linear = linear.prepare(stream, n, k)?;
        let bf16 = |values: &[f64], shape: &[usize]| upload(stream, DType::Bf16, shape, values);
        let (x, w) = (bf16(&self.x, &[tokens, k])?, bf16(&self.w, &[n, k])?);
        let dy = bf16(&self.dy, &[tokens, n])?;
        let steps = if recipe == Recipe::Delayed { 2 } else { 1 };
        let mut results = [const { Vec::new() }; 3];
        for step in 0..steps {
            let mut dw = upload(stream, DType::F32, &[n, k], &self.dw)?;
            let (y, saved) = linear.forward(x.view(), w.view(), step, DType::F32)?;
            let (dy, w) = (dy.view(), w.view());
            let dx = linear.backward(&saved, dy, w, step, DType::F32, dw.view_mut())?;
            linear.update_scales()?;
            results = [download(&y)?, download(&dx)?, download(&dw)?];
        }
        stream.check()?;
        Ok(results)
    }

    fn check(
        &self,
        held: &mut Held,
        device: &Device,
        recipe: Recipe,
    ) -> std::result::Result<(), String> {
        let [tokens, n, k] = self.shape;
        let told = |error: Error| format!("{error}\n    in a layer of {recipe}, {:?}", self.shape);
        let stream = device.stream().map_err(told)?;
        let [y, dx, dw] = self.run(&stream, recipe).map_err(told)?;
        let x = Rounded::new(&self.x, k, recipe, false);
        let w = Rounded::new(&self.w, k, recipe, false);
        let gradient = Rounded::new(&self.dy, n, recipe, true);
        let of_y = |t: usize, j: usize| sum((0..k).map(|i| (x.at(t, i), w.at(j, i))));
        let of_dx = |t: usize, i: usize| sum((0..n).map(|j| (gradient.at(t, j), w.at(j, i))));
        let of_dw = |j: usize, i: usize| {
            let sum = sum((0..tokens).map(|t| (gradient.at(t, j), x.at(t, i))));
            let before = self.dw[j * k + i];
            Interval::around(sum.exact + before, sum.error + 1e-6 * before.abs())
        };
        let results: [Expected<'_>; 3] = [
            ("y", &y, n, &of_y),
            ("dx", &dx, k, &of_dx),
            ("dW", &dw, k, &of_dw),
        ];
        let mut verdict = crate::compare::Verdict::default();
        for (name, got, columns, exact) in results {
            let mut differs = false;
            for (at, got) in got.iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let interval = exact(row, column);
                differs |= *got != interval.exact;
                verdict.number(name, DType::F32, *got, interval, || {
                    format!(" of ({row}, {column})")
                });
            }
            if !differs {
                verdict.wrong(|| format!("{name} has no trace of FP8"));
            }
        }
        let name = format!("a layer of {recipe}, {:?}", self.shape);
        held.take(device, verdict.of(&name))
    }
}

/// Each recipe on several sizes.
pub(super) fn layers_of_every_recipe(
    subject: &Subject,
    effort: Effort,
) -> std::result::Result<Held, String> {
    let mut held = Held::default();
    let sizes = [[20, 12, 150], [130, 40, 72], [1, 9, 33], [64, 130, 200]];
    let sizes = match effort {
        Effort::Quick => &sizes[..2],
        Effort::Full => &sizes[..],
    };
    for (index, recipe) in Recipe::ALL.into_iter().enumerate() {
        let device = device(subject, index)?;
        for (number, shape) in sizes.iter().enumerate() {
            let layer = Layer::new(*shape, (100 * index + number) as u64);
            if device.kind() != DeviceKind::Cpu
                && let Some(reason) = missing(device, recipe)?
            {
                held.skipped = Some(reason);
                continue;
            }
            layer.check(&mut held, device, recipe)?;
        }
    }
    if held.problems > 0 {
        held.skipped = None;
    }
    Ok(held)
}

/// Why a device has no layers of a recipe, if it has none.
fn missing(device: &Device, recipe: Recipe) -> std::result::Result<Option<String>, String> {
    let stream = device.stream().map_err(|error| error.to_string())?;
    match LinearFp8::new(recipe).prepare(&stream, 16, 16) {
        Err(error @ Error::Unsupported { .. }) => Ok(Some(error.to_string())),
        Err(error) => Err(error.to_string()),
        Ok(_) => Ok(None),
    }
}
