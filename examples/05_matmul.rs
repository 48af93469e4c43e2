//! A linear layer trained in FP8 by each recipe:
//!
//!     cargo run --release --example 05_matmul -- [RECIPE ..] [OPTIONS]
//!
//! A layer learns to do what another one does, from inputs of which a few channels are far larger than
//! the rest, as activations have them. Its forward and both gradients are products of FP8 operands; the
//! weight itself is kept in f32, as an optimizer keeps it. What to look for in the table:
//!
//! - errors of y, dx and dW: what quantising the operands did to each, of the norm of what f64 gives for
//!   the same operands unquantised, in the first step. Gradients in E5M2 (tensor, delayed, row, unit)
//!   come less close than those in E4M3 with small blocks (block, mxfp8);
//! - loss: of the first and of the last step. The gradient's errors hardly slow the descent;
//! - weight and saved: bytes of the weight in 8 bits, both ways, and of what a forward keeps for its
//!   backward, which is half of what bf16 would be.

use std::process::ExitCode;

use evenkeel::matmul::{LinearFp8, Multipliers, PreparedLinearFp8, Recipe};
use evenkeel::quant::DelayedScaling;
use evenkeel::{Buffer, DType, Device, Error, Result, Stream};

const USAGE: &str = "\
cargo run --release --example 05_matmul -- [RECIPE ..] [OPTIONS]

  RECIPE        tensor, delayed, row, block, mxfp8 or unit (default: all)
  --tokens N    of a step (default 256)
  --inputs N    of the layer (default 192)
  --outputs N   of the layer (default 128)
  --steps N     of the training (default 40)
";

struct Arguments {
    recipes: Vec<Recipe>,
    tokens: usize,
    inputs: usize,
    outputs: usize,
    steps: usize,
}

fn main() -> ExitCode {
    let outcome = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => run(&arguments),
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(
    mut words: impl Iterator<Item = String>,
) -> std::result::Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        recipes: Vec::new(),
        tokens: 256,
        inputs: 192,
        outputs: 128,
        steps: 40,
    };
    while let Some(word) = words.next() {
        let number = match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--tokens" => &mut arguments.tokens,
            "--inputs" => &mut arguments.inputs,
            "--outputs" => &mut arguments.outputs,
            "--steps" => &mut arguments.steps,
            recipe => {
                let recipe = recipe.parse().map_err(|error: Error| error.to_string())?;
                arguments.recipes.push(recipe);
                continue;
            }
        };
        let value = words.next().and_then(|value| value.parse().ok());
        *number = match value {
            Some(value @ 1..=4096) => value,
            _ => return Err(format!("{word} takes a number from 1 to 4096")),
        };
    }
    if arguments.recipes.is_empty() {
        arguments.recipes = Recipe::ALL.to_vec();
    }
    Ok(Some(arguments))
}

/// Normally distributed enough: sums of twelve draws.
struct Random(u64);

impl Random {
    fn normal(&mut self) -> f32 {
        let mut draw = || {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 40) as f32 / (1 << 24) as f32
        };
        (0..12).map(|_| draw()).sum::<f32>() - 6.0
    }

    fn normals(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| scale * self.normal()).collect()
    }
}

/// a `[m, k]` times b `[n, k]` transposed, in f64.
fn product(a: &[f32], b: &[f32], k: usize) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let terms = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        terms.sum()
    };
    a.chunks(k)
        .flat_map(|a| b.chunks(k).map(move |b| dot(a, b)))
        .collect()
}

fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns;
    (0..columns)
        .flat_map(|column| (0..rows).map(move |row| values[row * columns + column]))
        .collect()
}

/// |got - exact| / |exact|.
fn error(got: &[f32], exact: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let off = got
        .iter()
        .zip(exact)
        .map(|(x, y)| square(f64::from(*x) - y));
    let all: f64 = exact.iter().map(|y| square(*y)).sum();
    (off.sum::<f64>() / all).sqrt()
}

fn run(arguments: &Arguments) -> Result<()> {
    let device = Device::best()?;
    let stream = device.stream()?;
    let Arguments {
        tokens,
        inputs,
        outputs,
        steps,
        ..
    } = *arguments;
    println!("{outputs} outputs of {inputs} inputs, {tokens} tokens, {steps} steps on {device}\n");
    println!(
        "{:<8} {:>9} {:>9} {:>9} {:>10} {:>10} {:>10} {:>10}",
        "recipe", "y", "dx", "dW", "first loss", "last loss", "weight B", "saved B"
    );
    for recipe in &arguments.recipes {
        let mut trainer = Trainer::new(&stream, arguments, *recipe)?;
        let mut first = None;
        let mut last = 0.0;
        for step in 0..steps {
            let report = trainer.step(step as u64)?;
            last = report.loss;
            first = first.or(Some(report));
        }
        let Some(first) = first else { continue };
        let [y, dx, dw] = first.errors.map(|error| format!("{:.2} %", 100.0 * error));
        let (kept, saved) = (trainer.linear.bytes(), first.saved);
        println!(
            "{:<8} {y:>9} {dx:>9} {dw:>9} {:>10.4} {last:>10.4} {kept:>10} {saved:>10}",
            recipe.to_string(),
            first.loss
        );
    }
    stream.check()
}

/// A layer, and the one it learns from.
struct Trainer {
    stream: Stream,
    linear: PreparedLinearFp8,
    x: Vec<f32>,
    wanted: Vec<f64>,
    w: Vec<f32>,
    shape: [usize; 3],
}

struct Report {
    loss: f64,
    errors: [f64; 3],
    saved: usize,
}

impl Trainer {
    fn new(stream: &Stream, arguments: &Arguments, recipe: Recipe) -> Result<Self> {
        let Arguments {
            tokens,
            inputs,
            outputs,
            ..
        } = *arguments;
        let mut random = Random(1);
        let mut x = random.normals(tokens * inputs, 1.0);
        for row in x.chunks_mut(inputs) {
            row[0] *= 8.0;
            row[inputs / 2] *= 4.0;
        }
        let teacher = random.normals(outputs * inputs, 1.0);
        let w = random.normals(outputs * inputs, 1.0);
        // u-muP's multipliers leave y at the size of its inputs, and dW is scaled here.
        let multipliers = Multipliers {
            weight_gradient: 1.0,
            ..Multipliers::u_mup(inputs, tokens)
        };
        let linear = LinearFp8::new(recipe)
            .multipliers(multipliers)
            .delayed_scaling(DelayedScaling::new().length(16))
            .prepare(stream, outputs, inputs)?;
        let scale = f64::from(multipliers.output);
        let wanted = product(&x, &teacher, inputs);
        Ok(Self {
            stream: stream.clone(),
            linear,
            wanted: wanted.into_iter().map(|y| scale * y).collect(),
            x,
            w,
            shape: [tokens, outputs, inputs],
        })
    }

    fn upload(&self, values: &[f32], columns: usize) -> Result<Buffer> {
        self.stream
            .upload(&[values.len() / columns, columns], values)
    }

    fn step(&mut self, step: u64) -> Result<Report> {
        let [tokens, outputs, inputs] = self.shape;
        let (x, w) = (self.upload(&self.x, inputs)?, self.upload(&self.w, inputs)?);
        // The weight's buffer is another one each step; its version says that it changed.
        let (y, saved) = self.linear.forward(x.view(), w.view(), step, DType::F32)?;
        let y = y.read::<f32>()?;
        // The loss is the mean of squares over two; gradients are scaled up to numbers about 1.
        let difference: Vec<f32> = (y.iter().zip(&self.wanted))
            .map(|(y, wanted)| (f64::from(*y) - wanted) as f32)
            .collect();
        let squares = difference.iter().map(|d| f64::from(*d).powi(2));
        let loss = squares.sum::<f64>() / (2 * tokens * outputs) as f64;
        let dy = self.upload(&difference, outputs)?;
        let mut dw = self.stream.zeros(DType::F32, &[outputs, inputs])?;
        let dx =
            (self.linear).backward(&saved, dy.view(), w.view(), step, DType::F32, dw.view_mut())?;
        self.linear.update_scales()?;
        let dw = dw.read::<f32>()?;

        let multiplier = 1.0 / (inputs as f64).sqrt();
        let scaled = |values: Vec<f64>, by: f64| -> Vec<f64> {
            values.into_iter().map(|value| by * value).collect()
        };
        let of_y = scaled(product(&self.x, &self.w, inputs), multiplier);
        let w_t = transposed(&self.w, inputs);
        let of_dx = scaled(product(&difference, &w_t, outputs), multiplier);
        let (dy_t, x_t) = (
            transposed(&difference, outputs),
            transposed(&self.x, inputs),
        );
        let of_dw = product(&dy_t, &x_t, tokens);
        let errors = [
            error(&y, &of_y),
            error(&dx.read::<f32>()?, &of_dx),
            error(&dw, &of_dw),
        ];
        // A step that the largest channel bears: 64 of its squares are in dW.
        let rate = (inputs as f32).sqrt() / tokens as f32 / 80.0;
        for (w, dw) in self.w.iter_mut().zip(&dw) {
            *w -= rate * dw;
        }
        Ok(Report {
            loss,
            errors,
            saved: saved.bytes(),
        })
    }
}
